"""The first look at an HDF5 file, in a child process with limits of processor time and memory.

The HDF5 library loops for ever on some damaged files, allocates what their headers claim, or crashes, and nothing
within the process can stop it. So a child opens the file first, exactly as this process is about to, and reads what
this process reads first. If the kernel has to end it, the file is refused. One child looks at many files, one after the
other: it costs some 0.3 s once, and a millisecond or two a file.

Limits are of processor time, not of the clock: a file system that is slow today does not make a file a bad one.
"""

import atexit
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
from collections import OrderedDict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from hpcxrf.errors import InputFileError
from hpcxrf.formats.scan import ReadOptions

CPU_S: Final = 2.5
"""Processor seconds of a look at a small file."""
CPU_S_PER_MB: Final = 1.0
CPU_S_MOST: Final = 600.0
CLOCK_S: Final = 120.0
"""Seconds without an answer after which a file is refused although no time was used: something waits for ever."""
MEMORY_BYTES: Final = 384 * 2**20
"""Bytes of memory for a look at a small file, above those of the libraries."""
MEMORY_RATIO: Final = 300
"""The same for larger ones: bytes per byte of the file."""
_MOST_CHILDREN: Final = 8
_PATIENCE_S: Final = 0.2
"""Wait for a child that is busy before another is started."""
_KNOWN: Final = 1024
_SIGNALS: Final = {
    signal.SIGPROF: "keeps the HDF5 library busy without an end",
    signal.SIGSEGV: "makes the HDF5 library crash",
    signal.SIGABRT: "makes the HDF5 library crash",
    signal.SIGBUS: "makes the HDF5 library crash",
    signal.SIGKILL: f"takes more memory than there is, or more than {CLOCK_S:g} s",
}


@dataclass(slots=True)
class _Children:
    """Children that wait for work, and what they found of files; of this process alone."""

    idle: "queue.SimpleQueue[subprocess.Popen[bytes]]" = field(default_factory=queue.SimpleQueue)
    started: int = 0
    guard: threading.Lock = field(default_factory=threading.Lock)
    known: OrderedDict[tuple[object, ...], str] = field(default_factory=OrderedDict)
    """Fault by file and options; empty: none."""
    inside: bool = False
    """This process is a child itself."""


# One of each process: a child that was started for one file serves all others.
_CHILDREN: Final = _Children()


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
    if _CHILDREN.inside:
        return
    try:
        status = path.stat()
    except OSError:
        return
    given = options or ReadOptions()
    key = (str(path.absolute()), status.st_ino, status.st_size, status.st_mtime_ns, given, read)
    with _CHILDREN.guard:
        fault = _CHILDREN.known.get(key)
    if fault is None:
        fault = _ask(path, status.st_size, given, read=read)
        with _CHILDREN.guard:
            _CHILDREN.known[key] = fault
            if len(_CHILDREN.known) > _KNOWN:
                _CHILDREN.known.popitem(last=False)
    if fault:
        raise InputFileError(f"{path}: {fault}; the file is damaged: copy it again or leave it out")


def _ask(path: Path, size: int, options: ReadOptions, *, read: bool) -> str:
    """Find the fault of a file, empty if there is none, with a child that is idle, or a new one."""
    question = {"path": str(path.absolute()), "size": size, "options": asdict(options), "read": read}
    child = _take_child()
    try:
        answer = _talk(child, json.dumps(question).encode() + b"\n")
    except BaseException:
        _end(child)
        raise
    if answer is not None:
        _CHILDREN.idle.put(child)
        return answer
    code = _end(child)
    return _SIGNALS.get(signal.Signals(-code), f"ended the reader by signal {-code}") if code < 0 else _describe(code)


def _describe(code: int) -> str:
    return f"ended the process that looked at it first (exit code {code})"


def _take_child() -> "subprocess.Popen[bytes]":
    # Again and again: a child that dies on its file never becomes idle, but makes room for another.
    while True:
        try:
            return _CHILDREN.idle.get(timeout=_PATIENCE_S if _CHILDREN.started else 0.0)
        except queue.Empty:
            pass
        with _CHILDREN.guard:
            may_start = _CHILDREN.started < _MOST_CHILDREN
            _CHILDREN.started += may_start
        if may_start:
            return _start()


def _start() -> "subprocess.Popen[bytes]":
    root = str(Path(__file__).resolve().parents[2])
    known = os.environ.get("PYTHONPATH")
    environment = {
        **os.environ,
        "PYTHONPATH": root if not known else f"{root}{os.pathsep}{known}",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "hpcxrf.formats.first_look_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the parent, whose end the child notices
        )
    except OSError as error:
        with _CHILDREN.guard:
            _CHILDREN.started -= 1
        raise InputFileError(
            f"the process that looks at HDF5 files first cannot be started: {error.strerror}; allow more processes"
        ) from error


def _talk(child: "subprocess.Popen[bytes]", question: bytes) -> str | None:
    """Ask a child; None: it ended instead of answering, or has to be ended."""
    if child.stdin is None or child.stdout is None:
        raise ValueError("the child has no pipes")
    try:
        child.stdin.write(question)
        child.stdin.flush()
    except BrokenPipeError:
        return None
    poll = select.poll()
    poll.register(child.stdout, select.POLLIN | select.POLLHUP)
    if not poll.poll(CLOCK_S * 1000.0):
        child.kill()
        return None
    line = child.stdout.readline()
    return str(json.loads(line)["fault"]) if line.endswith(b"\n") else None


def _end(child: "subprocess.Popen[bytes]") -> int:
    """End a child; its exit code."""
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()
    try:
        code = child.wait(timeout=1.0)
    except subprocess.TimeoutExpired:
        child.kill()
        code = child.wait()
    with _CHILDREN.guard:
        _CHILDREN.started -= 1
    return code


def become_child() -> None:
    """Say that this process is a child: it looks at files itself."""
    _CHILDREN.inside = True


@atexit.register
def end_children() -> None:
    """End the children that wait; they would notice the end of this process by themselves."""
    while True:
        try:
            child = _CHILDREN.idle.get(block=False)
        except queue.Empty:
            return
        _end(child)
