"""Channels of single pixels that no detector can have counted: spikes, and blocks of channels with steep ends.

A peak is as wide as the detector's resolution, a channel or more in its standard deviation: from channel to channel
counts neither rise nor fall beyond a factor, however bright a pixel is. What is found here is a suspicion: a detector
may have such a channel in every pixel (an overflow, a pulser), which is for who sees all pixels to say.
"""

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[Any]
Places = NDArray[np.int64]

# A Gaussian of 0.75 channels falls from its top channel to both neighbours by 2.4, from half its height by 12.
_ABOVE_BOTH: Final = 3
_ABOVE_ONE: Final = 20
# Counts that scatter imitates next to 0 counts once in 1e15 channels at most, whatever the mean.
_SURELY: Final = 10
_LEAST: Final = _ABOVE_BOTH * _SURELY
# Channels within which the top of a block with a steep end lies.
_TOP_WITHIN: Final = 3
# Equal counts one after the other, each at least so high: by chance once in 1e14 channels.
_EQUAL_RUN: Final = 8
_EQUAL_COUNTS: Final = 1000
# Of scaled counts: share of the positive ones that may be less than one photon, as what rounding left.
_QUANTUM_SHARE: Final = 0.01
_PART_VALUES: Final = 1 << 18

NO_PLACES: Final[Places] = np.empty((0, 4), dtype=np.int64)


def find_spikes(counts: Counts) -> Places:
    """Find suspicious channels.

    Args:
        counts: (detector, row, x, channel), not negative.

    Returns:
        (place, 4): detector, row, x, channel.
    """
    n_detectors, n_rows, n_x, n_channels = counts.shape
    if n_channels < 3:
        return NO_PLACES
    step = max(1, _PART_VALUES // n_channels)
    found: list[Places] = []
    for detector in range(n_detectors):
        pixels = counts[detector].reshape(n_rows * n_x, n_channels)
        for start in range(0, len(pixels), step):
            part = pixels[start : start + step]
            rows, channels = _spikes_of(part, _quantum(part))
            if len(rows):
                y, x = np.divmod(rows + start, n_x)
                found.append(np.stack([np.full_like(y, detector), y, x, channels], axis=1))
    return np.concatenate(found) if found else NO_PLACES


def can_have_spikes(dtype: np.dtype[Any], highest: float) -> bool:
    """Whether counts of a type up to so many can have a suspicious channel: a few whole counts never."""
    return dtype.kind == "f" or highest > _LEAST


def is_spike(spectrum: NDArray[np.float64], channel: int, quantum: float = 1.0) -> bool:
    """Whether a spectrum (channel,) has the shape of a spike at a channel.

    Args:
        spectrum: counts.
        channel: the channel.
        quantum: what one recorded photon is in them: 1, or more where counts were scaled.
    """
    return bool((_spikes_of(spectrum[None], quantum)[1] == channel).any())


def join_places(parts: Iterable[Places]) -> Places:
    """Join the places of several blocks."""
    return np.concatenate([NO_PLACES, *parts])


def _quantum(pixels: Counts) -> float:
    """What one photon is in counts that may be scaled, about: their smallest, of fractions nearly the smallest."""
    if pixels.dtype.kind == "u":
        # A one is in nearly every part.
        ones = (pixels == 1).any()
        return 1.0 if ones or not pixels.any() else float(pixels[pixels > 0].min())
    positive = pixels[pixels > 0]
    return float(np.quantile(positive, _QUANTUM_SHARE)) if positive.size else 1.0


def _spikes_of(pixels: Counts, quantum: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixel and channel of what is suspicious in spectra (pixel, channel)."""
    # Most pixels of most scans are left out by these two: whole-number passes over what is in the cache.
    some = np.flatnonzero(pixels.max(axis=1) > _LEAST * quantum)
    if some.size:
        some = some[_needs_a_look(pixels if some.size == len(pixels) else pixels[some], quantum)]
    if not some.size:
        return some, some
    rows, channels = np.nonzero(_find_in(pixels[some].astype(np.float64) / quantum))
    return some[rows], channels.astype(np.int64)


def _needs_a_look(pixels: Counts, quantum: float) -> NDArray[np.bool_]:
    """(pixel,): whether a channel is that much above one of its neighbours, or many are equal."""
    both = _allowed_beside(pixels, _ABOVE_BOTH, quantum)
    steep = ((both[:, 1:-1] > pixels[:, :-2]) & (both[:, 1:-1] > pixels[:, 2:])).any(axis=1)
    one = _allowed_beside(pixels, _ABOVE_ONE, quantum)
    steep |= (one[:, 1:] > pixels[:, :-1]).any(axis=1) | (one[:, :-1] > pixels[:, 1:]).any(axis=1)
    equal = (pixels[:, 1:] == pixels[:, :-1]) & (pixels[:, 1:] >= _EQUAL_COUNTS * quantum)
    return np.asarray(steep | (equal.sum(axis=1) >= _EQUAL_RUN - 1), dtype=np.bool_)


def _allowed_beside(pixels: Counts, ratio: int, quantum: float) -> Counts:
    """(pixel, channel): counts that a neighbour must have if the channel is to be no more than so many times above."""
    if pixels.dtype.kind != "u":
        return np.asarray(pixels / ratio - _SURELY * quantum)
    # Whole numbers without a wider type.
    least = pixels.dtype.type(ratio * _SURELY)
    return np.asarray((np.maximum(pixels, least) - least) // pixels.dtype.type(ratio))


def _find_in(y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(pixel, channel): suspicious."""
    left, right = np.empty_like(y), np.empty_like(y)
    left[:, 1:], right[:, :-1] = y[:, :-1], y[:, 1:]
    left[:, 0], right[:, -1] = y[:, 1], y[:, -2]
    inner = np.zeros(y.shape[1], dtype=np.bool_)
    inner[1:-1] = True
    spike = (y > _ABOVE_BOTH * (np.maximum(left, right) + _SURELY)) & inner
    top_right, top_left = y.copy(), y.copy()
    for shift in range(1, min(_TOP_WITHIN, y.shape[1] - 1) + 1):
        np.maximum(top_right[:, :-shift], y[:, shift:], out=top_right[:, :-shift])
        np.maximum(top_left[:, shift:], y[:, :-shift], out=top_left[:, shift:])
    rise = (y > _ABOVE_ONE * (left + _SURELY)) & (2.0 * y >= top_right)
    fall = (y > _ABOVE_ONE * (right + _SURELY)) & (2.0 * y >= top_left)
    return spike | rise | fall | _equal_runs(y)


def _equal_runs(y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(pixel, channel): the first of many equal, high counts."""
    found = np.zeros(y.shape, dtype=np.bool_)
    if y.shape[1] < _EQUAL_RUN:
        return found
    same = (y[:, 1:] == y[:, :-1]) & (y[:, 1:] >= _EQUAL_COUNTS)
    runs = np.lib.stride_tricks.sliding_window_view(same, _EQUAL_RUN - 1, axis=1).all(axis=-1)
    found[:, : runs.shape[1]] = runs
    return found
