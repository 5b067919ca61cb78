"""What the readers of HDF5 layouts share: groups by name, one array a detector, times, scalers and positions."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import h5py
import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import InputFileError
from hpcxrf.formats.array_choice import list_entries, make_sort_key
from hpcxrf.formats.array_containers import Container, Entry, decode_texts
from hpcxrf.formats.array_scan import read_map, require_one_shape, stack_maps
from hpcxrf.formats.axes import Axes
from hpcxrf.formats.grid import Grid
from hpcxrf.formats.hdf5_access import find_group
from hpcxrf.formats.scan import FloatMap

MAP_AXES: Final = Axes(detector=None, y=0, x=1, energy=2, notes=())
POINT_AXES: Final = Axes(detector=None, y=0, x=None, energy=1, notes=())
_KEV_LIMITS: Final = (0.5, 200.0)


def has_group(file: h5py.File, path: str) -> bool:
    """Whether a group is in the file itself: no link out of it is followed."""
    return find_group(file, path) is not None


def sort_entries(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """In the order of the numbers in their paths."""
    return tuple(sorted(entries, key=lambda e: make_sort_key(e.path)))


def require_spectra(container: Container, counts: Sequence[Entry], rank: int, remedy: str) -> int | None:
    """Check the arrays of the detectors; rows that all of them have, None where they are of one shape.

    Raises:
        InputFileError: another rank, an empty array, values that are not numbers, or shapes that differ.
    """
    faults = [e for e in counts if len(e.shape) != rank or 0 in e.shape or e.dtype.kind not in "iuf"]
    if faults:
        raise InputFileError(
            f"{container.path}: {list_entries(faults)}: must be numbers with {rank} axes, none of them empty; {remedy}"
        )
    return require_one_shape(container, counts, remedy)


def read_detector_maps(
    container: Container, entries: Sequence[Entry | None], n_rows: int, grid: Grid | None, factor: float = 1.0
) -> FloatMap | None:
    """(detector, y, x) of one array a detector; None where one of them has none of the right length."""
    maps = [
        factor * read_map(container, e, n_rows, grid)
        if e is not None and is_numeric(e) and e.shape[0] >= n_rows
        else None
        for e in entries
    ]
    return stack_maps(maps)


def is_numeric(entry: Entry) -> bool:
    """Whether an array holds real numbers and has an axis."""
    return entry.dtype.kind in "iuf" and len(entry.shape) > 0


def read_texts(container: Container, path: str) -> tuple[str, ...]:
    """Strings of a small array; empty where there is none."""
    entry = container.entries.get(path)
    if entry is None or entry.dtype.kind not in "SOU" or int(np.prod(entry.shape)) > 10_000:
        return ()
    return tuple(t.split("\0")[0].strip() for t in decode_texts(read_all(container, entry)))


def read_numbers(container: Container, path: str) -> tuple[float, ...]:
    """Finite numbers of a small array; empty where there is none."""
    entry = container.entries.get(path)
    if entry is None or entry.dtype.kind not in "iuf" or int(np.prod(entry.shape)) > 10_000:
        return ()
    values = np.asarray(read_all(container, entry), dtype=np.float64).reshape(-1)
    return tuple(values.tolist()) if np.isfinite(values).all() else ()


def read_number(container: Container, path: str) -> float | None:
    """A finite number of an array of one value; None where there is none."""
    values = read_numbers(container, path)
    return values[0] if len(values) == 1 else None


def read_all(container: Container, entry: Entry) -> NDArray[np.generic]:
    """A whole array, which must be small."""
    return container.read(entry, tuple(slice(0, n) for n in entry.shape))


def check_energy_kev(value: object, unit: str = "keV") -> float | None:
    """An incident energy in keV, of a number in keV or eV; None for what cannot be one."""
    try:
        energy_kev = float(np.asarray(value, dtype=np.float64).reshape(())) * (1e-3 if unit.lower() == "ev" else 1.0)
    except (TypeError, ValueError):
        return None
    return energy_kev if _KEV_LIMITS[0] <= energy_kev <= _KEV_LIMITS[1] else None


def list_scalers(
    container: Container, entries: Mapping[str, Entry], n_rows: int, grid: Grid | None
) -> tuple[tuple[str, ...], FloatMap | None]:
    """Names and values (scaler, y, x) of arrays with one value a pixel."""
    maps = [read_map(container, entry, n_rows, grid) for entry in entries.values()]
    return tuple(entries), np.stack(maps) if maps else None


def build_refusal(container: Container, looked_for: str, holds: str) -> InputFileError:
    """An error for a file that is recognised and has no spectra."""
    return InputFileError(
        f"{container.path}: holds {holds} and no spectra ({looked_for} is missing); name the file with the raw spectra"
    )
