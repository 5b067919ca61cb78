"""Counts and times of the run beside a result: of one detector, or of those that the sum is made of."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.results.export.source import ExportSource
from hpcxrf.store.spectra import SpectraStore

FloatArray = NDArray[np.float64]

SUM: Final = "sum"
_BLOCK_BYTES: Final = 16 << 20
TIME_FIELDS: Final = ("live_time_s", "real_time_s", "icr_hz", "ocr_hz")


def list_members(source: ExportSource, store: SpectraStore, detector: str) -> tuple[int, ...]:
    """Numbers of the detectors whose counts a name stands for: one, or all that the sum was made of."""
    if detector != SUM:
        return (int(detector),)
    left_out = source.attributes.get("detectors_left_out", {})
    return tuple(number for number in range(store.shape[0]) if str(number) not in left_out)


def read_times(store: SpectraStore, members: tuple[int, ...]) -> Mapping[str, FloatArray]:
    """Live and real time, input and output rate (y, x); of several detectors their mean, as XRF-Maps has it."""
    times = store.times()
    return {name: getattr(times, name)[list(members)].astype(np.float64).mean(axis=0) for name in TIME_FIELDS}


def read_counts(store: SpectraStore, members: tuple[int, ...]) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Read counts (y, x, channel) in blocks of rows; of several detectors the sum of their raw channels."""
    _, height, width, channels = store.shape
    chunk = store.chunks[1]
    wanted = _BLOCK_BYTES // (len(members) * width * channels * store.dtype.itemsize)
    # Whole chunks, each of which is decoded once.
    rows = max(1, wanted // chunk) * chunk
    for first in range(0, height, rows):
        part = slice(first, min(first + rows, height))
        block = store.read_rows(members, part)
        yield part, block[0] if len(members) == 1 else block.sum(axis=0, dtype=summed_type(store))


def summed_type(store: SpectraStore) -> np.dtype[Any]:
    """Type of the sum of several detectors' counts."""
    return np.dtype(np.float32 if store.dtype.kind == "f" else np.uint32)
