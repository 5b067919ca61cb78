"""Peak clipping of every pixel by itself, as other programs do it: for comparison only.

At a few counts a channel the clipped spectrum lies far below the true background, and what is left of it is taken for
peaks: amplitudes are biased, where the background's columns in the fit leave them unbiased.
"""

from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from hpcxrf.fitting.objective import poisson_deviance
from hpcxrf.fitting.pixels.model import PixelModel
from hpcxrf.fitting.pixels.parts import Estimate, Solver, project, rows_at_a_time, shared_variance
from hpcxrf.physics.background import SNIP_HALF_WIDTH_FWHM, fwhm_channels, snip

# Rows that are worked on at a time: 24 sweeps over 256 spectra of 1200 channels stay near a core's cache.
_ROWS: Final = 256
# Spectra of float32 that a sweep holds at a time.
_COPIES: Final = 8


def clip_first(solver: Solver, half_width_channels: Tensor) -> Solver:
    """Solver that fits every pixel less its clipped background.

    Args:
        solver: a method, prepared with a basis without background columns.
        half_width_channels: (channel,) distance of the neighbours, on the device of the counts.
    """

    def estimate(counts: Tensor, signed: Tensor, *, deviance: bool, errors: bool) -> Estimate:
        del signed
        return fit_clipped(counts, solver, half_width_channels, deviance=deviance, errors=errors)

    return replace(solver, estimate=estimate, compiled=None, direct=False)


def clipping_width(model: PixelModel, device: torch.device) -> Tensor:
    """Half-width (channel,) of the pixels' peak clipping, that of integrated spectra; of a sum, its first part's."""
    width = fwhm_channels(model.parts[0].theta, model.channel, model.constants)
    return (SNIP_HALF_WIDTH_FWHM * width).to(torch.float32).to(device)


def fit_clipped(
    counts: Tensor, solver: Solver, half_width_channels: Tensor, *, deviance: bool, errors: bool
) -> Estimate:
    """Fit a micro-batch less its clipped background.

    The variance counts the noise under the peaks, not that of the clipping.

    Args:
        counts: (pixel, channel) counts of the fit range, finite, any real dtype.
        solver: a method, prepared with a basis without background columns.
        half_width_channels: (channel,) distance of the neighbours.
        deviance: whether the misfit is wanted.
        errors: whether the variance is wanted.
    """
    background, operator = _clip(counts, half_width_channels), solver.operator
    net = counts.to(torch.float32) - background
    found = solver.estimate(net, project(net, operator.projector), deviance=deviance, errors=errors)
    variance, null = shared_variance(found.coefficients, operator)
    under = background @ operator.projector[:, : operator.n_components].square()
    misfit = None
    if deviance:
        size = _rows(counts)
        parts = [
            poisson_deviance(
                counts[i : i + size].to(torch.float32),
                found.factors[i : i + size] @ found.columns + background[i : i + size],
            )
            for i in range(0, max(len(counts), 1), size)
        ]
        misfit = torch.cat(parts).to(torch.float32)
    return replace(found, variance=variance + under, null_variance=null + under, misfit=misfit)


def _clip(counts: Tensor, half_width_channels: Tensor) -> Tensor:
    """Background (pixel, channel) float32 of every pixel by itself."""
    size = _rows(counts)
    parts = [
        snip(counts[i : i + size].to(torch.float32), half_width_channels=half_width_channels)
        for i in range(0, max(len(counts), 1), size)
    ]
    return torch.cat(parts)


def _rows(counts: Tensor) -> int:
    return rows_at_a_time(counts.device, 4 * _COPIES * counts.shape[1], _ROWS)
