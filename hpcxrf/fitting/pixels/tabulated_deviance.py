"""What the deviance of a pixel is expected to be, on a device: the terms of a channel read from one table.

The formulas stand in `expected_deviance`; here they are arranged so that a device is asked for few operations. With
A = E - mu S, the tangent at mu carried to 0, and n the channels that a sample stands for,

    expected deviance = sum n A(mu) - h (1 + mu E''(mu) / 2) + (n S Phi)' a
    variance          = sum n mu (V(mu) / mu + r (r - 2 S(mu)))

where the sums are products with n and h, and n S Phi, which the unbiased coefficients a are multiplied with, is what r
is made of, too. All four functions of mu are read from a table by the logarithm of mu, in one operation.
"""

from dataclasses import dataclass
from math import log
from typing import Final

import torch
from torch import Tensor

from hpcxrf.fitting.kernels.layout import SMALLEST_EXPECTATION
from hpcxrf.fitting.pixels.expected_deviance import DevianceLaw, deviance_terms

_STEPS: Final = 8192
"""Entries of the table: 0.34 % of mu from one to the next, between which it is linear, to 2e-6."""
_LARGEST_EXPECTATION: Final = 1e9
BYTES_PER_SAMPLE: Final = 50
"""Memory of one sample of one pixel while its terms are computed, about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TabulatedLaw:
    """A `DevianceLaw` on a device; half of the deviance is what its numbers are of, as sums over channels give it."""

    columns: Tensor
    """(column, sample) float32."""
    number: Tensor
    """(sample,) float32: channels that a sample stands for."""
    leverage: Tensor
    """(sample,) float32."""
    gather: Tensor
    """(sample, column) float32: columns times number."""
    response: Tensor
    """(column, sample) float32: inverse Gram matrix times weighted columns."""
    table: Tensor
    """(1, 4, 1, entry) float32: A / 2, V / (4 mu), S / 2 and (1 + mu E''/2) / 2 at equal steps of log(mu)."""
    place: Tensor
    """(2, 2) float32: what log(mu) is multiplied with, and what is added, for the place in the table: along it, from -1
    to 1, and across it, 0."""
    variance_floor: float
    """Least variance, of half the deviance."""


def tabulate(law: DevianceLaw) -> TabulatedLaw:
    """Prepare a law for devices.

    Args:
        law: what the deviance is expected to be, on the processor.
    """
    low, high = log(SMALLEST_EXPECTATION), log(_LARGEST_EXPECTATION)
    mu = torch.linspace(low, high, _STEPS, dtype=torch.float64).exp()
    mean, variance, slope, free = deviance_terms(mu)
    rows = torch.stack([0.5 * (mean - mu * slope), 0.25 * variance / mu, 0.5 * slope, 0.5 * free])
    along = 2.0 / (high - low)
    return TabulatedLaw(
        columns=law.columns,
        number=law.number,
        leverage=law.leverage,
        gather=(law.columns * law.number).T.contiguous(),
        response=(law.inverse @ law.columns) * law.weights,
        table=rows[None, :, None].to(torch.float32),
        place=torch.tensor([[along, 0.0], [-along * low - 1.0, 0.0]]),
        variance_floor=0.25 * law.variance_floor,
    )


def standardise_half(
    half: Tensor, coefficients: Tensor, signed: Tensor, law: TabulatedLaw, *, more_parameters: int
) -> Tensor:
    """The deviance less its expectation, over its standard deviation (pixel,) float32.

    Args:
        half: (pixel,) half the Poisson deviance.
        coefficients: (pixel, column) float32.
        signed: (pixel, column) unbiased ones.
        law: of the basis, on the same device.
        more_parameters: parameters of a pixel beside its coefficients.
    """
    mu = coefficients @ law.columns
    tangent, spread, slope, free = _read_terms(mu, law)
    share = 1.0 + more_parameters / coefficients.shape[1]
    steep = slope @ law.gather
    above = torch.addmv(half, tangent, law.number, alpha=-1.0)
    above = torch.addmv(above, free, law.leverage, alpha=share)
    above = torch.baddbmm(above[:, None, None], steep[:, None, :], signed[:, :, None], alpha=-1.0)[:, 0, 0]
    response = steep @ law.response
    spread = torch.addcmul(spread, response, torch.sub(response, slope, alpha=2.0)).mul_(mu)
    return (spread @ law.number).clamp_(min=law.variance_floor).rsqrt_().mul_(above)


def _read_terms(mu: Tensor, law: TabulatedLaw) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four rows of the table at mu (pixel, sample)."""
    logarithm = mu.clamp(min=SMALLEST_EXPECTATION).log_()
    places = torch.addcmul(law.place[1], logarithm[..., None], law.place[0])[None]
    # What lies beyond the ends has the values there.
    found = torch.nn.functional.grid_sample(law.table, places, padding_mode="border", align_corners=True)[0]
    tangent, spread, slope, free = found.unbind()
    return tangent, spread, slope, free
