"""What the driver tells and asks whoever owns the cluster, and how a run ended."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from hpcxrf.runner.records import DatasetRecord

DatasetEvent = Literal["planned", "begun", "ended", "done", "failed", "not tried"]
"""`ended` follows every `begun`; the last three may come without: files that cannot be opened, items found finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One task ended, was found finished, or will not be tried."""

    stage: str
    pixels: int
    ok: bool
    found: bool = False
    """It was finished by an earlier driver."""
    tried: bool = True
    """False: a failed one kept it from running."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What the driver asks and tells whoever owns the cluster; callables that return at once."""

    stopping: Callable[[], bool] = lambda: False
    """Whether to feed no more: what waits is given up, what is at work may end. It may raise, to end the run."""
    patience_over: Callable[[], bool] = lambda: False
    """While stopping: whether to give up what is at work, too."""
    at_work: Callable[[], frozenset[str]] = frozenset
    """Keys of the tasks that workers are running."""
    dataset: Callable[[DatasetEvent], None] = lambda _event: None
    """Takes every item when it is planned, begins and ends."""
    record: Callable[[DatasetRecord], None] = lambda _record: None
    """Takes how an item ended, once that is written down; not of items that an earlier driver finished."""
    units: Callable[[Mapping[str, int]], None] = lambda _counts: None
    """Takes the number of tasks by stage of every item, when they are known."""
    all_begun: Callable[[], None] = lambda: None
    """Called once, when no item waits to begin any more: the tasks of every stage are known."""
    progress: Callable[[Progress], None] = lambda _progress: None
    """Takes every task that ends."""


@dataclass(slots=True)
class Ended:
    """How the items of a run ended, in numbers; each one's own line is in `datasets.jsonl`."""

    done: int = 0
    failed: int = 0
    not_tried: int = 0
    left: int = 0
    """Not finished, since the run was stopped; a resumed one goes on with them."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Reason by dataset_id of what failed or was not tried, at most 1000 of them."""

    @property
    def total(self) -> int:
        """All that the plan had so far."""
        return self.done + self.failed + self.not_tried + self.left
