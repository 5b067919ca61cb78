"""PyMca: HDF5 as its batch fit writes it; the RGB correlator opens the groups `parameters`, `uncertainties` ...

Layout: `XRFBatchFitOutput` and `NexusUtils` of https://github.com/silx-kit/pymca (MIT): in each NXentry an NXprocess
`xrf_fit` with an NXcollection `results`, in which every group is an NXdata of images.
"""

from pathlib import Path
from typing import Final

import h5py
import numpy as np

from hpcxrf import __version__
from hpcxrf.results.export.hdf5 import create_group, write_axes, write_json, write_signals
from hpcxrf.results.export.new_hdf5 import create_file
from hpcxrf.results.export.source import (
    ExportSource,
    PixelPositions,
    Quantity,
    chunk_of_maps,
    list_detectors,
    list_quantities,
    make_names,
    name_detector,
    read_bands,
    read_positions,
)
from hpcxrf.results.names import shown_name

_GROUPS: Final = {"amplitude": "parameters", "sigma": "uncertainties"}
"""PyMca's names of what it has, too."""


def write(source: ExportSource, folder: Path, stem: str) -> None:
    """Write `<stem>.h5`: an entry per detector with images of every quantity, `Fe_K`, `Pt_L`.

    Raises:
        OSError: the file cannot be written.
    """
    positions = read_positions(source.groups["maps"])
    detectors = list_detectors(source)
    with create_file(folder / f"{stem}.h5") as file:
        file.attrs["NX_class"] = "NXroot"
        for detector in detectors:
            entry = create_group(file, name_detector(detector), "NXentry")
            file.attrs.setdefault("default", entry.name.strip("/"))
            entry["title"] = f"{source.attributes.get('title', source.name)}, detector {detector}"
            process = create_group(entry, "xrf_fit", "NXprocess")
            process["program"] = "hpcxrf"
            process["version"] = str(source.attributes.get("hpcxrf_version", __version__))
            write_json(process, "configuration", source.attributes)
            results = create_group(process, "results", "NXcollection")
            for quantity in list_quantities(source, detector):
                key = _GROUPS.get(quantity.key, quantity.key)
                _write_images(create_group(results, key, "NXdata"), quantity, positions)
                results.attrs.setdefault("default", key)
            entry.attrs["default"], process.attrs["default"] = "xrf_fit", "results"


def name_line(component: str) -> str:
    """A component as PyMca names it: `Fe_K`, `Pt_L`; others by their words."""
    plain = shown_name(component)
    return f"{plain}_K" if plain.isalpha() and len(plain) <= 2 and plain[0].isupper() else plain


def _write_images(data: h5py.Group, quantity: Quantity, positions: PixelPositions | None) -> None:
    """Write images; PyMca takes only those with two axes, so that pixels that are no raster have none."""
    names = make_names([name_line(component) for component in quantity.components])
    shape = (quantity.values.sizes["y"], quantity.values.sizes["x"])
    for name, component in zip(names, quantity.components, strict=True):
        dataset = data.create_dataset(
            name, shape, dtype=np.float32, chunks=chunk_of_maps(shape), compression="gzip", shuffle=True
        )
        dataset.attrs["units"], dataset.attrs["long_name"] = quantity.units, f"{component} ({quantity.units})"
        dataset.attrs["interpretation"] = "image"
    for band, values in read_bands(quantity.values):
        for index, name in enumerate(names):
            data[name][band] = values[index]
    write_signals(data, names)
    data["title"] = quantity.long_name
    write_axes(data, positions if positions is not None and positions.columns_um is not None else None)
