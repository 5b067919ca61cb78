"""M lines where the library's yields or rates are wrong: what is taken in their place, and from where.

The library (xraylib) takes M fluorescence yields from several calculations and joins them by straight lines in Z.
`docs/physics-line-data.md` compares every subshell with two other tables.

* M2 of Z 77 to 82: the library's line runs through a node of .0423 at gold, ten times what its neighbours and every
  other table have; here log-linear in Z between its sound nodes osmium (.00325) and bismuth (.00652).
* M4 and M5 from ytterbium on: the library's ratio of the two jumps (W .62, Os .59, Au 1.03, U 1.25). Here the
  relativistic calculation of Chen, Crasemann and Mark, Phys. Rev. A 21 (1980) 449, as tabulated in fisx 1.3.2.
* M4 and M5 of Z 48 to 69: the 4f shell is empty or open, and the library has no transition from it (Z 57 to 63: no
  M-alpha, no M-beta), that of a full one (Z 64 to 69), or no M5 yield at all (Z 48 to 57). Here EADL, the Livermore
  Evaluated Atomic Data Library (D.E. Cullen et al., UCRL-50400 vol. 30, 1991), which counts the 4f electrons; below
  gadolinium it has the yields too. Those families are an estimate: no second calculation exists, and the 4f shell of a
  solid is not that of a free atom.
* Lines from one M subshell to another (M2-M4 is 15 % of M2): the library has their rates, but no cross-sections.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Final

import xraylib

Line = tuple[str, float, float]
"""Library name ("M5N7"), energy in keV, cross-section in cm2/g."""

ESTIMATED: Final = range(48, 64)
"""Atomic numbers of which the lines of M4 and M5 are an estimate."""
_FROM_EADL: Final = range(48, 70)
_WITHIN_M: Final = tuple(f"M{i}M{j}" for i in range(1, 5) for j in range(i + 1, 6))


def _by_z(first: int, *values: float) -> Mapping[int, float]:
    return MappingProxyType(dict(enumerate(values, first)))


M2_YIELDS: Final = _by_z(77, 0.0036, 0.0040, 0.0044, 0.0048, 0.0053, 0.0059)
_FREE_M4: Final = _by_z(
    48,
    *(0.000343, 0.000359, 0.000381, 0.000409, 0.000442, 0.00048, 0.000525, 0.000576),
    *(0.000634, 0.000679, 0.001547, 0.002085, 0.002629, 0.00322, 0.003859, 0.004503),
)
_FREE_M5: Final = _by_z(
    48,
    *(0.000299, 0.000311, 0.000329, 0.000351, 0.000378, 0.00041, 0.000445, 0.000483),
    *(0.000523, 0.000562, 0.001548, 0.002241, 0.003049, 0.003955, 0.004956, 0.006043),
)
_CHEN_M4: Final = _by_z(
    70,
    *(0.0094, 0.01205, 0.0147, 0.01735, 0.0200, 0.02133, 0.02267, 0.0240, 0.02533, 0.02667, 0.0280, 0.02967),
    *(0.03133, 0.0330, 0.0350, 0.0370, 0.0390, 0.0410, 0.0430, 0.04475, 0.0465, 0.04825, 0.0500),
)
_CHEN_M5: Final = _by_z(
    70,
    *(0.0150, 0.0160, 0.0170, 0.0180, 0.0190, 0.02033, 0.02167, 0.0230, 0.02433, 0.02567, 0.0270, 0.02833),
    *(0.02967, 0.0310, 0.0324, 0.0338, 0.0352, 0.0366, 0.0380, 0.03975, 0.0415, 0.04325, 0.0450),
)
M_YIELDS: Final[Mapping[str, Mapping[int, float]]] = MappingProxyType(
    {
        "M2": M2_YIELDS,
        "M4": MappingProxyType({**_FREE_M4, **_CHEN_M4}),
        "M5": MappingProxyType({**_FREE_M5, **_CHEN_M5}),
    }
)
"""Fluorescence yields by subshell and Z that stand in the place of the library's."""

_M4_OUTER: Final = ("N2", "N3", "N6", "O2", "O3")
_M5_OUTER: Final = ("N3", "N6", "N7", "O3")
# Shares of the radiative transitions to M4 and to M5, each row of either summing to 1.
_EADL_RATES: Final = MappingProxyType(
    {
        48: ((0.8566, 0.1434, 0.0000, 0.0000, 0.0000), (1.0000, 0.0000, 0.0000, 0.0000)),
        49: ((0.8507, 0.1412, 0.0000, 0.0070, 0.0011), (0.9925, 0.0000, 0.0000, 0.0075)),
        50: ((0.8404, 0.1382, 0.0000, 0.0185, 0.0029), (0.9797, 0.0000, 0.0000, 0.0203)),
        51: ((0.8274, 0.1347, 0.0000, 0.0328, 0.0051), (0.9637, 0.0000, 0.0000, 0.0363)),
        52: ((0.8125, 0.1310, 0.0000, 0.0490, 0.0075), (0.9456, 0.0000, 0.0000, 0.0544)),
        53: ((0.7964, 0.1271, 0.0000, 0.0663, 0.0102), (0.9261, 0.0000, 0.0000, 0.0739)),
        54: ((0.7795, 0.1232, 0.0000, 0.0845, 0.0128), (0.9059, 0.0000, 0.0000, 0.0941)),
        55: ((0.7683, 0.1201, 0.0000, 0.0968, 0.0148), (0.8905, 0.0000, 0.0000, 0.1095)),
        56: ((0.7597, 0.1175, 0.0000, 0.1066, 0.0162), (0.8787, 0.0000, 0.0000, 0.1213)),
        57: ((0.7543, 0.1154, 0.0000, 0.1132, 0.0171), (0.8713, 0.0000, 0.0000, 0.1287)),
        58: ((0.7096, 0.1070, 0.0551, 0.1117, 0.0166), (0.8127, 0.0029, 0.0569, 0.1275)),
        59: ((0.6919, 0.1024, 0.0766, 0.1125, 0.0166), (0.7852, 0.0041, 0.0804, 0.1303)),
        60: ((0.6686, 0.0966, 0.1071, 0.1115, 0.0162), (0.7488, 0.0059, 0.1143, 0.1310)),
        61: ((0.6358, 0.0900, 0.1502, 0.1085, 0.0155), (0.6979, 0.0084, 0.1640, 0.1297)),
        62: ((0.5948, 0.0818, 0.2051, 0.1038, 0.0145), (0.6389, 0.0116, 0.2245, 0.1250)),
        63: ((0.5429, 0.0729, 0.2744, 0.0965, 0.0133), (0.5654, 0.0156, 0.3019, 0.1171)),
        64: ((0.4863, 0.0632, 0.3506, 0.0881, 0.0118), (0.4890, 0.0199, 0.3859, 0.1052)),
        65: ((0.4228, 0.0536, 0.4351, 0.0783, 0.0102), (0.4094, 0.0245, 0.4733, 0.0928)),
        66: ((0.3613, 0.0447, 0.5170, 0.0684, 0.0086), (0.3351, 0.0288, 0.5568, 0.0793)),
        67: ((0.3037, 0.0365, 0.5933, 0.0593, 0.0072), (0.2733, 0.0325, 0.6281, 0.0661)),
        68: ((0.2527, 0.0297, 0.6607, 0.0509, 0.0060), (0.2209, 0.0356, 0.6880, 0.0555)),
        69: ((0.2118, 0.0244, 0.7150, 0.0438, 0.0050), (0.1822, 0.0379, 0.7328, 0.0471)),
    }
)


def m_yield(z: int, subshell: str) -> float:
    """Fluorescence yield of an M subshell ("M1" to "M5"): corrected where the library's is wrong; 0 where unknown."""
    corrected = M_YIELDS.get(subshell, {})
    return corrected[z] if z in corrected else library_yield(z, subshell)


def library_yield(z: int, subshell: str) -> float:
    """Fluorescence yield of a subshell as the library has it; 0 where it has none."""
    try:
        return float(xraylib.FluorYield(z, getattr(xraylib, f"{subshell}_SHELL")))
    except ValueError:  # the atom has no such subshell, or the library no yield
        return 0.0


def correct_m_lines(z: int, lines: Sequence[Line], incident_energy_kev: float) -> list[Line]:
    """M lines of the library with corrected yields, those within the M shell, and those of an open 4f shell anew.

    A line's cross-section is vacancies of its subshell times yield times share. What the cascade brings is in the
    vacancies: they come from deeper shells and by Coster-Kronig transitions, neither of which knows the yield of the
    subshell that they reach. So the cross-section scales with the yield. (The photons of M1 to M3 that leave a
    vacancy in M4 or M5 would change with it, too; they are below 2e-3 of those vacancies, and are left as they are.)

    Args:
        z: atomic number.
        lines: lines of the M family that the library has at this energy.
        incident_energy_kev: keV.
    """
    anew = ("M4", "M5") if z in _FROM_EADL else ()
    kept = [
        (name, energy, strength * m_yield(z, name[:2]) / library_yield(z, name[:2]))
        for name, energy, strength in (*lines, *_build_lines_within_m(z, lines))
        if name[:2] not in anew
    ]
    made = [line for subshell in anew for line in _build_eadl_lines(z, subshell, incident_energy_kev)]
    return sorted([*kept, *made])


def _build_lines_within_m(z: int, lines: Sequence[Line]) -> list[Line]:
    """Lines from one M subshell to another, in the library's scale: by rate, beside the strongest line from there."""
    photons: dict[str, float] = {}
    for name, _, strength in lines:
        photons[name[:2]] = max(photons.get(name[:2], 0.0), strength)
    strongest = {name[:2]: name for name, _, strength in lines if strength == photons[name[:2]]}
    return [
        (name, edge_energy_kev(z, name[:2]) - edge_energy_kev(z, name[2:]), photons[name[:2]] * rate / _rate(z, main))
        for name in _WITHIN_M
        if (main := strongest.get(name[:2])) and (rate := _rate(z, name)) > 0.0
    ]


def _rate(z: int, name: str) -> float:
    return _evaluate(xraylib.RadRate, z, getattr(xraylib, f"{name}_LINE"))


def _build_eadl_lines(z: int, subshell: str, incident_energy_kev: float) -> list[Line]:
    outer = _M4_OUTER if subshell == "M4" else _M5_OUTER
    rates = _EADL_RATES[z][0 if subshell == "M4" else 1]
    photons = _count_m_vacancies(z, incident_energy_kev)[subshell] * m_yield(z, subshell)
    inner_kev = edge_energy_kev(z, subshell)
    return [
        (f"{subshell}{shell}", inner_kev - edge_energy_kev(z, shell), photons * rate)
        for shell, rate in zip(outer, rates, strict=True)
        if photons * rate > 0.0
    ]


@cache
def edge_energy_kev(z: int, shell: str) -> float:
    """Binding energy (keV) of a shell ("K", "L3", "N7"); 0 where the library has none (shells that hardly bind)."""
    code = getattr(xraylib, f"{shell}_SHELL", None)
    return 0.0 if code is None else _evaluate(xraylib.EdgeEnergy, z, code)


def _count_m_vacancies(z: int, incident_energy_kev: float) -> dict[str, float]:
    """Vacancies of each L and M subshell (cm2/g), those of the full cascade included."""
    found = [_evaluate(xraylib.CS_Photo_Partial, z, xraylib.K_SHELL, incident_energy_kev)]
    shells = ("L1", "L2", "L3", "M1", "M2", "M3", "M4", "M5")
    for shell in shells:
        found.append(_evaluate(getattr(xraylib, f"P{shell}_full_cascade_kissel"), z, incident_energy_kev, *found))
    return dict(zip(shells, found[1:], strict=True))


def _evaluate(function: Callable[..., float], *arguments: float) -> float:
    try:
        return float(function(*arguments))
    except ValueError:  # the atom has no such subshell, or it is not excited
        return 0.0
