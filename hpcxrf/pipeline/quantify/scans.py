"""A standard as it was measured: rates of each detector at the reference I0, kept as JSON in the run directory."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from hpcxrf.errors import OutputError
from hpcxrf.physics.detector import Detector
from hpcxrf.quantify.checks import Conditions, MeasuredStandard
from hpcxrf.quantify.standards import CertifiedDensity, CertifiedStandard

VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyRate:
    """Rate of one family of one detector."""

    rate_hz: float
    """Counts per second of live time at the reference I0."""
    counting_hz: float
    """Standard uncertainty by counting."""
    theta_hz: float
    """Standard uncertainty by peak shapes and energy axis."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorScan:
    """A standard as one detector saw it."""

    rates: Mapping[str, FamilyRate]
    """Rates by family; empty where the detector's fit has no solution."""
    detector: Detector
    at_bound: tuple[str, ...]
    """Parameters that ended at a bound."""
    saturated_pixels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StandardScan:
    """A fitted and normalised standard."""

    certified: CertifiedStandard
    source: str
    """Name of its scan's file."""
    incident_energy_kev: float
    detectors: Mapping[str, DetectorScan]
    """By number of the detector, counted from 0."""
    i0_relative: float
    """Relative standard uncertainty of its mean I0 by counting."""
    i0_name: str | None
    i0_reference: float | None
    notes: tuple[str, ...] = ()

    def sum_rates(self, names: Sequence[str]) -> dict[str, FamilyRate]:
        """Add the rates of some detectors, of families that all of them have.

        Counting noise of detectors is independent; their errors of theta are taken as common, since lines and peak
        shapes are wrong in the same way in all of them.
        """
        parts = [self.detectors[name].rates for name in names]
        families = [f for f in parts[0] if all(f in one for one in parts)] if parts else []
        return {
            family: FamilyRate(
                rate_hz=sum(one[family].rate_hz for one in parts),
                counting_hz=sum(one[family].counting_hz ** 2 for one in parts) ** 0.5,
                theta_hz=sum(one[family].theta_hz for one in parts),
            )
            for family in families
        }

    def measured(self, names: Sequence[str]) -> MeasuredStandard:
        """The standard as some detectors saw it together, to be checked."""
        rates = self.sum_rates(names)
        bounds = [f"{p} (detector {n})" for n in names for p in self.detectors[n].at_bound]
        return MeasuredStandard(
            rates_hz={family: one.rate_hz for family, one in rates.items()},
            sigma_hz={family: one.counting_hz for family, one in rates.items()},
            theta_sigma_hz={family: one.theta_hz for family, one in rates.items()},
            i0=self.i0_relative,
            saturated_pixels=sum(self.detectors[n].saturated_pixels for n in names),
            at_bound=tuple(bounds),
        )

    def conditions(self, names: Sequence[str]) -> Conditions:
        """How it was measured and fitted."""
        return Conditions(
            incident_energy_kev=self.incident_energy_kev,
            detector=self.detectors[names[0]].detector,
            detectors=tuple(names),
            i0_name=self.i0_name,
            i0_reference=self.i0_reference,
        )


def pack_scan(scan: StandardScan) -> dict[str, Any]:
    """A measured standard as JSON values."""
    certified = scan.certified
    return {
        "version": VERSION,
        "certified": {
            "name": certified.name,
            "file": certified.file,
            "densities": {symbol: asdict(one) for symbol, one in certified.densities.items()},
        },
        "source": scan.source,
        "incident_energy_kev": scan.incident_energy_kev,
        "detectors": {name: asdict(one) for name, one in scan.detectors.items()},
        "i0_relative": scan.i0_relative,
        "i0_name": scan.i0_name,
        "i0_reference": scan.i0_reference,
        "notes": list(scan.notes),
    }


def unpack_scan(content: Mapping[str, Any], where: object) -> StandardScan:
    """Read what `pack_scan` made.

    Raises:
        OutputError: it is not that.
    """
    if content.get("version") != VERSION:
        raise OutputError(
            f"{where}: a measured standard of version {content.get('version')!r}, must be {VERSION}; remove it, and "
            "resume the run"
        )
    try:
        certified = content["certified"]
        return StandardScan(
            certified=CertifiedStandard(
                name=certified["name"],
                file=certified["file"],
                densities={symbol: CertifiedDensity(**one) for symbol, one in certified["densities"].items()},
            ),
            source=content["source"],
            incident_energy_kev=content["incident_energy_kev"],
            detectors={name: _unpack_detector(one) for name, one in content["detectors"].items()},
            i0_relative=content["i0_relative"],
            i0_name=content["i0_name"],
            i0_reference=content["i0_reference"],
            notes=tuple(content["notes"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OutputError(f"{where}: not a measured standard ({error}); remove it, and resume the run") from error


def _unpack_detector(content: Mapping[str, Any]) -> DetectorScan:
    return DetectorScan(
        rates={family: FamilyRate(**one) for family, one in content["rates"].items()},
        detector=Detector(**content["detector"]),
        at_bound=tuple(content["at_bound"]),
        saturated_pixels=content["saturated_pixels"],
    )
