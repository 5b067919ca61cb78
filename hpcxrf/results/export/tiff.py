"""TIFF as ImageJ has it: float32 stacks of the components with their names as labels, pixel sizes in micrometres."""

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import tifffile

from hpcxrf.errors import OutputError
from hpcxrf.results.export.source import (
    ExportSource,
    PixelPositions,
    Quantity,
    list_detectors,
    list_quantities,
    name_detector,
    read_layers,
    read_positions,
)
from hpcxrf.results.report.colours import colour_limits

_LARGEST_BYTES: Final = (1 << 32) - (1 << 24)
"""ImageJ's own TIFF ends at 4 GB."""


def write(source: ExportSource, folder: Path, stem: str) -> None:
    """Write `<stem>_<detector>_<quantity>.tif` of every detector and quantity.

    Raises:
        OSError: a file cannot be written.
        OutputError: maps that are too large for the format.
    """
    positions = read_positions(source.groups["maps"])
    for detector in list_detectors(source):
        for quantity in list_quantities(source, detector):
            _write_stack(folder / f"{stem}_{name_detector(detector)}_{quantity.key}.tif", source, quantity, positions)


def _write_stack(path: Path, source: ExportSource, quantity: Quantity, positions: PixelPositions | None) -> None:
    if quantity.values.nbytes > _LARGEST_BYTES:
        raise OutputError(
            f"{source.name}: {quantity.key} has {quantity.values.nbytes / 1e9:.1f} GB, and a TIFF of ImageJ holds "
            "4.2: export with --to ome-zarr"
        )
    step = None if positions is None else positions.step_um
    about = {"quantity": quantity.long_name, "units": quantity.units, "result": source.name}
    metadata: dict[str, Any] = {
        "axes": "CYX",
        "mode": "grayscale",
        "Labels": list(quantity.components),
        "Info": json.dumps({**about, "source": str(source.attributes.get("source", ""))}),
        # Each component has its own range of grey, or traces would be black beside the matrix.
        "Ranges": [
            limit
            for layer in read_layers(quantity.values)
            for limit in colour_limits(np.asarray(layer, dtype=np.float64))
        ],
        **({} if step is None else {"unit": "um"}),
    }
    tifffile.imwrite(
        path,
        (np.ascontiguousarray(layer, dtype=np.float32) for layer in read_layers(quantity.values)),
        shape=quantity.values.shape,
        dtype=np.float32,
        imagej=True,
        metadata=metadata,
        resolution=None if step is None else (1.0 / step[1], 1.0 / step[0]),
        resolutionunit=None if step is None else "NONE",
    )
