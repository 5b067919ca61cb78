"""What a user takes along: an override file, a run file or its lines, regions as a table; and the commands beside it.

Nothing is written here: the texts go to the browser, which saves them.
"""

import csv
import dataclasses
import io
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hpcxrf.config.run import check_config
from hpcxrf.config.untrusted import show_name
from hpcxrf.errors import ConfigError
from hpcxrf.explore.given import dump_sections, list_given, strip_values
from hpcxrf.explore.requests import FitRequest
from hpcxrf.explore.run_facts import OpenedRun
from hpcxrf.fitting.spectrum.theta import AXIS, INCIDENT
from hpcxrf.formats.override import OVERRIDE_NAME, make_override
from hpcxrf.physics.components import parse_component
from hpcxrf.physics.parameters import PARAMETERS
from hpcxrf.results.export.cells import escape_cell
from hpcxrf.results.names import SUM
from hpcxrf.store.rundir import RunDir

Json = dict[str, Any]
Corners = list[list[float]]

_KINDS: Final = ("override", "run_file", "section", "regions")
_THETA: Final = ("needed", "all", "none")
_SHOWN: Final = 40
_SELECTION: Final = "selection"
"""Name of the region that a selection becomes in a command."""


def write_fit(request: Mapping[str, Any], fit: Mapping[str, Any] | None, opened: OpenedRun) -> Json:
    """Write one text.

    Args:
        request: kind (`override`, `run_file`: a whole new run file, `section`: its changed lines, `regions`: a CSV of
            their corners), regions: [{name, polygon: [[y, x], ...]}], theta: which of it is a start (`needed`: what was
            held or moved by hand, so that a run gives the fit of the explorer; `all`: every fitted value, for other
            scans; `none`).
        fit: the fit that it is of; None: elements and theta are those of the run.
        opened: the run.

    Returns:
        `file_name`, `text`, and `command`, which uses the file.

    Raises:
        ConfigError: every fault of the request.
    """
    kind = request.get("kind")
    if kind not in _KINDS:
        raise ConfigError(f"kind is {str(kind)[:_SHOWN]!r}; give {', '.join(_KINDS)}")
    regions = read_regions(request.get("regions"))
    if kind == "override":
        return write_override_text(fit, opened)
    if kind == "regions":
        return write_regions_text(regions, opened)
    theta = request.get("theta", "needed")
    if theta not in _THETA:
        raise ConfigError(f"theta is {str(theta)[:_SHOWN]!r}; give {', '.join(_THETA)}")
    sections = build_sections(fit, regions, opened, theta)
    if kind == "section":
        text = _explain(fit, opened) + dump_sections(sections)
        name = f"{opened.dataset_id}-changes.yaml"
        command = f"hpcxrf run {_run_file(opened)} {_set(sections)} -o {opened.run_dir.name}-2"
        return {"file_name": name, "text": text, "command": command}
    return write_run_file(sections, fit, opened)


def read_regions(raw: object) -> dict[str, Corners]:
    """Regions of a request as polygons by name.

    Raises:
        ConfigError: every fault.
    """
    if raw is None:
        return {}
    if not isinstance(raw, Sequence) or isinstance(raw, str):
        raise ConfigError("regions is not a list; give [{name, polygon}]")
    found: dict[str, Corners] = {}
    faults = []
    for one in raw:
        name = one.get("name") if isinstance(one, Mapping) else None
        corners = _read_corners(one.get("polygon")) if isinstance(one, Mapping) else None
        if not isinstance(name, str) or not name.strip():
            faults.append("a region has no name; give each a name")
        elif corners is None:
            faults.append(f"region {name[:_SHOWN]!r}: polygon must be at least 3 corners [y, x]; draw it again")
        elif name in found:
            faults.append(f"two regions are called {name[:_SHOWN]!r}; give each its own name")
        else:
            found[name] = corners
    if faults:
        raise ConfigError("; ".join(dict.fromkeys(faults)))
    return found


def _read_corners(raw: object) -> Corners | None:
    if not isinstance(raw, Sequence) or isinstance(raw, str) or len(raw) < 3:
        return None
    corners = [[float(number) for number in one] for one in raw if _is_point(one)]
    return corners if len(corners) == len(raw) else None


def _is_point(one: object) -> bool:
    return (
        isinstance(one, Sequence)
        and len(one) == 2
        and all(isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in one)
    )


def write_override_text(fit: Mapping[str, Any] | None, opened: OpenedRun) -> Json:
    """An override file of MAPS with the theta of a fit; every number reads back to the last bit.

    Raises:
        ConfigError: no fit is given.
    """
    if fit is None:
        raise ConfigError("an override file is that of a fit; choose one of the history, or fit first")
    detector = fit["detector"]
    name = OVERRIDE_NAME if detector == SUM or opened.n_detectors == 1 else f"{OVERRIDE_NAME}{detector}"
    families = [one for one in fit["elements"] if parse_component(one).kind != "pileup"]
    override = make_override(
        Path(name),
        theta={row["name"]: row["value"] for row in fit["parameters"]},
        elements=families,
        pileup=[one for one in fit["elements"] if one not in families],
        width_law=opened.facts.width_factor,
        title=f"{opened.attributes.get('title', opened.dataset_id)}, detector {detector}, fit {fit['id']}",
    )
    command = f"hpcxrf run {_run_file(opened)} --override {name} -o out"
    if opened.n_detectors > 1:
        # One that is named is that of all detectors; beside the scan each has its own.
        folder = shlex.quote(str(Path(opened.attributes["source_files"][0]["path"]).parent))
        command = f"mv {name} {folder} && hpcxrf run {_run_file(opened)} -o out"
    return {"file_name": name, "text": "".join(override.lines), "command": command}


def write_regions_text(regions: Mapping[str, Corners], opened: OpenedRun) -> Json:
    """A table of the corners of the regions, every cell safe for a spreadsheet.

    Raises:
        ConfigError: there is no region.
    """
    if not regions:
        raise ConfigError("no region is drawn; draw one first")
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(("region", "corner", "y", "x"))
    for name, corners in regions.items():
        for number, (y, x) in enumerate(corners, start=1):
            writer.writerow([escape_cell(cell) for cell in (name, number, y, x)])
    command = f"hpcxrf run {_run_file(opened)} {_set({'regions': {'polygons': dict(regions)}})} -o out"
    return {"file_name": f"{opened.dataset_id}-regions.csv", "text": stream.getvalue(), "command": command}


def build_sections(
    fit: Mapping[str, Any] | None, regions: Mapping[str, Corners], opened: OpenedRun, theta: str = "needed"
) -> dict[str, dict[str, Any]]:
    """The lines of a run file that a fit and drawn regions change.

    Of a scan with several detectors the energy axis stays out of `fit.start`, since each has its own; of a sum, whose
    theta is a mean, all of it. A start is the mean of a prior: fitted values that nobody moved are better left to the
    run, which finds them again.
    """
    sections: dict[str, dict[str, Any]] = {}
    if fit is not None:
        sections["sample"] = {"elements": list(fit["elements"])}
        changed = _build_fit_section(fit, opened, theta) if fit["detector"] != SUM and theta != "none" else {}
        if changed:
            sections["fit"] = changed
    if regions:
        sections["regions"] = {"polygons": {name: [list(one) for one in corners] for name, corners in regions.items()}}
    return sections


def _build_fit_section(fit: Mapping[str, Any], opened: OpenedRun, theta: str) -> dict[str, Any]:
    config = opened.config.fit
    stored = {row["name"]: row for row in opened.facts.parameters[fit["detector"]]}
    beside = {INCIDENT} if opened.facts.reach_kev == 0.0 else set()
    if opened.n_detectors > 1:
        beside |= {*AXIS, INCIDENT}
    rows = [row for row in fit["parameters"] if row["name"] not in beside and row["value"] is not None]
    by_hand = fit.get("start", {})
    moved = [
        row
        for row in rows
        if (row["free"] and (theta == "all" or row["name"] in by_hand)) or (not row["free"] and _is_held(row, stored))
    ]
    start = {**config.start, **{row["name"]: row["value"] for row in moved}}
    table = {p.name: p.free for p in PARAMETERS}
    held = [row["name"] for row in rows if not row["free"] and (stored[row["name"]]["free"] or table[row["name"]])]
    freed = [row["name"] for row in rows if row["free"] and not table[row["name"]]]
    now_free = {row["name"] for row in rows if row["free"]}
    fixed = list(dict.fromkeys([*(name for name in config.fixed if name not in now_free), *held]))
    free = list(dict.fromkeys([*(name for name in config.free if name not in held), *freed]))
    bounds = {
        row["name"]: {"lower": row["lower"], "upper": row["upper"]}
        for row in rows
        if row["free"] and (row["lower"], row["upper"]) != _ends(stored[row["name"]])
    }
    section: dict[str, Any] = {"start": start, "fixed": fixed, "free": free}
    if bounds:
        kept = {name: strip_values(dataclasses.asdict(row)) for name, row in config.parameters.items()}
        section["parameters"] = {**kept, **{name: {**kept.get(name, {}), **ends} for name, ends in bounds.items()}}
    if config.calibration == "none" and set(start) & set(AXIS):
        section["calibration"] = "auto"
    return {key: value for key, value in section.items() if value}


def _is_held(row: Mapping[str, Any], stored: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a parameter is held by hand: fitted in the run, or held there at another value."""
    before = stored[row["name"]]
    return bool(before["free"]) or row["value"] != before["value"]


def _ends(row: Mapping[str, Any]) -> tuple[float | None, float | None]:
    return row["lower"], row["upper"]


def write_run_file(sections: Mapping[str, Any], fit: Mapping[str, Any] | None, opened: OpenedRun) -> Json:
    """A whole new run file: what the run was given, with the changed lines; its paths are absolute.

    Raises:
        ConfigError: the result is not a valid run file, as where a region has the name of another one.
    """
    raw = list_given(opened.config)
    for section, values in sections.items():
        before = raw.get(section, {})
        if section == "regions" and "polygons" in before:
            doubled = sorted(set(before["polygons"]) & set(values["polygons"]))
            if doubled:
                raise ConfigError(f"the run has a region {', '.join(doubled)} already; give yours another name")
            values = {"polygons": {**before["polygons"], **values["polygons"]}}  # noqa: PLW2901
        raw[section] = {**before, **values}
    name = f"{opened.dataset_id}-new.yaml"
    check_config(raw, name)
    text = _explain(fit, opened) + dump_sections(raw)
    output = f"{opened.dataset_id}-new-run"
    command = f"hpcxrf plan {name} && hpcxrf run {name} -o {output}"
    return {"file_name": name, "text": text, "command": command}


def _explain(fit: Mapping[str, Any] | None, opened: OpenedRun) -> str:
    """Comments at the head of a run file: where it comes from, and what it leaves out."""
    said = [f"Made by hpcxrf explore from the run {show_name(str(opened.run_dir))}, dataset {opened.dataset_id}"]
    if fit is not None:
        said[0] += f", fit {fit['id']} of detector {fit['detector']}"
        if fit["detector"] == SUM:
            said.append("theta of the sum is the mean of its detectors: each starts as in the run")
        elif opened.n_detectors > 1:
            said.append(
                f"what is held or started here was fitted to detector {fit['detector']}, and is for all of them"
            )
            said.append("the energy axis is left out of fit.start: each detector has its own")
        if fit.get("focus"):
            said.append("amplitudes of a focus are not part of a run file; a run fits all components together")
    return "".join(f"# {line}\n" for line in said)


def describe_command(opened: OpenedRun, request: FitRequest) -> str:
    """The line that does what a request asks for: a command, or the call of the library."""
    stored = {row["name"]: row for row in opened.facts.parameters[request.detector]}
    moved = {n: v for n, v in request.values.items() if v != stored[n]["value"] and request.detector != SUM}
    if request.focus:
        return f"hpcxrf.fit_amplitudes(counts, fit, only={list(request.focus)!r})"
    if request.kind == "amplitudes":
        return f"hpcxrf.fit_amplitudes(counts, fit, theta={moved!r})"
    sections: dict[str, dict[str, Any]] = {}
    if set(request.elements) != set(opened.facts.elements):
        sections["sample"] = {"elements": list(request.elements)}
    fit: dict[str, Any] = {
        "start": moved,
        "fixed": [name for name in request.fixed if stored[name]["free"]],
        "free": [name for name in request.free if not stored[name]["free"]],
        "parameters": {
            name: strip_values({"lower": lower, "upper": upper}) for name, (lower, upper) in request.bounds.items()
        },
    }
    if any(fit.values()):
        sections["fit"] = {key: value for key, value in fit.items() if value}
    if (regions := _describe_selection(request.selection)) is not None:
        sections["regions"] = regions
    return " ".join(filter(None, ("hpcxrf run", _run_file(opened), _set(sections), "-o out")))


def _describe_selection(selection: Mapping[str, Any]) -> dict[str, Any] | None:
    """Pixels as regions of a run file; None: all, a region that the run has, or what a run file has no words for."""
    kind = selection.get("kind")
    if kind == "pixel":
        y, x = selection["y"], selection["x"]
        return {"rectangles": {_SELECTION: [y, y + 1, x, x + 1]}}
    if kind == "box":
        return {"rectangles": {_SELECTION: [*selection["y"], *selection["x"]]}}
    if kind == "polygon":
        return {"polygons": {_SELECTION: [list(point) for point in selection["points"]]}}
    if kind == "threshold" and selection.get("layer") == "amplitude":
        ends = {"above": selection.get("low"), "below": selection.get("high")}
        return {"thresholds": {_SELECTION: {"component": selection["component"], **strip_values(ends)}}}
    return None


def _set(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Options `--set section.key=value`; JSON is YAML, and a shell takes it in quotes."""
    return " ".join(
        f"--set {shlex.quote(f'{section}.{key}={json.dumps(value)}')}"
        for section, values in sections.items()
        for key, value in values.items()
    )


def _run_file(opened: OpenedRun) -> str:
    run = RunDir(path=opened.run_dir)
    file = run.configuration_file if run.configuration_file.is_file() else run.run_file
    return shlex.quote(str(file))
