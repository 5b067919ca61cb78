"""Folders in the memory of a machine, in which small files cost nothing; what killed processes left is removed."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

MEMORY: Final = Path("/dev/shm")  # noqa: S108 (each folder in it has a name of its own, and is its owner's alone)
_PREFIX: Final = "hpcxrf-scratch"
_LOCK: Final = "lock"
_YOUNG_S: Final = 60.0
"""A folder of this age without a lock may be one that is just being made."""


@contextmanager
def scratch_folder(*, bytes_needed: int) -> Iterator[Path]:
    """A folder of the owner alone, as long as the block lasts; where memory has no room, below the temporary folder.

    Args:
        bytes_needed: of all that will be in it.

    Raises:
        OSError: there is no room anywhere.
    """
    base = _choose_base(bytes_needed)
    _remove_abandoned(base)
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}-{os.getuid()}-", dir=base))
    try:
        # Whoever holds the lock is alive; the number of a process would mean another one in another container.
        with (folder / _LOCK).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            inside = folder / "made"
            inside.mkdir()
            yield inside
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _choose_base(bytes_needed: int) -> Path:
    with suppress(OSError):
        about = os.statvfs(MEMORY)
        if os.access(MEMORY, os.W_OK | os.X_OK) and about.f_bavail * about.f_frsize >= 2 * bytes_needed:
            return MEMORY
    return Path(tempfile.gettempdir())


def _remove_abandoned(base: Path) -> None:
    for left in base.glob(f"{_PREFIX}-{os.getuid()}-*"):
        # Another process may be removing it, too.
        with suppress(OSError):
            about = left.lstat()
            if about.st_uid == os.getuid() and left.is_dir() and not left.is_symlink() and _is_abandoned(left, about):
                shutil.rmtree(left, ignore_errors=True)


def _is_abandoned(folder: Path, about: os.stat_result) -> bool:
    try:
        with (folder / _LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return time.time() - about.st_mtime > _YOUNG_S
    except BlockingIOError:
        return False
    return True
