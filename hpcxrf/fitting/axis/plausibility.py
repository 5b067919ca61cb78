"""What speaks for a family before any count does: whether it can be there, and how common it is beside others."""

from collections.abc import Collection
from typing import Final

from hpcxrf.fitting.axis.binned import families_by_name

_SHELL_MARGIN_KEV: Final = 0.3
_L_BESIDE_K_Z: Final = 37
_EXPECTED_COST: Final = 0.5
# L lines of Rb to Pd, which lie under K lines of P to Cl, without K lines.
_LONE_COST: Final = 1.5
_LONE_L_Z: Final = 47


def is_possible(name: str, others: set[str], incident_kev: float) -> bool:
    """False for L lines without the K lines that the beam excites, and for M lines without the L lines.

    Args:
        name: a family.
        others: those that the spectrum shows.
        incident_kev: energy of the beam.
    """
    families = families_by_name()
    mine, symbol = families[name], name.partition("_")[0]
    if mine.shell == "K":
        return True
    outer = [symbol] if mine.shell == "L" else [f"{symbol}_L"]
    seen = [families[o] for o in outer if o in families and families[o].edge_kev < incident_kev - _SHELL_MARGIN_KEV]
    return all(f.name in others for f in seen) and (mine.shell == "M" or mine.z >= _L_BESIDE_K_Z or symbol in others)


def cost_beside(name: str, others: Collection[str]) -> float:
    """How uncommon a family is beside others: M lines are expected where the L lines are.

    Args:
        name: a family.
        others: those that the spectrum shows.
    """
    family = families_by_name()[name]
    if is_expected(name, others):
        return min(family.cost, _EXPECTED_COST)
    return family.cost + (_LONE_COST if family.shell == "L" and family.z < _LONE_L_Z else 0.0)


def is_expected(name: str, others: Collection[str]) -> bool:
    """True for M lines of an element whose L lines are there."""
    return families_by_name()[name].shell == "M" and f"{name.partition('_')[0]}_L" in others
