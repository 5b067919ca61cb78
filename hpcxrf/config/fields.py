"""What the sections of the run file have in common: how pydantic checks them, and numbers with a range."""

from typing import Annotated, Final

from pydantic import ConfigDict, Field

CHECKED: Final = ConfigDict(extra="forbid", allow_inf_nan=False)
"""Unknown names are faults, and so are numbers that are infinite or not a number."""

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
