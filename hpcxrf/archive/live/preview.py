"""What workers do for scans that are watched: a first view of one that grows, and the loading of what fits need."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from hpcxrf.config.run import RunConfig

LISTED: Final = 12
"""Families that are listed of a scan, the strongest first."""


def view_rows(path: Path, config: RunConfig, rows: int | None) -> dict[str, Any]:
    """Fit the integrated spectrum over the complete rows of a scan that grows: a first view, kept nowhere.

    Args:
        path: the scan.
        config: the run's configuration.
        rows: complete rows; None: all but the last one of those that the file has now.

    Returns:
        JSON values: rows, elements found, R2, verdict.

    Raises:
        HpcxrfError: it cannot be read or fitted yet.
    """
    from hpcxrf.formats.registry import open_scan
    from hpcxrf.pipeline.prepare.inputs import SUM, read_options
    from hpcxrf.pipeline.single import fit_file

    shape = open_scan(path, read_options(config)).shape
    complete = max(1, shape[1] - 1) if rows is None else rows
    fitted = fit_file(path, config, SUM if shape[0] > 1 else "0", rows=complete)
    fit = fitted.fit
    amplitudes = dict(zip(fit.component_names, fit.amplitude.tolist(), strict=True))
    found = [name for name, is_found in zip(fit.component_names, fit.found.tolist(), strict=True) if is_found]
    return {
        "rows": complete,
        "elements": _list_families(sorted(found, key=amplitudes.__getitem__, reverse=True)),
        "r2": fit.r2,
        "verdict": fit.verdict.word,
    }


def warm_up(config: RunConfig) -> None:
    """Load what the first scan of a worker would wait for: modules, and kernels, which are compiled in a thread."""
    import hpcxrf.pipeline.single  # noqa: F401 (loaded for the views to come)
    from hpcxrf.pipeline.pixels.compiling import begin_compiling

    begin_compiling(config)


def list_found(store: Path) -> list[str]:
    """Families of elements that were found in the integrated spectrum of a finished scan, the strongest first.

    Args:
        store: its results store, folder or zip.

    Raises:
        OutputError: it cannot be read.
    """
    import numpy as np

    from hpcxrf.fitting.limits import decision_limit
    from hpcxrf.results.names import SUM
    from hpcxrf.results.photon_variance import read_photon_variance
    from hpcxrf.results.store.opening import open_results

    with open_results(store) as tree:
        spectrum = tree["spectrum"].to_dataset()
        detectors = [str(name) for name in spectrum["detector"].values]
        shown = SUM if SUM in detectors else detectors[0]
        values = spectrum.isel(detector=detectors.index(shown))
        amplitude = np.nan_to_num(values["amplitude"].values)
        limit = decision_limit(values["detection_limit"].values, read_photon_variance(spectrum, shown))
        names = [str(name) for name in values["component"].values]
    return _list_families(names[int(i)] for i in np.argsort(-amplitude) if amplitude[i] > limit[i])


def _list_families(components: Iterable[str]) -> list[str]:
    """The first families of elements among components; scattered lines have other names for people."""
    from hpcxrf.results.names import shown_name

    return [name for name in components if shown_name(name) == name][:LISTED]
