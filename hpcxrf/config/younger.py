"""Options that are younger than version 0.1.0: a run directory of that version does not have them."""

from collections.abc import Mapping
from typing import Final

YOUNGER_OPTIONS: Final[Mapping[str, object]] = {
    "detectors.exclude": [],
    "detectors.judge": True,
    "fit.posterior": "laplace",
    "fit.warm_start": "auto",
    "groups": [],
    "input.catalogue": None,
    "input.detector_axis": None,
    "input.map_shape": None,
    "input.positions": None,
    "input.where": None,
    "normalise.detectors": "auto",
    "normalise.i0": None,
    "normalise.i0_clock": "auto",
    "normalise.i0_clock_hz": None,
    "normalise.i0_kind": "auto",
    "normalise.live_time": None,
    "normalise.reference": None,
    "normalise.scalers": {},
    "normalise.site": "aps-2id-e",
    "quantify.allow": [],
    "quantify.elements": None,
    "quantify.layer": None,
    "quantify.relative_error": 0.10,
    "quantify.standards": [],
    "quantify.table": None,
    "quantify.unit": None,
    "report.pages": "all",
    "sample.elements_table": None,
}
"""Default by `section.key`: a run that was begun without the option goes on with it."""
