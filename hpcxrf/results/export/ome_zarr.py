"""OME-Zarr (NGFF 0.5, Zarr 3): an image per detector and quantity whose channels are the components."""

from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr

from hpcxrf import __version__
from hpcxrf.results.export.source import (
    ExportSource,
    PixelPositions,
    Quantity,
    list_detectors,
    list_quantities,
    name_detector,
    read_bands,
    read_layers,
    read_positions,
)
from hpcxrf.results.report.colours import colour_limits

_CHUNK_YX: Final = (256, 1024)


def write(source: ExportSource, folder: Path, stem: str) -> None:
    """Write `<stem>_<detector>_<quantity>.ome.zarr` of every detector and quantity.

    Raises:
        OSError: a file cannot be written.
    """
    positions = read_positions(source.groups["maps"])
    for detector in list_detectors(source):
        for quantity in list_quantities(source, detector):
            name = f"{stem}_{name_detector(detector)}_{quantity.key}"
            _write_image(folder / f"{name}.ome.zarr", source, quantity, positions)


def _write_image(path: Path, source: ExportSource, quantity: Quantity, positions: PixelPositions | None) -> None:
    values = quantity.values
    attributes: dict[str, Any] = {
        "ome": {
            "version": "0.5",
            "multiscales": [_describe_scales(path.name.removesuffix(".ome.zarr"), positions)],
            "omero": {"channels": _describe_channels(quantity), "rdefs": {"model": "greyscale"}},
            "_creator": {"name": "hpcxrf", "version": __version__},
        },
        "units": quantity.units,
        "long_name": quantity.long_name,
        "source": str(source.attributes.get("source", "")),
        "result": source.name,
    }
    group = zarr.open_group(path, mode="w", zarr_format=3, attributes=attributes)
    shape = values.shape
    image = group.create_array(
        "0",
        shape=shape,
        dtype=np.float32,
        chunks=(1, min(shape[1], _CHUNK_YX[0]), min(shape[2], _CHUNK_YX[1])),
        fill_value=np.nan,
        dimension_names=("c", "y", "x"),
    )
    for rows, band in read_bands(values, _CHUNK_YX[0]):
        image[:, rows] = band


def _describe_scales(name: str, positions: PixelPositions | None) -> dict[str, Any]:
    step = None if positions is None else positions.step_um
    transforms: list[dict[str, Any]] = [{"type": "scale", "scale": [1.0, *(step or (1.0, 1.0))]}]
    first = _first_corner(positions)
    if first is not None:
        transforms.append({"type": "translation", "translation": [0.0, *first]})
    unit = {} if step is None else {"unit": "micrometer"}
    axes = [{"name": "c", "type": "channel"}, *({"name": one, "type": "space", **unit} for one in "yx")]
    return {"name": name, "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": transforms}]}


def _first_corner(positions: PixelPositions | None) -> tuple[float, float] | None:
    """Stage position (y, x) of the first pixel; None where an axis is unknown or falls, which a scale cannot say."""
    if positions is None or positions.rows_um is None or positions.columns_um is None:
        return None
    lines = (positions.rows_um, positions.columns_um)
    if any(line[-1] < line[0] for line in lines):
        return None
    return float(lines[0][0]), float(lines[1][0])


def _describe_channels(quantity: Quantity) -> list[dict[str, Any]]:
    channels = []
    for number, (name, layer) in enumerate(zip(quantity.components, read_layers(quantity.values), strict=True)):
        low, high = colour_limits(np.asarray(layer, dtype=np.float64))
        window = {"min": low, "max": high, "start": low, "end": high}
        channels.append({"label": name, "color": "FFFFFF", "active": number == 0, "window": window})
    return channels
