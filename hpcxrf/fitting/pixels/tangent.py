"""Theta free in every pixel, under a prior: the tangent dictionary.

Near the integrated theta the columns are `Phi + sum_k d_k Phi_k + sum_kl d_k d_l Phi_kl / 2`, derivatives in units of
the prior's standard deviation, so that d has the prior N(0, 1). All products with the counts are one matrix product,
all products among columns are computed once, and amplitudes and d of a pixel follow together from algebra of the
size of the columns: Gauss-Newton steps whose curvature is that at d = 0, which every pixel shares but for its
amplitudes.

The second order is kept for the energy axis alone: a peak that moves by s widths looks broader by s^2 / 2, which
would be taken for a change of the width. What is left out is s^3 / 6.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from hpcxrf.fitting.kernels.tangent_layout import FARTHEST, LONGEST_STEP, STEPS
from hpcxrf.fitting.pixels.basis import PixelBasis, PixelOperator, shared_weights, unit_diagonal
from hpcxrf.fitting.pixels.compiled import find_deviance
from hpcxrf.fitting.pixels.compiled_tangent import CompiledTangent, project_pixels, take_steps
from hpcxrf.fitting.pixels.pairs import with_totals
from hpcxrf.fitting.pixels.parts import Estimate, project, shared_variance, spectrum_deviance, times
from hpcxrf.physics.model import SpectrumModel, energy_kev, evaluate, place_lines
from hpcxrf.physics.parameters import INDEX

DRIFT_SD: Final[Mapping[str, float]] = {"energy_offset": 0.01, "fwhm_offset": 0.005}
"""keV: how far a pixel's theta may be from that of the whole scan, one standard deviation."""
RELATIVE_DRIFT_SD: Final[Mapping[str, float]] = {"energy_slope": 0.0015}
"""The same as a share of the parameter."""
_AXIS: Final = ("energy_offset", "energy_slope", "energy_quadratic")
# Shift of a peak in units of its width, and relative change of the width, up to which the columns are right to 3 %.
SHIFT_REACH: Final = 0.5
WIDTH_REACH: Final = 0.25
_DIFFERENCE: Final = 0.05
_PLACES: Final = 8
# Length of the last step in units of the uncertainty of the shift.
_CONVERGED: Final = 0.1
# Steps of the few pixels that the fixed number leaves without an end, each of which must lower the misfit.
_MORE_STEPS: Final = 40
_SHORTER: Final = 0.25
# Few rows are multiplied by another routine, which rounds otherwise than that of many.
_LEAST_ROWS: Final = 16
_OF_STEPS: Final = ("centre", "motion", "first", "second", "half", "gram", "inverse", "response", "curvature")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tangents:
    """Changes of the columns of a basis with theta."""

    names: tuple[str, ...]
    prior_sd: Tensor
    """(parameter,) float64, units of theta."""
    pairs: tuple[tuple[int, int], ...]
    """Parameters whose second derivative is kept."""
    columns: Tensor
    """(parameter, then pair; channel, component) float64: derivatives by one prior standard deviation."""
    motion: Tensor
    """(place, parameter) float64: shifts of peaks and changes of widths by one standard deviation, in units of what
    the columns can follow."""
    centre: Tensor | None = None
    """(parameter,) float64: point of expansion, from the theta of the scan, in prior standard deviations; None: that
    theta."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TangentOperator:
    """Products of the columns and their changes; float32, in units in which the shared Gram has a diagonal of 1.

    "All" are the columns, then the components' changes by each parameter and pair in turn.
    """

    shared: PixelOperator
    """Products of the columns alone."""
    names: tuple[str, ...]
    prior_sd: Tensor
    centre: Tensor
    """(parameter,): point of expansion, from the centre of the prior."""
    motion: Tensor
    first: Tensor
    """(pair, parameter): 1 where the parameter is the pair's first."""
    second: Tensor
    half: Tensor
    """(pair,): 1/2 for a parameter with itself."""
    weighted: Tensor
    """(channel, all)."""
    all_columns: Tensor
    """(all, channel), counts of one count."""
    gram: Tensor
    """(all, all)."""
    inverse: Tensor
    """(column, column): inverse of the columns' own Gram."""
    response: Tensor
    """(component, parameter * column): answer of the best coefficients to d, for each component's amplitude."""
    curvature: Tensor
    """(component, parameter * parameter * component): curvature of the misfit by d, the coefficients following."""
    scale: Tensor
    """(column,)."""
    expected_total: float
    """Counts of the mean pixel."""
    compiled: CompiledTangent | None = None
    """Matrices of the kernel that takes the steps on a processor; None: tensors take them."""


def drift_sd(theta: Tensor) -> dict[str, float]:
    """The default parameters and priors: energy offset, gain and width."""
    relative = {name: sd * float(theta[INDEX[name]]) for name, sd in RELATIVE_DRIFT_SD.items()}
    return {"energy_offset": DRIFT_SD["energy_offset"], **relative} | dict(DRIFT_SD)


def tangents_at(
    theta: Tensor,
    model: SpectrumModel,
    prior_sd: Mapping[str, float] | None = None,
    *,
    columns_at: Callable[[Tensor], Tensor] | None = None,
) -> Tangents:
    """Changes of the components' columns at theta, by central differences.

    Args:
        theta: (parameter,) float64, that of the integrated fit or of a region.
        model: lines, channels and constants of the pixels.
        prior_sd: standard deviation by parameter, units of theta; None: `drift_sd`.
        columns_at: columns (channel, component) at a given change (parameter,) of theta, where they are not those
            of one detector.

    Raises:
        KeyError: a name that is not a parameter.
    """
    prior = drift_sd(theta) if prior_sd is None else dict(prior_sd)
    names = tuple(prior)
    steps = torch.zeros((len(names), theta.shape[0]), dtype=theta.dtype, device=theta.device)
    for i, name in enumerate(names):
        steps[i, INDEX[name]] = _DIFFERENCE * prior[name]
    axis = [i for i, name in enumerate(names) if name in _AXIS]
    pairs = tuple((i, j) for i in axis for j in axis if i <= j)
    phi = columns_at or (lambda step: evaluate(theta + step, model).phi)
    first = [(phi(step) - phi(-step)) / (2.0 * _DIFFERENCE) for step in steps]
    second = [_second_difference(phi, steps[i], steps[j]) for i, j in pairs]
    return Tangents(
        names=names,
        prior_sd=theta.new_tensor(list(prior.values())),
        pairs=pairs,
        columns=torch.stack(first + second),
        motion=torch.stack([_motion(theta, step, model) for step in steps], dim=1),
    )


def _motion(theta: Tensor, step: Tensor, model: SpectrumModel) -> Tensor:
    """Shifts and changes of width of some lines by one standard deviation, in units of the reach."""
    above, below = place_lines(theta + step, model), place_lines(theta - step, model)
    seen = _some_lines(theta, above.line_kev, model)
    width = 0.5 * (above.sigma_kev + below.sigma_kev)[seen]
    places = (above.line_kev[seen] - theta[0]) / theta[1]
    energy = [t[0] + places * (t[1] + places * t[2]) for t in (theta + step, theta - step)]
    shift = (energy[0] - above.line_kev[seen]) - (energy[1] - below.line_kev[seen])
    change = (above.sigma_kev - below.sigma_kev)[seen] / WIDTH_REACH
    moved = torch.cat([shift / SHIFT_REACH, change]) / torch.cat([width, width])
    return moved / (2.0 * _DIFFERENCE)


def _some_lines(theta: Tensor, line_kev: Tensor, model: SpectrumModel) -> Tensor:
    """Some lines inside the range, from the lowest to the highest: what moves them by much moves others too."""
    last = model.channel.shape[0] - 1
    low, high = (float(energy_kev(theta, model.channel[i : i + 1])) for i in (0, last))
    order = torch.argsort(line_kev, stable=True)
    inside = order[(line_kev[order] >= low) & (line_kev[order] <= high)]
    inside = inside if inside.numel() else order
    step = torch.linspace(0, inside.numel() - 1, _PLACES, dtype=torch.float64)
    return inside[step.round().long().to(inside.device)]


def _second_difference(phi: Callable[[Tensor], Tensor], first: Tensor, second: Tensor) -> Tensor:
    """Second derivative of the columns, per two standard deviations."""
    same = phi(first + second) + phi(-first - second)
    opposite = phi(first - second) + phi(second - first)
    return (same - opposite) / (2.0 * _DIFFERENCE) ** 2


def tangent_operator(basis: PixelBasis, tangents: Tangents, shared: PixelOperator) -> TangentOperator:
    """Prepare the fits.

    Args:
        basis: columns and mean pixel.
        tangents: changes of the components' columns.
        shared: operator of the basis, which has refused columns with indistinguishable spectra.
    """
    weights = shared_weights(basis.expected)[:, None]
    n, n_parameters, n_changes = basis.n_components, len(tangents.names), len(tangents.columns)
    every = torch.cat([basis.columns, *tangents.columns], dim=1)
    _, scale = unit_diagonal(basis.columns.T @ (basis.columns * weights))
    scales = torch.cat([scale, scale[:n].repeat(n_changes)])
    scaled = every * scales
    weighted = scaled * weights
    gram = scaled.T @ weighted
    k = scale.shape[0]
    own = gram[:k, :k] + torch.diag((scale <= 0).to(gram.dtype))
    inverse = torch.linalg.inv(own)
    stop = k + n_parameters * n
    across = gram[k:stop, :k].reshape(n_parameters, n, k)
    response = across @ inverse
    among = gram[k:stop, k:stop].reshape(n_parameters, n, n_parameters, n)
    curvature = among - torch.einsum("pik,qjk->piqj", response, across)
    single = torch.float32
    centre = tangents.prior_sd.new_zeros(n_parameters)
    centre = centre if tangents.centre is None else tangents.centre
    pairs = torch.tensor(tangents.pairs, dtype=torch.int64, device=gram.device).reshape(-1, 2)
    chosen = torch.eye(n_parameters, dtype=single, device=gram.device)
    return TangentOperator(
        shared=shared,
        names=tangents.names,
        prior_sd=tangents.prior_sd.to(single),
        centre=centre.to(single),
        motion=tangents.motion.to(single),
        first=chosen[pairs[:, 0]],
        second=chosen[pairs[:, 1]],
        half=torch.where(pairs[:, 0] == pairs[:, 1], 0.5, 1.0).to(single),
        weighted=weighted.contiguous().to(single),
        all_columns=every.T.contiguous().to(single),
        gram=gram.to(single),
        inverse=inverse.to(single),
        response=response.permute(1, 0, 2).reshape(n, -1).contiguous().to(single),
        curvature=curvature.permute(1, 0, 2, 3).reshape(n, -1).contiguous().to(single),
        scale=scale.to(single),
        expected_total=float(basis.expected.sum()),
    )


def fit_tangent(counts: Tensor, signed: Tensor, tangent: TangentOperator, *, errors: bool) -> Estimate:
    """Amplitudes and shifts of theta of a micro-batch, a fixed number of steps.

    Args:
        counts: (pixel, channel) finite, any real dtype.
        signed: (pixel, column) float32: the coefficients at the basis' theta.
        tangent: products of `tangent_operator`.
        errors: whether the variance is wanted.
    """
    rhs, total = _project_all(counts, tangent)
    level = (total / tangent.expected_total).clamp(min=1.0 / tangent.expected_total)
    usable = tangent.scale > 0
    a = torch.where(usable, signed / tangent.scale, 0.0)
    d = a.new_zeros((a.shape[0], len(tangent.names)))
    moved = a.new_zeros(a.shape[:1])
    if tangent.compiled is not None:
        a, d, moved = take_steps(a, rhs, level, tangent.compiled)
    else:
        for _ in range(STEPS):
            a, d, moved = _step(a, d, rhs, level, tangent)
    a, d, moved = _settle(a, d, moved, rhs, level, tangent)
    coefficients = a * tangent.scale
    variance, null, shift_sigma = _variances(a, coefficients, level, tangent) if errors else (None, None, None)
    n = tangent.shared.n_components
    return Estimate(
        coefficients=coefficients,
        solved=moved <= _CONVERGED,
        factors=_with_changes(coefficients, n, _weights(d, tangent)),
        columns=tangent.all_columns,
        variance=variance,
        null_variance=null,
        shift=(d + tangent.centre) * tangent.prior_sd,
        shift_sigma=shift_sigma,
        in_range=((d @ tangent.motion.T).abs() <= 1.0).all(dim=1),
    )


def _project_all(counts: Tensor, tangent: TangentOperator) -> tuple[Tensor, Tensor]:
    """Products (pixel, all) of all columns with the counts, and the counts (pixel,)."""
    if tangent.compiled is not None:
        return project_pixels(counts, tangent.compiled)
    n_all = tangent.weighted.shape[1]
    projected = project(counts, with_totals(tangent.weighted))
    return projected[:, :n_all], projected[:, n_all]


def find_misfit(counts: Tensor, found: Estimate, tangent: TangentOperator) -> Tensor:
    """Poisson deviance (pixel,) of an estimate of `fit_tangent`, by the same device's means wherever it is wanted.

    Args:
        counts: (pixel, channel) finite, any real dtype.
        found: the estimate.
        tangent: what it was made with.
    """
    if tangent.compiled is not None:
        return find_deviance(counts, found.factors, tangent.compiled.expectation)
    return spectrum_deviance(counts, found.factors, found.columns)


def _step(a: Tensor, d: Tensor, rhs: Tensor, level: Tensor, tangent: TangentOperator) -> tuple[Tensor, Tensor, Tensor]:
    """Coefficients and d after one step, and the length (pixel,) of the step in d, in units of its uncertainty."""
    n_pixels, m = d.shape
    n, k = tangent.curvature.shape[0], a.shape[1]
    own, weights = a[:, :n], _weights(d, tangent)
    rest = rhs - times(_with_changes(a, n, weights), tangent.gram)
    by_change = rest[:, k:].reshape(n_pixels, weights.shape[1], n)
    slope_a = rest[:, :k].clone()
    slope_a[:, :n] += (weights[:, :, None] * by_change).sum(dim=1)
    gains = (by_change * own[:, None]).sum(dim=2)
    by_pair = gains[:, m:] * tangent.half
    slope_d = gains[:, :m] - level[:, None] * (d + tangent.centre)
    slope_d += (by_pair * (d @ tangent.second.T)) @ tangent.first
    slope_d += (by_pair * (d @ tangent.first.T)) @ tangent.second
    response = times(own, tangent.response).reshape(n_pixels, m, k)
    curvature = _curvature(own, level, tangent, m)
    wanted = slope_d - (response * slope_a[:, None]).sum(dim=2)
    factor, _ = torch.linalg.cholesky_ex(curvature)
    move = torch.nan_to_num(torch.cholesky_solve(wanted[:, :, None], factor)[:, :, 0])
    moved = ((move * wanted).sum(dim=1) / level).clamp(min=0.0).sqrt()
    after = _within(d + _within(move, LONGEST_STEP, tangent), FARTHEST, tangent)
    answer = times(slope_a, tangent.inverse) - ((after - d)[:, :, None] * response).sum(dim=1)
    return a + answer, after, moved


def _settle(
    a: Tensor, d: Tensor, moved: Tensor, rhs: Tensor, level: Tensor, tangent: TangentOperator
) -> tuple[Tensor, Tensor, Tensor]:
    """The same after more steps of those pixels that have found no end: in float64, and none that raises the misfit.

    Steps whose curvature is that at d = 0 go to and fro where the amplitudes are far from those of the scan.
    """
    left = torch.nonzero(moved > _CONVERGED)[:, 0]
    if left.numel() == 0:
        return a, d, moved
    n = left.numel()
    rows = torch.cat([left, left[:1].expand(max(_LEAST_ROWS - n, 0))])
    wide = replace(tangent, **{name: getattr(tangent, name).to(torch.float64) for name in _OF_STEPS})
    best_a, best_d, right, weight = (one[rows].to(torch.float64) for one in (a, d, rhs, level))
    best = _misfit(best_a, best_d, right, weight, wide)
    length, going = best.new_ones(best.shape), best.new_ones(best.shape, dtype=torch.bool)
    for _ in range(_MORE_STEPS):
        to_a, to_d, ahead = _step(best_a, best_d, right, weight, wide)
        # A pixel that has ended keeps what it has, while its companions go on.
        going &= ahead > _CONVERGED
        if not bool(going.any()):
            break
        try_a, try_d = best_a + length[:, None] * (to_a - best_a), best_d + length[:, None] * (to_d - best_d)
        found = _misfit(try_a, try_d, right, weight, wide)
        better = going & (found < best)
        best = torch.where(better, found, best)
        best_a, best_d = torch.where(better[:, None], try_a, best_a), torch.where(better[:, None], try_d, best_d)
        length = torch.where(better, (2.0 * length).clamp(max=1.0), _SHORTER * length)
    ahead = _step(best_a, best_d, right, weight, wide)[2]
    return (
        a.index_copy(0, left, best_a[:n].to(a.dtype)),
        d.index_copy(0, left, best_d[:n].to(d.dtype)),
        moved.index_copy(0, left, ahead[:n].to(moved.dtype)),
    )


def _misfit(a: Tensor, d: Tensor, rhs: Tensor, level: Tensor, tangent: TangentOperator) -> Tensor:
    """Weighted sum of squares (pixel,) less that of the counts, with the prior of d."""
    every = _with_changes(a, tangent.curvature.shape[0], _weights(d, tangent))
    prior = level * (d + tangent.centre).square().sum(dim=1)
    return (every * (times(every, tangent.gram) - 2.0 * rhs)).sum(dim=1) + prior


def _within(d: Tensor, limit: float, tangent: TangentOperator) -> Tensor:
    """The same direction, no farther than a limit in units of the reach."""
    reached = times(d, tangent.motion.T).abs().amax(dim=1, keepdim=True)
    return d * (limit / reached.clamp(min=limit))


def _weights(d: Tensor, tangent: TangentOperator) -> Tensor:
    """Factors (pixel, parameter then pair) of the columns' changes: d, and products of two."""
    return torch.cat([d, tangent.half * (d @ tangent.first.T) * (d @ tangent.second.T)], dim=1)


def _with_changes(coefficients: Tensor, n: int, weights: Tensor) -> Tensor:
    """Coefficients (pixel, all) of all columns."""
    changes = (weights[:, :, None] * coefficients[:, None, :n]).flatten(1)
    return torch.cat([coefficients, changes], dim=1)


def _curvature(own: Tensor, level: Tensor, tangent: TangentOperator, m: int) -> Tensor:
    """Curvature of the misfit by d (pixel, parameter, parameter), the coefficients following, with the prior."""
    n = own.shape[1]
    products = times(own, tangent.curvature).reshape(own.shape[0], m * m, n)
    bent = torch.bmm(products, own[:, :, None]).view(own.shape[0], m, m)
    bent.diagonal(dim1=-2, dim2=-1).add_(level[:, None])
    return bent


def _variances(
    a: Tensor, coefficients: Tensor, level: Tensor, tangent: TangentOperator
) -> tuple[Tensor, Tensor, Tensor]:
    """Variance of the amplitudes, with what not knowing d adds; in the absence of the component; sigma of theta."""
    m, n = len(tangent.names), tangent.shared.n_components
    variance, null = shared_variance(coefficients, tangent.shared)
    own = a[:, :n]
    factor, info = torch.linalg.cholesky_ex(_curvature(own, level, tangent, m))
    known = torch.where((info == 0)[:, None, None], torch.cholesky_inverse(factor), torch.nan)
    response = times(own, tangent.response).reshape(a.shape[0], m, a.shape[1])[:, :, :n]
    itself = torch.stack([_self_response(tangent, i, n) for i in range(m)])
    others = response - own[:, None] * itself
    unit = level[:, None] * tangent.scale[:n] ** 2
    return (
        variance + unit * (response * (known @ response)).sum(dim=1),
        null + unit * (others * (known @ others)).sum(dim=1),
        (level[:, None] * known.diagonal(dim1=1, dim2=2)).sqrt() * tangent.prior_sd,
    )


def _self_response(tangent: TangentOperator, parameter: int, n: int) -> Tensor:
    k = tangent.scale.shape[0]
    return tangent.response[:, parameter * k : parameter * k + n].diagonal()
