"""Element maps as XRF-Maps, PyXRF and PyMca write them, for a comparison with ours; values in counts."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import InputFileError
from hpcxrf.formats.hdf5_files import find_dataset, open_hdf5, read_texts
from hpcxrf.formats.maps_hdf5 import read_live_time_s
from hpcxrf.formats.signatures import MEMBER_NAME

FloatArray = NDArray[np.float64]
Quantity = Literal["family", "strongest line", "window"]
"""What an amplitude counts: all lines of a family, its strongest line alone, or everything in a window of energies."""

ELASTIC: Final = "COHERENT_SCT_AMPLITUDE"
COMPTON: Final = "COMPTON_AMPLITUDE"
LARGEST_MAPS: Final = 2 << 30
"""Bytes of the maps of one method, as float64."""

_V10: Final = {"Fitted": "matrix", "NNLS": "nnls", "SVD": "svd", "ROI": "roi"}
_V9: Final = {"XRF_fits": "matrix", "XRF_roi_plus": "nnls", "XRF_roi": "roi"}
_SUMS: Final = frozenset({"Num_Iter", "Fit_Residual", "Total_Fluorescence_Yield", "Sum_Elastic_Inelastic"})
"""Maps of XRF-Maps that are not of a component."""
_PYXRF: Final = {"compton": COMPTON, "elastic": ELASTIC}
_FAMILY: Final = re.compile(r"(?P<element>[A-Z][a-z]?)[_ -](?P<shell>[KLM])")
_SCATTER: Final = re.compile(r"Scatter_(?P<kind>Peak|Compton)0*0")


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementMaps:
    """Maps of one detector by one method of another program."""

    program: str
    """`XRF-Maps`, `PyXRF` or `PyMca`."""
    method: str
    """Name of the fit as the program has it: `nnls`, `matrix`, `xrf_fit` .."""
    detector: str | None
    """Number of the detector, counted from 0, or `sum`; None: the file does not say."""
    names: tuple[str, ...]
    """Components by the names of this program: `Fe`, `Pt_L`, `COMPTON_AMPLITUDE`."""
    counts: FloatArray
    """(component, y, x)."""
    quantity: Quantity
    remarks: tuple[str, ...] = ()
    """Sentences on how the counts were obtained."""


def read_element_maps(path: Path) -> tuple[ElementMaps, ...]:
    """Read all element maps of a file of XRF-Maps (MAPS HDF5), PyXRF or PyMca (HDF5 of a batch fit).

    Rates of XRF-Maps are multiplied with the live time of their pixels, real time x OCR / ICR, by which it divided.

    Raises:
        InputFileError: not such a file, no maps in it, or maps that cannot be read.
    """
    with open_hdf5(path) as file:
        for is_there, read in _READERS:
            if is_there(file):
                found = tuple(read(path, file))
                break
        else:
            raise InputFileError(
                f"{path}: no element maps of XRF-Maps (/MAPS/XRF_Analyzed), PyXRF (/xrfmap/.../xrf_fit) or PyMca "
                "(.../results/parameters); name the file that the other program wrote its maps into"
            )
    if not found:
        raise InputFileError(f"{path}: the file has spectra, but no element maps; fit it with the other program first")
    return found


def name_family(name: str) -> str | None:
    """Our name of a family such as `Fe_K`, `Fe K` or `Fe-K` (`Fe`), `Pt_L`; None for anything else."""
    match = _FAMILY.fullmatch(name)
    if match is None:
        return None
    return match["element"] if match["shell"] == "K" else f"{match['element']}_{match['shell']}"


def _is_maps(file: h5py.File) -> bool:
    return isinstance(file.get("MAPS"), h5py.Group)


def _read_xrf_maps(path: Path, file: h5py.File) -> Iterable[ElementMaps]:
    root = "/MAPS/XRF_Analyzed"
    places = [(f"{root}/{n}/Counts_Per_Sec", f"{root}/{n}/Channel_Names", m) for n, m in _V10.items()]
    if not any(find_dataset(file, (place,)) is not None for place, _, _ in places):
        places = [(f"/MAPS/{n}", "/MAPS/channel_names", m) for n, m in _V9.items()]
    member = MEMBER_NAME.match(path.name)
    for place, names_at, method in places:
        stored = find_dataset(file, (place,))
        if stored is None:
            continue
        rates = _read_maps(stored)
        # XRF-Maps writes no attributes: what says what it counts is an export of this program.
        meaning = str(stored.attrs.get("meaning", ""))
        is_rate = not meaning or "live time" in meaning
        names = read_texts(find_dataset(file, (names_at,)))[: len(rates)]
        live_time_s = read_live_time_s(path, rates.shape[1:]) if is_rate else np.ones(rates.shape[1:])
        if live_time_s is None:
            raise InputFileError(
                f"{path}: {place} is in counts per second, and the file has no live time of its pixels; write it with "
                "XRF-Maps from the raw scan"
            )
        kept = [i for i, name in enumerate(names) if name and name not in _SUMS]
        yield ElementMaps(
            program="XRF-Maps",
            method=method,
            detector=None if member is None else str(int(member["number"])),
            names=tuple(names[i] for i in kept),
            counts=rates[kept] * live_time_s,
            quantity="window" if method == "roi" else "family" if meaning else "strongest line",
            remarks=("rates were multiplied with the live time, real time x OCR / ICR",) if is_rate else (),
        )


def _is_pyxrf(file: h5py.File) -> bool:
    return any(isinstance(file.get(name), h5py.Group) for name in ("xrfmap", "entry2D"))


def _read_pyxrf(_path: Path, file: h5py.File) -> Iterable[ElementMaps]:
    root = "xrfmap" if "xrfmap" in file else "entry2D"
    for group in sorted(name for name in file[root] if re.fullmatch(r"detsum|det\d+", name)):
        for method in ("xrf_fit", "xrf_roi"):
            stored = find_dataset(file, (f"/{root}/{group}/{method}",))
            if stored is None:
                continue
            counts = _read_maps(stored)
            given = read_texts(find_dataset(file, (f"/{root}/{group}/{method}_name",)))[: len(counts)]
            named = [(i, _PYXRF.get(name, name_family(name))) for i, name in enumerate(given)]
            kept = [(i, name) for i, name in named if name is not None]
            yield ElementMaps(
                program="PyXRF",
                method=method,
                detector="sum" if group == "detsum" else str(int(group.removeprefix("det")) - 1),
                names=tuple(name for _, name in kept),
                counts=counts[[i for i, _ in kept]],
                quantity="family" if method == "xrf_fit" else "window",
            )


def _is_pymca(file: h5py.File) -> bool:
    return bool(_find_pymca(file))


def _find_pymca(file: h5py.File) -> list[str]:
    """Groups `<entry>/<process>/results/parameters`."""
    entries = [entry for entry in file.values() if isinstance(entry, h5py.Group)]
    processes = [one for entry in entries for one in entry.values() if isinstance(one, h5py.Group)]
    places = [one.get("results/parameters") for one in processes]
    return [str(place.name) for place in places if isinstance(place, h5py.Group)]


def _read_pymca(_path: Path, file: h5py.File) -> Iterable[ElementMaps]:
    for place in _find_pymca(file):
        maps: dict[str, FloatArray] = {}
        for label in file[place]:
            name = name_family(label) or _name_scatter(label)
            stored = find_dataset(file, (f"{place}/{label}",)) if name is not None else None
            if name is not None and stored is not None and stored.ndim == 2:
                maps[name] = _read_maps(stored)[0]
        if maps:
            yield ElementMaps(
                program="PyMca",
                method=place.split("/")[2],
                detector=None,
                names=tuple(maps),
                counts=np.stack(list(maps.values())),
                quantity="family",
            )


def _name_scatter(label: str) -> str | None:
    match = _SCATTER.fullmatch(label)
    return None if match is None else {"Peak": ELASTIC, "Compton": COMPTON}[match["kind"]]


def _read_maps(stored: h5py.Dataset) -> FloatArray:
    """(component, y, x); a single map gets the axis."""
    size = stored.size or 0
    if stored.dtype.kind not in "iuf" or stored.ndim not in (2, 3) or size == 0 or size * 8 > LARGEST_MAPS:
        raise InputFileError(
            f"{stored.file.filename}: {stored.name} is {stored.dtype} {stored.shape}; maps must be numbers "
            f"(component, y, x) of at most {LARGEST_MAPS >> 30} GB"
        )
    values = np.asarray(stored[()], dtype=np.float64)
    return values[np.newaxis] if values.ndim == 2 else values


_READERS: Final[Sequence[tuple[Callable[[h5py.File], bool], Callable[[Path, h5py.File], Iterable[Any]]]]] = (
    (_is_maps, _read_xrf_maps),
    (_is_pyxrf, _read_pyxrf),
    (_is_pymca, _read_pymca),
)
