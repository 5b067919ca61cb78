"""Notes of datasets as people read them: merged over detectors and datasets, warnings apart from facts."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from rich.console import Console
from rich.markup import escape

from hpcxrf.notes import Note

_OF_DETECTOR: Final = re.compile(r"detector (\w+): (.*)", re.DOTALL)
_FROM_DETECTOR: Final = re.compile(r"(starting values from [^,]+), detector (\w+)")
_NAMED: Final = 3


def print_notes(out: Console, notes: Mapping[str, Sequence[Note]]) -> None:
    """Print the notes of datasets, warnings first.

    Args:
        out: console on standard error.
        notes: notes of each dataset, by its name; a name of "" is not printed.
    """
    lines = merge_datasets({name: merge_detectors(of_one) for name, of_one in notes.items()})
    for wanted in ("warning", "fact"):
        for line, note in lines:
            if note.kind == wanted:
                out.print(f"{label_note(note)}: {escape(line)}", soft_wrap=True)


def label_note(note: Note) -> str:
    """Write the word before a note, with the terminal's markup."""
    return "[yellow]warning[/]" if note.kind == "warning" else "note"


def merge_detectors(notes: Iterable[Note]) -> list[Note]:
    """Make one note of equal ones on several detectors: `detectors 0, 2: ...`."""
    merged: dict[tuple[str, Note], list[str]] = {}
    for note in notes:
        own, start = _OF_DETECTOR.fullmatch(note.text), _FROM_DETECTOR.fullmatch(note.text)
        if own is not None:
            merged.setdefault(("before", Note(note.kind, own[2])), []).append(own[1])
        elif start is not None:
            merged.setdefault(("after", Note(note.kind, start[1])), []).append(start[2])
        else:
            merged.setdefault(("", note), [])
    return [
        Note(note.kind, _name_detectors(place, note.text, list(dict.fromkeys(names))))
        for (place, note), names in merged.items()
    ]


def _name_detectors(place: str, text: str, names: Sequence[str]) -> str:
    named = f"detector{'s' * (len(names) > 1)} {', '.join(names)}"
    return {"before": f"{named}: {text}", "after": f"{text}, {named}", "": text}[place]


def merge_datasets(notes: Mapping[str, Sequence[Note]]) -> list[tuple[str, Note]]:
    """Make one line of equal notes on several datasets.

    Returns:
        Lines as they are printed, each with the note alone.
    """
    names: dict[Note, list[str]] = {}
    for name, of_one in notes.items():
        for note in of_one:
            names.setdefault(note, []).append(name)
    return [(_name_datasets(note.text, list(dict.fromkeys(named))), note) for note, named in names.items()]


def _name_datasets(text: str, names: Sequence[str]) -> str:
    if names == [""]:
        return text
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}: {text}"
