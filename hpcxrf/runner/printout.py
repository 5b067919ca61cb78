"""What a workload gives to be printed when a run has ended: tables and lines as plain data, which `cli` draws."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hpcxrf.notes import Note
from hpcxrf.store.rundir import RunDir


@dataclass(frozen=True, slots=True)
class Coloured:
    """Text in a colour of its own."""

    text: str
    colour: Literal["green", "yellow", "red"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTable:
    """A table under a title."""

    title: str
    columns: tuple[str, ...]
    """Headings."""
    numbers: frozenset[str] = frozenset()
    """Columns that are aligned on the right."""
    rows: tuple[tuple[str | Coloured, ...], ...]
    """Cells, one for every column."""
    compact: bool = False
    """True: without frame and never folded, for tables of many columns."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text, never folded."""

    parts: tuple[str | Coloured, ...]


@dataclass(frozen=True, slots=True)
class NoteList:
    """Notes, which are printed merged over detectors and datasets."""

    notes: Mapping[str, Sequence[Note]]
    """Notes of each dataset, by its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Printout:
    """All that is printed of a run, in order."""

    parts: tuple[TextTable | Line | NoteList, ...]
    values: Mapping[str, Any] | None = None
    """The same for scripts, JSON values (`--json`); None: the workload has no such output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedRun:
    """A run that has ended, as a workload describes it."""

    run: RunDir
    """The run directory."""
    page: Path
    """The page to open."""
    done: int
    """Number of datasets that are done."""
    total: int
    """Number of all datasets of the plan."""
    reasons: Mapping[str, str]
    """Reason by dataset_id of what failed or was not tried."""
    workers: int
    """Number of workers."""
    wall_s: float
    """Seconds since the start, report included."""
    summary: object
    """What the workload's `summarise` returned."""
    command: tuple[str, ...]
    """Arguments of the command line, the program first."""


def describe_run(finished: FinishedRun) -> Printout:
    """How many datasets are done, why the others are not, and where the page is: of a workload without more to say."""
    return Printout(
        parts=(
            *list_failures(list(finished.reasons.items())),
            Line((f"{finished.done} of {finished.total} datasets done in {finished.wall_s:.1f} s",)),
            Line((f"page: {finished.page}",)),
        )
    )


def list_failures(failures: Sequence[tuple[str, str]], most: int = 20) -> tuple[Line, ...]:
    """A line for each of the first failures, and one for the number of the others.

    Args:
        failures: name and reason of each.
        most: largest number of lines.
    """
    lines = [Line((Coloured("failed", "red"), f" {name}: {reason}")) for name, reason in failures[:most]]
    if len(failures) > most:
        lines.append(Line((f"and {len(failures) - most} more failures: see the page",)))
    return tuple(lines)
