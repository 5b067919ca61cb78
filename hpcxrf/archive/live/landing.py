"""The plan of a run whose scans are still landing: it finds them as they become complete, and ends when it is told to.

The driver takes its items as those of any plan. Everything here happens in the thread that makes the plan; what the
driver says of scans that ended comes in a queue.
"""

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from hpcxrf.archive.live.events import LiveEvent, Tell
from hpcxrf.archive.live.files import Changes, Files, Stamp
from hpcxrf.archive.live.history import find_moved, forget_other_scan
from hpcxrf.archive.live.scans import (
    Decision,
    Waiting,
    count_members,
    decide,
    is_member,
    list_files,
    list_neighbours,
    name_lead,
)
from hpcxrf.archive.live.views import Views
from hpcxrf.formats.candidates import UNKNOWN, candidates_among, why_left_out
from hpcxrf.formats.registry import FIT_PARAMETERS
from hpcxrf.pipeline.opening import Opening, find_kept, open_dataset
from hpcxrf.pipeline.printout import verdict_of
from hpcxrf.pipeline.records import DatasetJob
from hpcxrf.runner.records import DatasetRecord, Kept, Refusal
from hpcxrf.runner.workload import Planned
from hpcxrf.store.rundir import RunDir

_JUDGING_SHARE: Final = 0.4
"""Part of the time between two looks that is spent on deciding on scans; those that are left have their turn next."""
_LEAST_JUDGED: Final = 16
"""Scans that are decided on after every look, however long it took."""
_ONCE_POLLS: Final = 3
"""Looks after which a file that still changes is left to grow, where nothing is waited for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Until:
    """When the watching ends by itself."""

    once: bool = False
    """When everything that is complete now is done."""
    idle_s: float | None = None
    """After so many seconds in which nothing changed and nothing was at work; None: never."""


@dataclass(slots=True, kw_only=True)
class _AtWork:
    lead: str
    parts: tuple[str, ...]
    changed_s: float
    """Monotonic time of the last change of its files."""


@dataclass(slots=True, kw_only=True)
class Landing:
    """Scans of watched folders, and what became of them."""

    opening: Opening
    """Its request's `kept` is a dict, to which scans are added when they are done."""
    kept: dict[str, DatasetRecord]
    """That dict: scans whose results are there, by dataset_id."""
    files: Files
    waiting: Waiting
    until: Until
    views: Views
    tell: Tell
    list_found: Callable[[Path], list[str]]
    """Components that were found in a results store."""
    number: int
    """Number of the next item."""
    most_ahead: int
    """Scans with the driver at a time, at most: it never waits for room."""
    stop: threading.Event
    over: threading.Event = field(default_factory=threading.Event)
    """Set when no more items come, and nothing here is used by another thread."""
    ended: "queue.SimpleQueue[DatasetRecord]" = field(default_factory=queue.SimpleQueue)
    """How scans ended, as the driver says."""
    clock: Callable[[], float] = time.monotonic
    after_poll: Callable[[], None] = lambda: None
    """Called at the end of every look."""
    companions: dict[str, str] = field(default_factory=dict)
    """Leading file by further file of its scan that does not have its name, as the spectra of a fly scan."""
    at_work: dict[str, _AtWork] = field(default_factory=dict)
    """Scans that the driver has, by dataset_id."""
    undecided: dict[str, Decision] = field(default_factory=dict)
    """Scans that are waited for, by their leading file."""
    later: dict[str, tuple[Mapping[str, Stamp], float]] = field(default_factory=dict)
    """Files that are not looked into again before they change or a time comes."""
    members: dict[str, int] = field(default_factory=dict)
    """Most detectors of a scan by folder."""
    counted: set[str] = field(default_factory=set)
    """Scans that were found done, or ended."""
    faults: dict[str, str] = field(default_factory=dict)
    """Folders that cannot be listed, as they were told of."""
    polls: int = 0
    active_s: float = 0.0
    """Monotonic time at which something happened last."""
    behind: bool = False
    """Whether a look ended before every scan had its turn."""

    def items(self) -> Iterator[Planned]:
        """Scans as they become complete; it ends when `stop` is set, or by `until`."""
        try:
            yield from self._watch()
        finally:
            self.over.set()

    def _watch(self) -> Iterator[Planned]:
        self.active_s = self.clock()
        for record in self.kept.values():
            self._remember_members(record)
        while not self.stop.is_set():
            began = self.clock()
            changes = self.files.poll(began)
            self.polls += 1
            self.settle_ended()
            self._watch_leads(changes.changed, began)
            self._tell_folders()
            yield from self._decide_all(began)
            self._tell_gone(changes)
            self.views.collect(self.clock())
            self.after_poll()
            if self._is_over(self.clock()):
                return
            self.stop.wait(max(0.0, self.waiting.poll_s - (self.clock() - began)))

    def settle_ended(self) -> None:
        """Take note of the scans that have ended."""
        while True:
            try:
                record = self.ended.get_nowait()
            except queue.Empty:
                return
            self._settle(record)

    def list_left(self) -> dict[str, str]:
        """What is not complete, by name, with what is missing."""
        return {os.path.split(lead)[1]: one.reason or "it is still changing" for lead, one in self.undecided.items()}

    def _settle(self, record: DatasetRecord) -> None:
        now_s = self.active_s = self.clock()
        work = self.at_work.pop(record.dataset_id, None)
        done = record.state == "done"
        self.counted.add(record.dataset_id)
        if done:
            self.kept[record.dataset_id] = record
            self._remember_members(record)
        else:
            self.kept.pop(record.dataset_id, None)
        values: dict[str, Any] = {
            "shape": list(record.shape),
            "seconds": sum(record.seconds.values()),
            "cpu_s": record.cpu_s,
            "late_s": None if work is None else now_s - work.changed_s,
        }
        if done:
            store = RunDir(path=self.opening.request.run_dir).results_store(record.dataset_id)
            r2 = [value for value in record.facts.get("r2", {}).values() if value is not None]
            values |= {"verdict": verdict_of(record).word, "r2": min(r2, default=None)}
            values |= {"elements": self.list_found(store)}
        self.tell(
            LiveEvent(
                kind="done" if done else "failed",
                name=record.name,
                path=record.source,
                dataset_id=record.dataset_id,
                text=record.reason,
                values=values,
            )
        )
        if work is not None:
            # A file that changed while it was read has its turn at once.
            self._watch_leads(self.files.look_at(work.parts, now_s), now_s)

    def _watch_leads(self, changed: Iterable[str], now_s: float) -> None:
        for path in changed:
            if path in self.companions:
                self.files.watch_again(self.companions[path], now_s)

    def _remember_members(self, record: DatasetRecord) -> None:
        members = [name for name in record.made_from.get("stamps", {}) if is_member(name)]
        if members:
            folder = os.path.split(members[0])[0]
            self.members[folder] = max(len(members), self.members.get(folder, 1))

    def _tell_folders(self) -> None:
        for folder, reason in self.files.folders.faults.items():
            if self.faults.get(folder) != reason:
                text = f"{folder}: cannot be listed: {reason}; it is tried again"
                self.tell(LiveEvent(kind="folder", name=folder, path=folder, text=text))
        self.faults = dict(self.files.folders.faults)

    def _tell_gone(self, changes: Changes) -> None:
        for path in changes.gone:
            name = self.opening.name_dataset(Path(path))
            if name in self.kept:
                text = "the file is not there any more; its results stay"
                self.tell(LiveEvent(kind="gone", name=os.path.split(path)[1], path=path, dataset_id=name, text=text))

    def _decide_all(self, now_s: float) -> Iterator[Planned]:
        """Decide on scans with files that may still change, those with the youngest files first."""
        youngest: dict[str, int] = {}
        for path, watched in self.files.watched.items():
            lead = name_lead(path, self.files)
            youngest[lead] = max(watched.stamp.mtime_ns, youngest.get(lead, 0))
        for lead in self.undecided.keys() - youngest.keys():
            del self.undecided[lead]
            self.views.forget(lead)
        self.later = {lead: known for lead, known in self.later.items() if lead in youngest}
        until_s = self.clock() + _JUDGING_SHARE * self.waiting.poll_s
        self.behind = False
        for judged, lead in enumerate(sorted(youngest, key=youngest.__getitem__, reverse=True)):
            late = judged >= _LEAST_JUDGED and self.clock() > until_s
            if self.stop.is_set() or len(self.at_work) >= self.most_ahead or late:
                self.behind = True
                return
            found = self._decide(lead, now_s)
            if found is not None:
                yield found

    def _decide(self, lead: str, now_s: float) -> Planned | None:
        dataset_id = self.opening.name_dataset(Path(lead))
        if dataset_id in self.at_work:
            return None
        parts = list_files(lead, self.files)
        stamps = self.files.stamps_of(parts)
        known = self.later.get(lead)
        if known is not None and known[0] == stamps and now_s < known[1]:
            return None
        kept = find_kept(self.opening.want(Path(lead)), self.opening.request)
        if kept is not None and set(parts) <= kept.record.made_from.get("stamps", {}).keys():
            return self._keep(lead, parts, kept)
        expected = max(self.members.get(os.path.split(lead)[0], 1), count_members(parts)) if is_member(lead) else 1
        decision = decide(lead, parts, self.files.watched, now_s, self.waiting, expected=expected)
        if decision.act == "wait":
            self._wait(lead, decision, stamps, now_s)
            return None
        return self._take(lead, parts, decision, now_s)

    def _keep(self, lead: str, parts: tuple[str, ...], kept: Kept) -> Planned | None:
        """A scan that is done already, and whose files are as they were."""
        self._put_away(lead, parts)
        record = kept.record
        if record.dataset_id in self.counted:
            return None
        self.counted.add(record.dataset_id)
        self.tell(LiveEvent(kind="found before", name=record.name, path=lead, dataset_id=record.dataset_id))
        return kept

    def _wait(self, lead: str, decision: Decision, stamps: Mapping[str, Stamp], now_s: float) -> None:
        before = self.undecided.get(lead)
        self.undecided[lead] = decision
        if decision.growing and (before is None or _progress_of(before) != _progress_of(decision)):
            self.active_s = now_s if before is None or before.rows_done != decision.rows_done else self.active_s
            values = {"rows_done": decision.rows_done, "rows": decision.rows}
            name = os.path.split(lead)[1]
            self.tell(LiveEvent(kind="growing", name=name, path=lead, text=decision.reason, values=values))
        if not decision.unchanged:
            self.active_s = now_s
        if not self.until.once:
            self.views.offer(lead, decision, stamps, now_s)

    def _take(self, lead: str, parts: tuple[str, ...], decision: Decision, now_s: float) -> Planned | None:
        """The item of a scan that is complete; None: it is no scan, was taken under another name, or is none yet."""
        name, path = os.path.split(lead)[1], Path(lead)
        reason = why_left_out(path, candidates_among(list_neighbours(lead, self.files)))
        if reason == UNKNOWN and decision.resting_s < self.waiting.patience_s and not self.until.once:
            self.undecided.pop(lead, None)
            self._look_later(lead, parts, now_s + self.waiting.patience_s - decision.resting_s)
            return None
        if reason is not None:
            self._put_away(lead, parts)
            if reason != FIT_PARAMETERS:
                self.tell(LiveEvent(kind="left out", name=name, path=lead, text=reason))
            return None
        moved = find_moved(path, self.opening.request.run_dir, self.kept)
        if moved is not None:
            self._put_away(lead, parts)
            text = f"was {moved.source} before; its results stay as {moved.dataset_id}"
            self.tell(LiveEvent(kind="moved", name=name, path=lead, dataset_id=moved.dataset_id, text=text))
            return None
        found = open_dataset(self.opening.want(path), self.opening.request)
        broken_s = self.waiting.broken_s
        if isinstance(found, Refusal) and decision.act == "take" and decision.resting_s < broken_s:
            self.undecided[lead] = replace(decision, growing=False, reason=found.reason)
            self._look_later(lead, parts, now_s + broken_s - decision.resting_s)
            return None
        if isinstance(found, DatasetJob):
            others = [one for one, _ in found.stamps if one not in parts and one in self.files.watched]
            parts = (*parts, *others)
            self.companions |= dict.fromkeys(others, lead)
            if forget_other_scan(found):
                text = "the file is another one now; its results are made anew"
                self.tell(LiveEvent(kind="replaced", name=name, path=lead, dataset_id=found.dataset_id, text=text))
        return self._hand_over(lead, parts, decision, found, now_s)

    def _hand_over(
        self, lead: str, parts: tuple[str, ...], decision: Decision, found: DatasetJob | Refusal, now_s: float
    ) -> Planned:
        name = os.path.split(lead)[1]
        self._put_away(lead, parts)
        self.active_s = now_s
        if decision.act == "take as it is":
            text = f"{decision.reason}; it has not changed for {decision.resting_s:.0f} s and is taken as it is"
            self.tell(LiveEvent(kind="incomplete", name=name, path=lead, dataset_id=found.dataset_id, text=text))
        self.at_work[found.dataset_id] = _AtWork(lead=lead, parts=parts, changed_s=now_s - decision.resting_s)
        self.tell(LiveEvent(kind="taken", name=name, path=lead, dataset_id=found.dataset_id))
        self.number += 1
        return replace(found, number=self.number - 1)

    def _put_away(self, lead: str, parts: tuple[str, ...]) -> None:
        self.files.settle(parts)
        self.undecided.pop(lead, None)
        self.later.pop(lead, None)
        self.views.forget(lead)

    def _look_later(self, lead: str, parts: tuple[str, ...], at_s: float) -> None:
        self.later[lead] = (self.files.stamps_of(parts), at_s)

    def _is_over(self, now_s: float) -> bool:
        if self.at_work or self.behind or not self.files.folders.swept:
            return False
        if self.until.once:
            return self.polls > _ONCE_POLLS and not any(map(self._may_be_taken, self._list_open()))
        return self.until.idle_s is not None and now_s - self.active_s >= self.until.idle_s

    def _list_open(self) -> Iterator[Decision | None]:
        leads = {name_lead(path, self.files) for path in self.files.watched}
        return (self.undecided.get(lead) for lead in leads)

    def _may_be_taken(self, decision: Decision | None) -> bool:
        """Whether a file that neither grows nor is incomplete by its format is still to be decided on."""
        return decision is None or (not decision.growing and (decision.unchanged > 0 or self.polls <= _ONCE_POLLS))


def _progress_of(decision: Decision) -> tuple[object, ...]:
    return decision.reason, decision.rows_done
