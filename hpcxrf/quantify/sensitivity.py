"""Sensitivity of a family: recorded counts per areal density of a thin sample, up to a factor of the instrument.

    S(family) = sum over its lines of  sigma_line(incident energy) * efficiency(line)

`sigma_line` is the fluorescence cross-section with the full cascade, and both it and the efficiency are those that made
the line ratios of the fit: an amplitude is all that is recorded of a family, and so is its sensitivity. What is common
to all families is left to a standard: flux, solid angle, angle of incidence.
"""

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final

import xraylib

from hpcxrf.errors import FitError
from hpcxrf.physics.components import (
    HIGHEST_INCIDENT_KEV,
    find_emitted_lines,
    is_estimated,
    parse_component,
    unexcited_reason,
)
from hpcxrf.physics.detector import LOWEST_KEV, Detector
from hpcxrf.physics.detector import efficiency as efficiency_of
from hpcxrf.physics.sample import compute_family_strength

_G_CM2_PER_UG_CM2: Final = 1e-6

MODEL_ERROR: Final[Mapping[str, float]] = MappingProxyType({"K": 0.0, "L": 0.10, "M": 0.06})
"""Relative error of the sensitivity of a shell against that of K lines.

Two tables of one quantity are compared, ours (xraylib, M yields mended) and fisx 1.3.2, at energies that both
tabulate: K lines agree within .4 % (silicon to zirconium), fisx has 8 to 11 % more L counts from palladium to neodymium
(yields and Coster-Kronig rates of Krause against those of Chen, Crasemann and Mark; neither is known to be right), and
6 % more M counts where the energy excites L lines, whose cascade fills M. `tests/quantify/test_sensitivity.py` holds
these figures. K has no error of its own: what is wrong with the efficiency is in the scatter of the standards."""
ESTIMATED_MODEL_ERROR: Final = 0.5
"""That of M families of cadmium to europium: their 4f shell is empty or open, and no second calculation exists."""


@lru_cache(maxsize=4096)
def compute_sensitivity(family: str, incident_energy_kev: float, detector: Detector) -> float:
    """Compute the sensitivity of a family in a thin sample, in recorded photons per incident photon and ug/cm2.

    It holds for 4 pi of solid angle and a beam at right angles; both are in the factor of the instrument. Absorption
    and enhancement in the sample are in `hpcxrf.quantify.layer`.

    Args:
        family: name as in the fit: `Fe` (K lines), `Pt_L`, `Au_M`.
        incident_energy_kev: 0.1 to 200 keV, of a monochromatic beam.
        detector: that of the fit.

    Returns:
        Above 0.

    Raises:
        FitError: not a K, L or M family, or one that the incident energy does not excite; with the remedy.
    """
    symbol, shell = parse_family(family)
    if not LOWEST_KEV < incident_energy_kev <= HIGHEST_INCIDENT_KEV:
        raise FitError(
            f"incident energy is {incident_energy_kev:g} keV, must lie between {LOWEST_KEV:g} and "
            f"{HIGHEST_INCIDENT_KEV:g} keV"
        )
    reason = unexcited_reason(symbol, shell, incident_energy_kev)
    if reason is not None:
        raise FitError(reason)
    z = xraylib.SymbolToAtomicNumber(symbol)
    strength = compute_family_strength(z, shell, incident_energy_kev, detector)
    if strength <= 0.0:
        raise FitError(f"{family}: every line is absorbed before the detector; remove it")
    return strength * _G_CM2_PER_UG_CM2


def parse_family(name: str) -> tuple[str, str]:
    """Split the name of a family: `Pt_L` -> ("Pt", "L"), `Fe` -> ("Fe", "K").

    Raises:
        FitError: a pile-up, or a name that is not a family.
    """
    component = parse_component(name)
    if len(component.families) != 1:
        raise FitError(f"{name}: a pile-up has no areal density; write a family such as Fe, Pt_L or Au_M")
    return component.families[0]


def find_model_error(family: str) -> float:
    """Relative error of a family's sensitivity against K lines: of `MODEL_ERROR`, more where its lines are an estimate.

    Raises:
        FitError: not a family.
    """
    _, shell = parse_family(family)
    return ESTIMATED_MODEL_ERROR if is_estimated(parse_component(family)) else MODEL_ERROR[shell]


def compute_mean_line_kev(family: str, incident_energy_kev: float, detector: Detector) -> float:
    """Mean energy of a family's lines as recorded, keV: the abscissa of a plot of the curve.

    Raises:
        FitError: as `compute_sensitivity`.
    """
    total = compute_sensitivity(family, incident_energy_kev, detector) / _G_CM2_PER_UG_CM2
    symbol, shell = parse_family(family)
    lines = find_emitted_lines(xraylib.SymbolToAtomicNumber(symbol), shell, incident_energy_kev)
    seen = efficiency_of([energy for _, energy, _ in lines], detector)
    return float(
        sum(energy * strength * share for (_, energy, strength), share in zip(lines, seen, strict=True)) / total
    )
