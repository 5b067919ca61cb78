"""The section `regions` of the run file: regions of interest, found on the maps or named."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final, Literal

from pydantic import ConfigDict, Field

from hpcxrf.config.fields import CHECKED
from hpcxrf.methods import PixelMethodName

RegionKind = Literal["phases", "areas", "hot_spots", "squares"]
MOST_REFINE_TASKS: Final = 8
FOUND_NAMES: Final = ("phase-", "area-", "hot-spot-", "square-")
"""Beginnings of the names of found regions; a region of the run file may not have them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdConfig:
    """Limits on the amplitude of one component, recorded counts a pixel."""

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    component: str
    above: float | None = None
    below: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionsConfig:
    """Regions of interest: found on the maps or named in the run file, their summed spectra fitted again.

    Pixels are counted from 0, rows (y) first. Regions may overlap.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    find: tuple[RegionKind, ...] = ("phases", "squares")
    """`phases`: clusters of pixels of like composition; `areas`: the largest connected areas of the phases, but for
    the most extended one; `hot_spots`: small connected areas far above their phase in a component; `squares`: those
    whose mean amplitudes differ most. `[]`: none."""
    k: Annotated[int, Field(ge=1, le=64)] = 3
    """Largest number of areas, of hot spots and of squares."""
    max_phases: Annotated[int, Field(ge=2, le=16)] = 4
    """Largest number of phases; the data choose how many there are. A single phase is not made a region."""
    side: Annotated[int, Field(ge=2)] = 25
    """Side of the squares, pixels."""
    min_pixels: Annotated[int, Field(ge=1)] = 16
    """Smallest number of pixels of a found region."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the clustering."""
    rectangles: dict[str, tuple[int, int, int, int]] = field(default_factory=dict)
    """Rectangles by name: first row, row after the last, first column, column after the last."""
    polygons: dict[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    """Polygons by name: corners (y, x); a pixel belongs to the polygon that holds its centre."""
    labels: dict[str, str] = field(default_factory=dict)
    """Label images by name: files (.npy, .tif) of the scan's shape, 0 for none; value 2 of `leaf` is the region
    `leaf-2`."""
    thresholds: dict[str, ThresholdConfig] = field(default_factory=dict)
    """Thresholds by name. Without a pixel that meets it the region stays, empty, and says so."""
    refine: bool = True
    """True: the summed spectrum of every region is fitted, theta and amplitudes together, from the scan's theta."""
    remap: bool | PixelMethodName = False
    """Method by which the pixels of every region are fitted again with the region's own theta; true: that of `pixels`.
    A region that cannot be fitted so says why, and stops no other."""

    @property
    def wanted(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.find or self.given)

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the regions of the run file, of all kinds."""
        return (*self.rectangles, *self.polygons, *self.labels, *self.thresholds)


def region_faults(regions: RegionsConfig) -> list[str]:
    """Contradictions in the section, each with its place and the remedy."""
    given = regions.given
    faults = [
        f"regions: several are called {name!r}; give each its own name"
        for name in sorted({n for n in given if given.count(n) > 1})
    ]
    faults += [
        f"regions: {name!r} is reserved for regions that are found ({', '.join(FOUND_NAMES)}...); choose another name"
        for name in given
        if name.startswith(FOUND_NAMES) or not name
    ]
    for name, (top, bottom, left, right) in regions.rectangles.items():
        if not (0 <= top < bottom and 0 <= left < right):
            faults.append(
                f"regions.rectangles.{name}: {[top, bottom, left, right]} holds no pixel; give first row, row after "
                "the last, first column, column after the last, counted from 0"
            )
    faults += [
        f"regions.polygons.{name}: {len(corners)} corners; give at least 3"
        for name, corners in regions.polygons.items()
        if len(corners) < 3
    ]
    faults += [
        f"regions.thresholds.{name}: give above or below, above less than below, in counts a pixel"
        for name, t in regions.thresholds.items()
        if (t.above is None and t.below is None) or (t.above is not None and t.below is not None and t.above >= t.below)
    ]
    if regions.remap and not regions.refine:
        faults.append("regions.remap: needs the theta of regions.refine; set regions.refine: true")
    return faults


def most_regions(config: RegionsConfig) -> int | None:
    """Largest number of regions that there can be; None where a label image decides."""
    if config.labels:
        return None
    each = {"phases": config.max_phases}
    found = sum(each.get(kind, config.k) for kind in set(config.find))
    return found + len(config.given)


def refine_tasks(config: RegionsConfig) -> int:
    """Number of tasks that share the refinements of a scan, before it is known how many there are."""
    if not (config.wanted and config.refine):
        return 0
    most = most_regions(config)
    return MOST_REFINE_TASKS if most is None else min(most, MOST_REFINE_TASKS)
