"""What earlier results say of a file: that it is one that was moved, or another one under the same name."""

import os
from collections.abc import Mapping
from pathlib import Path

from hpcxrf.errors import HpcxrfError
from hpcxrf.pipeline.records import DatasetJob
from hpcxrf.runner.done import last_lines
from hpcxrf.runner.records import DatasetRecord
from hpcxrf.store.attributes import read_root_attributes
from hpcxrf.store.files import file_sha256
from hpcxrf.store.packed import is_store
from hpcxrf.store.rundir import FINISHED, RETRY, RunDir, read_or_set_aside

_CHECKSUM = "sha256"


def stamp_text(path: Path) -> str:
    """Size and time of a file, as the stamps of results have them."""
    status = path.stat()
    return f"{status.st_size} bytes, {status.st_mtime_ns} ns"


def find_moved(path: Path, run_dir: Path, kept: Mapping[str, DatasetRecord]) -> DatasetRecord | None:
    """Find the scan that a file was under another name: of its size and time, gone from there, with the same bytes.

    Args:
        path: a file without results.
        run_dir: the run directory.
        kept: scans that are done, by dataset_id.

    Returns:
        What became of that scan; None: the file is new.
    """
    try:
        seen = stamp_text(path)
    except OSError:
        return None
    for record in kept.values():
        name, stamp = next(iter(record.made_from.get("stamps", {}).items()), ("", ""))
        if stamp != seen or name == str(path) or os.path.lexists(name):
            continue
        if _has_same_bytes(path, RunDir(path=run_dir).spectra_store(record.dataset_id)):
            return record
    return None


def _has_same_bytes(path: Path, store: Path) -> bool:
    """Whether a file is the one that a spectra store was made of."""
    try:
        if not is_store(store):
            return False
        attributes = read_root_attributes(store) or {}
        stored = [source[_CHECKSUM] for source in attributes.get("sources", ())]
        return bool(stored) and file_sha256(path) == stored[0]
    except (HpcxrfError, OSError, KeyError, TypeError):
        return False


def forget_other_scan(job: DatasetJob) -> bool:
    """Where a dataset was ingested from other files than now, note in its journal that its spectra are to go.

    The lock of the run is held, and no driver works on the dataset.

    Returns:
        Whether it was so.

    Raises:
        OutputError: the journal cannot be written.
    """
    run = RunDir(path=job.run_dir)
    line = last_lines(read_or_set_aside(run, job.dataset_id)).get("ingest", {})
    if line.get("event") != FINISHED:
        return False
    before = (line.get("made_from") or {}).get("stamps", {})
    if _scans_alone(before) == _scans_alone(dict(job.stamps)):
        return False
    reason = "the file is another one now"
    run.append(job.dataset_id, {"event": RETRY, "task": "ingest", "damaged": True, "reason": reason})
    return True


def _scans_alone(stamps: Mapping[str, str]) -> dict[str, str]:
    """Stamps of the scan's own files, without those of override files and earlier fits, which are checksums."""
    return {name: stamp for name, stamp in stamps.items() if not stamp.startswith(_CHECKSUM)}
