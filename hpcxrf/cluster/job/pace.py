"""Whether workers get on: a task may take hours, but it computes or reads all the while."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from hpcxrf.cluster.job.cluster import WorkerSight

# A worker whose task hangs still talks to the scheduler: measured below 1e-6 of a core and 6 kB/s.
_IDLE_CORES: Final = 0.01
_IDLE_BYTES_PER_S: Final = 3e4


@dataclass(frozen=True, slots=True)
class Pace:
    """A worker since it last got on."""

    worker: WorkerSight
    """What was known of it then, but for `silent_s`, which is of now."""
    since: float
    """Time of that, seconds."""

    def trouble(self, now: float, stalled_s: float) -> str | None:
        """What is wrong with it, in one sentence; None: nothing is.

        Args:
            now: time in seconds.
            stalled_s: seconds without progress that are too many.
        """
        worker, seconds = self.worker, now - self.since
        if worker.silent_s > stalled_s:
            return f"{worker.name} has sent no heartbeat for {worker.silent_s:.0f} s: its node or its process hangs"
        if worker.at_work and seconds > stalled_s:
            tasks = ", ".join(sorted(worker.at_work))
            return f"{worker.name} makes no progress for {seconds:.0f} s in {tasks}: it neither computes nor reads"
        return None


def update_paces(paces: Mapping[str, Pace], workers: Sequence[WorkerSight], now: float) -> dict[str, Pace]:
    """Paces by address of the workers of now, from those of the last look."""
    return {worker.address: _update(paces.get(worker.address), worker, now) for worker in workers}


def _update(pace: Pace | None, worker: WorkerSight, now: float) -> Pace:
    if pace is None or not worker.at_work or _gets_on(pace, worker, now):
        return Pace(worker, now)
    return replace(pace, worker=replace(pace.worker, silent_s=worker.silent_s))


def _gets_on(pace: Pace, worker: WorkerSight, now: float) -> bool:
    """Whether it has done more since than a worker does whose task hangs."""
    seconds, before = now - pace.since, pace.worker
    return (
        worker.at_work != before.at_work
        or worker.busy_s - before.busy_s > 0.5 + _IDLE_CORES * seconds
        or worker.io_bytes - before.io_bytes > _IDLE_BYTES_PER_S * (10.0 + seconds)
    )
