"""A small run to explore: a results store of known maps, and a spectra store of known counts."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from results_sample import N_CHANNELS, make_store
from store_scans import made_scan, whole, write_source

from hpcxrf.store.ingest import ingest_scan

SHAPE_YX = (21, 33)
NAME = "leaf-1a2b3c4d"


@dataclass(frozen=True)
class MadeRun:
    """A run directory, and what is in it."""

    folder: Path
    counts: np.ndarray
    """(detector, y, x, channel)."""
    maps: np.ndarray
    """(component, y, x), the amplitudes that the pixels have."""

    @property
    def results(self) -> Path:
        return self.folder / "results" / f"{NAME}.zarr"

    @property
    def spectra(self) -> Path:
        return self.folder / "spectra" / f"{NAME}.zarr"


def make_run(folder: Path, *, shape_yx: tuple[int, int] = SHAPE_YX, dtype: str = "float32") -> MadeRun:
    """Two detectors and their sum; the first pixel of every block is empty."""
    (folder / "results").mkdir(parents=True)
    (folder / "spectra").mkdir()
    (folder / "effective.json").write_text(json.dumps({"input": {}, "sample": {}}))
    source = folder.with_name(f"{folder.name}-source")
    source.mkdir()
    scan = made_scan(write_source(source), shape=(2, *shape_yx, N_CHANNELS), dtype=dtype)
    ingest_scan(scan, folder / "spectra" / f"{NAME}.zarr")
    maps = make_store(folder / "results" / f"{NAME}.zarr", shape_yx=shape_yx, detectors=("0", "1", "sum"))
    return MadeRun(folder=folder, counts=whole(scan), maps=maps)
