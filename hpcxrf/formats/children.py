"""Child processes that read what others have written, with limits of processor time and memory.

The HDF5 library loops for ever on some damaged files, allocates what their headers claim, or crashes, and nothing
within the process can stop it. So a child reads them, and the kernel ends it where it has to. One child answers many
questions, one after the other: it costs some 0.3 s once, and a millisecond or two a file.

Limits are of processor time, not of the clock: a file system that is slow today does not make a file a bad one.
"""

import atexit
import json
import os
import queue
import resource
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hpcxrf.errors import InputFileError

CPU_S: Final = 2.5
"""Processor seconds for a small file."""
CPU_S_PER_MB: Final = 1.0
CPU_S_MOST: Final = 600.0
CLOCK_S: Final = 120.0
"""Seconds without an answer after which a file is refused although no time was used: something waits for ever."""
MEMORY_BYTES: Final = 384 * 2**20
"""Bytes of memory for a small file, above those of the libraries."""
MEMORY_RATIO: Final = 300
"""The same for larger ones: bytes per byte of the file."""
_PATIENCE_S: Final = 0.2
"""Wait for a child that is busy before another is started."""
_IDLE_S: Final = 1.0


@dataclass(slots=True, kw_only=True)
class ChildPool:
    """Children that run one module and wait for questions; of this process alone."""

    module: str
    """Module that calls `serve`."""
    reader: str
    """Name of what may crash, for messages: `the HDF5 library`."""
    most: int
    """Most children at a time."""
    idle: "queue.SimpleQueue[subprocess.Popen[bytes]]" = field(default_factory=queue.SimpleQueue)
    started: int = 0
    alive: "set[subprocess.Popen[bytes]]" = field(default_factory=set)
    guard: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        # They would notice the end of this process by themselves, but later.
        atexit.register(end_children, self)


def ask(pool: ChildPool, question: Mapping[str, Any]) -> dict[str, Any]:
    """Ask a child that is idle, or a new one.

    Args:
        pool: its children.
        question: JSON values; `size`, bytes of the file, sets the limits.

    Returns:
        The answer; where the child ended instead of answering, `fault` says why and there is nothing else.

    Raises:
        InputFileError: no child can be started.
    """
    child = take_child(pool)
    try:
        answer = _talk(child, json.dumps(question).encode() + b"\n")
    except BaseException:
        end_child(pool, child)
        raise
    if answer is not None:
        pool.idle.put(child)
        return answer
    return {"fault": _describe_end(end_child(pool, child), pool.reader)}


def _describe_end(code: int, reader: str) -> str:
    if code >= 0:
        return f"ended the process that looked at it first (exit code {code})"
    crash = f"makes {reader} crash"
    reasons = {
        signal.SIGPROF: f"keeps {reader} busy without an end",
        signal.SIGSEGV: crash,
        signal.SIGABRT: crash,
        signal.SIGBUS: crash,
        signal.SIGKILL: f"takes more memory than there is, or more than {CLOCK_S:g} s",
    }
    return reasons.get(signal.Signals(-code), f"ended the reader by signal {-code}")


def take_child(pool: ChildPool) -> "subprocess.Popen[bytes]":
    """Take a child that is idle, start one, or wait where there are as many as may be."""
    # Again and again: a child that dies on its file never becomes idle, but makes room for another.
    while True:
        try:
            return pool.idle.get(timeout=_PATIENCE_S if pool.started else 0.0)
        except queue.Empty:
            pass
        with pool.guard:
            may_start = pool.started < pool.most
            pool.started += may_start
        if may_start:
            return _start(pool)


def _start(pool: ChildPool) -> "subprocess.Popen[bytes]":
    root = str(Path(__file__).resolve().parents[2])
    known = os.environ.get("PYTHONPATH")
    environment = {
        **os.environ,
        "PYTHONPATH": root if not known else f"{root}{os.pathsep}{known}",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    try:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", pool.module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the parent, whose end the child notices
        )
    except OSError as error:
        with pool.guard:
            pool.started -= 1
        raise InputFileError(
            f"the process that looks at files first cannot be started: {error.strerror}; allow more processes"
        ) from error
    with pool.guard:
        pool.alive.add(child)
    return child


def _talk(child: "subprocess.Popen[bytes]", question: bytes) -> dict[str, Any] | None:
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
    if not line.endswith(b"\n"):
        return None
    answer: dict[str, Any] = json.loads(line)
    return answer


def end_child(pool: ChildPool, child: "subprocess.Popen[bytes]") -> int:
    """End a child; its exit code."""
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()
    try:
        code = child.wait(timeout=_IDLE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        code = child.wait()
    with pool.guard:
        pool.started -= 1
        pool.alive.discard(child)
    return code


def kill_children(pool: ChildPool) -> None:
    """End all children at once, whatever they are at: their answers are not waited for."""
    with pool.guard:
        for child in pool.alive:
            child.kill()


def end_children(pool: ChildPool) -> None:
    """End the children that wait."""
    while True:
        try:
            child = pool.idle.get(block=False)
        except queue.Empty:
            return
        end_child(pool, child)


# The child's side ---------------------------------------------------------------------------------


def serve(
    answer: Callable[[dict[str, Any]], dict[str, Any]],
    prepare: Callable[[dict[str, Any]], None] = lambda _question: None,
) -> None:
    """Answer the questions on standard input, a line of JSON each, until there are no more.

    Args:
        answer: takes a question and gives its answer, whose `fault` says what was wrong with the file; an exception
            that leaves it has no answer but an empty fault, or that of memory.
        prepare: loads what a question needs, outside of the limits, which are for the file.
    """
    for line in sys.stdin.buffer:
        question = json.loads(line)
        prepare(question)
        sys.stdout.write(json.dumps(_answer_within(answer, question)) + "\n")
        sys.stdout.flush()


def _answer_within(answer: Callable[[dict[str, Any]], dict[str, Any]], question: dict[str, Any]) -> dict[str, Any]:
    try:
        with _limits(question["size"]):
            return answer(question)
    except Exception as error:  # noqa: BLE001 - what is wrong with the file is for `answer` to say, but for this
        return {"fault": "asks for more memory than such a file can need" if is_short_of_memory(error) else ""}


@contextmanager
def _limits(size: int) -> Iterator[None]:
    """Let the kernel end this process where a file of `size` bytes takes more than it can need."""
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    room = used + MEMORY_BYTES + MEMORY_RATIO * size
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (room if hard == resource.RLIM_INFINITY else min(room, hard), hard))
    # At its end the kernel ends this process, wherever it is: no handler of Python would be reached.
    signal.setitimer(signal.ITIMER_PROF, min(CPU_S + CPU_S_PER_MB * size / 2**20, CPU_S_MOST))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)


def is_short_of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out, whatever was made of that error on its way."""
    while error is not None:
        text = str(error).lower()
        if isinstance(error, MemoryError) or "memory allocation failed" in text or "unable to allocate" in text:
            return True
        error = error.__cause__ or error.__context__
    return False
