"""The first look at an HDF5 file, in a child process with limits of processor time and memory (`children`).

A child opens the file first, exactly as this process is about to, and reads what this process reads first. If the
kernel has to end it, the file is refused.
"""

import threading
from collections import OrderedDict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from hpcxrf.errors import InputFileError
from hpcxrf.formats import children
from hpcxrf.formats.children import ChildPool
from hpcxrf.formats.scan import ReadOptions

_KNOWN: Final = 1024


@dataclass(slots=True)
class _Looks:
    """What was found of files; of this process alone."""

    pool: ChildPool = field(
        default_factory=lambda: ChildPool(module="hpcxrf.formats.first_look_child", reader="the HDF5 library", most=8)
    )
    guard: threading.Lock = field(default_factory=threading.Lock)
    known: OrderedDict[tuple[object, ...], str] = field(default_factory=OrderedDict)
    """Fault by file and options; empty: none."""
    inside: bool = False
    """This process is a child itself."""


# One of each process: a child that was started for one file serves all others.
_LOOKS: Final = _Looks()


def require_readable(path: Path, options: ReadOptions | None = None, *, read: bool = False) -> None:
    """Let a child look at a file before this process does; a file that did well is not looked at again.

    Args:
        path: an HDF5 file, or a scan of which one is part.
        options: options that it will be opened with.
        read: look at scalars and first rows as well as at the headers.

    Raises:
        InputFileError: the child hung, crashed or ran out of memory over it. What is wrong with the file otherwise
            this process finds itself.
    """
    if _LOOKS.inside:
        return
    try:
        status = path.stat()
    except OSError:
        return
    given = options or ReadOptions()
    key = (str(path.absolute()), status.st_ino, status.st_size, status.st_mtime_ns, given, read)
    with _LOOKS.guard:
        fault = _LOOKS.known.get(key)
    if fault is None:
        question = {"path": str(path.absolute()), "size": status.st_size, "options": asdict(given), "read": read}
        fault = str(children.ask(_LOOKS.pool, question)["fault"])
        with _LOOKS.guard:
            _LOOKS.known[key] = fault
            if len(_LOOKS.known) > _KNOWN:
                _LOOKS.known.popitem(last=False)
    if fault:
        raise InputFileError(f"{path}: {fault}; the file is damaged: copy it again or leave it out")


def become_child() -> None:
    """Say that this process is a child: it looks at files itself."""
    _LOOKS.inside = True
