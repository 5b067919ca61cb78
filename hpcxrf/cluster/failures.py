"""What of a run is done and what failed, counted from its journals."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from hpcxrf.cluster.job_files import RunProgress
from hpcxrf.cluster.slurm import job_ended
from hpcxrf.errors import OutputError
from hpcxrf.store.lock import run_lock
from hpcxrf.store.rundir import FAILED, FINISHED, RETRY, Record, RunDir, leave_alone

_LAST_TASK: Final = "finalise"
# In whatever an error says, what differs from file to file.
_PATH: Final = re.compile(r"(?:'[^']*/[^']*'|\"[^\"]*/[^\"]*\"|\S*/\S*[^\s:,;.)])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A task that failed, and was not done or asked for since."""

    dataset_id: str
    task: str
    reason: str
    traceback: str

    @property
    def kind(self) -> str:
        """The reason without the names of files, so that equal ones can be counted."""
        first = self.reason.strip().splitlines()[0] if self.reason.strip() else "no reason was given"
        return _PATH.sub("<file>", first.replace(self.dataset_id, "<dataset>"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How many datasets are how far."""

    datasets: int
    """That are known of; more may come while a run opens its files."""
    done: int
    failed: int
    running: int
    reasons: tuple[tuple[str, int], ...]
    """Failures by reason, the most frequent first; empty while the run goes on."""
    at_end: bool
    """Every dataset is done or failed, and the report is there."""


def tally(run: RunDir, progress: RunProgress | None, *, live: bool) -> Tally:
    """Count the datasets: by the driver's own account while it lives, else by the journals."""
    if live and progress is not None:
        return Tally(
            datasets=progress.datasets,
            done=progress.datasets_done,
            failed=progress.datasets_failed,
            running=progress.datasets_running,
            reasons=(),
            at_end=False,
        )
    ids = run.dataset_ids()
    done = failed = 0
    kinds: Counter[str] = Counter()
    for dataset_id in ids:
        journal = _journal(run, dataset_id)
        found = _failures_of(dataset_id, journal)
        if found:
            failed += 1
            kinds[found[0].kind] += 1
        elif _is_done(journal):
            done += 1
    known = max(len(ids), 0 if progress is None else progress.datasets)
    at_end = known > 0 and done + failed == known and run.report_file.is_file()
    return Tally(datasets=known, done=done, failed=failed, running=0, reasons=tuple(kinds.most_common()), at_end=at_end)


def failures(run: RunDir) -> Iterator[Failure]:
    """Everything that failed and was not done or asked for since, dataset by dataset."""
    for dataset_id in run.dataset_ids():
        yield from _failures_of(dataset_id, _journal(run, dataset_id))


def ask_again(run: RunDir, reason: str | None) -> list[Failure]:
    """Write into the journals that failed tasks are to be tried again, and that no other failed dataset is.

    Args:
        run: on which no driver works.
        reason: only failures whose reason has this text in it, whatever the case; None: all.

    Returns:
        What is to be tried again.

    Raises:
        OutputError: a driver works on it, or a journal cannot be written.
    """
    with run_lock(run, job_ended=job_ended):
        every = list(failures(run))
        chosen = [f for f in every if reason is None or reason.lower() in f.reason.lower()]
        for failure in chosen:
            run.append(failure.dataset_id, {"task": failure.task, "event": RETRY})
        asked = {failure.dataset_id for failure in chosen}
        if chosen:
            others = {f.dataset_id: f.reason for f in every if f.dataset_id not in asked}
            leave_alone(run, others)
    return chosen


def _journal(run: RunDir, dataset_id: str) -> list[Record]:
    """Of one that is damaged only that: it says nothing of the others, and the next driver does its dataset again."""
    try:
        return run.read_journal(dataset_id)
    except OutputError as error:
        return [{"task": "journal", "event": FAILED, "reason": str(error)}]


def _failures_of(dataset_id: str, journal: Sequence[Record]) -> list[Failure]:
    last: dict[str, Record] = {}
    for line in journal:
        if line.get("event") in {FAILED, FINISHED, RETRY}:
            last[str(line.get("task"))] = line
    if last.get(_LAST_TASK, {}).get("event") == FINISHED:
        # Closed since: a failure of an earlier attempt, at opening the file say, is history.
        return []
    return [
        Failure(
            dataset_id=dataset_id,
            task=task,
            reason=str(line.get("reason", "")),
            traceback=str(line.get("traceback", "")),
        )
        for task, line in last.items()
        if line["event"] == FAILED
    ]


def _is_done(journal: Sequence[Record]) -> bool:
    last = [line.get("event") for line in journal if line.get("task") == _LAST_TASK]
    return bool(last) and last[-1] == FINISHED
