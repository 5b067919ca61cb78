"""The lock of a run directory: one driver at a time, named so that a person can find it."""

import fcntl
import json
import os
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from hpcxrf.config.untrusted import read_json_object, show_name
from hpcxrf.errors import OutputError
from hpcxrf.store.files import output_faults
from hpcxrf.store.rundir import RunDir

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_LARGEST_PID = 2**22
"""Largest number of a process that Linux gives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LockHolder:
    """Holder of a lock."""

    host: str
    pid: int
    process_start: str
    """Boot and start tick of the process: no later process of the same number has them; empty if unknown."""
    job_id: str | None
    """Slurm's job number, None outside a job."""
    restart_count: int
    """Number of times that Slurm has requeued the job."""


def identify_process(environment: Mapping[str, str] = os.environ) -> LockHolder:
    """The holder that this process is."""
    return LockHolder(
        host=socket.gethostname(),
        pid=os.getpid(),
        process_start=_process_start(os.getpid()),
        job_id=environment.get("SLURM_JOB_ID"),
        restart_count=int(environment.get("SLURM_RESTART_COUNT", "0")),
    )


def _process_start(pid: int) -> str:
    try:
        boot = _BOOT_ID.read_text(encoding="ascii").strip()
        fields = Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()
    except OSError:
        return ""
    return f"{boot}:{int(fields[19])}"


@contextmanager
def run_lock(
    run: RunDir, holder: LockHolder | None = None, job_ended: Callable[[str], bool | None] = lambda _job_id: None
) -> Iterator[None]:
    """Hold the run directory while the block runs.

    A lock is taken over when its holder is surely gone: its process is dead on this same host, it was an earlier
    start of this same requeued Slurm job, or Slurm says that its job has ended. Clocks are never compared.

    Args:
        run: the run directory.
        holder: the one that takes it; this process by default.
        job_ended: says whether the job of a holder on another host has ended; None where Slurm does not know.

    Raises:
        OutputError: another driver holds it, named by host, pid and job id; or the folder cannot be written.
    """
    own = holder or identify_process()
    with output_faults(run.path, bytes_needed=256):
        _acquire(run.lock_file, own, job_ended)
    try:
        yield
    finally:
        if read_lock(run.lock_file) == own:
            # The next driver takes over the lock of a process that has ended.
            with output_faults(run.path, bytes_needed=0):
                run.lock_file.unlink(missing_ok=True)


def read_lock(path: Path) -> LockHolder | None:
    """Holder of the lock; None where nobody holds it.

    Raises:
        OutputError: the file is not a lock.
    """
    if not path.exists():
        return None
    remedy = "if no hpcxrf works on this run, remove the file"
    try:
        content = read_json_object(path, OutputError, remedy=remedy)
        holder = LockHolder(**content)
    except OutputError:
        if not path.exists():  # let go of meanwhile
            return None
        raise
    except TypeError as error:
        raise OutputError(f"{path}: is damaged; {remedy}") from error
    if not _is_sound(holder):
        raise OutputError(f"{path}: is damaged; {remedy} (it holds {show_name(json.dumps(content))[:200]})")
    return holder


def _is_sound(holder: LockHolder) -> bool:
    """Whether the holder can be what a driver wrote: a process number out of range would be signalled otherwise."""
    texts = (holder.host, holder.process_start, holder.job_id or "")
    return (
        all(isinstance(text, str) for text in texts)
        and type(holder.pid) is int
        and 0 < holder.pid <= _LARGEST_PID
        and type(holder.restart_count) is int
    )


def refuse_at_work(run: RunDir) -> None:
    """Refuse a run directory on which a driver works, without taking its lock: reading needs no right to write.

    Raises:
        OutputError: a driver holds it, or a process of another host of which nothing can be known here.
    """
    held = read_lock(run.lock_file)
    if held is not None and not _is_gone(held, identify_process()):
        raise OutputError(_explain_holder(run.lock_file, held))


def _acquire(path: Path, own: LockHolder, job_ended: Callable[[str], bool | None]) -> None:
    while not _create(path, own):
        held = read_lock(path)
        if held is None:
            continue
        if not (_is_gone(held, own) or _is_gone_elsewhere(held, own, job_ended)):
            raise OutputError(_explain_holder(path, held))
        _remove_stale(path, held)


def _create(path: Path, own: LockHolder) -> bool:
    """Make the file with its content in one step: a link fails where the name exists."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    temporary.write_text(json.dumps(asdict(own)), encoding="utf-8")
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    return True


def _is_gone(held: LockHolder, own: LockHolder) -> bool:
    same_job = own.job_id is not None and held.job_id == own.job_id
    requeued = same_job and own.restart_count > held.restart_count
    return requeued or (held.host == own.host and not is_alive(held))


def _is_gone_elsewhere(held: LockHolder, own: LockHolder, job_ended: Callable[[str], bool | None]) -> bool:
    """Ask for the job of a holder on another host, whose processes cannot be seen."""
    if held.host == own.host or held.job_id is None or held.job_id == own.job_id:
        return False
    return job_ended(held.job_id) is True


def is_alive(held: LockHolder) -> bool:
    """True where the holder, a process of this same host, still runs."""
    try:
        os.kill(held.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    start = _process_start(held.pid)
    return not (start and held.process_start and start != held.process_start)


def _remove_stale(path: Path, stale: LockHolder) -> None:
    """Remove the lock if it still is the stale one; of several that try, each looks after the one before.

    The guard is the kernel's, let go of at death. It is sure between processes of one host, and a requeued job
    runs once; where the file system has no such locks, nothing is removed.
    """
    with path.with_name(f"{path.name}.guard").open("a+b") as guard:
        try:
            fcntl.flock(guard, fcntl.LOCK_EX)
        except OSError as error:
            raise OutputError(_explain_holder(path, stale)) from error
        if read_lock(path) == stale:
            path.unlink()


def _explain_holder(path: Path, held: LockHolder) -> str:
    job = "no Slurm job" if held.job_id is None else f"Slurm job {held.job_id} (`squeue -j {held.job_id}`)"
    return (
        f"{path.parent}: another hpcxrf works on this run: host {held.host}, pid {held.pid}, {job}; "
        f"wait for it or stop it; if it is surely gone, remove {path}"
    )
