"""Which scan's fit the fit of another begins at: chosen by the plan from the catalogue alone.

Scans of the same detectors are put together by month, and ordered by date; without a date by folder, and ordered by
name. Of every 16 in that order the first is the donor of the others, which begin at its fit when that has ended; itself
it begins where the files say. So no fit waits for more than one other, a sixteenth of an archive can begin at once, and
a scan that is added later changes the donors of its own month alone.
"""

from collections.abc import Iterable
from typing import Final

from hpcxrf.pipeline.catalogued.entries import Entry

SERVED: Final = 16
"""Scans of which one is the donor of the others."""


def choose_donors(entries: Iterable[Entry]) -> dict[int, int]:
    """Number of the donor by number of each scan that has one.

    Args:
        entries: in the order of the catalogue, those that can be opened by what it says.
    """
    together: dict[tuple[object, ...], list[Entry]] = {}
    for entry in entries:
        together.setdefault(entry.family, []).append(entry)
    chosen: dict[int, int] = {}
    for family in together.values():
        family.sort(key=lambda entry: (entry.date, entry.number))
        for place, entry in enumerate(family):
            if place % SERVED:
                chosen[entry.number] = family[place - place % SERVED].number
    return chosen
