"""What the writers of all formats read: a result, its maps by detector and quantity, positions, names for files."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hpcxrf.results.store.opening import open_results
from hpcxrf.store.packed import folder_of, is_store
from hpcxrf.store.schema import BLOCK_Y
from hpcxrf.store.spectra import SpectraStore, open_spectra

FloatArray = NDArray[np.float64]

LAYER_GROUPS: Final = ("maps", "normalised", "areal_density")
"""Groups whose variables may be maps (detector, component, y, x)."""
_GROUPS: Final = (*LAYER_GROUPS, "spectrum", "parameters", "regions")
_LAYER_DIMS: Final = ("component", "y", "x")
_HELD_BYTES: Final = 64 << 20
"""Largest quantity that is read at once where a writer wants its maps one by one."""
_CHUNK_COLUMNS: Final = 4096
_LARGEST_NAME: Final = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSource:
    """One result as the writers see it."""

    name: str
    """Name of the dataset."""
    groups: Mapping[str, xr.Dataset]
    """Groups of the results store that it has, read when they are used; in each the first axis is `detector`."""
    attributes: Mapping[str, Any]
    """Provenance: the root attributes of the store."""
    spectra: SpectraStore | None = None
    """The spectra of the run, where they are wanted and there."""
    close: Callable[[], None] = lambda: None
    """Closes the files of the store."""
    notes: list[str] = field(default_factory=list)
    """Sentences for people on what could not be written; writers add theirs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """The maps of one quantity of one detector."""

    group: str
    name: str
    values: xr.DataArray
    """(component, y, x), read when it is used."""

    @property
    def key(self) -> str:
        """Name in files: that of the variable, with that of its group where it is a derived layer."""
        return self.name if self.group in {"maps", self.name} else f"{self.group}_{self.name}"

    @property
    def units(self) -> str:
        """Unit as the store has it."""
        return str(self.values.attrs.get("units", ""))

    @property
    def long_name(self) -> str:
        """Meaning as the store has it."""
        return str(self.values.attrs.get("long_name", self.name))

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the components."""
        return tuple(str(name) for name in self.values["component"].values)


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelPositions:
    """Stage positions, micrometres."""

    x_um: FloatArray
    """(y, x)."""
    y_um: FloatArray
    """(y, x)."""
    columns_um: FloatArray | None
    """(x,) mean position of every column; None where the pixels are not a raster."""
    rows_um: FloatArray | None
    """(y,) mean position of every row; None where the pixels are not a raster."""

    @property
    def step_um(self) -> tuple[float, float] | None:
        """Pixel size (y, x), both positive; None where it is unknown. A scan of one row has square pixels."""
        if self.columns_um is None or self.rows_um is None:
            return None
        steps = [
            float(np.median(np.abs(np.diff(a)))) if a.size > 1 else np.nan for a in (self.rows_um, self.columns_um)
        ]
        known = [step for step in steps if np.isfinite(step)]
        if not known:
            return None
        y, x = (step if np.isfinite(step) else known[0] for step in steps)
        return y, x


def read_source(path: Path, *, spectra: bool = False) -> ExportSource:
    """Open a results store.

    Args:
        path: `results/<dataset>.zarr` or its zip.
        spectra: also open the spectra of the dataset, in the folder `spectra` beside `results`.

    Raises:
        OutputError: no results store there, one of another schema version, or spectra that are damaged.
    """
    tree = open_results(path)
    folder = folder_of(path)
    beside = folder.absolute().parent.parent / "spectra" / folder.name
    return ExportSource(
        name=folder.name.removesuffix(".zarr"),
        groups={name: tree[name].to_dataset() for name in _GROUPS if name in tree.children},
        attributes={str(key): value for key, value in tree.attrs.items()},
        close=tree.close,
        spectra=open_spectra(beside) if spectra and is_store(beside) else None,
    )


def source_of_maps(maps: xr.Dataset, name: str) -> ExportSource:
    """Take maps that are in memory, with or without a detector axis."""
    whole = maps if "detector" in maps.dims else maps.drop_vars("detector", errors="ignore").expand_dims(detector=["0"])
    return ExportSource(
        name=name, groups={"maps": whole}, attributes={str(key): value for key, value in maps.attrs.items()}
    )


def list_detectors(source: ExportSource, layers: Sequence[str] = LAYER_GROUPS) -> tuple[str, ...]:
    """Names of the detectors of all maps, or of those of some groups: derived layers may have a sum that maps lack."""
    groups = [source.groups[name] for name in layers if name in source.groups]
    return tuple(dict.fromkeys(str(d) for one in groups if "detector" in one.coords for d in one["detector"].values))


def list_quantities(source: ExportSource, detector: str) -> tuple[Quantity, ...]:
    """Every quantity with a map of each component that a detector has, `amplitude` first."""
    found = []
    for group in LAYER_GROUPS:
        maps = source.groups.get(group)
        if maps is None or detector not in _labels(maps, "detector"):
            continue
        one = maps.isel(detector=_labels(maps, "detector").index(detector))
        layers = [str(name) for name, values in one.data_vars.items() if values.dims == _LAYER_DIMS]
        layers.sort(key=lambda name: (name not in {"amplitude", "rate", group}, name != "sigma"))
        found += [Quantity(group=group, name=name, values=one[name]) for name in layers]
    return tuple(found)


def read_bands(values: xr.DataArray, height: int = BLOCK_Y) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Read maps (*, y, x) by bands of map blocks, so that a large scan is never whole in memory."""
    for row in range(0, values.sizes["y"], height):
        rows = slice(row, min(row + height, values.sizes["y"]))
        yield rows, values.isel(y=rows).values


def chunk_of_maps(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Chunk of maps (y, x) or (component, y, x): rows of a band, so that each is compressed once."""
    *_, rows, columns = shape
    return (*(1 for _ in shape[:-2]), max(1, min(rows, BLOCK_Y)), max(1, min(columns, _CHUNK_COLUMNS)))


def read_layers(values: xr.DataArray) -> Iterator[NDArray[Any]]:
    """Read maps (component, y, x) one component after the other; all at once where they are small."""
    if values.nbytes <= _HELD_BYTES:
        yield from values.values
        return
    for index in range(values.sizes["component"]):
        yield values.isel(component=index).values


def read_positions(maps: xr.Dataset) -> PixelPositions | None:
    """Read the positions of the pixels; None where they are unknown, or the stage did not move.

    A raster has rows and columns that follow each other, and every pixel nearer to its own than to the next one.
    """
    if "x_um" not in maps.coords or "y_um" not in maps.coords:
        return None
    x, y = (np.asarray(maps[name].values, dtype=np.float64) for name in ("x_um", "y_um"))
    if x.ndim != 2 or not (np.isfinite(x).all() and np.isfinite(y).all()) or not (np.ptp(x) > 0 or np.ptp(y) > 0):
        return None
    columns, rows = x.mean(axis=0), y.mean(axis=1)
    is_raster = _follows(columns, x - columns) and _follows(rows, y - rows[:, None])
    return PixelPositions(
        x_um=x, y_um=y, columns_um=columns if is_raster else None, rows_um=rows if is_raster else None
    )


def _follows(line: FloatArray, off: FloatArray) -> bool:
    steps = np.diff(line)
    if steps.size == 0:
        return True
    return bool((np.all(steps > 0) or np.all(steps < 0)) and np.abs(off).max() < 0.5 * np.abs(steps).min())


def make_names(labels: Sequence[str]) -> tuple[str, ...]:
    """Names for files and HDF5 datasets, all different: letters, digits, dots, hyphens and underscores.

    >>> make_names(["Fe", "Pt_L", "a/b", "a b"])
    ('Fe', 'Pt_L', 'a_b', 'a_b_2')
    """
    names: list[str] = []
    for label in labels:
        plain = re.sub(r"[^A-Za-z0-9._-]", "_", label)[:_LARGEST_NAME].lstrip(".-") or "_"
        name, number = plain, 1
        while name.lower() in {one.lower() for one in names}:
            number += 1
            name = f"{plain}_{number}"
        names.append(name)
    return tuple(names)


def name_detector(detector: str) -> str:
    """Name of a detector in the name of a file: `det0`, `sum`."""
    return f"det{detector}" if detector.isdigit() else make_names([detector])[0]


def _labels(dataset: xr.Dataset, dim: str) -> list[str]:
    return [str(name) for name in dataset[dim].values] if dim in dataset.coords else []
