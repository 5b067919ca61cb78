"""Claims of a file's header, compared with the size of the file before anything is allocated for them."""

import os
import resource
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from hpcxrf.errors import InputFileError

ROOM_BYTES: Final = 192 * 2**20
"""Bytes that one read of any file may take, however small the file is."""
ROOM_RATIO: Final = 100
"""The same for larger files: bytes of one read per byte of the file. Counts compress by less."""


def require_room(where: object, what: str, needed: int, files: Iterable[Path]) -> None:
    """Refuse to allocate what files of their size cannot hold, or what this machine has no memory for.

    Args:
        where: file, and what of it, for the message.
        what: what needs the memory: "one row".
        needed: bytes that are claimed.
        files: all files of the scan; folders count with all that is in them.

    Raises:
        InputFileError: what is claimed, what the files have, and what is possible.
    """
    size = count_bytes(files, enough=needed // ROOM_RATIO + 1)
    possible = min(max(ROOM_BYTES, ROOM_RATIO * size), memory_bytes() // 2)
    if not 0 <= needed <= possible:
        raise InputFileError(
            f"{where}: {what} would take {needed} bytes, but a file of {size} bytes on this machine can have "
            f"{possible}; the file is damaged: copy it again, or name its axes"
        )


def count_bytes(files: Iterable[Path], enough: int) -> int:
    """Sum of the sizes of files and of all files in folders, counted no further than to `enough`."""
    total = 0
    for file in files:
        for place in file.rglob("*") if file.is_dir() else (file,):
            total += place.lstat().st_size
            if total >= enough:
                return total
    return total


def memory_bytes() -> int:
    """Memory of this machine, or what this process may have of it."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return physical if limit == resource.RLIM_INFINITY else min(physical, limit)
