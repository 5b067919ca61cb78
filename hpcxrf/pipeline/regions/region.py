"""Regions of interest: what one is, the maps they are found on, and label images of regions that may overlap."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BoolMap = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
LabelMap = NDArray[np.uint16]

_SMALLEST_VARIANCE = 3.0 / 8.0
"""Anscombe's constant: the transform of pure counts needs it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """Pixels that are looked at together."""

    name: str
    kind: str
    """`phases`, `areas`, `hot_spots`, `squares`, `rectangles`, `polygons`, `labels` or `thresholds`."""
    reason: str
    """Why these pixels: a sentence."""
    mask: BoolMap
    """(y, x)."""

    @property
    def n_pixels(self) -> int:
        """Number of its pixels."""
        return int(np.count_nonzero(self.mask))


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionMaps:
    """The maps of a scan, all detectors together, as regions are found on them."""

    components: tuple[str, ...]
    shown: tuple[str, ...]
    """Their names for people."""
    amplitude: NDArray[np.float32]
    """(component, y, x) recorded counts, NaN where a pixel has no solution."""
    offset: FloatArray
    """(component,) variance of a pixel beside that of its own counts: background and overlaps, counts^2."""
    noise: FloatArray
    """(component,) variance that counting noise leaves in a pixel's stabilised amplitude, near 1."""

    mean: FloatArray
    """(component,) over the pixels that have a solution; NaN of none."""
    spread: FloatArray
    """(component,) standard deviation over the same."""

    @property
    def valid(self) -> BoolMap:
        """(y, x): at least one component is known."""
        return np.asarray(np.isfinite(self.amplitude).any(axis=0))

    @property
    def known(self) -> NDArray[np.intp]:
        """Components that were measured at all."""
        return np.flatnonzero(np.isfinite(self.mean))


def region_maps(
    components: Sequence[str],
    amplitude: NDArray[np.float32],
    sample: NDArray[np.float32],
    variance: NDArray[np.float32],
    shown: Sequence[str] = (),
) -> RegionMaps:
    """Maps with what their uncertainties say of the noise.

    Args:
        components: names.
        amplitude: (component, y, x).
        sample: (component, pixel) amplitudes of some of the pixels.
        variance: (component, pixel) squared uncertainties of the same.
        shown: names for people; those of the components by default.
    """
    offset, noise = np.full(len(components), _SMALLEST_VARIANCE), np.ones(len(components))
    for i, (counts, square) in enumerate(zip(sample, variance, strict=True)):
        good = np.isfinite(counts) & np.isfinite(square)
        if good.any():
            own = np.maximum(counts[good].astype(np.float64), 0.0)
            rest = float(np.median(square[good] - own))
            offset[i] = max(rest, _SMALLEST_VARIANCE)
            noise[i] = float(np.mean(square[good] / (own + offset[i])))
    moments = np.array([_moments(one) for one in amplitude])
    return RegionMaps(
        components=tuple(components),
        shown=tuple(shown) or tuple(components),
        amplitude=amplitude,
        offset=offset,
        noise=noise,
        mean=moments[:, 0],
        spread=moments[:, 1],
    )


def _moments(one: NDArray[np.float32]) -> tuple[float, float]:
    """Mean and standard deviation of what is finite; NaN of nothing."""
    finite = one[np.isfinite(one)]
    if not finite.size:
        return np.nan, np.nan
    return float(finite.mean(dtype=np.float64)), float(finite.std(dtype=np.float64))


def stabilised(amplitude: NDArray[np.floating], offset: FloatArray) -> FloatArray:
    """`2 sqrt(max(a, 0) + b)`, whose counting noise is near 1 whatever the counts (Anscombe 1948).

    Args:
        amplitude: (component, *pixels) recorded counts.
        offset: (component,) b, counts^2.
    """
    shape = (-1, *(1,) * (amplitude.ndim - 1))
    signal: FloatArray = np.maximum(amplitude.astype(np.float64), 0.0)
    root: FloatArray = 2.0 * np.sqrt(signal + offset.reshape(shape))
    return root


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Of stabilised amplitudes: zero mean, unit variance, then the share of it that is no noise."""

    mean: FloatArray
    deviation: FloatArray
    weight: FloatArray
    """(component,) 0 for a map of nothing but noise, 1 for one without."""

    def apply(self, values: FloatArray) -> FloatArray:
        """(component, sample) to (sample, component)."""
        scaled: FloatArray = ((values - self.mean[:, None]) / self.deviation[:, None]).T
        weighted: FloatArray = scaled * self.weight
        return weighted


def scaling_of(values: FloatArray, noise: FloatArray, *, least_share: float = 0.0) -> Scaling:
    """Scaling by the values themselves.

    Args:
        values: (component, sample) stabilised amplitudes, finite.
        noise: (component,) variance of each that is counting noise.
        least_share: of the variance that is no noise, below which a component has no weight.
    """
    variance = values.var(axis=1)
    signal = np.maximum(variance - noise, 0.0)
    weight = np.divide(signal, variance, out=np.zeros_like(signal), where=variance > 0)
    weight[weight < least_share] = 0.0
    deviation = np.sqrt(np.where(variance > 0, variance, 1.0))
    return Scaling(mean=values.mean(axis=1), deviation=deviation, weight=weight)


def contrast(maps: RegionMaps, mask: BoolMap) -> str:
    """What a region has more and less of than the scan, in words; empty where nothing stands out."""
    rich: list[tuple[float, str]] = []
    poor: list[tuple[float, str]] = []
    for i in maps.known:
        inside = maps.amplitude[i][mask]
        here = float(inside[np.isfinite(inside)].mean(dtype=np.float64)) if inside.size else 0.0
        score = (here - maps.mean[i]) / maps.spread[i] if maps.spread[i] > 0 else 0.0
        (rich if score > 0 else poor).append((abs(float(score)), maps.shown[i]))
    parts = [
        f"{word} in {', '.join(name for _, name in best)}"
        for word, found in (("rich", rich), ("poor", poor))
        if (best := sorted((f for f in found if f[0] > 0.5), reverse=True)[:3])
    ]
    return "; ".join(parts)


def layers_of(regions: Sequence[Region]) -> tuple[list[int], LabelMap]:
    """Pack regions into as few label images as their overlaps allow, each in the first that has room.

    Args:
        regions: at least one; of one shape.

    Returns:
        Layer of each region, and the images (layer, y, x): 1 for the first region of the list, 0 for none.
    """
    images: list[LabelMap] = []
    layer: list[int] = []
    for number, region in enumerate(regions, start=1):
        free = (i for i, image in enumerate(images) if not image[region.mask].any())
        place = next(free, len(images))
        if place == len(images):
            images.append(np.zeros(region.mask.shape, dtype=np.uint16))
        images[place][region.mask] = number
        layer.append(place)
    return layer, np.stack(images)
