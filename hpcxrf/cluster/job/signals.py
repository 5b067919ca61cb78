"""Signals of a job: USR1 says that its time is nearly over, TERM that it is."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from hpcxrf.errors import EXIT_RESUMABLE


@dataclass(slots=True)
class JobSignals:
    """Signals that came so far."""

    drain_began: float | None = None
    """Monotonic time of USR1; None: it has not come."""
    terminated: bool = False
    """Whether TERM has come."""
    patient: bool = False
    """Whether TERM is only noted: there is nothing left to be stopped."""

    @property
    def draining(self) -> bool:
        """Whether to feed no more."""
        return self.drain_began is not None

    def drained(self, drain_s: float) -> bool:
        """Whether tasks at work have had their time."""
        return self.drain_began is not None and time.monotonic() - self.drain_began > drain_s

    def on_usr1(self, _number: int, _frame: FrameType | None) -> None:
        """The time limit is near."""
        if self.drain_began is None:
            self.drain_began = time.monotonic()

    def on_term(self, _number: int, _frame: FrameType | None) -> None:
        """Preempted, cancelled or out of time: leave, once."""
        first, self.terminated = not self.terminated, True
        if first and not self.patient:
            sys.exit(EXIT_RESUMABLE)


@contextmanager
def job_signals() -> Iterator[JobSignals]:
    """Catch both while the block runs."""
    signals = JobSignals()
    before = {
        signal.SIGUSR1: signal.signal(signal.SIGUSR1, signals.on_usr1),
        signal.SIGTERM: signal.signal(signal.SIGTERM, signals.on_term),
    }
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
