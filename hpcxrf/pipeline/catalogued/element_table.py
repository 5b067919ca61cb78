"""Elements of scans of a catalogue, from a table: a pattern of their paths, or their sample, to a list."""

import csv
import fnmatch
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcxrf.config.sample import AUTO
from hpcxrf.config.untrusted import read_regular, show_name
from hpcxrf.errors import ConfigError, FitError, InputFileError
from hpcxrf.physics.element_list import read_element_list

_COLUMNS: Final = ("path", "sample", "elements")
_BETWEEN: Final = re.compile(r"[\s,;]+")
_MAGIC: Final = re.compile(r"[*?[]")
_SHOWN: Final = 20

Elements = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementTable:
    """Elements by path and by sample, each with the line of the table: a later line wins."""

    paths: Mapping[str, tuple[int, Elements]]
    patterns: tuple[tuple[int, re.Pattern[str], Elements], ...]
    samples: Mapping[str, tuple[int, Elements]]


def read_element_table(path: Path) -> ElementTable:
    """Read a table of elements: CSV with a header, the columns `path` or `sample` or both, and `elements`.

    Args:
        path: the table. Paths are relative to the folder of the catalogue, or patterns of such (`2023/*.mda`); elements
            are separated by spaces, commas in quotes, or semicolons; `auto` alone: they are found in the spectrum.

    Raises:
        ConfigError: the file cannot be read or has other columns; every line that names no scan, or a family that does
            not exist.
    """
    try:
        text = read_regular(path, InputFileError).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        columns = {name.strip().lower(): name for name in reader.fieldnames or ()}
        lines = [(reader.line_num, row) for row in reader]
    except (InputFileError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"sample.elements_table: {show_name(str(path))}: cannot be read: {error}") from error
    if "elements" not in columns or not {"path", "sample"} & columns.keys() or set(columns) - set(_COLUMNS):
        raise ConfigError(
            f"sample.elements_table: {show_name(str(path))}: has the columns {', '.join(columns) or 'none'}; give path "
            "or sample, and elements"
        )
    faults: list[str] = []
    paths: dict[str, tuple[int, Elements]] = {}
    patterns: list[tuple[int, re.Pattern[str], Elements]] = []
    samples: dict[str, tuple[int, Elements]] = {}
    for line, row in lines:
        cells = {name: (row.get(column) or "").strip() for name, column in columns.items()}
        elements = tuple(filter(None, _BETWEEN.split(cells["elements"])))
        place, sample = cells.get("path", ""), cells.get("sample", "")
        if fault := _find_fault(elements, place, sample):
            faults.append(f"line {line}: {fault}")
            continue
        if sample:
            samples[sample] = line, elements
        elif _MAGIC.search(place):
            patterns.append((line, re.compile(fnmatch.translate(place)), elements))
        else:
            paths[place] = line, elements
    if faults:
        more = [f"and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
        told = "\n  ".join([*faults[:_SHOWN], *more])
        raise ConfigError(f"sample.elements_table: {show_name(str(path))}:\n  {told}")
    return ElementTable(paths=paths, patterns=tuple(patterns), samples=samples)


def _find_fault(elements: Elements, place: str, sample: str) -> str:
    if bool(place) == bool(sample):
        return "give a path or a sample, one of them"
    if not elements:
        return "lists no elements; 'auto' finds them in the spectrum"
    if elements == AUTO:
        return ""
    try:
        read_element_list(elements)
    except FitError as error:
        return str(error)
    return ""


def find_elements(table: ElementTable, path: str, sample: str | None) -> Elements | None:
    """The elements of a scan by the last line that names it; None: none does.

    Args:
        table: of `read_element_table`.
        path: relative to the folder of the catalogue.
        sample: as the catalogue has it.
    """
    found = [one for one in (table.paths.get(path), table.samples.get(sample or "")) if one is not None]
    found += [(line, elements) for line, pattern, elements in table.patterns if pattern.match(path)]
    return max(found)[1] if found else None
