"""What is printed at the end of a run of scans: datasets, notes, and the elements that the program suggests."""

import shlex
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from hpcxrf.runner.datasets import describe_ending, read_datasets
from hpcxrf.runner.printout import Coloured, FinishedRun, Line, NoteList, Printout, TextTable
from hpcxrf.runner.records import DatasetRecord
from hpcxrf.store.rundir import RunDir

_SHOWN_DATASETS: Final = 50


def describe_scans(finished: FinishedRun) -> Printout:
    """The table of datasets, their notes, the suggested elements, and where the report is."""
    shown = list(islice(read_datasets(finished.run), _SHOWN_DATASETS))
    table = TextTable(
        title=f"run {finished.run.path}",
        columns=("dataset", "status", "R2", "pixels", "seconds", "note"),
        rows=tuple(_list_cells(record) for record in shown),
    )
    more = finished.total - len(shown)
    return Printout(
        parts=(
            table,
            *([Line((f"and {more} more datasets: see the report",))] if more > 0 else []),
            NoteList({record.name: record.notes for record in shown}),
            *_suggest(finished, shown),
            Line((f"{finished.done} of {finished.total} datasets done in {finished.wall_s:.1f} s, report included",)),
            Line((f"report: {finished.page}",)),
        )
    )


def _list_cells(record: DatasetRecord) -> tuple[str | Coloured, ...]:
    return (
        record.name,
        Coloured(record.state, "green" if record.state == "done" else "red"),
        ", ".join(f"{d}: {v:.5f}" for d, v in record.facts.get("r2", {}).items()),
        f"{record.shape[1] * record.shape[2]:,}" if record.shape else "",
        f"{sum(record.seconds.values()):.1f}" if record.seconds else "",
        describe_ending(record),
    )


def _suggest(finished: FinishedRun, shown: Sequence[DatasetRecord]) -> list[Line]:
    suggested: dict[str, int] = {}
    for record in shown:
        for name in record.facts.get("suggested", ()):
            suggested[name] = suggested.get(name, 0) + 1
    if not suggested:
        return []
    many = len(shown) > 1
    names = ", ".join(f"{name} ({n} of {len(shown)} datasets)" if many else name for name, n in suggested.items())
    listed: Sequence[str] = finished.run.effective()["sample"]["elements"]
    command = suggest_command(finished.command, listed, list(suggested), finished.run)
    return [
        Line((f"suggested elements (not in your list, but present in the residual): {names}",)),
        Line((f"to add them:  {command}",)),
    ]


