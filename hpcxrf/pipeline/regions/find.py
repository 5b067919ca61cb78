"""All regions of a scan, as the run file asks for them."""

from hpcxrf.config.regions import RegionKind, RegionsConfig
from hpcxrf.pipeline.regions.given import given_regions
from hpcxrf.pipeline.regions.phases import find_areas, find_phases
from hpcxrf.pipeline.regions.region import Region, RegionMaps
from hpcxrf.pipeline.regions.spots import find_hot_spots, find_squares


def find_regions(maps: RegionMaps, config: RegionsConfig) -> list[Region]:
    """The given regions, then the found ones, in the order of the run file; the same for the same maps and seed.

    Raises:
        ConfigError: a given region without a measured pixel.
        InputFileError: a label image cannot be read.
    """
    kinds = dict.fromkeys(config.find)
    return given_regions(config, maps) + [r for kind in kinds for r in _found(kind, maps, config)]


def _found(kind: RegionKind, maps: RegionMaps, config: RegionsConfig) -> list[Region]:
    small, seed, most = config.min_pixels, config.seed, config.max_phases
    if kind == "phases":
        return find_phases(maps, most=most, min_pixels=small, seed=seed)
    if kind == "areas":
        return find_areas(maps, k=config.k, most=most, min_pixels=small, seed=seed)
    if kind == "hot_spots":
        return find_hot_spots(maps, k=config.k, most=most, min_pixels=small, seed=seed)
    return find_squares(maps, k=config.k, side=config.side)
