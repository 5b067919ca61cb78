"""Maps of electron microscopes and benchtop instruments through rosettasciio: Bruker .bcf, JEOL .pts, Velox .emd.

rosettasciio is GPL-3: it is an optional extra (`eds`), imported only when such a file is opened.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import InputFileError
from hpcxrf.formats.array_scan import UNITS_UM, make_calibration
from hpcxrf.formats.axes import choose_calibration
from hpcxrf.formats.hdf5_access import find_group, open_for_reading
from hpcxrf.formats.hdf5_files import HDF5_FAULTS, check_rows, refuse_bad_counts, rows_per_block
from hpcxrf.formats.hyperspy import lay_out_positions
from hpcxrf.formats.scan import RawScan, ReadOptions, ScanScalars
from hpcxrf.formats.signatures import is_hdf5
from hpcxrf.formats.table import FileFormat
from hpcxrf.notes import Note

FILE_FORMATS: Final = (
    FileFormat(name="bruker-bcf", files="Bruker .bcf", reads="a map of spectra; axis, step", extra="eds"),
    FileFormat(name="jeol-pts", files="JEOL .pts", reads="a map of spectra; axis, step", extra="eds"),
    FileFormat(name="velox-emd", files="Velox .emd", reads="maps of each detector; axis, step", extra="eds"),
)
LOOKS_FOR: Final = "Bruker .bcf, JEOL .pts, Velox .emd (with the extra `eds`)"
_PACKAGE: Final = "rsciio"
_REMEDY: Final = (
    "install the extra: pip install 'hpcxrf[eds]' (rosettasciio, of licence GPL-3), or export the map as .hspy"
)
_BRUKER: Final = b"AAMVHFSS"
_JEOL: Final = (304).to_bytes(4, "little")
_KEV: Final = {"kev": 1.0, "ev": 1e-3}
_LARGEST_BYTES: Final = 16 * 2**30
"""Largest map that is held in memory: these readers give a map as a whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """One format of rosettasciio."""

    format: str
    module: str
    options: tuple[Mapping[str, Any], ...]
    """Options of its reader, in the order in which they are tried until there are spectra."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signal:
    """One map as rosettasciio describes it; axes in the order y, x, channel."""

    data: NDArray[Any]
    calibration: tuple[float, float]
    steps_um: Mapping[str, tuple[float, float]]


_KINDS: Final = {
    "bcf": _Kind(format="bruker-bcf", module="bruker", options=({"select_type": "spectrum_image"},)),
    "pts": _Kind(format="jeol-pts", module="jeol", options=({},)),
    "emd": _Kind(
        format="velox-emd",
        module="emd",
        options=tuple(
            {"select_type": kind, "sum_EDS_detectors": False} for kind in ("spectrum_image", "single_spectrum")
        ),
    ),
}


def sniff(path: Path, head: bytes) -> bool:
    """True for the three formats, whether or not the package that reads them is installed."""
    return not path.is_dir() and _recognise(path, head) is not None


def open_file(path: Path, options: ReadOptions) -> RawScan:
    """Open a map; the whole of it is read into memory once, when it is first needed.

    Raises:
        InputFileError: the package is missing, with how to install it; the file is damaged; it has no map of spectra.
    """
    with path.open("rb") as file:
        kind = _recognise(path, file.read(len(_BRUKER)))
    if kind is None:
        raise InputFileError(f"{path}: is neither Bruker .bcf, JEOL .pts nor Velox .emd; check the name")
    signals = _read_signals(path, kind)
    first = signals[0]
    height, width, n_channels = first.data.shape
    shape = (len(signals), height, width, n_channels)
    dtype = np.result_type(*(s.data.dtype for s in signals))
    calibration = tuple(make_calibration(*s.calibration) for s in signals)
    row_bytes = len(signals) * width * n_channels * dtype.itemsize
    return RawScan(
        name=path.stem,
        format=kind.format,
        files=(path,),
        shape=shape,
        dtype=dtype,
        rows_per_read=rows_per_block(row_bytes=2 * row_bytes, chunk_rows=1, height=height),
        read_counts=_build_reader(path, [s.data for s in signals], shape),
        read_scalars=lambda: _read_positions(first, (height, width)),
        calibration=choose_calibration(str(path), calibration, options, len(signals), n_channels),
        notes=(Note("warning", "excited by electrons, unless the instrument has an X-ray tube"),),
    )


def _read_positions(signal: _Signal, size: tuple[int, int]) -> ScanScalars:
    found = lay_out_positions(signal.steps_um, size)
    return ScanScalars(x_um=found.get("x_um"), y_um=found.get("y_um"))


def _recognise(path: Path, head: bytes) -> _Kind | None:
    if head.startswith(_BRUKER):
        return _KINDS["bcf"]
    if head.startswith(_JEOL) and path.suffix.lower() == ".pts":
        return _KINDS["pts"]
    return _KINDS["emd"] if is_hdf5(head) and _is_velox(path) else None


def _is_velox(path: Path) -> bool:
    """Velox has /Data with groups of what was measured; NCEM's .emd has none of these names."""
    try:
        with open_for_reading(path) as file:
            data = find_group(file, "Data")
            return data is not None and any(n in data for n in ("SpectrumStream", "SpectrumImage", "Spectrum"))
    except HDF5_FAULTS:
        return False


def _read_signals(path: Path, kind: _Kind) -> list[_Signal]:
    """Maps of one shape with an energy axis."""
    try:
        reader = importlib.import_module(f"{_PACKAGE}.{kind.module}")
    except ImportError as error:
        raise InputFileError(f"{path}: is {kind.format}, which needs the package rosettasciio; {_REMEDY}") from error
    found: list[Mapping[str, Any]] = []
    signals: list[_Signal] = []
    for options in kind.options:
        if not signals:
            found = [*found, *_call_reader(path, kind, reader, options)]
            signals = [s for s in (_describe(path, one) for one in found) if s is not None]
    if not signals:
        titles = ", ".join(str(_find_title(one)) for one in found) or "nothing"
        raise InputFileError(f"{path}: holds no map of spectra, only {titles}; name the file with the map")
    same = [s for s in signals if s.data.shape == signals[0].data.shape]
    if len(same) != len(signals):
        shapes = ", ".join(str(s.data.shape) for s in signals)
        raise InputFileError(f"{path}: holds maps of several shapes ({shapes}); export the one to fit as .hspy")
    return signals


def _call_reader(path: Path, kind: _Kind, reader: ModuleType, options: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Everything that a reader of rosettasciio returns.

    Raises:
        InputFileError: whatever it raised.
    """
    try:
        return list(reader.file_reader(str(path), **options))
    except ImportError as error:
        raise InputFileError(f"{path}: is {kind.format}, which needs another package ({error}); {_REMEDY}") from error
    except Exception as error:
        # foreign code on foreign bytes raises what it likes
        raise InputFileError(
            f"{path}: rosettasciio cannot read it as {kind.format}: {error!r}; if it is damaged, copy it again"
        ) from error


def _find_title(found: Mapping[str, Any]) -> object:
    return found.get("metadata", {}).get("General", {}).get("title", "a signal without a title")


def _describe(path: Path, found: Mapping[str, Any]) -> _Signal | None:
    """A map, line or single spectrum with an axis of energy; None for images."""
    data, axes = found["data"], list(found["axes"])
    energies = [i for i, axis in enumerate(axes) if str(axis.get("units")).strip().lower() in _KEV]
    if len(energies) != 1 or data.ndim != len(axes) or data.ndim > 3 or data.dtype.kind not in "iuf":
        return None
    if data.nbytes > _LARGEST_BYTES:
        raise InputFileError(
            f"{path}: a map of {data.shape} takes {data.nbytes} bytes, at most {_LARGEST_BYTES} are held in memory"
        )
    axis = axes[energies[0]]
    scale = _KEV[str(axis["units"]).strip().lower()]
    moved = np.moveaxis(data, energies[0], -1)
    image = [one for i, one in enumerate(axes) if i != energies[0]]
    names = ("y", "x")[2 - len(image) :]
    return _Signal(
        data=moved.reshape((1,) * (3 - moved.ndim) + moved.shape),
        calibration=(float(axis["offset"]) * scale, float(axis["scale"]) * scale),
        steps_um={
            name: (float(one["offset"]) * UNITS_UM[unit], float(one["scale"]) * UNITS_UM[unit])
            for name, one in zip(names, image, strict=True)
            if (unit := str(one.get("units")).strip().lower()) in UNITS_UM
        },
    )


def _build_reader(
    path: Path, maps: Sequence[NDArray[Any]], shape: tuple[int, int, int, int]
) -> Callable[[slice], NDArray[np.generic]]:
    def read(rows: slice) -> NDArray[np.generic]:
        wanted = check_rows(path, rows, shape[1])
        block = np.stack([data[wanted] for data in maps])
        for detector, spectra in enumerate(block):
            refuse_bad_counts(spectra, path=path, detector=detector, first_row=wanted.start)
        return block

    return read
