"""MAPS HDF5 as XRF-Maps writes it, version 10, with the hard links of version 9: a file per detector.

Names, units, shapes and order are those of XRF-Maps (https://github.com/aglowacki/XRF-Maps, BSD-3); what differs in
meaning stands in attributes, which XRF-Maps has none of.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import xraylib
from numpy.typing import NDArray

from hpcxrf.formats.maps_hdf5 import MILLIMETRE_UM
from hpcxrf.formats.maps_writer import (
    MAPS_TIME_NAMES,
    NAME_BYTES,
    PARAMETER_NAME_BYTES,
    TIME_NAMES,
    create_maps_dataset,
)
from hpcxrf.physics.scatter_names import COMPTON, ELASTIC
from hpcxrf.results.export.new_hdf5 import create_file
from hpcxrf.results.export.run_spectra import SUM, list_members, read_counts, read_times
from hpcxrf.results.export.source import ExportSource, chunk_of_maps, list_detectors, read_bands, read_positions
from hpcxrf.store.schema import BLOCK_Y
from hpcxrf.store.spectra import SpectraStore

FloatArray = NDArray[np.float64]

_FITTED: Final = "MAPS/XRF_Analyzed/Fitted"
_TOTAL: Final = "Total_Fluorescence_Yield"
_SCATTER: Final = "Sum_Elastic_Inelastic"
_RATE: Final = "cts/s"
_LARGEST_CHUNK: Final = 16 << 20
_STEP_NAMES: Final = {"step_offset": "F_STEP_OFFSET", "step_linear": "F_STEP_LINEAR"}
_MEANING: Final = (
    "recorded counts of the whole family of lines over live time; XRF-Maps gives the counts of the strongest line "
    "(K-alpha-1) alone"
)
_LINKS: Final = {
    "mca_arr": "Spectra/mca_arr",
    "energy": "Spectra/Energy",
    "energy_calib": "Spectra/Energy_Calibration",
    "int_spec": "Spectra/Integrated_Spectra/Spectra",
    "XRF_fits": "XRF_Analyzed/Fitted/Counts_Per_Sec",
    "channel_names": "XRF_Analyzed/Fitted/Channel_Names",
    "scalers": "Scalers/Values",
    "scaler_names": "Scalers/Names",
    "scaler_units": "Scalers/Units",
    "x_axis": "Scan/x_axis",
    "y_axis": "Scan/y_axis",
}
"""Names of version 9 of what version 10 keeps elsewhere."""


def write(source: ExportSource, folder: Path, stem: str) -> None:
    """Write `<stem>.h50`, `<stem>.h51` ... of the detectors and `<stem>.h5` of their sum.

    Raises:
        OSError: a file cannot be written.
        OutputError: counts of the run cannot be read.
    """
    if source.spectra is None:
        source.notes.append("without spectra, times and scalers, which are in the run directory: name that")
    for detector in list_detectors(source, ("maps",)):
        suffix = ".h5" if detector == SUM else f".h5{detector}"
        with create_file(folder / f"{stem}{suffix}") as file:
            _write_file(file, source, detector)


def order_components(components: Sequence[str]) -> list[int]:
    """Places of the components as XRF-Maps orders them: K by atomic number, L, M, then all others as they come."""

    def rank(index: int) -> tuple[int, int]:
        symbol, _, shell = components[index].partition("_")
        if shell not in {"", "L", "M"}:
            return (3, index)
        try:
            return ("LM".find(shell) + 1 if shell else 0, xraylib.SymbolToAtomicNumber(symbol))
        except ValueError:
            return (3, index)

    return sorted(range(len(components)), key=rank)


def _write_file(file: h5py.File, source: ExportSource, detector: str) -> None:
    create_maps_dataset(file, "MAPS/version", [10.0], "f4")
    store = source.spectra
    members = () if store is None else list_members(source, store, detector)
    times = {} if store is None else read_times(store, members)
    if store is not None:
        _write_times(file, times)
        _write_scalers(file, store)
    total = None if store is None else _write_counts(file, store, members)
    _write_spectrum(file, source, detector)
    _write_maps(file, source, detector, times.get("live_time_s"), total)
    _write_scan(file, source)
    _write_parameters(file, source, detector)
    for name, target in _LINKS.items():
        if f"MAPS/{target}" in file:
            file[f"MAPS/{name}"] = file[f"MAPS/{target}"]
    units = file[f"{_FITTED}/Channel_Units"][()]
    create_maps_dataset(file, "MAPS/channel_units", np.broadcast_to(units, (4, len(units))), units.dtype)


def _write_maps(
    file: h5py.File, source: ExportSource, detector: str, live_s: FloatArray | None, total: FloatArray | None
) -> None:
    maps = source.groups["maps"]
    one = maps.isel(detector=[str(name) for name in maps["detector"].values].index(detector))
    components = [str(name) for name in one["component"].values]
    order = order_components(components)
    is_rate = live_s is not None and bool((live_s > 0).any())
    if not is_rate:
        source.notes.append(f"detector {detector}: no live times, maps are in counts and not in counts per second")
    per_s = np.full((one.sizes["y"], one.sizes["x"]), 1.0)
    if live_s is not None and is_rate:
        per_s = np.where(live_s > 0, live_s, np.nan)
    extra = [*([_TOTAL] if total is not None else []), *([_SCATTER] if {ELASTIC, COMPTON} <= set(components) else [])]
    names = [components[index] for index in order] + extra
    shape = (len(names), one.sizes["y"], one.sizes["x"])
    whole = int(np.prod(shape)) * 4 <= _LARGEST_CHUNK
    stored = file.create_dataset(
        f"{_FITTED}/Counts_Per_Sec",
        shape,
        dtype="f4",
        chunks=shape if whole else chunk_of_maps(shape),
        maxshape=(None, None, None),
        compression="gzip",
    )
    stored.attrs["meaning"] = _MEANING if is_rate else _MEANING.replace(" over live time", "")
    scatter = [components.index(name) for name in (ELASTIC, COMPTON) if name in components]
    for band, values in read_bands(one["amplitude"], shape[1] if whole else BLOCK_Y):
        rates = values.astype(np.float64) / per_s[band]
        layers = [rates[index] for index in order]
        layers += [total[band] / per_s[band]] if total is not None else []
        layers += [rates[scatter].sum(axis=0)] if _SCATTER in extra else []
        stored[:, band, :] = np.stack(layers).astype(np.float32)
    create_maps_dataset(file, f"{_FITTED}/Channel_Names", encode(names), f"S{NAME_BYTES}")
    unit = _RATE if is_rate else "counts"
    create_maps_dataset(file, f"{_FITTED}/Channel_Units", encode([unit] * len(names)), f"S{NAME_BYTES}")


def _write_times(file: h5py.File, times: Mapping[str, FloatArray]) -> None:
    for name, key in zip(MAPS_TIME_NAMES, TIME_NAMES, strict=True):
        values = times[key]
        create_maps_dataset(file, f"MAPS/Spectra/{name}", values, "f4", (values.shape[0], 1))
        create_maps_dataset(file, f"MAPS/Spectra/Integrated_Spectra/{name}", [np.nansum(values)], "f4")


def _write_scalers(file: h5py.File, store: SpectraStore) -> None:
    if not store.scaler_names:
        return
    text, (_, height, width, _) = f"S{NAME_BYTES}", store.shape
    create_maps_dataset(file, "MAPS/Scalers/Names", encode(store.scaler_names), text)
    create_maps_dataset(file, "MAPS/Scalers/Units", encode(store.scaler_units), text)
    values = np.stack([store.scaler(name) for name in store.scaler_names])
    create_maps_dataset(file, "MAPS/Scalers/Values", values, "f4", (1, height, width))


def _write_counts(file: h5py.File, store: SpectraStore, members: tuple[int, ...]) -> FloatArray:
    """Write the counts, and give their sum over the channels (y, x)."""
    _, height, width, channels = store.shape
    stored = file.create_dataset(
        "MAPS/Spectra/mca_arr",
        (channels, height, width),
        dtype="f4",
        chunks=(channels, 1, 1),
        maxshape=(None, None, None),
        compression="gzip",
        compression_opts=1,
    )
    total = np.zeros((height, width))
    for rows, block in read_counts(store, members):
        total[rows] = block.sum(axis=2, dtype=np.float64)
        stored[:, rows, :] = np.moveaxis(block, 2, 0).astype("f4", order="C")
    return total


def _write_spectrum(file: h5py.File, source: ExportSource, detector: str) -> None:
    spectrum = source.groups["spectrum"].sel(detector=detector)
    parameters = source.groups["parameters"].sel(detector=detector)
    names = [str(name) for name in parameters["name"].values]
    values = dict(zip(names, parameters["value"].values.tolist(), strict=True))
    axis = [values.get(name, np.nan) for name in ("energy_offset", "energy_slope", "energy_quadratic")]
    create_maps_dataset(file, "MAPS/Spectra/Energy", spectrum["energy_kev"].values, "f4")
    create_maps_dataset(file, "MAPS/Spectra/Energy_Calibration", axis, "f4")
    counts = spectrum["counts"].values
    create_maps_dataset(file, "MAPS/Spectra/Integrated_Spectra/Spectra", counts, "f4")
    # XRF-Maps has 0 outside of the fit range.
    model, background = (np.nan_to_num(spectrum[name].values) for name in ("model", "background"))
    create_maps_dataset(file, f"{_FITTED}/Fitted_Integrated_Spectra", model, "f4")
    create_maps_dataset(file, f"{_FITTED}/FIT_Integrated_Background", background, "f4")


def _write_scan(file: h5py.File, source: ExportSource) -> None:
    maps = source.groups["maps"]
    positions = read_positions(maps)
    rows, columns = maps.sizes["y"], maps.sizes["x"]
    y, x = np.meshgrid(np.arange(rows, dtype=float), np.arange(columns, dtype=float), indexing="ij")
    for name, values in (("x_axis", x), ("y_axis", y)):
        known = None if positions is None else getattr(positions, f"{name[0]}_um") / MILLIMETRE_UM
        create_maps_dataset(file, f"MAPS/Scan/{name}", values if known is None else known, "f4")
        file[f"MAPS/Scan/{name}"].attrs["units"] = "pixel" if known is None else "mm"
    create_maps_dataset(file, "MAPS/Scan/requested_rows", [rows], "i4")
    create_maps_dataset(file, "MAPS/Scan/requested_cols", [columns], "i4")
    title = str(source.attributes.get("title", source.name))
    create_maps_dataset(file, "MAPS/Scan/name", encode([title]), f"S{NAME_BYTES}")


def _write_parameters(file: h5py.File, source: ExportSource, detector: str) -> None:
    """Theta by its MAPS names: value, minimum, maximum, and no step."""
    table = source.groups["parameters"].sel(detector=detector)
    names = [str(name) for name in table["name"].values]
    columns: list[Any] = [table[name].values for name in ("value", "lower", "upper")]
    rows = np.stack([*columns, np.full(len(names), np.nan)], axis=1)
    texts = [_STEP_NAMES.get(name, name.upper()) for name in names]
    folder = "MAPS/Fit_Parameters_Override"
    create_maps_dataset(file, f"{folder}/Fit_Parameters_Names", encode(texts), f"S{PARAMETER_NAME_BYTES}")
    create_maps_dataset(file, f"{folder}/Fit_Parameters_Values", rows, "f4")


def encode(texts: Sequence[str]) -> list[bytes]:
    """Texts as the layout has them: ASCII, of bounded length."""
    return [text.replace("µ", "u").encode("ascii", "replace")[: NAME_BYTES - 1] for text in texts]
