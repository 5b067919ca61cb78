"""How far a pixel's Poisson deviance is above what noise alone gives, in standard deviations: 0 for a right model.

At few counts a channel the deviance is not chi2: its term has the expectation -2 mu log(mu) where mu is small, and it
follows the fitted amplitudes, as both are made of the same counts. So mean and variance are those given the fit
(McCullagh 1986, J. Am. Stat. Assoc. 81, 104; terms as in Kaastra 2017, A&A 605, A51). With d the term of a channel,
E, V its mean and variance under the law of Poisson, S = dE/dmu = cov(d, y) / mu, h the leverage of a channel and
r = P Phi' S its weight in what the amplitudes make of E:

    expected deviance = sum E(mu) - h (1 + mu E''(mu) / 2)
    variance          = sum V(mu) - 2 r mu S(mu) + r^2 mu

With many counts they are n - p and 2 n. Coefficients that are held at 0 or above sum to too much: the mean is taken at
the unbiased ones, along its tangent. Below the least expectation that goes into a deviance, E is continued by its
tangent and V by a line through 0, so that signed amplitudes leave both unbiased. All terms are smooth in the channel:
every 2nd to 8th one is enough, as the basis itself tells.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hpcxrf.fitting.kernels.layout import FAR_OUT, FEW_COUNTS, NEAR, NEAR_SCALE, SMALLEST_EXPECTATION
from hpcxrf.fitting.pixels.basis import PixelBasis, shared_weights, unit_diagonal
from hpcxrf.fitting.pixels.strips import SparseRows, sparse_rows

_STRIDES: Final = (8, 4, 2)
# Largest error of the sampled sums, in standard deviations and as a share of the variance.
_MOST_ERROR: Final = 0.03
_MOST_SPREAD: Final = 0.1
_TOTALS: Final = (3.0, 30.0, 300.0, 3e3, 3e4)
"""Counts of the pixels that samples are tried on."""
_RIDGE: Final = 1e-5
# Of the largest number of a column: what is left out of it.
_LEFT_OUT: Final = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class DevianceLaw:
    """What the expected deviance of a pixel is computed from: the basis at some of its channels."""

    columns: Tensor
    """(column, sample) float32."""
    number: Tensor
    """(sample,) float32: channels that a sample stands for."""
    leverage: Tensor
    """(sample,) float32: degrees of freedom that the amplitudes take from these channels."""
    weights: Tensor
    """(sample,) float32: shared weights of the fit."""
    inverse: Tensor
    """(column, column) float32: inverse of the Gram matrix with these weights."""
    variance_floor: float
    """Variance of the deviance of a pixel that holds one count of the mean spectrum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledLaw:
    """The same as the kernel reads it."""

    spectra: SparseRows
    gather: SparseRows
    inverse: SparseRows
    response: SparseRows
    samples: NDArray[np.float32]
    """(2, sample): number and leverage."""
    variance_floor: float


def sample_basis(basis: PixelBasis) -> DevianceLaw:
    """The basis at as few of its channels as its own spectra allow.

    Args:
        basis: the linear model of a pixel.
    """
    whole = _sample(basis, 1)
    tried = _trial_pixels(basis)
    expected, variance = deviance_moments(tried, tried, whole)
    for stride in _STRIDES:
        law = _sample(basis, stride)
        mean, spread = deviance_moments(tried, tried, law)
        shifted = (mean - expected).abs() <= _MOST_ERROR * variance.sqrt()
        if bool((shifted & ((spread - variance).abs() <= _MOST_SPREAD * variance)).all()):
            return law
    return whole


def standardise(
    misfit: Tensor,
    coefficients: Tensor,
    law: DevianceLaw | CompiledLaw,
    *,
    signed: Tensor | None = None,
    more_parameters: int = 0,
) -> Tensor:
    """The deviance less its expectation, over its standard deviation (pixel,) float32.

    Args:
        misfit: (pixel,) Poisson deviance.
        coefficients: (pixel, column) float32; of pixels with a theta of their own, too: peaks that move a little have
            the same sums.
        law: of the basis; compiled, or as tests compare it.
        signed: (pixel, column) unbiased coefficients, where the others are not below 0; None: they are unbiased.
        more_parameters: parameters of a pixel beside its coefficients.
    """
    signed = coefficients if signed is None else signed
    share = 1.0 + more_parameters / coefficients.shape[1]
    if isinstance(law, CompiledLaw):
        return _standardise_compiled(misfit, coefficients, signed, law, share)
    mean, variance = deviance_moments(coefficients, signed, law, share=share)
    return (misfit - mean) / variance.sqrt()


def deviance_moments(
    coefficients: Tensor, signed: Tensor, law: DevianceLaw, *, share: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Mean and variance (pixel,) of the deviance, given the fit.

    Args:
        coefficients: (pixel, column).
        signed: (pixel, column) unbiased ones.
        law: of the basis.
        share: degrees of freedom of all parameters over those of the columns.
    """
    mu = coefficients @ law.columns
    used = mu.clamp(min=SMALLEST_EXPECTATION)
    mean, variance, slope, free = deviance_terms(used)
    total = (law.number * (mean + slope * (mu - used)) - share * law.leverage * free).sum(dim=1)
    steep = (slope * law.number) @ law.columns.T
    total = total + (steep * (signed - coefficients)).sum(dim=1)
    # What the amplitudes make of the expectation: P' is W Phi (Phi' W Phi)^-1.
    response = (steep @ law.inverse @ law.columns) * law.weights
    spread = variance * (mu / used) + mu * response * (response - 2.0 * slope)
    return total, (law.number * spread).sum(dim=1).clamp(min=law.variance_floor)


def deviance_terms(mu: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """E, V, S and 1 + mu E'' / 2 of a channel's term, at expectations of any shape.

    Where counts are few they are made of moments of y log y, which are smooth in mu, and of log(mu); where they are
    many, of powers of 1 / mu.

    Args:
        mu: expectations, at least `SMALLEST_EXPECTATION`.
    """
    few, up = mu < FEW_COUNTS, mu.log()
    s, x = mu / (mu + NEAR_SCALE), 1.0 / mu
    log_next, change, square, near_free = _polynomials(NEAR, s)
    far_mean, far_slope, far_variance, far_free = _polynomials(FAR_OUT, x)
    variance = 4.0 * mu * (square + (1.0 + up) * (1.0 + up - 2.0 * change))
    return (
        torch.where(few, 2.0 * mu * (log_next - up), 1.0 + far_mean),
        torch.where(few, variance, 2.0 + far_variance),
        torch.where(few, 2.0 * (change - up - 1.0), far_slope * x),
        torch.where(few, near_free, 1.0 + far_free),
    )


def _polynomials(coefficients: Sequence[Sequence[float]], x: Tensor) -> Tensor:
    """`c0 x + c1 x^2 + ...` by row of the coefficients, (polynomial, *x)."""
    rows = torch.tensor(coefficients, dtype=x.dtype)
    powers = x.expand(rows.shape[1], *x.shape).cumprod(dim=0)
    return (rows @ powers.reshape(rows.shape[1], -1)).reshape(-1, *x.shape)


def compile_law(law: DevianceLaw) -> CompiledLaw:
    """Prepare the kernel's matrices, and compile it where that was not done."""
    load_deviance_kernel()
    columns = law.columns * (law.columns > _LEFT_OUT * law.columns.amax(dim=1, keepdim=True))
    return CompiledLaw(
        spectra=sparse_rows(columns.T),
        gather=sparse_rows(columns * law.number),
        inverse=sparse_rows(law.inverse),
        response=sparse_rows((columns * law.weights).T),
        samples=torch.stack([law.number, law.leverage]).numpy(),
        variance_floor=law.variance_floor,
    )


def _standardise_compiled(
    misfit: Tensor, coefficients: Tensor, signed: Tensor, law: CompiledLaw, share: float
) -> Tensor:
    out = torch.empty(len(coefficients))
    load_deviance_kernel().standardise(
        coefficients.T.contiguous().numpy(),
        signed.T.contiguous().numpy(),
        misfit.contiguous().numpy(),
        share,
        law.spectra,
        law.gather,
        law.inverse,
        law.response,
        law.samples,
        law.variance_floor,
        out.numpy(),
    )
    return out


@functools.cache
def load_deviance_kernel() -> ModuleType:
    """The kernel; the first call on a machine compiles it."""
    # It loads numba, which a fit on a GPU has no need of.
    from hpcxrf.fitting.kernels.machine_code import load_kernels

    return load_kernels("deviance")


def _sample(basis: PixelBasis, stride: int) -> DevianceLaw:
    """The basis at the middle of every `stride` channels."""
    n_channels, n_columns = basis.columns.shape
    starts = torch.arange(0, n_channels, stride)
    number = (n_channels - starts).clamp(max=stride)
    places = starts + number // 2
    weights = shared_weights(basis.expected)
    gram = (basis.columns * weights[:, None]).T @ basis.columns
    unit, scale = unit_diagonal(gram)
    # What cannot be told apart in single precision changes no sum over channels.
    steady = unit + _RIDGE * torch.eye(n_columns, dtype=unit.dtype)
    inverse = torch.linalg.inv(steady) * scale[:, None] * scale
    columns = basis.columns[places]
    leverage = number * weights[places] * ((columns @ inverse) * columns).sum(dim=1)
    taken = (scale > 0).sum()
    single = torch.float32
    law = DevianceLaw(
        columns=columns.T.contiguous().to(single),
        number=number.to(single),
        leverage=(leverage * taken / leverage.sum()).to(single),
        weights=weights[places].to(single),
        inverse=inverse.to(single),
        variance_floor=0.0,
    )
    one_count = _mean_shares(basis)[None]
    _, variance = deviance_moments(one_count, one_count, law)
    return replace(law, variance_floor=float(variance))


def _mean_shares(basis: PixelBasis) -> Tensor:
    positive = basis.coefficients.clamp(min=0.0)
    return (positive / positive.sum()).to(torch.float32)


def _trial_pixels(basis: PixelBasis) -> Tensor:
    """Coefficients (pixel, column) of the mean pixel and of pixels of one component each, at several totals."""
    pure = torch.eye(len(basis.coefficients))[: basis.n_components]
    shapes = torch.cat([_mean_shares(basis)[None], 0.9 * pure + 0.1 * _mean_shares(basis)])
    return torch.cat([total * shapes for total in _TOTALS])
