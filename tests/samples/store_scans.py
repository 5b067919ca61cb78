"""Scans made on the fly for the tests of the store, and the child process that ingests one and may be killed."""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from hpcxrf.formats.scan import EnergyCalibration, RawScan, ScanScalars
from hpcxrf.notes import Note
from hpcxrf.store import schema
from hpcxrf.store.ingest import ingest_scan

SMALL_BAND_BYTES = 1 << 16
SMALL_SHAPE = (2, 37, 9, 128)


def write_source(folder: Path, content: bytes = b"what the instrument wrote") -> Path:
    source = folder / "scan.raw"
    source.write_bytes(content)
    return source


def made_scalars(shape: tuple[int, int, int, int]) -> ScanScalars:
    detectors, rows, columns, _ = shape
    real = np.full((detectors, rows, columns), 0.5)
    live = real * np.linspace(0.8, 1.0, columns)
    scaler = np.arange(2.0 * rows * columns).reshape(2, rows, columns)
    measured = np.ones((rows, columns), dtype=bool)
    measured[-1, -1] = False
    return ScanScalars(
        live_time_s=live,
        real_time_s=real,
        scaler_names=("US_IC", "caf\u00e9 current"),
        scaler_units=("cts/s", "mA"),
        scaler_values=scaler,
        x_um=np.broadcast_to(np.arange(columns, dtype=float), (rows, columns)),
        measured=measured,
    )


def made_scan(
    source: Path,
    *,
    shape: tuple[int, int, int, int] = SMALL_SHAPE,
    dtype: str = "float32",
    rows_per_read: int = 5,
    scale: float = 1.0,
    pause_s: float = 0.0,
) -> RawScan:
    """Sparse Poisson counts, every row another; the whole cube is `whole(scan)`."""
    detectors, rows, columns, channels = shape
    rng = np.random.default_rng(7)
    first_row = rng.poisson(0.4, (detectors, columns, channels)).astype(dtype) * np.dtype(dtype).type(scale)

    def read_counts(part: slice) -> np.ndarray:
        time.sleep(pause_s)
        wanted = range(rows)[part]
        block = np.empty((detectors, len(wanted), columns, channels), dtype=dtype)
        for place, row in enumerate(wanted):
            block[:, place] = np.roll(first_row, row, axis=-1)
        return block

    return RawScan(
        name="made",
        format="made",
        files=(source,),
        shape=shape,
        dtype=np.dtype(dtype),
        rows_per_read=rows_per_read,
        read_counts=read_counts,
        read_scalars=lambda: made_scalars(shape),
        calibration=(EnergyCalibration(offset_kev=-0.004, slope_kev=0.0095),) * detectors,
        incident_energy_kev=10.0,
        notes=(Note("warning", "a guess was made"),),
    )


def whole(scan: RawScan) -> np.ndarray:
    return scan.read_counts(slice(0, scan.shape[1]))


def tree_content(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def _status_kb(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def main() -> None:
    """`store_scans.py {"source": ..., "store": ..., ...}`: says READY, ingests, tells its memory."""
    options = json.loads(sys.argv[1])
    schema.BAND_BYTES_MIN = options.get("band_bytes", schema.BAND_BYTES_MIN)
    schema.BAND_BYTES_MAX = options.get("band_bytes", schema.BAND_BYTES_MAX)
    shape = tuple(options["shape"])
    scan = made_scan(
        Path(options["source"]),
        shape=shape,
        rows_per_read=options["rows_per_read"],
        pause_s=options.get("pause_s", 0.0),
    )
    idle_kb = _status_kb("VmRSS")
    os.write(1, b"READY\n")
    record = ingest_scan(scan, Path(options["store"]))
    peak_kb = _status_kb("VmHWM")
    answer = {"idle_kb": idle_kb, "peak_kb": peak_kb, "resumed": record.resumed_bands}
    os.write(1, json.dumps(answer | {"bands": record.bands}).encode() + b"\n")


if __name__ == "__main__":
    main()


def interrupt_at(call: int):
    """A `progress` of an ingest that is interrupted when it is told so many times and once more."""
    calls = iter(range(1000))

    def interrupt(rows_done: int, rows: int) -> None:
        if next(calls) == call:
            raise KeyboardInterrupt

    return interrupt
