"""Folders that are watched, looked at by a clock of the test's own, with a driver that does what it is told."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hpcxrf.archive.live.events import LiveEvent
from hpcxrf.archive.live.files import Files
from hpcxrf.archive.live.folders import Folders
from hpcxrf.archive.live.landing import Landing, Until
from hpcxrf.archive.live.scans import Waiting
from hpcxrf.archive.live.views import Views
from hpcxrf.config.run import check_config
from hpcxrf.pipeline.opening import begin_opening
from hpcxrf.pipeline.records import DatasetJob
from hpcxrf.runner.datasets import summarise
from hpcxrf.runner.records import DatasetRecord, Kept, Refusal
from hpcxrf.runner.workload import PlanRequest
from hpcxrf.store.rundir import create_or_resume

Act = Callable[[], object]


@dataclass
class Watched:
    """A landing, its clock and what it told."""

    landing: Landing
    events: list[LiveEvent]
    now: list[float]
    script: dict[int, Act] = field(default_factory=dict)
    taken: list[DatasetJob] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    found: list[Kept] = field(default_factory=list)
    at_poll: dict[str, int] = field(default_factory=dict)
    """Poll at which a scan was taken last, by name."""
    holds: bool = False
    """Scans that are taken do not end."""

    def play(self, polls: int, script: Mapping[int, Act] | None = None) -> "Watched":
        """Look so many times, a second apart; acts of the script follow the look of their number, counted from here."""
        start, last = self.landing.polls, self.landing.polls + polls
        acts = dict(script or {})

        def after_poll():
            self.now[0] += 1.0
            acts.pop(self.landing.polls - start, lambda: None)()
            if self.landing.polls >= last:
                self.landing.stop.set()

        self.landing.stop.clear()
        self.landing.after_poll = after_poll
        for one in self.landing.items():
            if isinstance(one, Kept):
                self.found.append(one)
                continue
            self.at_poll[one.source.name] = self.landing.polls - start
            (self.refused if isinstance(one, Refusal) else self.taken).append(one)
            if not self.holds:
                self.landing.ended.put(end_of(one))
        self.landing.settle_ended()
        return self

    def names(self) -> list[str]:
        return [job.source.name for job in self.taken]

    def told(self, kind: str) -> list[str]:
        return [event.name for event in self.events if event.kind == kind]

    def texts(self, kind: str) -> list[str]:
        return [event.text for event in self.events if event.kind == kind]


def end_of(one: DatasetJob | Refusal) -> DatasetRecord:
    """How an item ended, as the driver says it."""
    if isinstance(one, DatasetJob):
        return summarise(one, [])
    return DatasetRecord(
        dataset_id=one.dataset_id, name=one.source.name, source=str(one.source), state="failed", reason=one.reason
    )


def watch(
    folder: Path, run_dir: Path, *, kept=None, until=None, waiting=None, views=None, most_ahead=100, **sections
) -> Watched:
    """A landing of a folder; its looks take no time."""
    raw = {"input": {"files": [str(folder)], **sections.pop("input", {})}, **sections}
    config = check_config(raw, "test")
    create_or_resume(run_dir, "", {})
    events: list[LiveEvent] = []
    now = [1000.0]
    stored = {} if kept is None else kept
    landing = Landing(
        opening=begin_opening(PlanRequest(config=config, run_dir=run_dir, kept=stored), datasets=0),
        kept=stored,
        files=Files(folders=Folders(root=str(folder), skipped=frozenset({str(run_dir)}))),
        waiting=waiting or Waiting(poll_s=1e-9),
        until=until or Until(),
        views=Views(begin=views or (lambda _path, _rows: None), tell=events.append),
        tell=events.append,
        list_found=lambda _store: ["Fe"],
        number=0,
        most_ahead=most_ahead,
        stop=threading.Event(),
        clock=lambda: now[0],
    )
    return Watched(landing=landing, events=events, now=now)
