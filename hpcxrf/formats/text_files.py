"""Text files of spectra: read within a bound, decoded, and taken apart into lines and numbers."""

import codecs
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from hpcxrf.errors import InputFileError
from hpcxrf.formats.axes import file_size

LARGEST_TEXT_BYTES: Final = 16 << 20
"""Bytes of the text of some spectra; those of a whole map have more."""
_MOST_LINES: Final = 1 << 20
_FAULTS_SHOWN: Final = 10
_BYTE_ORDER_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LINE_END: Final = re.compile(r"\r\n|\n|\r")
# Possessive: a word of a million digits is looked at once.
_LEADING_NUMBER: Final = re.compile(r"\s*+,?\s*+([+-]?(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][+-]?\d++)?+)(?![\w.])")
_DECIMAL_COMMA: Final = re.compile(r"\s*([+-]?\d+),(\d+(?:[eE][+-]?\d+)?)\s*$")


def read_text(path: Path, what: str, largest_bytes: int = LARGEST_TEXT_BYTES) -> str:
    """Read a text file whole: UTF-8 or UTF-16 by its mark, else Latin-1, which every instrument's text is near to.

    Args:
        path: the file.
        what: name of the format, for messages.
        largest_bytes: largest size that is read.

    Raises:
        InputFileError: the file is missing, empty, unreadable, too large or not text.
    """
    size = file_size(path)
    if size > largest_bytes:
        raise InputFileError(
            f"{path}: {size} bytes; {what} is read up to {largest_bytes} bytes, split it or convert it to HDF5"
        )
    try:
        with path.open("rb") as file:
            content = file.read(largest_bytes)
    except OSError as error:
        raise InputFileError(f"{path}: cannot be read: {error.strerror}; check its permissions") from error
    text = decode_text(content)
    if "\0" in text:
        raise InputFileError(f"{path}: holds zero bytes and is not {what}; copy it again from the instrument")
    if max(text.count("\n"), text.count("\r")) > _MOST_LINES:
        raise InputFileError(f"{path}: more than {_MOST_LINES} lines; {what} has fewer, split it or convert it to HDF5")
    return text


def decode_text(content: bytes) -> str:
    """Decode bytes without a failure: what is not valid becomes a replacement character."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            return content.decode(encoding, errors="replace")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def split_lines(text: str) -> list[str]:
    """Split at the line ends of Unix, Windows and old Macs only."""
    return _LINE_END.split(text)


def parse_number(word: str) -> float:
    """Parse one decimal number; NaN where the word is something else, including `nan`, `inf` and `1_000`."""
    try:
        value = float(word)
    except ValueError:
        return math.nan
    return math.nan if "_" in word else value


def parse_numbers(words: Iterable[str]) -> list[float] | None:
    """Parse words that must all be finite numbers; None where one is not."""
    values: list[float] = []
    for word in words:
        value = parse_number(word)
        if not math.isfinite(value):
            return None
        values.append(value)
    return values


def parse_leading_numbers(text: str, *, one: bool = True) -> tuple[float, ...]:
    """Parse the numbers that a value begins with, as `7.8, 7.9 eV per channel`.

    Args:
        text: the value.
        one: it may be one number with a decimal comma, as `0,01`; False where a comma always separates.
    """
    comma = _DECIMAL_COMMA.match(text) if one else None
    if comma is not None:
        text = f"{comma[1]}.{comma[2]}"
    numbers: list[float] = []
    place = 0
    while (match := _LEADING_NUMBER.match(text, place)) is not None:
        numbers.append(float(match[1]))
        place = match.end()
    return tuple(numbers) if all(map(math.isfinite, numbers)) else ()


def refuse_faults(path: Path, faults: Sequence[str]) -> None:
    """Raise one error with all that is wrong.

    Raises:
        InputFileError: there is at least one fault; the first ten are shown.
    """
    if not faults:
        return
    more = len(faults) - _FAULTS_SHOWN
    shown = [f"{path}: {fault}" for fault in faults[:_FAULTS_SHOWN]]
    raise InputFileError("\n".join([*shown, *([f"... and {more} more"] if more > 0 else [])]))
