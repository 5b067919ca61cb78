"""Folders in the memory of a machine, in which small files cost nothing; what killed processes left is removed."""

import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

MEMORY: Final = Path("/dev/shm")  # noqa: S108 (each folder in it has a name of its own, and is its owner's alone)
_PREFIX: Final = "hpcxrf-scratch"
_MAKING: Final = "hpcxrf-making"
"""What is not locked yet has another name, so that nobody takes it for left."""
_LOCK: Final = "lock"
_OLD_S: Final = 600.0
"""A folder that is being made for so long is not any more."""
_SHARE: Final = 4
"""Room that is asked of a place, over what is needed: other workers come at the same time."""


@contextmanager
def scratch_folder(*, bytes_needed: int) -> Iterator[Path]:
    """A folder of the owner alone, as long as the block lasts; where memory has no room, below the temporary folder.

    Args:
        bytes_needed: of all that will be in it.

    Raises:
        OSError: there is no room anywhere.
    """
    remove_abandoned()
    base = _choose_base(bytes_needed)
    making = Path(tempfile.mkdtemp(prefix=f"{_MAKING}-{os.getuid()}-", dir=base))
    folder = making.with_name(making.name.replace(_MAKING, _PREFIX, 1))
    try:
        # Whoever holds the lock is alive; the number of a process would mean another one in another container.
        with (making / _LOCK).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            making.rename(folder)
            inside = folder / "made"
            inside.mkdir()
            yield inside
    finally:
        for left in (making, folder):
            shutil.rmtree(left, ignore_errors=True)


def remove_abandoned() -> None:
    """Remove the folders of processes that were killed: in memory they would stay as long as the machine is up."""
    for base in _list_bases():
        for left in base.glob(f"hpcxrf-*-{os.getuid()}-*"):
            # Another process may be removing it, too.
            with suppress(OSError):
                about = left.lstat()
                if stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid() and _is_abandoned(left, about):
                    shutil.rmtree(left, ignore_errors=True)


def _list_bases() -> tuple[Path, ...]:
    return MEMORY, Path(tempfile.gettempdir())


def _choose_base(bytes_needed: int) -> Path:
    for base in _list_bases():
        with suppress(OSError):
            about = os.statvfs(base)
            if os.access(base, os.W_OK | os.X_OK) and about.f_bavail * about.f_frsize >= _SHARE * bytes_needed:
                return base
    places = " and ".join(map(str, _list_bases()))
    raise OSError(f"{places}: no room for {_SHARE} times {bytes_needed / 1e6:.0f} MB")


def _is_abandoned(folder: Path, about: os.stat_result) -> bool:
    if folder.name.startswith(_MAKING):
        return time.time() - about.st_mtime > _OLD_S
    if not folder.name.startswith(_PREFIX):
        return False
    with (folder / _LOCK).open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
