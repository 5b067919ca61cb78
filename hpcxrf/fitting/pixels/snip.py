"""Peak clipping of every pixel by itself, as other programs do it: for comparison only.

At a few counts a channel the clipped spectrum lies far below the true background, and what is left of it is taken for
peaks: amplitudes are biased, where the background's columns in the fit leave them unbiased.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from hpcxrf.fitting.objective import poisson_deviance
from hpcxrf.fitting.pixels.basis import PixelOperator
from hpcxrf.fitting.pixels.parts import Estimate, project, shared_variance
from hpcxrf.physics.background import snip

# Rows that are worked on at a time: 24 sweeps over 256 spectra of 1200 channels stay near a core's cache.
_ROWS: Final = 256


def fit_clipped(
    counts: Tensor,
    solve: Callable[[Tensor, Tensor], Estimate],
    operator: PixelOperator,
    half_width_channels: Tensor,
    *,
    deviance: bool,
) -> Estimate:
    """Fit a micro-batch less its clipped background.

    The variance counts the noise under the peaks, not that of the clipping.

    Args:
        counts: (pixel, channel) finite, any real dtype: of the fit range.
        solve: a method, of counts and unconstrained coefficients.
        operator: of a basis without background columns.
        half_width_channels: (channel,) distance of the neighbours.
        deviance: whether the misfit is wanted.
    """
    background = _clipped(counts, half_width_channels)
    net = counts.to(torch.float32) - background
    found = solve(net, project(net, operator.projector))
    variance, null = shared_variance(found.coefficients, operator)
    under = background @ operator.projector[:, : operator.n_components].square()
    misfit = None
    if deviance:
        parts = [
            poisson_deviance(
                counts[i : i + _ROWS].to(torch.float32),
                found.factors[i : i + _ROWS] @ found.columns + background[i : i + _ROWS],
            )
            for i in range(0, max(len(counts), 1), _ROWS)
        ]
        misfit = torch.cat(parts).to(torch.float32)
    return replace(found, variance=variance + under, null_variance=null + under, misfit=misfit)


def _clipped(counts: Tensor, half_width_channels: Tensor) -> Tensor:
    """Background (pixel, channel) float32 of every pixel by itself."""
    parts = [
        snip(counts[i : i + _ROWS].to(torch.float32), half_width_channels=half_width_channels)
        for i in range(0, max(len(counts), 1), _ROWS)
    ]
    return torch.cat(parts)
