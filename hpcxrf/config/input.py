"""The section `input` of the run file: which files, and what they do not say themselves."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from hpcxrf.config.fields import CHECKED, Positive

_Size = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputConfig:
    """Files of the scans, and what they do not say themselves."""

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    files: tuple[str, ...] = ()
    """Files, folders or patterns (`scans/*.mda`), relative to the run file; or `catalogue`."""
    catalogue: str | None = None
    """Catalogue of an archive (`hpcxrf catalog`), in the place of `files`: all its scans, or those of `where`."""
    where: str | None = None
    """Condition on the columns of the catalogue: `date > '2024-01-01' and shape_y > 100`; None: all its scans."""
    dataset_path: str | tuple[str, ...] | None = None
    """Path of the array inside an HDF5, Zarr or npz file; a list or a pattern (`det*/counts`): one array a detector."""
    energy_axis: int | None = None
    """Axis of the channels in that array."""
    detector_axis: int | None = None
    """Axis of the detectors in that array, where the file does not say."""
    map_shape: tuple[_Size, _Size] | None = None
    """Rows and columns of a scan that is stored as a list of points."""
    positions: tuple[str, str] | None = None
    """Paths of the arrays of x and y positions, one value a point."""
    energy_offset_kev: float | None = None
    """Energy of channel 0, keV, where the file does not say."""
    energy_slope_kev: Positive | None = None
    """Energy per channel, keV, where the file does not say."""
    allow_external: bool = False
    """Follow external links and virtual datasets of HDF5 files."""


def input_faults(config: InputConfig) -> list[str]:
    """Contradictions in the section, each with its place and the remedy."""
    if config.catalogue is not None and config.files:
        return ["input.files and input.catalogue are both given; a run has one of them"]
    if config.catalogue is None and not config.files:
        return ["input.files: is empty; name at least one file"]
    if config.catalogue is None and config.where is not None:
        return ["input.where: is a condition on a catalogue; give input.catalogue"]
    return []
