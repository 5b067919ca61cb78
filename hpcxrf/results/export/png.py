"""Pictures: every map as a PNG of 256 colours, grey where nothing was fitted, with the table of the limits."""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.results.export.cells import Cell
from hpcxrf.results.export.csv_tables import write_csv
from hpcxrf.results.export.source import (
    ExportSource,
    PixelPositions,
    list_detectors,
    list_quantities,
    make_names,
    name_detector,
    read_layers,
    read_positions,
)
from hpcxrf.results.report.colours import NOT_FITTED, VIRIDIS, colour_limits
from hpcxrf.results.report.page.data import encode_png

_LEVELS: Final = 255
"""Levels of a map: 1 at or below its lower limit, 255 at or above its upper one; 0 was not fitted."""
_PALETTE: Final = bytes.fromhex(NOT_FITTED[1:]) + VIRIDIS[3:]
_SIDE: Final = 400
"""Points along the longer side, at least, of a small map."""
_MOST_STRETCHED: Final = 8.0


def write(source: ExportSource, folder: Path, stem: str) -> None:
    """Write the folder `<stem>` with `det0_amplitude_Fe.png` ..., and `limits.csv` with the ends of the colours.

    Of every group only the quantity itself is drawn, neither its sigma nor its limit.

    Raises:
        OSError: a file cannot be written.
    """
    place = folder / stem
    place.mkdir()
    repeats = choose_repeats(source, read_positions(source.groups["maps"]))
    rows: list[tuple[Cell, ...]] = []
    for detector in list_detectors(source):
        drawn: set[str] = set()
        for quantity in list_quantities(source, detector):
            if quantity.group in drawn:
                continue
            drawn.add(quantity.group)
            layers = read_layers(quantity.values)
            names = make_names(quantity.components)
            for name, component, layer in zip(names, quantity.components, layers, strict=True):
                file = f"{name_detector(detector)}_{quantity.key}_{name}.png"
                picture = np.asarray(layer, dtype=np.float64)
                low, high = colour_limits(picture)
                index = np.repeat(np.repeat(scale_levels(picture, low, high), repeats[0], 0), repeats[1], 1)
                about = f"{component}, detector {detector}, {low:.6g} to {high:.6g} {quantity.units}"
                (place / file).write_bytes(encode_png(index, _PALETTE, text=about))
                rows.append((file, detector, component, quantity.key, quantity.units, low, high))
    write_csv(place / "limits.csv", ("file", "detector", "component", "quantity", "units", "low", "high"), rows)


def scale_levels(picture: NDArray[np.float64], low: float, high: float) -> NDArray[np.uint8]:
    """Levels 1 to 255 between two limits, 0 where there is no number."""
    known = np.isfinite(picture)
    share = np.clip((np.where(known, picture, low) - low) / (high - low), 0.0, 1.0)
    return np.where(known, 1 + np.rint(share * (_LEVELS - 1)), 0).astype(np.uint8)


def choose_repeats(source: ExportSource, positions: PixelPositions | None) -> tuple[int, int]:
    """Points of the picture for each pixel (y, x), so that small maps can be seen and pixels have their shape."""
    maps = source.groups["maps"]
    step_y, step_x = (positions.step_um if positions is not None else None) or (1.0, 1.0)
    ratio = float(np.clip(step_y / step_x, 1 / _MOST_STRETCHED, _MOST_STRETCHED))
    y, x = max(ratio, 1.0), max(1.0 / ratio, 1.0)
    size = max(maps.sizes["y"] * y, maps.sizes["x"] * x)
    factor = max(1.0, np.ceil(_SIDE / size))
    return max(1, round(factor * y)), max(1, round(factor * x))
