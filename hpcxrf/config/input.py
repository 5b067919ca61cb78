"""The section `input` of the run file: which files, and what they do not say themselves."""

from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict

from hpcxrf.config.fields import CHECKED, Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class InputConfig:
    """Files of the scans, and what they do not say themselves."""

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    files: tuple[str, ...]
    """Files, folders or patterns (`scans/*.mda`), relative to the run file."""
    dataset_path: str | None = None
    """Path of the array inside an HDF5, Zarr or npz file."""
    energy_axis: int | None = None
    """Axis of the channels in that array."""
    energy_offset_kev: float | None = None
    """Energy of channel 0, keV, where the file does not say."""
    energy_slope_kev: Positive | None = None
    """Energy per channel, keV, where the file does not say."""
    allow_external: bool = False
    """Follow external links and virtual datasets of HDF5 files."""
