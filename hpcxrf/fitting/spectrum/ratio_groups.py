"""Groups of lines whose ratio to the main ones of their family is fitted, and how far tables may be wrong on each."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import torch
import xraylib
from numpy.typing import NDArray

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
    edge_kev, kbeta, line_kev, component = (
        x.cpu().numpy()
        for x in (table.edge_kev[parent], table.is_kbeta[parent], table.energy_kev[parent], table.component)
    )
    below_kev = edge_kev - line_kev
    outer = below_kev < _OUTER_KEV
    groups: list[tuple[str, NDArray[np.bool_], float]] = []
    for i, symbol, shell in find_families(table):
        name, mine = table.component_names[i], component == i
        if shell == "K":
            groups.append((f"{name} {KBETA_NAME}", mine & kbeta, kbeta_sd))
            continue
        if shell == "L":
            third = mine & _near(edge_kev, symbol, "L3")
            groups.append((f"{name} L3 outer", third & outer, _OUTER_SD))
            from_n = third & ~outer & (below_kev < _BEFORE_M * _edge_kev(symbol, "M5"))
            groups.append((f"{name} L3 N", from_n, _NSHELL_SD))
        for subshell, sd in _SUBSHELL_SDS.items():
            if subshell[0] == shell:
                groups.append((f"{name} {subshell}", mine & _near(edge_kev, symbol, subshell), sd))
    return tuple(
        RatioGroup(name=name, member=torch.from_numpy(member).to(parent.device), sd=sd)
        for name, member, sd in groups
        if member.any()
    )


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


def _near(edge_kev: NDArray[np.float64], symbol: str, subshell: str) -> NDArray[np.bool_]:
    """Lines of a subshell: the table names their edge."""
    near: NDArray[np.bool_] = np.abs(edge_kev - _edge_kev(symbol, subshell)) < _SAME_EDGE_KEV
    return near


@lru_cache(maxsize=1024)
def _edge_kev(symbol: str, subshell: str) -> float:
    return float(xraylib.EdgeEnergy(xraylib.SymbolToAtomicNumber(symbol), getattr(xraylib, f"{subshell}_SHELL")))
