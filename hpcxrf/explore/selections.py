"""Selections of pixels as the page sends them, made into masks of the scan.

Coordinates are pixels: y and x count from 0, and the centre of a pixel has whole numbers.
"""

import base64
import binascii
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import ConfigError

Mask = NDArray[np.bool_]
Map = NDArray[np.float32]

MOST_POINTS: Final = 20_000
"""Corners of a polygon: a lasso has some hundreds."""
_REMEDY: Final = "draw the selection again over the map"


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionSources:
    """What selections by values and by regions are made from."""

    read_map: Callable[[str, str, str | None], Map]
    """Reads the map (y, x) of a detector, layer and component at full size."""
    read_region: Callable[[int], Mask]
    """Reads the pixels (y, x) of a region by its number, counted from 1."""


def select_pixels(selection: object, shape_yx: tuple[int, int], sources: SelectionSources) -> Mask:
    """Find the pixels of a selection.

    Args:
        selection: JSON object, whose `kind` is `all`, `pixel`, `box`, `polygon`, `region`, `threshold` or `mask`.
        shape_yx: pixels of the scan.
        sources: maps and regions of the scan.

    Returns:
        (y, x), True in at least one pixel.

    Raises:
        ConfigError: not a selection, one outside of the scan, or one without pixels.
    """
    if not isinstance(selection, Mapping):
        raise ConfigError(f"selection: {_show(selection)} is not an object with a kind; {_REMEDY}")
    kind = selection.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ConfigError(f"selection.kind: {_show(kind)} is not one of {', '.join(_KINDS)}; {_REMEDY}")
    wanted, select = _KINDS[kind]
    faults = [f"selection.{name}: missing" for name in wanted if name not in selection]
    faults += [f"selection.{name}: not known of a {kind}" for name in selection if name not in {"kind", *wanted}]
    if faults:
        raise ConfigError("; ".join(faults) + f"; {_REMEDY}")
    mask = select(selection, shape_yx, sources)
    if not mask.any():
        raise ConfigError(f"selection: this {kind} holds no pixel of the scan; {_REMEDY}")
    return mask


def mask_polygon(points: NDArray[np.float64], shape_yx: tuple[int, int]) -> Mask:
    """Find the pixels whose centres are inside a polygon, by the even-odd rule.

    Of every row, each edge of the polygon that crosses its centre line turns inside into outside from the crossing on.
    A centre on an edge belongs to the polygon at higher y or x, so that two polygons with a common edge share no pixel.

    Args:
        points: (corner, 2) corners y, x; the last one is joined with the first.
        shape_yx: pixels of the scan.

    Returns:
        (y, x).
    """
    n_y, n_x = shape_yx
    turns = np.zeros((n_y, n_x + 1), dtype=np.uint8)
    for first, second in zip(points, np.roll(points, -1, axis=0), strict=True):
        # From its lower end, so that an edge is crossed at the same place whichever way it is gone along.
        (y0, x0), (y1, x1) = (first, second) if first[0] < second[0] else (second, first)
        rows = np.arange(max(0, math.ceil(y0)), min(n_y, math.ceil(y1)))
        if rows.size:
            # A share of the edge from 0 to 1: the slope of one that is hardly high would be infinite.
            cross = x0 + (x1 - x0) * ((rows - y0) / (y1 - y0))
            # One edge crosses a row once: no place occurs twice.
            turns[rows, np.clip(np.ceil(cross), 0, n_x).astype(np.int64)] ^= 1
    inside: Mask = np.bitwise_xor.accumulate(turns[:, :-1], axis=1).astype(np.bool_)
    return inside


def pack_mask(mask: Mask) -> str:
    """Write a mask as the selection `mask` has it: bits row by row, base64."""
    return base64.b64encode(np.packbits(mask).tobytes()).decode()


def _select_all(_selection: Mapping[str, Any], shape_yx: tuple[int, int], _sources: SelectionSources) -> Mask:
    return np.ones(shape_yx, dtype=np.bool_)


def _select_pixel(selection: Mapping[str, Any], shape_yx: tuple[int, int], _sources: SelectionSources) -> Mask:
    place, faults = [], []
    for name, size in zip("yx", shape_yx, strict=True):
        value = selection[name]
        if not _is_whole(value):
            faults.append(f"selection.{name}: {_show(value)} is not a whole number")
        elif not 0 <= value < size:
            faults.append(f"selection.{name}: {value} is outside the scan, 0 to {size - 1}")
        else:
            place.append(int(value))
    _refuse(faults)
    mask = np.zeros(shape_yx, dtype=np.bool_)
    mask[place[0], place[1]] = True
    return mask


def _select_box(selection: Mapping[str, Any], shape_yx: tuple[int, int], _sources: SelectionSources) -> Mask:
    parts, faults = [], []
    for name, size in zip("yx", shape_yx, strict=True):
        value = selection[name]
        if not isinstance(value, list) or len(value) != 2 or not all(map(_is_whole, value)):
            faults.append(f"selection.{name}: {_show(value)} is not [first, stop], two whole numbers")
        elif not 0 <= value[0] < value[1] <= size:
            faults.append(f"selection.{name}: {value[0]} to {value[1]} is outside the scan or empty, 0 to {size}")
        else:
            parts.append(slice(int(value[0]), int(value[1])))
    _refuse(faults)
    mask = np.zeros(shape_yx, dtype=np.bool_)
    mask[parts[0], parts[1]] = True
    return mask


def _select_polygon(selection: Mapping[str, Any], shape_yx: tuple[int, int], _sources: SelectionSources) -> Mask:
    points = selection["points"]
    if not isinstance(points, list) or not 3 <= len(points) <= MOST_POINTS:
        number = len(points) if isinstance(points, list) else _show(points)
        raise ConfigError(f"selection.points: {number}, must be 3 to {MOST_POINTS} corners [y, x]; {_REMEDY}")
    wrong = next((p for p in points if not _is_place(p)), None)
    if wrong is not None:
        raise ConfigError(f"selection.points: {_show(wrong)} is not [y, x], two finite numbers; {_REMEDY}")
    return mask_polygon(np.array(points, dtype=np.float64), shape_yx)


def _select_region(selection: Mapping[str, Any], _shape_yx: tuple[int, int], sources: SelectionSources) -> Mask:
    number = selection["number"]
    if not _is_whole(number):
        raise ConfigError(f"selection.number: {_show(number)} is not a whole number; choose a region of the list")
    return sources.read_region(int(number))


def _select_threshold(selection: Mapping[str, Any], _shape_yx: tuple[int, int], sources: SelectionSources) -> Mask:
    names = {name: selection[name] for name in ("detector", "layer", "component")}
    faults = [
        f"selection.{name}: {_show(value)} is not a name"
        for name, value in names.items()
        if not isinstance(value, str) and not (name == "component" and value is None)
    ]
    limits = {name: selection[name] for name in ("low", "high")}
    faults += [
        f"selection.{name}: {_show(value)} is not a finite number"
        for name, value in limits.items()
        if value is not None and not _is_number(value)
    ]
    if not faults and limits == {"low": None, "high": None}:
        faults.append("selection.low, selection.high: one of them must be a number")
    _refuse(faults)
    values = sources.read_map(names["detector"], names["layer"], names["component"])
    mask: Mask = np.isfinite(values)
    if limits["low"] is not None:
        mask &= values >= limits["low"]
    if limits["high"] is not None:
        mask &= values <= limits["high"]
    return mask


def _select_mask(selection: Mapping[str, Any], shape_yx: tuple[int, int], _sources: SelectionSources) -> Mask:
    bits, number = selection["bits"], shape_yx[0] * shape_yx[1]
    try:
        packed = np.frombuffer(base64.b64decode(bits, validate=True), dtype=np.uint8)
    except (TypeError, ValueError, binascii.Error) as error:
        raise ConfigError(f"selection.bits: is not base64 ({error}); {_REMEDY}") from error
    if packed.size != -(-number // 8):
        raise ConfigError(
            f"selection.bits: {packed.size} bytes, must be {-(-number // 8)} of {shape_yx[0]} x {shape_yx[1]} pixels; "
            f"{_REMEDY}"
        )
    return np.unpackbits(packed, count=number).astype(np.bool_).reshape(shape_yx)


_Select = Callable[[Mapping[str, Any], tuple[int, int], SelectionSources], Mask]
_KINDS: Final[Mapping[str, tuple[tuple[str, ...], _Select]]] = {
    "all": ((), _select_all),
    "pixel": (("y", "x"), _select_pixel),
    "box": (("y", "x"), _select_box),
    "polygon": (("points",), _select_polygon),
    "region": (("number",), _select_region),
    "threshold": (("detector", "layer", "component", "low", "high"), _select_threshold),
    "mask": (("bits",), _select_mask),
}
"""Names that a selection of each kind has, and what makes its mask."""


def _refuse(faults: list[str]) -> None:
    if faults:
        raise ConfigError("; ".join(faults) + f"; {_REMEDY}")


def _is_whole(value: object) -> bool:
    return _is_number(value) and float(str(value)).is_integer()


def _is_number(value: object) -> bool:
    # JSON has whole numbers of any length.
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e15 < value < 1e15


def _is_place(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_is_number(one) and abs(one) < 1e9 for one in value)


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}.."
