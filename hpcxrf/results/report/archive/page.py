"""Trends as numbers and tables of the report."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from hpcxrf.results.report.archive.gather import DEAD_TIME, Histogram, Series, ShiftedParameter, Trends
from hpcxrf.results.report.colours import CYCLE
from hpcxrf.results.report.page.data import pack_floats
from hpcxrf.results.report.views import format_number

MOST_POINTS: Final = 4000
"""Points of a series that the page draws; of a longer one every second, third ... and all outliers."""
MOST_ROWS: Final = 50
"""Rows of each table; a sentence says how many there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRow:
    """What one stage took of a run."""

    name: str
    wall_s: float
    """Wall seconds of its tasks, added up."""
    share: float
    """Of the wall seconds of all stages, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """How fast a run was."""

    stages: tuple[StageRow, ...]
    datasets_per_h: float
    pixels_per_s: float
    cpu_s_per_dataset: float
    gpu_h: float
    """Hours of tasks on GPUs; 0 on a machine without one."""


def measure_throughput(
    seconds: Mapping[str, float], *, wall_s: float, n_datasets: int, n_pixels: int, cpu_s: float, gpu_s: float
) -> Throughput | None:
    """How fast a run was; None where nothing was done or its time is not known.

    Args:
        seconds: wall seconds of the tasks by stage, of all datasets.
        wall_s: of the whole run.
        n_datasets: that are done.
        n_pixels: of them.
        cpu_s: CPU seconds of all tasks.
        gpu_s: wall seconds of the tasks that ran on GPUs.
    """
    total = sum(seconds.values())
    if n_datasets == 0 or total <= 0 or wall_s <= 0:
        return None
    return Throughput(
        stages=tuple(StageRow(name=name, wall_s=one, share=one / total) for name, one in seconds.items()),
        datasets_per_h=3600.0 * n_datasets / wall_s,
        pixels_per_s=n_pixels / wall_s,
        cpu_s_per_dataset=cpu_s / n_datasets,
        gpu_h=gpu_s / 3600.0,
    )


def pack_trends(trends: Trends) -> dict[str, Any]:
    """JSON of what the page draws: points by place, series of the parameters, distributions."""
    parameters = list(dict.fromkeys(one.parameter for one in trends.series))
    detectors = list(dict.fromkeys(one.detector for one in trends.series))
    return {
        "names": [point.name for point in trends.points],
        "links": [point.link for point in trends.points],
        "dates": [point.date for point in trends.points] if trends.is_by_date else None,
        "parameters": [{"name": name, "label": label_parameter(name)} for name in parameters],
        "series": [_pack_series(one, CYCLE[detectors.index(one.detector) % len(CYCLE)]) for one in trends.series],
        "histograms": [_pack_histogram(one) for one in trends.histograms],
    }


def _pack_series(series: Series, colour: str) -> dict[str, Any]:
    every = -(-len(series.at) // MOST_POINTS)
    shown = np.zeros(len(series.at), bool)
    shown[::every] = True
    shown |= series.drift.is_outlier
    centre = float(np.median(series.value))
    return {
        "detector": series.detector,
        "parameter": series.parameter,
        "unit": series.unit,
        "colour": colour,
        "at": series.at[shown].tolist(),
        "centre": centre,
        # The differences are small beside the values, which float32 alone would round.
        "away": pack_floats(series.value[shown] - centre),
        "sigma": pack_floats(series.sigma[shown]),
        "outliers": np.flatnonzero(series.drift.is_outlier[shown]).tolist(),
        "steps": [int(series.at[step.position]) for step in series.drift.steps],
        "left_out": int((~shown).sum()),
    }


def _pack_histogram(one: Histogram) -> dict[str, Any]:
    return {
        "title": one.title,
        "word": one.word,
        "log": one.is_log,
        "edges": [float(f"{edge:.6g}") for edge in one.edges],
        "counts": {word: list(counts) for word, counts in one.counts.items()},
        "median": float(f"{one.median:.6g}"),
        "missing": one.n_missing,
    }


def label_parameter(name: str) -> str:
    """Name of a parameter for people: `energy offset`."""
    return "dead time" if name == DEAD_TIME else name.replace("_", " ")


def describe_shifts(parameters: Sequence[ShiftedParameter], *, most: int = 4) -> str:
    """What moved and how far, as a sentence part: `fwhm offset +0.012 keV (35 σ)`."""
    told = [
        f"{label_parameter(one.name)} {'+' if one.size > 0 else '−'}{format_number(abs(one.size), 3)}"
        f"{f' {one.unit}' if one.unit not in {'', '1'} else ''}{_in_sigma(one.in_sigma)}"
        for one in parameters[:most]
    ]
    more = len(parameters) - most
    return "; ".join(told) + (f"; and {more} more" if more > 0 else "")


def _in_sigma(value: float) -> str:
    return f" ({format_number(abs(value), 2)} σ)" if math.isfinite(value) and abs(value) < 1e4 else ""
