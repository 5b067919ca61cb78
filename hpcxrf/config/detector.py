"""The section `detector` of the run file: the windows of the detector."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import ConfigDict

from hpcxrf.config.fields import CHECKED, NotNegative, Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorConfig:
    """The detector's windows; None: of the override file, else the default (`hpcxrf.physics.detector`)."""

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    material: Literal["Si", "Ge"] | None = None
    """Default Si."""
    be_window_um: NotNegative | None = None
    """Default 8."""
    air_path_mm: NotNegative | None = None
    """Default 10."""
    dead_layer_um: NotNegative | None = None
    """Default 0.1."""
    chip_thickness_um: Positive | None = None
    """Default 450."""
