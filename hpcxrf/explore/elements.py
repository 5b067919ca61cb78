"""The periodic table: what the beam excites, what is listed, and the evidence of a fit for every family."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final

import xraylib

from hpcxrf.explore.requests import RunFacts
from hpcxrf.physics.components import (
    HIGHEST_INCIDENT_KEV,
    MAX_Z,
    MIN_Z,
    find_emitted_lines,
    lowest_edge_kev,
    unexcited_reason,
)

Json = dict[str, Any]

_SHELLS: Final = ("K", "L", "M")
_STRONG: Final = 0.1
"""Share of a family's strongest line from which another line of it is strong."""
_FWHM_PER_SIGMA: Final = 2.3548
# Row and first column of each stretch of neighbours; the lanthanides and actinides have rows of their own, 8 and 9.
_STRETCHES: Final = (
    (1, 1, "H Hydrogen"),
    (1, 18, "He Helium"),
    (2, 1, "Li Lithium, Be Beryllium"),
    (2, 13, "B Boron, C Carbon, N Nitrogen, O Oxygen, F Fluorine, Ne Neon"),
    (3, 1, "Na Sodium, Mg Magnesium"),
    (3, 13, "Al Aluminium, Si Silicon, P Phosphorus, S Sulphur, Cl Chlorine, Ar Argon"),
    (
        4,
        1,
        "K Potassium, Ca Calcium, Sc Scandium, Ti Titanium, V Vanadium, Cr Chromium, Mn Manganese, Fe Iron, Co Cobalt, "
        "Ni Nickel, Cu Copper, Zn Zinc, Ga Gallium, Ge Germanium, As Arsenic, Se Selenium, Br Bromine, Kr Krypton",
    ),
    (
        5,
        1,
        "Rb Rubidium, Sr Strontium, Y Yttrium, Zr Zirconium, Nb Niobium, Mo Molybdenum, Tc Technetium, Ru Ruthenium, "
        "Rh Rhodium, Pd Palladium, Ag Silver, Cd Cadmium, In Indium, Sn Tin, Sb Antimony, Te Tellurium, I Iodine, "
        "Xe Xenon",
    ),
    (6, 1, "Cs Caesium, Ba Barium"),
    (
        8,
        3,
        "La Lanthanum, Ce Cerium, Pr Praseodymium, Nd Neodymium, Pm Promethium, Sm Samarium, Eu Europium, "
        "Gd Gadolinium, Tb Terbium, Dy Dysprosium, Ho Holmium, Er Erbium, Tm Thulium, Yb Ytterbium, Lu Lutetium",
    ),
    (
        6,
        4,
        "Hf Hafnium, Ta Tantalum, W Tungsten, Re Rhenium, Os Osmium, Ir Iridium, Pt Platinum, Au Gold, Hg Mercury, "
        "Tl Thallium, Pb Lead, Bi Bismuth, Po Polonium, At Astatine, Rn Radon",
    ),
    (7, 1, "Fr Francium, Ra Radium"),
    (9, 3, "Ac Actinium, Th Thorium, Pa Protactinium, U Uranium"),
)


@cache
def list_places() -> tuple[tuple[str, str, int, int], ...]:
    """Symbol, name, row and column of the elements up to uranium, by atomic number.

    Rows are 1 to 7 from the top, 8 and 9 for lanthanides and actinides below; columns 1 to 18.
    """
    found = []
    for row, column, names in _STRETCHES:
        for place, entry in enumerate(names.split(", ")):
            symbol, _, name = entry.partition(" ")
            found.append((symbol, name, row, column + place))
    return tuple(sorted(found, key=lambda one: xraylib.SymbolToAtomicNumber(one[0])))


def name_family(symbol: str, shell: str) -> str:
    """Name of a family in a list of elements: `Fe`, `Pt_L`, `Au_M`."""
    return symbol if shell == "K" else f"{symbol}_{shell}"


def build_elements(fit: Mapping[str, Any], facts: RunFacts) -> list[Json]:
    """The elements up to uranium with their families, for a fit.

    Args:
        fit: a fit as the page has it: its elements, amplitudes, suggestions, overlaps and theta.
        facts: what the run has.

    Returns:
        By element `symbol`, `z`, `name`, `row`, `column`, `families`; by family `name`, `excited`, `reason` (why it is
        not), `edge_kev`, `strongest_kev`, `listed`, `evidence` (None: nothing is known).
    """
    evidence = read_evidence(fit, facts)
    table = []
    for symbol, name, row, column in list_places():
        z = xraylib.SymbolToAtomicNumber(symbol)
        shells = _SHELLS if MIN_Z <= z <= MAX_Z else ()
        known = [shell for shell in shells if find_emitted_lines(z, shell, HIGHEST_INCIDENT_KEV)]
        families = [_describe_family(symbol, z, shell, fit, facts, evidence) for shell in known]
        table.append({"symbol": symbol, "z": z, "name": name, "row": row, "column": column, "families": families})
    return table


def _describe_family(
    symbol: str, z: int, shell: str, fit: Mapping[str, Any], facts: RunFacts, evidence: Mapping[str, Json]
) -> Json:
    name = name_family(symbol, shell)
    reason = unexcited_reason(symbol, shell, facts.incident_energy_kev, facts.reach_kev)
    at_kev = facts.incident_energy_kev if reason is None else HIGHEST_INCIDENT_KEV
    lines = _list_strong_lines(z, shell, at_kev) or _list_strong_lines(z, shell, HIGHEST_INCIDENT_KEV)
    return {
        "name": name,
        "excited": reason is None,
        "reason": reason,
        "edge_kev": round(lowest_edge_kev(symbol, shell), 4),
        "strongest_kev": round(lines[0], 4),
        "listed": name in fit["elements"],
        "evidence": evidence.get(name),
    }


@cache
def _list_strong_lines(z: int, shell: str, incident_energy_kev: float) -> tuple[float, ...]:
    """Energies (keV) of the strong lines of a family, the strongest first."""
    lines = find_emitted_lines(z, shell, incident_energy_kev)
    most = max((strength for _, _, strength in lines), default=0.0)
    strong = [(strength, energy) for _, energy, strength in lines if strength >= _STRONG * most]
    return tuple(energy for _, energy in sorted(strong, reverse=True))


def read_evidence(fit: Mapping[str, Any], facts: RunFacts) -> dict[str, Json]:
    """Evidence by family: z, counts, sigma, decision limit (None: not known), and what overlaps it.

    Listed families have that of their amplitudes, others that of the suggestions.
    """
    listed = [name for name in fit["elements"] if _family_of(name) is not None]
    found = {}
    for row in fit["amplitudes"]:
        if row["name"] in listed:
            z = row["amplitude"] / row["sigma"] if row["amplitude"] is not None and row["sigma"] else None
            found[row["name"]] = {
                "z": z,
                "counts": row["amplitude"],
                "sigma": row["sigma"],
                "limit": row["limit"],
                "found": row["found"],
            }
    for row in fit["suggested"]:
        if row["name"] not in found:
            found[row["name"]] = {**{key: row[key] for key in ("z", "counts", "sigma")}, "limit": None, "found": True}
    return {name: {**one, "overlaps": list_overlaps(name, listed, fit, facts)} for name, one in found.items()}


def list_overlaps(name: str, listed: Iterable[str], fit: Mapping[str, Any], facts: RunFacts) -> list[str]:
    """Name the listed families that a family is hard to tell from.

    Those of which a strong line lies within one width (FWHM) of one of its own, and those whose amplitude is
    correlated with its amplitude in the fit.
    """
    correlated = list(fit["overlaps"].get(name, ()))
    family = _family_of(name)
    if family is None:
        return correlated
    own = _list_strong_lines(*family, facts.incident_energy_kev)
    near = []
    for other in listed:
        known = _family_of(other)
        if other == name or known is None:
            continue
        theirs = _list_strong_lines(*known, facts.incident_energy_kev)
        if any(abs(a - b) <= find_fwhm_kev(a, fit, facts) for a in own for b in theirs):
            near.append(other)
    return list(dict.fromkeys([*near, *correlated]))


def find_fwhm_kev(energy_kev: float, fit: Mapping[str, Any], facts: RunFacts) -> float:
    """Width of a line, FWHM in keV, by the theta of a fit.

    `sigma^2 = (fwhm_offset / 2.3548)^2 + k E fwhm_fanoprime`, k of the constants of the run.
    """
    theta = {row["name"]: row["value"] for row in fit["parameters"]}
    square = (theta["fwhm_offset"] / _FWHM_PER_SIGMA) ** 2 + facts.width_factor * energy_kev * theta["fwhm_fanoprime"]
    return float(_FWHM_PER_SIGMA * max(square, 0.0) ** 0.5)


def _family_of(name: str) -> tuple[int, str] | None:
    """Atomic number and shell of a family; None for pile-up and scatter."""
    symbol, _, shell = name.partition("_")
    if shell not in {"", "L", "M"}:
        return None
    try:
        return int(xraylib.SymbolToAtomicNumber(symbol)), shell or "K"
    except ValueError:
        return None
