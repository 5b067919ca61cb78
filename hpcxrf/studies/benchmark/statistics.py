"""The archive's statistics: all fits of a benchmark in one labelled dataset, and the tables that it adds up to."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from hpcxrf.errors import OutputError
from hpcxrf.fitting.result import FitStatus
from hpcxrf.results.store.storage import as_json, publish_folder
from hpcxrf.studies.benchmark.method_result import MethodResult

FloatArray = NDArray[np.float64]
Cell = tuple[str, str]
"""(task, method)."""

FAILED_STATUS: Final = 255
"""Status of a fit without any result: its task failed, or one that it needed did."""
_ENDS: Final = ("low", "high")
_AXIS: Final = ("energy_offset", "energy_slope", "energy_quadratic")
_NUMBERS: Final = {
    "r2": ("1", "1 - SS_res / SS_tot in linear counts over the fit range"),
    "r2_expected": ("1", "R2 that counting noise alone allows"),
    "deviance": ("1", "Poisson deviance per degree of freedom"),
    "cpu_s": ("s", "CPU seconds of the fit"),
    "wall_s": ("s", "wall seconds of the fit"),
    "evaluations": ("1", "steps or evaluations, as the method counts them"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """Truth of a simulated dataset."""

    amplitude: Mapping[str, Mapping[str, float]]
    """Expected recorded counts by task and component."""
    theta: Mapping[str, float]
    """True offset, slope and quadratic of the energy axis, MAPS names, at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetResults:
    """All fits of one dataset."""

    dataset_id: str
    source: str
    """File that it was read from."""
    asked: frozenset[Cell]
    """Tasks and methods that were to run."""
    results: Mapping[Cell, MethodResult]
    """Results; cells without one failed."""
    reasons: Mapping[Cell, str] = field(default_factory=dict)
    """Why the rest failed."""
    truth: Truth | None = None


def gather(
    datasets: Sequence[DatasetResults], tasks: Sequence[str], methods: Sequence[str], attributes: Mapping[str, object]
) -> xr.Dataset:
    """Put all fits into one labelled dataset.

    Args:
        datasets: in the order of the result.
        tasks: labels of the axis `task`.
        methods: labels of the axis `method`.
        attributes: provenance, JSON values without NaN.

    Returns:
        Over (dataset, task, method): `r2`, `r2_expected`, `deviance`, `cpu_s`, `wall_s`, `evaluations`, NaN where
        there is none; `status` (uint8, CF flags: 0 where the method was not to run, 255 where it gave no result);
        `reason`; `theta` and `theta_sigma` (.., parameter); `amplitude` (.., component);
        `calibration_error_kev` (.., end): energy that the fit gives the two ends of the fit range, minus the
        true one. Over (dataset, task): `counts`; `true_amplitude` (.., component). Truth is NaN where nothing is
        known. Select a method by `data.sel({"method": "adam"})`: as a keyword `method` is xarray's own.
    """
    found = [r for d in datasets for r in d.results.values()]
    parameters = tuple(dict.fromkeys(n for r in found for n in r.parameters))
    components = tuple(dict.fromkeys(n for r in found for n in r.components))
    labels = {
        "dataset": tuple(d.dataset_id for d in datasets),
        "task": tuple(tasks),
        "method": tuple(methods),
        "parameter": parameters,
        "component": components,
        "end": _ENDS,
    }
    arrays = _allocate(labels)
    for index, dataset in enumerate(datasets):
        _put_dataset(arrays, labels, index, dataset)
    coordinates = {name: (name, _make_texts(values)) for name, values in labels.items()}
    sources = ("dataset", _make_texts([d.source for d in datasets]))
    return xr.Dataset(
        {name: (dims, values, _attributes(name)) for name, (dims, values) in arrays.items()},
        coords={**coordinates, "source": sources},
        attrs=as_json(attributes),
    )


def save_statistics(data: xr.Dataset, path: Path) -> None:
    """Write the dataset as Zarr; replaces an earlier one.

    Raises:
        OutputError: the folder cannot be written.
    """
    shutil.rmtree(path, ignore_errors=True)
    with publish_folder(path) as partial:
        data.to_zarr(partial, mode="w", zarr_format=3, consolidated=False)


def open_statistics(path: Path) -> xr.Dataset:
    """Read it back, into memory.

    Raises:
        OutputError: nothing there.
    """
    if not (path / "zarr.json").is_file():
        raise OutputError(f"{path}: no statistics here; run `hpcxrf benchmark` first")
    with xr.open_zarr(path, chunks=None, consolidated=False) as data:
        loaded: xr.Dataset = data.load()
    return loaded


def _allocate(labels: Mapping[str, Sequence[str]]) -> dict[str, tuple[tuple[str, ...], NDArray[Any]]]:
    cell = ("dataset", "task", "method")
    dims: dict[str, tuple[str, ...]] = dict.fromkeys(_NUMBERS, cell)
    dims |= {
        "theta": (*cell, "parameter"),
        "theta_sigma": (*cell, "parameter"),
        "amplitude": (*cell, "component"),
        "calibration_error_kev": (*cell, "end"),
        "counts": cell[:2],
        "true_amplitude": (*cell[:2], "component"),
    }
    shapes = {name: tuple(len(labels[d]) for d in axes) for name, axes in dims.items()}
    arrays: dict[str, tuple[tuple[str, ...], NDArray[Any]]] = {
        name: (axes, np.full(shapes[name], np.nan)) for name, axes in dims.items()
    }
    arrays["status"] = (cell, np.zeros(shapes["r2"], dtype=np.uint8))
    arrays["reason"] = (cell, np.full(shapes["r2"], "", dtype=object))
    return arrays


def _put_dataset(
    arrays: Mapping[str, tuple[tuple[str, ...], NDArray[Any]]],
    labels: Mapping[str, Sequence[str]],
    index: int,
    dataset: DatasetResults,
) -> None:
    values = {name: array[index] for name, (_, array) in arrays.items()}
    for task, method in dataset.asked:
        place = (labels["task"].index(task), labels["method"].index(method))
        result = dataset.results.get((task, method))
        values["status"][place] = FAILED_STATUS if result is None else int(result.status)
        if result is None:
            values["reason"][place] = dataset.reasons.get((task, method), "")
        else:
            values["counts"][place[0]] = result.counts
            _put_result(values, labels, place, result, dataset.truth)
    if dataset.truth is not None:
        for row, task in enumerate(labels["task"]):
            for name, value in dataset.truth.amplitude.get(task, {}).items():
                if name in labels["component"]:
                    values["true_amplitude"][row, labels["component"].index(name)] = value


def _put_result(
    values: Mapping[str, NDArray[Any]],
    labels: Mapping[str, Sequence[str]],
    place: tuple[int, int],
    result: MethodResult,
    truth: Truth | None,
) -> None:
    for name in _NUMBERS:
        values[name][place] = getattr(result, name)
    at = [labels["parameter"].index(n) for n in result.parameters]
    values["theta"][place][at] = result.theta
    values["theta_sigma"][place][at] = result.theta_sigma
    values["amplitude"][place][[labels["component"].index(n) for n in result.components]] = result.amplitude
    if truth is not None:
        values["calibration_error_kev"][place] = calibration_error_kev(result, truth.theta)


def calibration_error_kev(result: MethodResult, true_theta: Mapping[str, float]) -> FloatArray:
    """Error of the fitted energy axis (end,) at the channels where the true one has the ends of the fit range.

    Args:
        result: a fit.
        true_theta: at least `energy_offset`, `energy_slope` and `energy_quadratic`.

    Returns:
        keV, low and high end; NaN where the method has no energy axis.
    """
    fitted = dict(zip(result.parameters, result.theta, strict=True))
    offset, slope, bend = (true_theta[name] for name in _AXIS)
    channel = (np.array(result.energy_range_kev) - offset) / slope
    for _ in range(20):  # the quadratic term is a small correction: the fixed point converges
        channel = (np.array(result.energy_range_kev) - offset - bend * channel**2) / slope
    found = [fitted.get(name, np.nan) for name in _AXIS]
    error: FloatArray = found[0] + found[1] * channel + found[2] * channel**2
    error -= np.array(result.energy_range_kev)
    return error


def _make_texts(values: Sequence[str]) -> NDArray[np.object_]:
    return np.array(values, dtype=object)


def _attributes(name: str) -> dict[str, object]:
    if name in _NUMBERS:
        return dict(zip(("units", "long_name"), _NUMBERS[name], strict=True))
    if name == "status":
        return {
            "flag_values": [*(int(s) for s in FitStatus), FAILED_STATUS],
            "flag_meanings": " ".join([*(s.name.lower() for s in FitStatus), "failed"]),
        }
    units = {"counts": "count", "amplitude": "count", "true_amplitude": "count", "calibration_error_kev": "keV"}.get(
        name
    )
    return {} if units is None else {"units": units}
