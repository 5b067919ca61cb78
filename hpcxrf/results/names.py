"""What people read in place of the names that files keep."""

from typing import Final

from hpcxrf.physics.scatter_names import COMPTON, ELASTIC, OTHER_SERIES

SUM: Final = "sum"
"""Name, on the detector axis, of the raw sum of all detectors."""
_ANODE: Final = {OTHER_SERIES.format(series=one): f"anode {one} elastic" for one in "KL"}
_SHOWN: Final = {ELASTIC: "elastic", COMPTON: "Compton", **_ANODE}


def shown_name(component: str) -> str:
    """`elastic` and `Compton` for the scatter columns, which keep their MAPS names in files."""
    return _SHOWN.get(component, component)


def name_detector(name: str) -> str:
    """A detector, or the sum of all, as the subject of a sentence.

    >>> name_detector("0"), name_detector("sum")
    ('detector 0', 'sum of the detectors')
    """
    return "sum of the detectors" if name == SUM else f"detector {name}"
