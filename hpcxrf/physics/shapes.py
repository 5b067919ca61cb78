"""Peak shapes on the standardised axis u = (E - E_line) / sigma: the only place that holds them.

Every argument of `exp` and `erfc` is clamped where the result no longer counts: that keeps gradients finite
over the whole of the bounds (a `torch.where` over an overflowing branch has a NaN gradient), and spares the
processor denormal numbers, which are 20 times slower.
"""

from typing import Final

import torch
from torch import Tensor

SQRT2: Final = 1.4142135623730951
INV_SQRT_2PI: Final = 0.3989422804014327
# exp(-78) = 1e-34 is the last normal number of float32.
_MIN_EXPONENT: Final = -78.0
# erfc(8.7) = 8e-35 dies before exp(40) could revive it; erfc(-4.5) is 2 to 2e-10.
_MIN_ERFC, _MAX_ERFC = -4.5, 8.7
_MAX_TAIL_EXPONENT: Final = 40.0


def gaussian(u: Tensor) -> Tensor:
    """Standard normal density of `u`, any shape; area 1 over u."""
    return torch.exp((-0.5 * u * u).clamp(min=_MIN_EXPONENT)) * INV_SQRT_2PI


def low_energy_tail(u: Tensor, gamma: Tensor) -> Tensor:
    """Exponential of decay length `gamma` (in sigma) below the line, folded with the Gaussian.

    The exponentially modified Gaussian, area 1 over u:
    `exp(u/gamma + 1/(2 gamma^2)) erfc((u + 1/gamma) / sqrt 2) / (2 gamma)`.

    Args:
        u: standardised energy, any shape.
        gamma: decay length in units of sigma, at least 1; broadcasts with `u`.
    """
    inverse = 1.0 / gamma
    exponent = (inverse * u + 0.5 * inverse * inverse).clamp(-_MAX_TAIL_EXPONENT, _MAX_TAIL_EXPONENT)
    return torch.exp(exponent) * _erfc((u + inverse) / SQRT2) * (0.5 * inverse)


def maps_low_energy_tail(u: Tensor, gamma: Tensor) -> Tensor:
    """The tail as MAPS computes it: above the line the exponential is held at 1 (parity only).

    Args:
        u: standardised energy, any shape.
        gamma: decay length in units of sigma, at least 1; broadcasts with `u`.
    """
    inverse = 1.0 / gamma
    growth = torch.exp(u.clamp(max=0.0) * inverse + 0.5 * inverse * inverse)
    return growth * _erfc((u + inverse) / SQRT2) * (0.5 * inverse)


def step(u: Tensor) -> Tensor:
    """Shelf below a line, 2 far below and 0 above: divided by 2 E_line it has area 1 over energy."""
    return _erfc(u / SQRT2)


def _erfc(x: Tensor) -> Tensor:
    return torch.erfc(x.clamp(_MIN_ERFC, _MAX_ERFC))
