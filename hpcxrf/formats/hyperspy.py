"""HyperSpy's .hspy (HDF5) and .zspy (Zarr): an array `data` whose axes are groups `axis-0`, `axis-1` .. beside it.

Layout: https://hyperspy.org/rosettasciio/file_specification/hspy.html
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from hpcxrf.errors import InputFileError
from hpcxrf.formats.array_containers import Container, Entry, decode_texts
from hpcxrf.formats.array_scan import UNITS_UM, make_calibration
from hpcxrf.formats.scan import EnergyCalibration, FloatMap

_KEV: Final = {"kev": 1.0, "ev": 1e-3}


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalAxes:
    """Axes of an array of HyperSpy."""

    names: tuple[str, ...]
    """Meaning of each axis: `y`, `x`, `energy`."""
    calibration: EnergyCalibration | None
    """None where the signal axis is not one of energy, or not uniform."""
    steps_um: Mapping[str, tuple[float, float]]
    """Offset and step of `x` and `y`, micrometres."""
    of_energy: bool
    """The signal axis is one of energy, by its unit or its name."""


def read_axes(container: Container, entry: Entry) -> SignalAxes | None:
    """Axes of an array that HyperSpy wrote; None for any other array.

    Raises:
        InputFileError: the array is not one spectrum a pixel: images, or more than two axes of navigation.
    """
    axes = _list_axes(container, entry)
    if axes is None:
        return None
    signal = [i for i, axis in enumerate(axes) if not axis["navigate"]]
    if not _are_those_of_spectra(axes):
        raise InputFileError(
            f"{container.path}: {entry.path} has {len(signal)} signal axes, {len(axes) - len(signal)} of navigation; "
            "must be one of energy and at most two of navigation: images and series of maps are not spectra"
        )
    image = [i for i in range(len(axes)) if i != signal[0]]
    names = {signal[0]: "energy"} | dict(zip(image, ("y", "x"), strict=False))
    return SignalAxes(
        names=tuple(names[i] for i in range(len(axes))),
        calibration=_read_calibration(axes[signal[0]]),
        of_energy=_is_energy(axes[signal[0]]),
        steps_um={names[i]: step for i in image if (step := _read_step_um(axes[i])) is not None},
    )


def holds_spectra(container: Container, entry: Entry) -> bool:
    """Whether an array of HyperSpy has one axis of energy; True for every array that is not of HyperSpy.

    Raises:
        InputFileError: the axes cannot be read.
    """
    axes = _list_axes(container, entry)
    if axes is None:
        return True
    return _are_those_of_spectra(axes) and any(_is_energy(axis) for axis in axes if not axis["navigate"])


def _list_axes(container: Container, entry: Entry) -> list[dict[str, Any]] | None:
    """What HyperSpy says of each axis; None of an array that is not its own."""
    if entry.name != "data" or decode_texts(entry.attributes.get("file_format")) != ("HyperSpy",):
        return None
    axes = [dict(container.read_attributes(entry.find_neighbour(f"axis-{i}"))) for i in range(len(entry.shape))]
    return axes if all("navigate" in axis for axis in axes) else None


def _are_those_of_spectra(axes: Sequence[Mapping[str, Any]]) -> bool:
    return sum(not axis["navigate"] for axis in axes) == 1 and len(axes) <= 3


def _is_energy(axis: Mapping[str, Any]) -> bool:
    unit, name = (" ".join(decode_texts(axis.get(key))).strip().lower() for key in ("units", "name"))
    return unit in _KEV or (unit not in UNITS_UM and name.startswith("energy"))


def _read_calibration(axis: Mapping[str, Any]) -> EnergyCalibration | None:
    unit = " ".join(decode_texts(axis.get("units"))).strip().lower()
    if unit not in _KEV or not _is_uniform(axis):
        return None
    return make_calibration(float(axis["offset"]) * _KEV[unit], float(axis["scale"]) * _KEV[unit])


def _read_step_um(axis: Mapping[str, Any]) -> tuple[float, float] | None:
    unit = " ".join(decode_texts(axis.get("units"))).strip().lower()
    if unit not in UNITS_UM or not _is_uniform(axis):
        return None
    return float(axis["offset"]) * UNITS_UM[unit], float(axis["scale"]) * UNITS_UM[unit]


def _is_uniform(axis: Mapping[str, Any]) -> bool:
    numbers = [axis.get("offset"), axis.get("scale")]
    return all(isinstance(n, int | float | np.integer | np.floating) and np.isfinite(n) for n in numbers)


def lay_out_positions(steps_um: Mapping[str, tuple[float, float]], size: tuple[int, int]) -> dict[str, FloatMap]:
    """`x_um` and `y_um` (y, x) of a regular map."""
    found = {}
    for along, name in enumerate(("y", "x")):
        if name in steps_um:
            offset, step = steps_um[name]
            line = offset + step * np.arange(size[along])
            found[f"{name}_um"] = np.array(np.broadcast_to(line[:, np.newaxis] if along == 0 else line, size))
    return found
