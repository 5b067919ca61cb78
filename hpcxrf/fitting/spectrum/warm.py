"""The fit of a detector begun at that of another scan: the same problem, and the same optimum for less work.

Priors stay about the problem's own start, so that where the search begins changes nothing but how long it takes. What
speaks against the result has it made again from the problem's own start, and the better of the two is kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from hpcxrf.fitting.result import FitStatus, SpectrumFit
from hpcxrf.fitting.spectrum.judge import judge_fit
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.fitting.spectrum.search import set_axis
from hpcxrf.fitting.spectrum.solve import solve_problem
from hpcxrf.fitting.spectrum.theta import AXIS, INCIDENT
from hpcxrf.fitting.verdict import Verdict
from hpcxrf.physics.parameters import Parameter

_FARTHEST_SD: Final = 3.0
"""Standard deviations from the problem's own axis beyond which another scan's is that of another detector."""
_MORE_LEFT: Final = 0.002
"""Share of the variance that a fit may leave beyond what that of the other scan leaves."""
_NOISE: Final = 1.25
"""Times the share that is expected of counting noise, which is no news."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmStart:
    """The fit of one detector in another scan."""

    theta: Mapping[str, float]
    """Fitted values by name."""
    verdict: Verdict
    unexplained: float
    """Share of the variance that it leaves beyond the noise."""


def measure_unexplained(r2: float, r2_expected: float) -> float:
    """Share of the variance, 0 to 1, that a fit leaves beyond what counting noise does."""
    return max((1.0 - r2) - _NOISE * (1.0 - r2_expected), 0.0)


def solve_warm(counts: Tensor, problem: FitProblem, start: WarmStart) -> tuple[SpectrumFit, str]:
    """Fit a spectrum from where another scan's fit ended, and again from its own start where that ends worse.

    Args:
        counts: (channel,) raw counts of the full spectrum.
        problem: of `prepare_spectrum`.
        start: fit of the same detector in another scan.

    Returns:
        The better fit, and how it began: `warm`, or `cold: ` with the reason.

    Raises:
        FitError: the fit range lies outside of the spectrum, or no axis puts it inside.
    """
    if reason := _find_other_detector(problem, start):
        return solve_problem(counts, problem), f"cold: {reason}"
    theta = _place_start(problem, start)
    # The axis of a scan that gives none is about where the same detector had it before.
    posed = replace(set_axis(problem, theta), find_axis=False) if problem.find_axis else problem
    warm = judge_fit(replace(solve_problem(counts, posed, start=theta), problem=problem))
    if not (reason := _find_fault(warm, start)):
        return warm, "warm"
    cold = solve_problem(counts, problem)
    if _is_better(warm, cold):
        return warm, f"warm: {reason}, and no better from the start"
    return cold, f"cold: {reason}"


def _find_other_detector(problem: FitProblem, start: WarmStart) -> str:
    """Why the energy axis of the other scan cannot be that of this detector; empty: it can."""
    axis = [row for row in problem.parameters if row.name in AXIS and row.free]
    far = [row.name for row in axis if not problem.find_axis and _is_far(row, start.theta)]
    return f"{', '.join(far)} of the donor is that of another detector" if far else ""


def _place_start(problem: FitProblem, start: WarmStart) -> Tensor:
    """Theta (parameter,) of the other scan within the bounds of a problem."""
    return torch.tensor([_place(row, start.theta) for row in problem.parameters], dtype=torch.float64)


def _is_far(row: Parameter, theta: Mapping[str, float]) -> bool:
    return abs(theta.get(row.name, row.value) - row.value) > _FARTHEST_SD * row.prior_sd


def _place(row: Parameter, theta: Mapping[str, float]) -> float:
    # The beam is this scan's own.
    if not row.free or row.name == INCIDENT:
        return row.value
    return min(max(theta.get(row.name, row.value), row.lower), row.upper)


def _find_fault(fit: SpectrumFit, start: WarmStart) -> str:
    """What speaks against a fit, by what is expected after that of the other scan; empty: nothing."""
    if fit.status is FitStatus.EMPTY:
        return ""
    if fit.status is not FitStatus.CONVERGED:
        return f"the fit from there ended as {fit.status.name.lower().replace('_', ' ')}"
    if fit.verdict > start.verdict:
        return f"the fit from there is {fit.verdict.word}"
    left = measure_unexplained(fit.r2, fit.r2_expected)
    if left > start.unexplained + _MORE_LEFT:
        return f"the fit from there leaves {left:.2%} of the variance, that of the donor {start.unexplained:.2%}"
    return ""


def _is_better(one: SpectrumFit, other: SpectrumFit) -> bool:
    """Whether a fit is better than another of the same spectrum, or as good."""
    if one.verdict is not other.verdict:
        return one.verdict < other.verdict
    return not one.deviance > other.deviance
