"""One dataset of two runs: figures of merit, theta, amplitudes, maps, configuration. Neither torch nor dask here."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr
from numpy.typing import NDArray

from hpcxrf.archive.diff.facts import Change, DatasetChange, DetectorChange, Limits, MapChange, Outcome
from hpcxrf.archive.diff.sides import Pair, Side
from hpcxrf.config.pixels import rename_old_options
from hpcxrf.errors import HpcxrfError, OutputError
from hpcxrf.fitting.status import FitStatus
from hpcxrf.fitting.verdict import Verdict
from hpcxrf.results.compare.agreement import compare_component
from hpcxrf.results.names import name_detector, shown_name
from hpcxrf.results.store.storage import labels_of, require_readable_schema, zarr_store
from hpcxrf.store.rundir import compare_configurations

FloatArray = NDArray[np.float64]

_MAP_BYTES: Final = 256 << 20
"""Maps of this size are read at a time."""
_GROUPS: Final = ("regions", "normalised", "areal_density", "inference")
"""Groups that not every result has."""
_FILES: Final = "input.files"
"""Option that names all files of a run; which scan it is has been found out otherwise."""


def compare_pair(pair: Pair, first: Side, second: Side, limits: Limits) -> DatasetChange:
    """Compare a dataset of both sides; what cannot be read is said of it and stops no other.

    Args:
        pair: the dataset.
        first: the first side.
        second: the second side.
        limits: from where on it counts as better or worse.
    """
    ours = first.stores.get(pair.first or "")
    theirs = second.stores.get(pair.second or "")
    facts: dict[str, Any] = {
        "name": pair.first or pair.second or "",
        "first": pair.first,
        "second": pair.second,
        "matched_by": pair.matched_by,
        "first_reason": "" if ours else first.failures.get(pair.first or "", ""),
        "second_reason": "" if theirs else second.failures.get(pair.second or "", ""),
    }
    if ours is None or theirs is None:
        there = ours or theirs
        named = facts if there is None else {**facts, "name": _read_title(there) or facts["name"]}
        return DatasetChange(**named, **_judge_missing(pair, ours, theirs))
    try:
        return _compare_stores(ours, theirs, limits, facts)
    except (HpcxrfError, OSError, ValueError, KeyError) as error:
        return DatasetChange(
            **facts, fault=str(error) or type(error).__name__, outcome="worse", why=("cannot be read",)
        )


def _read_title(store: Path) -> str:
    try:
        return str(require_readable_schema(store).get("title") or "")
    except HpcxrfError:
        return ""


def _judge_missing(pair: Pair, ours: Path | None, theirs: Path | None) -> dict[str, Any]:
    """A dataset that failed on one side is worse or better; one that only one side was asked for is neither."""
    both = pair.first is not None and pair.second is not None
    if both and ours is not None:
        return {"outcome": "worse", "why": ("no results in the second run",)}
    if both and theirs is not None:
        return {"outcome": "better", "why": ("no results in the first run",)}
    return {}


def _compare_stores(ours: Path, theirs: Path, limits: Limits, facts: dict[str, Any]) -> DatasetChange:
    roots: tuple[Any, Any] = (require_readable_schema(ours), require_readable_schema(theirs))
    first, second = (OpenStore(path) for path in (ours, theirs))
    shared = [name for name in first.detectors if name in second.detectors]
    detectors = tuple(_compare_detectors(first, second, shared))
    outcome, why = judge_outcome(detectors, limits)
    largest, of = _find_largest(detectors)
    title = roots[0].get("title") or roots[1].get("title")
    return DatasetChange(
        **{**facts, "name": str(title) if title else facts["name"]},
        outcome=outcome,
        why=why,
        detectors=detectors,
        only_first=tuple(_list_lacking(first, second)),
        only_second=tuple(_list_lacking(second, first)),
        versions=tuple(_compare_versions(*roots)),
        configuration=tuple(_compare_options(*roots)),
        largest=largest,
        largest_of=of,
    )


class OpenStore:
    """A results store, all of its members opened at once: one by one they take most of the time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # Consolidated metadata would show arrays whose files are gone, full of NaN.
            self.root = zarr.open_group(zarr_store(path), mode="r", use_consolidated=False)
            self.members = dict(self.root.members(max_depth=None))
        except FileNotFoundError as error:
            raise OutputError(f"{path}: no results store here; run the fit of this dataset first") from error
        self.detectors = self.read_labels("maps", "detector")
        self.components = self.read_labels("maps", "component")

    def array(self, name: str) -> "zarr.Array[Any]":
        """An array by its path; raises OutputError where there is none."""
        found = self.members.get(name)
        if not isinstance(found, zarr.Array):
            raise OutputError(f"{self.path}/{name}: missing from the store; remove the store, and run again")
        return found

    def read(self, name: str) -> NDArray[Any]:
        """Read a whole array by its path."""
        return np.asarray(self.array(name)[:])

    def read_labels(self, group: str, name: str) -> tuple[str, ...]:
        """Read the strings of a coordinate."""
        found = self.members.get(group)
        if not isinstance(found, zarr.Group):
            raise OutputError(f"{self.path}/{group}: missing from the store; remove the store, and run again")
        return labels_of(found, name)


def _list_lacking(one: OpenStore, other: OpenStore) -> Iterator[str]:
    yield from (shown_name(name) for name in one.components if name not in other.components)
    yield from (name_detector(name) for name in one.detectors if name not in other.detectors)
    yield from (f"group {name}" for name in _GROUPS if name in one.members and name not in other.members)


def _compare_detectors(first: OpenStore, second: OpenStore, names: Sequence[str]) -> Iterator[DetectorChange]:
    merits = [_read_merits(one) for one in (first, second)]
    amplitudes = [{name: one.read(f"spectrum/{name}") for name in ("amplitude", "sigma")} for one in (first, second)]
    thetas = [_read_theta(one) for one in (first, second)]
    for name in names:
        i, j = first.detectors.index(name), second.detectors.index(name)
        floats = {
            key: (float(merits[0][key][i]), float(merits[1][key][j])) for key in ("r2", "r2_expected", "deviance")
        }
        codes = {key: (int(merits[0][key][i]), int(merits[1][key][j])) for key in ("verdict", "status")}
        maps, pixels, pixels_changed = _compare_maps(first, second, name)
        yield DetectorChange(
            detector=name,
            r2=floats["r2"],
            r2_expected=floats["r2_expected"],
            deviance=floats["deviance"],
            verdict=codes["verdict"],
            status=codes["status"],
            maps=maps,
            pixels=pixels,
            pixels_changed=pixels_changed,
            theta=tuple(_compare_theta(thetas[0], thetas[1], i, j)),
            amplitudes=tuple(
                Change(
                    name=component,
                    unit="count",
                    first=float(amplitudes[0]["amplitude"][i, a]),
                    first_sigma=float(amplitudes[0]["sigma"][i, a]),
                    second=float(amplitudes[1]["amplitude"][j, b]),
                    second_sigma=float(amplitudes[1]["sigma"][j, b]),
                )
                for component, a, b in _list_shared(first, second)
            ),
        )


def _read_merits(store: OpenStore) -> dict[str, NDArray[Any]]:
    """Figures of merit and codes (detector,) by name; a store of an earlier version has no verdict: not judged."""
    merits = {name: store.read(f"spectrum/{name}") for name in ("r2", "r2_expected", "deviance", "status")}
    unjudged = np.full(len(store.detectors), Verdict.NOT_JUDGED)
    return {**merits, "verdict": store.read("spectrum/verdict") if "spectrum/verdict" in store.members else unjudged}


def _list_shared(first: OpenStore, second: OpenStore) -> list[tuple[str, int, int]]:
    return [
        (name, place, second.components.index(name))
        for place, name in enumerate(first.components)
        if name in second.components
    ]


def _read_theta(store: OpenStore) -> dict[str, Any]:
    if "parameters" not in store.members:
        return {"name": (), "unit": (), "value": np.zeros((0, 0)), "sigma": np.zeros((0, 0))}
    labels = {name: store.read_labels("parameters", name) for name in ("name", "unit")}
    return {**labels, **{name: store.read(f"parameters/{name}") for name in ("value", "sigma")}}


def _compare_theta(first: Mapping[str, Any], second: Mapping[str, Any], i: int, j: int) -> Iterator[Change]:
    for a, name in enumerate(first["name"]):
        if name in second["name"]:
            b = second["name"].index(name)
            yield Change(
                name=name,
                unit=first["unit"][a],
                first=float(first["value"][i, a]),
                first_sigma=float(first["sigma"][i, a]),
                second=float(second["value"][j, b]),
                second_sigma=float(second["sigma"][j, b]),
            )


def _compare_maps(
    first: OpenStore, second: OpenStore, detector: str
) -> tuple[tuple[MapChange, ...], dict[str, tuple[int, int]], int]:
    """Maps of a detector, its pixels by outcome, and how many have another one; nothing where the shapes differ."""
    outcomes = [np.asarray(one.array("maps/status")[one.detectors.index(detector)]) for one in (first, second)]
    if outcomes[0].shape != outcomes[1].shape:
        return (), {}, 0
    counts = [np.bincount(one.ravel(), minlength=max(FitStatus) + 1) for one in outcomes]
    words = {
        status.name.lower().replace("_", " "): (int(counts[0][status]), int(counts[1][status]))
        for status in FitStatus
        if counts[0][status] or counts[1][status]
    }
    changes = tuple(_compare_component(name, *maps) for name, maps in read_map_pairs(first, second, detector))
    return changes, words, int((outcomes[0] != outcomes[1]).sum())


def open_pair(first: Path, second: Path) -> tuple[OpenStore, OpenStore]:
    """Open two results stores for `read_map_pairs`.

    Raises:
        OutputError: one of them cannot be read.
    """
    return OpenStore(first), OpenStore(second)


def read_map_pairs(
    first: OpenStore, second: OpenStore, detector: str, *, only: Collection[str] | None = None
) -> Iterator[tuple[str, tuple[FloatArray, FloatArray, FloatArray]]]:
    """Read amplitude and sigma of the first side and amplitude of the second, (y, x), of each component of both.

    Args:
        first: the first store.
        second: the second store.
        detector: name of the detector.
        only: components that are wanted; None: all.
    """
    i, j = first.detectors.index(detector), second.detectors.index(detector)
    shared = [one for one in _list_shared(first, second) if only is None or one[0] in only]
    amplitude, sigma = first.array("maps/amplitude"), first.array("maps/sigma")
    other = second.array("maps/amplitude")
    # A chunk has all components: those that fit into memory are read at once.
    step = max(1, _MAP_BYTES // max(1, math.prod(amplitude.shape[-2:]) * 4))
    for begin in range(0, len(shared), step):
        part = shared[begin : begin + step]
        of_ours = slice(min(a for _, a, _ in part), max(a for _, a, _ in part) + 1)
        of_theirs = slice(min(b for _, _, b in part), max(b for _, _, b in part) + 1)
        blocks = [
            np.asarray(x[k, s]) for x, k, s in ((amplitude, i, of_ours), (sigma, i, of_ours), (other, j, of_theirs))
        ]
        for name, a, b in part:
            values = (blocks[0][a - of_ours.start], blocks[1][a - of_ours.start], blocks[2][b - of_theirs.start])
            yield name, (values[0].astype(np.float64), values[1].astype(np.float64), values[2].astype(np.float64))


def _compare_component(name: str, ours: FloatArray, sigma: FloatArray, theirs: FloatArray) -> MapChange:
    found = compare_component(name, ours, sigma, theirs)
    return MapChange(
        component=name,
        pixels=found.pixels,
        first_counts=found.ours_counts,
        second_counts=found.theirs_counts,
        ratio=found.ratio,
        correlation=found.correlation,
        mean_difference=found.mean_difference,
        in_sigma=found.rms_in_sigma,
    )


def judge_outcome(detectors: Sequence[DetectorChange], limits: Limits) -> tuple[Outcome, tuple[str, ...]]:
    """Say whether a dataset is fitted better or worse than before, and why.

    A detector is better or worse by the outcome of its fit, else by the verdict, else where its deviance changed by
    more than the limit; R2 saturates near 1 and decides nothing.

    Args:
        detectors: of the dataset.
        limits: from where on a deviance counts.
    """
    found = [(one.detector, judged) for one in detectors if (judged := _judge_detector(one, limits)) is not None]
    words = tuple(f"{name_detector(name)}: {why}" for name, (_, why) in found)
    kinds = {better for _, (better, _) in found}
    if not kinds:
        return "same", ()
    if len(kinds) == 2:
        return "mixed", words
    return ("better" if kinds == {True} else "worse"), words


def _judge_detector(one: DetectorChange, limits: Limits) -> tuple[bool, str] | None:
    """Whether a detector is better, and why; None: it is neither better nor worse."""
    solved = [code == FitStatus.CONVERGED for code in one.status]
    if solved[0] != solved[1]:
        return solved[1], "fit {}, was {}".format(*one.status_words()[::-1])
    judged = Verdict.NOT_JUDGED not in one.verdict
    if judged and one.verdict[0] != one.verdict[1]:
        return one.verdict[1] < one.verdict[0], "verdict {}, was {}".format(*one.verdict_words()[::-1])
    before, after = one.deviance
    if not (math.isfinite(before) and math.isfinite(after) and before > 0.0):
        return None
    change = after / before - 1.0
    if abs(change) <= limits.deviance:
        return None
    return change < 0.0, f"deviance {after:.4g}, was {before:.4g}"


def _find_largest(detectors: Sequence[DetectorChange]) -> tuple[float, str]:
    """Largest change in sigma, and of what."""
    best, of = 0.0, ""
    for one in detectors:
        place = name_detector(one.detector)
        values = [(c.in_sigma, f"{c.name}, {place}") for c in one.theta]
        values += [(c.in_sigma, f"{shown_name(c.name)} of the integrated spectrum, {place}") for c in one.amplitudes]
        values += [(c.in_sigma, f"map of {shown_name(c.component)}, {place}") for c in one.maps]
        for value, name in values:
            if value > best:
                best, of = value, name
    return best, of


def _compare_versions(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Versions, processors and constants; of stores of earlier versions what they say of them."""
    told = [_list_versions(one) for one in (first, second)]
    for name in dict.fromkeys([*told[0], *told[1]]):
        values = [str(one.get(name, "not recorded")) for one in told]
        if values[0] != values[1]:
            yield name, values[0], values[1]


def _list_versions(root: Mapping[str, Any]) -> dict[str, Any]:
    provenance = root.get("provenance", {})
    plain = {
        "hpcxrf": root.get("hpcxrf_version", ""),
        "torch": str(root.get("torch_version", "")).partition("+")[0],
        "line table": root.get("line_table", ""),
    }
    return {**plain, **provenance.get("environment", {}), **provenance.get("constants", {})}


def _compare_options(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    plain = [rename_old_options(one.get("configuration") or {}) for one in (first, second)]
    for key, old, new in compare_configurations(plain[0], plain[1]):
        if key != _FILES:
            yield key, old, new
