"""How much counts scatter in comparison with photons: 1 for raw counts, the factor of scaled or corrected ones.

Raw counts are Poisson: their variance is their mean. Counts that were multiplied by f (corrected for dead time, divided
by a time) have a variance of f times their mean, also where they were rounded afterwards. What pixels have in common
is taken away first: the spectra of a scan are mixtures of few. These are learnt from one half of the pixels, and the
other half is measured against them, so that no noise is taken for a mixture.
"""

from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor

from hpcxrf.fitting.limits import detection_limit, null_sigma
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.judge import judge_fit
from hpcxrf.fitting.uncertainty import combine_variances

# Groups of neighbouring channels with about the same counts: single ones of few counts would say little.
_GROUPS: Final = 160
_LEAST_PIXELS: Final = 24
_LEAST_GROUPS: Final = 12
# What a sample must hold for its scatter to be known to a few hundredths.
_LEAST_PHOTONS: Final = 5000.0
# Spectra that the pixels may be mixtures of: where more than these gain nothing, fewer are used.
_MOST_MIXED: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class CountScale:
    """Scatter of the counts of one detector."""

    factor: float
    """Variance over mean."""
    mixed: int
    """Number of spectra that the pixels are mixtures of."""


def estimate_count_scale(counts: Tensor) -> CountScale | None:
    """Estimate variance over mean of the counts of pixels; None where they are too few to tell.

    Args:
        counts: (pixel, channel) float64, not negative.
    """
    used = counts[counts.sum(dim=1) > 0]
    if used.shape[0] < _LEAST_PIXELS:
        return None
    grouped = _group_channels(used)
    if grouped.shape[1] < _LEAST_GROUPS:
        return None
    # Neighbours are alike: both halves see every part of the scan.
    halves = grouped[::2], grouped[1::2]
    one, other = _scatter(*halves), _scatter(*halves[::-1])
    factor = 0.5 * (one.factor + other.factor)
    found = CountScale(factor=factor, mixed=max(one.mixed, other.mixed))
    return found if float(grouped.sum()) >= _LEAST_PHOTONS * factor else None


def carry_count_factor(fit: SpectrumFit, factor: float) -> SpectrumFit:
    """The fit of counts whose variance is so many times their mean, judged by their noise."""
    return fit if factor == 1.0 else judge_fit(scale_noise(fit, factor))


def scale_noise(fit: SpectrumFit, factor: float) -> SpectrumFit:
    """Uncertainties and figures of merit of counts whose variance is so many times their mean.

    Counting noise grows with the factor, and what the noise explains of the residual is no flaw of the model any more.
    A fit that does not tell the two apart has all of its sigma scaled.
    """
    return replace(
        fit,
        **_carry_errors(fit, factor),
        count_factor=factor,
        r2_expected=1.0 - factor * (1.0 - fit.r2_expected),
        reduced_chi2=fit.reduced_chi2 / factor,
        deviance=fit.deviance / factor,
    )


def _carry_errors(fit: SpectrumFit, factor: float) -> dict[str, Any]:
    if fit.errors is None:
        root = factor**0.5
        return {
            "amplitude_sigma": fit.amplitude_sigma * root,
            "theta_sigma": fit.theta_sigma * root,
            "detection_limit": detection_limit(null_sigma(fit.detection_limit) * root, factor),
        }
    again = combine_variances(
        fit.errors.variances,
        degrees_of_freedom=fit.errors.degrees_of_freedom,
        reduced_chi2=fit.reduced_chi2,
        factor=factor,
    )
    return {
        "errors": again,
        "amplitude_sigma": again.amplitude_sigma,
        "theta_sigma": again.theta_sigma[: fit.theta.shape[0]],
        "detection_limit": again.detection_limit,
    }


def _group_channels(counts: Tensor) -> Tensor:
    """Counts (pixel, group) of neighbouring channels, each group with about the same counts."""
    by_channel = counts.sum(dim=0)
    share = by_channel.cumsum(0) / by_channel.sum()
    group = (share * _GROUPS - 1e-9).clamp(0, _GROUPS - 1).to(torch.int64)
    # A channel of many counts leaves the groups that it would have filled without any.
    _, group = torch.unique(group, return_inverse=True)
    summed = counts.new_zeros((counts.shape[0], int(group.max()) + 1))
    return summed.index_add_(1, group, counts)


def _scatter(learnt: Tensor, measured: Tensor) -> CountScale:
    """Variance over mean of some pixels (pixel, group), after the mixtures that others show are taken away."""
    mean = torch.cat([learnt, measured]).mean(dim=0)
    weight = mean.rsqrt()
    # Pixels count alike, however bright they are.
    scaled = learnt * weight / (learnt.sum(dim=1, keepdim=True) + learnt.sum(dim=1).mean()).sqrt()
    shapes = torch.linalg.svd(scaled, full_matrices=False).Vh
    most = min(_MOST_MIXED, shapes.shape[0], measured.shape[1] // 2)
    residual, left = measured * weight, torch.ones_like(mean)
    best = CountScale(factor=float("inf"), mixed=0)
    for mixed in range(1, most + 1):
        shape = shapes[mixed - 1]
        residual = residual - (residual @ shape)[:, None] * shape
        # Of noise with the variance `mean` of each group, the share that the projection leaves.
        left = left - shape**2
        expected = (measured * weight**2) @ left
        factor = float((residual.square().sum(dim=1) / expected.clamp(min=1e-300)).median())
        if factor < best.factor:
            best = CountScale(factor=factor, mixed=mixed)
    return best
