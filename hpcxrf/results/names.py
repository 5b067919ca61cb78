"""What people read in place of the names that files keep."""

from typing import Final

from hpcxrf.physics.anode_scatter import OTHER_SERIES
from hpcxrf.physics.model import COMPTON, ELASTIC

_ANODE: Final = {OTHER_SERIES.format(series=one): f"anode {one} elastic" for one in "KL"}
_SHOWN: Final = {ELASTIC: "elastic", COMPTON: "Compton", **_ANODE}


def shown_name(component: str) -> str:
    """`elastic` and `Compton` for the scatter columns, which keep their MAPS names in files."""
    return _SHOWN.get(component, component)
