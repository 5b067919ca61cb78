"""Fits with shared weights on a processor by a compiled kernel: the same numbers as of the tensor operations.

Amplitudes within 1e-4 of their sigma, sigma within 1e-3. A pixel's numbers depend on its own counts alone.
"""

import functools
from dataclasses import dataclass
from types import ModuleType
from typing import Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcxrf.fitting.kernels.layout import FLOAT32, HIGHEST_PULL, LOWEST_PULL, PULL_STEPS, UINT8, UINT16, UINT32
from hpcxrf.fitting.pixels.bands import MOST_ROUNDING, BandedProjector, mixing_matrix, rounding
from hpcxrf.fitting.pixels.basis import PixelBasis, PixelOperator, unit_diagonal
from hpcxrf.fitting.pixels.faint_model import FaintModel, model_faint, model_known
from hpcxrf.fitting.pixels.strips import (
    StripArrays,
    by_tile,
    cut_into_runs,
    find_near,
    no_strips,
    strips_of,
    strips_of_all,
)

# Share of a column's information below which its projector is left out of a tile: what a pixel with all of its counts
# in any one channel has there does not change its amplitudes by more than single precision does.
_LEFT_OUT: Final = 1e-18
COUNT_TYPES: Final = {torch.uint8: UINT8, torch.uint16: UINT16, torch.uint32: UINT32, torch.float32: FLOAT32}
"""Types of counts that kernels read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledFit:
    """Matrices of the kernel."""

    n_columns: int
    n_components: int
    n_channels: int
    total: slice
    """Channels whose counts make a pixel's total."""
    projector: StripArrays
    mixing: StripArrays
    columns: StripArrays
    faint: FaintModel
    variance: StripArrays
    tables: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
    """Hazard of the normal law, least variance, and variance by the component's own coefficient (component,)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedPixels:
    """Results of the kernel, float32."""

    coefficients: Tensor
    """(pixel, column)."""
    total: Tensor
    """(pixel,) counts; NaN where one is not finite, and the coefficients are 0 there."""
    variance: Tensor | None
    """(pixel, component)."""
    null_variance: Tensor | None
    """(pixel, component), in the absence of the component."""
    expected: Tensor | None
    """(pixel, column): what is expected of coefficients that are not negative, given these."""
    misfit: Tensor | None
    """(pixel,) Poisson deviance."""


def compile_fit(basis: PixelBasis, operator: PixelOperator) -> CompiledFit:
    """Prepare the kernel's matrices, and compile it where that was not done.

    Args:
        basis: the linear model of a pixel.
        operator: its products, on the processor.
    """
    load_map_kernels()
    return _compiled_fit(operator, *_cut_projector(basis, operator))


def _compiled_fit(operator: PixelOperator, cut: Tensor, projector: StripArrays, mixing: Tensor) -> CompiledFit:
    expectation = cut_into_runs(find_near(operator.columns.T))
    n_components = operator.n_components
    own = operator.variance[:n_components].diagonal()
    return CompiledFit(
        n_columns=len(operator.columns),
        n_components=n_components,
        n_channels=operator.columns.shape[1],
        total=slice(operator.grouping.first, operator.grouping.stop),
        projector=projector,
        mixing=strips_of_all(mixing.T),
        columns=strips_of(operator.columns.T, expectation),
        faint=model_faint(cut, operator, load_map_kernels().LANES),
        variance=strips_of_all(operator.variance.T),
        tables=(_hazard(), _single(operator.variance_floor), _single(own)),
    )


def compile_whole(operator: PixelOperator) -> CompiledFit:
    """Prepare for a projector that is taken as it is.

    Args:
        operator: products of a basis, on the processor.
    """
    load_map_kernels()
    runs = cut_into_runs(by_tile(operator.projector).abs().amax(dim=1) > 0.0)
    eye = torch.eye(len(operator.columns), dtype=torch.float64)
    return _compiled_fit(operator, operator.projector, strips_of(operator.projector, runs), eye)


def compile_expectation(columns: Tensor) -> CompiledFit:
    """Prepare for the deviance alone of pixels whose coefficients are known, and compile where that was not done.

    Args:
        columns: (column, channel), counts of one count.
    """
    load_map_kernels()
    n, n_channels = columns.shape
    runs = cut_into_runs(find_near(columns.T))
    nothing = np.zeros(0, np.float32)
    return CompiledFit(
        n_columns=n,
        n_components=0,
        n_channels=n_channels,
        total=slice(0, n_channels),
        projector=no_strips(),
        mixing=no_strips(),
        columns=strips_of(columns.T, runs),
        faint=model_known(columns.T, load_map_kernels().LANES),
        variance=no_strips(),
        tables=(_hazard(), nothing, nothing),
    )


def find_deviance(counts: Tensor, factors: Tensor, expectation: CompiledFit) -> Tensor:
    """Poisson deviance (pixel,) of known coefficients.

    Args:
        counts: (pixel, channel), any real dtype.
        factors: (pixel, column) float32.
        expectation: of `compile_expectation`.
    """
    return cast(Tensor, fit_compiled(counts, expectation, deviance=True, errors=False, coefficients=factors).misfit)


def fit_compiled(
    counts: Tensor,
    fit: CompiledFit,
    *,
    deviance: bool,
    errors: bool,
    coefficients: Tensor | None = None,
    expected: bool = False,
) -> FittedPixels:
    """Fit a micro-batch.

    Args:
        counts: (pixel, channel), any real dtype.
        fit: matrices of `compile_fit`.
        deviance: whether the misfit is wanted.
        errors: whether the variances are wanted.
        coefficients: (pixel, column) float32, where they are known and the rest is wanted; None: least squares.
        expected: whether the expectation of the coefficients is wanted, too, with the variances.
    """
    if counts.dtype not in COUNT_TYPES:
        counts = counts.to(torch.float32)
    n = len(counts)
    data, stride = as_bytes(counts)
    found = torch.empty((fit.n_columns, n)) if coefficients is None else coefficients.T.contiguous()
    total, misfit = torch.empty(n), torch.empty(n if deviance else 0)
    spread = torch.empty((2, fit.n_components if errors else 0, n))
    positive = torch.empty((fit.n_columns if errors and expected else 0, n))
    load_map_kernels().fit_pixels(
        data,
        COUNT_TYPES[counts.dtype],
        stride,
        fit.n_channels,
        fit.total.start,
        fit.total.stop,
        int(coefficients is not None),
        fit.projector,
        fit.mixing,
        fit.columns,
        fit.faint,
        fit.variance,
        fit.tables,
        found.numpy(),
        total.numpy(),
        spread[0].numpy(),
        spread[1].numpy(),
        positive.numpy(),
        misfit.numpy(),
    )
    return FittedPixels(
        coefficients=found.T,
        total=total,
        variance=spread[0].T if errors else None,
        null_variance=spread[1].T if errors else None,
        expected=positive.T if errors and expected else None,
        misfit=misfit if deviance else None,
    )


def project_compiled(counts: Tensor, matrix: StripArrays, n_columns: int) -> tuple[Tensor, Tensor]:
    """Products (pixel, column) with the columns of a matrix, and the counts of each pixel (pixel,), NaN where broken.

    Args:
        counts: (pixel, channel), any real dtype.
        matrix: strips of the columns over channels.
        n_columns: how many they are.
    """
    if counts.dtype not in COUNT_TYPES:
        counts = counts.to(torch.float32)
    data, stride = as_bytes(counts)
    products, total = torch.empty((n_columns, len(counts))), torch.empty(len(counts))
    load_map_kernels().project_pixels(
        data, COUNT_TYPES[counts.dtype], stride, counts.shape[1], matrix, products.numpy(), total.numpy()
    )
    return products.T, total


@functools.cache
def load_map_kernels() -> ModuleType:
    """The kernels; the first call on a machine compiles them."""
    # It loads numba, which a fit on a GPU has no need of.
    from hpcxrf.fitting.kernels.machine_code import load_kernels

    return load_kernels("maps")


def as_bytes(counts: Tensor) -> tuple[NDArray[np.uint8], int]:
    """Bytes of the counts of all pixels as they lie in memory, and the counts from one pixel to the next.

    Args:
        counts: (pixel, channel) of one of the types that kernels read.
    """
    n, n_channels = counts.shape
    if n_channels > 1 and counts.stride(1) != 1:
        counts = counts.contiguous()
    stride = counts.stride(0) if n > 1 else n_channels
    length = (n - 1) * stride + n_channels if n else 0
    return counts.as_strided((length,), (1,)).numpy().view(np.uint8), stride


def _cut_projector(basis: PixelBasis, operator: PixelOperator) -> tuple[Tensor, StripArrays, Tensor]:
    """T, T as strips, and `(T' Phi)^-1` transposed; T left out where it is next to nothing, if float32 bears it."""
    weighted, columns = operator.weighted, basis.columns
    share = by_tile(columns * weighted).sum(dim=1)
    runs = cut_into_runs(share > _LEFT_OUT * share.sum(dim=0))
    cut = torch.zeros_like(weighted)
    for run in runs:
        kept = list(run.columns)
        cut[run.start : run.stop, kept] = weighted[run.start : run.stop, kept]
    mixing = mixing_matrix(cut.T @ columns, unit_diagonal(operator.gram)[1] > 0)
    eye, expected = torch.eye(len(mixing), dtype=mixing.dtype), basis.expected.clamp(min=0.0)
    whole = operator.projector.to(torch.float64)
    changed, least = (rounding(_banded(t, m), expected) for t, m in ((cut, mixing), (whole, eye)))
    if bool((changed <= (2.0 * least).clamp(min=MOST_ROUNDING)).all()):
        return cut, strips_of(cut, runs), mixing
    everywhere = cut_into_runs(torch.ones_like(share, dtype=torch.bool))
    return whole, strips_of(whole, everywhere), eye


def _banded(weights: Tensor, mixing: Tensor) -> BandedProjector:
    """With a column for the totals, whose rounding does not matter."""
    one = torch.nn.functional.pad
    return BandedProjector(bands=(), weights=one(weights, (0, 1)), mixing=one(mixing, (0, 1, 0, 1)))


def _single(x: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(x.to(torch.float32).numpy())


def _hazard() -> NDArray[np.float32]:
    """`phi(x) / Phi(x)` by steps, with one more to read beyond the end."""
    x = (
        torch.arange(round((HIGHEST_PULL - LOWEST_PULL) * PULL_STEPS) + 2, dtype=torch.float64) / PULL_STEPS
        + LOWEST_PULL
    )
    ratio = torch.sqrt(torch.tensor(2.0 / torch.pi)) * (-0.5 * x**2).exp() / torch.special.erfc(-x * 0.5**0.5)
    return np.asarray(ratio.to(torch.float32))
