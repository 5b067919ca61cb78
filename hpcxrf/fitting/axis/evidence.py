"""Which families a spectrum shows on one energy axis: greedy evidence over the periodic table.

A family joins where half of the chi2 that it explains exceeds a price: 8, and more the less common it is. The residual
is weighed in a covariance of counting noise, a relative error of everything, and the usual flaws of the model, so that
what these explain is no evidence. Axis and widths are refined on the way.
"""

from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from hpcxrf.fitting.axis.binned import (
    N_THETA,
    RARE_COST,
    AxisPoint,
    Bins,
    Flaws,
    Shapes,
    build_shapes,
    families_by_name,
    leave_out_flaws,
    list_flaws,
    move_axis,
    table_at,
)
from hpcxrf.fitting.axis.peaks import Peaks
from hpcxrf.fitting.axis.plausibility import cost_beside, is_expected, is_possible
from hpcxrf.physics.detector import Detector
from hpcxrf.physics.lines import LineTable

FAMILY_PRICE: Final = 8.0
"""Half chi2 that a family has to explain, beside how uncommon it is."""
LEAST_SURVIVING: Final = 0.02
_FIRST_COST: Final = 2.0
_AT_ONCE: Final = 4
_APART_KEV: Final = 0.45
_BETA_KEV: Final = 0.1
_FARTHEST_WIDTHS: Final = 0.5
_MOST_DROPS: Final = 2
_EVERY_Z: Final = 30.0
_RIVAL_OVERLAP: Final = 0.7
EXPECTED_SHARE: Final = 0.7
"""Lines that are expected take the place of others if they explain this share of it: M ratios are hardly known."""
_RIDGE: Final = 1e-9
_MOST_PIVOTS: Final = 200
_STATIONARY: Final = 1e-7


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypothesis:
    """Families on an axis."""

    at: AxisPoint
    names: tuple[str, ...]
    amplitude: dict[str, float] = field(default_factory=dict)
    """Counts of the families, as far as they are known."""
    rest: Tensor | None = None
    """Counts of background, scatter and pile-up, where they are known."""
    dropped: dict[str, int] = field(default_factory=dict)
    """How often a family was taken in vain."""
    cost: float = float("inf")
    """Half chi2 in the covariance of noise and flaws, and the prices of the families."""
    chi2: float = float("inf")
    """Reduced chi2 by the median of the residual, where 1 is expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What stays the same on one axis."""

    bins: Bins
    peaks: Peaks
    detector: Detector
    elastic: bool

    def build(self, at: AxisPoint) -> Shapes:
        """Columns at an axis."""
        return build_shapes(self.bins, self.peaks, at, self.table(at), elastic=self.elastic)

    def table(self, at: AxisPoint) -> LineTable:
        """Lines of all families that this axis's incident energy excites."""
        return table_at(at.incident_kev, self.detector)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fit:
    shapes: Shapes
    active: list[int]
    amplitude: Tensor
    """(family,)."""
    rest: Tensor
    factor: Tensor
    """Cholesky factor of the covariance."""
    flaws: Flaws
    flawed: Tensor
    """(family,) counts that the flaws were made with."""
    whitened: Tensor
    """(bin, column) active families and the rest, in units of the covariance."""
    used: Tensor
    """(column,) bool: above 0."""
    residual: Tensor
    """(bin,) in units of the covariance."""
    variance: Tensor


def seek(search: Search, begin: Hypothesis, *, relative: float, rounds: int) -> Hypothesis:
    """Refine an axis and add families, until nothing is found or the rounds are over.

    Args:
        search: spectrum and detector.
        begin: axis and families to begin from.
        relative: error of everything, as a share of the counts.
        rounds: most rounds; each moves the axis once.
    """
    here, fit = begin, None
    for number in range(rounds):
        fit = _solve(search, here, relative)
        here = _forget_absent(here, fit)
        step = fit.flaws.columns[:, :N_THETA].T @ _unwhiten(fit, fit.residual) - torch.tensor(here.at.moved)
        at = move_axis(here.at, step.tolist(), farthest_kev=_FARTHEST_WIDTHS * _narrowest_kev(search, here.at))
        found = _choose(fit, here, first=number < 2) if number < rounds - 1 else {}
        here = replace(here, at=at, names=(*here.names, *found), amplitude=here.amplitude | found)
        if not found and float(step.abs().max()) < 0.1:
            break
    fit = _solve(search, here, relative)
    return _weigh(_forget_absent(here, fit), fit)


def _narrowest_kev(search: Search, at: AxisPoint) -> float:
    return float(search.peaks.width.at(search.bins.edges[:1].numpy())[0]) * at.slope_kev


def _solve(search: Search, here: Hypothesis, relative: float) -> _Fit:
    """Amplitudes of the families, the background and scatter in the covariance of noise and flaws."""
    bins, shapes = search.bins, search.build(here.at)
    place = {name: i for i, name in enumerate(shapes.names)}
    active = [place[n] for n in here.names if n in place]
    columns = torch.cat([shapes.family[:, active], shapes.rest], dim=1)
    noise = bins.smooth.clamp(min=1.0)
    known = [here.amplitude.get(n, 0.0) for n in here.names if n in place]
    if here.rest is not None and here.rest.shape[0] == shapes.rest.shape[1]:
        x = torch.cat([torch.tensor(known, dtype=torch.float64), here.rest])
    else:
        x, _ = solve_nonnegative(columns / noise.sqrt()[:, None], bins.counts / noise.sqrt(), None)
    amplitude = torch.zeros(len(shapes.names), dtype=torch.float64)
    amplitude[active] = x[: len(active)]
    expected = torch.maximum(columns @ x, bins.smooth).clamp(min=1.0)
    variance = expected + (relative * bins.smooth).square()
    flaws = list_flaws(shapes, amplitude, x[len(active) :], here.at)
    factor = torch.linalg.cholesky(torch.diag(variance) + flaws.columns @ flaws.columns.T)
    # The axis is where it was expected, but for what it has moved already.
    centred = bins.counts + flaws.columns[:, :N_THETA] @ torch.tensor(here.at.moved, dtype=torch.float64)
    flawed = amplitude.clone()
    whole = torch.linalg.solve_triangular(factor, torch.cat([columns, centred[:, None]], dim=1), upper=False)
    whitened, target = whole[:, :-1], whole[:, -1]
    x, used = solve_nonnegative(whitened, target, x > 0.0)
    amplitude[active] = x[: len(active)]
    return _Fit(
        shapes=shapes,
        active=active,
        amplitude=amplitude,
        rest=x[len(active) :],
        factor=factor,
        flaws=flaws,
        flawed=flawed,
        whitened=whitened,
        used=used,
        residual=target - whitened @ x,
        variance=variance,
    )


def solve_nonnegative(columns: Tensor, target: Tensor, positive: Tensor | None) -> tuple[Tensor, Tensor]:
    """Least squares of amplitudes that are not negative, from a guess of those above 0, by active sets.

    Returns:
        Amplitudes (column,) and which of them are above 0.
    """
    norm = columns.norm(dim=0).clamp(min=1e-300)
    unit = (columns / norm).numpy()
    gram, right = unit.T @ unit + _RIDGE * np.eye(unit.shape[1]), unit.T @ target.numpy()
    passive = np.ones(right.size, dtype=bool) if positive is None else positive.numpy().copy()
    x = np.zeros(right.size)
    for _ in range(_MOST_PIVOTS):
        solved = np.zeros_like(x)
        solved[passive] = np.linalg.solve(gram[np.ix_(passive, passive)], right[passive])
        wrong = passive & (solved <= 0.0)
        if wrong.any():
            if not x.any():
                # Not begun yet: all that are negative leave.
                passive &= ~wrong
                continue
            share = x[wrong] / np.maximum(x[wrong] - solved[wrong], 1e-300)
            x = x + share.min() * (solved - x)
            passive &= x > 1e-12 * np.abs(x).max()
            x[~passive] = 0.0
            continue
        x = solved
        gradient = np.where(passive, -np.inf, right - gram @ x)
        if gradient.max() <= _STATIONARY * max(np.abs(right).max(), 1e-300):
            break
        passive[int(gradient.argmax())] = True
    return torch.from_numpy(x) / norm, torch.from_numpy(passive)


def _unwhiten(fit: _Fit, whitened: Tensor) -> Tensor:
    """The inverse covariance times a residual."""
    found: Tensor = torch.linalg.solve_triangular(fit.factor.T, whitened[:, None], upper=True)[:, 0]
    return found


def _forget_absent(here: Hypothesis, fit: _Fit) -> Hypothesis:
    """Without the families that ended at nothing."""
    sizes = {fit.shapes.names[i]: float(fit.amplitude[i]) for i in fit.active}
    kept = tuple(n for n in here.names if sizes.get(n, 0.0) > 0.0)
    gone = [n for n in here.names if n not in kept]
    dropped = here.dropped | {n: here.dropped.get(n, 0) + 1 for n in gone}
    return replace(here, names=kept, amplitude={n: sizes[n] for n in kept}, rest=fit.rest, dropped=dropped)


def _weigh(here: Hypothesis, fit: _Fit) -> Hypothesis:
    prices = sum(FAMILY_PRICE + cost_beside(n, here.names) for n in here.names)
    return replace(here, cost=0.5 * float(fit.residual.square().sum()) + prices, chi2=_median_chi2(fit.residual))


def _median_chi2(residual: Tensor) -> float:
    return max(float(residual.abs().median() / 0.6745) ** 2, 1.0)


def _project(fit: _Fit, columns: Tensor, used: Tensor) -> Tensor:
    """Columns without their part along what is fitted."""
    basis, _ = torch.linalg.qr(fit.whitened[:, used] / fit.whitened[:, used].norm(dim=0).clamp(min=1e-12))
    left = columns - basis @ (basis.T @ columns)
    found: Tensor = left - basis @ (basis.T @ left)
    return found


def _choose(fit: _Fit, here: Hypothesis, *, first: bool) -> dict[str, float]:
    """The families that join, with their counts: the best ones, apart from each other."""
    names = fit.shapes.names
    columns = torch.linalg.solve_triangular(fit.factor, fit.shapes.family, upper=False)
    left = _project(fit, columns, fit.used)
    norm2 = left.square().sum(dim=0)
    whole2 = (fit.shapes.family.square() / fit.variance[:, None]).sum(dim=0)
    z = (left.T @ fit.residual) / norm2.clamp(min=1e-300).sqrt()
    z = torch.where(norm2 > LEAST_SURVIVING * whole2, z, 0.0)
    scale = _median_chi2(fit.residual)
    cost = torch.tensor([cost_beside(n, here.names) for n in names], dtype=torch.float64)
    usual = torch.tensor([_is_usual(n) for n in names])
    z = torch.where(cost < RARE_COST, z, 0.0)
    gain = torch.where(z > 0.0, z.square(), 0.0) / (2.0 * scale) - FAMILY_PRICE - cost
    if first and bool((gain[usual] > 0).any()):
        gain = torch.where(usual, gain, -1.0)
    found: dict[str, float] = {}
    favour = torch.tensor([1.0 / EXPECTED_SHARE if is_expected(n, here.names) else 1.0 for n in names])
    for i in torch.argsort(-gain * favour).tolist():
        if float(gain[i]) <= 0.0 or len(found) == (_AT_ONCE if first else 2):
            break
        name = names[i]
        if name in here.names or here.dropped.get(name, 0) >= _MOST_DROPS:
            continue
        if is_possible(name, {*here.names}, here.at.incident_kev) and _is_apart(name, list(found)):
            found[name] = float(z[i] / norm2[i].sqrt())
    return found


def _is_usual(name: str) -> bool:
    family = families_by_name()[name]
    return family.cost <= (_FIRST_COST if family.shell == "K" else 1.5) and family.shell != "M"


def _is_apart(name: str, others: list[str]) -> bool:
    families = families_by_name()
    mine = families[name]
    return all(
        abs(mine.alpha_kev - families[o].alpha_kev) > _APART_KEV
        and abs(mine.alpha_kev - families[o].beta_kev) > _BETA_KEV
        for o in others
    )


def withdraw(search: Search, here: Hypothesis, *, relative: float) -> Hypothesis:
    """Withdraw families whose own evidence is not worth their price, and exchange those that a rival explains better.

    A family is weighed without its own flaws, and a rival in its place.

    Args:
        search: spectrum and detector.
        here: families and axis.
        relative: error of everything, as a share of the counts.
    """
    swapped: set[str] = set()
    for _ in range(2 * len(here.names)):
        fit = _solve(search, here, relative)
        here = _forget_absent(here, fit)
        scale = 2.0 * _median_chi2(fit.residual)
        trials = _try_rivals(fit, here)
        gains = {n: t.z**2 / scale - FAMILY_PRICE - cost_beside(n, here.names) for n, t in trials.items()}
        gains |= {n: -1.0 for n in here.names if not is_possible(n, {*here.names}, here.at.incident_kev)}
        better: dict[str, tuple[str, float]] = {}
        for name, trial in trials.items():
            for rival, z in trial.rivals.items():
                gain = z**2 / scale - FAMILY_PRICE - cost_beside(rival, here.names) - gains[name]
                if is_expected(rival, here.names) and not is_expected(name, here.names):
                    gain += (1.0 - EXPECTED_SHARE) * trial.z**2 / scale
                if gain > 0.0 and rival not in swapped and gain > better.get(name, ("", 0.0))[1]:
                    better[name] = (rival, gain)
        worst = min(gains, key=lambda n: gains[n], default=None)
        if better:
            name = max(better, key=lambda n: better[n][1])
            rival = better[name][0]
            swapped |= {name}
            names = tuple(rival if n == name else n for n in here.names)
            here = replace(here, names=names, amplitude=here.amplitude | {rival: here.amplitude.get(name, 0.0)})
        elif worst is not None and gains[worst] <= 0.0:
            kept = tuple(n for n in here.names if n != worst)
            here = replace(here, names=kept, dropped=here.dropped | {worst: _MOST_DROPS})
        else:
            return _weigh(here, fit)
    return here


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """A family weighed by itself."""

    z: float
    rivals: dict[str, float]
    """The z of other families in its place."""


def _try_rivals(fit: _Fit, here: Hypothesis) -> dict[str, _Trial]:
    """Leave every family out in turn, and put rivals with overlapping lines in its place."""
    found = {}
    weight = fit.variance.rsqrt()[:, None]
    unit = fit.shapes.family * weight
    unit = unit / unit.norm(dim=0).clamp(min=1e-300)
    families, top = families_by_name(), here.at.incident_kev
    for place, i in enumerate(fit.active):
        if float(fit.amplitude[i]) <= 0.0:
            continue
        name = fit.shapes.names[i]
        others = {n for n in here.names if n != name}
        z = _leave_out(fit, place, i)
        near = torch.nonzero(unit.T @ unit[:, i] > _RIVAL_OVERLAP)[:, 0].tolist()
        rivals = [
            j
            for j in near
            if fit.shapes.names[j] not in here.names
            and families[fit.shapes.names[j]].cost < RARE_COST
            and is_possible(fit.shapes.names[j], others, top)
        ]
        if z > _EVERY_Z and (families[name].cost <= 1.0 or not rivals):
            found[name] = _Trial(z=z, rivals={})
            continue
        zs = _leave_out_exactly(fit, here, place, i, rivals)
        found[name] = _Trial(
            z=zs[0], rivals={fit.shapes.names[j]: one for j, one in zip(rivals, zs[1:], strict=True) if one > 0.0}
        )
    return found


def _leave_out(fit: _Fit, place: int, index: int) -> float:
    """The z of a family whose own flaws are as large as they would be with it."""
    column = fit.whitened[:, place]
    used = fit.used.clone()
    used[place] = False
    left = _project(fit, column[:, None], used)[:, 0]
    norm = float(left.norm())
    return float(left @ fit.residual) / max(norm, 1e-300) + float(fit.amplitude[index]) * norm


def _leave_out_exactly(fit: _Fit, here: Hypothesis, place: int, index: int, rivals: list[int]) -> list[float]:
    """The z of a family that has no flaws of its own, as if absent, and of its rivals in its place."""
    flaws = leave_out_flaws(fit.shapes, fit.flaws, fit.flawed, index)
    factor = torch.linalg.cholesky(torch.diag(fit.variance) + flaws @ flaws.T)
    own = fit.factor @ fit.whitened[:, place : place + 1]
    raw = torch.cat([fit.factor @ fit.whitened, (fit.factor @ fit.residual)[:, None] + fit.amplitude[index] * own], 1)
    raw = torch.cat([raw, own, fit.shapes.family[:, rivals]], dim=1)
    change = torch.linalg.solve_triangular(factor, raw, upper=False)
    n = fit.whitened.shape[1]
    used = fit.used.clone()
    used[place] = False
    left = _project(replace(fit, whitened=change[:, :n]), change[:, n + 1 :], used)
    found: list[float] = ((left.T @ change[:, n]) / left.norm(dim=0).clamp(min=1e-300)).tolist()
    return found
