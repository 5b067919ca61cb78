"""A scan, as the instrument left it, into its spectra store: in bounded memory, resumable, repeatable.

Beside an unfinished store `X.zarr` lies its journal `X.zarr.progress.jsonl`: what is being ingested, then one
line per y-band with the checksum of the one file that the band is. Only bands whose file still has
that checksum are trusted after a kill; all others are written anew.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import DamagedStoreError, InputFileError, OutputError
from hpcxrf.formats.counts import CountFaults
from hpcxrf.formats.scan import RawScan, ScanScalars
from hpcxrf.store.attributes import (
    Attributes,
    SourceFile,
    build_root_attributes,
    hash_record,
    hash_sources,
    read_root_attributes,
    refuse_other_scan,
)
from hpcxrf.store.bands import (
    COUNT_TYPES,
    Band,
    BandSpectra,
    WiderCountsError,
    band_slice,
    combine,
    read_bands,
    sum_band,
    write_band,
)
from hpcxrf.store.exposure import describe_unexposed, find_unexposed
from hpcxrf.store.files import (
    append_line,
    file_sha256,
    one_writer,
    output_faults,
    read_lines,
    sync_folder,
    sync_tree,
    tree_bytes,
    tree_files,
    tree_sha256,
)
from hpcxrf.store.packed import remove_store, unpack_store
from hpcxrf.store.schema import (
    COMPLETE_ATTRIBUTE,
    FILES_ATTRIBUTE,
    SpectraLayout,
    band_count,
    shard_file,
    spectra_layout,
)
from hpcxrf.store.spectra import open_spectra
from hpcxrf.store.template import (
    create_template,
    finish,
    is_template_sound,
    is_torn_store,
    open_counts,
    write_beside,
    write_faults,
)

Progress = Callable[[int, int], None]

COUNTS: Final = "counts"
_SMALL_PARTS_BYTES: Final = 1 << 20
_BYTES_BESIDE: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestRecord:
    """Record of one ingest; small, for the journal of the run."""

    path: Path
    shape: tuple[int, int, int, int]
    """(detector, y, x, channel)."""
    dtype: str
    """Type of the stored counts."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """One store being filled, of one type of counts."""

    scan: RawScan
    path: Path
    attributes: Attributes
    dtype: np.dtype[Any]
    layout: SpectraLayout
    done: dict[int, str]
    """Finished bands and the checksums of their files."""
    faults: CountFaults
    """Numbers of values that were mended in the finished bands."""
    missing: NDArray[np.bool_]
    """(detector, y, x): spectra of the finished bands that were not measured."""

    @property
    def bands(self) -> int:
        return band_count(self.scan.shape[1], self.layout.band_rows)

    @property
    def pending(self) -> list[int]:
        return [band for band in range(self.bands) if band not in self.done]

    def rows(self, band: int) -> slice:
        return band_slice(band, self.layout.band_rows, self.scan.shape[1])


def progress_file(path: Path) -> Path:
    """The journal beside an unfinished store."""
    return path.with_name(f"{path.name}.progress.jsonl")


def ingest_scan(scan: RawScan, path: Path, *, progress: Progress | None = None) -> IngestRecord:
    """Write a scan into a spectra store of Zarr format 3.

    The source is hashed, then read once; only where a count turns out not to fit the narrow type that the
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
    sources = hash_sources(scan)
    attributes = build_root_attributes(scan, sources)
    unchanged = _is_finished(path, attributes)
    resumed, bands = 0, dict[int, str]()
    if not unchanged:
        work, spectra, resumed = _fill(scan, path, attributes, progress or (lambda _done, _rows: None))
        _finalise(work, spectra, stamps)
        bands = work.done
    checksums = _checksums(path, bands)
    return _record(scan, path, sources, started, checksums, resumed=resumed, unchanged=unchanged)


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


def _is_finished(path: Path, attributes: Attributes) -> bool:
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
    refuse_other_scan(path, stored, attributes)
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


def _fill(scan: RawScan, path: Path, attributes: Attributes, progress: Progress) -> tuple[_Work, BandSpectra, int]:
    work = _resume(scan, path, attributes)
    if work is None:
        work = _begin(scan, path, attributes, COUNT_TYPES[0])
    resumed = len(work.done)
    while True:
        try:
            return work, _write_bands(work, progress), resumed
        except WiderCountsError as error:
            work = _begin(scan, path, attributes, error.args[0])
            resumed = 0


def _resume(scan: RawScan, path: Path, attributes: Attributes) -> _Work | None:
    try:
        lines = read_lines(progress_file(path))
        read_root_attributes(path)
    except OutputError:
        return None  # torn by a power cut: nothing of it can be trusted
    begun = [line for line in lines if line.get("event") == "begin"]
    made = any(line.get("event") == "template" for line in lines)
    if not (begun and made) or begun[-1].get("digest") != hash_record(attributes):
        return None
    dtype = next((t for t in COUNT_TYPES if t.name == begun[-1].get("dtype")), None)
    if dtype is None or not is_template_sound(path, spectra_layout(scan.shape, dtype.itemsize), dtype):
        return None
    work = _start_work(scan, path, attributes, dtype)
    try:
        for band, line in _find_trusted_bands(path, lines).items():
            work.done[band] = line["sha256"]
            _read_mended(work, line)
    except (ValueError, TypeError):
        return None  # what a torn journal says of its bands
    return work


def _start_work(scan: RawScan, path: Path, attributes: Attributes, dtype: np.dtype[Any]) -> _Work:
    return _Work(
        scan=scan,
        path=path,
        attributes=attributes,
        dtype=dtype,
        layout=spectra_layout(scan.shape, dtype.itemsize),
        done={},
        faults=CountFaults(size=math.prod(scan.shape)),
        missing=np.zeros(scan.shape[:3], dtype=np.bool_),
    )


def _find_trusted_bands(path: Path, lines: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Journal lines of the bands whose file is still as it was written."""
    recorded = {
        int(line["band"]): line
        for line in lines
        if line.get("event") == "band" and type(line.get("band")) is int and "sha256" in line
    }
    return {
        band: line
        for band, line in sorted(recorded.items())
        if (file := shard_file(path, band)).exists() and file_sha256(file) == line["sha256"]
    }


def _begin(scan: RawScan, path: Path, attributes: Attributes, dtype: np.dtype[Any]) -> _Work:
    work = _start_work(scan, path, attributes, dtype)
    journal = progress_file(path)
    with output_faults(path.parent, bytes_needed=_bytes_needed(work, rows=scan.shape[1])):
        path.parent.mkdir(parents=True, exist_ok=True)
        journal.unlink(missing_ok=True)
        header = {"event": "begin", "dtype": dtype.name, "digest": hash_record(attributes)}
        append_line(journal, header)
        create_template(path, attributes, work.layout, dtype)
        sync_tree(path)
        append_line(journal, {"event": "template"})
    return work


def _bytes_needed(work: _Work, *, rows: int) -> int:
    """Upper bound of what so many rows still take, as if nothing could be compressed."""
    detectors, _, columns, channels = work.scan.shape
    pixel_bytes = detectors * channels * work.dtype.itemsize + _BYTES_BESIDE
    return rows * columns * pixel_bytes + _SMALL_PARTS_BYTES


def _write_bands(work: _Work, progress: Progress) -> BandSpectra:
    _sweep(work.path)
    counts, rows = open_counts(work.path), work.scan.shape[1]
    pending = work.pending
    parts = {band: sum_band(np.asarray(counts[:, work.rows(band)]), work.rows(band).start) for band in work.done}
    rows_done = sum(work.rows(band).stop - work.rows(band).start for band in parts)
    progress(rows_done, rows)
    for band in read_bands(work.scan, work.layout.band_rows, pending, work.dtype):
        number, values = band.number, band.counts
        _add_faults(work, number, band.missing, band.negative, band.lowest)
        with output_faults(work.path.parent, bytes_needed=_bytes_needed(work, rows=rows - rows_done)):
            checksum = write_band(work.path, counts, work.layout, number, values)
            # Before the journal says so: a power cut keeps lines that were waited for, and drops bytes that were not.
            sync_tree(shard_file(work.path, number))
        line = {"event": "band", "band": number, "sha256": checksum, **_mended_record(band)}
        append_line(progress_file(work.path), line)
        work.done[number] = checksum
        parts[number] = sum_band(values, work.rows(number).start)
        rows_done += values.shape[1]
        progress(rows_done, rows)
    return combine(parts[band] for band in sorted(parts))


def _add_faults(work: _Work, band: int, missing: NDArray[np.bool_], negative: int, lowest: float) -> None:
    work.missing[:, work.rows(band)] = missing
    work.faults.add(negative, lowest, int(missing.sum()), str(work.scan.files[0]))


def _mended_record(band: Band) -> dict[str, Any]:
    """What the counts in the store do not tell any more, for a journal line; nothing where they are as in the file."""
    record: dict[str, Any] = {"negative": band.negative, "lowest": band.lowest} if band.negative else {}
    if band.missing.any():
        record["missing"] = np.packbits(band.missing).tobytes().hex()
    return record


def _read_mended(work: _Work, line: Mapping[str, Any]) -> None:
    """Take over what a journal line says of a finished band."""
    missing = np.zeros_like(work.missing[:, work.rows(line["band"])])
    if "missing" in line:
        packed = np.frombuffer(bytes.fromhex(line["missing"]), dtype=np.uint8)
        missing = np.unpackbits(packed, count=missing.size).astype(np.bool_).reshape(missing.shape)
    negative, lowest = int(line.get("negative", 0)), float(line.get("lowest", 0.0))
    _add_faults(work, line["band"], missing, negative, lowest)


def _sweep(path: Path) -> None:
    with output_faults(path.parent, bytes_needed=0):
        for leftover in list(path.rglob("*.partial")):
            leftover.unlink(missing_ok=True)


def _finalise(work: _Work, spectra: BandSpectra, stamps: list[tuple[int, int]]) -> None:
    integrated = {"integrated": spectra.total, "max_channel_spectrum": spectra.highest}
    scalars = _leave_out_missing(work.scan.read_scalars(), work.missing)
    unexposed = _find_unexposed(work, scalars)
    missing = work.missing if unexposed is None else work.missing | unexposed
    scalars = _leave_out_missing(scalars, missing)
    _refuse_changed(work.scan, stamps)
    needed = _bytes_needed(work, rows=0) + _count_bytes(scalars)
    with output_faults(work.path.parent, bytes_needed=needed):
        write_beside(work.path, work.scan.shape, scalars, integrated)
        write_faults(work.path, missing, spectra.spikes)
        notes = [*work.faults.notes(), *describe_unexposed(unexposed)]
        finish(work.path, {FILES_ATTRIBUTE: _hash_files(work)}, notes)
        progress_file(work.path).unlink(missing_ok=True)
        sync_folder(work.path.parent)


def _find_unexposed(work: _Work, scalars: ScanScalars) -> NDArray[np.bool_] | None:
    counts = open_counts(work.path)
    return find_unexposed(
        scalars.live_time_s,
        lambda rows: np.asarray(counts[:, rows]),
        rows_per_read=work.layout.chunks[1],
        measured=scalars.measured,
    )


def _hash_files(work: _Work) -> dict[str, str]:
    """SHA-256 of every file of a store but the root's metadata, which is to keep them."""
    known = {shard_file(work.path, band): checksum for band, checksum in work.done.items()}
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
