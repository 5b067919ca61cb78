"""A child process that reads and writes JSON lines: started, asked, interrupted, ended."""

import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, Final

GRACE_S: Final = 2.0
"""How long a child may go on with what is over before it is killed."""
_PAUSE_S: Final = 0.05
_INTERRUPT: Final = signal.SIGUSR1
_THREADS: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(slots=True, kw_only=True)
class Child:
    """A running child; one thread asks and reads, any thread may interrupt or kill."""

    process: subprocess.Popen[bytes]
    stdin: IO[bytes]
    stdout: IO[bytes]
    errors: IO[bytes]
    buffer: bytes = b""

    def send(self, line: bytes) -> bool:
        """Hand it a line; False: it is gone."""
        try:
            self.stdin.write(line)
            self.stdin.flush()
        except BrokenPipeError:
            return False
        return True

    def read(self, is_over: Callable[[], bool] = lambda: False) -> dict[str, Any] | None:
        """Wait for its next line; None: it has ended, or was killed as it did not leave what is over.

        Args:
            is_over: whether nobody wants the line any more.
        """
        over_s: float | None = None
        while b"\n" not in self.buffer:
            if select.select([self.stdout], [], [], _PAUSE_S)[0]:
                read = os.read(self.stdout.fileno(), 1 << 20)
                if not read:
                    return None
                self.buffer += read
            elif is_over():
                over_s = time.monotonic() if over_s is None else over_s
                if time.monotonic() - over_s > GRACE_S:
                    self.process.kill()
        line, _, self.buffer = self.buffer.partition(b"\n")
        return dict(json.loads(line))

    def interrupt(self) -> None:
        """Have it leave what it is doing."""
        self.process.send_signal(_INTERRUPT)

    def describe_end(self) -> str:
        """Say how it ended."""
        try:
            code = self.process.wait(timeout=GRACE_S)
        except subprocess.TimeoutExpired:
            return "the fit process answers no more"
        if code < 0:
            return f"the fit process was ended by signal {-code}"
        self.errors.seek(0)
        lines = self.errors.read().decode("utf-8", "replace").strip().splitlines()
        return f"the fit process ended with code {code}" + (f": {lines[-1][:200]}" if lines else "")

    def stop(self) -> None:
        """Kill it, and let go of everything."""
        self.process.kill()
        self.process.wait()
        for stream in (self.stdin, self.stdout, self.errors):
            with suppress(BrokenPipeError):
                stream.close()


def launch(command: Sequence[str]) -> Child:
    """Start a child with one thread for numerics; Ctrl-C in a terminal does not reach it.

    Args:
        command: program and arguments.

    Raises:
        OSError: it cannot be started.
    """
    errors = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as the child
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env={**os.environ, **dict.fromkeys(_THREADS, "1")},
        start_new_session=True,
    )
    if process.stdin is None or process.stdout is None:
        raise OSError("the child has no pipes")
    return Child(process=process, stdin=process.stdin, stdout=process.stdout, errors=errors)
