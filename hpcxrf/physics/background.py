"""The background: SNIP (peak clipping), and the hat functions that are fitted with the amplitudes.

The hats are the default: they are part of a Poisson model, which a background that was subtracted is not.
SNIP serves the screen, the comparison with other programs, and those who ask for it.
"""

import math
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hpcxrf.errors import FitError
from hpcxrf.physics.constants import ConstantSet
from hpcxrf.physics.parameters import INDEX
from hpcxrf.physics.scatter import compton_energy_kev, line_sigma_kev

HAT_SPACING_FWHM: Final = 5.5
"""Wide enough that no hat follows a peak, close enough for a continuum: measured best for quantities."""
SCATTER_APART_FWHM: Final = 5.0
"""Widths between elastic peak and Compton peak of 180 degrees from which hats stand between them."""
SCATTER_FROM_DEG: Final = 110.0
"""Scattering angle of which the Compton peak begins the span of those hats."""
SCATTER_SPACING_FWHM: Final = 0.8
_FROM_ELASTIC_FWHM: Final = 1.0

SNIP_HALF_WIDTH_FWHM: Final = 1.5
"""A Gaussian has fallen to 0.2 % of its height there."""

_SWEEPS: Final = 16
_REDUCTIONS: Final = 8
_SMOOTHING: Final = 5


def fwhm_channels(theta: Tensor, channel: Tensor, constants: ConstantSet) -> Tensor:
    """Width of a peak at each channel, from FWHM offset and Fano term; negative energies count as 0.

    Args:
        theta: (*batch, parameter).
        channel: (channel,) float64, counted from 0 of the full spectrum.
        constants: gives the width law.

    Returns:
        (*batch, channel), channels.
    """
    offset, slope, quadratic = (
        theta[..., INDEX[name], None] for name in ("energy_offset", "energy_slope", "energy_quadratic")
    )
    energy_kev = (offset + channel * (slope + channel * quadratic)).clamp(min=0.0)
    sigma_kev = line_sigma_kev(theta, energy_kev, constants)
    return constants.fwhm_per_sigma * sigma_kev / (slope + 2.0 * quadratic * channel)


def snip_background(
    counts: Tensor, theta: Tensor, *, constants: ConstantSet, half_width_fwhm: float = SNIP_HALF_WIDTH_FWHM
) -> Tensor:
    """SNIP with the width that theta gives to the peaks: FWHM offset and Fano term, in channels.

    Args:
        counts: (*batch, channel), the full spectrum from channel 0.
        theta: (parameter,) or (*batch, parameter).
        constants: gives the width law; the MAPS sets do not bring its clipping (that is `snip_maps`).
        half_width_fwhm: distance of the two neighbours in FWHM.

    Returns:
        (*batch, channel), with finite gradients in the counts.

    Raises:
        FitError: fewer than 5 channels.
    """
    channel = torch.arange(counts.shape[-1], dtype=theta.dtype, device=theta.device)
    width = half_width_fwhm * fwhm_channels(theta, channel, constants)
    return snip(counts, half_width_channels=width)


def snip(counts: Tensor, *, half_width_channels: Tensor) -> Tensor:
    """Background by peak clipping (C. G. Ryan et al., Nucl. Instrum. Meth. B 34 (1988) 396), batched.

    On y = log(log(counts + 1) + 1) of the counts smoothed over 5 channels, every sweep takes
    b(k) = min(b(k), (b(k - w) + b(k + w)) / 2) for all channels at once: 16 sweeps with w as given, then 8
    with w divided by sqrt 2 each time. Near the ends w shrinks to the distance from the end, and the mean to
    the channels that exist: a level background stays level. Give the full spectrum and cut afterwards.

    Gradients in the counts are finite (subgradients where two arguments of the minimum are equal);
    the width is rounded to whole channels and carries none.

    Args:
        counts: (*batch, channel), at least 5 channels; negative counts are taken as 0.
        half_width_channels: w, broadcasts with `counts`, above 0: one to two FWHM (`fwhm_channels`).

    Returns:
        (*batch, channel), at least 0.

    Raises:
        FitError: fewer than 5 channels.
    """
    n = counts.shape[-1]
    if n < _SMOOTHING:
        raise FitError(f"background: the spectrum has {n} channels, SNIP needs {_SMOOTHING} or more")
    b = torch.log1p(torch.log1p(_smooth(counts.clamp(min=0.0))))
    k = torch.arange(n, device=counts.device)
    room = torch.minimum(k, n - 1 - k)
    widths = [half_width_channels] * _SWEEPS + [
        half_width_channels / math.sqrt(2.0) ** i for i in range(1, _REDUCTIONS + 1)
    ]
    for width in widths:
        w = torch.minimum(torch.round(width.detach()).long().clamp(min=1), room)
        lower, upper = ((k + shift).expand(b.shape) for shift in (-w, w))
        b = torch.minimum(b, 0.5 * (b.gather(-1, lower) + b.gather(-1, upper)))
    return torch.expm1(torch.expm1(b))


def snip_maps(
    counts: npt.ArrayLike,
    *,
    energy_offset: float,
    energy_slope: float,
    energy_quadratic: float,
    channel_range: tuple[int, int],
    snip_width: float,
    constants: ConstantSet,
) -> npt.NDArray[np.float64]:
    """SNIP as XRF-Maps computes it, for parity only: its faults are kept, and there is no gradient.

    Its half-width takes energy offset and slope for FWHM offset and Fano term, its smoothing leaves the two
    channels at each end 0, its sweeps go from left to right in place, and neighbours are looked up inside
    the fit range, for channels outside of it as well.

    Args:
        counts: (*batch, channel), the full spectrum, at least 5 channels.
        energy_offset: keV.
        energy_slope: keV/channel, above 0.
        energy_quadratic: keV/channel^2.
        channel_range: first and last channel of the fit range, inclusive.
        snip_width: SNIP_WIDTH of the override file; 0.5 is usual.
        constants: gives k of the width law.

    Returns:
        (*batch, channel) float64; what is not finite is 0.
    """
    y = np.asarray(counts, dtype=np.float64)
    k = np.arange(y.shape[-1], dtype=np.float64)
    energy_kev = energy_offset + k * (energy_slope + k * energy_quadratic)
    variance = (energy_offset / 2.3548) ** 2 + constants.width_factor * energy_slope * energy_kev
    width = snip_width * 2.35 * np.sqrt(np.maximum(variance, 0.0)) / energy_slope
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        b = np.log(np.log(_smooth_maps(y) + 1.0) + 1.0)
        for _ in range(2):
            _sweep_maps(b, width, channel_range)
        while width.max() >= 0.5:
            _sweep_maps(b, width, channel_range)
            width = width / math.sqrt(2.0)
        background = np.exp(np.exp(b) - 1.0) - 1.0
    return np.where(np.isfinite(background), background, 0.0)


def hat_knots(
    theta: Tensor, channel_range: tuple[int, int], *, constants: ConstantSet, spacing_fwhm: float = HAT_SPACING_FWHM
) -> Tensor:
    """Channels of the hats' summits: both ends of the fit range, and between them equal steps in FWHM.

    They are fixed by the starting calibration: a continuum has no feature that would notice.

    Args:
        theta: (parameter,), the start.
        channel_range: first and last channel of the fit range, inclusive.
        constants: gives the width law.
        spacing_fwhm: step in FWHM.

    Returns:
        (hat,) float64, rising, at least 2.

    Raises:
        FitError: a range of fewer than 2 channels.
    """
    low, high = channel_range
    if high <= low:
        raise FitError(f"background: fit range {low}..{high} must hold at least 2 channels")
    channel = torch.arange(low, high + 1, dtype=torch.float64, device=theta.device)
    per_channel = 1.0 / fwhm_channels(theta, channel, constants)
    steps = torch.cumulative_trapezoid(per_channel, channel)
    steps = torch.cat([steps.new_zeros(1), steps])
    n_hats = max(2, round(float(steps[-1]) / spacing_fwhm) + 1)
    wanted = np.linspace(0.0, float(steps[-1]), n_hats)
    knots = np.interp(wanted, steps.cpu().numpy(), channel.cpu().numpy())
    return torch.from_numpy(knots).to(theta.device)


def hats_for_range(
    theta: Tensor, channel: Tensor, *, constants: ConstantSet, spacing_fwhm: float = HAT_SPACING_FWHM
) -> Tensor:
    """Hats over a fit range, by `hat_knots` and `hat_basis`.

    Args:
        theta: (parameter,), the start.
        channel: (channel,) of the fit range, rising.
        constants: gives the width law.
        spacing_fwhm: step of the knots in FWHM.

    Returns:
        (channel, hat) float64.

    Raises:
        FitError: a range of fewer than 2 channels.
    """
    ends = (int(channel[0]), int(channel[-1]))
    knots = hat_knots(theta, ends, constants=constants, spacing_fwhm=spacing_fwhm)
    return hat_basis(channel, knots)


def background_hats(theta: Tensor, channel: Tensor, *, constants: ConstantSet, elastic: bool) -> Tensor:
    """All hats of a fit: over the whole range, and narrow ones between elastic and Compton peak.

    Args:
        theta: (parameter,), the start.
        channel: (channel,) of the fit range, rising.
        constants: gives the width law; those of MAPS have no narrow hats.
        elastic: False for a tube, of which no one peak is elastic.

    Returns:
        (channel, hat) float64.
    """
    hats = hats_for_range(theta, channel, constants=constants)
    if not elastic or constants.maps_line_shape:
        return hats
    return torch.cat([hats, scatter_hats(theta, channel, constants=constants)], dim=1)


def scatter_hats(theta: Tensor, channel: Tensor, *, constants: ConstantSet) -> Tensor:
    """Narrow hats between elastic and Compton peak, where these stand apart: what no one Compton peak describes there.

    The momentum of the electrons widens the Compton peak; air, windows and holder scatter at smaller angles than the
    sample. Below some 17 keV both peaks lie within five widths of a line, and one profile takes it up. Above, no line
    of the sample is in question: its element would need more than the incident energy.

    Args:
        theta: (parameter,), the start.
        channel: (channel,) of the fit range, rising.
        constants: gives the width law.

    Returns:
        (channel, hat) float64, 0 outside of their span; no hat where the peaks are not apart.
    """
    incident = theta[INDEX["coherent_sct_energy"]]
    fwhm = float(constants.fwhm_per_sigma * line_sigma_kev(theta, incident[None], constants)[0])
    rest = constants.electron_rest_energy_kev
    lowest, farthest = (
        float(compton_energy_kev(incident, incident.new_tensor(angle), rest)) for angle in (SCATTER_FROM_DEG, 180.0)
    )
    highest = float(incident) - _FROM_ELASTIC_FWHM * fwhm
    if float(incident) - farthest < SCATTER_APART_FWHM * fwhm or highest <= lowest:
        return channel.new_zeros((channel.shape[0], 0))
    step = SCATTER_SPACING_FWHM * fwhm
    n_hats = 1 + int((highest - lowest) / step)
    knots_kev = torch.linspace(highest - n_hats * step, highest + step, n_hats + 2, dtype=channel.dtype)
    knots = (knots_kev.to(channel.device) - theta[INDEX["energy_offset"]]) / theta[INDEX["energy_slope"]]
    inside = (knots[1:-1] > channel[0]) & (knots[1:-1] < channel[-1])
    return hat_basis(channel, knots)[:, 1:-1][:, inside]


def hat_basis(channel: Tensor, knots: Tensor) -> Tensor:
    """Piecewise linear hats: 1 at their knot, 0 at the next ones, non-negative, summing to 1 everywhere.

    Beyond the first and the last knot the end hats stay 1.

    Args:
        channel: (channel,), any order.
        knots: (hat,), rising, at least 2.

    Returns:
        (channel, hat), the type of `channel`.
    """
    at = channel.to(knots.dtype).clamp(knots[0], knots[-1])
    left = (torch.searchsorted(knots, at, right=True) - 1).clamp(0, len(knots) - 2)
    share = (at - knots[left]) / (knots[left + 1] - knots[left])
    hats = torch.zeros(len(channel), len(knots), dtype=knots.dtype, device=channel.device)
    hats.scatter_(1, left[:, None], (1.0 - share)[:, None])
    hats.scatter_(1, left[:, None] + 1, share[:, None])
    return hats.to(channel.dtype)


def _smooth(counts: Tensor) -> Tensor:
    """Mean over 5 channels, over those that exist at the ends."""
    flat = counts.reshape(-1, 1, counts.shape[-1])
    mean = torch.nn.functional.avg_pool1d(flat, _SMOOTHING, stride=1, padding=_SMOOTHING // 2, count_include_pad=False)
    return mean.reshape(counts.shape)


def _smooth_maps(y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    mean = np.zeros_like(y)
    n = y.shape[-1]
    mean[..., 2:-2] = sum(y[..., i : n - 4 + i] for i in range(5)) / 5.0
    return mean


def _sweep_maps(b: npt.NDArray[np.float64], width: npt.NDArray[np.float64], channel_range: tuple[int, int]) -> None:
    """One pass in place: channels to the left are already lowered, so that it cannot be vectorised."""
    k = np.arange(b.shape[-1], dtype=np.float64)
    lower = np.clip(np.trunc(k - width), *channel_range).astype(np.int64).tolist()
    upper = np.clip(np.trunc(k + width), *channel_range).astype(np.int64).tolist()
    for i, (left, right) in enumerate(zip(lower, upper, strict=True)):
        b[..., i] = np.minimum(b[..., i], 0.5 * (b[..., left] + b[..., right]))
