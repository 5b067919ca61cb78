"""The runs of the folder that the explorer was given: which there are, how each is, and what it says of itself.

A browser names a run by its key, which is looked up among the runs that are there: no path is made of it.
"""

import datetime
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from hpcxrf.cluster import slurm
from hpcxrf.cluster.login.logs import latest_log, runs_in, tail
from hpcxrf.cluster.login.status import GOING_ON, AskSlurm, RunStatus, ask_seldom, run_status
from hpcxrf.config.untrusted import show_lines, show_name
from hpcxrf.errors import ConfigError, OutputError
from hpcxrf.explore.run_plans import Plans
from hpcxrf.explore.targets import Dataset, Target, find_target
from hpcxrf.notes import pack_notes
from hpcxrf.runner.datasets import ENDINGS, read_datasets
from hpcxrf.runner.ending import has_end, read_end
from hpcxrf.store.rundir import RunDir
from hpcxrf.workloads import read_workload

Json = dict[str, Any]

_ASK_SLURM_S: Final = 20.0
"""Seconds between two questions to the controller of one job: it is everybody's."""
_LOG_LINES: Final = 200
_SHOWN_LINES: Final = 20
_MOST_DATASETS: Final = 500
_MOST_RUNS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A process that works on a run, begun here; it goes on without the explorer."""

    run: RunDir
    process: "subprocess.Popen[bytes]"
    log: Path


@dataclass(slots=True, kw_only=True)
class Runs:
    """What was given, and what was begun from it."""

    folder: Path
    """Absolute; the run itself where one was given."""
    alone: bool
    """Whether it is one run, beside which none can be begun."""
    read_only: bool
    in_job: bool = False
    """Whether the explorer is a job itself, with which all that it begins on its own machine ends."""
    report_key: bytes
    """From which the addresses of reports are made, new with every start."""
    ask: AskSlurm = field(default_factory=lambda: ask_seldom(slurm.job_state, _ASK_SLURM_S))
    begun: list[Begun] = field(default_factory=list)
    """Processes that go on."""
    refused: list[Json] = field(default_factory=list)
    """What ended before it made a run directory: `name`, `code` and the end of its `log`."""
    known: dict[str, Path] = field(default_factory=dict)
    """Runs by key, as they were last looked for."""
    left_out: int = 0
    """Runs that were found and are not among them: behind a link that leads out, or beyond the most that are listed."""
    targets: dict[str, tuple[int, Target]] = field(default_factory=dict)
    done: dict[str, tuple[tuple[int, ...], Json]] = field(default_factory=dict)
    """Runs that are done, as they were described last, by key, with the stamps of their files."""
    endings: dict[str, tuple[tuple[int, int] | None, list[Json]]] = field(default_factory=dict)
    """Datasets of a run that have ended, by key, with the stamp of the file that they were read from."""
    plans: Plans = field(default_factory=Plans)
    lock: threading.Lock = field(default_factory=threading.Lock)


def find_runs(folder: Path, report_key: bytes, *, read_only: bool, in_job: bool = False) -> Runs | None:
    """Find the runs of what was given.

    Args:
        folder: run directory; or a folder of such, of run files (.yaml), or an empty one.
        report_key: of this start.
        read_only: whether nothing may be begun or stopped.
        in_job: whether the explorer is a job.

    Returns:
        None: it is none of these.
    """
    if not folder.is_dir():
        return None
    runs = Runs(
        folder=folder.absolute(), alone=_is_run(folder), read_only=read_only, in_job=in_job, report_key=report_key
    )
    if runs.alone or list_keys(runs) or any(folder.glob("*.yaml")) or not any(folder.iterdir()):
        return runs
    return None


def _is_run(folder: Path) -> bool:
    return RunDir(path=folder).effective_file.is_file()


def list_keys(runs: Runs) -> dict[str, Path]:
    """List the run directories by key; links that lead out of the folder are left out.

    Raises:
        OutputError: the folder is gone.
    """
    if runs.alone:
        found = {name_key(Path(runs.folder.name)): runs.folder}
    else:
        real = runs.folder.resolve()
        every = runs_in(runs.folder)
        paths = [path for path in every if path.resolve().is_relative_to(real)]
        runs.left_out = len(every) - min(len(paths), _MOST_RUNS)
        found = {name_key(path.relative_to(runs.folder)): path for path in paths[:_MOST_RUNS]}
    runs.known = found
    return found


def name_key(relative: Path) -> str:
    """Name a run for a browser: its place below the folder, as addresses write it."""
    return quote(os.fsencode(relative.as_posix()), safe="/")


def find_run(runs: Runs, key: str) -> RunDir:
    """Find a run by its key.

    Raises:
        ConfigError: there is none of that key.
    """
    path = runs.known.get(key)
    if path is None or not _is_run(path):
        path = list_keys(runs).get(key)
    if path is None:
        raise ConfigError(f"{show_name(key)[:80]}: no such run in {runs.folder}; look at the list again")
    return RunDir(path=path)


def choose_dataset(target: Target | None, runs: Runs | None, name: str) -> tuple[Target, Dataset, str]:
    """Choose a scan by its name: `dataset_id` of what was given, or `key/dataset_id` of a run of the folder.

    Args:
        target: what was given, where it has results.
        runs: its runs.
        name: an empty dataset_id is the first finished one.

    Returns:
        The run or store, the scan, and its whole name.

    Raises:
        ConfigError: there is none of that name.
        OutputError: it is not finished.
    """
    key, _, own = ("", "", name) if runs is None else name.rpartition("/")
    if runs is not None and runs.alone:
        only = next(iter(list_keys(runs)))
        if target is not None and key in {"", only} and own in {"", *target.datasets}:
            key = ""
        elif not key:
            key = only
    if key or target is None:
        if runs is None or not key:
            raise ConfigError("no run is open; choose one of the list of runs")
        target = _open_target(runs, key)
    chosen = target.dataset(own or None)
    return target, chosen, f"{key}/{chosen.dataset_id}" if key else chosen.dataset_id


def _open_target(runs: Runs, key: str) -> Target:
    """The scans of a run; looked for again when another has begun or ended."""
    run = find_run(runs, key)
    results = run.path / "results"
    stamp = results.stat().st_mtime_ns if results.is_dir() else 0
    with runs.lock:
        kept = runs.targets.get(key)
        if kept is not None and kept[0] == stamp:
            return kept[1]
        found = find_target(run.path)
        if found is None:
            raise OutputError(f"{run.path}: has no results yet")
        runs.targets[key] = (stamp, found)
        return found


def name_in_run(described: Json, key: str) -> Json:
    """A described scan whose datasets have the names by which they are asked for among the runs of a folder."""
    return described | {
        "dataset_id": f"{key}/{described['dataset_id']}",
        "datasets": [f"{key}/{name}" for name in described["datasets"]],
    }


def describe_runs(runs: Runs) -> Json:
    """Describe all runs, the latest first."""
    _reap(runs)
    rows = [_describe_row(runs, key, path) for key, path in list_keys(runs).items()]
    return {
        "folder": show_name(str(runs.folder)),
        "alone": runs.alone,
        "read_only": runs.read_only,
        "refused": runs.refused,
        "left_out": runs.left_out,
        "runs": sorted(rows, key=lambda row: str(row["begun"]), reverse=True),
    }


def describe_run(runs: Runs, key: str) -> Json:
    """Describe one run with its stages, the end of its log, and its datasets."""
    _reap(runs)
    run = find_run(runs, key)
    row = _describe_row(runs, key, run.path)
    name, lines = _read_log(run)
    datasets = _list_datasets(runs, key, run) if row["verdict"] != "unreadable" else []
    return {
        **row,
        "log_name": name,
        "log": lines,
        "datasets": datasets[:_MOST_DATASETS],
        "more_datasets": len(datasets) > _MOST_DATASETS,
        "submitted": (run.path / "jobs" / "job.sh").is_file(),
    }


def _list_datasets(runs: Runs, key: str, run: RunDir) -> list[Json]:
    """Datasets that have ended, those that failed first; read again when another has ended."""
    file = run.path / ENDINGS
    stamp = (file.stat().st_mtime_ns, file.stat().st_size) if file.is_file() else None
    kept = runs.endings.get(key)
    if kept is not None and stamp is not None and kept[0] == stamp:
        return kept[1]
    ended = sorted(read_datasets(run), key=lambda one: one.state == "done")
    rows: list[Json] = [
        {
            "dataset_id": one.dataset_id,
            "name": show_name(one.name),
            "state": one.state,
            "reason": show_lines(one.reason),
        }
        for one in ended[: _MOST_DATASETS + 1]
    ]
    runs.endings[key] = (stamp, rows)
    return rows


def _describe_row(runs: Runs, key: str, path: Path) -> Json:
    """Describe a run in a line; of one that is done its records are read once."""
    stamp = _stamp_run(path)
    kept = runs.done.get(key)
    if kept is not None and kept[0] == stamp:
        return kept[1]
    row = _read_row(runs, key, path)
    if row["verdict"] == "done":
        runs.done[key] = (stamp, row)
    return row


def _stamp_run(path: Path) -> tuple[int, ...]:
    """When what decides on the state of a run was written last, ns; 0 where it is not there."""
    run = RunDir(path=path)
    places = (run.effective_file, run.lock_file, path / ENDINGS, path / "state" / "end.json", path / "jobs", path)
    return tuple(
        place.stat().st_mtime_ns if place.exists() else 0 for place in (*places, path / "jobs" / "events.jsonl")
    )


def _read_row(runs: Runs, key: str, path: Path) -> Json:
    run = RunDir(path=path)
    shared = {"key": key, "name": show_name(str(path.relative_to(runs.folder))) if not runs.alone else path.name}
    try:
        status = run_status(path, runs.ask)
        workload = read_workload(run)
        return {
            **shared,
            **_describe_status(run, status),
            "workload": workload.name,
            "report": (path / workload.page).is_file(),
            "page": workload.page,
        }
    except OutputError as error:
        # One damaged run hides no other.
        begun, nothing = _begin_time(run), dict.fromkeys(("wall_s", "job_id", "progress", "workload", "page"))
        counts = dict.fromkeys(("known", "done", "failed", "not_tried", "running"), 0)
        return {
            **shared,
            **nothing,
            **counts,
            "verdict": "unreadable",
            "reason": show_lines(str(error)),
            "going_on": False,
            "reasons": [],
            "begun": begun,
            "report": False,
            "notes": [],
        }


def _describe_status(run: RunDir, status: RunStatus) -> Json:
    counts, progress = status.tally, status.progress
    going_on = status.verdict in GOING_ON
    ended = read_end(run) if has_end(run) else None
    wall_s = None if ended is None else ended.wall_s
    if going_on and progress is not None:
        wall_s = progress.uptime_s
    return {
        "verdict": status.verdict,
        "reason": show_lines(status.reason),
        "going_on": going_on,
        "job_id": status.job_id,
        "known": counts.datasets,
        "done": counts.done,
        "failed": counts.failed,
        "not_tried": counts.not_tried,
        "running": counts.running,
        "reasons": [{"text": show_lines(text), "number": number} for text, number in counts.reasons],
        "begun": _begin_time(run) if ended is None else ended.started,
        "wall_s": wall_s,
        "progress": asdict(progress) if progress is not None and going_on else None,
        "notes": pack_notes(status.notes)["notes"],
    }


def _begin_time(run: RunDir) -> str | None:
    """When the run directory was made, ISO 8601 with time zone."""
    try:
        made_s = run.effective_file.stat().st_mtime
    except OSError:
        return None
    return datetime.datetime.fromtimestamp(made_s, tz=datetime.UTC).isoformat(timespec="seconds")


def _read_log(run: RunDir) -> tuple[str, str]:
    """Name and last lines of the latest log; empty where there is none."""
    try:
        log, _ = latest_log(run)
        return show_name(log.name), show_lines("".join(_lines(tail(log, _LOG_LINES))))
    except OutputError as error:
        return "", show_lines(str(error))
    except OSError:
        return "", ""


def _lines(text: str) -> Iterator[str]:
    """Lines as a terminal would show them: what a carriage return overwrote is left out."""
    for line in text.splitlines(keepends=True):
        yield line.rstrip("\n").rpartition("\r")[2] + ("\n" if line.endswith("\n") else "")


def _reap(runs: Runs) -> None:
    """Let processes go that have ended, which until then count as alive; keep what those said that made no run."""
    left = []
    for one in runs.begun:
        code = one.process.poll()
        if code is None:
            left.append(one)
        elif not one.run.effective_file.is_file():
            log = show_lines("".join(_lines(tail(one.log, _SHOWN_LINES))))
            runs.refused.append({"name": one.run.path.name, "code": code, "log": log})
    runs.begun = left
