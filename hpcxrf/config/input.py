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

    files: tuple[str, ...]
    """Files, folders or patterns (`scans/*.mda`), relative to the run file."""
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
