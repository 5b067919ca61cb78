"""First views of scans that grow: at most one is fitted at a time, and none again without new rows."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from hpcxrf.archive.live.events import LiveEvent, Tell
from hpcxrf.archive.live.scans import Decision
from hpcxrf.errors import HpcxrfError

EVERY_S: Final = 15.0
"""Seconds from one view of a scan to the next, at least."""
LEAST_ROWS: Final = 2
LIMIT_S: Final = 120.0
"""Seconds after which a view is given up: a file over which workers die would be fitted again for ever."""


class Future(Protocol):
    """What a worker does meanwhile."""

    def done(self) -> bool:
        """Whether it has ended."""

    def result(self) -> dict[str, Any]:
        """What it returned; an error is raised."""

    def cancel(self) -> object:
        """Give it up."""


BeginView = Callable[[Path, int | None], Future | None]


@dataclass(slots=True)
class Views:
    """The views of all scans that grow."""

    begin: BeginView
    """Begins to fit the complete rows of a scan (None: all but its last one) on a worker; None: not now."""
    tell: Tell
    last: dict[str, tuple[float, object]] = field(default_factory=dict)
    """Time of the last view of a scan, and what it was of."""
    running: tuple[str, Future, float] | None = None
    """Scan, view and the time of its beginning."""

    def offer(self, lead: str, decision: Decision, stamps: object, now_s: float) -> None:
        """Begin a view of a scan, where it has new rows and no other view runs."""
        rows = decision.rows_done
        if self.running is not None or not decision.by_rows or (rows is not None and rows < LEAST_ROWS):
            return
        seen = stamps if rows is None else rows
        at_s, before = self.last.get(lead, (-EVERY_S, None))
        if now_s - at_s < EVERY_S or seen == before:
            return
        begun = self.begin(Path(lead), rows)
        if begun is not None:
            self.last[lead] = (now_s, seen)
            self.running = (lead, begun, now_s)

    def collect(self, now_s: float) -> None:
        """Tell of the view that has ended."""
        if self.running is None:
            return
        lead, future, began_s = self.running
        late = now_s - began_s > LIMIT_S
        if not (future.done() or late):
            return
        self.running = None
        if lead not in self.last:
            return
        if late and not future.done():
            future.cancel()
            # No further one before it is complete.
            self.last[lead] = (float("inf"), None)
            return
        try:
            values = future.result()
        except HpcxrfError as error:
            # Rows that cannot be fitted yet: the next view has more of them.
            values, text = {}, str(error)
        except Exception as error:  # noqa: BLE001 (a worker that died takes a view with it, and nothing else)
            values, text = {}, f"{type(error).__name__}: {error}"
        else:
            text = ""
        self.tell(LiveEvent(kind="view", name=os.path.split(lead)[1], path=lead, text=text, values=values))

    def forget(self, lead: str) -> None:
        """A scan is complete: a view of it that is still to come is of no use."""
        self.last.pop(lead, None)
