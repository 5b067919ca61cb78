"""Peaks of a spectrum and the law of their width, in channels: what is known before there is an energy axis.

The spectrum is convolved with zero-sum kernels (Mariscotti, NIM 50 (1967) 309) of 24 widths. A line of area A and
width g (sigma) answers a kernel of width s with `A s^3 / (s^2 + g^2)^1.5`, so that two widths give g, and all isolated
lines together the law `g^2 = A + B c` of the detector.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MOST_PEAKS: Final = 30
_SCALES: Final = np.geomspace(0.8, 40.0, 24)
# Scales that are compared to get a width: a factor of 2 apart.
_APART: Final = 4
_WIDTH_Z: Final = 8.0
_PEAK_Z: Final = 5.0
# A smooth spectrum of many counts curves as well: errors of 0.4 % of what lies under a peak are no peaks.
_RELATIVE: Final = 0.004
# What is measured of a width must stand out of more than that.
_RELATIVE_WIDTH: Final = 0.02
# A scale is trusted for a width that is near its own.
_NEAREST: Final = (0.7, 1.2)
_WIDTH_SD: Final = 0.07
# Doublets and scatter peaks are wider than a line, nothing is narrower but an accident.
_MOST_WIDE: Final = 4.0
_MOST_NARROW: Final = 36.0
# Variance of a count of 0.
_LEAST_VARIANCE: Final = 0.3
_MOST_LINES: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class WidthLaw:
    """Width of a line at a channel: `g^2 = square + rise c`, g the standard deviation in channels."""

    square: float
    rise: float

    def at(self, channel: Array) -> Array:
        """Standard deviation (channel,) in channels."""
        return np.sqrt(np.maximum(self.square + self.rise * channel, 0.25))


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """Peaks of one spectrum, by channel."""

    channel: Array
    """(peak,) position, a fraction of a channel exact."""
    area: Array
    """(peak,) counts."""
    z: Array
    """(peak,) area in standard deviations of the counting noise."""
    n_channels: int
    """Channels of the spectrum."""
    width: WidthLaw
    lines: int
    """Isolated lines that the width law rests on."""

    @property
    def share(self) -> Array:
        """(peak,) area relative to the highest peak."""
        return self.area / self.area.max() if self.area.size else self.area


def find_peaks(counts: Array) -> Peaks:
    """Find at most 30 peaks and the law of their width.

    Args:
        counts: (channel,) raw counts.
    """
    response, noise = _filter(counts)
    law, lines = _fit_width_law(response, noise, _smooth(counts))
    width = law.at(np.arange(counts.size, dtype=np.float64))
    scale = np.clip(np.interp(np.log(width), np.log(_SCALES), np.arange(_SCALES.size)), 0.0, _SCALES.size - 1.0)
    below = np.minimum(scale.astype(np.int64), _SCALES.size - 2)
    share, column = scale - below, np.arange(counts.size)
    matched = (1.0 - share) * response[below, column] + share * response[below + 1, column]
    variance = (1.0 - share) * noise[below, column] + share * noise[below + 1, column]
    under = _RELATIVE * 2.5 * width * _smooth(counts)
    score = matched / np.sqrt(variance + under**2)
    top = _find_maxima(matched)
    top = top[score[top] > _PEAK_Z]
    strongest = top[np.argsort(-matched[top], kind="stable")][:MOST_PEAKS]
    chosen = np.sort(strongest)
    return Peaks(
        channel=_refine(matched, chosen),
        area=matched[chosen] * 2.0**1.5,
        z=matched[chosen] / np.sqrt(variance[chosen]),
        n_channels=counts.size,
        width=law,
        lines=lines,
    )


def _filter(counts: Array) -> tuple[Array, Array]:
    """Answers and variances (scale, channel) of all kernels."""
    n = counts.size
    reach = min(int(6 * _SCALES[-1]), n - 1)
    padded = np.pad(counts, reach, mode="edge")
    size = padded.size + 2 * reach
    length = 1 << (size - 1).bit_length()
    kernels, squares, sums = _kernel_transforms(length)
    transform = np.fft.rfft(padded, length)
    response = np.fft.irfft(transform * kernels, length)[:, reach : reach + n]
    variance = np.fft.irfft(transform * squares, length)[:, reach : reach + n]
    return response, np.maximum(variance, 0.0) + _LEAST_VARIANCE * sums[:, None]


@lru_cache(maxsize=4)
def _kernel_transforms(length: int) -> tuple[Array, Array, Array]:
    """Transforms of the kernels and of their squares about channel 0, and the sums of the squares."""
    distance = np.minimum(np.arange(length), length - np.arange(length)).astype(np.float64)
    u2 = (distance / _SCALES[:, None]) ** 2
    kernel = (1.0 - u2) * np.exp(-0.5 * np.minimum(u2, 80.0))
    kernel[u2 > 40.0] = 0.0
    inside = u2 <= 40.0
    # In channels the sum is not quite 0.
    kernel -= inside * (kernel.sum(axis=1) / inside.sum(axis=1))[:, None]
    # In channels the answer of a narrow kernel is not quite the formula's, which is that of the integral.
    square = kernel**2
    return (np.asarray(np.fft.rfft(kernel).real), np.asarray(np.fft.rfft(square).real), np.asarray(square.sum(axis=1)))


def _fit_width_law(response: Array, noise: Array, smooth: Array) -> tuple[WidthLaw, int]:
    """The law through the widths of isolated lines, and their number."""
    under = _RELATIVE_WIDTH * 2.5 * _SCALES[:, None] * smooth
    channel, width = _measure_widths(response, noise + under**2)
    if channel.size == 0:
        return WidthLaw(square=6.0**2, rise=0.0), 0
    low, high = float(channel.min()), float(channel.max())
    at_high = np.geomspace(0.4 * width.min(), 1.3 * width.max(), 90)[:, None]
    # Of the variance of a silicon detector a tenth to nearly all is left at the low end.
    ratio = np.linspace(0.08, 1.0, 24)[None, :] if high > low else np.ones((1, 1))
    rise = at_high**2 * (1.0 - ratio) / max(high - low, 1.0)
    square = at_high**2 - rise * high
    law = np.sqrt(np.maximum(square[..., None] + rise[..., None] * channel, 1e-3))
    deviation = np.log(width / law) / _WIDTH_SD
    cost = np.minimum(deviation**2, np.where(deviation < 0.0, _MOST_NARROW, _MOST_WIDE)).sum(axis=-1)
    best = np.unravel_index(int(np.argmin(cost)), cost.shape)
    return WidthLaw(square=float(square[best]), rise=float(rise[best])), channel.size


def _measure_widths(response: Array, noise: Array) -> tuple[Array, Array]:
    """Channels and widths of isolated lines, strongest first; nothing else within two of the wider's widths."""
    score = response / np.sqrt(noise)
    channels: list[int] = []
    widths: list[float] = []
    rows = [np.nonzero(score[k] > _WIDTH_Z)[0] for k in range(_APART, _SCALES.size)]
    found = [
        (float(score[k, c]), k, int(c))
        for k, row in zip(range(_APART, _SCALES.size), rows, strict=True)
        for c in row[_is_maximum(response[k], row)]
    ]
    for _, k, c in sorted(found, reverse=True):
        g = _width_at(response, k, c)
        if g is None:
            continue
        if all(abs(c - other) > 2.0 * max(g, h) for other, h in zip(channels, widths, strict=True)):
            channels.append(c)
            widths.append(g)
        if len(channels) == _MOST_LINES:
            break
    return np.array(channels, dtype=np.float64), np.array(widths)


def _width_at(response: Array, k: int, channel: int) -> float | None:
    """Width from the answers of two scales; None where it is not near the wider one's."""
    i = k - _APART
    small, large = _SCALES[i] ** 2, _SCALES[k] ** 2
    if response[i, channel] <= 0.0:
        return None
    q, q0 = (response[i, channel] / response[k, channel]) ** (2.0 / 3.0), small / large
    if q <= q0:
        return None
    square = (q0 * large - q * small) / (q - q0)
    if square <= 0.0:
        return None
    g = float(np.sqrt(square))
    return g if _NEAREST[0] < g / _SCALES[k] < _NEAREST[1] else None


def _is_maximum(values: Array, at: NDArray[np.int64]) -> NDArray[np.bool_]:
    left, right = values[np.maximum(at - 1, 0)], values[np.minimum(at + 1, values.size - 1)]
    return (values[at] >= left) & (values[at] > right)


def _find_maxima(values: Array) -> NDArray[np.int64]:
    every = np.arange(values.size)
    return every[_is_maximum(values, every) & (values > 0.0)]


def _smooth(counts: Array) -> Array:
    kernel = np.array([0.25, 0.5, 0.25])
    return np.convolve(np.pad(counts, 1, mode="edge"), kernel, mode="valid")


def _refine(values: Array, at: NDArray[np.int64]) -> Array:
    """Top of the parabola through a maximum and its neighbours."""
    left, here, right = values[np.maximum(at - 1, 0)], values[at], values[np.minimum(at + 1, values.size - 1)]
    bend = left - 2.0 * here + right
    shift = np.where(bend < 0.0, 0.5 * (left - right) / np.where(bend < 0.0, bend, -1.0), 0.0)
    top: Array = at + np.clip(shift, -0.5, 0.5)
    return top
