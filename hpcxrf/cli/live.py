"""`hpcxrf live`: scans as they land. What is heavy is imported inside, so that `--help` answers at once."""

import datetime
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from hpcxrf.cli import options as opt

EXAMPLE: Final = (
    "Examples:  hpcxrf live /data/tonight --run run.yaml -o out   |   "
    "hpcxrf live incoming --elements Si,Fe,Zn --energy 12 -o out --until-idle 30"
)
_COLOURS: Final = {"good": "green", "doubtful": "yellow", "wrong": "red"}
_QUIET: Final = frozenset({"found before", "taken", "ended"})
"""Events that a terminal needs no line for."""


def live(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder into which scans land, with those below it.")],
    output: opt.Output,
    run: Annotated[
        Path | None, typer.Option("--run", metavar="RUNFILE", help="Run file (.yaml); DIR replaces its input files.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Process what is complete now, then stop.")] = False,
    until_idle: Annotated[
        float | None,
        typer.Option("--until-idle", metavar="MIN", help="Stop after so many minutes without news.", min=0.0),
    ] = None,
    patience: Annotated[
        float,
        typer.Option(
            "--patience",
            metavar="MIN",
            help="Minutes without a change after which a scan that is not complete is taken as it is.",
            min=0.0,
        ),
    ] = 10.0,
    elements: opt.Elements = None,
    energy: opt.Energy = None,
    pixels: opt.Pixels = None,
    detectors: opt.Detectors = None,
    workers: opt.Workers = None,
    device: opt.Device = None,
    settings: opt.Set = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line on standard output for everything that happens.")
    ] = False,
) -> None:
    """Watch a folder: maps of every scan as soon as it is complete. The same command goes on where it stopped."""
    from hpcxrf.archive.live.landing import Until
    from hpcxrf.archive.live.scans import Waiting
    from hpcxrf.cluster.local.live import LiveCallbacks, run_live

    given = [folder] if run is None else [run, folder]
    config, text = opt.read_request(given, context.params)
    with _show(as_json=as_json) as lines:
        result = run_live(
            config,
            text,
            output,
            waiting=Waiting(patience_s=60.0 * patience),
            until=Until(once=once, idle_s=None if until_idle is None else 60.0 * until_idle),
            callbacks=LiveCallbacks(
                event=lines.event, tick=lines.tick, started=lambda _handle: lines.start(output), stopping=lines.stop
            ),
            command=" ".join(sys.argv),
        )
    _end(result, lines)


@dataclass(slots=True)
class _Lines:
    """What is printed; called from several threads, whose lines the console keeps apart."""

    put: Callable[[str], None]
    """Prints a line of a result."""
    say: Callable[[str], None]
    """Prints a sentence on standard error."""
    idle: Callable[[str], None]
    """Shows the one line of how things stand."""
    as_json: bool
    wrong: int = 0
    before: int = 0
    told_before: int = 0
    growing: set[str] = field(default_factory=set)

    def start(self, output: Path) -> None:
        from hpcxrf.archive.live.board import PAGE

        self.say(f"page: {output / PAGE}")

    def stop(self) -> None:
        self.say("stopping: what is at work may end; Ctrl-C again stops at once")

    def tick(self, content: Mapping[str, Any]) -> None:
        counts = content["counts"]
        if counts["before"] == self.before != self.told_before:
            self.told_before = self.before
            self.say(f"{self.before} scan{'s' * (self.before != 1)} done before")
        self.before = counts["before"]
        parts = [f"{counts[name]} {word}" for name, word in _COUNTED if counts[name] or name == "done"]
        self.idle(f"watching {content['folder']}: {', '.join(parts)}")

    def event(self, event: Any) -> None:  # noqa: ANN401 (LiveEvent, which is imported late)
        self.wrong += event.values.get("verdict") == "wrong"
        if self.as_json:
            self.put(json.dumps(_as_json(event)))
        elif event.kind in {"done", "failed"}:
            self.put(_describe_scan(event))
        elif event.kind == "growing":
            if event.path not in self.growing:
                self.growing.add(event.path)
                self.say(f"{event.name}: growing, {event.text}")
        elif event.kind == "view":
            self.say(_describe_view(event))
        elif event.kind not in _QUIET:
            self.say(event.text if event.kind == "folder" else f"{event.name}: {event.kind}: {event.text}")


_COUNTED: Final = (("done", "done"), ("failed", "failed"), ("at_work", "at work"), ("growing", "growing"))


@contextmanager
def _show(*, as_json: bool) -> Iterator[_Lines]:
    """Lines on standard output, and in a terminal one below them that tells how things stand."""
    from rich.markup import escape

    from hpcxrf.cli.terminal import console, results_console

    out, results = console(), results_console()

    def put(line: str) -> None:
        if as_json:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        else:
            results.print(line, soft_wrap=True)
            sys.stdout.flush()

    def say(line: str) -> None:
        out.print(f"{_clock()}  {escape(line)}", soft_wrap=True)

    if not out.is_terminal:
        yield _Lines(put=put, say=say, idle=lambda _text: None, as_json=as_json)
        return
    with out.status("starting") as status:
        yield _Lines(put=put, say=say, idle=lambda text: status.update(escape(text)), as_json=as_json)


def _describe_scan(event: Any) -> str:  # noqa: ANN401 (LiveEvent)
    from rich.markup import escape

    values = event.values
    if event.kind == "failed":
        return f"{_clock()}  [red]failed[/]  {escape(event.name)}: {escape(event.text)}"
    shape = " x ".join(map(str, values["shape"][1:3] + values["shape"][:1]))
    verdict = values["verdict"]
    r2 = "" if values["r2"] is None else f"R2 {values['r2']:.5f}  "
    late = "" if values["late_s"] is None else f" ({values['late_s']:.0f} s after its last change)"
    colour = _COLOURS.get(verdict, "default")
    found = escape(" ".join(values["elements"]))
    seconds = f"{values['seconds']:.1f} s"
    return f"{_clock()}  {escape(event.name)}  {shape}  [{colour}]{verdict}[/]  {r2}{seconds}{late}  {found}"


def _describe_view(event: Any) -> str:  # noqa: ANN401 (LiveEvent)
    if not event.values:
        return f"{event.name}: no first view yet: {event.text}"
    values = event.values
    return f"{event.name}: first view over {values['rows']} rows: {values['verdict']}, {' '.join(values['elements'])}"


def _as_json(event: Any) -> dict[str, Any]:  # noqa: ANN401 (LiveEvent)
    from hpcxrf.cli.terminal import plain_values

    return {
        "event": event.kind,
        "time": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "name": event.name,
        "path": event.path,
        "dataset_id": event.dataset_id,
        "text": event.text,
        **plain_values(event.values),
    }


def _clock() -> str:
    return datetime.datetime.now().astimezone().strftime("%H:%M:%S")


def _end(result: Any, lines: _Lines) -> None:  # noqa: ANN401 (LiveResult)
    """Say how it ended, and choose the exit code.

    Raises:
        DatasetsFailedError: it ended by itself, and some scans failed or their fits are wrong.
        Exit: it was stopped with scans at work.
    """
    from hpcxrf.errors import EXIT_RESUMABLE, DatasetsFailedError

    for name, reason in result.left.items():
        lines.say(f"{name}: not taken yet: {reason}")
    lines.say(f"{result.done} done, {result.failed} failed in {result.wall_s:.0f} s; report: {result.report}")
    if result.interrupted:
        lines.say(f"{result.interrupted} at work when it was stopped; the same command goes on with them")
        raise typer.Exit(EXIT_RESUMABLE)
    parts = [f"{number} {word}" for number, word in ((result.failed, "failed"), (lines.wrong, "wrong")) if number]
    if parts and not result.stopped:
        raise DatasetsFailedError(
            f"{result.done + result.failed} scans: {', '.join(parts)}; {result.report} gives the reasons. Fix the "
            "cause and rerun the same command"
        )
