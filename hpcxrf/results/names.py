"""What people read in place of the names that files keep."""

from typing import Final

from hpcxrf.physics.model import COMPTON, ELASTIC

_SHOWN: Final = {ELASTIC: "elastic", COMPTON: "Compton"}


def shown_name(component: str) -> str:
    """`elastic` and `Compton` for the scatter columns, which keep their MAPS names in files."""
    return _SHOWN.get(component, component)
