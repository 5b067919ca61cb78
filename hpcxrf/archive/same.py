"""Two results stores bit for bit: which arrays differ, and by how many sigma."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr
from numpy.typing import NDArray

from hpcxrf.results.store.storage import open_group

_SIGMAS: Final = {
    "amplitude": "sigma",
    "value": "sigma",
    "rate": "sigma",
    "areal_density": "sigma",
    "theta": "theta_sigma",
    "theta_shift": "theta_shift_sigma",
}
"""Array of uncertainties by array of values, in the same group."""
_TIMES: Final = frozenset({"cpu_s"})
"""Arrays that say how long something took."""
_OF_THE_RUN: Final = frozenset(
    {"title", "source", "source_files", "configuration", "run_file", "provenance", "devices", "torch_version"}
    | {"hpcxrf_version", "notes", "warnings", "messages", "standards"}
)
"""Attributes that name files, versions and places, or repeat them in sentences."""
_PIECE_BYTES: Final = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayDifference:
    """An array that is not the same in both stores."""

    array: str
    """Path within the store."""
    reason: str = ""
    """Why its values were not compared: only in one, another shape; empty where they were."""
    differing: int = 0
    """Number of values with other bits."""
    values: int = 0
    """Number of values of the array."""
    largest: float = math.nan
    """Largest difference of two numbers, in the unit of the array; NaN where it has none."""
    largest_in_sigma: float = math.nan
    """Largest difference in the recorded standard uncertainties; NaN of arrays without any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sameness:
    """How two stores compare."""

    compared: int
    """Number of arrays that both have."""
    differing: tuple[ArrayDifference, ...]
    attributes: tuple[str, ...]
    """Attributes that are results and differ, `group: name`."""

    @property
    def is_identical(self) -> bool:
        """Whether every array has the same bits, and every attribute that is a result the same value."""
        return not self.differing and not self.attributes

    @property
    def most_sigma(self) -> float:
        """Largest difference of all arrays in sigma; NaN where none has both."""
        found = [one.largest_in_sigma for one in self.differing if not math.isnan(one.largest_in_sigma)]
        return max(found, default=math.nan)


def compare_stores(recorded: Path, again: Path) -> Sameness:
    """Compare every array of two results stores bit for bit, however large they are.

    Seconds that a fit took are left out, and so are attributes that name files, versions and places.

    Args:
        recorded: the first store, whose sigma is the unit of differences.
        again: the second one.

    Raises:
        OutputError: one of them cannot be read.
    """
    first, second = (_list_members(path) for path in (recorded, again))
    arrays = [name for name, one in first.items() if isinstance(one, zarr.Array)]
    others = [name for name, one in second.items() if isinstance(one, zarr.Array)]
    differing = [
        ArrayDifference(array=name, reason="only in the recorded result") for name in arrays if name not in others
    ]
    differing += [ArrayDifference(array=name, reason="only in the new result") for name in others if name not in arrays]
    common = [name for name in arrays if name in others and name.rpartition("/")[2] not in _TIMES]
    for name in common:
        found = _compare_arrays(name, first, second)
        if found is not None:
            differing.append(found)
    attributes = [
        f"{name or 'root'}: {key}"
        for name in first
        if name in second
        for key in _list_different(dict(first[name].attrs), dict(second[name].attrs))
    ]
    return Sameness(compared=len(common), differing=tuple(differing), attributes=tuple(attributes))


def _list_members(path: Path) -> dict[str, zarr.Group | zarr.Array[Any]]:
    root = open_group(path, "")
    return {"": root, **dict(sorted(root.members(max_depth=None)))}


def _list_different(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    return [
        key
        for key in dict.fromkeys([*first, *second])
        if key not in _OF_THE_RUN and ((key in first) != (key in second) or first.get(key) != second.get(key))
    ]


def _compare_arrays(
    name: str, first: Mapping[str, zarr.Group | zarr.Array[Any]], second: Mapping[str, zarr.Group | zarr.Array[Any]]
) -> ArrayDifference | None:
    ours, theirs = first[name], second[name]
    assert isinstance(ours, zarr.Array)  # noqa: S101  what the caller chose
    assert isinstance(theirs, zarr.Array)  # noqa: S101
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        reason = f"{ours.dtype} {ours.shape}, and {theirs.dtype} {theirs.shape} in the new result"
        return ArrayDifference(array=name, reason=reason)
    group, _, label = name.rpartition("/")
    sigma = first.get(f"{group}/{_SIGMAS.get(label, '-')}")
    differing, largest, in_sigma = 0, math.nan, math.nan
    for piece in _cut(ours.shape, ours.dtype.itemsize):
        a, b = np.atleast_1d(ours[piece]), np.atleast_1d(theirs[piece])
        other = _find_other_bits(a, b)
        number = int(other.sum())
        if not number:
            continue
        differing += number
        if a.dtype.kind in "fiu":
            apart = np.abs(b[other].astype(np.float64) - a[other].astype(np.float64))
            largest = np.fmax(largest, np.fmax.reduce(apart))
            if isinstance(sigma, zarr.Array) and sigma.shape == ours.shape:
                unit = np.atleast_1d(sigma[piece])[other].astype(np.float64)
                known = np.isfinite(unit) & (unit > 0)
                in_sigma = np.fmax(in_sigma, np.fmax.reduce(apart[known] / unit[known], initial=math.nan))
    if not differing:
        return None
    return ArrayDifference(
        array=name,
        differing=differing,
        values=math.prod(ours.shape),
        largest=float(largest),
        largest_in_sigma=float(in_sigma),
    )


def _find_other_bits(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    """Where two arrays have other bits: NaN equals itself, and -0 is not 0."""
    if a.dtype.kind == "f":
        unsigned = np.dtype(f"u{a.dtype.itemsize}")
        return np.asarray(np.ascontiguousarray(a).view(unsigned) != np.ascontiguousarray(b).view(unsigned))
    return np.asarray(a != b)


def _cut(shape: tuple[int, ...], itemsize: int) -> Iterator[tuple[slice, ...]]:
    """Parts of an array of at most `_PIECE_BYTES`, or of one number."""
    if not shape:
        yield ()
        return
    row = math.prod(shape[1:]) * itemsize
    if row > _PIECE_BYTES:
        for index in range(shape[0]):
            for inner in _cut(shape[1:], itemsize):
                yield (slice(index, index + 1), *inner)
        return
    step = max(1, _PIECE_BYTES // max(row, 1))
    for begin in range(0, shape[0], step):
        yield (slice(begin, begin + step), *(slice(0, size) for size in shape[1:]))
