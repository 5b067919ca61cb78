"""What is printed at the end of a run of scans: datasets, notes, and the elements that the program suggests."""

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, Literal

from hpcxrf.fitting.verdict import Verdict
from hpcxrf.runner.datasets import describe_ending, read_datasets
from hpcxrf.runner.printout import Coloured, FinishedRun, Line, NoteList, Printout, TextTable
from hpcxrf.runner.records import DatasetRecord
from hpcxrf.store.rundir import RunDir

_SHOWN_DATASETS: Final = 50
_COLOURS: Final[Mapping[Verdict, Literal["green", "yellow", "red"]]] = {
    Verdict.GOOD: "green",
    Verdict.DOUBTFUL: "yellow",
    Verdict.WRONG: "red",
}


def describe_scans(finished: FinishedRun) -> Printout:
    """The table of datasets, their notes, the suggested elements, and where the report is."""
    shown = list(islice(read_datasets(finished.run), _SHOWN_DATASETS))
    table = TextTable(
        title=f"run {finished.run.path}",
        columns=("dataset", "status", "verdict", "R2", "pixels", "seconds", "note"),
        rows=tuple(_list_cells(record) for record in shown),
    )
    more = finished.total - len(shown)
    return Printout(
        parts=(
            table,
            *([Line((f"and {more} more datasets: see the report",))] if more > 0 else []),
            NoteList({record.name: record.notes for record in shown}),
            *_suggest(finished, shown),
            *_count(read_datasets(finished.run)),
            Line((f"{finished.done} of {finished.total} datasets done in {finished.wall_s:.1f} s, report included",)),
            Line((f"report: {finished.page}",)),
        )
    )


def _list_cells(record: DatasetRecord) -> tuple[str | Coloured, ...]:
    return (
        record.name,
        Coloured(record.state, "green" if record.state == "done" else "red"),
        _colour(verdict_of(record)),
        ", ".join(f"{d}: {v:.5f}" for d, v in record.facts.get("r2", {}).items()),
        f"{record.shape[1] * record.shape[2]:,}" if record.shape else "",
        f"{sum(record.seconds.values()):.1f}" if record.seconds else "",
        describe_ending(record),
    )


def verdict_of(record: DatasetRecord) -> Verdict:
    """Verdict on a dataset: that on its detector that fits worst."""
    merit = record.facts.get("merit") or {}
    return Verdict(merit.get("verdict", Verdict.NOT_JUDGED))


def count_verdicts(records: Iterable[DatasetRecord]) -> Counter[Verdict]:
    """Number of datasets by verdict, those that were judged."""
    judged = (verdict_of(record) for record in records if record.state == "done")
    return Counter(one for one in judged if one is not Verdict.NOT_JUDGED)


def _colour(verdict: Verdict) -> str | Coloured:
    if verdict is Verdict.NOT_JUDGED:
        return ""
    return Coloured(verdict.word, _COLOURS[verdict])


def _count(records: Iterable[DatasetRecord]) -> list[Line]:
    counted = count_verdicts(records)
    if not counted.total() - counted[Verdict.GOOD]:
        return []
    parts = ", ".join(f"{counted[one]} {one.word}" for one in Verdict if counted[one])
    return [Line((f"fits by verdict: {parts}; the report gives the reasons",))]


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


def suggest_command(argv: Sequence[str], listed: Sequence[str], suggested: Sequence[str], run: RunDir) -> str:
    """Write the command that runs the same with the suggested elements, into a new folder.

    Args:
        argv: command line of the run, the program first.
        listed: elements of the run; none: they were those of override files, and the program adds to them itself.
        suggested: elements to add.
        run: the run directory.
    """
    output = next_folder(run.path)
    if len(argv) > 1 and argv[1] == "run":
        kept = _without(argv[1:], ("--elements", "-o", "--output", "--auto-elements", "--set=sample.elements"))
    else:
        kept = ["run", str(run.configuration_file)]
    chosen = ["--elements", ",".join([*listed, *suggested])] if listed else ["--auto-elements"]
    return shlex.join(["hpcxrf", *kept, *chosen, "-o", str(output)])


def next_folder(path: Path) -> Path:
    """Name a folder beside one that is not there yet: `out` -> `out-2`."""
    return next(p for n in range(2, 10_000) if not (p := path.with_name(f"{path.name}-{n}")).exists())


def _without(arguments: Sequence[str], names: Sequence[str]) -> list[str]:
    """Drop options with their values; `--set=KEY` stands for a setting of that key alone."""
    kept: list[str] = []
    left = iter(arguments)
    for argument in left:
        if argument == "--auto-elements":
            continue
        # `--name value` and `--name=value` are the same.
        whole = argument
        if argument in names or argument == "--set":
            whole = f"{argument}={next(left, '')}"
        if not whole.startswith(tuple(f"{name}=" for name in names)):
            kept.extend([argument] if whole == argument else whole.split("=", 1))
    return kept
