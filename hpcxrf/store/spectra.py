"""A finished spectra store, opened for reading: any region, without the rest."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import ZipStore

from hpcxrf.config.untrusted import report_faults
from hpcxrf.errors import DamagedStoreError, OutputError
from hpcxrf.formats.scan import EnergyCalibration
from hpcxrf.notes import Note, unpack_notes
from hpcxrf.store.attributes import Attributes, SourceFile, read_calibration, read_root_attributes
from hpcxrf.store.bands import counted_type
from hpcxrf.store.packed import SUFFIX, locate_store
from hpcxrf.store.schema import COMPLETE_ATTRIBUTE, TILE_SUMS, band_count, tile_grid
from hpcxrf.store.shards import ShardReader, open_shards


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionTimes:
    """Times and rates of a region, each (detector, y, x), float32, NaN where not measured."""

    live_time_s: NDArray[np.float32]
    real_time_s: NDArray[np.float32]
    icr_hz: NDArray[np.float32]
    ocr_hz: NDArray[np.float32]


class Spectra(Protocol):
    """Spectra of a scan as the fits of the pixels read them: of a store, or of counts in memory."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(detector, y, x, channel)."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the counts."""
        ...

    @property
    def chunks(self) -> tuple[int, ...]:
        """(detector, y, x, channel) of what is read at once."""
        ...

    def read_rows(self, detectors: Sequence[int], y: slice, x: slice = ...) -> NDArray[Any]:
        """Read counts of a region, (detector, y, x, channel)."""
        ...

    def integrated(self, detector: int) -> NDArray[np.float64]:
        """Read the sum of the spectra of all pixels of one detector, (channel,)."""
        ...

    def max_channel_spectrum(self, detector: int) -> NDArray[np.float64]:
        """Read the highest counts of any pixel in each channel of one detector, (channel,)."""
        ...

    def measured(self, y: slice = ..., x: slice = ...) -> NDArray[np.bool_]:
        """Read where a spectrum was recorded, (y, x)."""
        ...

    def missing(self, detector: int, y: slice = ..., x: slice = ...) -> NDArray[np.bool_]:
        """Read where the spectrum of one detector was not measured, (y, x), beside pixels that none measured."""
        ...

    def spikes(self, detector: int) -> NDArray[np.int64]:
        """Read y, x and channel (place, 3) of channels that a detector can hardly have counted."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectraStore:
    """One scan's spectra on disk; made by `open_spectra`. Pass the path, not this, to another process."""

    path: Path
    scan_name: str
    format: str
    """Format of the source file, as `inspect` names it."""
    shape: tuple[int, int, int, int]
    """(detector, y, x, channel)."""
    dtype: np.dtype[Any]
    """Type of the counts that are read: uint16 (also of those stored in one byte), uint32 or float32."""
    chunks: tuple[int, ...]
    """Chunks of the counts: the smallest part that is read at once."""
    bands: int
    """Number of y-bands, each one file of counts."""
    calibration: tuple[EnergyCalibration, ...] | None
    """One per detector, or None where the source gave none."""
    incident_energy_kev: float | None
    tube: str | None
    """X-ray tube that the source names."""
    notes: tuple[Note, ...]
    sources: tuple[SourceFile, ...]
    scaler_names: tuple[str, ...]
    scaler_units: tuple[str, ...]
    _group: zarr.Group = field(repr=False, compare=False)
    _counts: ShardReader = field(repr=False, compare=False)
    _tiles: ShardReader | None = field(repr=False, compare=False)
    _kept: dict[str, NDArray[Any]] = field(default_factory=dict, repr=False, compare=False)
    """Small arrays that were read whole, by name: the pixels ask for them with every tile."""

    def read_rows(self, detectors: Sequence[int], y: slice, x: slice = slice(None)) -> NDArray[Any]:
        """Counts of a region, all channels, of type `dtype`.

        Args:
            detectors: numbers from 0, in the order of the result.
            y: contiguous rows.
            x: contiguous columns.

        Returns:
            (detector, y, x, channel).

        Raises:
            IndexError: there is no such detector.
            ValueError: the slices have a step.
        """
        return self._read_counts(detectors, (_require_contiguous(y), _require_contiguous(x)), self.dtype)

    def read_stored(self, detector: int, y: slice, x: slice = slice(None)) -> NDArray[Any]:
        """Counts of a region of one detector, (y, x, channel), of the type that they are stored in: beware of sums.

        Raises:
            IndexError: there is no such detector.
            ValueError: the slices have a step.
        """
        part = _require_contiguous(y), _require_contiguous(x)
        return np.asarray(self._read_counts([detector], part, self._counts.dtype)[0])

    def _read_counts(self, detectors: Sequence[int], part: tuple[slice, slice], dtype: np.dtype[Any]) -> NDArray[Any]:
        places = [self._checked(detector) for detector in detectors]
        rows, columns = (range(size)[one] for size, one in zip(self.shape[1:3], part, strict=True))
        region = np.empty((len(places), len(rows), len(columns), self.shape[3]), dtype=dtype)
        try:
            for place, detector in enumerate(places):
                self._counts.read_into(region[place], detector, rows, columns)
        except (ValueError, RuntimeError, OSError) as error:
            # What codecs raise has many types; a store that was finished gives no other cause for them.
            raise DamagedStoreError(
                f"{self.path}: counts of rows {rows.start} to {rows.stop - 1} cannot be read "
                f"({type(error).__name__}: {error}); the next run or resume ingests the scan again"
            ) from error
        return region

    @property
    def has_tiles(self) -> bool:
        """Whether the store has sums of tiles: small scans and stores of earlier versions have none."""
        return self._tiles is not None

    def tile_sums(self, detector: int, tile_y: slice = slice(None), tile_x: slice = slice(None)) -> NDArray[Any]:
        """Sums of the spectra of tiles of 16 x 16 pixels, (tile_y, tile_x, channel), whole numbers.

        Raises:
            ValueError: the store has none, or the slices have a step.
            DamagedStoreError: they cannot be read.
        """
        if self._tiles is None:
            raise ValueError(f"{self.path}: has no sums of tiles; add up its counts")
        grid = zip(tile_grid(self.shape), (tile_y, tile_x), strict=True)
        rows, columns = (range(size)[_require_contiguous(one)] for size, one in grid)
        sums = np.empty((len(rows), len(columns), self.shape[3]), dtype=self._tiles.dtype)
        try:
            self._tiles.read_into(sums, self._checked(detector), rows, columns)
        except (ValueError, RuntimeError, OSError) as error:
            raise DamagedStoreError(
                f"{self.path}: sums of tiles cannot be read ({type(error).__name__}: {error}); "
                "the next run or resume ingests the scan again"
            ) from error
        return sums

    def integrated(self, detector: int) -> NDArray[np.float64]:
        """Sum of the spectra of all pixels of one detector, (channel,)."""
        return np.array(self._keep("integrated")[self._checked(detector)])

    def max_channel_spectrum(self, detector: int) -> NDArray[np.float64]:
        """Highest counts of any pixel in each channel of one detector, (channel,): shows hot pixels."""
        return np.array(self._keep("max_channel_spectrum")[self._checked(detector)])

    def times(self, y: slice = slice(None), x: slice = slice(None)) -> RegionTimes:
        """Times and rates of a region, all detectors."""
        names = ("live_time_s", "real_time_s", "icr_hz", "ocr_hz")
        return RegionTimes(**{name: np.asarray(self._array(name)[:, y, x]) for name in names})

    def measured(self, y: slice = slice(None), x: slice = slice(None)) -> NDArray[np.bool_]:
        """True where a spectrum was recorded, (y, x)."""
        return self._keep("measured")[y, x].astype(np.bool_)

    def missing(self, detector: int, y: slice = slice(None), x: slice = slice(None)) -> NDArray[np.bool_]:
        """True where the spectrum of one detector was not measured though the pixel was, (y, x)."""
        number = self._checked(detector)
        if "missing" not in self._kept and "missing" not in self._group:
            # Of every detector in every tile: the store is not asked again.
            self._kept["missing"] = np.broadcast_to(np.zeros((), dtype=np.bool_), self.shape[:3])
        return self._keep("missing")[number, y, x].astype(np.bool_)

    def spikes(self, detector: int) -> NDArray[np.int64]:
        """Places (place, 3) of channels that a detector can hardly have counted: y, x, channel."""
        number = self._checked(detector)
        if "spike" not in self._group:
            return np.empty((0, 3), dtype=np.int64)
        places = np.asarray(self._array("spike")[...])
        return np.ascontiguousarray(places[places[:, 0] == number, 1:])

    def positions_um(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Stage positions x and y, micrometres, each (y, x); NaN where the source gave none."""
        return np.asarray(self._array("x_um")[...]), np.asarray(self._array("y_um")[...])

    def scaler(self, name: str, y: slice = slice(None)) -> NDArray[np.float64]:
        """One scaler's values in some rows, (y, x).

        Raises:
            ValueError: the scan has no scaler of this name.
        """
        if name not in self.scaler_names:
            raise ValueError(f"{self.path}: no scaler {name!r}; it has {self.scaler_names}")
        return np.asarray(self._array("scaler")[self.scaler_names.index(name), y])

    def _keep(self, name: str) -> NDArray[Any]:
        """A small array, read once: it is not to be written to."""
        if name not in self._kept:
            self._kept[name] = np.asarray(self._array(name)[...])
        return self._kept[name]

    def _array(self, name: str) -> zarr.Array[Any]:
        found = self._group[name]
        if not isinstance(found, zarr.Array):
            raise OutputError(f"{self.path}/{name}: is not an array; remove the store and ingest again")
        return found

    def _checked(self, detector: int) -> int:
        if not 0 <= detector < self.shape[0]:
            raise IndexError(f"{self.path}: no detector {detector}; there are {self.shape[0]}, counted from 0")
        return detector


def _require_contiguous(part: slice) -> slice:
    if part.step not in {None, 1}:
        raise ValueError(f"{part}: a region is contiguous; the step must be 1")
    return part


def open_spectra(path: Path) -> SpectraStore:
    """Open a finished spectra store.

    Args:
        path: `spectra/<dataset_id>.zarr`, also where the store is the zip beside it.

    Raises:
        OutputError: there is no store, it is not finished, another version wrote it, or files of it are gone.
    """
    attributes = read_root_attributes(path)
    if attributes is None:
        raise OutputError(f"{path}: does not exist; ingest the scan first")
    if not attributes.get(COMPLETE_ATTRIBUTE):
        raise OutputError(f"{path}: is not finished; run the ingest again, it goes on where it was")
    with report_faults(path, DamagedStoreError, "the next run or resume ingests the scan again"):
        place = locate_store(path)
        group = zarr.open_group(ZipStore(place, mode="r") if place.suffix == SUFFIX else place, mode="r")
        counts = group["counts"]
        if not isinstance(counts, zarr.Array):
            raise OutputError(f"{path}/counts: is not an array; remove the store and ingest again")
        return _build_store(path, attributes, group, counts)


def _build_store(path: Path, attributes: Attributes, group: zarr.Group, counts: zarr.Array[Any]) -> SpectraStore:
    detectors, rows, columns, channels = counts.shape
    bands = band_count(rows, (counts.shards or counts.chunks)[1])
    names = [f"counts/{counts.metadata.encode_chunk_key((0, band, 0, 0))}" for band in range(bands)]
    return SpectraStore(
        path=path,
        scan_name=attributes["scan_name"],
        format=attributes["format"],
        shape=(detectors, rows, columns, channels),
        dtype=counted_type(np.dtype(counts.dtype)),
        chunks=counts.chunks,
        bands=bands,
        calibration=read_calibration(attributes),
        incident_energy_kev=attributes["incident_energy_kev"],
        tube=attributes["tube"],
        notes=unpack_notes(attributes),
        sources=tuple(SourceFile(**source) for source in attributes["sources"]),
        scaler_names=_read_texts(group, "name"),
        scaler_units=_read_texts(group, "unit"),
        _group=group,
        _counts=open_shards(path, counts.metadata.to_dict(), names, np.dtype(counts.dtype)),
        _tiles=_open_tiles(path, group),
    )


def _open_tiles(path: Path, group: zarr.Group) -> ShardReader | None:
    if TILE_SUMS not in group:
        return None
    tiles = group[TILE_SUMS]
    if not isinstance(tiles, zarr.Array):
        raise OutputError(f"{path}/{TILE_SUMS}: is not an array; remove the store and ingest again")
    name = f"{TILE_SUMS}/{tiles.metadata.encode_chunk_key((0, 0, 0, 0))}"
    return open_shards(path, tiles.metadata.to_dict(), [name], np.dtype(tiles.dtype))


def _read_texts(group: zarr.Group, name: str) -> tuple[str, ...]:
    if name not in group:
        return ()
    texts = group[name]
    return tuple(str(text) for text in np.asarray(texts[...])) if isinstance(texts, zarr.Array) else ()
