"""What the axes of a stored array mean: what names them decides, then what lies beside them, then usual lengths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from hpcxrf.errors import InputFileError
from hpcxrf.formats.axes import MAX_RANK, Axes
from hpcxrf.formats.scan import ReadOptions
from hpcxrf.notes import Note

USUAL_CHANNELS: Final = frozenset({256, 512, 1000, 1024, 1500, 2000, 2048, 3000, 4000, 4096, 8192, 16384})
FEWEST_CHANNELS: Final = 256
"""A shorter axis is not taken for channels where another reading is possible."""
MOST_DETECTORS: Final = 32
"""A longer axis between points and channels is not taken for detectors."""

_ENERGY_NAMES: Final = ("channel", "energy", "bin", "mca", "spectrum")
_DETECTOR_NAMES: Final = ("det", "element", "sensor")
_POINT_NAMES: Final = ("point", "frame", "step", "pixel", "scan")
_Y_NAMES: Final = ("y", "row", "rows", "line")
_X_NAMES: Final = ("x", "col", "cols", "column", "columns")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """What a file says of the axes of an array, directly and by what lies beside it."""

    names: tuple[str, ...] | None = None
    """Names of the axes."""
    spectra_last: bool = False
    """NeXus: `interpretation` is spectrum, so the last axis is that of the channels."""
    n_energies: int | None = None
    """Length of an array of energies beside it."""
    vectors: Mapping[int, Sequence[str]] = field(default_factory=dict)
    """Names of the one-dimensional arrays beside it (positions, scalers, times) by their length."""
    maps: frozenset[tuple[int, ...]] = frozenset()
    """Shapes of the two-dimensional arrays beside it."""


def guess_axes(where: str, shape: tuple[int, ...], hints: Hints, options: ReadOptions) -> Axes:
    """Meaning of the axes: as requested, else as named, else by NeXus, by what lies beside, by usual lengths.

    Args:
        where: file and path of the array, for messages.
        shape: of the stored array.
        hints: what the file says of its axes.
        options: the requested axes, negative ones counted from the end.

    Raises:
        InputFileError: no axis, more than four, an empty one; a requested axis that is not there; two readings remain.
    """
    if not 1 <= len(shape) <= MAX_RANK or 0 in shape:
        raise InputFileError(f"{where}: shape {shape}; must have 1 to 4 axes (detector, y, x, channel), none empty")
    fitting = hints.names is not None and len(hints.names) == len(shape)
    names = tuple(n.strip().lower() for n in hints.names or ()) if fitting else ("",) * len(shape)
    energy, notes = _find_energy_axis(where, shape, names, hints, options)
    rest = [i for i in range(len(shape)) if i != energy]
    detector = _find_detector_axis(where, shape, rest, names, hints, options, notes)
    left = [i for i in rest if i != detector]
    if len(left) == 3:
        raise InputFileError(
            f"{where}: shape {shape} has three axes beside the channels, and none of them is that of the detectors; "
            "give input.detector_axis"
        )
    y, x = _order_image_axes(left, names)
    notes += _describe_rest(shape, rest, detector, y)
    return Axes(detector=detector, y=y, x=x, energy=energy, notes=tuple(notes))


def _describe_rest(shape: tuple[int, ...], rest: list[int], detector: int | None, y: int | None) -> list[Note]:
    if not rest:
        return [Note("fact", "array of rank 1: one spectrum")]
    if len(rest) > 1:
        return []
    if y is None and detector is not None:
        return [Note("fact", f"array of rank 2: {shape[rest[0]]} detectors at one point")]
    text = f"array of rank 2: {shape[rest[0]]} pixels, taken as one column (input.map_shape gives rows and columns)"
    return [Note("fact", text)]


def _find_energy_axis(
    where: str, shape: tuple[int, ...], names: tuple[str, ...], hints: Hints, options: ReadOptions
) -> tuple[int, list[Note]]:
    rank = len(shape)
    if options.energy_axis is not None:
        return _require_axis(where, shape, options.energy_axis, "--energy-axis"), []
    named = [i for i, n in enumerate(names) if n.startswith(_ENERGY_NAMES) or n == "e"]
    if len(named) == 1:
        return named[0], []
    if hints.spectra_last or rank == 1:
        return rank - 1, []
    as_long = [i for i, n in enumerate(shape) if n == hints.n_energies]
    if len(as_long) == 1:
        return as_long[0], []
    return _guess_energy_axis(where, shape)


def _guess_energy_axis(where: str, shape: tuple[int, ...]) -> tuple[int, list[Note]]:
    """By the lengths alone: a last axis of a usual number of channels, else the longest; two readings are refused."""
    last = len(shape) - 1
    longest = max(range(len(shape)), key=lambda i: (shape[i], i))
    usual = [i for i, n in enumerate(shape) if n in USUAL_CHANNELS]
    if last == longest:
        # Beside 700 the usual 512 may be the channels, beside 1917 it is a side of the map.
        rivals = [i for i in usual if shape[last] < 2 * shape[i]] if last not in usual else []
        why = "as the longest"
    elif last in usual:
        rivals, why = [i for i in usual if shape[i] > shape[last]], "as the last, of a usual number of channels"
    else:
        rivals = [i for i, n in enumerate(shape) if n >= FEWEST_CHANNELS and (i in usual or i == last) and i != longest]
        why = "as the longest"
    chosen = last if last in usual else longest
    if rivals:
        readings = " or ".join(
            f"--energy-axis {i} ({_describe_reading(shape, i)})" for i in sorted({chosen, *rivals}, reverse=True)
        )
        raise InputFileError(f"{where}: shape {shape} can be read in two ways and nothing says which; give {readings}")
    text = f"guessed: axis {chosen} of shape {shape} is the energy, {why} (--energy-axis)"
    return chosen, [Note("warning", text)]


def _describe_reading(shape: tuple[int, ...], energy: int) -> str:
    rest = " x ".join(str(n) for i, n in enumerate(shape) if i != energy)
    return f"{rest} spectra of {shape[energy]} channels"


def _require_axis(where: str, shape: tuple[int, ...], axis: int, option: str) -> int:
    if not -len(shape) <= axis < len(shape):
        raise InputFileError(f"{where}: {option} {axis}, but shape {shape} has axes 0 to {len(shape) - 1}")
    return axis % len(shape)


def _find_detector_axis(
    where: str,
    shape: tuple[int, ...],
    rest: list[int],
    names: tuple[str, ...],
    hints: Hints,
    options: ReadOptions,
    notes: list[Note],
) -> int | None:
    """Stored axis of the detectors; None where there is one detector."""
    if options.detector_axis is not None:
        axis = _require_axis(where, shape, options.detector_axis, "input.detector_axis")
        if axis not in rest:
            raise InputFileError(f"{where}: axis {axis} of shape {shape} is that of the channels, not of detectors")
        return axis
    detector = next((i for i in rest if names[i].startswith(_DETECTOR_NAMES)), None)
    if detector is not None or len(rest) < 2:
        return detector
    if len(rest) == 3:
        return _find_among_three(where, shape, rest, names, hints)
    return _find_among_two(where, shape, rest, names, hints, options, notes)


def _find_among_three(
    where: str, shape: tuple[int, ...], rest: list[int], names: tuple[str, ...], hints: Hints
) -> int | None:
    """Detector of (detector, y, x) or (y, x, detector): maps beside the array tell, else the first."""
    named = [i for i in rest if names[i] in (*_Y_NAMES, *_X_NAMES)]
    if len(named) == 2:
        return next(i for i in rest if i not in named)
    first, middle, last = (shape[i] for i in rest)
    at_front, at_end = (middle, last) in hints.maps, (first, middle) in hints.maps
    if at_end and not at_front:
        return rest[2]
    if not at_front and first > MOST_DETECTORS >= last:
        raise InputFileError(
            f"{where}: shape {shape} can be read in two ways and nothing says which; give "
            f"input.detector_axis: {rest[2]} ({first} x {middle} pixels of {last} detectors) or "
            f"input.detector_axis: {rest[0]} ({middle} x {last} pixels of {first} detectors)"
        )
    return rest[0]


def _find_among_two(
    where: str,
    shape: tuple[int, ...],
    rest: list[int],
    names: tuple[str, ...],
    hints: Hints,
    options: ReadOptions,
    notes: list[Note],
) -> int | None:
    """Whether two axes are a map, or points and detectors: only what lies beside the array makes them the latter."""
    lengths = tuple(shape[i] for i in rest)
    named = any(names[i] in (*_Y_NAMES, *_X_NAMES) for i in rest)
    if options.map_shape is not None:
        n_pixels = options.map_shape[0] * options.map_shape[1]
        as_points = [
            k for k in (0, 1) if lengths != tuple(options.map_shape) and n_pixels // 2 < lengths[k] <= n_pixels
        ]
        return rest[1 - as_points[0]] if as_points else None
    points = [k for k in (0, 1) if names[rest[k]].startswith(_POINT_NAMES)]
    if len(points) == 1 and not named:
        return rest[1 - points[0]]
    beside = [len(hints.vectors.get(n, ())) for n in lengths]
    if named or lengths[0] == lengths[1] or lengths in hints.maps or (beside[0] > 0) == (beside[1] > 0):
        return None
    one = 0 if beside[0] else 1
    n_points, n_other = lengths[one], lengths[1 - one]
    if n_other > MOST_DETECTORS:
        return None
    witnesses = sorted(hints.vectors[n_points])
    if len(witnesses) == 1 or n_points <= n_other:
        raise InputFileError(
            f"{where}: shape {shape} can be read in two ways, and {', '.join(witnesses[:3])} of {n_points} values "
            f"leave both open; give input.detector_axis: {rest[1 - one]} ({n_points} points of {n_other} "
            f"detectors) or input.map_shape: [{lengths[0]}, {lengths[1]}] (a map of one detector), as in "
            f"--set input.detector_axis={rest[1 - one]}"
        )
    text = (
        f"axis {rest[1 - one]} of shape {shape} is that of {n_other} detectors, since {', '.join(witnesses[:3])} have "
        f"one value for each of {n_points} points (input.detector_axis)"
    )
    notes.append(Note("fact", text))
    return rest[1 - one]


def _order_image_axes(left: list[int], names: tuple[str, ...]) -> tuple[int | None, int | None]:
    """Stored axes of y and x; a single axis is a column of pixels, so that it can be read in blocks."""
    if len(left) < 2:
        return (left[0] if left else None), None
    y, x = left
    if names[y] in _X_NAMES and names[x] in _Y_NAMES:
        y, x = x, y
    return y, x
