"""The names of the strong peaks of a spectrum on a given axis: K before L, K-beta and escape lines before new names."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.fitting.axis.peaks import Peaks
from hpcxrf.fitting.axis.tables import Family, list_families

Array = NDArray[np.float64]

_LEAST_Z: Final = 8.0
_NEAR_KEV: Final = 0.045
_POSITION_SD_KEV: Final = 0.02
_LOWEST_KEV: Final = 1.0
_ELASTIC_KEV: Final = 0.1
_FARTHEST_ANGLE_DEG: Final = 150.0
_EDGE_KEV: Final = 0.05
# A peak beside a stronger one that explains it: K-beta and L lines, escape, sums.
_COMPANION_KEV: Final = 0.06
_BETA_SHARE: Final = 0.6
_ESCAPE_KEV: Final = 1.742
_ESCAPE_SHARE: Final = 0.05
_SUM_SHARE: Final = 0.05
_MOST_COST: Final = 4.0


def name_peaks(energy_kev: Array, peaks: Peaks, incident_kev: float, *, elastic: bool) -> list[str]:
    """Name the peaks, strongest first, until each is a line, a companion of one, or nothing that is known.

    Args:
        energy_kev: (peak,) on the axis.
        peaks: those of the spectrum.
        incident_kev: energy of the elastic peak.
        elastic: False for a tube.
    """
    lowest = incident_kev / (1.0 + incident_kev / 511.0 * (1.0 - np.cos(np.radians(_FARTHEST_ANGLE_DEG))))
    named: list[tuple[Family, float]] = []
    for i in np.argsort(-peaks.area, kind="stable"):
        energy, area = float(energy_kev[i]), float(peaks.area[i])
        if peaks.z[i] < _LEAST_Z or not _LOWEST_KEV < energy < incident_kev + _ELASTIC_KEV:
            continue
        scattered = elastic and (energy > incident_kev - _ELASTIC_KEV or lowest - 0.1 < energy)
        if scattered or _is_companion(energy, area, named):
            continue
        best = _choose(energy, incident_kev)
        if best is not None and best.name not in {f.name for f, _ in named}:
            named.append((best, area))
    return [family.name for family, _ in named]


def _is_companion(energy: float, area: float, named: list[tuple[Family, float]]) -> bool:
    for family, strength in named:
        share = area / strength
        if abs(energy - family.beta_kev) < _COMPANION_KEV and share < (_BETA_SHARE if family.shell == "K" else 1.2):
            return True
        if abs(energy - family.alpha_kev + _ESCAPE_KEV) < _COMPANION_KEV and share < _ESCAPE_SHARE:
            return True
        for other, _ in named:
            if abs(energy - family.alpha_kev - other.alpha_kev) < _COMPANION_KEV and share < _SUM_SHARE:
                return True
    return False


def _choose(energy: float, incident_kev: float) -> Family | None:
    """The family whose main line is nearest, in the sense of position and how common it is."""
    possible = [
        (f.cost + 0.5 * ((f.alpha_kev - energy) / _POSITION_SD_KEV) ** 2, f)
        for f in list_families()
        if abs(f.alpha_kev - energy) < _NEAR_KEV
        and f.edge_kev < incident_kev - _EDGE_KEV
        and f.cost <= _MOST_COST
        and f.shell != "M"
    ]
    return min(possible, key=lambda one: one[0])[1] if possible else None
