"""Phases of a scan: clusters of pixels of like composition, and their connected areas."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.pipeline.regions.region import BoolMap, FloatArray, Region, RegionMaps, contrast, scaling_of, stabilised
from hpcxrf.pipeline.regions.tools import connected, kmeans, silhouette

_TRAINING_PIXELS: Final = 20_000
_JUDGED_PIXELS: Final = 2_000
_BLOCK_PIXELS: Final = 200_000
_STARTS: Final = 4
# Kaufman and Rousseeuw 1990: a mean silhouette of 0.25 or less is no substantial structure.
_LEAST_SILHOUETTE: Final = 0.25
_AS_GOOD: Final = 0.9
_LEAST_SIGNAL: Final = 0.1


def find_phases(maps: RegionMaps, *, most: int, min_pixels: int, seed: int) -> list[Region]:
    """Clusters of the pixels by k-means on stabilised, scaled amplitudes; the largest first.

    Their number is the largest, up to `most`, whose mean silhouette is within 10 % of the best; where even the
    best shows no structure, and where pixels are few, there are none.

    Args:
        maps: of the scan.
        most: largest number of phases, at least 2.
        min_pixels: a smaller phase is not made; its pixels belong to none.
        seed: of the sample and of the starting centres.
    """
    image, score = phase_image(maps, most=most, min_pixels=min_pixels, seed=seed)
    number = int(image.max(initial=0))
    regions = []
    for i in range(1, number + 1):
        mask = image == i
        reason = f"cluster {i} of {number} of the amplitudes' square roots (silhouette {score:.2f})"
        stands_out = contrast(maps, mask)
        text = f"{reason}: {stands_out}" if stands_out else reason
        regions.append(Region(name=f"phase-{i}", kind="phases", reason=text, mask=mask))
    return regions


def phase_image(maps: RegionMaps, *, most: int, min_pixels: int, seed: int) -> tuple[NDArray[np.int64], float]:
    """Number of the phase of every pixel (y, x), 1 for the largest, 0 for none; and the mean silhouette.

    Args:
        maps: of the scan.
        most: largest number of phases.
        min_pixels: a smaller phase is not made.
        seed: of the sample and of the starting centres.
    """
    valid, known = maps.valid, maps.known
    image = np.zeros(valid.shape, dtype=np.int64)
    places = np.flatnonzero(valid)
    if known.size == 0 or places.size < 2 * max(min_pixels, most):
        return image, np.nan
    flat = maps.amplitude.reshape(len(maps.components), -1)[known]
    offset = maps.offset[known]
    chosen = _sample(places, _TRAINING_PIXELS, seed)
    values = stabilised(np.nan_to_num(flat[:, chosen]), offset)
    # By chance alone the variance of n pixels is off by sqrt(2 / n).
    chance = 3.0 * (2.0 / chosen.size) ** 0.5
    scaling = scaling_of(values, maps.noise[known], least_share=max(_LEAST_SIGNAL, chance))
    centres, score = _centres(scaling.apply(values), most, seed)
    if len(centres) < 2:
        return image, score
    for start in range(0, places.size, _BLOCK_PIXELS):
        part = places[start : start + _BLOCK_PIXELS]
        block = scaling.apply(stabilised(np.nan_to_num(flat[:, part]), offset))
        image.flat[part] = 1 + _nearest(block, centres)
    return _ordered(image, min_pixels), score


def find_areas(maps: RegionMaps, *, k: int, most: int, min_pixels: int, seed: int) -> list[Region]:
    """The k largest connected areas of the phases, but for the most extended phase, which is what lies between.

    Args:
        maps: of the scan.
        k: most areas.
        most: largest number of phases.
        min_pixels: a smaller area is not made.
        seed: of the phases.
    """
    image, _ = phase_image(maps, most=most, min_pixels=min_pixels, seed=seed)
    found: list[tuple[int, int, BoolMap]] = []
    for phase in range(2, int(image.max(initial=0)) + 1):
        parts = connected(image == phase)
        sizes = np.bincount(parts.ravel())[1:]
        large = np.argsort(-sizes, kind="stable")[:k] + 1
        found += [(int(sizes[i - 1]), phase, parts == i) for i in large if sizes[i - 1] >= min_pixels]
    found.sort(key=lambda one: -one[0])
    return [
        Region(name=f"area-{number}", kind="areas", reason=f"connected area of phase {phase}", mask=mask)
        for number, (_, phase, mask) in enumerate(found[:k], start=1)
    ]


def _sample(places: NDArray[np.intp], size: int, seed: int) -> NDArray[np.intp]:
    """At most `size` of them, in order."""
    if places.size <= size:
        return places
    picked = np.random.default_rng(seed).choice(places.size, size, replace=False, shuffle=False)
    return places[np.sort(picked)]


def _centres(features: FloatArray, most: int, seed: int) -> tuple[FloatArray, float]:
    """Centres (phase, component) and their mean silhouette; one centre where there is no structure."""
    judged = _sample(np.arange(len(features)), _JUDGED_PIXELS, seed)
    distinct = len(np.unique(features[judged], axis=0))
    tried: list[tuple[float, FloatArray]] = []
    for number in range(2, min(most, distinct - 1) + 1):
        centres, labels = kmeans(features, number, starts=_STARTS, seed=seed)
        tried.append((silhouette(features[judged], labels[judged]), centres))
    best = max((score for score, _ in tried), default=-1.0)
    if best <= _LEAST_SILHOUETTE:
        return features.mean(axis=0)[None], best
    score, centres = next(t for t in reversed(tried) if t[0] >= _AS_GOOD * best)
    return centres, score


def _nearest(features: FloatArray, centres: FloatArray) -> NDArray[np.intp]:
    """Index of the nearest centre; one centre at a time, so that no matrix product rounds by its size."""
    distance = np.stack([((features - centre) ** 2).sum(axis=1) for centre in centres])
    return np.asarray(distance.argmin(axis=0))


def _ordered(image: NDArray[np.int64], min_pixels: int) -> NDArray[np.int64]:
    """Numbered by size from 1, small ones 0."""
    sizes = np.bincount(image.ravel())
    sizes[0] = 0
    order = [i for i in np.argsort(-sizes, kind="stable") if sizes[i] >= min_pixels]
    number = np.zeros(len(sizes), dtype=np.int64)
    number[order] = np.arange(1, len(order) + 1)
    return np.asarray(number[image])
