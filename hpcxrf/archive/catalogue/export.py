"""The rows of a catalogue for other programs: JSON, CSV and Parquet, written row by row."""

import csv
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, Final, TextIO

from hpcxrf.catalogue.rows import COLUMNS, INTEGERS, LISTS, NUMBERS, ScanRow, encode_text
from hpcxrf.config.untrusted import show_name
from hpcxrf.errors import ConfigError
from hpcxrf.results.export.cells import Cell, escape_cell
from hpcxrf.store.files import output_faults

STDOUT: Final = Path("-")
_ROW_GROUP: Final = 10_000


def write_csv(path: Path, rows: Iterable[ScanRow]) -> None:
    """Write a table as CSV, every cell safe for a spreadsheet; lists are joined by `; `.

    Args:
        path: the file, replaced at once; `-`: standard output.
        rows: the rows.

    Raises:
        OutputError: the file cannot be written.
    """
    if path == STDOUT:
        _write_rows(sys.stdout, rows)
        return
    with replace_by(path) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
        _write_rows(stream, rows)


def _write_rows(stream: TextIO, rows: Iterable[ScanRow]) -> None:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_make_cell(getattr(row, name)) for name in COLUMNS] for row in rows)


def _make_cell(value: object) -> Cell:
    if value is None:
        return ""
    if isinstance(value, int | float):
        return value
    text = "; ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return escape_cell(show_name(text))


def write_json(
    stream: TextIO, head: dict[str, Any], rows: Iterable[ScanRow], tail: Callable[[], dict[str, Any]]
) -> None:
    """Write one JSON object, `scans` row by row, so that an archive is never held whole.

    Args:
        stream: where to.
        head: what stands before the rows.
        rows: the rows.
        tail: gives what stands after them, once they were written.
    """
    stream.write("{\n")
    for name, value in head.items():
        stream.write(f"  {json.dumps(name)}: {json.dumps(value, allow_nan=False)},\n")
    stream.write('  "scans": [')
    for number, row in enumerate(rows):
        stream.write(",\n    " if number else "\n    ")
        stream.write(json.dumps(asdict(row), allow_nan=False))
    stream.write("\n  ]")
    for name, value in tail().items():
        stream.write(f",\n  {json.dumps(name)}: {json.dumps(value, allow_nan=False)}")
    stream.write("\n}\n")


def write_parquet(path: Path, rows: Iterable[ScanRow]) -> None:
    """Write a table as Parquet; names that are not UTF-8 show their bytes.

    Raises:
        ConfigError: pyarrow is not installed.
        OutputError: the file cannot be written.
    """
    require_parquet()
    import pyarrow as pa  # type: ignore[import-not-found,unused-ignore]
    from pyarrow import parquet  # type: ignore[import-not-found,unused-ignore]

    kinds = {name: pa.string() for name in COLUMNS}
    kinds |= dict.fromkeys(INTEGERS, pa.int64()) | dict.fromkeys(NUMBERS, pa.float64())
    kinds |= dict.fromkeys(LISTS, pa.list_(pa.string()))
    schema = pa.schema([pa.field(name, kinds[name]) for name in COLUMNS])
    left = iter(rows)
    with replace_by(path) as partial, parquet.ParquetWriter(partial, schema) as writer:
        while some := list(islice(left, _ROW_GROUP)):
            columns = {name: [_make_plain(getattr(row, name)) for row in some] for name in COLUMNS}
            writer.write_table(pa.table(columns, schema=schema))


def _make_plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_make_plain(one) for one in value]
    # A name that is not UTF-8, which Parquet has no way to keep.
    return show_name(value) if isinstance(value, str) and not isinstance(encode_text(value), str) else value


def require_parquet() -> None:
    """Refuse to begin what could not be written at its end.

    Raises:
        ConfigError: pyarrow is not installed, with the remedy.
    """
    from importlib.util import find_spec

    if find_spec("pyarrow") is None:
        raise ConfigError(
            "--parquet needs pyarrow, which is not installed; pip install 'hpcxrf[parquet]', or write --csv instead"
        )


def refuse_inside(paths: Sequence[Path | None], roots: Iterable[str]) -> None:
    """Refuse to write a table into an archive.

    Raises:
        ConfigError: names the file and the folder.
    """
    folders = list(roots)
    faults = [
        f"{show_name(str(path))}: lies in {show_name(root)}, into which nothing is written; name a file outside"
        for path in paths
        for root in folders
        if path is not None and path != STDOUT and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))
    ]
    if faults:
        raise ConfigError("\n".join(faults))


@contextmanager
def replace_by(path: Path) -> Iterator[Path]:
    """Give a temporary file beside `path`, which takes its place when the block ends without an error.

    Raises:
        OutputError: the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with output_faults(path.parent, bytes_needed=0):
        try:
            yield partial
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
