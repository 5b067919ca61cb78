"""Why a worker ended: its own last sentence, or the last error in its log."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcxrf.cluster.job.worker_terms import read_facts_of
from hpcxrf.errors import ConfigError, FitError, HpcxrfError, InputFileError, OutputError, SlurmError
from hpcxrf.store.rundir import RunDir

MOST_STARTING: Final = 32
"""Workers that start at a time: each loads some hundred MB from the same file system."""
_TAIL_BYTES: Final = 1 << 16
_LONGEST: Final = 400
_ERROR: Final = re.compile(
    r"(?i)\b(error|exception|killed|out of memory|oom|no space|cannot|segmentation fault|abort(ed)?|cancelled|"
    r"exceeded \d+% memory budget|not found|command not)\b|[A-Za-z]Error\b"
)
# Lines of Slurm that say only that there was an end, and of tracebacks that say only where.
_NOISE: Final = re.compile(
    r"Exited with exit code|Job step aborted|Terminating|Force Terminated|^\s+|^Traceback|launch/slurm|"
    r"Failed to restart worker|Nanny failed to start|failed to start\.$| - INFO - "
)
_ERRORS: Final = {kind.exit_code: kind for kind in (ConfigError, InputFileError, OutputError, FitError, SlurmError)}


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerEnd:
    """How a worker ended."""

    name: str
    """Name of the worker."""
    place: str
    """Node on which it ran; empty: it has not come so far."""
    reason: str
    """Its own last error; empty: it left none."""
    exit_code: int
    """Exit code of `hpcxrf.errors` that belongs to the reason."""
    is_final: bool
    """Whether another start would end the same way."""

    @property
    def sentence(self) -> str:
        """Name, node and reason."""
        return f"{self.name}{self.place}" + (f": {self.reason}" if self.reason else "")

    def error(self) -> HpcxrfError:
        """The error with which a run ends whose workers all ended this way."""
        return _ERRORS.get(self.exit_code, HpcxrfError)(self.sentence)


def worker_end(run: RunDir, name: str, *, quoted: str = "", since: int = 0, job_log: Path | None = None) -> WorkerEnd:
    """Find out why a worker ended.

    Args:
        run: run directory.
        name: name of the worker.
        quoted: reason that was shown before; its file is older than this end.
        since: size of its log when it started, bytes.
        job_log: log of its own job, if it has one.
    """
    facts = read_facts_of(run, name)
    place = f" on {facts.node or facts.host}" if facts is not None else ""
    if facts is not None and facts.fault and facts.fault != quoted:
        return WorkerEnd(
            name=name, place=place, reason=facts.fault, exit_code=facts.exit_code or 1, is_final=facts.is_final
        )
    lines = _lines_after(run.logs / f"{name}.log", since)
    if job_log is not None:
        lines += _lines_after(job_log, 0)
    return WorkerEnd(name=name, place=place, reason=last_error(lines), exit_code=1, is_final=False)


def last_error(lines: Iterable[str]) -> str:
    """The last line that names an error; where none does, the last line that says anything; empty: there is none."""
    useful = [line.rstrip() for line in lines if line.strip() and not _NOISE.search(line.rstrip())]
    errors = [line for line in useful if _ERROR.search(line)]
    return (errors or useful or [""])[-1][:_LONGEST].strip()


def _lines_after(path: Path, since: int) -> list[str]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            # A log that was made anew in between is shorter.
            file.seek(max(since if since <= size else 0, size - _TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return []
