"""Free line ratios in the search: which parameters, where they start, and what the depth of the sample explains."""

import math
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from hpcxrf.fitting.objective import poisson_weights
from hpcxrf.fitting.spectrum.least_squares import LeastSquares, Space, State
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.fitting.spectrum.ratio_groups import (
    KBETA_NAME,
    KBETA_SD,
    build_light_model,
    list_anode_groups,
    list_family_groups,
)
from hpcxrf.fitting.spectrum.separable import derive_ratios, find_misfits, minimise, objective, predict, start
from hpcxrf.physics.anode_scatter import ScatterCopies, adjust_copies
from hpcxrf.physics.lines import LineTable
from hpcxrf.physics.model import read_copy_logarithm
from hpcxrf.physics.parameters import PARAMETER_NAMES
from hpcxrf.physics.ratios import COMMON, RatioGroup, RatioModel, adjust_table, find_parents, sample_logarithm
from hpcxrf.physics.sample import SampleAbsorption, SampleElements, find_sample_elements, mass_shares, own_sample

N_THETA: Final = len(PARAMETER_NAMES)
"""Parameters of theta; those of the ratios follow them."""
DEPTH_GAIN: Final = 20.0
"""Gain from which a sample is said to absorb its own lines: over 23 thin spectra it was 17 at most."""
MOST_KBETA_SD: Final = 0.3
# A ratio is known from the spectrum where its variance is below this share of the usual one.
_DETERMINED: Final = 0.5
_USUAL_NUMBER: Final = 2.0
# Prior mean, prior sd, step, lower and upper bound of the parameters of all families. The sample's are all but flat:
# where they change no ratio, a little curvature keeps the steps short. The air path is hardly ever known: 12 cm
# (d = 7.9) before the detector of srm1832, and with bounds that are too narrow for it the sample seems to absorb. Thin
# real spectra ask for b = +.04 to +.07.
_COMMON_ROWS: Final = (
    (0.5, 1.0, 0.1, 1e-3, 1.0),
    (0.3, 0.5, 0.2, 0.0, 0.98),
    (0.0, 3.0, 0.3, -0.6, 15.0),
    (0.0, 0.04, 0.02, -0.5, 0.5),
)
_GIVEN_AIR_SD: Final = 0.5
_BOUND_SDS: Final = 8.0
_MOST_KAPPA: Final = 3.0
_NOTICEABLE: Final = 0.3
"""Groups whose prior sd nowhere amounts to this many standard deviations of the counting noise stay as they are."""
# Depths T and light shares s from which the search begins: several may explain as much.
_DEPTHS: Final = (0.0025, 0.018, 0.05, 0.14, 0.37, 1.0, 4.5)
# At the same effect, T of a sample of heavy elements is up to four times that of a light one.
_OWN_FACTORS: Final = (1.0, 3.3)
_OWN_DEPTHS: Final = (0.14, 1.0)
_LIGHT_SHARES: Final = (0.0, 0.4, 0.8)
_STRIDE: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeRatios:
    """Line ratios that are fitted with theta."""

    groups: tuple[RatioGroup, ...]
    elements: SampleElements
    kbeta_is_given: bool
    """True where the caller says how far K-beta ratios may be off."""

    @property
    def has_composition(self) -> bool:
        """True where the absorption can follow the elements that show."""
        return len(self.elements.z) > 0


def has_free_ratios(problem: FitProblem) -> bool:
    """True where the ratios of the line table are fitted: not with MAPS constants, nor by the published optimisers."""
    fluorescent = bool((problem.table.edge_kev > 0.0).any())
    adjustable = problem.method == "separable" and not problem.constants.maps_line_shape
    return adjustable and fluorescent and not problem.hold_ratios


def free_ratios(
    least_squares: LeastSquares, state: State, fixed: Tensor, problem: FitProblem
) -> tuple[LeastSquares, State, FreeRatios]:
    """Free the line ratios at a fit with those of the table, and start the sample's depth where it explains most.

    Args:
        least_squares: spectrum and model with the ratios of the table.
        state: fit of it, without batch.
        fixed: (channel,) background that is in no column.
        problem: K-beta prior and detector.

    Returns:
        Least squares and state of theta followed by q, and what was freed.
    """
    table = least_squares.model.table
    weighed = replace(least_squares, weights=poisson_weights(predict(state, least_squares) + fixed))
    groups = (*list_family_groups(table, problem.kbeta_sd or KBETA_SD), *list_anode_groups(table, problem.copies))
    seen = _measure_groups(groups, state, weighed, problem)
    free = FreeRatios(
        groups=tuple(group for group, size in zip(groups, seen, strict=True) if size > _NOTICEABLE),
        elements=_find_elements(table, problem),
        kbeta_is_given=problem.kbeta_sd > 0.0,
    )
    freed = _free(weighed, free.groups, problem)
    q = _scan_depths(state.theta, freed)
    freed = _follow_composition(freed, state.linear, q, free)
    q = _scan_shares(state.theta, q, freed, free)
    whole = replace(freed, weights=least_squares.weights)
    return whole, start(torch.cat([state.theta, q]), whole), free


def renew_composition(least_squares: LeastSquares, state: State, free: FreeRatios) -> LeastSquares:
    """Let the sample absorb as the present amplitudes say."""
    return _follow_composition(least_squares, state.linear, state.theta[N_THETA:], free)


def widen_kbeta(least_squares: LeastSquares, state: State, free: FreeRatios) -> LeastSquares:
    """Let the K-beta ratios vary by as much as those that this spectrum determines do, never less than is usual.

    One step of expectation and maximisation for the variance of all, `(2 sd^2 + sum(kappa^2 + var)) / (2 + n)`: the
    usual variance counts as two ratios.

    Args:
        least_squares: with Poisson weights.
        state: its optimum.
        free: what was freed.
    """
    space = least_squares.space
    kbeta = [i for i, group in enumerate(free.groups, N_THETA + len(COMMON)) if group.name.endswith(KBETA_NAME)]
    if free.kbeta_is_given or not kbeta:
        return least_squares
    index = torch.tensor(kbeta, device=space.centre.device)
    variance, kappa, usual = _invert_hessian(state, least_squares)[index], state.theta[index], KBETA_SD**2
    known = variance < _DETERMINED * usual
    square = torch.where(known, kappa.square() + variance, 0.0).sum()
    found = float((_USUAL_NUMBER * usual + square) / (_USUAL_NUMBER + known.sum()))
    prior_sd = space.prior_sd.clone()
    prior_sd[index] = min(max(found, usual), MOST_KBETA_SD**2) ** 0.5
    return replace(least_squares, space=replace(space, prior_sd=prior_sd))


def _invert_hessian(state: State, least_squares: LeastSquares) -> Tensor:
    """Variance (parameter,) of the parameters at a state, the prior included; that of the prior where none is free."""
    space = least_squares.space
    unit = max(float(state.misfit) / least_squares.counts.shape[-1], 1.0)
    precision = state.hessian / unit + torch.diag((space.scale / space.prior_sd) ** 2)
    inverse, info = torch.linalg.inv_ex(precision)
    variance = inverse.diagonal() * space.scale**2
    return variance if int(info) == 0 else space.prior_sd**2


def read_table(theta: Tensor, least_squares: LeastSquares) -> LineTable:
    """Line table with the fitted ratios; that of the model where they were not fitted.

    Args:
        theta: (parameter,) theta, followed by the parameters of the ratios.
        least_squares: of the fit.
    """
    model = least_squares.model
    return model.table if model.ratios is None else adjust_table(theta[N_THETA:], model.table, model.ratios)


def read_copies(theta: Tensor, least_squares: LeastSquares) -> ScatterCopies | None:
    """Scattered lines of a tube's anode at their fitted heights; None where there are none.

    Args:
        theta: (parameter,) theta, followed by the parameters of the ratios.
        least_squares: of the fit.
    """
    model = least_squares.model
    if model.copies is None:
        return None
    return adjust_copies(model.copies, read_copy_logarithm(theta, model))


def measure_depth_gain(state: State, least_squares: LeastSquares, *, least: float, iterations: int) -> float:
    """Misfit that the depth of the sample explains, in units of the reduced misfit.

    `(S_thin - S) / max(S / n, 1)`, S being the weighted sum of squares of Poisson weights with the prior, S_thin that
    of the best fit whose sample absorbs nothing. The prior tells: air and K-beta ratios that nobody has would do as
    well as the depth of a steel.

    Args:
        state: optimum of the least squares.
        least_squares: with Poisson weights.
        least: smallest gain that matters; below it no second fit is made, and the value is an upper limit.
        iterations: steps of the second fit.
    """
    unit = max(float(state.misfit) / least_squares.counts.shape[-1], 1.0)
    thin, best = state.theta.clone(), float(objective(state, least_squares))
    thin[N_THETA] = 1.0
    gain = (float(find_misfits(thin[None], least_squares)[0]) - float(state.misfit)) / unit
    if gain < least:
        return max(gain, 0.0)
    pinned = replace(least_squares, space=_pin_depth(least_squares.space))
    begin = start(thin, pinned)
    # A thousandth of the misfit is about one unit of the gain.
    again = minimise(begin, pinned, iterations=iterations, tolerance=3e-4)
    return (float(objective(again, least_squares)) - best) / unit


def _pin_depth(space: Space) -> Space:
    free = space.free.clone()
    free[N_THETA : N_THETA + 2] = False
    return replace(space, free=free)


def _find_elements(table: LineTable, problem: FitProblem) -> SampleElements:
    """Elements whose amounts the amplitudes tell; of a tube none, as they would have to be excited by its spectrum."""
    elements = find_sample_elements(table, problem.detector)
    return elements if problem.copies is None else replace(elements, z=())


def _measure_groups(
    groups: tuple[RatioGroup, ...], state: State, weighed: LeastSquares, problem: FitProblem
) -> list[float]:
    """How much one prior sd of each group amounts to, in standard deviations of the counting noise."""
    freed = _free(weighed, groups, problem)
    theta = torch.cat([state.theta, _thin_start(freed)])
    columns = derive_ratios(theta, state.linear, freed)[:, len(COMMON) :]
    seen: list[float] = (columns.square() * weighed.weights[:, None]).sum(dim=0).sqrt().tolist()
    return [size * group.sd for group, size in zip(groups, seen, strict=True)]


def _free(least_squares: LeastSquares, groups: tuple[RatioGroup, ...], problem: FitProblem) -> LeastSquares:
    """The same spectrum with ratios that are free, behind a sample of light matter."""
    model = least_squares.model
    ratios = build_light_model(model.table, groups)
    space = _extend_space(least_squares.space, groups, problem)
    return replace(least_squares, model=replace(model, ratios=ratios), space=space)


def _extend_space(space: Space, groups: tuple[RatioGroup, ...], problem: FitProblem) -> Space:
    rows = [list(row) for row in _COMMON_ROWS]
    if problem.air_is_known:
        rows[2][1] = _GIVEN_AIR_SD
    for group in groups:
        most = min(_BOUND_SDS * group.sd, _MOST_KAPPA)
        rows.append([0.0, group.sd, 0.5 * min(group.sd, 0.2), -most, most])
    more = torch.tensor(rows, dtype=torch.float64, device=space.centre.device)
    centre, prior_sd, scale, lower, upper = more.unbind(dim=1)
    return replace(
        space,
        centre=torch.cat([space.centre, centre]),
        prior_sd=torch.cat([space.prior_sd, prior_sd]),
        scale=torch.cat([space.scale, scale]),
        lower=torch.cat([space.lower, lower]),
        upper=torch.cat([space.upper, upper]),
        free=torch.cat([space.free, space.free.new_ones(len(rows))]),
    )


def _thin_start(freed: LeastSquares) -> Tensor:
    q = freed.space.centre[N_THETA:].clone()
    q[0] = math.exp(-_DEPTHS[0])
    return q


def _scan_depths(theta: Tensor, freed: LeastSquares) -> Tensor:
    """The best of several depths behind light matter, at fixed theta."""
    trials = _thin_start(freed).repeat(len(_DEPTHS), 1)
    trials[:, 0] = torch.exp(-torch.tensor(_DEPTHS, dtype=trials.dtype))
    return _take_best(theta, trials, freed)


def _scan_shares(theta: Tensor, q: Tensor, freed: LeastSquares, free: FreeRatios) -> Tensor:
    """The best of several light shares and depths about one that was found behind light matter."""
    if not free.has_composition:
        return q
    depth = -math.log(float(q[0]))
    depths = [depth * factor for factor in _OWN_FACTORS] if depth > _DEPTHS[1] else list(_OWN_DEPTHS)
    grid = torch.cartesian_prod(torch.tensor(depths, dtype=q.dtype), torch.tensor(_LIGHT_SHARES, dtype=q.dtype))
    trials = q.repeat(grid.shape[0] + 1, 1)
    trials[1:, 0] = torch.exp(-grid[:, 0]).clamp(min=_COMMON_ROWS[0][3])
    trials[1:, 1] = grid[:, 1]
    return _take_best(theta, trials, freed)


def _take_best(theta: Tensor, trials: Tensor, freed: LeastSquares) -> Tensor:
    """The one of the q (trial, parameter) that leaves least in every third channel: enough to compare starts."""
    extended = torch.cat([theta.expand(trials.shape[0], -1), trials], dim=-1)
    sparse = replace(
        freed,
        counts=freed.counts[::_STRIDE],
        weights=freed.weights[::_STRIDE],
        hats=freed.hats[::_STRIDE],
        model=replace(freed.model, channel=freed.model.channel[::_STRIDE]),
    )
    return trials[int(find_misfits(extended, sparse).argmin())]


def _follow_composition(least_squares: LeastSquares, linear: Tensor, q: Tensor, free: FreeRatios) -> LeastSquares:
    model = least_squares.model
    if model.ratios is None or not free.has_composition:
        return least_squares
    sample = _compose(model.table, model.ratios, linear, q, free.elements)
    return replace(least_squares, model=replace(model, ratios=replace(model.ratios, sample=sample)))


def _compose(
    table: LineTable, ratios: RatioModel, linear: Tensor, q: Tensor, elements: SampleElements
) -> SampleAbsorption:
    """Absorption of the composition that gives the amplitudes, the sample's own absorption allowed for."""
    own = table.escape_parent < 0
    weight = torch.where(own, table.ratio, 0.0)
    n = len(table.component_names)
    leaving = weight.new_zeros(n).index_add(0, table.component, weight * sample_logarithm(q, ratios).exp())
    leaving = leaving / weight.new_zeros(n).index_add(0, table.component, weight).clamp(min=1e-300)
    shares = mass_shares(elements, linear[:n], leaving.clamp(min=1e-300))
    if float(shares.sum()) <= 0.0:
        return ratios.sample
    return own_sample(elements, shares, table.energy_kev[find_parents(table)], table.incident_energy_kev)
