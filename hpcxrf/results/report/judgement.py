"""What a results store says of its fits in a few words: for the table of the report, and for the choice of pages."""

from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from hpcxrf.config.report import PagesChoice
from hpcxrf.fitting.axis.flags import AXIS_FLAGS
from hpcxrf.fitting.verdict import Verdict
from hpcxrf.results.report import views
from hpcxrf.results.store.opening import open_results


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What the table of the report shows of the fits of one dataset."""

    merit: views.Merit | None
    """Merit of the detector that fits worst by verdict, then by R2; None without detectors."""
    flags: tuple[str, ...] = ()
    """Warnings."""
    axis_flags: tuple[str, ...] = ()
    """Flags that the fits have set on their energy axes, by name, each once."""


def judge(tree: xr.DataTree) -> Judgement:
    """Judge the fits of a dataset.

    Args:
        tree: an open results store.
    """
    spectrum = tree["spectrum"].to_dataset()
    by_detector = spectrum.attrs.get("flags", {})
    found = {str(flag) for flags in by_detector.values() for flag in flags}
    return Judgement(
        merit=find_worst_merit(spectrum),
        flags=views.list_flags(tree),
        axis_flags=tuple(sorted(found & set(AXIS_FLAGS))),
    )


def read_judgement(path: Path) -> Judgement:
    """Judge the fits of a dataset from its results store.

    Raises:
        OutputError: the store cannot be read.
    """
    with open_results(path) as tree:
        return judge(tree)


def find_worst_merit(spectrum: xr.Dataset) -> views.Merit | None:
    """Merit of the detector that fits worst by verdict, then by R2, from the group `spectrum`; None without any."""
    found = views.read_merits(spectrum)
    return min(found.values(), key=lambda merit: (-merit.verdict, merit.r2), default=None)


def wants_page(pages: PagesChoice, merit: views.Merit | None) -> bool:
    """Whether a dataset with results gets a page of its own.

    Args:
        pages: `report.pages` of the run file.
        merit: of the detector that fits worst.
    """
    if pages == "failed":
        return merit is None or merit.verdict is not Verdict.GOOD
    return pages == "all"
