"""A prepared problem solved, from nothing or from a start, and solved again where the fitted energy asks for it."""

from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from hpcxrf.errors import FitError
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.detector_sum import SOLVED
from hpcxrf.fitting.spectrum.integrated import fit_spectrum
from hpcxrf.fitting.spectrum.judge import judge_fit
from hpcxrf.fitting.spectrum.prepare import lines_at
from hpcxrf.fitting.spectrum.problem import FitProblem, start_from
from hpcxrf.fitting.spectrum.search import fit_from_nothing
from hpcxrf.fitting.spectrum.theta import INCIDENT
from hpcxrf.notes import Note
from hpcxrf.physics.parameters import INDEX, pack

_INCIDENT: Final = INDEX[INCIDENT]


def solve_problem(counts: Tensor, problem: FitProblem) -> SpectrumFit:
    """Fit the integrated spectrum of one detector.

    Args:
        counts: (channel,) raw counts of the full spectrum.
        problem: of `prepare_spectrum`.

    Returns:
        The fit with its verdict, and with the problem as it was posed. Theta is NaN where there is no solution: where
        the fit began is no result.

    Raises:
        FitError: the fit range lies outside of the spectrum, or no axis puts it inside.
    """
    if problem.find_axis and bool(torch.isfinite(counts).all()) and float(counts.sum()) > 0.0:
        fit = fit_from_nothing(counts, problem)
    else:
        fit = fit_spectrum(counts, problem)
    if fit.status in SOLVED:
        fit = _fit_at_fitted_energy(counts, fit, problem)
    return _settle(fit, problem)


def refit(counts: Tensor, problem: FitProblem) -> SpectrumFit:
    """Fit another spectrum of the same detector from the problem's own start, without a search.

    Args:
        counts: (channel,) raw counts of the full spectrum, of a region for example.
        problem: of `start_from` at the theta of an earlier fit; one without energy axis is solved from nothing.
    """
    if problem.find_axis:
        return solve_problem(counts, problem)
    return _settle(fit_spectrum(counts, problem, starts=pack(problem.parameters)[None]), problem)


def _settle(fit: SpectrumFit, problem: FitProblem) -> SpectrumFit:
    theta = fit.theta if fit.status in SOLVED else torch.full_like(fit.theta, torch.nan)
    return judge_fit(replace(fit, theta=theta, problem=problem))


def _fit_at_fitted_energy(counts: Tensor, fit: SpectrumFit, problem: FitProblem) -> SpectrumFit:
    """Fit again with the lines of the fitted incident energy, where an edge lies between it and the nominal one.

    The edge switch of the model can turn lines off, but not bring lines that the nominal energy does not excite, nor
    give what is left of a family its right sum.
    """
    nominal, fitted = problem.table.incident_energy_kev, float(fit.theta[_INCIDENT])
    low, high = sorted((nominal, fitted))
    crossed = [edge for edge in problem.edges_kev if low < edge <= high]
    if not crossed:
        return fit
    edges = ", ".join(f"{edge:g}" for edge in crossed)
    finding = f"edges at {edges} keV lie between the nominal incident energy and the fitted {fitted:.3f} keV"
    try:
        table = lines_at(fitted, problem.table.component_names, problem.detector, problem.branching)
    except FitError as error:
        kept = f"{finding}; the lines are those of the nominal energy, as {error}"
        return replace(fit, notes=(*fit.notes, Note("warning", kept)))
    moved = replace(start_from(problem, fit.theta), table=table)
    again = fit_spectrum(counts, moved, starts=fit.theta[None])
    return replace(
        again,
        flags=fit.flags,
        cpu_s=fit.cpu_s + again.cpu_s,
        theta_initial=fit.theta_initial,
        notes=(*again.notes, Note("warning", f"{finding}; lines and ratios are those of the fitted energy")),
    )
