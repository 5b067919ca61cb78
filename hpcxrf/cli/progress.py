"""What people see while a command works: bars in a terminal; elsewhere a line per stage, and one every 30 s.

For any workload: stages are names with titles and numbers of tasks. Everything goes to standard error.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_EVERY_S: Final = 30.0
_OPENING: Final = "open files"


class TaskEnd(Protocol):
    """End of one task, as the runner reports it."""

    @property
    def stage(self) -> str:
        """Name of its stage."""

    @property
    def pixels(self) -> int:
        """Pixels that it fitted."""

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""

    @property
    def found(self) -> bool:
        """Whether an earlier driver had finished it."""

    @property
    def tried(self) -> bool:
        """Whether it was tried; false: a failed one kept it from running."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDisplay:
    """Callbacks that show how a run goes on; they return at once, and any thread may call them."""

    opened: Callable[[int, int], None]
    """Takes the number of files opened, and of those that there are."""
    begin: Callable[[Mapping[str, int]], None]
    """Takes the number of tasks by stage of a further dataset: a plan is made while it is run."""
    all_begun: Callable[[], None]
    """Called when no further dataset comes: from now on a stage whose tasks have ended has ended."""
    advance: Callable[[TaskEnd], None]
    """Takes the end of a task."""
    say: Callable[[str], None]
    """Takes a sentence for people."""


def show_run(
    out: Console, titles: Mapping[str, str], *, every_s: float = LINE_EVERY_S
) -> AbstractContextManager[RunDisplay]:
    """Show a run while the block lasts.

    Args:
        out: console on standard error.
        titles: what people call each stage; a stage that is missing is shown by its name.
        every_s: seconds between the lines where `out` is not a terminal.
    """
    return _show_bars(out, titles) if out.is_terminal else _show_lines(out, titles, every_s)


@contextmanager
def show_step(
    out: Console, title: str, unit: str = "", *, every_s: float = LINE_EVERY_S
) -> Iterator[Callable[[int, int], None]]:
    """Show a single step while the block lasts: a bar in a terminal, elsewhere a line every 30 s.

    Args:
        out: console on standard error.
        title: what people call the step.
        unit: word after the numbers, as `rows`.
        every_s: seconds between the lines where `out` is not a terminal.

    Yields:
        A function that takes what is done, and of how much.
    """
    if out.is_terminal:
        with _make_bars(out) as bars:
            bar = bars.add_task(title, total=None, rate=unit)
            yield lambda done, total: bars.update(bar, completed=done, total=total)
        return
    lines = _Lines(out, {}, quiet=True)
    with _ticking(lines, every_s):
        yield lambda done, total: lines.count(title, done, total)


# Bars ---------------------------------------------------------------------------------------------


def _make_bars(out: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description:<20}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:>18}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=out,
    )


@contextmanager
def _show_bars(out: Console, titles: Mapping[str, str]) -> Iterator[RunDisplay]:
    with _make_bars(out) as progress:
        bars = _Bars(progress, titles)
        yield RunDisplay(
            opened=lambda done, total: progress.update(bars.opening, completed=done, total=total),
            begin=bars.begin,
            all_begun=lambda: None,
            advance=bars.advance,
            say=lambda text: out.print(text, markup=False, soft_wrap=True),
        )


class _Bars:
    """One bar per stage; that of a stage which fits pixels also shows their rate."""

    def __init__(self, progress: Progress, titles: Mapping[str, str]) -> None:
        self.progress, self.titles = progress, titles
        self.opening = progress.add_task(_OPENING, total=None, rate="")
        self.stages: dict[str, TaskID] = {}
        self.pixels: dict[str, int] = {}
        self.failed: dict[str, int] = {}

    def begin(self, totals: Mapping[str, int]) -> None:
        for stage in dict.fromkeys(n for n in (*self.titles, *totals) if n in totals and n not in self.stages):
            # A bar's clock starts with its first task: its rate is that of the stage, not of the run.
            title = self.titles.get(stage, stage)
            self.stages[stage] = self.progress.add_task(title, total=0, rate="", start=False)
        for stage, number in totals.items():
            bar = self.stages[stage]
            self.progress.update(bar, total=(self.progress.tasks[bar].total or 0) + number)

    def advance(self, end: TaskEnd) -> None:
        for stage in _begun_by(end.stage, list(self.stages)):
            if self.progress.tasks[self.stages[stage]].start_time is None:
                self.progress.start_task(self.stages[stage])
        bar = self.stages[end.stage]
        self.pixels[end.stage] = self.pixels.get(end.stage, 0) + (0 if end.found else end.pixels)
        self.failed[end.stage] = self.failed.get(end.stage, 0) + (end.tried and not end.ok)
        elapsed = self.progress.tasks[bar].elapsed or 0.0
        rate = ""
        if self.failed[end.stage]:
            rate = f"{self.failed[end.stage]} failed"
        elif end.stage == "pixels" and elapsed > 0.5:
            rate = f"{self.pixels[end.stage] / elapsed:,.0f} px/s"
        self.progress.update(bar, advance=1, rate=rate)


def _begun_by(stage: str, names: list[str]) -> list[str]:
    """List a stage and the next one, which the end of one of its tasks lets begin."""
    at = names.index(stage)
    return names[at : at + 2]


# Lines --------------------------------------------------------------------------------------------


@contextmanager
def _show_lines(out: Console, titles: Mapping[str, str], every_s: float) -> Iterator[RunDisplay]:
    lines = _Lines(out, titles)
    with _ticking(lines, every_s):
        yield RunDisplay(
            opened=lambda done, total: lines.count(_OPENING, done, total),
            begin=lines.begin,
            all_begun=lines.end_planning,
            advance=lines.advance,
            say=lines.say,
        )
    lines.finish()


@contextmanager
def _ticking(lines: "_Lines", every_s: float) -> Iterator[None]:
    """Print where things stand every so often, even while no task ends."""
    over = threading.Event()

    def tick() -> None:
        while not over.wait(every_s):
            lines.report()

    thread = threading.Thread(target=tick, name="hpcxrf-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@dataclass(slots=True, kw_only=True)
class _Stage:
    title: str
    total: int
    done: int = 0
    failed: int = 0
    not_tried: int = 0
    found: int = 0
    began_s: float | None = None
    ended_s: float = 0.0
    told: bool = False
    """Its end was printed."""

    @property
    def is_going_on(self) -> bool:
        return self.began_s is not None and self.done < self.total

    @property
    def text(self) -> str:
        failed = f", {self.failed} failed" if self.failed else ""
        not_tried = f", {self.not_tried} not tried" if self.not_tried else ""
        return f"{self.title}: {self.done} of {self.total}{failed}{not_tried}"

    def describe_end(self, ended_s: float) -> str:
        found = f", {self.found} of them in an earlier run" if self.found else ""
        return f"{self.text} ended after {ended_s - (self.began_s or ended_s):.1f} s{found}"


@dataclass(slots=True)
class _Lines:
    """Stages as lines; `quiet` prints none at their start and end."""

    out: Console
    titles: Mapping[str, str]
    quiet: bool = False
    began_s: float = field(default_factory=time.monotonic)
    stages: dict[str, _Stage] = field(default_factory=dict)
    planned: bool = False
    """Every dataset has begun, so that the totals are final."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def say(self, text: str) -> None:
        with self.lock:
            self.out.print(text, markup=False, soft_wrap=True)

    def begin(self, totals: Mapping[str, int]) -> None:
        with self.lock:
            for name in dict.fromkeys(name for name in (*self.titles, *totals) if name in totals):
                stage = self.stages.setdefault(name, _Stage(title=self.titles.get(name, name), total=0))
                stage.total += totals[name]
            # It has begun although none of its tasks has ended, which may take long.
            for name in list(totals)[:1]:
                self._start(self.stages[name])

    def count(self, title: str, done: int, total: int) -> None:
        with self.lock:
            stage = self.stages.setdefault(title, _Stage(title=title, total=total))
            stage.total = total
            self._start(stage)
            stage.done = done
            self._end(stage)

    def advance(self, end: TaskEnd) -> None:
        with self.lock:
            stage = self.stages[end.stage]
            planned = [name for name in self.stages if name != _OPENING]
            for name in _begun_by(end.stage, planned):
                self._start(self.stages[name])
            stage.done += 1
            stage.failed += end.tried and not end.ok
            stage.not_tried += not end.tried
            stage.found += end.found
            stage.ended_s = time.monotonic()
            if self.planned:
                self._tell_end(stage)

    def end_planning(self) -> None:
        with self.lock:
            self.planned = True
            for name, stage in self.stages.items():
                if name != _OPENING:
                    self._tell_end(stage)

    def _tell_end(self, stage: _Stage) -> None:
        if stage.done == stage.total and stage.began_s is not None and not stage.told:
            stage.told = True
            self.say(stage.describe_end(stage.ended_s))

    def report(self) -> None:
        with self.lock:
            going_on = [stage.text for stage in self.stages.values() if stage.is_going_on]
            if going_on:
                self.say(f"after {time.monotonic() - self.began_s:.0f} s: {'; '.join(going_on)}")

    def _start(self, stage: _Stage) -> None:
        if stage.began_s is None:
            stage.began_s = time.monotonic()
            if not self.quiet:
                self.say(f"{stage.title}: started")

    def _end(self, stage: _Stage) -> None:
        if stage.done >= stage.total and not self.quiet:
            self.say(stage.describe_end(time.monotonic()))

    def finish(self) -> None:
        """Print how stages went that a stopped run did not bring to their end."""
        with self.lock:
            for name, stage in self.stages.items():
                if name != _OPENING and stage.began_s is not None and not stage.told:
                    self.say(stage.describe_end(stage.ended_s))
