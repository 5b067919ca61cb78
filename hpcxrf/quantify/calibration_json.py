"""A calibration as plain JSON, and back: the points are its content, all else is computed from them."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, Final

from hpcxrf.errors import ConfigError, HpcxrfError
from hpcxrf.physics.detector import Detector
from hpcxrf.physics.lines import TABLE_VERSION
from hpcxrf.quantify.calibration import Calibration, calibrate
from hpcxrf.quantify.curve import StandardPoint

_KIND: Final = "hpcxrf calibration"
_VERSION: Final = 1


def calibration_to_json(calibration: Calibration) -> dict[str, Any]:
    """Write a calibration as plain values (`json.dumps` takes them, floats are kept to the last bit).

    `factors` is for readers; it is not read back.
    """
    return {
        "kind": _KIND,
        "version": _VERSION,
        "line_table": TABLE_VERSION,
        "incident_energy_kev": calibration.incident_energy_kev,
        "detector": asdict(calibration.detector),
        "points": [asdict(point) for point in calibration.points],
        "factors": [asdict(factor) for factor in calibration.factors.values()],
    }


def calibration_from_json(content: Mapping[str, Any]) -> Calibration:
    """Read what `calibration_to_json` wrote.

    Raises:
        ConfigError: not such a calibration, one of another version or of other line tables, or values that it cannot
            have.
    """
    if content.get("kind") != _KIND or content.get("version") != _VERSION:
        raise ConfigError(
            f"calibration: kind {content.get('kind')!r}, version {content.get('version')!r}; must be {_KIND!r}, "
            f"{_VERSION}: calibrate again"
        )
    if content.get("line_table") != TABLE_VERSION:
        raise ConfigError(
            f"calibration: made with the line tables of {content.get('line_table')!r}, those of this program are "
            f"{TABLE_VERSION!r}; calibrate again"
        )
    try:
        points = tuple(StandardPoint(**_check_types(StandardPoint, point)) for point in content["points"])
        detector = Detector(**_check_types(Detector, content["detector"]))
        return calibrate(points, float(content["incident_energy_kev"]), detector)
    except (TypeError, KeyError, ValueError, AttributeError, HpcxrfError) as error:
        raise ConfigError(f"calibration: cannot be read: {error}; calibrate again") from error


def _check_types(kind: type[StandardPoint] | type[Detector], values: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers where numbers belong: dataclasses do not look at what they are given."""
    annotations = {f.name: f.type for f in fields(kind)}
    return {name: float(value) if annotations.get(name) is float else value for name, value in values.items()}
