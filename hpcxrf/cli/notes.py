"""Notes of datasets as people read them: merged over detectors and datasets, warnings apart from facts."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from rich.console import Console
from rich.markup import escape

_OF_DETECTOR: Final = re.compile(r"detector (\w+): (.*)", re.DOTALL)
_FROM_DETECTOR: Final = re.compile(r"(starting values from [^,]+), detector (\w+)")
_DOUBT: Final = re.compile(
    r"\b(ATTENTION|not|no|nothing|never|missing|ignored|left out|saturated|at a bound|too few|may|most that it can|"
    r"out of memory|clipped|moved|imply|remove|check|doubt\w*|fail\w*|is taken as|cannot|stopped|excluded|alone|"
    r"indistinguishable)\b"
)
"""Words of a note that speaks of something which may be wrong, beside those that only say what was chosen."""
_NAMED: Final = 3


def print_notes(out: Console, notes: Mapping[str, Sequence[str]]) -> None:
    """Print the notes of datasets, warnings first.

    Args:
        out: console on standard error.
        notes: notes of each dataset, by its name; a name of "" is not printed.
    """
    lines = merge_datasets({name: merge_detectors(of_one) for name, of_one in notes.items()})
    for style, word, wanted in (("yellow", "warning", True), ("", "note", False)):
        for line, text in lines:
            if is_warning(text) == wanted:
                label = f"[{style}]{word}[/]" if style else word
                out.print(f"{label}: {escape(line)}", soft_wrap=True)


def is_warning(note: str) -> bool:
    """Tell a note on something that may be wrong from one that says what was chosen."""
    return _DOUBT.search(note) is not None


def merge_detectors(notes: Iterable[str]) -> list[str]:
    """Make one note of equal ones on several detectors: `detectors 0, 2: ...`."""
    merged: dict[tuple[str, str], list[str]] = {}
    for note in notes:
        own, start = _OF_DETECTOR.fullmatch(note), _FROM_DETECTOR.fullmatch(note)
        if own is not None:
            merged.setdefault(("before", own[2]), []).append(own[1])
        elif start is not None:
            merged.setdefault(("after", start[1]), []).append(start[2])
        else:
            merged.setdefault(("", note), [])
    return [_name_detectors(place, text, list(dict.fromkeys(names))) for (place, text), names in merged.items()]


def _name_detectors(place: str, text: str, names: Sequence[str]) -> str:
    named = f"detector{'s' * (len(names) > 1)} {', '.join(names)}"
    return {"before": f"{named}: {text}", "after": f"{text}, {named}", "": text}[place]


def merge_datasets(notes: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Make one line of equal notes on several datasets.

    Returns:
        Lines as they are printed, each with the note alone.
    """
    names: dict[str, list[str]] = {}
    for name, of_one in notes.items():
        for note in of_one:
            names.setdefault(note, []).append(name)
    return [(_name_datasets(note, list(dict.fromkeys(named))), note) for note, named in names.items()]


def _name_datasets(note: str, names: Sequence[str]) -> str:
    if names == [""]:
        return note
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}: {note}"
