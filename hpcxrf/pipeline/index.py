"""The index of a run: what became of every dataset, and every fitted theta, as two tables of one SQLite file.

It is made of the records and the stores of the run, which it says nothing beyond; it can be removed and made again.
"""

import json
import math
import os
import sqlite3
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from hpcxrf.catalogue.read import read_catalogue
from hpcxrf.catalogue.rows import ScanRow, encode_text
from hpcxrf.config.run import RunConfig
from hpcxrf.errors import HpcxrfError, OutputError
from hpcxrf.fitting.verdict import Verdict
from hpcxrf.pipeline.printout import verdict_of
from hpcxrf.runner.datasets import ENDINGS, describe_ending, read_datasets
from hpcxrf.runner.records import DatasetRecord
from hpcxrf.store.files import output_faults, sync_folder
from hpcxrf.store.packed import read_root
from hpcxrf.store.rundir import RunDir

INDEX: Final = "index.sqlite"
"""Name of the index in its run directory."""
VERSION: Final = 1
"""Version of its tables, `PRAGMA user_version`."""
APPLICATION_ID: Final = 0x68785269
"""`hxRi`, `PRAGMA application_id`."""
RESULT_COLUMNS: Final[Mapping[str, str]] = {
    "dataset_id": "TEXT PRIMARY KEY",
    "scan_id": "INTEGER",
    "path": "TEXT NOT NULL",
    "name": "TEXT NOT NULL",
    "state": "TEXT NOT NULL",
    "fault": "TEXT",
    "verdict": "TEXT",
    "r2": "REAL",
    "deviance": "REAL",
    "results": "TEXT",
    "date": "TEXT",
    "sample": "TEXT",
    "instrument": "TEXT",
    "n_detectors": "INTEGER",
    "shape_y": "INTEGER",
    "shape_x": "INTEGER",
    "n_channels": "INTEGER",
    "wall_s": "REAL",
    "cpu_s": "REAL",
    "suggested": "TEXT NOT NULL",
    "flags": "TEXT NOT NULL",
    "donor": "TEXT",
    "start": "TEXT",
    "version": "TEXT",
}
"""Columns of the table `result`, a row a dataset: `state` done, failed or not tried; `verdict`, `r2` and `deviance` of
the detector that fits worst; `results` relative to the run; `suggested` and `flags` lists as JSON; `start` of the fits:
`warm`, `cold`, `mixed`; none without a donor."""
FIT_COLUMNS: Final[Mapping[str, str]] = {
    "dataset_id": "TEXT NOT NULL",
    "detector": "TEXT NOT NULL",
    "verdict": "TEXT",
    "r2": "REAL",
    "r2_expected": "REAL",
    "reduced_chi2": "REAL",
    "deviance": "REAL",
}
"""Columns of the table `fit`, a row an integrated fit; `detector` is a number, or `sum`."""
THETA_COLUMNS: Final[Mapping[str, str]] = {
    "dataset_id": "TEXT NOT NULL",
    "detector": "TEXT NOT NULL",
    "name": "TEXT NOT NULL",
    "value": "REAL NOT NULL",
}
"""Columns of the table `theta`, a row a fitted parameter of a detector."""
_TABLES: Final = {"result": RESULT_COLUMNS, "fit": FIT_COLUMNS, "theta": THETA_COLUMNS}


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the catalogue says of a scan."""

    scan_id: int
    date: str | None
    sample: str | None
    instrument: str | None


def write_index(run: RunDir, config: RunConfig) -> Path:
    """Write the index of a run anew, aside and renamed: a reader sees the old one or the new.

    Args:
        run: the run directory.
        config: its configuration, which names the catalogue.

    Returns:
        The index.

    Raises:
        OutputError: the folder cannot be written, or the records of the run are damaged.
    """
    index = run.path / INDEX
    partial = index.with_name(f"{INDEX}.{uuid.uuid4().hex}.partial")
    size = (run.path / ENDINGS).stat().st_size if (run.path / ENDINGS).is_file() else 0
    with output_faults(run.path, bytes_needed=size):
        try:
            _fill(partial, run, _read_scans(config), size)
            with partial.open("rb") as stream:
                os.fsync(stream.fileno())
            partial.replace(index)
            sync_folder(run.path)
        except sqlite3.Error as error:
            raise OutputError(f"{index}: cannot be written: {error}; make room, and give hpcxrf index again") from error
        finally:
            partial.unlink(missing_ok=True)
    return index


def _fill(file: Path, run: RunDir, scans: Mapping[str, _Seen], size: int) -> None:
    # Nobody else knows the file yet: no locks, which network file systems have not or are slow with.
    with closing(sqlite3.connect(f"file:{quote(bytes(file))}?vfs=unix-none", uri=True)) as base:
        base.execute("PRAGMA journal_mode = OFF")
        base.execute("PRAGMA synchronous = OFF")
        base.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        base.execute(f"PRAGMA user_version = {VERSION}")
        for table, columns in _TABLES.items():
            base.execute(f"CREATE TABLE {table} ({', '.join(f'{name} {kind}' for name, kind in columns.items())})")
        base.execute("CREATE TABLE about (records_bytes INTEGER NOT NULL)")
        base.execute("INSERT INTO about VALUES (?)", (size,))
        for record in read_datasets(run):
            attributes = _read_attributes(run, record)
            row = _describe(run, record, scans.get(record.source), attributes)
            _insert(base, "result", [tuple(row[name] for name in RESULT_COLUMNS)])
            _insert(base, "fit", list(_list_fits(record.dataset_id, attributes)))
            _insert(base, "theta", list(_list_theta(record.dataset_id, attributes)))
        base.execute("CREATE INDEX theta_place ON theta (name, dataset_id, detector)")
        base.commit()


def _insert(base: sqlite3.Connection, table: str, rows: list[tuple[Any, ...]]) -> None:
    marks = ", ".join("?" * len(_TABLES[table]))
    base.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", rows)  # noqa: S608 (names of our own)


def _read_scans(config: RunConfig) -> dict[str, _Seen]:
    """Scans of the catalogue by path; one that has gone since leaves its columns empty."""
    if config.input.catalogue is None:
        return {}
    try:
        return {str(Path(row.root, row.path)): _see(row) for row in read_catalogue(Path(config.input.catalogue))}
    except HpcxrfError:
        return {}


def _see(row: ScanRow) -> _Seen:
    return _Seen(row.scan_id, row.date, row.sample, row.instrument)


def _read_attributes(run: RunDir, record: DatasetRecord) -> Mapping[str, Any]:
    """Attributes of the results store of a dataset that is done; none of one that is damaged since."""
    if record.state != "done":
        return {}
    try:
        found = read_root(run.inner(record.home).results_store(record.dataset_id)).get("attributes")
    except OutputError:
        return {}
    return found if isinstance(found, dict) else {}


def _describe(run: RunDir, record: DatasetRecord, seen: _Seen | None, attributes: Mapping[str, Any]) -> dict[str, Any]:
    verdict, merit = verdict_of(record), record.facts.get("merit") or {}
    shape = record.shape if len(record.shape) == 4 else (None,) * 4
    start = attributes.get("warm_start") or {}
    done = record.state == "done"
    return {
        "dataset_id": record.dataset_id,
        "scan_id": None if seen is None else seen.scan_id,
        "path": encode_text(record.source),
        "name": encode_text(record.name),
        "state": record.state,
        "fault": encode_text(describe_ending(record)) or None,
        "verdict": verdict.word if done and verdict is not Verdict.NOT_JUDGED else None,
        "r2": _number(merit.get("r2")),
        "deviance": _number(merit.get("deviance")),
        "results": _locate(run, record) if done else None,
        "date": None if seen is None else seen.date,
        "sample": None if seen is None else seen.sample,
        "instrument": None if seen is None else seen.instrument,
        **dict(zip(("n_detectors", "shape_y", "shape_x", "n_channels"), shape, strict=True)),
        "wall_s": sum(record.seconds.values()),
        "cpu_s": record.cpu_s,
        "suggested": json.dumps(list(record.facts.get("suggested", ()))),
        "flags": json.dumps(list(record.facts.get("axis_flags", ()))),
        "donor": start.get("donor"),
        "start": _sum_starts(start.get("detectors") or {}),
        "version": attributes.get("hpcxrf_version"),
    }


def _locate(run: RunDir, record: DatasetRecord) -> str:
    return run.inner(record.home).results_store(record.dataset_id).relative_to(run.path).as_posix()


def _sum_starts(detectors: Mapping[str, str]) -> str | None:
    """`warm` where the fits of all detectors began at those of the donor, `cold` where none did, else `mixed`."""
    kinds = {str(how).partition(":")[0] for how in detectors.values()}
    return None if not kinds else kinds.pop() if len(kinds) == 1 else "mixed"


def _list_fits(dataset_id: str, attributes: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    numbers = ("r2", "r2_expected", "reduced_chi2", "deviance")
    for detector, merit in (attributes.get("merit_by_detector") or {}).items():
        verdict = Verdict(merit.get("verdict", Verdict.NOT_JUDGED))
        word = None if verdict is Verdict.NOT_JUDGED else verdict.word
        yield (dataset_id, detector, word, *(_number(merit.get(name)) for name in numbers))


def _list_theta(dataset_id: str, attributes: Mapping[str, Any]) -> Iterator[tuple[str, str, str, float]]:
    for detector, theta in (attributes.get("theta_by_detector") or {}).items():
        for name, value in (theta or {}).items():
            if _number(value) is not None:
                yield dataset_id, detector, name, float(value)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
