"""Certified areal densities in one unit, from both kinds of tables, and the unit trap of the AXO lists."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import xraylib

from hpcxrf.config.standards import DensityUnit, ElementRow, StandardRow
from hpcxrf.errors import ConfigError
from hpcxrf.formats.standard import Standard

DEFAULT_RELATIVE_ERROR: Final = 0.10
"""Relative error of a standard whose certificate states none, unless another is chosen."""
_PER_UNIT: Final[Mapping[DensityUnit, float]] = MappingProxyType({"ug/cm2": 1.0, "ng/mm2": 0.1})
_AXO_UG_CM2: Final[Mapping[str, float]] = MappingProxyType(
    {"Pb": 0.69, "La": 0.95, "Pd": 0.18, "Mo": 0.09, "Cu": 0.26, "Fe": 0.43, "Ca": 1.90}
)
"""Usual areal densities of AXO's films of the RF series: means of four serial numbers of the shipped table."""
_AXO_WORD: Final = "AXO"
_OTHER_UNIT: Final = (3.2, 320.0)
"""Range of a list's mean ratio to the usual densities within which it is taken for one in another unit: 10 in ng/mm2,
100 in one list that is in use."""
_SAME_SPREAD: Final = 0.35
"""Largest scatter of the logarithm of these ratios by which a list without the word AXO is known as one; that of the
four serial numbers is .1 to .3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifiedDensity:
    """Areal density of one element of a standard."""

    areal_density_ug_cm2: float
    """Above 0."""
    relative_error: float
    """Standard uncertainty, relative."""
    is_error_assumed: bool
    """True where the certificate states no error and the chosen one is taken."""
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifiedStandard:
    """A thin-film standard with its densities in ug/cm2."""

    name: str
    densities: Mapping[str, CertifiedDensity]
    """Densities by element symbol."""
    file: str | None = None
    """Name of its scan."""


def certify_rows(
    rows: Sequence[StandardRow],
    *,
    default_relative_error: float = DEFAULT_RELATIVE_ERROR,
    unit: DensityUnit | None = None,
) -> tuple[CertifiedStandard, ...]:
    """Bring standards of a table of our own (`hpcxrf.config.standards`) into ug/cm2.

    Args:
        rows: standards as read.
        default_relative_error: for elements without a stated error, above 0 and below 1.
        unit: unit of those that state none.

    Raises:
        ConfigError: unknown elements, an error out of range, or densities whose unit has to be said; all at once.
    """
    faults = _check_default(default_relative_error)
    certified = []
    for row in rows:
        chosen = row.unit or unit
        parsed = {s: r if isinstance(r, ElementRow) else ElementRow(areal_density=r) for s, r in row.elements.items()}
        plain = {symbol: r.areal_density for symbol, r in parsed.items()}
        faults += [f"{row.name}: {fault}" for fault in _check_densities(row.name, plain, chosen)]
        scale = _PER_UNIT[chosen or "ug/cm2"]
        densities = {
            symbol: CertifiedDensity(
                areal_density_ug_cm2=r.areal_density * scale,
                relative_error=r.relative_error or row.relative_error or default_relative_error,
                is_error_assumed=(r.relative_error or row.relative_error) is None,
                source=r.source or row.source,
            )
            for symbol, r in parsed.items()
        }
        certified.append(CertifiedStandard(name=row.name, densities=MappingProxyType(densities), file=row.file))
    if faults:
        raise ConfigError("\n".join(faults))
    return tuple(certified)


def certify_maps_standards(
    standards: Sequence[Standard],
    *,
    source: str,
    default_relative_error: float = DEFAULT_RELATIVE_ERROR,
    unit: DensityUnit | None = None,
) -> tuple[CertifiedStandard, ...]:
    """Bring standards of a `maps_standardinfo.txt` (`hpcxrf.formats.standard`) into ug/cm2; such a file has no errors.

    Args:
        standards: standards as read.
        source: name of the file.
        default_relative_error: for all elements, above 0 and below 1.
        unit: None: ug/cm2, as the file says; refused where the numbers are those of a list in ng/mm2.

    Raises:
        ConfigError: as `certify_rows`.
    """
    rows = [
        StandardRow(name=s.filename, source=source, elements=dict(s.areal_density_ug_cm2), unit=unit, file=s.filename)
        for s in standards
    ]
    return certify_rows(rows, default_relative_error=default_relative_error)


def _check_default(relative_error: float) -> list[str]:
    if 0.0 < relative_error < 1.0:
        return []
    return [f"error of standards without a stated one is {relative_error:g}; must lie above 0 and below 1"]


def _check_densities(name: str, densities: Mapping[str, float], unit: DensityUnit | None) -> list[str]:
    faults = [f"{s}: areal density is {v:g}, must be above 0" for s, v in densities.items() if not 0.0 < v < math.inf]
    faults += [f"{symbol}: no such element" for symbol in densities if not _is_element(symbol)]
    ratio = None if faults or unit is not None else find_unit_ratio(name, densities)
    if ratio is not None:
        shown = ", ".join(f"{symbol} {value:g}" for symbol, value in densities.items())
        faults.append(
            f"{shown}: {ratio:.2g} times the usual densities of an AXO film in ug/cm2, as in lists in ng/mm2 (1 ng/mm2 "
            f"is 0.1 ug/cm2); say which with unit: ng/mm2 or unit: ug/cm2"
        )
    return faults


def find_unit_ratio(name: str, densities: Mapping[str, float]) -> float | None:
    """Find a list of areal densities of an AXO film in another unit than ug/cm2.

    A list is one of an AXO film where the name says so, or where the densities of three elements or more stand in the
    proportions of such a film.

    Args:
        name: name of the standard or of its scan.
        densities: areal densities by element, in the unit of the list.

    Returns:
        Mean ratio to the usual densities in ug/cm2 where it lies from 3.2 to 320; None otherwise.
    """
    ratios = [math.log(value / _AXO_UG_CM2[symbol]) for symbol, value in densities.items() if symbol in _AXO_UG_CM2]
    if not ratios:
        return None
    mean = sum(ratios) / len(ratios)
    spread = math.sqrt(sum((r - mean) ** 2 for r in ratios) / max(len(ratios) - 1, 1))
    all_known = len(ratios) == len(densities) >= 3
    is_axo = _AXO_WORD in name.upper() or (all_known and spread < _SAME_SPREAD)
    return math.exp(mean) if is_axo and _OTHER_UNIT[0] < math.exp(mean) < _OTHER_UNIT[1] else None


def _is_element(symbol: str) -> bool:
    try:
        return bool(xraylib.SymbolToAtomicNumber(symbol))
    except ValueError:
        return False
