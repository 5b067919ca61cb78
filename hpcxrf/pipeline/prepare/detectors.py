"""The integrated spectra of the detectors of one scan: prepared, fitted, and fitted again with what is missing."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor

from hpcxrf.config.run import RunConfig
from hpcxrf.errors import FitError
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.near_edges import drop_unexcited, notes_of_left_out
from hpcxrf.fitting.spectrum.problem import FitProblem, start_from
from hpcxrf.fitting.spectrum.solve import solve_problem
from hpcxrf.fitting.spectrum.suggestion import Suggestion, add_elements
from hpcxrf.fitting.spectrum.warm import WarmStart, solve_warm
from hpcxrf.notes import Note
from hpcxrf.pipeline.prepare.elements import list_found
from hpcxrf.pipeline.prepare.from_config import PreparedFit, prepare
from hpcxrf.pipeline.prepare.suggestions import suggest_components
from hpcxrf.pipeline.records import ScanFacts

# What is added changes what is left: look again, but not for ever.
_ROUNDS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorFits:
    """Fits of some detectors of one scan, all with the same components."""

    problems: tuple[FitProblem, ...]
    fits: tuple[SpectrumFit, ...]
    suggested: tuple[tuple[Suggestion, ...], ...]
    """Components by detector, in the same order, that are not listed but present in the residual."""
    notes: tuple[Note, ...]
    """Choices made, each once."""
    began: tuple[str, ...] = ()
    """Where each fit began, of those that were given another scan's: `warm`, or `cold: ` with the reason."""


def fit_detectors(
    config: RunConfig,
    facts: ScanFacts,
    detectors: Sequence[int],
    counts: Tensor,
    starts: Mapping[int, WarmStart] = MappingProxyType({}),
) -> DetectorFits:
    """Fit the integrated spectrum of each detector.

    Args:
        config: run file; `fit.auto_elements` adds suggested elements and fits again, for all detectors alike.
        facts: facts of the scan.
        detectors: numbers of the detectors, counted from 0.
        counts: (detector, channel), of all detectors of the scan.
        starts: fits of the same detectors in another scan, by number, at which the searches begin.

    Raises:
        ConfigError: no elements, calibration or incident energy.
        FitError: elements that do not exist, cannot be excited, or lie outside the fit range.
        InputFileError: an override file cannot be read.
    """
    config, said = list_found(config, facts, detectors, counts)
    prepared, notes = _prepare_alike(config, facts, detectors, counts)
    notes = [*said, *notes]
    problems = [p.problem for p in prepared]
    solved = [_solve_one(counts[d], p, starts.get(d)) for d, p in zip(detectors, problems, strict=True)]
    problems, fits = _drop_unexcited([fit for fit, _ in solved], problems)
    notes += notes_of_left_out(fits)
    suggested = suggest_components(config.fit, fits, problems)
    added: dict[str, float] = {}
    for _ in range(_ROUNDS if config.fit.auto_elements else 0):
        listed = problems[0].table.component_names
        found = [s for one in suggested for s in one]
        wanted = tuple(dict.fromkeys(add_elements(listed, sorted(found, key=lambda s: -s.z))))
        if wanted == listed:
            break
        added |= {s.name: s.z for s in sorted(found, key=lambda s: s.z) if s.name in wanted}
        more = dataclasses.replace(config, sample=dataclasses.replace(config.sample, elements=wanted))
        prepared = [_prepare(more, facts, d, counts) for d in detectors]
        problems = [_continue(p.problem, fit) for p, fit in zip(prepared, fits, strict=True)]
        problems, fits = _solve(counts, detectors, problems)
        suggested = suggest_components(config.fit, fits, problems)
    names = ", ".join(f"{name} (z {z:.0f})" for name, z in added.items())
    notes += [Note("fact", f"elements added by suggestion: {names}")] if added else []
    return DetectorFits(
        problems=tuple(problems),
        fits=tuple(fits),
        suggested=tuple(suggested),
        began=tuple(began for _, began in solved),
        notes=tuple(dict.fromkeys([*notes, *(n for p in prepared for n in p.notes)])),
    )


def _solve(
    counts: Tensor, detectors: Sequence[int], problems: Sequence[FitProblem]
) -> tuple[list[FitProblem], list[SpectrumFit]]:
    fits = [solve_problem(counts[d], p) for d, p in zip(detectors, problems, strict=True)]
    return _drop_unexcited(fits, problems)


def _solve_one(counts: Tensor, problem: FitProblem, start: WarmStart | None) -> tuple[SpectrumFit, str]:
    return (solve_problem(counts, problem), "") if start is None else solve_warm(counts, problem, start)


def _drop_unexcited(
    fits: Sequence[SpectrumFit], problems: Sequence[FitProblem]
) -> tuple[list[FitProblem], list[SpectrumFit]]:
    """Problems and fits of all detectors, without the families that the fitted energy does not excite in any."""
    fits = drop_unexcited(fits)
    return [fit.problem or problem for fit, problem in zip(fits, problems, strict=True)], fits


def _prepare_alike(
    config: RunConfig, facts: ScanFacts, detectors: Sequence[int], counts: Tensor
) -> tuple[list[PreparedFit], list[Note]]:
    """Prepare all detectors with the same components, and say why others were left out.

    Where a line lies at the end of the fit range, one detector may have it and another not.
    """
    prepared = [_prepare(config, facts, d, counts) for d in detectors]
    lists = [p.problem.table.component_names for p in prepared]
    common = tuple(name for name in lists[0] if all(name in one for one in lists))
    if all(one == common for one in lists):
        return prepared, []
    if not common:
        raise FitError(f"{facts.source}: no element has lines in the fit range of every detector; widen the range")
    alike = dataclasses.replace(config, sample=dataclasses.replace(config.sample, elements=common))
    notes = [note for p in prepared for note in p.notes]
    return [_prepare(alike, facts, d, counts) for d in detectors], notes


def _prepare(config: RunConfig, facts: ScanFacts, detector: int, counts: Tensor) -> PreparedFit:
    """A detector without counts needs no start; that it had none in an earlier scan either is no reason to stop."""
    if config.fit.previous is not None and float(counts[detector].sum()) <= 0.0:
        fit = dataclasses.replace(config.fit, previous=None, calibration="none")
        config = dataclasses.replace(config, fit=fit)
    return prepare(config, facts, detector)


def _continue(problem: FitProblem, fit: SpectrumFit) -> FitProblem:
    """The problem with more elements from where the fit with fewer ended, if it did."""
    return start_from(problem, fit.theta) if bool(torch.isfinite(fit.amplitude).all()) else problem
