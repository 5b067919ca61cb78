"""What of a run is done and what failed, counted from its journals."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hpcxrf.cluster.job_files import RunProgress
from hpcxrf.cluster.slurm import job_ended
from hpcxrf.errors import OutputError
from hpcxrf.runner.datasets import OPEN_TASK, has_records, read_datasets
from hpcxrf.runner.ending import has_end
from hpcxrf.runner.kinds import name_kind
from hpcxrf.runner.records import DatasetRecord
from hpcxrf.store.lock import run_lock
from hpcxrf.store.rundir import FAILED, FINISHED, RETRY, Record, RunDir, leave_alone
from hpcxrf.workloads import read_workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A task that failed, and was not done or asked for since."""

    dataset_id: str
    home: str
    """Folder of its journal within the run directory; empty: the run directory itself."""
    task: str
    reason: str
    traceback: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How many datasets are how far."""

    datasets: int
    """Known datasets; more may come while a run opens its files."""
    done: int
    failed: int
    """Datasets of which a task was tried and failed, or whose file cannot be opened."""
    not_tried: int
    """Datasets that wait in vain for one that failed."""
    running: int
    reasons: tuple[tuple[str, int], ...]
    """Failures by reason, the most frequent first; empty while the run goes on."""
    at_end: bool
    """A driver came to the end of the run, and none has begun since."""


def tally(run: RunDir, progress: RunProgress | None, *, live: bool) -> Tally:
    """Count the datasets: by the driver's own account while it lives, else by its records of those that ended."""
    if live and progress is not None:
        return Tally(
            datasets=progress.datasets,
            done=progress.datasets_done,
            failed=progress.datasets_failed,
            not_tried=progress.datasets_not_tried,
            running=progress.datasets_running,
            reasons=(),
            at_end=False,
        )
    states: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for record in read_datasets(run):
        open_again = record.state == "failed" and not _is_failed(run, record)
        states["again" if open_again else record.state] += 1
        if record.state == "failed" and not open_again:
            kinds[name_kind(record.reason, record.dataset_id, record.name)] += 1
    ended = states["done"] + states["failed"] + states["not tried"]
    known = max(ended + states["again"], len(run.dataset_ids()), 0 if progress is None else progress.datasets)
    page = run.path / read_workload(run).page
    # Version 0.1.0 kept no account of the end; its page was the last thing that a driver wrote.
    came_to_end = has_end(run) if has_records(run) else page.is_file()
    return Tally(
        datasets=known,
        done=states["done"],
        failed=states["failed"],
        not_tried=states["not tried"],
        running=0,
        reasons=tuple(kinds.most_common()),
        at_end=known > 0 and ended == known and came_to_end,
    )


def _is_failed(run: RunDir, record: DatasetRecord) -> bool:
    """Whether a failure still counts: `hpcxrf retry` takes it back in the journal."""
    return bool(_failures_of(record.dataset_id, record.home, _read_journal(run.inner(record.home), record.dataset_id)))


def failures(run: RunDir) -> Iterator[Failure]:
    """Everything that was tried and failed, and was not done or asked for since, dataset by dataset."""
    records = list(read_datasets(run))
    done = {(record.home, record.dataset_id) for record in records if record.state == "done"}
    for home in sorted({"", *(record.home for record in records)}):
        inner = run.inner(home)
        for dataset_id in inner.dataset_ids():
            if (home, dataset_id) not in done:
                yield from _failures_of(dataset_id, home, _read_journal(inner, dataset_id))


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
            run.inner(failure.home).append(failure.dataset_id, {"task": failure.task, "event": RETRY})
        again = {failure.dataset_id for failure in chosen}
        if chosen:
            others = {f.dataset_id: f.reason for f in every if f.dataset_id not in again}
            leave_alone(run, others)
    return chosen


def _read_journal(run: RunDir, dataset_id: str) -> list[Record]:
    """Of one that is damaged only that: it says nothing of the others, and the next driver does its dataset again."""
    try:
        return run.read_journal(dataset_id)
    except OutputError as error:
        return [{"task": "journal", "event": FAILED, "reason": str(error)}]


def _failures_of(dataset_id: str, home: str, journal: Sequence[Record]) -> list[Failure]:
    last: dict[str, Record] = {}
    for line in journal:
        if line.get("event") in {FAILED, FINISHED, RETRY}:
            # Once the file could be opened, that it could not before is history.
            last.pop(OPEN_TASK, None)
            last[str(line.get("task"))] = line
    return [
        Failure(
            dataset_id=dataset_id,
            home=home,
            task=task,
            reason=str(line.get("reason", "")),
            traceback=str(line.get("traceback", "")),
        )
        for task, line in last.items()
        if line["event"] == FAILED
    ]
