"""What the page is told of a scan, and of the spectrum of some of its pixels, as JSON values."""

import math
from typing import Any

import numpy as np
import xarray as xr
import xraylib
from numpy.typing import NDArray

from hpcxrf.errors import FitError
from hpcxrf.explore.session import SelectedCounts, Session
from hpcxrf.explore.windows import Window, channel_energies_kev
from hpcxrf.notes import Note, unpack_notes
from hpcxrf.physics.components import parse_component
from hpcxrf.physics.scatter_names import SCATTER
from hpcxrf.results.names import shown_name
from hpcxrf.results.report.page.data import pack_floats
from hpcxrf.results.report.page.spectrum import build_spectrum
from hpcxrf.results.report.views import read_fit_notes, read_verdict_reasons

FloatArray = NDArray[np.float64]


def describe_scan(session: Session) -> dict[str, Any]:
    """Describe a scan.

    Returns:
        JSON values: `shape` (y, x), `shape_full` (detector, y, x, channel), `components` with their counts and shares,
        `layers`, `regions`, and where the scan comes from. The share of a component is null where it is not known.
    """
    return {
        "name": _find_name(session),
        "shape": list(session.shape_yx),
        "step_um": _find_step(session),
        "detectors": list(session.detectors),
        "components": _describe_components(session),
        "layers": [layer.describe() for layer in session.layers.values()],
        "coarse": False,
        "regions": _describe_regions(session),
        "dataset_id": session.dataset.dataset_id,
        "source": str(session.attributes.get("source", _find_name(session))),
        "fitted": bool(session.groups),
        "shape_full": _find_full_shape(session),
        "datasets": list(session.target.datasets),
        "run": None if session.target.run is None else session.target.run.resolve().name,
        "incident_energy_kev": _find_energy(session),
        "elements": [name for name in session.components if name not in SCATTER] if session.groups else [],
        "detectors_fit": _list_fitted(session.groups.get("spectrum")),
        "has_spectra": session.counts is not None,
        "no_spectra": session.no_counts,
        "notes": [{"kind": note.kind, "text": note.text} for note in _list_notes(session)],
    }


def describe_spectrum(session: Session, selected: SelectedCounts, seconds: float) -> dict[str, Any]:
    """Describe the counts of some pixels.

    Returns:
        JSON values: `counts` of all channels, whole numbers where the stored ones are; `spectrum` the same in the range
        of the fit, as the page draws it, whose first channel is `spectrum_first_channel`.
    """
    numbers, first = _build_numbers(session, selected)
    counts = selected.counts
    return {
        "detector": selected.detector,
        "n_pixels": selected.n_pixels,
        "live_time_s": selected.live_time_s,
        "first_channel": 0,
        "counts": counts.tolist(),
        "spectrum": numbers,
        "spectrum_first_channel": first,
        "seconds": seconds,
    }


def read_atomic_number(component: str) -> int:
    """Atomic number of a component's element, of a pile-up that of its heavier one; 0 of scatter and own lines."""
    if component in SCATTER:
        return 0
    try:
        families = parse_component(component).families
    except FitError:
        return 0
    return max((int(xraylib.SymbolToAtomicNumber(symbol)) for symbol, _ in families), default=0)


def _find_name(session: Session) -> str:
    if session.counts is not None and not session.groups:
        return session.counts.store.scan_name
    return str(session.attributes.get("title", session.dataset.dataset_id))


def _describe_components(session: Session) -> list[dict[str, Any]]:
    if not session.groups:
        return [_describe_window(session, window) for window in session.windows]
    spectrum = session.groups.get("spectrum")
    summaries = {name: session.summary(name) for name in session.summarised_detectors()}
    described = []
    for index, name in enumerate(session.components):
        counts = {} if spectrum is None else _read_column(spectrum, "amplitude", name)
        described.append(
            {
                "name": name,
                "label": shown_name(name),
                "z": read_atomic_number(name),
                "counts": {one: _finite(counts.get(one)) for one in session.detectors},
                "share": {
                    one: _finite(summaries[one].above_limit[index]) if one in summaries else None
                    for one in session.detectors
                },
                "found": {
                    one: bool(summaries[one].found[index]) if one in summaries else None for one in session.detectors
                },
            }
        )
    return described


def _describe_window(session: Session, window: Window) -> dict[str, Any]:
    """The window of a family: its counts, and no shares, which only a fit has."""
    store, calibration = session.require_counts().store, session.calibration or ()
    counts = [
        float(store.integrated(number)[window.channels(one, store.shape[3])].sum())
        for number, one in enumerate(calibration)
    ]
    return {
        "name": window.name,
        "label": window.name,
        "z": read_atomic_number(window.name),
        "counts": {one: sum(counts[number] for number in session.parts_of(one)) for one in session.detectors},
        "share": dict.fromkeys(session.detectors),
        "found": dict.fromkeys(session.detectors, True),
    }


def _read_column(spectrum: xr.Dataset, name: str, component: str) -> dict[str, float]:
    """One number of the integrated fits of all detectors."""
    names = [str(one) for one in spectrum["component"].values]
    values = spectrum[name].values[:, names.index(component)].tolist() if component in names else []
    return dict(zip(map(str, spectrum["detector"].values), values, strict=False))


def _describe_regions(session: Session) -> list[dict[str, Any]]:
    regions = session.groups.get("regions")
    if regions is None:
        return []
    rows = zip(regions["region"].values, regions["n_pixels"].values, regions["reason"].values, strict=True)
    return [
        {"number": number, "name": str(name), "n_pixels": int(pixels), "reason": str(reason)}
        for number, (name, pixels, reason) in enumerate(rows, start=1)
    ]


def _find_step(session: Session) -> list[float] | None:
    if not session.groups:
        return find_step_um(*session.require_counts().store.positions_um())
    step = session.summary(session.detectors[0]).step_um
    return None if step is None else list(step)


def _find_full_shape(session: Session) -> list[int]:
    """(detector, y, x, channel), of a scan without its spectra as far as its results tell."""
    if session.counts is not None:
        return list(session.counts.store.shape)
    channels = session.groups["spectrum"].sizes["channel"]
    each = sum(name.isdecimal() for name in session.detectors)
    return [max(1, each), *session.shape_yx, channels]


def _find_energy(session: Session) -> float | None:
    stored = session.attributes.get("incident_energy_kev")
    if stored is None and session.counts is not None:
        stored = session.counts.store.incident_energy_kev
    return None if stored is None else float(stored)


def _list_fitted(spectrum: xr.Dataset | None) -> list[str]:
    """Detectors that have an integrated fit."""
    if spectrum is None:
        return []
    fitted = np.isfinite(spectrum["model"].values).any(axis=-1)
    return [str(name) for name, one in zip(spectrum["detector"].values, fitted, strict=True) if one]


def _list_notes(session: Session) -> list[Note]:
    notes = list(unpack_notes(session.attributes))
    if not session.groups:
        notes += session.require_counts().store.notes
    spectrum = session.groups.get("spectrum")
    if spectrum is not None:
        for name in map(str, spectrum["detector"].values):
            notes += [Note(one.kind, f"detector {name}: {one.text}") for one in read_fit_notes(spectrum, name)]
            notes += [Note("warning", f"detector {name}: {text}") for text in read_verdict_reasons(spectrum, name)]
    return list(dict.fromkeys(notes))


def _build_numbers(session: Session, selected: SelectedCounts) -> tuple[dict[str, Any], int]:
    """Numbers of the page's spectrum without a model, and the first channel of them."""
    spectrum = session.groups.get("spectrum")
    names = [] if spectrum is None else [str(name) for name in spectrum["detector"].values]
    counts = selected.counts.astype(np.float64)
    drawn: dict[str, Any] = {"model": None, "background": None, "components": []}
    if spectrum is not None and selected.detector in names:
        fitted = build_spectrum(spectrum, selected.detector)
        if fitted is not None:
            model = spectrum["model"].values[names.index(selected.detector)]
            first, stop = (int(one) for one in np.flatnonzero(np.isfinite(model))[[0, -1]] + (0, 1))
            return {**fitted, **drawn, "counts": pack_floats(counts[first:stop]), "overlays": []}, first
    energy_kev = _find_axis(session, selected.detector)
    return {
        "energy_kev": pack_floats(energy_kev),
        "counts": pack_floats(counts),
        **drawn,
        "markers": [],
        "overlays": [],
    }, 0


def _find_axis(session: Session, detector: str) -> FloatArray:
    """Energy of every channel by the file's calibration; the number of the channel where it gives none."""
    n_channels = session.require_counts().store.shape[3]
    if session.calibration is None:
        return np.arange(n_channels, dtype=np.float64)
    return channel_energies_kev(session.calibration[int(detector) if detector.isdecimal() else 0], n_channels)


def find_step_um(x_um: FloatArray, y_um: FloatArray) -> list[float] | None:
    """Median steps (y, x) of the stage, micrometres; None where it did not move or no position is known."""
    steps = [np.abs(np.diff(one, axis=axis)) for axis, one in enumerate((y_um, x_um))]
    moved = [one[np.isfinite(one) & (one > 0)] for one in steps]
    known = [float(np.median(one)) for one in moved if one.size]
    # A scan of one row has no step along y; square pixels are the only sensible picture of it.
    return [float(np.median(one)) if one.size else known[0] for one in moved] if known else None


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
