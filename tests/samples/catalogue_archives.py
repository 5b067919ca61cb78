"""Small archives for the catalogue, and what a walk over them gives."""

import hashlib
import os
from pathlib import Path

import h5py
import numpy as np

from hpcxrf.archive.catalogue.report import WalkReport
from hpcxrf.archive.catalogue.update import WalkOptions, update_catalogue
from hpcxrf.catalogue.read import read_catalogue
from hpcxrf.catalogue.rows import ScanRow

TEXT_SPECTRUM = "VERSION: 3.1\nELEMENTS: 1\nDATE: {date}\nCHANNELS: 64\nREAL_TIME: 2.0\nLIVE_TIME: {live}\nDATA:\n"


def write_text_spectrum(path: Path, first: int = 0, date: str = "Jan 30, 2013 15:25:17.766", live: float = 1.5) -> Path:
    """An EPICS MCA text of 64 channels with 64 * first + 2016 counts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{first + channel}\n" for channel in range(64))
    path.write_text(TEXT_SPECTRUM.format(date=date, live=live) + rows)
    return path


def write_large_array(path: Path, seed: int, shape=(4, 5, 2048)) -> Path:
    """A map in HDF5 that is too large for its fingerprint to hold all of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["counts"] = np.random.default_rng(seed).poisson(3.0, shape).astype(np.uint16)
        file["counts"].attrs["dims"] = "y,x,energy"
    return path


def walk(path: Path, *folders: Path, jobs: int = 1, **options) -> WalkReport:
    return update_catalogue(path, folders, WalkOptions(jobs=jobs, **options))


def rows_of(path: Path, where: str | None = None) -> dict[str, ScanRow]:
    return {row.path: row for row in read_catalogue(path, where)}


def some_changes(report: WalkReport) -> dict[str, int]:
    return {name: count for name, count in report.changes.items() if count}


def hash_tree(folder: Path) -> str:
    """Names, kinds, sizes, times and contents of all that is in a folder."""
    digest = hashlib.sha256()
    for place, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted([*folders, *files, "."]):
            one = Path(place) / name
            status = one.lstat()
            digest.update(f"{os.fsencode(one)!r} {status.st_mode} {status.st_size} {status.st_mtime_ns}\n".encode())
            if one.is_file() and not one.is_symlink():
                digest.update(one.read_bytes())
    return digest.hexdigest()
