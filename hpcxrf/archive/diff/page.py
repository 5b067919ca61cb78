"""The page of a comparison of two runs: a table of all datasets, and maps of those that changed most."""

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.archive.diff.compare import open_pair, read_map_pairs
from hpcxrf.archive.diff.facts import OUTCOMES
from hpcxrf.archive.diff.walk import Comparison
from hpcxrf.errors import HpcxrfError
from hpcxrf.fitting.verdict import Verdict
from hpcxrf.results.compare.page import draw_map
from hpcxrf.results.names import name_detector, shown_name
from hpcxrf.results.report.colours import VIRIDIS, colour_limits
from hpcxrf.results.report.page.data import pack_png
from hpcxrf.results.report.page.look import load_page_look, load_templates
from hpcxrf.results.report.page.maps import LEVELS, NOT_FITTED_COLOUR, to_levels
from hpcxrf.results.report.thumbnails import block_mean
from hpcxrf.results.store.storage import replace_file

FloatArray = NDArray[np.float64]

MAX_ROWS: Final = 5000
"""Rows of the table; those that changed most where it does not hold all."""
_SIDE: Final = 128
"""Points of a picture along its longer side."""
_MAPS: Final = 3
"""Components with pictures of a dataset."""
_ROWS: Final = 12
"""Parameters, amplitudes and maps that are listed of a detector, the most changed ones."""
_LEAST_LOG: Final = math.log2(1.02)
"""Half of the scale of a picture of ratios, binary orders: smaller ratios are not enlarged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapPictures:
    """Maps of a component of both sides, on one scale of colours, and their ratio."""

    label: str
    first: str
    """`data:` address."""
    second: str
    limits: tuple[float, float]
    """Counts a pixel at both ends of the colours."""
    ratio: str
    ratio_limits: tuple[float, float]
    """Second over first at both ends."""
    in_sigma: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """One of the datasets that changed most."""

    number: int
    values: Mapping[str, Any]
    detectors: tuple[Mapping[str, Any], ...]
    """What is listed of each detector: `theta`, `amplitudes`, `maps`, most changed first, and `pixels`."""
    pictures: tuple[MapPictures, ...]


def write_diff_page(comparison: Comparison, path: Path) -> None:
    """Write the page, readable from a file without a network; replaces an earlier one at once.

    Args:
        comparison: of `compare_runs`, inside its block.
        path: the page.

    Raises:
        OutputError: `path` cannot be written.
    """
    every = len(comparison.offsets)
    template = load_templates(Path(__file__).parent).get_template("diff.html.j2")
    places = {offset: number for number, offset in enumerate(comparison.most, start=1)}
    stream = template.stream(
        first=comparison.first.path.name or str(comparison.first.path),
        second=comparison.second.path.name or str(comparison.second.path),
        paths=(str(comparison.first.path), str(comparison.second.path)),
        limits=comparison.limits,
        summary=comparison.summary.describe(),
        outcomes=OUTCOMES,
        words=[verdict.word for verdict in Verdict if verdict is not Verdict.NOT_JUDGED],
        rows=_read_rows(comparison, places),
        n_rows=every,
        n_shown=min(every, MAX_ROWS),
        details=_build_details(comparison),
        n_details=len(comparison.most),
        most_rows=_ROWS,
        **load_page_look(),
    )
    stream.enable_buffering(50)
    with replace_file(path) as partial, partial.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines(stream)


def _read_rows(comparison: Comparison, places: Mapping[int, int]) -> Iterator[dict[str, Any]]:
    """Rows of the table, read one by one."""
    chosen: Sequence[int] = range(len(comparison.offsets))
    if len(chosen) > MAX_ROWS:
        chosen = sorted(heapq.nlargest(MAX_ROWS, chosen, key=comparison.rank.__getitem__))
    for index in chosen:
        offset = comparison.offsets[index]
        values = comparison.read(offset)
        worst = next((one for one in values["detectors"] if one["detector"] == values["worst"]), None)
        yield {
            **{key: value for key, value in values.items() if key != "detectors"},
            "state": _name_state(values),
            "worst": worst,
            "pixels_changed": sum(one["pixels_changed"] for one in values["detectors"]),
            "place": places.get(offset),
        }


def _name_state(values: Mapping[str, Any]) -> str:
    if values["first"] is None:
        return "only in second"
    if values["second"] is None:
        return "only in first"
    return str(values["outcome"])


def _build_details(comparison: Comparison) -> Iterator[Details]:
    """Details of those that changed most, one by one."""
    for number, offset in enumerate(comparison.most, start=1):
        values = comparison.read(offset)
        compared = values["detectors"] and not values["fault"]
        yield Details(
            number=number,
            values=values,
            detectors=tuple(_shorten(one) for one in values["detectors"]),
            pictures=_draw_pictures(comparison, values) if compared else (),
        )


def _shorten(detector: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a detector that changed most."""
    short = dict(detector) | {"title": name_detector(detector["detector"])}
    for name in ("theta", "amplitudes", "maps"):
        known = [one for one in detector[name] if one["in_sigma"] > 0.0]
        short[name] = sorted(known, key=lambda one: -one["in_sigma"])[:_ROWS]
        short[f"n_{name}"] = len(detector[name])
    for one in (*short["theta"], *short["amplitudes"], *short["maps"]):
        one["label"] = shown_name(one.get("component") or one["name"])
    return short


def _draw_pictures(comparison: Comparison, values: Mapping[str, Any]) -> tuple[MapPictures, ...]:
    """Maps that changed most, of the detector in which they did."""
    known = [
        (one["in_sigma"], detector["detector"], one["component"])
        for detector in values["detectors"]
        for one in detector["maps"]
        if one["in_sigma"] > 0.0
    ]
    wanted = heapq.nlargest(_MAPS, known)
    pictures: dict[tuple[str, str], MapPictures] = {}
    try:
        stores = open_pair(comparison.first.stores[values["first"]], comparison.second.stores[values["second"]])
        for name in dict.fromkeys(detector for _, detector, _ in wanted):
            components = {component for _, detector, component in wanted if detector == name}
            for component, (ours, sigma, theirs) in read_map_pairs(*stores, name, only=components):
                in_sigma = next(s for s, d, c in wanted if (d, c) == (name, component))
                label = f"{shown_name(component)}, {name_detector(name)}"
                pictures[name, component] = draw_pictures(label, ours, sigma, theirs, in_sigma)
    except (HpcxrfError, OSError, ValueError, KeyError):
        # It could be read a moment ago: whoever writes into it now is why there is no picture.
        return ()
    return tuple(pictures[detector, component] for _, detector, component in wanted)


def draw_pictures(label: str, ours: FloatArray, sigma: FloatArray, theirs: FloatArray, in_sigma: float) -> MapPictures:
    """Draw two maps on one scale, and their ratio where the first is above twice its sigma; grey elsewhere.

    Args:
        label: name of the component and detector.
        ours: (y, x) counts of the first side.
        sigma: (y, x) their uncertainties.
        theirs: (y, x) counts of the second side.
        in_sigma: how much they differ.
    """
    factor = max(1, -(-max(ours.shape) // _SIDE))
    first, second = block_mean(ours, factor), block_mean(theirs, factor)
    noise = np.sqrt(block_mean(sigma**2, factor)) / factor
    low, high = colour_limits(first)
    with np.errstate(divide="ignore", invalid="ignore"):
        order = np.where((first > 2.0 * noise) & (second > 0.0), np.log2(second / first), np.nan)
    finite = np.abs(order[np.isfinite(order)])
    reach = max(_LEAST_LOG, float(np.percentile(finite, 95.0)) if finite.size else 0.0)
    levels = to_levels(order, (-reach, reach))
    return MapPictures(
        label=label,
        first=draw_map(first, low, high),
        second=draw_map(second, low, high),
        limits=(low, high),
        ratio=pack_png(levels, NOT_FITTED_COLOUR + VIRIDIS[: 3 * LEVELS]),
        ratio_limits=(2.0**-reach, 2.0**reach),
        in_sigma=in_sigma,
    )
