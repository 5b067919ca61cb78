"""Notes: sentences on a scan, a fit or a run, each with its kind from where it is written."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Note:
    """One sentence for people."""

    kind: Literal["fact", "warning"]
    """`fact`: a choice, or a value with its origin, as it should be. `warning`: something may be wrong, is missing, or
    was not used, and the user should look at it."""
    text: str


def pack_notes(notes: Iterable[Note]) -> dict[str, list[str]]:
    """Make JSON values of notes: `notes`, all sentences as in version 0.1.0, and `warnings`, those that warn.

    A sentence that is both a fact and a warning reads back as a warning.
    """
    every = list(notes)
    return {
        "notes": [note.text for note in every],
        "warnings": list(dict.fromkeys(note.text for note in every if note.kind == "warning")),
    }


def unpack_notes(values: Mapping[str, Any]) -> tuple[Note, ...]:
    """Read notes from JSON values that hold what `pack_notes` made.

    Values without `warnings` were written by version 0.1.0, which knew no kinds: each of their sentences reads as a
    warning, so that nothing that may be wrong is taken for a mere fact.

    Args:
        values: values with the keys `notes` and `warnings`; without `notes` there are none.
    """
    texts = [str(text) for text in values.get("notes", ())]
    warnings = values.get("warnings", texts)
    return tuple(Note("warning" if text in warnings else "fact", text) for text in texts)
