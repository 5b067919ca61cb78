"""What is told of watched folders: to the terminal, to scripts and to the page."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal[
    "found before", "growing", "view", "incomplete", "taken", "done", "failed", "left out", "replaced", "moved", "gone",
    "folder", "ended",
]  # fmt: skip
"""`found before`: done by an earlier call; `growing`: something is still to come; `view`: a first view of its complete
rows; `incomplete`: taken as it is, since it did not change for long; `folder`: one that cannot be listed; `ended`: the
watching."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveEvent:
    """One thing that happened."""

    kind: Kind
    name: str = ""
    """Name of the file, for people."""
    path: str = ""
    dataset_id: str = ""
    text: str = ""
    """Sentence for people; empty where name and values say all."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """JSON values: of a scan that is done `verdict`, `r2`, `elements`, `shape`, `seconds`, `cpu_s` and `late_s`, the
    seconds from the last change that was seen of its files to its results."""


Tell = Callable[[LiveEvent], None]
