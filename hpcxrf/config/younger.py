"""Options that are younger than version 0.1.0: a run directory of that version does not have them."""

from collections.abc import Mapping
from typing import Final

YOUNGER_OPTIONS: Final[Mapping[str, object]] = {
    "detectors.exclude": [],
    "detectors.judge": True,
    "fit.posterior": "laplace",
    "input.detector_axis": None,
    "input.map_shape": None,
    "input.positions": None,
    "report.pages": "all",
}
"""Default by `section.key`: a run that was begun without the option goes on with it."""
