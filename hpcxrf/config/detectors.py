"""The section `detectors` of the run file: which of a scan's detectors are used."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from hpcxrf.config.fields import CHECKED

DetectorNumber = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorsConfig:
    """Detectors of a scan, counted from 0."""

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    exclude: tuple[DetectorNumber, ...] = ()
    """Detectors that are not used, as `[2]`: they have no maps and are no part of the sum."""
    judge: bool = True
    """Leave a detector that disagrees with the others beyond its error out of the sum, and say so."""
