"""Regions that the run file gives: rectangles, polygons, label images, thresholds."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.config.regions import RegionsConfig, ThresholdConfig
from hpcxrf.config.untrusted import refuse_irregular
from hpcxrf.errors import ConfigError, InputFileError
from hpcxrf.formats.label_images import read_label_image
from hpcxrf.notes import Note
from hpcxrf.pipeline.regions.region import Region, RegionMaps
from hpcxrf.pipeline.regions.tools import polygon_mask
from hpcxrf.store.files import file_sha256

MAX_LABELS: Final = 10_000
"""Most regions of one label image."""


def region_stamps(config: RegionsConfig) -> tuple[tuple[str, str], ...]:
    """Name and checksum of every label image: regions count only for these.

    Raises:
        InputFileError: one cannot be read.
    """
    return tuple((path, f"sha256 {_checked_sha256(Path(path))}") for path in config.labels.values())


def require_given(config: RegionsConfig, shape_yx: tuple[int, int]) -> None:
    """Refuse regions that a scan of this shape cannot have, before anything is computed.

    Raises:
        ConfigError: a region without a pixel, all of them at once; a label image of another shape; a repeated
            name.
        InputFileError: a label image cannot be read.
    """
    regions = list(_drawn(config, shape_yx))
    size = f"the scan has {shape_yx[0]} x {shape_yx[1]} pixels (y, x)"
    faults = [
        f"regions.{region.kind}: {region.name!r} holds no pixel; {size}" for region in regions if not region.mask.any()
    ]
    names = [region.name for region in regions] + list(config.thresholds)
    faults += [
        f"regions: more than one is called {name!r}; give each its own name"
        for name in sorted({n for n in names if names.count(n) > 1})
    ]
    if faults:
        raise ConfigError("; ".join(faults))


def given_regions(config: RegionsConfig, maps: RegionMaps) -> list[Region]:
    """All regions that the run file gives, of measured pixels only.

    Raises:
        ConfigError: a region without a measured pixel. A threshold that no pixel meets is no fault: its region is
            empty; one on a component that this scan was fitted without has no region.
        InputFileError: a label image cannot be read.
    """
    valid = maps.valid
    drawn = [
        Region(name=r.name, kind=r.kind, reason=r.reason, mask=r.mask & valid)
        for r in _drawn(config, (valid.shape[0], valid.shape[1]))
    ]
    faults = [f"regions.{r.kind}: {r.name!r} holds no pixel that was measured" for r in drawn if not r.mask.any()]
    if faults:
        raise ConfigError("; ".join(faults))
    thresholds = {name: t for name, t in config.thresholds.items() if t.component in maps.components}
    return drawn + [_threshold(name, t, maps) for name, t in thresholds.items()]


def check_thresholds(config: RegionsConfig, listed: Sequence[str], components: Sequence[str]) -> list[Note]:
    """Refuse thresholds on what is not listed, and warn of those on what one scan was fitted without.

    Args:
        config: section `regions` of a run file.
        listed: components that are listed for the scan, whether it can show them or not.
        components: what the scan was fitted with.

    Raises:
        ConfigError: all of them at once.
    """
    absent = {name: t.component for name, t in config.thresholds.items() if t.component not in components}
    faults = [
        f"regions.thresholds.{name}: {component!r} is not fitted; give one of {', '.join(components)}"
        for name, component in absent.items()
        if component not in listed
    ]
    if faults:
        raise ConfigError("; ".join(faults))
    return [
        Note("warning", f"regions.thresholds.{name}: this scan is fitted without {component}, and has no such region")
        for name, component in absent.items()
    ]


def _drawn(config: RegionsConfig, shape_yx: tuple[int, int]) -> Iterator[Region]:
    """Regions that the maps have no part in."""
    for name, (top, bottom, left, right) in config.rectangles.items():
        mask = np.zeros(shape_yx, dtype=np.bool_)
        mask[top:bottom, left:right] = True
        reason = f"given: rows {top} to {bottom - 1}, columns {left} to {right - 1}"
        yield Region(name=name, kind="rectangles", reason=reason, mask=mask)
    for name, corners in config.polygons.items():
        reason = f"given: polygon of {len(corners)} corners"
        yield Region(name=name, kind="polygons", reason=reason, mask=polygon_mask(corners, shape_yx))
    for name, path in config.labels.items():
        image = read_labels(Path(path), shape_yx)
        values = np.unique(image[image > 0]).tolist()
        if len(values) > MAX_LABELS:
            raise ConfigError(
                f"{path}: label image with {len(values)} values above 0, at most {MAX_LABELS} regions can be refined; "
                "give an image of labels, not of counts"
            )
        for value in values:
            reason = f"given: value {value} of {Path(path).name}"
            yield Region(name=f"{name}-{value}", kind="labels", reason=reason, mask=image == value)


def read_labels(path: Path, shape_yx: tuple[int, int]) -> NDArray[Any]:
    """A label image (y, x) of integers, 0 for no region.

    Raises:
        ConfigError: of another shape, without a label, or of numbers that are no labels.
        InputFileError: the file cannot be read, or is of neither format.
    """
    image = read_label_image(path)
    if image.dtype.kind == "b":
        image = image.astype(np.uint8)
    if image.shape != shape_yx:
        raise ConfigError(
            f"{path}: label image of shape {image.shape}, the scan has {shape_yx} pixels (y, x); give an image of that "
            "shape"
        )
    if image.dtype.kind not in "iu":
        raise ConfigError(f"{path}: label image of type {image.dtype}; its values must be integers")
    if not (image > 0).any():
        raise ConfigError(f"{path}: label image without a value above 0; it holds no region")
    return image


def _threshold(name: str, asked: ThresholdConfig, maps: RegionMaps) -> Region:
    counts = maps.amplitude[maps.components.index(asked.component)]
    mask = np.isfinite(counts)
    said = []
    if asked.above is not None:
        mask &= counts > asked.above
        said.append(f"above {asked.above:g}")
    if asked.below is not None:
        mask &= counts < asked.below
        said.append(f"below {asked.below:g}")
    found = "" if mask.any() else "; no pixel is"
    reason = f"given: {asked.component} {' and '.join(said)} counts a pixel{found}"
    return Region(name=name, kind="thresholds", reason=reason, mask=mask)


def _checked_sha256(path: Path) -> str:
    refuse_irregular(path)
    try:
        return file_sha256(path)
    except OSError as error:
        raise InputFileError(f"{path}: label image cannot be read ({error.strerror})") from error
