"""What is said of areal densities: attributes of their group, the curve to be drawn, notes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any, Final

import xraylib

from hpcxrf import __version__
from hpcxrf.errors import FitError
from hpcxrf.notes import Note
from hpcxrf.physics.detector import Detector
from hpcxrf.pipeline.quantify.sample import Sample
from hpcxrf.pipeline.quantify.scans import StandardScan
from hpcxrf.quantify.calibration import Calibration, LeftOut, leave_one_out
from hpcxrf.quantify.calibration_json import calibration_to_json
from hpcxrf.quantify.matrix import LayerCorrection
from hpcxrf.quantify.sensitivity import compute_mean_line_kev, compute_sensitivity

_SHELLS: Final = ("K", "L", "M")
_HEAVIEST: Final = 92
_LIGHTEST: Final = 11
_LEAST_LINE_KEV: Final = 1.0


def describe_areal_densities(
    root: Mapping[Any, Any],
    sample: Sample,
    standards: Sequence[StandardScan],
    calibrations: Mapping[str, Calibration],
    primary: str,
    correction: LayerCorrection | None,
    *,
    maps_constants: bool,
) -> dict[str, Any]:
    """Attributes of the group, so that a copy of it says what it is."""
    known = {key: root[key] for key in ("title", "source", "incident_energy_kev") if root.get(key) is not None}
    shown = calibrations[primary]
    return {
        **known,
        "hpcxrf_version": __version__,
        "normalisation": sample.maps.attrs.get("normalisation", ""),
        "curve_of": "XRF-Maps" if maps_constants else "hpcxrf",
        "standards": [
            {
                "name": one.certified.name,
                "source": one.source,
                "areal_density_ug_cm2": {s: d.areal_density_ug_cm2 for s, d in one.certified.densities.items()},
                "relative_error": {s: d.relative_error for s, d in one.certified.densities.items()},
                "error_assumed": [s for s, d in one.certified.densities.items() if d.is_error_assumed],
                "certificates": sorted({d.source for d in one.certified.densities.values()}),
            }
            for one in standards
        ],
        "calibration": {entry: calibration_to_json(one) for entry, one in calibrations.items()},
        "primary": primary,
        "curve": draw_curve(shown),
        "leave_one_out": [_pack_left_out(one) for one in leave_one_out(shown)],
        "layer": None if correction is None else _pack_layer(correction),
    }


def draw_curve(calibration: Calibration) -> dict[str, list[list[float]]]:
    """Atomic number, mean energy of the lines (keV) and response of the curve by shell, of all elements with lines."""
    found: dict[str, list[list[float]]] = {}
    for shell in _SHELLS:
        factor = calibration.factors.get(shell)
        rows = _tabulate_sensitivity(shell, calibration.incident_energy_kev, calibration.detector)
        found[shell] = [] if factor is None else [[z, kev, factor.factor * s] for z, kev, s in rows]
    return found


@lru_cache(maxsize=16)
def _tabulate_sensitivity(
    shell: str, incident_energy_kev: float, detector: Detector
) -> tuple[tuple[int, float, float], ...]:
    return tuple(_list_sensitivities(shell, incident_energy_kev, detector))


def _list_sensitivities(
    shell: str, incident_energy_kev: float, detector: Detector
) -> Iterator[tuple[int, float, float]]:
    for z in range(_LIGHTEST, _HEAVIEST + 1):
        symbol = xraylib.AtomicNumberToSymbol(z)
        family = symbol if shell == "K" else f"{symbol}_{shell}"
        try:
            energy_kev = compute_mean_line_kev(family, incident_energy_kev, detector)
            if energy_kev >= _LEAST_LINE_KEV:
                yield z, energy_kev, compute_sensitivity(family, incident_energy_kev, detector)
        except FitError:
            continue


def _pack_left_out(one: LeftOut) -> dict[str, Any]:
    return {**asdict(one), "deviation": one.deviation, "pull": one.pull}


def _pack_layer(correction: LayerCorrection) -> dict[str, Any]:
    return {
        "description": correction.description,
        "areal_density_ug_cm2": correction.areal_density_ug_cm2,
        "mass_fractions": dict(correction.mass_fractions),
        "changes": list(correction.changes),
    }


def note_areal_densities(
    standards: Sequence[StandardScan],
    calibration: Calibration,
    correction: LayerCorrection | None,
    *,
    maps_constants: bool,
) -> Iterator[Note]:
    """Say what the areal densities of a scan rest on."""
    names = ", ".join(f"{one.certified.name} ({one.source})" for one in standards)
    own = ", ".join(dict.fromkeys(point.family for point in calibration.points))
    how = (
        "all elements by the curve of XRF-Maps" if maps_constants else f"{own} by their own points, others by the curve"
    )
    yield Note("fact", f"areal densities: standards {names}; {how}")
    for one in standards:
        assumed = [s for s, d in one.certified.densities.items() if d.is_error_assumed]
        if assumed:
            error = next(d.relative_error for d in one.certified.densities.values() if d.is_error_assumed)
            yield Note(
                "fact",
                f"areal densities: {one.certified.name} states no error of {', '.join(assumed)}; {100 * error:g} % are "
                "taken (quantify.relative_error)",
            )
        yield from (Note("fact", f"areal densities: {text}") for text in one.notes)
    if correction is not None:
        yield Note("fact", f"areal densities: {correction.description}")
