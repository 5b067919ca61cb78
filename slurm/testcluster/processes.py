"""Processes by identity: pid and start time, so that a reused pid is never signalled."""

import os
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_POLL_S = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A process that cannot be taken for a later one of the same number."""

    pid: int
    start_tick: int


def spawn(argv: Sequence[str], log: Path, env: Mapping[str, str]) -> Identity:
    """Start a daemon in a session of its own, its output into `log`."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
        # Somebody may wait for the end of a pipe that this process was given.
        *((os.POSIX_SPAWN_CLOSE, number) for number in _inheritable()),
    ]
    # What the caller ignores, pytest or nohup, a daemon would otherwise ignore as well.
    defaults = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGPIPE]
    pid = os.posix_spawn(
        argv[0], list(argv), dict(env), file_actions=actions, setsid=True, setsigdef=defaults, setsigmask=[]
    )
    return Identity(pid=pid, start_tick=_stat(pid)[1])


def _inheritable() -> list[int]:
    numbers = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
    found = []
    for number in numbers:
        # The one that lists the folder is closed by now.
        with suppress(OSError):
            if number > 2 and os.get_inheritable(number):
                found.append(number)
    return found


def is_alive(process: Identity) -> bool:
    """Whether it runs; a zombie, which only its parent can bury, does not."""
    with suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
    try:
        state, start_tick = _stat(process.pid)
    except OSError:
        return False
    return start_tick == process.start_tick and state not in {"Z", "X"}


def _stat(pid: int) -> tuple[str, int]:
    fields = Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()
    return fields[0].decode(), int(fields[19])


def end(processes: Iterable[Identity], *, patience_s: float) -> None:
    """TERM, then KILL for those that are still there after `patience_s`, and wait until they are gone."""
    left = _signalled(processes, signal.SIGTERM)
    if not _gone(left, patience_s):
        _gone(_signalled(left, signal.SIGKILL), 5.0)


def kill(processes: Iterable[Identity]) -> None:
    """KILL at once."""
    _gone(_signalled(processes, signal.SIGKILL), 5.0)


def _signalled(processes: Iterable[Identity], number: signal.Signals) -> list[Identity]:
    left = [process for process in processes if is_alive(process)]
    for process in left:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)
    return left


def _gone(processes: Iterable[Identity], patience_s: float) -> bool:
    left = list(processes)
    deadline = time.monotonic() + patience_s
    while left := [process for process in left if is_alive(process)]:
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def with_environment(wanted: Mapping[str, str], *, having: str) -> list[Identity]:
    """All processes of this user started with these variables, and with one named `having` of any value.

    This process and those that it comes from are left out: a shell in which the cluster was set up has its
    variables, too.
    """
    needles = {f"{name}={value}".encode() for name, value in wanted.items()}
    spared = _ancestors(os.getpid())
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in spared:
            continue
        with suppress(OSError):
            variables = (entry / "environ").read_bytes().split(b"\0")
            names = {variable.split(b"=", 1)[0] for variable in variables}
            if needles <= set(variables) and having.encode() in names:
                pid = int(entry.name)
                found.append(Identity(pid=pid, start_tick=_stat(pid)[1]))
    return found


def _ancestors(pid: int) -> set[int]:
    seen: set[int] = set()
    while pid > 0 and pid not in seen:
        seen.add(pid)
        stat = Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()
        pid = int(stat[1])
    return seen
