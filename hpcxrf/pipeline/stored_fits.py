"""The fits of a run made again from what its stores keep: the same problem, counts and functions as in the run.

Fits by eye begin here: from the run's own settings, with another list of elements, or with the counts of a region.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from hpcxrf.config.run import RunConfig
from hpcxrf.errors import FitError, OutputError
from hpcxrf.fitting.count_scale import carry_count_factor
from hpcxrf.fitting.pixels.fit import single_thread
from hpcxrf.fitting.result import FitStatus, SpectrumFit
from hpcxrf.fitting.spectrum.compiled import load_spectrum_kernels
from hpcxrf.fitting.spectrum.detector_sum import SOLVED, fit_detector_sum
from hpcxrf.fitting.spectrum.problem import FitProblem, fit_range
from hpcxrf.fitting.spectrum.solve import solve_problem
from hpcxrf.fitting.spectrum.suggestion import combine_detectors
from hpcxrf.notes import Note
from hpcxrf.physics.model import SCATTER
from hpcxrf.pipeline.pixels.findings import Findings, read_findings
from hpcxrf.pipeline.pixels.flags import saturated_spectra
from hpcxrf.pipeline.prepare.detectors import fit_detectors
from hpcxrf.pipeline.prepare.facts import scan_facts
from hpcxrf.pipeline.prepare.from_config import prepare
from hpcxrf.pipeline.prepare.inputs import SUM
from hpcxrf.pipeline.prepare.suggestions import as_records, suggest_components
from hpcxrf.pipeline.records import ScanFacts
from hpcxrf.pipeline.regions.refine import refinement_config
from hpcxrf.pipeline.request import config_of_dataset, config_of_run
from hpcxrf.results.store.basis import component_names
from hpcxrf.results.store.opening import open_results
from hpcxrf.results.store.storage import require_readable_schema
from hpcxrf.runner.worker import one_thread
from hpcxrf.store.rundir import open_run
from hpcxrf.store.spectra import SpectraStore, open_spectra

_SAME_SIGMA: Final = 1e-3
"""How far theta may be from that of the run, in standard deviations, to be called the same."""

Counts = Mapping[int, Tensor]
"""Counts (channel,) of full spectra by number of the detector."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredScan:
    """One dataset of a run, with all that its integrated fit was prepared from."""

    spectra: SpectraStore
    config: RunConfig
    """Configuration of the run with the components of its fit, separable."""
    given: RunConfig
    """Configuration of the run."""
    facts: ScanFacts
    findings: Findings
    elements: tuple[str, ...]
    """Components that the run fitted, without scatter."""
    theta: Mapping[str, Mapping[str, float] | None]
    """Fitted theta by detector; None: no solution."""
    counts: Mapping[str, Tensor]
    """Integrated counts (channel,) that were fitted, by name of the result, outlier and saturated pixels left out."""
    detectors: tuple[str, ...]
    """Names of the results."""

    @property
    def members(self) -> tuple[int, ...]:
        """Numbers of the detectors that the sum is made of."""
        return tuple(d for d in range(self.facts.n_detectors) if d not in self.findings.left_out)


def open_stored_scan(run_dir: Path, dataset_id: str) -> StoredScan:
    """Open a finished dataset of a run for fits.

    Raises:
        OutputError: no run there, no such dataset in it, or a damaged one.
        ConfigError: the run was made by another version, whose options are none any more.
    """
    run = open_run(run_dir)
    path = run.results_store(dataset_id)
    attributes = require_readable_schema(path)
    config = config_of_dataset(config_of_run(run)[0], attributes)
    spectra = open_spectra(run.spectra_store(dataset_id))
    components = component_names(path)
    spectrum = open_results(path)["spectrum"].to_dataset()
    names = tuple(str(name) for name in spectrum["detector"].values)
    rows = spectrum["counts"].load().values
    theta = attributes.get("theta_by_detector")
    if not isinstance(theta, dict) or not spectra.sources:
        raise OutputError(f"{path}: keeps no fitted theta of each detector; run the scan again with this version")
    return StoredScan(
        spectra=spectra,
        config=refinement_config(config, components),
        given=config,
        facts=scan_facts(spectra, Path(spectra.sources[0].path)),
        findings=read_findings(attributes),
        elements=tuple(name for name in components if name not in SCATTER),
        theta=theta,
        counts={name: torch.from_numpy(row) for name, row in zip(names, rows, strict=True) if np.isfinite(row).all()},
        detectors=names,
    )


def pose(scan: StoredScan, detector: int, elements: Sequence[str]) -> FitProblem:
    """Prepare the fit of a detector as the run does, with a list of elements.

    Raises:
        FitError: an element that this scan cannot show; each with the reason.
        ConfigError: files that the run was prepared from are gone or say something else.
    """
    sample = dataclasses.replace(scan.config.sample, elements=tuple(elements))
    prepared = prepare(dataclasses.replace(scan.config, sample=sample), scan.facts, detector)
    missing = [name for name in elements if name not in prepared.problem.table.component_names]
    if missing and set(missing) - set(scan.elements):
        reasons = [n.text.removeprefix("left out of this scan: ") for n in prepared.notes if "left out" in n.text]
        raise FitError(f"{'; '.join(reasons) or ', '.join(missing)}; take {', '.join(missing)} off the list")
    return prepared.problem


def read_scan_counts(scan: StoredScan, detector: int) -> Tensor:
    """Counts (channel,) of the whole scan that the run fitted, of a detector that may have no results of its own."""
    if (stored := scan.counts.get(str(detector))) is not None:
        return stored
    problem = pose(scan, detector, scan.elements)
    low, high = fit_range(problem.parameters, problem.energy_min_kev, problem.energy_max_kev, scan.facts.n_channels)
    total = scan.spectra.integrated(detector)
    total = total - saturated_spectra(scan.spectra, {detector: slice(low, high + 1)})[detector]
    for y, x in scan.findings.outliers.get(detector, ()):
        total = total - scan.spectra.read_rows([detector], slice(y, y + 1), slice(x, x + 1))[0, 0, 0]
    return torch.from_numpy(total)


def fit_whole(scan: StoredScan, detector: int, elements: Sequence[str]) -> SpectrumFit:
    """Fit the integrated spectrum of the whole scan as a run with these elements does, from the run's own start.

    With the elements of the run it is the fit of the run, to the last bit; a note says so where it is not.
    """
    problem = pose(scan, detector, elements)
    with one_thread():
        fit = solve_problem(read_scan_counts(scan, detector), problem)
    fit = carry_factor(scan, fit, str(detector))
    stored = scan.theta.get(str(detector))
    if tuple(elements) != scan.elements or stored is None or fit.status not in SOLVED or is_same(fit, stored):
        return fit
    text = (
        "the run's own fit is not met: it was made with another method or version, or an override file beside the scan "
        "has changed since; fits by eye begin at this one"
    )
    return dataclasses.replace(fit, notes=(*fit.notes, Note("warning", text)))


def fit_as_extended(scan: StoredScan) -> dict[int, SpectrumFit]:
    """Fit the whole scan as the run did, which added elements by suggestion and went on from fits with fewer.

    Returns:
        Fits by detector; none where the run added nothing so, or is not met with its files of today.
    """
    if not scan.given.fit.auto_elements or scan.given.fit.method != "separable":
        return {}
    every = range(scan.facts.n_detectors)
    with one_thread():
        counts = torch.stack([read_scan_counts(scan, d) for d in every])
        found = fit_detectors(scan.given, scan.facts, every, counts)
    if {name for fit in found.fits for name in fit.component_names} - SCATTER != set(scan.elements):
        return {}
    return {d: carry_factor(scan, fit, str(d)) for d, fit in zip(every, found.fits, strict=True)}


def is_same(fit: SpectrumFit, theta: Mapping[str, float]) -> bool:
    """Whether theta of a fit is that of the run, to a thousandth of its sigma; of what was held exactly."""
    rows = zip(fit.parameter_names, fit.theta.tolist(), fit.theta_sigma.tolist(), strict=True)
    return all(
        abs(value - theta[name]) <= (_SAME_SIGMA * sigma if math.isfinite(sigma) else 1e-9 * max(abs(value), 1e-9))
        for name, value, sigma in rows
        if name in theta
    )


def sum_fits(scan: StoredScan, fits: Mapping[int, SpectrumFit], counts: Counts) -> SpectrumFit:
    """Fit the sum of the detectors at their own thetas, as a run does.

    Args:
        scan: the scan.
        fits: fits by detector, of `members`.
        counts: counts of the same detectors.

    Raises:
        FitError: no detector has a solution.
    """
    some = next(iter(fits.values()))
    nothing = dataclasses.replace(some, status=FitStatus.EMPTY)
    every = range(scan.facts.n_detectors)
    parts = [fits.get(d, nothing) for d in every]
    problems = [fit.problem or some.problem for fit in parts]
    known = [problem for problem in problems if problem is not None]
    if len(known) < len(problems):
        raise FitError("no detector has a fit to be summed; choose a detector")
    zeros = torch.zeros(scan.facts.n_channels, dtype=torch.float64)
    with one_thread():
        fit = fit_detector_sum(torch.stack([counts.get(d, zeros) for d in every]), parts, known)
    return carry_factor(scan, fit, SUM)


def carry_factor(scan: StoredScan, fit: SpectrumFit, name: str) -> SpectrumFit:
    """The fit with the errors of counts that scatter as those of the scan do.

    Args:
        scan: the scan.
        fit: fit of counts of a detector, or of the sum.
        name: name of the detector.
    """
    return carry_count_factor(fit, scan.findings.factor_of(name))


def suggest_again(scan: StoredScan, fits: Sequence[SpectrumFit]) -> list[dict[str, Any]]:
    """Components that are not listed but in the residuals, of all detectors together, as JSON values.

    Args:
        scan: the scan, whose run file says whether anything is looked for.
        fits: solved fits of detectors.
    """
    known = [(fit, fit.problem) for fit in fits if fit.problem is not None]
    with one_thread():
        found = suggest_components(scan.config.fit, [fit for fit, _ in known], [problem for _, problem in known])
    return as_records(combine_detectors(found))


def prepare_process() -> None:
    """Set a process up for fits, which takes seconds: one thread, and the kernels, compiled where they are not yet."""
    single_thread()
    load_spectrum_kernels()


def arrange_elements(scan: StoredScan, names: Collection[str]) -> tuple[str, ...]:
    """Order a list as the run has it, what it lacks at the end: the same list gives the same fit."""
    kept = tuple(name for name in scan.elements if name in names)
    return (*kept, *(name for name in names if name not in kept))
