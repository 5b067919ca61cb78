"""Atomic numbers of components."""

import xraylib

from hpcxrf.physics.scatter_names import SCATTER


def find_atomic_number(component: str) -> int:
    """Atomic number of a component's element; 0 for scatter and for pile-up, which has two.

    >>> find_atomic_number("Fe"), find_atomic_number("Pb_L"), find_atomic_number("Si_Cl")
    (26, 82, 0)
    """
    symbol, _, series = component.partition("_")
    if component in SCATTER or series not in ("", "L", "M"):
        return 0
    try:
        return int(xraylib.SymbolToAtomicNumber(symbol))
    except ValueError:
        return 0
