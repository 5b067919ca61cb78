"""Every pixel of a tile at fixed theta: one matrix product with shared weights, or non-negative.

Shared weights `1 / (mu + 1 %)`, mu the integrated fit's model per pixel, are unbiased and as precise as the
pixel's own true weights where the composition is similar; weights from the pixel's own noisy counts would pull
amplitudes down by up to 30 %.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor

from hpcxrf.errors import FitError
from hpcxrf.fitting.nnls import nnls_gram
from hpcxrf.fitting.objective import poisson_deviance
from hpcxrf.fitting.result import FitStatus, PixelFit
from hpcxrf.fitting.uncertainty import detection_limit
from hpcxrf.physics.shapes import INV_SQRT_2PI

PixelMethod = Literal["linear", "nnls"]

# Pixels per product: 2048 x 1200 channels in float32 are 10 MB. Fixed, and counted from the start of the
# tile, so that a pixel meets the same neighbours, and the same rounding, however a scan is cut into tasks.
MICRO_BATCH: Final = 2048
_WEIGHT_FLOOR: Final = 0.01
_EMPTY_COLUMN: Final = 1e-12
_SMALLEST_EIGENVALUE: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelBasis:
    """The linear model of a pixel, at fixed theta."""

    columns: Tensor
    """(channel, column) float64: the components, then background columns."""
    n_components: int
    expected: Tensor
    """(channel,) float64: mean model of a pixel, with background; it sets the shared weights."""
    coefficients: Tensor
    """(column,) float64: mean coefficients of a pixel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelOperator:
    """What is computed once for all pixels."""

    columns: Tensor
    """(column, channel) float32."""
    projector: Tensor
    """(channel, column) float32: counts @ projector = least-squares coefficients."""
    gram: Tensor
    """(column, column) float64."""
    weighted: Tensor
    """(channel, column) float64, for non-negative fits."""
    variance: Tensor
    """(column, component) float32: coefficients @ variance = variance of the components."""
    variance_floor: Tensor
    """(component,) variance if the pixel held one count of the mean spectrum."""
    measured: Tensor
    """(component,) bool: has counts in the fit range."""
    n_components: int


def single_thread() -> None:
    """Set this thread to compute alone, with denormal numbers flushed to 0 (they are 20 times slower)."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def shared_weights(expected: Tensor) -> Tensor:
    """`1 / (mu + 0.01 mean(mu))` of the mean pixel's expected counts (channel,)."""
    mu = expected.clamp(min=0.0)
    return 1.0 / (mu + _WEIGHT_FLOOR * mu.mean())


def group_background(parts: Tensor, n_groups: int) -> Tensor:
    """Join neighbouring background parts, so that noise in a pixel is not spent on sixteen hats.

    Args:
        parts: (part, channel) counts of the integrated background's hats, in order of energy.
        n_groups: number of columns wanted.

    Returns:
        (at most n_groups, channel), with the same sum.
    """
    used = parts[parts.sum(dim=1) > 0]
    n = min(n_groups, used.shape[0])
    if n == 0:
        return used
    return torch.stack([chunk.sum(dim=0) for chunk in torch.tensor_split(used, n)])


def pixel_basis(phi: Tensor, amplitude: Tensor, background: Tensor, n_pixels: int) -> PixelBasis:
    """Basis of a pixel from the integrated fit.

    Args:
        phi: (channel, component) float64 at the fitted theta.
        amplitude: (component,) integrated counts.
        background: (group, channel) integrated counts, from `group_background`.
        n_pixels: pixels that were integrated.
    """
    total = background.sum(dim=1)
    columns = torch.cat([phi, (background / total[:, None]).T], dim=1)
    coefficients = torch.cat([amplitude, total]) / n_pixels
    return PixelBasis(
        columns=columns,
        n_components=phi.shape[1],
        expected=columns @ coefficients,
        coefficients=coefficients,
    )


def pixel_operator(basis: PixelBasis) -> PixelOperator:
    """Projector, and the variance of its result as a linear function of the coefficients.

    With a = P' y, var(a_k) = sum_n P_nk^2 mu_n, and mu = columns @ a: so var(a) = a @ S with
    S_jk = sum_n columns_nj P_nk^2, a product of the size of the coefficients instead of the spectrum.

    A component without a count in the fit range (a scatter peak beyond its end) is not measured; it is left out
    and reads NaN in every pixel.

    Raises:
        FitError: columns that cannot be told apart, so that no pixel has a unique solution.
    """
    weighted = basis.columns * shared_weights(basis.expected)[:, None]
    gram = basis.columns.T @ weighted
    diagonal = gram.diagonal()
    used = diagonal > _EMPTY_COLUMN * diagonal.max()
    scale = torch.where(used, diagonal.clamp(min=1e-300).rsqrt(), 0.0)
    unit = gram * scale[:, None] * scale + torch.diag((~used).to(gram.dtype))
    _refuse_mixtures(unit)
    factor = torch.linalg.cholesky(unit)
    projector = (torch.cholesky_solve((weighted * scale).T, factor) * scale[:, None]).T
    squares = projector[:, : basis.n_components] ** 2
    total = basis.coefficients.clamp(min=0.0)
    floor = (total / total.sum()) @ (basis.columns.T @ squares)
    return PixelOperator(
        columns=basis.columns.T.contiguous().to(torch.float32),
        projector=projector.contiguous().to(torch.float32),
        gram=gram,
        weighted=weighted,
        variance=(basis.columns.T @ squares).to(torch.float32),
        variance_floor=floor.to(torch.float32),
        measured=used[: basis.n_components],
        n_components=basis.n_components,
    )


def _refuse_mixtures(unit: Tensor) -> None:
    """Refuse columns of which one is a combination of others: the unit-diagonal Gram has an eigenvalue of 0."""
    values, vectors = torch.linalg.eigh(unit)
    if float(values[0]) > _SMALLEST_EIGENVALUE:
        return
    shares = vectors[:, 0].abs()
    guilty = [str(i) for i in torch.nonzero(shares > 0.1 * shares.max())[:, 0].tolist()]
    raise FitError(
        f"the pixel fit is singular: columns {', '.join(guilty)} (counted from 0, of {unit.shape[0]}) cannot be told "
        "apart; leave one of these components out"
    )


def fit_pixels(
    counts: Tensor,
    measured: Tensor,
    operator: PixelOperator,
    *,
    method: PixelMethod = "linear",
    deviance: bool = True,
    threads: int = 1,
) -> PixelFit:
    """Fit the pixels of one tile, in micro-batches counted from its first pixel.

    Args:
        counts: (pixel, channel) raw counts of the fit range, any real dtype.
        measured: (pixel,) bool.
        operator: of `pixel_operator`, on the device of the counts.
        method: `linear` (signed, unbiased) or `nnls` (non-negative, exact).
        deviance: whether to compute the deviance, which costs a second product of the size of the spectra.
        threads: micro-batches at a time, each on one torch thread: a product split over threads could round
            otherwise than a whole one, a micro-batch never does.
    """

    def batch(i: int) -> PixelFit:
        part = slice(i, i + MICRO_BATCH)
        return _fit_batch(counts[part], measured[part], operator, method, deviance=deviance)

    starts = range(0, max(counts.shape[0], 1), MICRO_BATCH)
    if threads == 1 or len(starts) == 1:
        batches = [batch(i) for i in starts]
    else:
        with ThreadPoolExecutor(threads, initializer=single_thread) as pool:
            batches = list(pool.map(batch, starts))
    return PixelFit(
        **{
            name: torch.cat([getattr(b, name) for b in batches])
            for name in ("amplitude", "sigma", "detection_limit", "deviance", "status")
        }
    )


def _fit_batch(
    counts: Tensor,
    measured: Tensor,
    operator: PixelOperator,
    method: PixelMethod,
    *,
    deviance: bool,
) -> PixelFit:
    y = counts.to(torch.float32)
    finite = torch.ones_like(measured)
    if counts.is_floating_point():
        finite = torch.isfinite(y).all(dim=1)
        y = torch.where(finite[:, None], y, 0.0)
    coefficients, solved = y @ operator.projector, torch.ones_like(measured)
    if method == "nnls":
        coefficients, solved = _non_negative(y, coefficients, operator)
    n = operator.n_components
    amplitude = coefficients[:, :n]
    variance, own = _variance(coefficients, operator)
    null = torch.maximum(variance - own, operator.variance_floor)
    merit = y.new_full((y.shape[0],), torch.nan)
    if deviance:
        merit = poisson_deviance(y, coefficients @ operator.columns) / (
            y.shape[1] - coefficients.shape[1]
        )
    valid = finite & measured
    blank = ~(valid[:, None] & operator.measured)
    return PixelFit(
        amplitude=amplitude.masked_fill(blank, torch.nan),
        sigma=variance.sqrt().masked_fill(blank, torch.nan),
        detection_limit=detection_limit(null.sqrt()).masked_fill(blank, torch.nan),
        deviance=merit.masked_fill(~valid, torch.nan),
        status=_status(y, finite, measured, solved),
    )


def _variance(coefficients: Tensor, operator: PixelOperator) -> tuple[Tensor, Tensor]:
    """Variance (pixel, component) of the amplitudes, and the part of it that the component itself brings.

    It is linear in the expected coefficients, which the estimates are not: signed, chance would cancel the variance;
    cut at 0, a component that came out low by chance would claim to know it well. So the expectation given the
    estimate is taken, of a normal law cut at 0: a + s phi(a/s) / Phi(a/s).
    """
    n = operator.n_components
    first = torch.maximum(coefficients.clamp(min=0.0) @ operator.variance, operator.variance_floor)
    sigma = first.sqrt().clamp(min=1e-6)
    x = coefficients[:, :n] / sigma
    hazard = torch.exp(-0.5 * x * x - torch.special.log_ndtr(x)) * INV_SQRT_2PI
    expected = torch.cat(
        [coefficients[:, :n] + sigma * hazard, coefficients[:, n:].clamp(min=0.0)], dim=1
    )
    variance = torch.maximum(expected @ operator.variance, operator.variance_floor)
    return variance, expected[:, :n] * operator.variance[:n].diagonal()


def _non_negative(
    y: Tensor, coefficients: Tensor, operator: PixelOperator
) -> tuple[Tensor, Tensor]:
    """Coefficients, and which pixels meet the optimality conditions."""
    rhs = y.to(torch.float64) @ operator.weighted
    gram = operator.gram.expand(y.shape[0], -1, -1)
    solution = nnls_gram(gram, rhs, coefficients > 0)
    return solution.x.to(torch.float32), solution.converged


def _status(y: Tensor, finite: Tensor, measured: Tensor, solved: Tensor) -> Tensor:
    status = torch.full((y.shape[0],), int(FitStatus.CONVERGED), dtype=torch.uint8, device=y.device)
    status[~solved] = int(FitStatus.MAX_ITERATIONS)
    status[(y.sum(dim=1) <= 0) | ~measured] = int(FitStatus.EMPTY)
    status[~finite] = int(FitStatus.NONFINITE)
    return status
