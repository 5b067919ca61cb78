"""Make the tables of the simulation (`hpcxrf/simulate/data/`) from sources that the fitted model does not use.

    python tests/samples/make_line_data.py FOLDER

* Elam, Ravel and Sieber, Radiation Physics and Chemistry 63 (2002) 121, as the package xraydb ships it (public domain):
  edges, energies, rates of K and L lines, yields, Coster-Kronig and jump ratios of K and L.
* EADL, D.E. Cullen et al., UCRL-50400 vol. 30 (1991), as the package fisx ships it ("redistribution of the data is
  permitted provided the previous credits are maintained"): rates, yields and Coster-Kronig transitions of M, and the
  vacancies that Auger transitions of deeper shells leave. Elam has four M lines of each element, and the wrong M2
  yields of Z 77 to 82. Elam does not count the electrons of an open shell either (silicon has its K-beta four times too
  strong): transitions from 3p to K below calcium and from 4p to L1 below krypton are EADL's, scaled to Elam's there.
* EPDL97, D.E. Cullen, J.H. Hubbell, L. Kissel, UCRL-50400 vol. 6 rev. 5 (1997), from the same package: photoelectric
  cross-sections by subshell, attenuation of air, window and chip.

Neither package is imported: their files are read.
"""

import sqlite3
import sys
from collections import defaultdict
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np

NUMBERS = range(11, 93)
SUBSHELLS = ("K", "L1", "L2", "L3", "M1", "M2", "M3", "M4", "M5")
RATIOS = (1.01, 1.2, 1.5, 2.0, 3.0, 5.0, 9.0, 20.0)
"""Energies over the edge at which the cross-section of a subshell is given."""
LEAST_KEV, LEAST_SHARE, LEAST_TRANSFER = 0.1, 2e-3, 1e-3
ABSORBERS = {4: "Be", 6: "C", 7: "N", 8: "O", 14: "Si", 18: "Ar"}
ATTENUATION_KEV = (0.09, 105.0)


# Inner shell, outer shells of few electrons, outer shells beside them, and the element from which Elam is right.
OPEN_SHELLS = (("K", ("M2", "M3"), ("L2", "L3"), 20), ("L1", ("N2", "N3"), ("M2", "M3"), 36))


class MissingPackageError(Exception):
    """A source is not installed."""


def folder_of(package):
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingPackageError(f"{package} is not installed; pip install 'hpcxrf[test]'")
    return Path(spec.origin).parent


def read_elam():
    """(levels, transitions, Coster-Kronig) by Z."""
    levels, lines, coster = defaultdict(dict), defaultdict(list), defaultdict(dict)
    with sqlite3.connect(folder_of("xraydb") / "xraydb.sqlite") as base:
        number = {symbol: z for z, symbol in base.execute("select atomic_number, element from elements")}
        for symbol, level, edge, omega, jump in base.execute(
            "select element, iupac_symbol, absorption_edge, fluorescence_yield, jump_ratio from xray_levels"
        ):
            levels[number[symbol]][level] = (edge / 1e3, omega, jump)
        for symbol, inner, outer, energy, rate in base.execute(
            "select element, initial_level, final_level, emission_energy, intensity from xray_transitions"
        ):
            lines[number[symbol]].append((inner, outer.replace(",", ""), energy / 1e3, rate))
        for symbol, start, end, probability in base.execute(
            "select element, initial_level, final_level, transition_probability from Coster_Kronig"
        ):
            coster[number[symbol]][start, end] = probability
    symbols = {z: symbol for symbol, z in number.items()}
    return symbols, levels, lines, coster


def read_livermore(name):
    """{subshell: {Z: {column: value}}} of a file of EADL97."""
    found, labels, subshell = defaultdict(dict), [], ""
    for line in (folder_of("fisx") / "fisx_data" / f"EADL97_{name}.dat").read_text().splitlines():
        if line.startswith("#S"):
            subshell = line.split()[2].split("-")[0]
        elif line.startswith("#L"):
            labels = line.split()[1:]
        elif line and not line.startswith("#"):
            values = line.split()
            found[subshell][int(float(values[0]))] = dict(zip(labels[1:], map(float, values[1:]), strict=True))
    return found


def read_cross_sections():
    """{Z: (energy_kev, total, {subshell: photoelectric})} of EPDL97, cm2/g."""
    found, rows, z = {}, [], 0

    def close():
        if rows:
            table = np.array(rows)
            found[z] = (table[:, 0], table[:, -1], dict(zip(SUBSHELLS, table[:, 5:14].T, strict=True)))

    with (folder_of("fisx") / "fisx_data" / "EPDL97_CrossSections.dat").open() as file:
        for line in file:
            if line.startswith("#S"):
                close()
                rows, z = [], int(line.split()[1])
            elif line.strip() and not line.startswith("#"):
                rows.append([float(v) for v in line.split()])
    close()
    return found


def sample_cross_section(energy, sigma):
    """Cross-section of a subshell at `RATIOS` times its edge; None where it has none."""
    known = sigma > 0
    if not known.any():
        return None
    at, values = np.log(energy[known]), np.log(sigma[known])
    return np.exp(np.interp(np.log(np.array(RATIOS)) + at[0], at, values))


def count_auger(rates, subshell, z, target):
    """Vacancies in a subshell that one vacancy leaves by transitions without a photon."""
    total = 0.0
    for name, probability in rates[subshell][z].items():
        if name != "TOTAL":
            left = name.split("-")[1]
            total += probability * [left[:2], left[2:]].count(target)
    return total


def count_photons(lines, subshell, target, omega):
    """Vacancies in a subshell that one vacancy leaves by transitions with a photon."""
    shares = [
        rate / (len(outer) - 1) for inner, outer, _, rate in lines if inner == subshell and goes_to(outer, target)
    ]
    return omega * sum(shares)


def goes_to(outer, target):
    """M45 goes to M4 and to M5."""
    return outer[0] == target[0] and target[1] in outer[1:]


def scale_open_shell(lines, rates, z, inner, weak, strong, closed):
    """Lines of an element of which those from an open shell have their strength from EADL; the subshell sums to 1."""

    def of_elam(number, shells):
        return sum(rate for start, outer, _, rate in lines[number] if start == inner and outer in shells)

    def of_livermore(number):
        row = rates[number]
        return sum(row.get(inner + o, 0.0) for o in weak) / sum(row.get(inner + o, 0.0) for o in strong)

    mine = [line for line in lines[z] if line[0] == inner]
    if not of_elam(z, weak) or not of_livermore(z):
        kept = [line for line in mine if line[1] not in weak]
    else:
        scale = of_elam(closed, weak) / of_elam(closed, strong) / of_livermore(closed)
        factor = scale * of_livermore(z) * of_elam(z, strong) / of_elam(z, weak)
        kept = [(*line[:3], line[3] * (factor if line[1] in weak else 1.0)) for line in mine]
    total = sum(rate for *_, rate in kept)
    others = [line for line in lines[z] if line[0] != inner]
    return [*((*line[:3], line[3] / total) for line in kept), *others]


class Sources:
    def __init__(self):
        self.symbols, self.levels, self.lines, self.coster = read_elam()
        self.m_rates, self.m_constants = read_livermore("MShellRadiativeRates"), read_livermore("MShellConstants")
        self.auger = read_livermore("KShellNonradiativeRates") | read_livermore("LShellNonradiativeRates")
        self.cross_sections = read_cross_sections()
        rates = read_livermore("KShellRadiativeRates") | read_livermore("LShellRadiativeRates")
        for inner, weak, strong, closed in OPEN_SHELLS:
            for z in range(NUMBERS[0], closed):
                self.lines[z] = scale_open_shell(self.lines, rates[inner], z, inner, weak, strong, closed)

    def omega(self, z, subshell):
        if subshell[0] == "M":
            return self.m_constants[subshell][z][f"omega{subshell}"]
        return self.levels[z][subshell][1]

    def edge(self, z, level):
        return self.levels[z].get(level, (0.0, 0.0, 0.0))[0]


def subshell_rows(s):
    yield ("z", "symbol", "subshell", "edge_kev", "yield", "jump_ratio", *(f"cm2_per_g_at_{r:g}" for r in RATIOS))
    for z in NUMBERS:
        energy, _, partial = s.cross_sections[z]
        for subshell in SUBSHELLS:
            sigma = sample_cross_section(energy, partial[subshell])
            if subshell in s.levels[z] and sigma is not None:
                edge, _, jump = s.levels[z][subshell]
                values = (f"{v:.4g}" for v in sigma)
                yield (z, s.symbols[z], subshell, f"{edge:.5g}", f"{s.omega(z, subshell):.4g}", f"{jump:.4g}", *values)


def line_rows(s):
    yield ("z", "line", "energy_kev", "share")
    for z in NUMBERS:
        elam = [line for line in s.lines[z] if line[0][0] != "M"]
        for inner, outer, energy, share in (*elam, *livermore_lines(s, z)):
            if energy >= LEAST_KEV and share >= LEAST_SHARE:
                yield z, f"{inner}{outer}", f"{energy:.5g}", f"{share:.4g}"


def livermore_lines(s, z):
    """M lines: rates of EADL, energies from the edges of Elam."""
    for subshell in SUBSHELLS[4:]:
        rates = s.m_rates[subshell].get(z, {})
        total = rates.get("TOTAL", 0.0)
        for name, rate in rates.items():
            if name != "TOTAL" and total > 0 and subshell in s.levels[z]:
                outer = name.removeprefix(subshell)
                yield subshell, outer, s.edge(z, subshell) - s.edge(z, outer), rate / total


def transfer_rows(s):
    yield ("z", "from", "to", "number")
    for z in NUMBERS:
        for row in transfers(s, z):
            if row[2] >= LEAST_TRANSFER:
                yield (z, *row[:2], f"{row[2]:.4g}")


def transfers(s, z):
    for subshell, targets in (("K", SUBSHELLS[1:]), *((i, SUBSHELLS[4:]) for i in SUBSHELLS[1:4])):
        for target in targets:
            if subshell in s.levels[z]:
                photons = count_photons(s.lines[z], subshell, target, s.omega(z, subshell))
                yield subshell, target, photons + count_auger(s.auger, subshell, z, target)
    for first, second in (("L1", "L2"), ("L1", "L3"), ("L2", "L3")):
        yield first, second, s.coster[z].get((first, second), 0.0)
    for i in range(1, 5):
        for j in range(i + 1, 6):
            yield f"M{i}", f"M{j}", s.m_constants[f"M{i}"][z][f"f{i}{j}"]


def attenuation_rows(s):
    yield ("z", "energy_kev", "cm2_per_g")
    low, high = ATTENUATION_KEV
    for z in ABSORBERS:
        energy, total, _ = s.cross_sections[z]
        inside = (energy >= low) & (energy <= high)
        pairs = list(zip(energy[inside].tolist(), total[inside].tolist(), strict=True))
        # Both sides of an edge have the same energy in the source.
        twice = {a for (a, _), (b, _) in pairwise(pairs) if a == b}
        for i, (e, mu) in enumerate(pairs):
            above = e in twice and pairs[i - 1][0] == e
            yield z, f"{e + 1e-6 * above:.9g}", f"{mu:.5g}"


TABLES = {
    "subshells.csv": subshell_rows,
    "lines.csv": line_rows,
    "transfers.csv": transfer_rows,
    "attenuation.csv": attenuation_rows,
}


def make_tables():
    """{file name: text}."""
    sources = Sources()
    return {name: "".join(",".join(map(str, row)) + "\n" for row in rows(sources)) for name, rows in TABLES.items()}


if __name__ == "__main__":
    target = Path(sys.argv[1])
    for name, text in make_tables().items():
        (target / name).write_text(text)
