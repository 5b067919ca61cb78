"""A prepared problem solved, from nothing or from a start, and solved again where the fitted energy asks for it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from hpcxrf.fitting.axis.verdict import judge_given, keep_axis_notes
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.compiled import load_spectrum_kernels
from hpcxrf.fitting.spectrum.detector_sum import SOLVED
from hpcxrf.fitting.spectrum.from_nothing import fit_from_nothing
from hpcxrf.fitting.spectrum.integrated import fit_spectrum
from hpcxrf.fitting.spectrum.judge import judge_fit
from hpcxrf.fitting.spectrum.near_edges import doubt_of_energy_kev, find_unexcited, names_without_lines
from hpcxrf.fitting.spectrum.prepare import lines_at
from hpcxrf.fitting.spectrum.problem import FitProblem, start_from
from hpcxrf.fitting.spectrum.theta import INCIDENT, edge_reach_kev
from hpcxrf.notes import Note
from hpcxrf.physics.components import is_estimated, parse_component
from hpcxrf.physics.parameters import INDEX, pack

_INCIDENT: Final = INDEX[INCIDENT]


def solve_problem(counts: Tensor, problem: FitProblem, *, start: Tensor | None = None) -> SpectrumFit:
    """Fit the integrated spectrum of one detector.

    Args:
        counts: (channel,) raw counts of the full spectrum.
        problem: of `prepare_spectrum`.
        start: (parameter,) theta from which the search begins, where the energy axis is not to be found; None: the
            problem's own start, its peaks brought into place. The priors stay about the problem's.

    Returns:
        The fit with its verdict, and with the problem as it was posed. A component that the fitted energy does not
        excite has no lines in the table of the fit, no counts, and NaN for sigma and detection limit
        (`near_edges.drop_unexcited` leaves it out). Theta is NaN where there is no solution: where the fit began is no
        result.

    Raises:
        FitError: the fit range lies outside of the spectrum, or no axis puts it inside.
    """
    # What a process does once is not in the processor time of its first fit.
    load_spectrum_kernels()
    if problem.find_axis and bool(torch.isfinite(counts).all()) and float(counts.sum()) > 0.0:
        fit = fit_from_nothing(counts, problem)
        # About another incident energy, where the elastic peak stands elsewhere.
        problem = fit.problem or problem
    else:
        starts = None if start is None else start[None]
        fit = judge_given(fit_spectrum(counts, problem, starts=starts), counts, problem)
    fit = _settle(_fit_at_fitted_energy(counts, fit, problem), problem)
    return replace(fit, notes=(*fit.notes, *_note_estimates(problem.table.component_names)))


def refit(counts: Tensor, problem: FitProblem, *, start: Tensor | None = None) -> SpectrumFit:
    """Fit another spectrum of the same detector from the problem's own start, without a search.

    Args:
        counts: (channel,) raw counts of the full spectrum, of a region for example.
        problem: of `start_from` at the theta of an earlier fit; one without energy axis is solved from nothing.
        start: (parameter,) theta from which the steps begin; None: the problem's own, about which its priors are.
    """
    if problem.find_axis:
        return solve_problem(counts, problem)
    begun = _take_lines_of_start(problem)
    fit = fit_spectrum(counts, begun, starts=(pack(problem.parameters) if start is None else start)[None])
    return _settle(_fit_at_fitted_energy(counts, fit, begun, nominal_kev=problem.table.incident_energy_kev), problem)


def _take_lines_of_start(problem: FitProblem) -> FitProblem:
    """Give a problem the lines of the incident energy that it starts at, where an edge lies between it and the nominal.

    The fit that it starts from ended there: with the lines of the nominal energy every region would be fitted twice.
    """
    row, names = problem.parameters[_INCIDENT], problem.table.component_names
    if not _find_edges_between(problem.table.incident_energy_kev, row.value, problem):
        return problem
    reach_kev = edge_reach_kev(problem.parameters, row.prior_sd)
    unexcited = find_unexcited(names, row.value + reach_kev, row.value)
    lines = lines_at(row.value, names, problem.detector, problem.branching, reach_kev=reach_kev, unexcited=unexcited)
    return replace(problem, table=lines)


def _find_edges_between(one_kev: float, other_kev: float, problem: FitProblem) -> list[float]:
    low, high = sorted((one_kev, other_kev))
    return [edge for edge in problem.edges_kev if low < edge <= high]


def _note_estimates(names: Sequence[str]) -> list[Note]:
    """A warning of families of which the line ratios are an estimate."""
    found = [name for name in names if is_estimated(parse_component(name))]
    if not found:
        return []
    text = (
        f"{', '.join(found)}: ratios of the M lines are an estimate, as no table has those of an open 4f shell; use L "
        "lines where the incident energy excites them"
    )
    return [Note("warning", text)]


def _settle(fit: SpectrumFit, problem: FitProblem) -> SpectrumFit:
    theta = fit.theta if fit.status in SOLVED else torch.full_like(fit.theta, torch.nan)
    return judge_fit(replace(fit, theta=theta, problem=problem))


def _fit_at_fitted_energy(
    counts: Tensor, fit: SpectrumFit, problem: FitProblem, *, nominal_kev: float | None = None
) -> SpectrumFit:
    """Fit again with the lines of the fitted incident energy, where an edge lies between it and that of the lines.

    The edge switch of the model can turn lines off, but not bring lines that the other energy does not excite, nor
    give what is left of a family its right sum.

    Args:
        counts: (channel,) raw counts.
        fit: of the problem.
        problem: with the lines that were fitted.
        nominal_kev: the incident energy as it was given; None: that of the lines.
    """
    if fit.status not in SOLVED or not problem.edges_kev:
        return fit
    own_kev, fitted = problem.table.incident_energy_kev, float(fit.theta[_INCIDENT])
    doubt, names = doubt_of_energy_kev(fit, problem), problem.table.component_names
    gone = find_unexcited(names, fitted + doubt, fitted)
    crossed = _find_edges_between(own_kev if nominal_kev is None else nominal_kev, fitted, problem)
    if _find_edges_between(own_kev, fitted, problem) or not names_without_lines(problem.table).issuperset(gone):
        table = lines_at(fitted, names, problem.detector, problem.branching, reach_kev=doubt, unexcited=gone)
        moved = replace(start_from(problem, fit.theta), table=table)
        again = fit_spectrum(counts, moved, starts=fit.theta[None])
        fit = replace(
            again,
            flags=fit.flags,
            cpu_s=fit.cpu_s + again.cpu_s,
            theta_initial=fit.theta_initial,
            notes=(*again.notes, *keep_axis_notes(fit.notes)),
        )
    notes = [*gone.values()]
    if crossed:
        edges = ", ".join(f"{edge:g}" for edge in crossed)
        text = (
            f"edges at {edges} keV lie between the nominal incident energy and the fitted {fitted:.3f} keV; lines and "
            "ratios are those of the fitted energy"
        )
        notes.append(Note("warning", text))
    return replace(fit, notes=(*fit.notes, *notes))
