"""Catalogues of a few scans, written row by row, and archives of scans that the model itself draws."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
from run_samples import SLOPE_KEV, spectrum

from hpcxrf.catalogue.rows import COLUMNS, ScanRow, to_record
from hpcxrf.catalogue.schema import create_tables

ELEMENTS = ("Ca", "Fe", "Zn")


def row(scan_id, root, path, **values):
    """A row of a scan that can be opened, of two rows and three columns, unless `values` say otherwise."""
    file = Path(root, path)
    known = file.stat() if file.is_file() else None
    plain = dict.fromkeys(COLUMNS) | {
        "scan_id": scan_id,
        "root": str(root),
        "path": str(path),
        "format": "array",
        "shape_y": 2,
        "shape_x": 3,
        "n_channels": 1200,
        "n_detectors": 1,
        "date": f"2024-03-{1 + scan_id % 28:02}T00:00:00",
        "i0_names": (),
        "companions": (),
        "elements": (),
        "size_bytes": 1000 if known is None else known.st_size,
        "mtime_ns": 0 if known is None else known.st_mtime_ns,
        "state": "ok",
    }
    return ScanRow(**plain | values)


def write_catalogue(path, rows):
    """Write a catalogue of rows, in the place of the one that is there."""
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as base:
        create_tables(base)
        marks = ", ".join("?" * len(COLUMNS))
        base.executemany(f"INSERT INTO scan VALUES ({marks})", [to_record(one) for one in rows])  # noqa: S608
    base.close()
    return path


def write_archive(folder, names, *, shape=(2, 3), counts=400.0):
    """Scans `NAME.npy` of one detector, whose axis drifts a little, an override file for all, and their rows."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, name in enumerate(names):
        mean = spectrum(
            {e: counts * (1 + (number + i) % 3) for i, e in enumerate(ELEMENTS)}, energy_offset=1e-3 * number
        )
        drawn = np.random.default_rng(number).poisson(np.broadcast_to(mean, (1, *shape, mean.shape[0])))
        np.save(folder / f"{name}.npy", drawn.astype(np.uint16))
        rows.append(row(number + 1, folder, f"{name}.npy", shape_y=shape[0], shape_x=shape[1]))
    (folder / "maps_fit_parameters_override.txt").write_text(
        f"CAL_OFFSET: 0.0\nCAL_SLOPE: {SLOPE_KEV}\nCOHERENT_SCT_ENERGY: 10.0\nELEMENTS_TO_FIT: {', '.join(ELEMENTS)}\n"
    )
    return rows


def touch_later(path):
    """Give a file another time."""
    import os

    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))


__all__ = ["ELEMENTS", "replace", "row", "touch_later", "write_archive", "write_catalogue"]
