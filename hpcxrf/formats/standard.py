"""Thin-film standards of MAPS and XRF-Maps (`maps_standardinfo.txt`): which file, which elements, how much."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcxrf.config.untrusted import read_regular
from hpcxrf.errors import InputFileError

_KEY: Final = re.compile(r"\ufeff?\s*(FILENAME|ELEMENTS_IN_STANDARD|WEIGHT)\s*:(.*)")
_NUMBER: Final = re.compile(r"\+?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_LARGEST_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Standard:
    """One measured standard."""

    filename: str
    """Name of its scan, beside which the file of standards lies or in `mda/`."""
    elements: tuple[str, ...]
    areal_density_ug_cm2: Mapping[str, float]
    """Areal density by element."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    line: int
    key: str
    words: tuple[str, ...]


def read_standards(path: Path) -> tuple[Standard, ...]:
    """Read all standards of a file; each begins with its FILENAME.

    Raises:
        InputFileError: the file cannot be read, or standards are not complete; all faults with their lines.
    """
    text = read_regular(path, InputFileError, largest=_LARGEST_BYTES).decode("utf-8", "replace")
    groups = _group_entries(_parse_entries(text))
    if not groups:
        raise InputFileError(
            f"{path}: no line FILENAME: name of a scan; each standard has FILENAME, ELEMENTS_IN_STANDARD and WEIGHT"
        )
    faults = [fault for group in groups for fault in _check_group(group)]
    if faults:
        raise InputFileError("\n".join(f"{path}: {fault}" for fault in faults))
    return tuple(map(_build_standard, groups))


def _parse_entries(text: str) -> list[_Entry]:
    found = ((i, _KEY.match(line)) for i, line in enumerate(re.split(r"\r\n|\n|\r", text), start=1))
    return [_Entry(line=i, key=m[1], words=_split_words(m[1], m[2].strip())) for i, m in found if m is not None]


def _split_words(key: str, text: str) -> tuple[str, ...]:
    """A file name may hold spaces."""
    if key == "FILENAME":
        return (text,) if text else ()
    return tuple(text.replace(",", " ").split())


def _group_entries(entries: list[_Entry]) -> list[list[_Entry]]:
    groups: list[list[_Entry]] = []
    for entry in entries:
        if entry.key == "FILENAME" or not groups:
            groups.append([])
        groups[-1].append(entry)
    return groups


def _check_group(group: list[_Entry]) -> list[str]:
    found = {e.key: e for e in group}
    where = f"standard at line {group[0].line}"
    missing = [
        f"{where}: {key} is missing or empty"
        for key in ("FILENAME", "ELEMENTS_IN_STANDARD", "WEIGHT")
        if key not in found or not found[key].words
    ]
    if missing:
        return missing
    elements, weights = found["ELEMENTS_IN_STANDARD"], found["WEIGHT"]
    faults = [
        f"line {weights.line}: WEIGHT {word!r} must be a number above 0, in ug/cm2"
        for word in weights.words
        if _NUMBER.fullmatch(word) is None or float(word) <= 0.0
    ]
    if len(elements.words) != len(weights.words):
        faults.append(
            f"line {weights.line}: {len(weights.words)} weights for {len(elements.words)} elements; must be one each"
        )
    if len(set(elements.words)) != len(elements.words):
        faults.append(f"line {elements.line}: an element comes twice: {', '.join(elements.words)}")
    return faults


def _build_standard(group: list[_Entry]) -> Standard:
    words = {e.key: e.words for e in group}
    elements = words["ELEMENTS_IN_STANDARD"]
    weights = map(float, words["WEIGHT"])
    return Standard(
        filename=words["FILENAME"][0], elements=elements, areal_density_ug_cm2=dict(zip(elements, weights, strict=True))
    )
