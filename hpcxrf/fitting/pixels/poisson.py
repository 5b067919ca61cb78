"""Maximum likelihood of every pixel: the most precise of the non-negative fits where counts are few.

The background is in the model, the counts are raw.

Newton steps with projection (Bertsekas 1982, SIAM J. Control Optim. 20, 221): a column at 0 whose slope points below
it is held, the others take one step together and are cut at 0. The slope is that of all channels; the curvature, which
sets the way and not the end, is the mean of the observed and the expected information, on channels joined by fours.
The observed one alone jumps about at a few counts a pixel, the expected one alone takes twice as many steps. The first
steps are those of the joined channels alone.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from hpcxrf.fitting.kernels.layout import (
    CURVATURE_FLOOR,
    DARK,
    ERROR_FLOOR,
    JOINED,
    JOINED_STEPS,
    NEAR_BOUND,
    RIDGE,
    ROUNDING,
    TOLERANCE,
)
from hpcxrf.fitting.pixels.basis import PixelBasis, PixelOperator, unit_diagonal
from hpcxrf.fitting.pixels.compiled import compile_fit, fit_compiled, load_map_kernels
from hpcxrf.fitting.pixels.compiled_poisson import (
    compile_likelihood,
    inverse_information,
    load_poisson_kernels,
    maximise,
)
from hpcxrf.fitting.pixels.model import PixelModel
from hpcxrf.fitting.pixels.parts import (
    Estimate,
    Solver,
    expected_coefficients,
    join_channels,
    prepare_operator,
    rows,
    shared_variance,
    times,
)

# Pixels at a time: fewer and the small matrices are not worth a call, more and the spectra leave the cache.
_ROWS: Final = 512
_STEPS: Final = 2
_MORE_STEPS: Final = 40
# Few rows are multiplied by another routine, which rounds otherwise than that of many.
_LEAST_ROWS: Final = 16
_START: Final = 0.05
_SHORTER: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The columns on one grid of channels."""

    rows: Tensor
    """(column, channel)."""
    transposed: Tensor
    """(channel, column)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Likelihood:
    """The basis in units in which a mean pixel's information matrix has a diagonal of 1; float32."""

    fine: Columns
    coarse: Columns
    """Columns on channels joined by fours."""
    totals: Tensor
    """(column,): counts of one unit in the fit range."""
    pairs: Tensor
    """(joined channel, pair): products of two columns."""
    place: Tensor
    """(column * column,) int64: which pair stands where in the information matrix."""
    scale: Tensor
    """(column,): counts of one unit; 0 for a column without a count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """State of the search for the pixels of a chunk."""

    x: Tensor
    """(pixel, column): the best point so far."""
    step: Tensor
    """(pixel, column): the one that is tried from there."""
    misfit: Tensor
    """(pixel,): deviance at the best point."""
    promised: Tensor
    """(pixel,): deviance that the step, at its whole length, shall take off."""
    done: Tensor
    """(pixel,) bool."""


KERNELS: Final = ("maps", "poisson")
"""Modules of kernels that a processor needs."""


def load_kernels() -> None:
    """Load what a processor needs; the first call on a machine compiles it."""
    load_map_kernels()
    load_poisson_kernels()


def prepare(basis: PixelBasis, model: PixelModel | None, device: torch.device) -> Solver:
    """Prepare the method; on a processor its kernel, elsewhere tensor operations.

    Args:
        basis: columns and mean pixel.
        model: not needed.
        device: device of the counts.

    Raises:
        FitError: columns with indistinguishable spectra.
    """
    del model
    operator = prepare_operator(basis, device)
    prepared = likelihood(operator)
    if device.type == "cpu":
        return _compiled_solver(basis, operator, prepared)

    def estimate(counts: Tensor, signed: Tensor, *, deviance: bool, errors: bool) -> Estimate:
        del deviance
        return fit_poisson(counts, signed, operator, prepared, errors=errors)

    return Solver(operator=operator, estimate=estimate)


def _compiled_solver(basis: PixelBasis, operator: PixelOperator, model: Likelihood) -> Solver:
    shared = compile_fit(basis, operator)
    columns = operator.columns.T.to(torch.float64) * model.scale
    compiled = compile_likelihood(columns, model.scale > 0, basis.expected)

    def estimate(counts: Tensor, signed: Tensor, *, deviance: bool, errors: bool) -> Estimate:
        x, solved = maximise(counts, _start(signed, model), compiled)
        coefficients = x * model.scale
        known = fit_compiled(counts, shared, deviance=deviance, errors=errors, coefficients=coefficients, expected=True)
        variance, null = known.variance, known.null_variance
        if known.expected is not None and variance is not None and null is not None:
            own = inverse_information(known.expected / model.scale.clamp(min=1e-30), compiled)
            variance, null = _variances(own, variance, null, model)
        return Estimate(
            coefficients=coefficients,
            solved=solved,
            factors=coefficients,
            columns=operator.columns,
            variance=variance,
            null_variance=null,
            misfit=known.misfit,
            signed=signed,
        )

    return Solver(operator=operator, estimate=estimate, compiled=shared)


def likelihood(operator: PixelOperator) -> Likelihood:
    """Prepare the iterations."""
    _, scale = unit_diagonal(operator.gram)
    columns = operator.columns.to(torch.float64) * scale[:, None]
    joined = join_channels(columns)
    n = columns.shape[0]
    first, second = torch.triu_indices(n, n, device=columns.device)
    place = torch.zeros((n, n), dtype=torch.int64, device=columns.device)
    place[first, second] = place[second, first] = torch.arange(len(first), device=columns.device)
    single = torch.float32
    return Likelihood(
        fine=_both_ways(columns),
        coarse=_both_ways(joined),
        totals=columns.sum(dim=1).to(single),
        pairs=(joined[first] * joined[second]).T.contiguous().to(single),
        place=place.flatten(),
        scale=scale.to(single),
    )


def _both_ways(rows: Tensor) -> Columns:
    return Columns(rows=rows.to(torch.float32), transposed=rows.T.contiguous().to(torch.float32))


def fit_poisson(
    counts: Tensor, signed: Tensor, operator: PixelOperator, model: Likelihood, *, errors: bool
) -> Estimate:
    """Most likely non-negative coefficients of a micro-batch.

    Args:
        counts: (pixel, channel) finite, any real dtype.
        signed: (pixel, column) float32: the unconstrained coefficients, from which the search begins.
        operator: the basis' products.
        model: columns of `likelihood`.
        errors: whether the variance is wanted.
    """
    start = _start(signed, model)
    size = _ROWS if counts.device.type == "cpu" else max(counts.shape[0], 1)
    found = [
        _fit_chunk(rows(counts, i, size), start[i : i + size], model) for i in range(0, max(counts.shape[0], 1), size)
    ]
    coefficients = torch.cat([x for x, _ in found]) * model.scale
    variance, null = None, None
    if errors:
        own = _inverse_diagonals(coefficients, operator, model)
        variance, null = _variances(own, *shared_variance(coefficients, operator), model)
    return Estimate(
        coefficients=coefficients,
        solved=torch.cat([done for _, done in found]),
        factors=coefficients,
        columns=operator.columns,
        variance=variance,
        null_variance=null,
        signed=signed,
    )


def _start(signed: Tensor, model: Likelihood) -> Tensor:
    """Coefficients in the model's units, none of them at the bound but of columns without a count."""
    usable = model.scale > 0
    return torch.where(usable, signed / model.scale, 0.0).clamp_(min=_START) * usable


def _fit_chunk(y: Tensor, start: Tensor, model: Likelihood) -> tuple[Tensor, Tensor]:
    """Coefficients in the model's units, and which are optimal: a fixed number of steps, some more where needed."""
    joined = join_channels(y)
    near = _climb(joined, joined, start, model, model.coarse, JOINED_STEPS).x
    search = _climb(y, joined, near, model, model.fine, _STEPS)
    left = torch.nonzero(~search.done)[:, 0]
    if left.numel() == 0:
        return search.x, search.done
    filled = torch.cat([left, left[:1].expand(max(_LEAST_ROWS - left.numel(), 0))])
    more = _climb(y[filled], joined[filled], search.x[filled], model, model.fine, _MORE_STEPS)
    x, done, n = search.x.clone(), search.done.clone(), left.numel()
    x[left], done[left] = more.x[:n], more.done[:n]
    return x, done


def _climb(y: Tensor, joined: Tensor, start: Tensor, model: Likelihood, grid: Columns, steps: int) -> _Search:
    """Steps from a start; a pixel that is done stays where it is, whatever its neighbours still need."""
    search = _Search(
        x=start,
        step=torch.zeros_like(start),
        misfit=y.new_full(y.shape[:1], torch.inf),
        promised=y.new_full(y.shape[:1], torch.inf),
        done=torch.zeros(y.shape[0], dtype=torch.bool, device=y.device),
    )
    total = y.sum(dim=1)
    for i in range(steps + 1):
        trial = (search.x + search.step).clamp(min=0.0)
        expected = (trial @ grid.rows).add_(DARK)
        ratio = y / expected
        slope = model.totals - times(ratio, grid.transposed)
        misfit = 2.0 * (trial @ model.totals - total + _entropy(ratio, y))
        search = _judge_trial(search, trial, misfit, total)
        if i == steps or bool(search.done.all()):
            break
        tried = search.misfit == misfit
        ahead, promised = _newton(trial, slope, joined, model)
        search = _Search(
            x=search.x,
            misfit=search.misfit,
            done=search.done,
            step=torch.where(tried[:, None], ahead, _SHORTER * search.step),
            promised=torch.where(tried, promised, search.promised),
        )
    return search


def _entropy(ratio: Tensor, y: Tensor) -> Tensor:
    """`sum(y log(y / mu))` (pixel,)."""
    tiny = torch.finfo(ratio.dtype).tiny
    return ratio.clamp(min=tiny).log_().mul_(y).sum(dim=1)


def _judge_trial(search: _Search, trial: Tensor, misfit: Tensor, total: Tensor) -> _Search:
    """Take the trial where the deviance fell, or rounding hides whether it did; say where that was the end."""
    better = (misfit <= search.misfit + ROUNDING * total) & ~search.done
    small = (search.promised <= TOLERANCE + ROUNDING * total) & ~search.done
    return _Search(
        x=torch.where(better[:, None], trial, search.x),
        step=search.step,
        misfit=torch.where(better, misfit, search.misfit),
        promised=search.promised,
        done=search.done | small,
    )


def _newton(x: Tensor, slope: Tensor, joined: Tensor, model: Likelihood) -> tuple[Tensor, Tensor]:
    """Step (pixel, column), and the deviance that it promises to take off."""
    expected = (x @ model.coarse.rows).add_(DARK)
    floor = joined.mean(dim=1, keepdim=True).clamp(min=JOINED * DARK) * CURVATURE_FLOOR
    floored = expected + floor
    weights = (joined + expected).mul_(0.5).div_(floored).div_(floored)
    information = _information(weights, model)
    usable = model.scale > 0
    held = (x <= NEAR_BOUND) & (slope > 0) & usable
    free = ~held & usable
    wanted = _solve(information, torch.where(free, slope, 0.0), free)
    alone = slope / information.diagonal(dim1=-2, dim2=-1).clamp(min=1e-30)
    down = torch.where(held, torch.minimum(alone, x), wanted)
    return (x - down).clamp_(min=0.0) - x, 2.0 * (slope * down).sum(dim=1)


def _information(weights: Tensor, model: Likelihood) -> Tensor:
    """`sum_n w_n A_nj A_nk` (pixel, column, column) of weights (pixel, joined channel)."""
    n = model.scale.shape[0]
    found = times(weights, model.pairs).index_select(1, model.place)
    return found.view(weights.shape[0], n, n)


def _solve(information: Tensor, slope: Tensor, free: Tensor) -> Tensor:
    """Solve the free part of each system; 0 elsewhere."""
    pair = free[:, :, None] & free[:, None, :]
    masked = torch.where(pair, information, 0.0)
    masked.diagonal(dim1=-2, dim2=-1).mul_(1.0 + RIDGE).add_(1e-30 + (~free).to(slope.dtype))
    factor, _ = torch.linalg.cholesky_ex(masked)
    return torch.nan_to_num(torch.cholesky_solve(slope[:, :, None], factor)[:, :, 0])


def _variances(own: Tensor, shared: Tensor, null: Tensor, model: Likelihood) -> tuple[Tensor, Tensor]:
    """Variance of the amplitudes (pixel, component) by the expected information; in the component's absence.

    The information is that of the expectation given the estimate, with the floor of the shared weights: a component
    that came out at 0 in a dark place would otherwise claim to be known exactly. The absence lowers it as it lowers
    that of the shared weights.
    """
    variance = (own * model.scale**2)[:, : shared.shape[1]]
    variance = torch.where(torch.isfinite(variance) & (variance > 0), variance, shared)
    return variance, null * variance / shared


def _inverse_diagonals(coefficients: Tensor, operator: PixelOperator, model: Likelihood) -> Tensor:
    """Diagonal (pixel, column) of the inverse of the expected information, in the model's units."""
    expected = expected_coefficients(coefficients, operator) / model.scale.clamp(min=1e-30)
    n = max(coefficients.shape[0], 1)
    size = _ROWS if coefficients.device.type == "cpu" else n
    return torch.cat([_inverse_diagonal(expected[i : i + size], model) for i in range(0, n, size)])


def _inverse_diagonal(x: Tensor, model: Likelihood) -> Tensor:
    counts = x @ model.coarse.rows
    mean = counts.mean(dim=1, keepdim=True).clamp(min=1.0 / counts.shape[1])
    information = _information((counts + ERROR_FLOOR * mean).reciprocal(), model)
    information.diagonal(dim1=-2, dim2=-1).mul_(1.0 + RIDGE).add_((model.scale <= 0).to(x.dtype))
    factor, info = torch.linalg.cholesky_ex(information)
    inverse = torch.cholesky_inverse(factor).diagonal(dim1=-2, dim2=-1)
    return torch.where((info == 0)[:, None], inverse, torch.nan)
