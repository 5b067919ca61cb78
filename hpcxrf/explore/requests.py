"""Requests for fits by eye, checked before anything is fitted: every fault at once, each with its remedy."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

from hpcxrf.errors import ConfigError, FitError
from hpcxrf.physics.components import parse_component, unexcited_reason
from hpcxrf.physics.element_list import read_element_list
from hpcxrf.physics.parameters import PARAMETERS, Parameter
from hpcxrf.physics.scatter_names import SCATTER
from hpcxrf.pipeline.prepare.theta import Bounds, find_theta_faults
from hpcxrf.results.names import SUM

Kind = Literal["amplitudes", "full"]

_KEYS: Final = ("detector", "selection", "elements", "kind", "theta", "focus", "parent", "keep")
_MODES: Final = ("fit", "fix")
_NUMBERS: Final = ("value", "lower", "upper")
_WHOLE: Final = "all"
_SHOWN: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What a request is checked against: the fit of a run, as its store keeps it."""

    detectors: tuple[str, ...]
    """Names of the detectors that have an integrated fit, `sum` among them where there is one."""
    members: tuple[int, ...]
    """Numbers of the detectors that the sum is made of."""
    elements: tuple[str, ...]
    scatter: tuple[str, ...]
    """Scatter components of the fit."""
    incident_energy_kev: float
    """Nominal energy of the beam; of a tube that is described its high voltage."""
    reach_kev: float
    """By how much more the energy may be; 0 for a tube."""
    width_factor: float
    """Factor of the width law of the run's constants."""
    parameters: Mapping[str, tuple[Mapping[str, Any], ...]]
    """Rows of theta by detector: name, unit, value, sigma, initial, lower, upper, free, at_bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitRequest:
    """One fit that is asked for."""

    detector: str
    selection: Mapping[str, Any]
    """Pixels, as the server read them."""
    elements: tuple[str, ...]
    kind: Kind = "full"
    values: Mapping[str, float]
    """Theta by name: held, or where the search begins."""
    fixed: tuple[str, ...] = ()
    free: tuple[str, ...] = ()
    bounds: Mapping[str, Bounds]
    """Bounds that differ from those of the run."""
    focus: tuple[str, ...] | None = None
    parent: str | None = None
    keep: bool = False

    @property
    def is_whole(self) -> bool:
        """True where the counts are those that the run fitted."""
        return self.selection.get("kind") == _WHOLE


def read_request(raw: object, facts: RunFacts) -> FitRequest:
    """Read a request for a fit.

    Args:
        raw: JSON of the page.
        facts: what the run has.

    Raises:
        ConfigError: every fault of the request.
    """
    if not isinstance(raw, Mapping):
        raise ConfigError("a fit is asked for by an object; give detector, selection, elements, kind and theta")
    faults = [f"{str(key)[:_SHOWN]!r} is not a part of a request; leave it out" for key in raw if key not in _KEYS]
    detector = raw.get("detector", facts.detectors[0])
    if detector not in facts.detectors:
        shown = str(detector)[:_SHOWN]
        raise ConfigError(f"{shown!r} is not a fitted detector; choose {' or '.join(facts.detectors)}")
    kind, selection = raw.get("kind", "full"), raw.get("selection", {"kind": _WHOLE})
    if kind not in get_args(Kind):
        faults.append(f"kind is {str(kind)[:_SHOWN]!r}; give 'amplitudes' or 'full'")
    if not isinstance(selection, Mapping):
        faults.append("selection is not an object; give one with a kind, such as 'all'")
    elements = _read_elements(raw.get("elements"), facts, faults)
    request = FitRequest(
        detector=detector,
        selection=selection if isinstance(selection, Mapping) else {},
        elements=elements,
        kind=kind,
        values={},
        bounds={},
        focus=_read_focus(raw.get("focus"), detector, elements, facts, faults),
        parent=_read_parent(raw.get("parent"), faults),
        keep=raw.get("keep") is True,
    )
    request = _read_theta(raw.get("theta") or {}, request, facts, faults)
    if faults:
        raise ConfigError("; ".join(dict.fromkeys(faults)))
    return request


def _read_elements(raw: object, facts: RunFacts, faults: list[str]) -> tuple[str, ...]:
    if raw is None:
        return facts.elements
    given = _list_names(raw)
    if given is None:
        faults.append("elements is not a list of names; give families such as Si, Fe, Pt_L")
        return facts.elements
    names = [name for name in given if name not in SCATTER]
    if not names:
        faults.append("elements is empty; choose at least one")
        return facts.elements
    try:
        read = read_element_list(names).names
    except FitError as error:
        faults.append(str(error))
        return facts.elements
    # What the run was fitted with it has decided itself, edges near the incident energy included.
    new = [name for name in read if name not in facts.elements]
    faults += [reason for name in new if (reason := find_unexcited(name, facts))]
    return read


def find_unexcited(name: str, facts: RunFacts) -> str | None:
    """Say why the beam of a run excites no line of a component, and what to do; None where it does."""
    for family in parse_component(name).families:
        reason = unexcited_reason(*family, facts.incident_energy_kev, facts.reach_kev)
        if reason:
            return reason
    return None


def _read_focus(
    raw: object, detector: str, elements: Sequence[str], facts: RunFacts, faults: list[str]
) -> tuple[str, ...] | None:
    if raw is None or raw == []:
        return None
    given = _list_names(raw)
    if given is None:
        faults.append("focus is not a list of names; give components of the fit")
        return None
    names = tuple(dict.fromkeys(given))
    known = (*elements, *facts.scatter)
    faults += [f"focus: {name} is not a component of the fit; add it first" for name in names if name not in known]
    if detector == SUM:
        faults.append("focus: the sum has no theta of its own to hold; choose a detector")
    return names


def _read_parent(raw: object, faults: list[str]) -> str | None:
    if raw is None or isinstance(raw, str):
        return raw
    faults.append("parent is not the id of a fit; leave it out")
    return None


def _read_theta(raw: object, request: FitRequest, facts: RunFacts, faults: list[str]) -> FitRequest:
    stored = {str(row["name"]): row for row in facts.parameters[request.detector]}
    if not isinstance(raw, Mapping):
        faults.append("theta is not an object; give mode, value, lower and upper by name of the parameter")
        return request
    rows = _read_rows(raw, stored, faults)
    values = {name: float(row["value"]) for name, row in rows.items() if row.get("value") is not None}
    modes = {name: row.get("mode") for name, row in rows.items()}
    bounds: dict[str, Bounds] = {
        name: ends for name, row in rows.items() if (ends := _read_bounds(row, stored[name])) != (None, None)
    }
    fixed = tuple(name for name, mode in modes.items() if mode == "fix")
    free = tuple(name for name, mode in modes.items() if mode == "fit")
    faults += find_theta_faults(values, fixed, free, bounds, build_rows(facts.parameters[request.detector]))
    if request.detector == SUM:
        moved = [name for name, value in values.items() if value != stored[name]["value"]]
        if moved := list(dict.fromkeys([*moved, *bounds])):
            faults.append(
                f"{', '.join(moved)}: theta of the sum is the mean of its detectors; choose a detector to change it"
            )
    return replace(request, values=values, fixed=fixed, free=free, bounds=bounds)


def _read_rows(
    raw: Mapping[Any, Any], stored: Mapping[str, Mapping[str, Any]], faults: list[str]
) -> dict[str, Mapping[str, Any]]:
    """The sound rows of the table by name; the faults of all others are added."""
    rows: dict[str, Mapping[str, Any]] = {}
    for name, row in raw.items():
        shown = str(name)[:_SHOWN]
        if name not in stored:
            faults.append(f"no parameter is called {shown}; there are {', '.join(stored)}")
        elif not isinstance(row, Mapping):
            faults.append(f"{shown}: is not an object; give mode, value, lower and upper")
        elif (fault := _find_row_fault(shown, row)) is not None:
            faults.append(fault)
        else:
            rows[name] = row
    return rows


def _read_bounds(row: Mapping[str, Any], stored: Mapping[str, Any]) -> Bounds:
    """Bounds of a row that differ from those of the run."""
    return _changed_end(row.get("lower"), stored["lower"]), _changed_end(row.get("upper"), stored["upper"])


def _changed_end(end: float | None, known: float | None) -> float | None:
    """A bound; None where it is that of the run, or not given."""
    return None if end is None or end == known else float(end)


def _find_row_fault(name: str, row: Mapping[str, Any]) -> str | None:
    if row.get("mode") not in {None, *_MODES}:
        return f"{name}: mode is {str(row['mode'])[:_SHOWN]!r}; give 'fit' or 'fix'"
    wrong = [key for key in _NUMBERS if row.get(key) is not None and not _is_number(row[key])]
    if wrong:
        return f"{name}: {' and '.join(wrong)} must be a number"
    return None


def build_rows(stored: Sequence[Mapping[str, Any]]) -> tuple[Parameter, ...]:
    """Rows of theta with the bounds and the freedom that a fit had."""
    table = {p.name: p for p in PARAMETERS}
    return tuple(
        replace(
            table[row["name"]],
            value=row["value"],
            lower=_choose(row["lower"], table[row["name"]].lower),
            upper=_choose(row["upper"], table[row["name"]].upper),
            free=bool(row["free"]),
        )
        for row in stored
    )


def _choose(value: float | None, otherwise: float) -> float:
    return otherwise if value is None or not math.isfinite(value) else value


def _list_names(raw: object) -> list[str] | None:
    """Names of a list; None: it is not a list of names."""
    names = [name for name in raw if isinstance(name, str)] if isinstance(raw, list | tuple) else []
    return names if isinstance(raw, list | tuple) and len(names) == len(raw) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
