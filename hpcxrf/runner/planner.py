"""Opens the items of a plan ahead of the driver, in a thread: the first is at work while the last is not yet found."""

import queue
import threading
from collections.abc import Iterator
from typing import Final

from hpcxrf.runner.workload import Planned

_AHEAD: Final = 64


class Planner:
    """A bounded number of planned items, filled by a thread; what the plan raises, the driver gets."""

    def __init__(self, planned: Iterator[Planned]) -> None:
        self._planned = planned
        self._ready: queue.Queue[Planned | BaseException | None] = queue.Queue(maxsize=_AHEAD)
        self._stopped = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._fill, name="planner", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether everything was handed out."""
        return self._ended

    def take(self) -> Planned | None:
        """The next item, if one is ready.

        Raises:
            HpcxrfError: the plan cannot go on.
        """
        try:
            found = self._ready.get_nowait()
        except queue.Empty:
            return None
        self._ended = found is None or isinstance(found, BaseException)
        if isinstance(found, BaseException):
            raise found
        return found

    def stop(self) -> None:
        """Open no more files."""
        self._stopped.set()
        self._ended = True

    def _fill(self) -> None:
        last: BaseException | None = None
        try:
            for one in self._planned:
                if not self._put(one):
                    return
        except BaseException as error:  # noqa: BLE001 (handed to the driver's thread, which raises it)
            last = error
        self._put(last)

    def _put(self, one: Planned | BaseException | None) -> bool:
        while not self._stopped.is_set():
            try:
                self._ready.put(one, timeout=0.2)
            except queue.Full:
                continue
            return True
        return False
