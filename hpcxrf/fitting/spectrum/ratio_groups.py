"""Groups of lines whose ratio to the main ones of their family is fitted, and how far tables may be wrong on each."""

from collections.abc import Sequence
from typing import Final

import torch
import xraylib
from torch import Tensor

from hpcxrf.physics.anode_scatter import ScatterCopies
from hpcxrf.physics.lines import LineTable
from hpcxrf.physics.ratios import RatioGroup, RatioModel, build_ratio_model, find_parents
from hpcxrf.physics.sample import find_families, light_sample
from hpcxrf.physics.tube_table import SERIES_SD

KBETA_SD: Final = 0.05
"""Usual error of one family's K-beta ratio beyond that of all, where none is given: tables differ by 5 %."""
KBETA_NAME: Final = "K-beta"
"""Ending of the names of groups of K-beta lines."""
# Yields of L1 and M4 differ by up to 40 % between tables, those of L2 and M1 to M3 by some per cent.
_SUBSHELL_SDS: Final = {"L1": 0.2, "L2": 0.05, "M1": 0.05, "M2": 0.05, "M3": 0.05, "M4": 0.2}
_SAME_EDGE_KEV: Final = 1e-4
# Transitions from the O and P shells to L3 (L-beta-5), valence electrons in part: their share differs between
# calculations, and they end this close to the edge.
_OUTER_SD: Final = 0.3
_OUTER_KEV: Final = 0.15
# L-beta-2 and what else comes from the N shell to L3: 15 % of it stand between tables (xraylib, Elam) for Pt to Bi.
_NSHELL_SD: Final = 0.1
# Lines of the N shell lie above this share of the distance of the M lines from the edge.
_BEFORE_M: Final = 0.9


def list_family_groups(table: LineTable, kbeta_sd: float) -> tuple[RatioGroup, ...]:
    """List the K-beta lines of K families, and the subshells of L and M families but the one with the main lines.

    Args:
        table: lines of the fit.
        kbeta_sd: relative standard deviation of the prior of a family's K-beta ratio.

    Returns:
        Groups that have a line; those from the N, O and P shells to L3 are apart from the rest of it.
    """
    parent = find_parents(table)
    edge, kbeta = table.edge_kev[parent], table.is_kbeta[parent]
    outer = edge - table.energy_kev[parent] < _OUTER_KEV
    groups = []
    for i, symbol, shell in find_families(table):
        name, mine = table.component_names[i], table.component == i
        if shell == "K":
            groups.append(RatioGroup(name=f"{name} {KBETA_NAME}", member=mine & kbeta, sd=kbeta_sd))
            continue
        if shell == "L":
            third = mine & _near(edge, symbol, "L3")
            groups.append(RatioGroup(name=f"{name} L3 outer", member=third & outer, sd=_OUTER_SD))
            from_n = third & ~outer & (edge - table.energy_kev[parent] < _BEFORE_M * _edge_kev(symbol, "M5"))
            groups.append(RatioGroup(name=f"{name} L3 N", member=from_n, sd=_NSHELL_SD))
        for subshell, sd in _SUBSHELL_SDS.items():
            if subshell[0] == shell:
                groups.append(RatioGroup(name=f"{name} {subshell}", member=mine & _near(edge, symbol, subshell), sd=sd))
    return tuple(group for group in groups if bool(group.member.any()))


def list_anode_groups(table: LineTable, copies: ScatterCopies | None) -> tuple[RatioGroup, ...]:
    """List the subshells of a tube's scattered L lines but the one with the main lines; none without a tube."""
    if copies is None:
        return ()
    none = torch.zeros_like(table.is_kbeta)
    found = []
    for subshell in ("L1", "L2"):
        mine = torch.tensor([one == subshell for one in copies.subshell], device=none.device)
        if bool(mine.any()):
            name = f"{copies.anode} anode {subshell}"
            found.append(RatioGroup(name=name, member=none, sd=SERIES_SD, copies=mine))
    return tuple(found)


def list_named_groups(table: LineTable, copies: ScatterCopies | None, names: Sequence[str]) -> tuple[RatioGroup, ...]:
    """Groups of a fit by their names, in this order, with the usual errors of K-beta ratios."""
    every = (*list_family_groups(table, KBETA_SD), *list_anode_groups(table, copies))
    groups = {group.name: group for group in every}
    return tuple(groups[name] for name in names)


def build_light_model(table: LineTable, groups: tuple[RatioGroup, ...]) -> RatioModel:
    """The ratios of these groups free, in a sample of light matter."""
    parent_kev = table.energy_kev[find_parents(table)]
    return build_ratio_model(table, groups, light_sample(parent_kev, table.incident_energy_kev))


def _near(edge_kev: Tensor, symbol: str, subshell: str) -> Tensor:
    """Lines of a subshell: the table names their edge."""
    return (edge_kev - _edge_kev(symbol, subshell)).abs() < _SAME_EDGE_KEV


def _edge_kev(symbol: str, subshell: str) -> float:
    return float(xraylib.EdgeEnergy(xraylib.SymbolToAtomicNumber(symbol), getattr(xraylib, f"{subshell}_SHELL")))
