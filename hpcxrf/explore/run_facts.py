"""What the explorer knows of the fit of a run: read from its results store, which it never writes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import xarray as xr

from hpcxrf.config.run import RunConfig
from hpcxrf.errors import ConfigError, OutputError
from hpcxrf.explore.fit_records import Json, pack_stored_fit, read_parameters
from hpcxrf.explore.requests import RunFacts
from hpcxrf.fitting.spectrum.theta import EDGE_REACH_SD
from hpcxrf.physics.constants import constant_set
from hpcxrf.physics.scatter_names import ELASTIC, SCATTER
from hpcxrf.pipeline.request import config_of_run
from hpcxrf.results.store.opening import open_results
from hpcxrf.results.store.storage import require_readable_schema
from hpcxrf.store.rundir import open_run

RUN_FIT: Final = "run-"
"""Beginning of the ids of the fits of the run; the name of the detector follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedRun:
    """One dataset of a run."""

    run_dir: Path
    dataset_id: str
    run_text: str
    """Text of the run file, as it was given."""
    config: RunConfig
    facts: RunFacts
    attributes: Json
    """Attributes of the results store."""
    n_pixels: int
    n_detectors: int


def open_run_facts(run_dir: Path, dataset_id: str) -> OpenedRun:
    """Open a dataset of a run.

    Raises:
        OutputError: no run there, or its results cannot be read.
        ConfigError: the run was made by another version, whose options are none any more.
    """
    run = open_run(run_dir)
    config, text = config_of_run(run)
    path = run.results_store(dataset_id)
    attributes: Json = dict(require_readable_schema(path))
    if "theta_by_detector" not in attributes:
        raise OutputError(f"{path}: keeps no fitted theta; run the scan again with this version")
    with open_results(path) as tree:
        table = tree["parameters"].to_dataset()
        detectors = tuple(str(name) for name in table["detector"].values)
        components = tuple(str(name) for name in tree["spectrum"].to_dataset()["component"].values)
        sizes = tree["maps"].sizes
        parameters = {name: tuple(read_parameters(tree, name)) for name in detectors}
    is_beam = ELASTIC in components and config.sample.source == "monochromatic"
    left_out = {int(d) for d in attributes.get("detectors_left_out", {})}
    every = [int(d) for d in attributes["theta_by_detector"]]
    return OpenedRun(
        run_dir=run_dir,
        dataset_id=dataset_id,
        run_text=text,
        config=config,
        facts=RunFacts(
            detectors=detectors,
            members=tuple(d for d in every if d not in left_out),
            elements=tuple(name for name in components if name not in SCATTER),
            scatter=tuple(name for name in components if name in SCATTER),
            incident_energy_kev=float(attributes["incident_energy_kev"]),
            reach_kev=EDGE_REACH_SD * config.fit.incident_energy_sd_kev if is_beam else 0.0,
            width_factor=constant_set(config.fit.constants).width_factor,
            parameters=parameters,
        ),
        attributes=attributes,
        n_pixels=int(sizes["y"] * sizes["x"]),
        n_detectors=len(every),
    )


def read_run_fit(opened: OpenedRun, detector: str) -> Json:
    """The integrated fit of the run, as a fit of the explorer.

    Raises:
        ConfigError: no such detector.
    """
    if detector not in opened.facts.detectors:
        raise ConfigError(f"{detector[:40]!r} is not a fitted detector; choose {' or '.join(opened.facts.detectors)}")
    path = open_run(opened.run_dir).results_store(opened.dataset_id)
    with open_results(path) as tree:
        return complete_run_fit(tree, detector, opened)


def complete_run_fit(tree: xr.DataTree, detector: str, opened: OpenedRun) -> Json:
    """The fit of a run from its open results store."""
    shared: dict[str, Any] = {
        "id": f"{RUN_FIT}{detector}",
        "parent": None,
        "at": None,
        "kind": "full",
        "selection": {"kind": "all"},
        "n_pixels": opened.n_pixels,
        "elements": list(opened.facts.elements),
        "focus": None,
        "start": {},
        "changed": [],
        "taken_back": False,
    }
    return {**shared, **pack_stored_fit(tree, detector)}
