"""A fit of a run as the page has it: JSON without NaN, from its store; no torch here, which takes seconds to load."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import xarray as xr

from hpcxrf.fitting.limits import decision_limit
from hpcxrf.fitting.status import FitStatus
from hpcxrf.fitting.verdict import Verdict
from hpcxrf.notes import Note
from hpcxrf.results.names import shown_name
from hpcxrf.results.photon_variance import read_photon_variance
from hpcxrf.results.report.page.spectrum import build_spectrum
from hpcxrf.results.report.views import read_fit_notes, read_merits, read_verdict_reasons

Json = dict[str, Any]


def pack_stored_fit(tree: xr.DataTree, detector: str) -> Json:
    """Numbers of the integrated fit of a run.

    Args:
        tree: an open results store.
        detector: name on the detector axis.
    """
    spectrum = tree["spectrum"].to_dataset().load()
    merit = read_merits(spectrum)[detector]
    one = spectrum.sel(detector=detector)
    names = [str(name) for name in spectrum["component"].values]
    photon = read_photon_variance(spectrum, detector, float(tree.attrs.get("count_factor", {}).get(detector, 1.0)))
    limits = [
        decision_limit(limit, variance)
        for limit, variance in zip(one["detection_limit"].values.tolist(), photon.tolist(), strict=True)
    ]
    return {
        "detector": detector,
        "status": FitStatus(merit.status).name.lower(),
        "verdict": Verdict(merit.verdict).word,
        "verdict_reasons": list(read_verdict_reasons(spectrum, detector)),
        **{key: finite(getattr(merit, key)) for key in ("r2", "r2_expected", "reduced_chi2", "deviance", "cpu_s")},
        "parameters": read_parameters(tree, detector),
        "amplitudes": pack_amplitudes(names, one["amplitude"].values.tolist(), one["sigma"].values.tolist(), limits),
        "notes": pack_notes(read_fit_notes(spectrum, detector)),
        "suggested": pack_suggested(tree.attrs.get("suggested", {}).get(detector, [])),
        "overlaps": {},
        "spectrum": build_spectrum(spectrum, detector),
    }


def read_parameters(tree: xr.DataTree, detector: str) -> list[Json]:
    """Rows of theta of the integrated fit of a run."""
    table = tree["parameters"].to_dataset().load().sel(detector=detector)
    columns = ("value", "sigma", "initial", "lower", "upper", "free", "at_bound")
    rows = zip(
        map(str, table["name"].values),
        map(str, table["unit"].values),
        *(table[name].values.tolist() for name in columns),
        strict=True,
    )
    return [pack_parameter(*row) for row in rows]


def pack_suggested(records: Iterable[Mapping[str, Any]]) -> list[Json]:
    """Suggested components without their lines."""
    return [{key: record[key] for key in ("name", "z", "counts", "sigma")} for record in records]


def finite(value: float) -> float | None:
    """A number, None for NaN and infinity, which JSON has not."""
    return value if math.isfinite(value) else None


def pack_parameter(
    name: str,
    unit: str,
    value: float,
    sigma: float,
    initial: float,
    lower: float,
    upper: float,
    free: float,
    at_bound: float,
) -> Json:
    """A row of theta."""
    numbers = {"value": value, "sigma": sigma, "initial": initial, "lower": lower, "upper": upper}
    shown = {key: finite(float(number)) for key, number in numbers.items()}
    return {"name": name, "unit": unit, **shown, "free": bool(free), "at_bound": bool(at_bound)}


def pack_amplitudes(
    names: Sequence[str], amplitude: Sequence[float], sigma: Sequence[float], limit: Sequence[float]
) -> list[Json]:
    """Rows of amplitudes: counts with their sigma, and the limit from which a component is found."""
    return [
        {
            "name": name,
            "label": shown_name(name),
            "amplitude": finite(value),
            "sigma": finite(error),
            "limit": finite(least),
            "found": bool(value > least),
        }
        for name, value, error, least in zip(names, amplitude, sigma, limit, strict=True)
    ]


def pack_notes(notes: Iterable[Note]) -> list[Json]:
    """Notes of a fit."""
    return [{"kind": note.kind, "text": note.text} for note in notes]
