"""What speaks against a standard, or against its use for a sample: every fault in one sentence with its remedy."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Final, Literal

from hpcxrf.errors import FitError
from hpcxrf.physics.detector import Detector
from hpcxrf.quantify.curve import StandardPoint
from hpcxrf.quantify.sensitivity import compute_sensitivity, parse_family
from hpcxrf.quantify.standards import CertifiedStandard

ENERGY_TOLERANCE_KEV: Final = 0.05
"""Largest difference of the incident energies of standard and sample: sensitivities change by 1 to 2 % over it."""
_LEAST_SIGNIFICANCE: Final = 3.0

Difference = Literal["energy", "detector", "no_i0"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """How a scan was measured and fitted, as far as a calibration depends on it."""

    incident_energy_kev: float
    detector: Detector
    detectors: tuple[str, ...] = ()
    """Names of the detectors that are summed or compared."""
    i0_name: str | None = None
    """Scaler of the normalisation; None: not normalised by I0."""
    i0_reference: float | None = None
    """Value that the rates refer to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredStandard:
    """A fitted standard."""

    rates_hz: Mapping[str, float]
    """Normalised rates by family, of all families that were fitted."""
    sigma_hz: Mapping[str, float]
    """Standard uncertainties by counting, by family."""
    theta_sigma_hz: Mapping[str, float] = field(default_factory=dict)
    """Standard uncertainties by peak shape and energy axis, where they are apart from those by counting."""
    i0: float = 0.0
    """Relative uncertainty of the incident flux."""
    saturated_pixels: int = 0
    """Number of pixels of which a detector reports more counts than it can, or no live time."""
    at_bound: tuple[str, ...] = ()
    """Nonlinear parameters that ended at a bound of the fit."""


def check_standard(
    standard: CertifiedStandard,
    measured: MeasuredStandard,
    of_standard: Conditions,
    of_sample: Conditions,
    *,
    families: Collection[str] | None = None,
    allow: Collection[Difference] = (),
) -> tuple[str, ...]:
    """Find everything that speaks against a calibration of a sample by a standard.

    Args:
        standard: certified densities.
        measured: its fit.
        of_standard: conditions of its scan.
        of_sample: conditions of the sample's scan.
        families: families of the standard that are to be used; None: all that were fitted.
        allow: what the user said may differ: `energy`, `detector`, or `no_i0` (neither scan is normalised).

    Returns:
        One sentence each; none where nothing speaks against it.
    """
    used = find_standard_families(standard, measured.rates_hz) if families is None else tuple(families)
    return (
        *_check_elements(standard, measured, used, of_standard),
        *_check_fit(standard.name, measured),
        *_compare_conditions(standard.name, of_standard, of_sample, allow),
    )


def build_points(
    standard: CertifiedStandard, measured: MeasuredStandard, families: Collection[str] | None = None
) -> tuple[StandardPoint, ...]:
    """Make the points of a calibration from a fitted standard in which `check_standard` finds no fault.

    Args:
        standard: certified densities.
        measured: its fit.
        families: families to be used; None: all of certified elements that were fitted.
    """
    used = find_standard_families(standard, measured.rates_hz) if families is None else families
    return tuple(
        StandardPoint(
            standard=standard.name,
            family=family,
            areal_density_ug_cm2=density.areal_density_ug_cm2,
            rate_hz=measured.rates_hz[family],
            counting=measured.sigma_hz[family] / measured.rates_hz[family],
            theta=measured.theta_sigma_hz.get(family, 0.0) / measured.rates_hz[family],
            i0=measured.i0,
            certificate=density.relative_error,
            is_error_assumed=density.is_error_assumed,
        )
        for family in used
        for density in [standard.densities[parse_family(family)[0]]]
    )


def find_standard_families(standard: CertifiedStandard, fitted: Collection[str]) -> tuple[str, ...]:
    """Fitted families of the elements that a standard certifies, in the order of the fit."""
    return tuple(family for family in fitted if _find_symbol(family) in standard.densities)


def _find_symbol(family: str) -> str | None:
    """Element of a family; None for pile-up, scatter and lines of a user."""
    try:
        return parse_family(family)[0]
    except FitError:
        return None


def _check_elements(
    standard: CertifiedStandard, measured: MeasuredStandard, used: Collection[str], conditions: Conditions
) -> list[str]:
    name = standard.name
    faults = []
    for certified, density in standard.densities.items():
        value = density.areal_density_ug_cm2
        if not 0.0 < value < math.inf:
            faults.append(
                f"{name}: {certified} has an areal density of {value:g} ug/cm2; give one above 0, or leave it out"
            )
    for family in used:
        symbol = _find_symbol(family)
        if symbol is None:
            faults.append(f"{name}: {family} is not a family of one element; write Fe, Pt_L or Au_M")
            continue
        if symbol not in standard.densities:
            listed = ", ".join(standard.densities)
            faults.append(f"{name}: {symbol} is not certified; choose among {listed}, or add it to the table")
            continue
        faults += _check_family(name, family, measured, conditions)
    if not used:
        listed = ", ".join(standard.densities)
        faults.append(f"{name}: none of its elements {listed} was fitted; add them to the elements of its scan")
    return faults


def _check_family(name: str, family: str, measured: MeasuredStandard, conditions: Conditions) -> list[str]:
    try:
        compute_sensitivity(family, conditions.incident_energy_kev, conditions.detector)
    except FitError as error:
        return [f"{name}: {error}"]
    if family not in measured.rates_hz:
        return [f"{name}: {family} was not fitted; add it to the elements of the standard's scan"]
    rate, sigma = measured.rates_hz[family], measured.sigma_hz.get(family, math.nan)
    if not (math.isfinite(rate) and math.isfinite(sigma) and sigma >= 0.0):
        return [f"{name}: {family} has rate {rate:g} and sigma {sigma:g} per s; fit the standard again"]
    if rate <= _LEAST_SIGNIFICANCE * sigma or rate <= 0.0:
        return [
            f"{name}: {family} does not show in its scan ({rate:.3g} +- {sigma:.2g} counts/s); leave it out, measure "
            f"longer, or check that this is the standard's scan"
        ]
    return []


def _check_fit(name: str, measured: MeasuredStandard) -> list[str]:
    faults = []
    if measured.saturated_pixels > 0:
        faults.append(
            f"{name}: {measured.saturated_pixels} pixels are saturated, their counts are too low; leave them out or "
            f"measure with less flux"
        )
    if measured.at_bound:
        faults.append(
            f"{name}: its fit ended at a bound of {', '.join(measured.at_bound)}; correct the start or the bounds and "
            f"fit it again"
        )
    return faults


def _compare_conditions(
    name: str, standard: Conditions, sample: Conditions, allow: Collection[Difference]
) -> list[str]:
    faults = []
    own_kev, sample_kev = standard.incident_energy_kev, sample.incident_energy_kev
    if abs(own_kev - sample_kev) > ENERGY_TOLERANCE_KEV and "energy" not in allow:
        faults.append(
            f"{name}: measured at {own_kev:g} keV, the sample at {sample_kev:g} keV; measure it at the same energy, or "
            f"allow another energy"
        )
    if "detector" not in allow:
        differing = [
            f"{f.name} {getattr(standard.detector, f.name)} and {getattr(sample.detector, f.name)}"
            for f in fields(Detector)
            if getattr(standard.detector, f.name) != getattr(sample.detector, f.name)
        ]
        if standard.detectors != sample.detectors:
            differing.append(f"detectors {_list(standard.detectors)} and {_list(sample.detectors)}")
        if differing:
            faults.append(
                f"{name}: detectors of standard and sample differ: {'; '.join(differing)}; describe both alike, or "
                f"allow another detector"
            )
    return [*faults, *_compare_flux(name, standard, sample, allow)]


def _compare_flux(name: str, standard: Conditions, sample: Conditions, allow: Collection[Difference]) -> list[str]:
    pairs = (("standard", standard, "sample", sample), ("sample", sample, "standard", standard))
    faults = [
        f"{name}: the {lacking} has no I0, the {having} is normalised by {b.i0_name}; normalise both by the same scaler"
        for lacking, a, having, b in pairs
        if a.i0_name is None and b.i0_name is not None
    ]
    if standard.i0_name is None and sample.i0_name is None and "no_i0" not in allow:
        faults.append(f"{name}: neither standard nor sample has an I0; normalise both, or allow no I0 (constant flux)")
    if faults or standard.i0_name is None:
        return faults
    if standard.i0_name != sample.i0_name:
        return [
            f"{name}: normalised by {standard.i0_name}, the sample by {sample.i0_name}; normalise both by one scaler"
        ]
    if standard.i0_reference != sample.i0_reference:
        return [
            f"{name}: its rates refer to an I0 of {standard.i0_reference}, the sample's to {sample.i0_reference}; set "
            f"one reference for both"
        ]
    return []


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "(none named)"
