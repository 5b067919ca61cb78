"""Tables of a catalogue for people, and the same for scripts."""

import os
from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hpcxrf.archive.catalogue.changes import CHANGES
from hpcxrf.archive.catalogue.report import Contents, WalkReport
from hpcxrf.catalogue.rows import STATES, ScanRow
from hpcxrf.config.untrusted import show_name

_MOST_ROWS: Final = 100
_MOST_REASONS: Final = 15


def describe_walk(report: WalkReport) -> dict[str, Any]:
    """Describe a walk in JSON values."""
    return {
        "roots": [os.fspath(root) for root in report.roots],
        "changes": dict(report.changes),
        "read": report.read,
        "vanished_while_reading": report.gone,
        "resumed": report.resumed,
        "seconds": round(report.seconds, 3),
    }


def describe_contents(contents: Contents) -> dict[str, Any]:
    """Describe numbers of rows in JSON values."""
    return {
        "states": dict(contents.states),
        "formats": dict(contents.formats),
        "reasons": [
            {"state": one.state, "reason": one.text, "count": one.count, "example": one.example}
            for one in contents.reasons
        ],
    }


def print_walk(out: Console, report: WalkReport) -> None:
    """Print what became of the files since the walk before."""
    table = _make_table("change", "files", "")
    words = {**CHANGES, "duplicate": "the same content under a second name"}
    for name, count in report.changes.items():
        if count:
            table.add_row(name, f"{count:,}", words[name])
    out.print(table)
    again = ", gone on with after an interruption" if report.resumed else ""
    out.print(f"{report.read:,} files read in {report.seconds:.1f} s{again}", markup=False)
    if report.gone:
        out.print(f"{report.gone:,} files vanished while they were to be read; they are not listed", markup=False)


def print_contents(out: Console, contents: Contents) -> None:
    """Print states, formats and reasons by their numbers."""
    table = _make_table("state", "scans", "")
    for name, count in contents.states.items():
        table.add_row(name, f"{count:,}", STATES[name])
    out.print(table)
    if contents.formats:
        table = _make_table("format", "scans")
        for name, count in contents.formats.items():
            table.add_row(escape(show_name(name)), f"{count:,}")
        out.print(table)
    if contents.reasons:
        table = _make_table("state", "files", "reason", "as")
        for one in contents.reasons[:_MOST_REASONS]:
            table.add_row(one.state, f"{one.count:,}", escape(one.text), escape(one.example))
        out.print(table)
        more = len(contents.reasons) - _MOST_REASONS
        if more > 0:
            out.print(f"and {more} more reasons; all: --json", markup=False)


def print_rows(out: Console, rows: Iterable[ScanRow]) -> None:
    """Print scans, a line each; of very many the first ones, all of which are counted."""
    table = _make_table("scan", "state", "format", "size", "keV", "date", "path")
    left = iter(rows)
    for row in islice(left, _MOST_ROWS):
        size = "" if row.shape_y is None else f"{row.n_detectors} x {row.shape_y} x {row.shape_x} x {row.n_channels}"
        energy = "" if row.incident_energy_kev is None else f"{row.incident_energy_kev:.3f}"
        place = escape(show_name(row.path)) + ("" if row.fault is None else f" [dim]{escape(row.fault)}[/]")
        table.add_row(
            str(row.scan_id),
            row.state,
            escape(show_name(row.format or "")),
            size,
            energy,
            escape(row.date or ""),
            place,
        )
    out.print(table)
    more = sum(1 for _ in left)
    if more:
        out.print(f"and {more:,} more; all: --csv FILE or --json", markup=False)


def _make_table(*titles: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in titles:
        numbers = title in {"files", "scans", "scan", "keV"}
        table.add_column(title, justify="right" if numbers else "left", overflow="fold")
    return table
