"""Responses by the curve of XRF-Maps, for those who compare with its numbers."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from hpcxrf.pipeline.compare import share_strongest_lines
from hpcxrf.quantify.calibration import Calibration, Response
from hpcxrf.quantify.curve import RelativeErrors
from hpcxrf.quantify.maps_curve import MapsGeometry, MapsPoint, fit_maps_curve

MAPS_CONSTANTS: Final = "maps-3.58"
"""Set of constants (`fit.constants`) that takes the curve of XRF-Maps."""
_UM_PER_MM: Final = 1000.0


def find_maps_responses(calibration: Calibration, families: Sequence[str]) -> dict[str, Response]:
    """Find the responses of families by the curve of XRF-Maps, for all elements alike.

    XRF-Maps counts the strongest line, and divides elements of the standard by its curve as well. Its error is the
    scatter of the standard about the curve, beside those of the standard; XRF-Maps gives none.

    Args:
        calibration: points of the standards.
        families: families of the sample.

    Raises:
        FitError: as `fit_maps_curve`.
    """
    points, energy_kev, detector = calibration.points, calibration.incident_energy_kev, calibration.detector
    named = list(dict.fromkeys([*(p.family for p in points), *families]))
    share = share_strongest_lines(named, energy_kev, detector)
    geometry = MapsGeometry(
        be_window_um=detector.be_window_um,
        chip_thickness_um=detector.chip_thickness_um,
        air_path_um=_UM_PER_MM * detector.air_path_mm,
        material=detector.material,
    )
    curve = fit_maps_curve(
        [
            MapsPoint(
                family=p.family,
                counts_per_second=p.rate_hz * share[p.family],
                areal_density_ug_cm2=p.areal_density_ug_cm2,
                scaler=1.0,
            )
            for p in points
        ],
        energy_kev,
        geometry,
    )
    measured = np.array([p.rate_hz * share[p.family] / p.areal_density_ug_cm2 for p in points])
    ratio = measured / np.array([curve.find_value(p.family) for p in points])
    errors = RelativeErrors(
        counting=_root_mean_square([p.counting for p in points]) / len(points) ** 0.5,
        theta=_root_mean_square([p.theta for p in points]) / len(points) ** 0.5,
        i0=max(p.i0 for p in points),
        standard=_root_mean_square([p.certificate for p in points]),
        curve=float(np.sqrt(np.mean((ratio - 1.0) ** 2))),
    )
    return {
        family: Response(
            family=family, rate_hz_per_ug_cm2=value / share[family], origin="curve of XRF-Maps", errors=errors
        )
        for family in families
        if (value := curve.find_value(family)) > 0.0
    }


def _root_mean_square(values: Sequence[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
