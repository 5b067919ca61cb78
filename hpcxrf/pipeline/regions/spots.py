"""Hot spots of single components, and the squares of a scan that differ most."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.pipeline.regions.phases import phase_image
from hpcxrf.pipeline.regions.region import BoolMap, FloatArray, Region, RegionMaps, contrast, scaling_of, stabilised
from hpcxrf.pipeline.regions.tools import connected

_SPOT_DEVIATIONS: Final = 6.0
_LARGEST_SPOT_SHARE: Final = 0.05
_SAME_SPOT: Final = 0.5
_MAD_TO_DEVIATION: Final = 1.4826
_STEPS_PER_SIDE: Final = 5
_LEAST_MEASURED: Final = 0.5


def find_hot_spots(maps: RegionMaps, *, k: int, most: int, min_pixels: int, seed: int) -> list[Region]:
    """The k hottest connected areas: pixels 6 robust deviations above the median of their phase in a component's map.

    Medians and deviations are of stabilised amplitudes, and no deviation is below counting noise. A phase of less than
    5 % of the scan may be a spot itself: it is compared with the richest of the others. An area of more than 5 % is no
    spot. Spots of several components in the same place are one.

    Args:
        maps: of the scan.
        k: most spots.
        most: largest number of phases.
        min_pixels: a smaller one is not made.
        seed: of the phases.
    """
    image, _ = phase_image(maps, most=most, min_pixels=min_pixels, seed=seed)
    found = [spot for i in maps.known for spot in _spots(maps, image, int(i), k, min_pixels)]
    found.sort(key=lambda spot: -spot[0])
    kept: list[tuple[list[str], BoolMap, float]] = []
    for height, component, mask in found:
        same = next((one for one in kept if _overlap(one[1], mask) > _SAME_SPOT), None)
        if same is None:
            kept.append(([component], mask, height))
        elif component not in same[0]:
            same[0].append(component)
    return [
        Region(
            name=f"hot-spot-{number}",
            kind="hot_spots",
            reason=f"connected pixels {height:.0f} deviations above their phase in {', '.join(names)}",
            mask=mask,
        )
        for number, (names, mask, height) in enumerate(kept[:k], start=1)
    ]


def find_squares(maps: RegionMaps, *, k: int, side: int) -> list[Region]:
    """The k squares whose mean amplitude vectors differ most, greedily: each the farthest from all before.

    The first is the one farthest from the mean of all. Squares do not overlap, half of their pixels at least
    are measured, and they lie on a grid of a fifth of their side. None where the scan is smaller, or the
    same everywhere.

    Args:
        maps: of the scan.
        k: how many.
        side: pixels.
    """
    valid, known = maps.valid, maps.known
    tops, lefts = (_places(size, side) for size in valid.shape)
    if known.size == 0 or tops.size == 0 or lefts.size == 0:
        return []
    number = _window_sums(valid.astype(np.float64), tops, lefts, side)
    enough = (number >= max(1.0, _LEAST_MEASURED * side**2)).ravel()
    if not enough.any():
        return []
    corners = np.stack(np.meshgrid(tops, lefts, indexing="ij"), axis=-1).reshape(-1, 2)[enough]
    pixels = number.ravel()[enough]
    means = np.stack(
        [_window_sums(np.nan_to_num(maps.amplitude[i]), tops, lefts, side).ravel()[enough] / pixels for i in known]
    )
    values = stabilised(means, maps.offset[known])
    features = scaling_of(values, maps.noise[known] / side**2).apply(values)
    if not features.any():
        return []
    return [
        _square(maps, valid, tuple(corners[i]), side, order)
        for order, i in enumerate(_farthest(features, corners, k, side), start=1)
    ]


def _square(maps: RegionMaps, valid: BoolMap, corner: tuple[int, ...], side: int, number: int) -> Region:
    top, left = (int(c) for c in corner)
    mask = np.zeros_like(valid)
    mask[top : top + side, left : left + side] = True
    mask &= valid
    differs = "the mean of all squares" if number == 1 else "the squares before it"
    reason = f"{side} x {side} pixels from y {top}, x {left}: the square most unlike {differs}"
    stands_out = contrast(maps, mask)
    return Region(
        name=f"square-{number}", kind="squares", reason=f"{reason}; {stands_out}" if stands_out else reason, mask=mask
    )


def _farthest(features: FloatArray, corners: NDArray[np.intp], k: int, side: int) -> list[int]:
    """Indices of squares, greedy max-min; the first of equals."""
    distance = np.linalg.norm(features - features.mean(axis=0), axis=1)
    free = np.ones(len(features), dtype=np.bool_)
    chosen: list[int] = []
    while len(chosen) < k and free.any():
        best = int(np.where(free, distance, -1.0).argmax())
        away = np.linalg.norm(features - features[best], axis=1)
        distance = away if not chosen else np.minimum(distance, away)
        free &= (np.abs(corners - corners[best]) >= side).any(axis=1)
        chosen.append(best)
    return chosen


def _places(size: int, side: int) -> NDArray[np.intp]:
    """First pixels of the squares along an axis; the last square ends with the scan."""
    if size < side:
        return np.zeros(0, dtype=np.intp)
    step = max(1, side // _STEPS_PER_SIDE)
    return np.unique(np.append(np.arange(0, size - side + 1, step), size - side))


def _window_sums(
    values: NDArray[np.floating], tops: NDArray[np.intp], lefts: NDArray[np.intp], side: int
) -> FloatArray:
    """Sums over squares (top, left) by an integral image."""
    total = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
    total[1:, 1:] = values.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    bottoms, rights = tops + side, lefts + side
    sums: FloatArray = (
        total[np.ix_(bottoms, rights)]
        - total[np.ix_(tops, rights)]
        - total[np.ix_(bottoms, lefts)]
        + total[np.ix_(tops, lefts)]
    )
    return sums


def _spots(
    maps: RegionMaps, image: NDArray[np.int64], index: int, k: int, min_pixels: int
) -> list[tuple[float, str, BoolMap]]:
    """Mean height in deviations, component and pixels of the k hottest spots of one map."""
    one = maps.amplitude[index]
    good = np.isfinite(one)
    root = stabilised(np.nan_to_num(one)[None], maps.offset[index : index + 1])[0]
    height = _height(root, good, image, float(np.sqrt(maps.noise[index])))
    parts = connected(good & (height > _SPOT_DEVIATIONS))
    sizes = np.bincount(parts.ravel())
    mean = np.bincount(parts.ravel(), weights=height.ravel()) / np.maximum(sizes, 1)
    largest = _LARGEST_SPOT_SHARE * np.count_nonzero(good)
    wanted = [i for i in range(1, len(sizes)) if min_pixels <= sizes[i] <= largest]
    wanted.sort(key=lambda i: -mean[i])
    return [(float(mean[i]), maps.shown[index], parts == i) for i in wanted[:k]]


def _height(root: FloatArray, good: BoolMap, image: NDArray[np.int64], noise: float) -> FloatArray:
    """Deviations (y, x) above the median of the own phase, or of the richest where that is small.

    Args:
        root: (y, x) stabilised amplitudes.
        good: (y, x) where there are any.
        image: (y, x) number of the phase.
        noise: least deviation.
    """
    sizes = np.bincount(image[good])
    least = _LARGEST_SPOT_SHARE * np.count_nonzero(good)
    # Without phases everything is phase 0.
    large = [p for p in range(len(sizes)) if sizes[p] > least and (p > 0 or len(sizes) == 1)]
    masks = [good & (image == phase) for phase in large] or [good]
    levels = [_level(root[mask], noise) for mask in masks]
    centre, deviation = max(levels)
    height = (root - centre) / deviation
    for mask, (own, spread) in zip(masks, levels, strict=True):
        height[mask] = (root[mask] - own) / spread
    return height


def _level(values: FloatArray, noise: float) -> tuple[float, float]:
    """Median and robust standard deviation."""
    centre = float(np.median(values))
    spread = _MAD_TO_DEVIATION * float(np.median(np.abs(values - centre)))
    return centre, max(spread, noise)


def _overlap(first: BoolMap, second: BoolMap) -> float:
    """Share of the smaller one that lies in the other."""
    smaller = min(int(np.count_nonzero(first)), int(np.count_nonzero(second)))
    return int(np.count_nonzero(first & second)) / max(1, smaller)
