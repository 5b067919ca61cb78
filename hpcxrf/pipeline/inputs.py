"""What the run file says about the scans and the detectors of their results."""

from collections.abc import Sequence
from typing import Final

from hpcxrf.config import RunConfig
from hpcxrf.formats.scan import ReadOptions

SUM: Final = "sum"
"""Name, on the results' detector axis, of the raw sum of all detectors."""


def read_options(config: RunConfig) -> ReadOptions:
    """What the run file says about files that do not say it themselves."""
    given = config.input
    return ReadOptions(
        dataset_path=given.dataset_path,
        energy_axis=given.energy_axis,
        energy_offset_kev=given.energy_offset_kev,
        energy_slope_kev=given.energy_slope_kev,
        allow_external=given.allow_external,
    )


def detector_names(config: RunConfig, n_detectors: int) -> tuple[str, ...]:
    """Entries of the results' detector axis."""
    each = tuple(str(d) for d in range(n_detectors))
    names: dict[str, Sequence[str]] = {"each": each, "sum": (SUM,), "both": (*each, SUM)}
    return tuple(names[config.pixels.detectors])
