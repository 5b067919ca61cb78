"""What people and scripts see of a run that is watched."""

from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hpcxrf.cli.notes import label_note
from hpcxrf.cluster.job_files import RunProgress
from hpcxrf.cluster.login.status import GOING_ON, RunStatus
from hpcxrf.notes import pack_notes

_STYLES: Final = {
    "done": "green",
    "running": "green",
    "pending": "yellow",
    "new": "yellow",
    "stopped": "yellow",
    "cancelled": "yellow",
    "unknown": "yellow",
    "done with failures": "red",
    "failed": "red",
}


def describe_status(found: RunStatus) -> dict[str, Any]:
    """Describe a run in JSON values, for scripts."""
    from dataclasses import asdict

    return {
        "run": str(found.path),
        "verdict": found.verdict,
        "said": found.reason,
        "reason": found.reason,
        "job_id": found.job_id,
        "slurm": None if found.slurm is None else asdict(found.slurm),
        "datasets": found.tally.datasets,
        "done": found.tally.done,
        "failed": found.tally.failed,
        "not_tried": found.tally.not_tried,
        "running": found.tally.running,
        "reasons": dict(found.tally.reasons),
        "progress": None if found.progress is None else asdict(found.progress),
        **pack_notes(found.notes),
    }


def print_status(out: Console, found: RunStatus) -> None:
    """Print a run for people."""
    out.print(make_status_table(found))


def make_status_table(found: RunStatus) -> Table:
    """Make the table of a run: verdict, counts, stages while it goes on, failures by reason after."""
    table = Table.grid(padding=(0, 2))
    style = _STYLES[found.verdict]
    table.add_row("[bold]run[/]", escape(str(found.path)))
    table.add_row("[bold]status[/]", f"[{style}]{found.verdict}[/]: {escape(found.reason)}")
    counts = found.tally
    if counts.datasets:
        running = f", {counts.running} running" if counts.running else ""
        not_tried = f", {counts.not_tried} not tried" if counts.not_tried else ""
        numbers = f"{counts.done} of {counts.datasets} done, {counts.failed} failed{not_tried}{running}"
        table.add_row("[bold]datasets[/]", numbers)
    if found.progress is not None and found.verdict in GOING_ON:
        _add_progress(table, found.progress)
    if found.progress is not None and not found.verdict.startswith("done"):
        # Also of a driver that has ended: why its workers died.
        for alarm in found.progress.alarms:
            table.add_row("[bold red]alarm[/]", escape(alarm))
    for reason, number in counts.reasons:
        table.add_row("[bold red]failed[/]", f"{number}: {escape(reason)}")
    if counts.reasons:
        table.add_row("", "`hpcxrf logs RUN --failed` shows all, `hpcxrf retry RUN --failed` tries again")
    for note in found.notes:
        table.add_row(label_note(note), escape(note.text))
    return table


def _add_progress(table: Table, progress: RunProgress) -> None:
    table.add_row(
        "[bold]driver[/]",
        f"{progress.state} on {escape(progress.host)} since {format_duration(progress.uptime_s)}, "
        f"{progress.workers} of {progress.workers_wanted} workers",
    )
    for name, stage in progress.stages.items():
        failed = f", {stage.failed} failed" if stage.failed else ""
        not_tried = f", {stage.not_tried} not tried" if stage.not_tried else ""
        table.add_row(escape(name), f"{stage.done} of {stage.total}{failed}{not_tried}")
    left = "unknown" if progress.eta_s is None else format_duration(progress.eta_s)
    table.add_row("[bold]rate[/]", f"{progress.tasks_per_s:.2f} tasks/s; time left: {left}")


def make_runs_table(found: Sequence[RunStatus]) -> Table:
    """Make the table of many runs."""
    table = Table("run", "status", "job", "datasets", "failed")
    for one in found:
        style = _STYLES[one.verdict]
        table.add_row(
            escape(str(one.path)),
            f"[{style}]{one.verdict}[/]",
            one.job_id or "",
            f"{one.tally.done} of {one.tally.datasets}",
            str(one.tally.failed or ""),
        )
    return table


def format_duration(seconds: float) -> str:
    """Write seconds for people: `45 s`, `12 min`, `3 h 5 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
