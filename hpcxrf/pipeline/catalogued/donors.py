"""Which scan's fit the fit of another begins at: chosen by the plan from the catalogue alone.

Scans of the same detectors are put together by month, and ordered by date; without a date by folder, and ordered by
name. Of every 16 in that order the first is the donor of the others, which begin at its fit when that has ended; itself
it begins where the files say. So no fit waits for more than one other, a sixteenth of an archive can begin at once, and
a scan that is added later changes the donors of its own month alone.
"""

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Final

from hpcxrf.catalogue.rows import ScanRow
from hpcxrf.config.run import RunConfig

SERVED: Final = 16
"""Scans of which one is the donor of the others."""
_MONTH: Final = len("2024-01")

Dated = tuple[str, int]
"""Date and number of a scan."""


def wants_donor(config: RunConfig) -> bool:
    """Whether the fits of a dataset may begin at that of another."""
    fit, studied = config.fit, config.benchmark is not None or config.case_study is not None
    wanted = fit.warm_start == "donor" or (fit.warm_start == "auto" and fit.calibration == "none")
    return wanted and fit.method == "separable" and fit.previous is None and not studied


def name_family(row: ScanRow, groups: Sequence[int]) -> tuple[object, ...]:
    """What scans of the same detectors, time and configuration have in common.

    Args:
        row: the scan.
        groups: groups of the run file that hold it.
    """
    period = row.date[:_MONTH] if row.date else str(PurePosixPath(row.path).parent)
    return row.instrument, row.format, row.n_detectors, row.n_channels, tuple(groups), period


def choose_donors(families: Iterable[Sequence[Dated]]) -> dict[int, int]:
    """Number of the donor by number of each scan that has one.

    Args:
        families: scans that can be opened by what the catalogue says, those of the same `name_family` together.
    """
    chosen: dict[int, int] = {}
    for family in families:
        numbers = [number for _, number in sorted(family)]
        for place, number in enumerate(numbers):
            if place % SERVED:
                chosen[number] = numbers[place - place % SERVED]
    return chosen
