"""The section `detector` of the run file: the windows of the detector."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import ConfigDict

from hpcxrf.config.fields import CHECKED, NotNegative, Positive


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorConfig:
    """Windows of the detector; None: those of the override file, else the defaults (`hpcxrf.physics.detector`)."""

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    material: Literal["Si", "Ge"] | None = None
    """Material of the sensor; the default is Si."""
    be_window_um: NotNegative | None = None
    """Thickness of the beryllium window, micrometres; the default is 8."""
    air_path_mm: NotNegative | None = None
    """Length of the air path between sample and detector, mm; the default is 10."""
    dead_layer_um: NotNegative | None = None
    """Thickness of the dead layer, micrometres; the default is 0.1."""
    chip_thickness_um: Positive | None = None
    """Thickness of the sensor, micrometres; the default is 450."""
