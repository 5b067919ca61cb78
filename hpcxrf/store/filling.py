"""A store of spectra that is being filled: its type, its journal, and the bands that are finished.

Beside an unfinished store `X.zarr` lies its journal `X.zarr.progress.jsonl`: what is being ingested, then one line per
y-band with the checksums of the one file that the band is, and of the source. Only bands whose file and source still
have them are trusted after a kill; all others are written anew. A source is hashed while it is read: lines of bands
that are finished sooner wait in memory, since nobody could trust them.
"""

import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import OutputError
from hpcxrf.formats.counts import CountFaults
from hpcxrf.formats.scan import RawScan
from hpcxrf.store.attributes import Attributes, hash_record, read_root_attributes
from hpcxrf.store.bands import COUNT_TYPES, Band, band_slice, counted_type
from hpcxrf.store.files import append_line, append_lines, file_sha256, output_faults, read_lines, sync_tree
from hpcxrf.store.schema import SpectraLayout, band_count, shard_file, spectra_layout
from hpcxrf.store.shard_writer import write_shard
from hpcxrf.store.source_hash import SourceHash
from hpcxrf.store.template import create_template, is_template_sound, open_counts, read_counts_format

_SMALL_PARTS_BYTES: Final = 1 << 20
_BYTES_BESIDE: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One store being filled, of one type of counts."""

    scan: RawScan
    path: Path
    attributes: Attributes
    """Attributes of the root that are known before the source is hashed."""
    sources: SourceHash
    dtype: np.dtype[Any]
    layout: SpectraLayout
    done: dict[int, dict[str, Any]]
    """Finished bands and their lines of the journal."""
    faults: CountFaults
    """Numbers of values that were mended in the finished bands."""
    missing: NDArray[np.bool_]
    """(detector, y, x): spectra of the finished bands that were not measured."""
    untold: list[dict[str, Any]] = field(default_factory=list)
    """Lines of bands that wait for the checksum of the source."""

    @property
    def bands(self) -> int:
        """Number of y-bands."""
        return band_count(self.scan.shape[1], self.layout.band_rows)

    @property
    def pending(self) -> list[int]:
        """Bands that are not finished."""
        return [band for band in range(self.bands) if band not in self.done]

    @property
    def checksums(self) -> dict[int, str]:
        """SHA-256 of the files of the finished bands."""
        return {band: line["sha256"] for band, line in self.done.items()}

    @property
    def rows_done(self) -> int:
        """Rows of the finished bands."""
        return sum(len(range(*self.rows(band).indices(self.scan.shape[1]))) for band in self.done)

    def rows(self, band: int) -> slice:
        """Rows of a band."""
        return band_slice(band, self.layout.band_rows, self.scan.shape[1])


def progress_file(path: Path) -> Path:
    """The journal beside an unfinished store."""
    return path.with_name(f"{path.name}.progress.jsonl")


def resume_work(scan: RawScan, path: Path, attributes: Attributes, sources: SourceHash) -> Work | None:
    """Take up the store of a killed ingest; None: there is none that can be trusted, or of another source."""
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
    if dtype is None or not is_template_sound(path, _cut(scan, dtype), dtype):
        return None
    work = _start_work(scan, path, attributes, sources, dtype)
    try:
        for band, line in _find_trusted_bands(work, lines).items():
            work.done[band] = line
            _read_mended(work, line)
    except (ValueError, TypeError):
        return None  # what a torn journal says of its bands
    return work


def _start_work(scan: RawScan, path: Path, attributes: Attributes, sources: SourceHash, dtype: np.dtype[Any]) -> Work:
    return Work(
        scan=scan,
        path=path,
        attributes=attributes,
        sources=sources,
        dtype=dtype,
        layout=_cut(scan, dtype),
        done={},
        faults=CountFaults(size=math.prod(scan.shape)),
        missing=np.zeros(scan.shape[:3], dtype=np.bool_),
    )


def _cut(scan: RawScan, dtype: np.dtype[Any]) -> SpectraLayout:
    return spectra_layout(scan.shape, counted_type(dtype).itemsize)


def _find_trusted_bands(work: Work, lines: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Journal lines of the bands whose file and source are still as they were."""
    recorded = {
        int(line["band"]): line
        for line in lines
        if line.get("event") == "band" and type(line.get("band")) is int and {"sha256", "source"} <= line.keys()
    }
    source = _digest_sources(work.sources) if recorded else ""
    return {
        band: line
        for band, line in sorted(recorded.items())
        if line["source"] == source
        and (file := shard_file(work.path, band)).exists()
        and file_sha256(file) == line["sha256"]
    }


def _digest_sources(sources: SourceHash) -> str:
    return hash_record({"sources": [asdict(source) for source in sources.result()]})


def begin_work(
    scan: RawScan,
    path: Path,
    attributes: Attributes,
    sources: SourceHash,
    dtype: np.dtype[Any] = COUNT_TYPES[0],
    counts_per_pixel: float = 0.0,
) -> Work:
    """Make an empty store and its journal; whatever was there is removed.

    Args:
        scan: the source.
        path: the store.
        attributes: of its root.
        sources: checksums of the source, which need not be known yet.
        dtype: of the stored counts.
        counts_per_pixel: about, which chooses the codec.

    Raises:
        OutputError: the folder cannot be written.
    """
    work = _start_work(scan, path, attributes, sources, dtype)
    journal = progress_file(path)
    with output_faults(path.parent, bytes_needed=bytes_needed(work, rows=scan.shape[1])):
        path.parent.mkdir(parents=True, exist_ok=True)
        journal.unlink(missing_ok=True)
        header = {"event": "begin", "dtype": dtype.name, "digest": hash_record(attributes)}
        append_line(journal, header)
        create_template(path, attributes, work.layout, dtype, counts_per_pixel)
        sync_tree(path)
        append_line(journal, {"event": "template"})
    return work


def widen_work(work: Work, dtype: np.dtype[Any], counts_per_pixel: float) -> Work:
    """Begin anew with a wider type of counts; finished bands that are cut alike come from the store, not the source.

    Args:
        work: the store so far.
        dtype: the type needed.
        counts_per_pixel: about, which chooses the codec.

    Raises:
        OutputError: the folder cannot be written.
    """
    begin = work.scan, work.path, work.attributes, work.sources, dtype, counts_per_pixel
    if not work.done or _cut(work.scan, dtype) != work.layout:
        return begin_work(*begin)
    narrow = narrow_store(work.path)
    with output_faults(work.path.parent, bytes_needed=bytes_needed(work, rows=0)):
        shutil.rmtree(narrow, ignore_errors=True)
        work.path.rename(narrow)
        wide = begin_work(*begin)
        old = open_counts(narrow)
        for band, line in work.done.items():
            values = np.asarray(old[:, work.rows(band)]).astype(dtype, copy=False)
            tell_band(wide, band, write_band(wide, band, values), line)
            _read_mended(wide, line)
        shutil.rmtree(narrow)
    return wide


def narrow_store(path: Path) -> Path:
    """Where a store is while its counts are widened."""
    return path.with_name(f".{path.name}.narrow.partial")


def write_band(work: Work, band: int, values: NDArray[Any]) -> str:
    """Write a band and wait until it is on the disk: a power cut keeps lines of the journal, and drops other bytes.

    Args:
        work: the store.
        band: number of the band.
        values: (detector, row, x, channel) of the stored type.

    Returns:
        SHA-256 of its file.

    Raises:
        OSError: the folder cannot be written.
    """
    return write_shard(shard_file(work.path, band), values, read_counts_format(work.path))


def tell_band(work: Work, band: int, checksum: str, mended: Mapping[str, Any]) -> None:
    """Tell the journal of a band that is on the disk, as soon as the checksum of the source is known.

    Args:
        work: the store.
        band: number of the band.
        checksum: SHA-256 of its file.
        mended: fields of the line that say what was mended in it.

    Raises:
        InputFileError: the source cannot be hashed.
        OutputError: the journal cannot be written.
    """
    work.done[band] = {**mended, "event": "band", "band": band, "sha256": checksum}
    work.untold.append(work.done[band])
    if work.sources.done():
        tell_all(work)


def tell_all(work: Work) -> None:
    """Tell the journal of all bands that wait for the checksum of the source, after waiting for it.

    Raises:
        InputFileError: the source cannot be hashed.
        OutputError: the journal cannot be written.
    """
    if work.untold:
        source = _digest_sources(work.sources)
        append_lines(progress_file(work.path), [{**line, "source": source} for line in work.untold])
        work.untold.clear()


def bytes_needed(work: Work, *, rows: int) -> int:
    """Upper bound of what so many rows still take, as if nothing could be compressed."""
    detectors, _, columns, channels = work.scan.shape
    pixel_bytes = detectors * channels * work.dtype.itemsize + _BYTES_BESIDE
    return rows * columns * pixel_bytes + _SMALL_PARTS_BYTES


def add_faults(work: Work, band: int, missing: NDArray[np.bool_], negative: int, lowest: float) -> None:
    """Count what was mended in a band that is finished."""
    work.missing[:, work.rows(band)] = missing
    work.faults.add(negative, lowest, int(missing.sum()), str(work.scan.files[0]))


def mended_record(band: Band) -> dict[str, Any]:
    """What the counts in the store do not tell any more, for a journal line; nothing where they are as in the file."""
    record: dict[str, Any] = {"negative": band.negative, "lowest": band.lowest} if band.negative else {}
    if band.missing.any():
        record["missing"] = np.packbits(band.missing).tobytes().hex()
    return record


def _read_mended(work: Work, line: Mapping[str, Any]) -> None:
    """Take over what a journal line says of a finished band."""
    missing = np.zeros_like(work.missing[:, work.rows(line["band"])])
    if "missing" in line:
        packed = np.frombuffer(bytes.fromhex(line["missing"]), dtype=np.uint8)
        missing = np.unpackbits(packed, count=missing.size).astype(np.bool_).reshape(missing.shape)
    negative, lowest = int(line.get("negative", 0)), float(line.get("lowest", 0.0))
    add_faults(work, line["band"], missing, negative, lowest)
