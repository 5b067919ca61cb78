"""Tables of numbers in text: commas, semicolons, tabs or blanks between them, a point or a comma in them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.formats.text_files import parse_numbers

_COMMENT: Final = "#;%!/*'\""
_SAMPLE: Final = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How numbers are separated and written."""

    separator: str | None
    """None: blanks."""
    decimal_comma: bool

    def split(self, line: str) -> list[str]:
        """Split a line into words without the blanks around them; separators at its end are nothing."""
        words = line.split(self.separator)
        if self.separator is not None:
            words = [word.strip() for word in words]
            while words and not words[-1]:
                words.pop()
        return [word.replace(",", ".") for word in words] if self.decimal_comma else words


_DIALECTS: Final = tuple(
    Dialect(separator=separator, decimal_comma=comma)
    for separator, comma in ((";", True), ("\t", True), (None, True), (",", False), (";", False), (None, False))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberTable:
    """The longest run of lines that hold the same number of numbers."""

    values: NDArray[np.float64]
    """(line, column)."""
    before: tuple[str, ...]
    """Lines above the table."""
    after: tuple[str, ...]
    """Lines below it, without empty ones."""
    labels: tuple[str, ...]
    """Names of the columns, from the line above the table; empty if there are none."""


def find_table(lines: Sequence[str]) -> NumberTable | None:
    """Find the table of numbers in the lines of a text; None if there is none."""
    start = next((i for i, line in enumerate(lines) if _begins_number(line)), None)
    if start is None:
        return None
    sample = list(lines[start : start + _SAMPLE])
    # More columns win a tie: `1,20` in each line is a channel and its counts, not a decimal number.
    best = max(_DIALECTS, key=lambda dialect: _measure_run(sample, dialect))
    runs = list(_list_runs(lines, best))
    if not runs:
        return None
    first, rows = max(runs, key=lambda run: len(run[1]))
    last = first + len(rows)
    while last < len(lines) and not lines[last].strip():
        last += 1
    return NumberTable(
        values=np.array(rows),
        before=tuple(lines[:first]),
        after=tuple(line for line in lines[last:] if line.strip()),
        labels=_find_labels(lines[:first], len(rows[0])),
    )


def _begins_number(line: str) -> bool:
    text = line.strip().lstrip(",;\t")
    return text[:1].isdigit() or (text[:1] in {"-", "+", "."} and text[1:2].isdigit())


def _measure_run(lines: Sequence[str], dialect: Dialect) -> tuple[int, int]:
    """Measure the longest run: lines and columns."""
    return max(((len(rows), len(rows[0])) for _, rows in _list_runs(lines, dialect)), default=(0, 0))


def _list_runs(lines: Sequence[str], dialect: Dialect) -> Iterator[tuple[int, list[list[float]]]]:
    """List runs of lines of equally many numbers: the place of the first line, and the rows."""
    first, rows = 0, list[list[float]]()
    for place, line in enumerate(lines):
        row = parse_numbers(dialect.split(line)) if line and not line.isspace() else None
        if rows and (row is None or len(row) != len(rows[0])):
            yield first, rows
            rows = []
        if row:
            first = first if rows else place
            rows.append(row)
    if rows:
        yield first, rows


def _find_labels(lines: Sequence[str], n_columns: int) -> tuple[str, ...]:
    """Find the names of the columns in the last line of text above the table."""
    line = next((line for line in reversed(lines) if line.strip()), "")
    text = line.strip().lstrip(_COMMENT).strip()
    for pattern in (r"\t+", r";", r",", r"\s{2,}", r"\s+"):
        words = [word.strip(" \"'") for word in re.split(pattern, text)]
        while words and not words[-1]:
            words.pop()
        if len(words) == n_columns and any(re.search("[A-Za-z]", word) for word in words):
            return tuple(words)
    return ()
