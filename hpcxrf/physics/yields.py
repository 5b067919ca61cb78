"""M lines where the library's yields or rates are wrong: what is taken in their place, and from where.

The library (xraylib) takes M fluorescence yields from several calculations and joins them by straight lines in Z.
`docs/physics-line-data.md` compares every subshell with two other tables.

* M2 of Z 77 to 82: the library's line runs through a node of .0423 at gold, ten times what its neighbours and every
  other table have; here log-linear in Z between its sound nodes osmium (.00325) and bismuth (.00652).
* M4 and M5 from ytterbium on: the library's ratio of the two jumps (W .62, Os .59, Au 1.03, U 1.25). Here the
  relativistic calculation of Chen, Crasemann and Mark, Phys. Rev. A 21 (1980) 449, as tabulated in fisx 1.3.2.
* M4 and M5 of Z 57 to 69: the 4f shell is open, and the library has no transition from it (Z 57 to 63: no M-alpha,
  no M-beta) or that of a full one (Z 64 to 69). Here EADL, the Livermore Evaluated Atomic Data Library (D.E. Cullen
  et al., UCRL-50400 vol. 30, 1991), which counts the 4f electrons; below gadolinium it has the yields too. These
  families are an estimate: no second calculation exists, and a solid's 4f shell is not a free atom's.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Final

import xraylib

Line = tuple[str, float, float]
"""Library name ("M5N7"), energy in keV, cross-section in cm2/g."""

ESTIMATED: Final = range(57, 64)
"""Atomic numbers of which M-alpha and M-beta are an estimate."""
_OPEN_4F: Final = range(57, 70)


def _by_z(first: int, *values: float) -> Mapping[int, float]:
    return MappingProxyType(dict(enumerate(values, first)))


M2_YIELDS: Final = _by_z(77, 0.0036, 0.0040, 0.0044, 0.0048, 0.0053, 0.0059)
_FREE_M4: Final = _by_z(57, 0.000679, 0.001547, 0.002085, 0.002629, 0.003220, 0.003859, 0.004503)
_FREE_M5: Final = _by_z(57, 0.000562, 0.001548, 0.002241, 0.003049, 0.003955, 0.004956, 0.006043)
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
_OPEN_4F_RATES: Final = MappingProxyType(
    {
        57: ((0.7543, 0.1154, 0.0000, 0.1132, 0.0171), (0.8713, 0.0000, 0.0000, 0.1287)),
        58: ((0.7095, 0.1070, 0.0551, 0.1117, 0.0167), (0.8127, 0.0029, 0.0569, 0.1275)),
        59: ((0.6920, 0.1024, 0.0766, 0.1125, 0.0165), (0.7852, 0.0041, 0.0804, 0.1303)),
        60: ((0.6684, 0.0966, 0.1071, 0.1116, 0.0163), (0.7488, 0.0059, 0.1143, 0.1310)),
        61: ((0.6357, 0.0900, 0.1502, 0.1086, 0.0155), (0.6979, 0.0084, 0.1640, 0.1297)),
        62: ((0.5948, 0.0818, 0.2051, 0.1038, 0.0145), (0.6389, 0.0116, 0.2245, 0.1250)),
        63: ((0.5428, 0.0730, 0.2744, 0.0965, 0.0133), (0.5654, 0.0156, 0.3019, 0.1171)),
        64: ((0.4863, 0.0632, 0.3506, 0.0881, 0.0118), (0.4890, 0.0199, 0.3859, 0.1052)),
        65: ((0.4228, 0.0537, 0.4350, 0.0783, 0.0102), (0.4094, 0.0245, 0.4733, 0.0928)),
        66: ((0.3613, 0.0447, 0.5170, 0.0684, 0.0086), (0.3351, 0.0288, 0.5568, 0.0793)),
        67: ((0.3038, 0.0365, 0.5932, 0.0593, 0.0072), (0.2733, 0.0325, 0.6281, 0.0661)),
        68: ((0.2527, 0.0297, 0.6607, 0.0509, 0.0060), (0.2209, 0.0356, 0.6880, 0.0555)),
        69: ((0.2118, 0.0244, 0.7150, 0.0438, 0.0050), (0.1821, 0.0379, 0.7329, 0.0471)),
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
    """M lines of the library with corrected yields, and those of an open 4f shell anew.

    A line's cross-section is vacancies of its subshell times yield times share. What the cascade brings is in the
    vacancies: they come from deeper shells and by Coster-Kronig transitions, neither of which knows the yield of the
    subshell that they reach. So the cross-section scales with the yield. (The photons of M1 to M3 that leave a
    vacancy in M4 or M5 would change with it, too; they are below 2e-3 of those vacancies, and are left as they are.)

    Args:
        z: atomic number.
        lines: lines of the M family that the library has at this energy.
        incident_energy_kev: keV.
    """
    anew = ("M4", "M5") if z in _OPEN_4F else ()
    kept = [
        (name, energy, strength * m_yield(z, name[:2]) / library_yield(z, name[:2]))
        for name, energy, strength in lines
        if name[:2] not in anew
    ]
    made = [line for subshell in anew for line in _build_open_4f_lines(z, subshell, incident_energy_kev)]
    return sorted([*kept, *made])


def _build_open_4f_lines(z: int, subshell: str, incident_energy_kev: float) -> list[Line]:
    outer = _M4_OUTER if subshell == "M4" else _M5_OUTER
    rates = _OPEN_4F_RATES[z][0 if subshell == "M4" else 1]
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
