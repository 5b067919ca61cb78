"""Which amplitudes of a fit cannot be told from each other: overlaps as the noise of the counts sees them."""

from typing import Final

import torch

from hpcxrf.fitting.objective import poisson_weights
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.detector_sum import evaluate_columns

_CORRELATED: Final = 0.3
"""Correlation of two amplitudes from which they overlap."""
_RIDGE: Final = 1e-10


def find_overlaps(fit: SpectrumFit) -> dict[str, list[str]]:
    """Find which amplitudes are correlated with which others, theta held, by the counting noise of the fit.

    The correlation is that of the inverse of `columns' W columns`, W the Poisson weights of the model, with the columns
    of the background beside those of the components.

    Args:
        fit: a solved fit of one detector; that of a sum has none of its own.

    Returns:
        Names of the others by name of the component, those with a correlation of 0.3 and more.
    """
    if fit.problem is None:
        return {}
    channel = torch.arange(fit.first_channel, fit.first_channel + fit.counts.shape[0], dtype=torch.float64)
    phi = evaluate_columns(fit, fit.problem, channel)
    hats = fit.background_parts.T
    columns = torch.cat([phi, hats / hats.sum(dim=0).clamp(min=1e-300)], dim=1)
    gram = columns.T @ (columns * poisson_weights(fit.model)[:, None])
    scale = gram.diagonal().clamp(min=1e-300).rsqrt()
    unit = gram * scale[:, None] * scale + _RIDGE * torch.eye(gram.shape[0], dtype=gram.dtype)
    inverse, fault = torch.linalg.inv_ex(unit)
    if int(fault):
        return {}
    sd = inverse.diagonal().clamp(min=1e-300).rsqrt()
    correlation = (inverse * sd[:, None] * sd)[: phi.shape[1], : phi.shape[1]]
    names = fit.component_names
    return {
        name: [names[j] for j in torch.nonzero(row.abs() >= _CORRELATED)[:, 0].tolist() if j != i]
        for i, (name, row) in enumerate(zip(names, correlation, strict=True))
    }
