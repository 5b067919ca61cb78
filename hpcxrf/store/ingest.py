"""A scan, as the instrument left it, into its spectra store: in bounded memory, resumable, repeatable."""

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr
from numpy.typing import NDArray

from hpcxrf.errors import DamagedStoreError, InputFileError, OutputError
from hpcxrf.formats.scan import RawScan, ScanScalars
from hpcxrf.store.attributes import (
    Attributes,
    SourceFile,
    build_root_attributes,
    describe_sources,
    read_root_attributes,
    refuse_other_scan,
)
from hpcxrf.store.band_writer import BandWriter
from hpcxrf.store.bands import BandSpectra, WiderCountsError, combine, read_bands, sum_band
from hpcxrf.store.exposure import describe_unexposed, find_unexposed
from hpcxrf.store.files import file_sha256, one_writer, output_faults, sync_folder, tree_bytes, tree_files, tree_sha256
from hpcxrf.store.filling import (
    Work,
    add_faults,
    begin_work,
    bytes_needed,
    narrow_store,
    progress_file,
    resume_work,
    tell_all,
    widen_work,
)
from hpcxrf.store.packed import remove_store, unpack_store
from hpcxrf.store.schema import COMPLETE_ATTRIBUTE, FILES_ATTRIBUTE, shard_file
from hpcxrf.store.source_hash import SourceHash, hash_sources
from hpcxrf.store.spectra import open_spectra
from hpcxrf.store.template import finish, is_torn_store, open_counts, write_beside, write_faults
from hpcxrf.store.tile_sums import TileSums, collect_tiles

__all__ = ["COUNTS", "IngestRecord", "ingest_scan", "progress_file"]

Progress = Callable[[int, int], None]

COUNTS: Final = "counts"


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestRecord:
    """Record of one ingest; small, for the journal of the run."""

    path: Path
    shape: tuple[int, int, int, int]
    """(detector, y, x, channel)."""
    dtype: str
    """Type of the counts as they are read; those below 256 are stored in one byte, and read as uint16."""
    sources: tuple[SourceFile, ...]
    unchanged: bool
    """The store was complete already, and nothing was written."""
    resumed_bands: int
    """Y-bands that an earlier, killed ingest had finished."""
    bands: int
    source_bytes: int
    stored_bytes: int
    checksums: dict[str, str]
    """SHA-256 by path within the store: of every file of the counts, and of its metadata."""
    wall_s: float


def ingest_scan(scan: RawScan, path: Path, *, progress: Progress | None = None) -> IngestRecord:
    """Write a scan into a spectra store of Zarr format 3.

    The source is read once, and hashed meanwhile; only where a count turns out not to fit the narrow type that the
    store was begun with is it begun anew with the type needed. A killed ingest goes on where it was and ends
    with the same bytes as an undisturbed one. On a finished store of the same source and options nothing is
    written.
    An unfinished store of another source, or of another version of this program, is begun anew.

    Args:
        scan: the source.
        path: the store, `spectra/<dataset_id>.zarr`; folders above it are made.
        progress: called with (rows done, rows in all) at the start and after each y-band.

    Returns:
        The record for the journal.

    Raises:
        InputFileError: the source cannot be read, holds values that are not counts, or changed while being read.
        OutputError: the folder cannot be written or is full, or the path holds a finished store of another
            scan, a store of another schema version, or something else.
    """
    if min(scan.shape) < 1:
        raise InputFileError(f"{scan.files[0]}: shape {scan.shape} (detector, y, x, channel); each must be at least 1")
    with one_writer(path):
        try:
            unpack_store(path)
        except DamagedStoreError:
            remove_store(path)
        return _ingest(scan, path, progress)


def _ingest(scan: RawScan, path: Path, progress: Progress | None) -> IngestRecord:
    started = time.perf_counter()
    stamps = _read_stamps(scan)
    attributes = build_root_attributes(scan)
    with hash_sources(scan) as sources:
        unchanged = _is_finished(path, attributes, sources)
        resumed, bands = 0, dict[int, str]()
        if not unchanged:
            work, spectra, resumed = _fill(scan, path, attributes, sources, progress or (lambda _done, _rows: None))
            _finalise(work, spectra, stamps)
            bands = work.checksums
        checksums = _checksums(path, bands)
        return _record(scan, path, sources.result(), started, checksums, resumed=resumed, unchanged=unchanged)


def _checksums(path: Path, bands: Mapping[int, str]) -> dict[str, str]:
    """SHA-256 of everything in a finished store by its path there; that of bands just written is known."""
    known = {shard_file(path, band): checksum for band, checksum in bands.items()}
    small = [one for one in sorted(path.iterdir()) if one.name != COUNTS]
    shards = [file for file in tree_files(path / COUNTS) if file not in known]
    found = known | {one: tree_sha256(one) for one in (*small, *shards)}
    return {one.relative_to(path).as_posix(): checksum for one, checksum in found.items()}


def _refuse_changed(scan: RawScan, stamps: list[tuple[int, int]]) -> None:
    if _read_stamps(scan) != stamps:
        raise InputFileError(
            f"{scan.files[0]}: changed while it was being read; wait for the measurement to end, then ingest again"
        )


def _read_stamps(scan: RawScan) -> list[tuple[int, int]]:
    try:
        found = [path.stat() for path in scan.files]
    except OSError as error:
        raise InputFileError(f"{error.filename}: cannot be read: {error.strerror}") from error
    return [(one.st_size, one.st_mtime_ns) for one in found]


def _is_finished(path: Path, attributes: Attributes, sources: SourceHash) -> bool:
    if progress_file(path).exists() and not (path / "zarr.json").exists():
        return False
    try:
        stored = read_root_attributes(path)
    except OutputError:
        # A power cut can empty the metadata of a store that is being filled; what is not of this program stays.
        if progress_file(path).exists() or is_torn_store(path):
            return False
        raise
    if stored is None or not stored.get(COMPLETE_ATTRIBUTE):
        return False
    refuse_other_scan(path, stored, attributes | describe_sources(sources.result()))
    if not _is_whole(path, stored):
        return False
    progress_file(path).unlink(missing_ok=True)
    return True


def _is_whole(path: Path, stored: Attributes) -> bool:
    """Whether a finished store can be read and its shards are as they were written; a damaged one is made anew."""
    try:
        open_spectra(path)
    except OutputError:
        return False
    recorded = stored.get(FILES_ATTRIBUTE)
    # Stores of version 0.1.0 have no checksums of their files.
    return not isinstance(recorded, dict) or all(
        (path / name).is_file() and file_sha256(path / name) == checksum for name, checksum in recorded.items()
    )


def _fill(
    scan: RawScan, path: Path, attributes: Attributes, sources: SourceHash, progress: Progress
) -> tuple[Work, BandSpectra, int]:
    shutil.rmtree(narrow_store(path), ignore_errors=True)
    work = resume_work(scan, path, attributes, sources)
    if work is None:
        work = begin_work(scan, path, attributes, sources)
    resumed = len(work.done)
    while True:
        try:
            return work, _write_bands(work, progress), resumed
        except WiderCountsError as error:
            work = widen_work(work, *error.args)
            resumed = min(resumed, len(work.done))


def _write_bands(work: Work, progress: Progress) -> BandSpectra:
    _sweep(work.path)
    rows, kept, trusted = work.scan.shape[1], open_counts(work.path), frozenset(work.done)
    parts = []
    progress(work.rows_done, rows)
    with (
        collect_tiles(work.path, work.scan.shape, work.dtype) as tiles,
        BandWriter(work, lambda: progress(work.rows_done, rows)) as writer,
    ):
        fresh = read_bands(work.scan, work.layout.band_rows, work.pending, work.dtype)
        for number in range(work.bands):
            if number in trusted:
                parts.append(_sum_kept(kept, work.rows(number), tiles))
                continue
            band = next(fresh)
            add_faults(work, band.number, band.missing, band.negative, band.lowest)
            writer.write(band)
            parts.append(sum_band(band.counts, work.rows(band.number).start, tiles))
    return combine(parts)


def _sum_kept(counts: zarr.Array[Any], rows: slice, tiles: TileSums | None) -> BandSpectra:
    return sum_band(np.asarray(counts[:, rows]), rows.start, tiles)


def _sweep(path: Path) -> None:
    with output_faults(path.parent, bytes_needed=0):
        for leftover in list(path.rglob("*.partial")):
            leftover.unlink(missing_ok=True)


def _finalise(work: Work, spectra: BandSpectra, stamps: list[tuple[int, int]]) -> None:
    tell_all(work)
    integrated = {"integrated": spectra.total, "max_channel_spectrum": spectra.highest}
    scalars = _leave_out_missing(work.scan.read_scalars(), work.missing)
    unexposed = _find_unexposed(work, scalars)
    missing = work.missing if unexposed is None else work.missing | unexposed
    scalars = _leave_out_missing(scalars, missing)
    sources = describe_sources(work.sources.result())
    _refuse_changed(work.scan, stamps)
    needed = bytes_needed(work, rows=0) + _count_bytes(scalars)
    with output_faults(work.path.parent, bytes_needed=needed):
        write_beside(work.path, work.scan.shape, scalars, integrated)
        write_faults(work.path, missing, spectra.spikes)
        notes = [*work.faults.notes(), *describe_unexposed(unexposed)]
        finish(work.path, {**sources, FILES_ATTRIBUTE: _hash_files(work)}, notes)
        progress_file(work.path).unlink(missing_ok=True)
        sync_folder(work.path.parent)


def _find_unexposed(work: Work, scalars: ScanScalars) -> NDArray[np.bool_] | None:
    counts = open_counts(work.path)
    return find_unexposed(
        scalars.live_time_s,
        lambda rows: np.asarray(counts[:, rows]),
        rows_per_read=work.layout.chunks[1],
        measured=scalars.measured,
    )


def _hash_files(work: Work) -> dict[str, str]:
    """SHA-256 of every file of a store but the root's metadata, which is to keep them."""
    known = {shard_file(work.path, band): checksum for band, checksum in work.checksums.items()}
    files = sorted(file for file in tree_files(work.path) if file != work.path / "zarr.json")
    return {file.relative_to(work.path).as_posix(): known.get(file) or file_sha256(file) for file in files}


def _leave_out_missing(scalars: ScanScalars, missing: NDArray[np.bool_]) -> ScanScalars:
    """A pixel that no detector measured was not measured."""
    nowhere: NDArray[np.bool_] = np.asarray(missing.all(axis=0))
    if not nowhere.any():
        return scalars
    return replace(
        scalars, measured=np.logical_not(nowhere) if scalars.measured is None else scalars.measured & ~nowhere
    )


def _count_bytes(scalars: ScanScalars) -> int:
    values = (getattr(scalars, field.name) for field in fields(scalars))
    return sum(value.nbytes for value in values if isinstance(value, np.ndarray))


def _record(
    scan: RawScan,
    path: Path,
    sources: tuple[SourceFile, ...],
    started: float,
    checksums: dict[str, str],
    *,
    resumed: int,
    unchanged: bool,
) -> IngestRecord:
    store = open_spectra(path)
    return IngestRecord(
        path=path,
        shape=scan.shape,
        dtype=store.dtype.name,
        sources=sources,
        unchanged=unchanged,
        resumed_bands=resumed,
        bands=store.bands,
        source_bytes=sum(source.size_bytes for source in sources),
        stored_bytes=tree_bytes(path),
        checksums=checksums,
        wall_s=time.perf_counter() - started,
    )
