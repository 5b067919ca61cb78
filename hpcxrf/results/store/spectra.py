"""The integrated fits in the results store: groups `spectrum` and `parameters`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr
from numpy.typing import NDArray
from torch import Tensor

from hpcxrf.errors import OutputError
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.notes import pack_notes
from hpcxrf.results.photon_variance import PHOTON_VARIANCE, name_components
from hpcxrf.results.store.storage import (
    ArrayPlan,
    array_of,
    create_array,
    create_group,
    create_labels,
    fill_rows,
    labels_of,
    output_errors,
    publish_folder,
    read_attributes,
    require_readable_schema,
    update_attributes,
)
from hpcxrf.store.schema import COMPLETE_ATTRIBUTE, PARAMETER_VARIABLES, SPECTRUM_VARIABLES, table

FloatArray = NDArray[np.float64]

MERIT_VARIABLES: Final = table(
    """
    r2            detector  float64  1  coefficient of determination in linear counts
    r2_expected   detector  float64  1  R2 that counting noise alone leaves
    reduced_chi2  detector  float64  1  chi2 per degree of freedom
    deviance      detector  float64  1  Poisson deviance per degree of freedom
    cpu_s         detector  float64  s  processor time of the fit
    status        detector  uint8    1  outcome of the fit
    verdict       detector  uint8    1  verdict on the fit
    """
)
"""Figures of merit of the integrated fit, in the group `spectrum`."""

TEXT_ATTRIBUTES: Final = ("messages", "warnings", "flags", "verdict_reasons")
"""Attributes of the group `spectrum` that hold a list of texts for each detector."""

# Names in the store and in SpectrumFit.
_PARAMETER_FIELDS: Final = {
    "value": "theta",
    "sigma": "theta_sigma",
    "initial": "theta_initial",
    "lower": "theta_lower",
    "upper": "theta_upper",
    "free": "free",
    "at_bound": "at_bound",
}
_AMPLITUDE_FIELDS: Final = {"amplitude": "amplitude", "sigma": "amplitude_sigma", "detection_limit": "detection_limit"}


def create_spectrum_group(store: Path, sizes: Mapping[str, int], labels: Mapping[str, Sequence[str]]) -> None:
    """Create the group `spectrum` of a store's folder with its metadata, everything NaN."""
    group = create_group(store / "spectrum")
    for dim, values in labels.items():
        create_labels(group, dim, values)
    for name, spec in {**SPECTRUM_VARIABLES, **MERIT_VARIABLES}.items():
        in_channels = "channel" in spec.dims and name != "energy_kev"
        plan = ArrayPlan(spec=spec, sizes=sizes, coordinates="energy_kev" if in_channels else "")
        create_array(group, name, plan)


def write_spectrum_fits(
    path: Path,
    fits: Mapping[str, SpectrumFit],
    n_channels: int,
    *,
    line_markers: Sequence[tuple[float, str]] = (),
    integrated_counts: Mapping[str, FloatArray] | None = None,
) -> None:
    """Write integrated fits and their parameters; twice equals once, and detectors may come one by one.

    A store that was complete is not, from here until it is finalised again.

    Args:
        path: The store.
        fits: By detector name, components a subset of the store's, the same parameters in each.
        n_channels: Channels of the full spectrum; outside the fit range everything reads NaN.
        line_markers: (energy_kev, label) of the lines to name in a plot, kept as the group attribute
            `line_markers`; a label starts with the name of its component ("Fe Ka").
        integrated_counts: Full integrated spectra (channel,) by detector; NaN outside the fit range without.

    Raises:
        OutputError: no store of this schema there, other parameters in it, or it cannot be written.
        ValueError: a detector, component or channel number that the store does not have.
    """
    if require_readable_schema(path).get(COMPLETE_ATTRIBUTE):
        update_attributes(path, {COMPLETE_ATTRIBUTE: False}, without=("consolidated_metadata",))
    group = zarr.open_group(path / "spectrum", mode="r")
    detectors, components = labels_of(group, "detector"), labels_of(group, "component")
    _require_known(fits, detectors, components)
    stored = array_of(group, "counts").shape[-1]
    if stored != n_channels:
        raise ValueError(f"{n_channels} channels, but the store has {stored}")
    rows = {detectors.index(name): _spectrum_rows(fit, components, n_channels) for name, fit in fits.items()}
    for name, counts in (integrated_counts or {}).items():
        if name in fits:
            rows[detectors.index(name)]["counts"] = counts
    with output_errors(path):
        fill_rows(path / "spectrum", rows)
        _write_attributes(path / "spectrum", fits, line_markers)
        _write_parameters(path, fits, detectors)


def _write_attributes(group: Path, fits: Mapping[str, SpectrumFit], line_markers: Sequence[tuple[float, str]]) -> None:
    texts = {detector: _texts_of(fit) for detector, fit in fits.items()}
    by_detector: dict[str, dict[str, Any]] = {
        **{name: {detector: one[name] for detector, one in texts.items()} for name in TEXT_ATTRIBUTES},
        "line_ratios": {name: fit.ratios.describe() for name, fit in fits.items() if fit.ratios is not None},
        PHOTON_VARIANCE: {
            name: name_components(fit.component_names, fit.photon_variance) for name, fit in fits.items()
        },
    }
    earlier = read_attributes(group)
    written: dict[str, Any] = {name: {**_as_dict(earlier.get(name)), **one} for name, one in by_detector.items()}
    if line_markers:
        written["line_markers"] = [[float(energy), str(label)] for energy, label in line_markers]
    update_attributes(group, written)


def _as_dict(earlier: object) -> dict[str, Any]:
    return dict(earlier) if isinstance(earlier, dict) else {}


def _texts_of(fit: SpectrumFit) -> dict[str, list[str]]:
    notes = pack_notes(fit.notes)
    return {
        "messages": notes["notes"],
        "warnings": notes["warnings"],
        "flags": list(fit.flags),
        "verdict_reasons": list(fit.verdict_reasons),
    }


def _spectrum_rows(fit: SpectrumFit, components: Sequence[str], n_channels: int) -> dict[str, NDArray[np.generic]]:
    """Everything of one detector's row in the group `spectrum`."""
    place = [components.index(name) for name in fit.component_names]
    channels = slice(fit.first_channel, fit.first_channel + fit.counts.shape[0])
    if channels.stop > n_channels:
        raise ValueError(f"fit range {channels} exceeds the spectrum of {n_channels} channels")
    rows: dict[str, NDArray[np.generic]] = {}
    for name in ("counts", "model", "background"):
        rows[name] = _scatter(getattr(fit, name), (n_channels,), channels)
    share = np.full((len(components), n_channels), np.nan, dtype=np.float32)
    share[place, channels] = fit.component_counts.detach().cpu().numpy()
    rows["component_counts"] = share
    for name, field in _AMPLITUDE_FIELDS.items():
        rows[name] = _scatter(getattr(fit, field), (len(components),), place)
    rows["energy_kev"] = channel_energies_kev(fit, n_channels)
    for name in MERIT_VARIABLES:
        rows[name] = np.asarray(getattr(fit, name))
    return rows


def channel_energies_kev(fit: SpectrumFit, n_channels: int) -> FloatArray:
    """Energy of every channel with the fitted calibration, shape (channel,).

    Raises:
        ValueError: the fit has no energy calibration among its parameters.
    """
    theta = dict(zip(fit.parameter_names, fit.theta.tolist(), strict=True))
    missing = {"energy_offset", "energy_slope"} - set(theta)
    if missing:
        raise ValueError(f"the fit has no parameter {', '.join(sorted(missing))}")
    channel = np.arange(n_channels, dtype=np.float64)
    quadratic = theta.get("energy_quadratic", 0.0)
    energy_kev: FloatArray = theta["energy_offset"] + theta["energy_slope"] * channel + quadratic * channel**2
    return energy_kev


def _write_parameters(path: Path, fits: Mapping[str, SpectrumFit], detectors: Sequence[str]) -> None:
    if not fits:
        return
    first = next(iter(fits.values()))
    if any(fit.parameter_names != first.parameter_names for fit in fits.values()):
        raise ValueError("fits of one dataset must have the same parameters in the same order")
    if not (path / "parameters").exists():
        _create_parameters(path / "parameters", first, detectors)
    known = labels_of(zarr.open_group(path / "parameters", mode="r"), "name")
    if known != first.parameter_names:
        raise OutputError(
            f"{path}: holds fits with other parameters ({', '.join(known)}); write to another folder or remove it"
        )
    rows = {
        detectors.index(detector): {
            name: getattr(fit, field).detach().cpu().numpy() for name, field in _PARAMETER_FIELDS.items()
        }
        for detector, fit in fits.items()
    }
    fill_rows(path / "parameters", rows)


def _create_parameters(path: Path, fit: SpectrumFit, detectors: Sequence[str]) -> None:
    sizes = {"detector": len(detectors), "name": len(fit.parameter_names)}
    with publish_folder(path) as partial:
        group = create_group(partial)
        create_labels(group, "detector", detectors)
        create_labels(group, "name", fit.parameter_names)
        create_labels(group, "name", fit.parameter_units, name="unit")
        for name, spec in PARAMETER_VARIABLES.items():
            create_array(group, name, ArrayPlan(spec=spec, sizes=sizes, coordinates="unit"))


def _scatter(values: Tensor, shape: tuple[int, ...], place: slice | Sequence[int]) -> FloatArray:
    """NaN of this shape, with the values put in their place."""
    result = np.full(shape, np.nan)
    result[place] = values.detach().cpu().numpy()
    return result


def _require_known(fits: Mapping[str, SpectrumFit], detectors: Sequence[str], components: Sequence[str]) -> None:
    faults = [f"detector {name!r}" for name in fits if name not in detectors]
    names = dict.fromkeys(name for fit in fits.values() for name in fit.component_names)
    faults += [f"component {name!r}" for name in names if name not in components]
    if faults:
        raise ValueError(f"the store has no {', '.join(faults)}")
