"""Lines, yields and attenuation of the simulation, from tables of its own.

The model that is fitted has its lines from xraylib; a simulation with the same ones could not show what is wrong with
them. `data/` holds what `tests/samples/make_line_data.py` takes from other sources:

* Elam, Ravel and Sieber 2002 (package xraydb): edges, energies of all lines, rates of K and L lines, yields,
  Coster-Kronig and jump ratios of K and L;
* EADL, UCRL-50400 vol. 30 (1991): rates, yields and Coster-Kronig transitions of M, Auger transitions of K and L;
* EPDL97, UCRL-50400 vol. 6 rev. 5 (1997): photoelectric cross-sections by subshell, attenuation.

They hold Z 11 to 92. K and L lines are those that Elam has. Other tables have these above 1 % of their subshell, and a
simulation lacks them: L2-N4 and L3-N4,5 of Zr to Ru (up to 5 %), L2-M4, L3-M4 and L3-M5 of Sc, L2-N1 and L3-N1 of K to
V, L2-O4 of Ir and Pt, L3-O4,5 of Pt, L1-L3 of Ti to Se and from Pm on (up to 6 %), L1-M4, L1-M5, L1-O2, L1-O3 (up to
2 %), K-O of Th to U. Lines below 100 eV and below 2e-3 of their subshell are left out.
"""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

LIGHTEST: Final = 11
"""Atomic number of the first element of the tables."""
SUBSHELLS: Final = ("K", "L1", "L2", "L3", "M1", "M2", "M3", "M4", "M5")
"""From the deepest: vacancies move to the right."""
AIR_MASS_FRACTIONS: Final[Mapping[int, float]] = MappingProxyType({6: 0.000124, 7: 0.755268, 8: 0.231781, 18: 0.012827})
"""Dry air near sea level, by atomic number (ICRU 37)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subshell:
    """What is known of one subshell of an element."""

    edge_kev: float
    fluorescence_yield: float
    jump_ratio: float
    log_ratio: NDArray[np.float64]
    """(point,) logarithm of the energy over the edge."""
    log_cross_section: NDArray[np.float64]
    """(point,) logarithm of the photoelectric cross-section (cm2/g) there."""

    def cross_section(self, energy_kev: float) -> float:
        """Photoelectric cross-section, cm2/g: a power law between two points and beyond the last; 0 below the edge."""
        if energy_kev <= self.edge_kev:
            return 0.0
        at, x, y = math.log(energy_kev / self.edge_kev), self.log_ratio, self.log_cross_section
        if at > x[-1]:
            return float(np.exp(y[-1] + (at - x[-1]) * (y[-1] - y[-2]) / (x[-1] - x[-2])))
        return float(np.exp(np.interp(at, x, y)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """An element of the tables."""

    number: int
    subshells: Mapping[str, Subshell]
    lines: Mapping[str, tuple[tuple[str, float, float], ...]]
    """(outer shell, energy in keV, share of the subshell's photons) by subshell."""
    transfers: Mapping[tuple[str, str], float]
    """Vacancies in the second subshell that one in the first leaves, on average."""


def find_element(symbol: str) -> Element | None:
    """An element of the tables by its symbol; None where they do not have it."""
    return _elements().get(symbol)


def list_symbols() -> tuple[str, ...]:
    """Symbols of the tables by atomic number."""
    return tuple(_elements())


def edge_kev(symbol: str, subshell: str) -> float:
    """Edge of a subshell, keV; infinite where the tables have none."""
    found = _elements()[symbol].subshells.get(subshell)
    return math.inf if found is None else found.edge_kev


def line_kev(symbol: str, subshell: str) -> float:
    """Energy of the strongest line of a subshell, keV; 0 where the tables have none."""
    lines = _elements()[symbol].lines.get(subshell, ())
    return max(lines, key=lambda line: line[2])[1] if lines else 0.0


def emit(element: Element, shell: str, incident_energy_kev: float) -> list[tuple[float, float]]:
    """Lines (energy in keV, cross-section in cm2/g) of the subshells of a shell that the incident energy ionises.

    Vacancies are those of the photons and what deeper ones leave by Auger, radiative and Coster-Kronig transitions.

    Args:
        element: of `find_element`.
        shell: "K", "L" or "M".
        incident_energy_kev: keV.
    """
    vacancies = count_vacancies(element, incident_energy_kev)
    return [
        (energy, vacancies[name] * element.subshells[name].fluorescence_yield * share)
        for name, lines in element.lines.items()
        if name[0] == shell and vacancies.get(name, 0.0) > 0.0
        for _, energy, share in lines
    ]


def count_vacancies(element: Element, incident_energy_kev: float) -> dict[str, float]:
    """Vacancies of every subshell that the incident energy ionises, cm2/g."""
    found: dict[str, float] = {}
    for name in SUBSHELLS:
        subshell = element.subshells.get(name)
        direct = 0.0 if subshell is None else subshell.cross_section(incident_energy_kev)
        if direct > 0.0:
            moved = (
                number * found.get(start, 0.0) for (start, end), number in element.transfers.items() if end == name
            )
            found[name] = direct + sum(moved)
    return found


def attenuation(number: int, energy_kev: float) -> float:
    """Total attenuation coefficient of Be, C, N, O, Si or Ar, cm2/g, from 0.1 to 100 keV."""
    log_energy, log_mu = _attenuation()[number]
    return float(np.exp(np.interp(math.log(energy_kev), log_energy, log_mu)))


def air_attenuation(energy_kev: float) -> float:
    """Total attenuation coefficient of dry air, cm2/g, from 0.1 to 100 keV."""
    return sum(share * attenuation(number, energy_kev) for number, share in AIR_MASS_FRACTIONS.items())


def _read(name: str) -> list[dict[str, str]]:
    text = files("hpcxrf.simulate").joinpath("data", name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


@cache
def _elements() -> Mapping[str, Element]:
    symbols: dict[int, str] = {}
    subshells: dict[int, dict[str, Subshell]] = {}
    lines: dict[int, dict[str, list[tuple[str, float, float]]]] = {}
    transfers: dict[int, dict[tuple[str, str], float]] = {}
    for row in _read("subshells.csv"):
        z = int(row["z"])
        symbols[z] = row["symbol"]
        subshells.setdefault(z, {})[row["subshell"]] = _read_subshell(row)
    for row in _read("lines.csv"):
        inner = "K" if row["line"][0] == "K" else row["line"][:2]
        line = (row["line"].removeprefix(inner), float(row["energy_kev"]), float(row["share"]))
        lines.setdefault(int(row["z"]), {}).setdefault(inner, []).append(line)
    for row in _read("transfers.csv"):
        transfers.setdefault(int(row["z"]), {})[row["from"], row["to"]] = float(row["number"])
    return {
        symbol: Element(
            number=z,
            subshells=subshells[z],
            lines={inner: tuple(own) for inner, own in lines[z].items()},
            transfers=transfers.get(z, {}),
        )
        for z, symbol in symbols.items()
    }


def _read_subshell(row: Mapping[str, str]) -> Subshell:
    points = [(float(k.rpartition("_")[2]), float(v)) for k, v in row.items() if k.startswith("cm2_per_g_at_")]
    ratio, sigma = np.log(np.array(points)).T
    return Subshell(
        edge_kev=float(row["edge_kev"]),
        fluorescence_yield=float(row["yield"]),
        jump_ratio=float(row["jump_ratio"]),
        log_ratio=ratio,
        log_cross_section=sigma,
    )


@cache
def _attenuation() -> Mapping[int, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    rows: dict[int, list[tuple[float, float]]] = {}
    for row in _read("attenuation.csv"):
        rows.setdefault(int(row["z"]), []).append((float(row["energy_kev"]), float(row["cm2_per_g"])))
    found = {z: np.log(np.array(pairs)) for z, pairs in rows.items()}
    return {z: (table[:, 0], table[:, 1]) for z, table in found.items()}
