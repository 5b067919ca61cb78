"""Logs of a run, and runs in a folder."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from hpcxrf.cluster.job_files import read_events
from hpcxrf.cluster.login.status import latest_job
from hpcxrf.errors import OutputError
from hpcxrf.store.rundir import RunDir

_TAIL_BYTES: Final = 1 << 20
_POLL_S: Final = 1.0
_MARK: Final = "effective.json"


def latest_log(run: RunDir) -> tuple[Path, list[Path]]:
    """The log of the job that came last, and all other logs.

    Raises:
        OutputError: there is none (yet).
    """
    found = sorted(path for path in run.logs.rglob("*") if path.is_file())
    job_id = latest_job(read_events(run))
    named = run.logs / f"job-{job_id}.log"
    if named in found:
        return named, [path for path in found if path != named]
    if job_id is None and found:
        return found[-1], found[:-1]
    waiting = "the run was not submitted to Slurm" if job_id is None else f"job {job_id} has not begun"
    raise OutputError(f"{run.logs}: there is no log; {waiting}")


def tail(path: Path, lines: int) -> str:
    """The last lines of a file, of at most a MiB; bytes that are not UTF-8 are replaced."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL_BYTES))
        text = file.read().decode("utf-8", errors="replace")
    return "".join(text.splitlines(keepends=True)[-lines:])


def follow_log(path: Path, lines: int, goes_on: Callable[[], bool]) -> Iterator[str]:
    """The last lines, then whatever is added, until `goes_on` says no."""
    with path.open("rb") as file:
        yield tail(path, lines)
        file.seek(0, 2)
        last = False
        while not last:
            last = not goes_on()
            if added := file.read():
                yield added.decode("utf-8", errors="replace")
            if not last:
                time.sleep(_POLL_S)


def runs_in(folder: Path) -> list[Path]:
    """Run directories among `folder` itself, the folders in it, and those in them; hidden ones are left out.

    Raises:
        OutputError: not a folder.
    """
    if not folder.is_dir():
        raise OutputError(f"{folder}: is not a folder")
    patterns = (_MARK, f"[!.]*/{_MARK}", f"[!.]*/[!.]*/{_MARK}")
    return sorted({path.parent for pattern in patterns for path in folder.glob(pattern)})
