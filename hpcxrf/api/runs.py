"""Runs on this machine, and their results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcxrf.errors import DatasetsFailedError
from hpcxrf.pipeline.arguments import split_names

if TYPE_CHECKING:
    from hpcxrf.results.opened import Results


def run(
    source: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    elements: Sequence[str] | None = None,
    incident_energy_kev: float | None = None,
    **sections: Mapping[str, Any],
) -> "Results":
    """Run the whole pipeline on this machine: ingest, fits, maps, regions, report. A second call goes on where it was.

    It starts worker processes: a script needs `if __name__ == "__main__":` around the call; a notebook does not.

    Args:
        source: a run file (YAML), or scans: files, folders or patterns.
        output: the run directory.
        elements: families as for `fit_spectrum`; None: those of the run file or of the override files.
        incident_energy_kev: energy of the beam; None: that of the files.
        sections: values by section of the run file, over those of the run file:
            `pixels={"method": "poisson"}, execution={"workers": 4}`.

    Returns:
        The results, one tree of Datasets a scan.

    Raises:
        ConfigError: values that are not valid, all faults at once.
        InputFileError: no scan was found.
        OutputError: the run directory cannot be used, or holds another configuration.
        DatasetsFailedError: the run went to its end, but some scans failed; `open_results` has the others.

    Example:
        >>> results = hpcxrf.run("leaf.npz", "out", elements=["Si", "Ca", "Fe"], incident_energy_kev=12.0,
        ...                      fit={"suggest": False}, execution={"workers": 1})  # doctest: +SKIP
        >>> results.maps().xrf.map("Fe").dims  # doctest: +SKIP
        ('detector', 'y', 'x')
    """
    from hpcxrf.cluster.local.run import run_here
    from hpcxrf.pipeline.map_arguments import read_run_config
    from hpcxrf.workloads import choose_workload

    sample = {
        "elements": None if elements is None else split_names(elements),
        "incident_energy_kev": incident_energy_kev,
    }
    given = {name: value for name, value in sample.items() if value is not None}
    config, text = read_run_config(source, {**sections, "sample": {**sections.get("sample", {}), **given}})
    choose_workload(config).check(config)
    result = run_here(config, text, Path(output), command="hpcxrf.run")
    if result.failed:
        reasons = "\n".join(f"  {name}: {reason}" for name, reason in result.failed.items())
        raise DatasetsFailedError(
            f"{len(result.failed)} of the datasets failed, all others are done; fix the cause and call run again:\n"
            f"{reasons}"
        )
    return open_results(output)


def open_results(path: str | Path) -> "Results":
    """Open the results of a run: a mapping from the name of a dataset to a tree of xarray Datasets.

    Args:
        path: a run directory, or one results store `results/<dataset>.zarr`.

    Returns:
        The finished datasets; one is opened when it is asked for. `results.maps()` and `results.spectrum()` open
        those of the only dataset, `results.maps(name)` of one of several.

    Raises:
        OutputError: no results there, or none that are finished.

    Example:
        >>> results = hpcxrf.open_results("out")
        >>> list(results)
        ['leaf']
        >>> sorted(results["leaf"].children)
        ['maps', 'spectrum']
        >>> results.maps()["amplitude"].dims
        ('detector', 'component', 'y', 'x')
    """
    from hpcxrf.results.accessor import register_accessor
    from hpcxrf.results.opened import find_results

    register_accessor()
    return find_results(Path(path))
