"""The line table: what every component emits, in flat tensors, from xraylib at the incident energy."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import xraylib
from torch import Tensor

from hpcxrf.errors import FitError
from hpcxrf.physics.branching import Branching, kbeta_correction, line_multiplier
from hpcxrf.physics.components import HIGHEST_INCIDENT_KEV, Component, find_emitted_lines, is_excited, parse_components
from hpcxrf.physics.detector import (
    HIGHEST_KEV,
    LOWEST_KEV,
    Detector,
    absorption_per_um,
    escape_photons,
    escape_probability,
)
from hpcxrf.physics.detector import efficiency as efficiency_of

# A detector's sigma is 40 eV at least: lines that differ by 5 eV are one to 2e-3 of its width. Escape and
# pile-up peaks are faint, and may be coarser.
MERGE_KEV: Final = 0.005
ESCAPE_MERGE_KEV: Final = 0.02
ESCAPE_MINIMUM_RATIO: Final = 5e-4
PILEUP_MERGE_KEV: Final = 0.01
PILEUP_MINIMUM_RATIO: Final = 0.02
TABLE_VERSION: Final = f"xraylib {xraylib.__version__}, M yields and rates corrected"
"""Source of the tables of `build_line_table`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineTable:
    """Lines of all fluorescence, pile-up and user components, flat. L lines, C components."""

    component_names: tuple[str, ...]
    """C names: "Fe", "Pt_L", "Au_M", "Si_Cl" (pile-up)."""
    component: Tensor
    """(L,) int64, index into component_names."""
    energy_kev: Tensor
    """(L,) float64."""
    ratio: Tensor
    """(L,) float64; sums to 1 over a component's lines, escape lines included, so that the amplitude is all that
    is recorded of the family."""
    edge_kev: Tensor
    """(L,) float64, subshell edge; 0 for pile-up and user lines, which are never switched off."""
    is_kbeta: Tensor
    """(L,) bool, takes the K-beta tail."""
    has_tail: Tensor
    """(L,) bool: pile-up False; in parity tables M lines too, as MAPS gives them none."""
    escape_parent: Tensor
    """(L,) int64: -1, or the index of the parent line of an escape line, whose ratio is the parent's ratio
    times the escape probability (the kernel multiplies it by theta's escape_factor)."""
    mu_per_um: Tensor
    """(L,) float64: absorption coefficient of the detector material at the line, 1/um: the share of photons
    stopped near the entrance, on which step (mu * (step_offset + step_linear * E)) and f_tail_linear act.
    MAPS's mu_fraction takes its place in parity tables; 0 for pile-up and user lines; an escape line has its
    parent's."""
    incident_energy_kev: float
    table_version: str
    """Source of the table, for example "xraylib 4.3.0, M yields and rates corrected"."""


class _Line(NamedTuple):
    energy_kev: float
    ratio: float
    edge_kev: float = 0.0
    is_kbeta: bool = False
    has_tail: bool = False
    mu_per_um: float = 0.0
    is_kalpha: bool = False
    escape_parent: int = -1


def build_line_table(
    components: Sequence[str],
    incident_energy_kev: float,
    *,
    efficiency: Detector,
    user_lines: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    branching: Branching | None = None,
    escape: bool = True,
    minimum_ratio: float = 1e-4,
    reach_kev: float = 0.0,
    unexcited: Collection[str] = (),
) -> LineTable:
    """Lines of every component as the detector records them.

    A family's ratios are its fluorescence cross-sections at the incident energy (xraylib
    `CS_FluorLine_Kissel`: photoelectric partial cross-sections of every subshell, with the full cascade from
    inner vacancies) times the detector's efficiency at the line. Lines whose own subshell the incident
    energy cannot ionise are left out, by that rule and not by name. Pile-up pairs every two strong lines of
    its families and is not limited by the incident energy; nothing is known of its height.

    Args:
        components: names as of `components.parse_component`, in the order of the columns.
        incident_energy_kev: 0.1 to 200 keV.
        efficiency: the detector.
        user_lines: by component name, (energy_kev, ratio) of lines as recorded.
        branching: adjustments of the ratios, none by default.
        escape: append the escape lines of the detector material.
        minimum_ratio: lines weaker than this share of their family are left out.
        reach_kev: a component that needs up to so much more incident energy has the lines of that energy, which are
            never switched off: whether it is excited is not known yet.
        unexcited: names that keep their place without a line.

    Raises:
        FitError: names that mean nothing, come twice, or that the incident energy cannot excite: all of them
            in one message.
    """
    if not LOWEST_KEV < incident_energy_kev <= HIGHEST_INCIDENT_KEV:
        raise FitError(
            f"incident energy is {incident_energy_kev:g} keV, must lie between {LOWEST_KEV:g} and "
            f"{HIGHEST_INCIDENT_KEV:g} keV"
        )
    users = dict(user_lines or {})
    parsed = parse_components(components, incident_energy_kev, users, reach_kev=reach_kev, unexcited=unexcited)
    context = _Context(
        incident_energy_kev=incident_energy_kev,
        setup=efficiency,
        branching=branching or Branching(),
        minimum_ratio=minimum_ratio,
    )
    per_component = [() if c.name in unexcited else _build_near_lines(c, users, context, reach_kev) for c in parsed]
    if escape:
        per_component = [
            lines if c.kind == "pileup" or not lines else _add_escape_lines(lines, context.setup)
            for c, lines in zip(parsed, per_component, strict=True)
        ]
    return _assemble([c.name for c in parsed], per_component, incident_energy_kev)


def build_table_from_arrays(
    *,
    component_names: Sequence[str],
    component: npt.ArrayLike,
    energy_kev: npt.ArrayLike,
    ratio: npt.ArrayLike,
    incident_energy_kev: float,
    edge_kev: npt.ArrayLike = 0.0,
    is_kbeta: npt.ArrayLike = False,
    has_tail: npt.ArrayLike = True,
    mu_per_um: npt.ArrayLike = 0.0,
    escape_parent: npt.ArrayLike = -1,
    table_version: str = "given",
) -> LineTable:
    """Build a line table from arrays, ratios unchanged: parity with a program's own table.

    MAPS states ratios relative to the first line, so that its amplitude is the counts of K-alpha-1 alone; a
    table of this module sums to 1, and its amplitude is the counts of the family.

    Args:
        component_names: (C,) names.
        component: (L,) index into component_names.
        energy_kev: (L,) or scalar, as all that follow.
        ratio: at least 0, not normalised.
        incident_energy_kev: keV.
        edge_kev: subshell edges; 0 for lines that are never switched off.
        is_kbeta: takes the K-beta tail.
        has_tail: has a tail.
        mu_per_um: absorption coefficient, or MAPS's mu_fraction.
        escape_parent: -1, or the index of the parent.
        table_version: what to record as its source.

    Raises:
        FitError: lengths that differ, indices out of range, energies or ratios that no line can have.
    """
    index = np.atleast_1d(np.asarray(component, dtype=np.int64))
    values = {
        "energy_kev": np.asarray(energy_kev, dtype=np.float64),
        "ratio": np.asarray(ratio, dtype=np.float64),
        "edge_kev": np.asarray(edge_kev, dtype=np.float64),
        "is_kbeta": np.asarray(is_kbeta, dtype=np.bool_),
        "has_tail": np.asarray(has_tail, dtype=np.bool_),
        "mu_per_um": np.asarray(mu_per_um, dtype=np.float64),
        "escape_parent": np.asarray(escape_parent, dtype=np.int64),
    }
    faults = _check_arrays(len(component_names), index, values)
    if faults:
        raise FitError("line table: " + "; ".join(faults))
    tensors = {name: torch.tensor(np.broadcast_to(v, index.shape).copy()) for name, v in values.items()}
    return LineTable(
        component_names=tuple(component_names),
        component=torch.tensor(index),
        incident_energy_kev=incident_energy_kev,
        table_version=table_version,
        **tensors,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Context:
    incident_energy_kev: float
    setup: Detector
    branching: Branching
    minimum_ratio: float


def _check_arrays(n_components: int, index: npt.NDArray[np.int64], values: Mapping[str, npt.NDArray[Any]]) -> list[str]:
    faults = [
        f"{name} has shape {v.shape}, must be {index.shape} or a scalar"
        for name, v in values.items()
        if v.shape not in {(), index.shape}
    ]
    if index.size and not 0 <= index.min() <= index.max() < n_components:
        faults.append(f"component reaches {index.max()}, must lie in 0..{n_components - 1}")
    if not bool(np.all((values["energy_kev"] > 0.0) & np.isfinite(values["energy_kev"]))):
        faults.append("energy_kev must be finite and above 0; leave lines without energy out")
    if not bool(np.all((values["ratio"] >= 0.0) & np.isfinite(values["ratio"]))):
        faults.append("ratio must be finite and 0 or more")
    return faults


def _build_near_lines(
    component: Component, users: Mapping[str, Sequence[tuple[float, float]]], context: _Context, reach_kev: float
) -> tuple[_Line, ...]:
    """Lines of a component, also where it needs a little more incident energy: then without the switch of an edge."""
    if reach_kev <= 0.0 or is_excited(component, context.incident_energy_kev):
        return _build_component_lines(component, users, context)
    highest = min(context.incident_energy_kev + reach_kev, HIGHEST_INCIDENT_KEV)
    lines = _build_component_lines(component, users, replace(context, incident_energy_kev=highest))
    return tuple(line._replace(edge_kev=0.0) for line in lines)


def _build_component_lines(
    component: Component, users: Mapping[str, Sequence[tuple[float, float]]], context: _Context
) -> tuple[_Line, ...]:
    if component.kind == "user":
        return _build_user_lines(component.name, users[component.name])
    # Detectors and regions of a scan ask for the same lines; adjusted ratios are too rare to be remembered.
    plain = context.branching == Branching()
    families = [
        _find_plain_lines(*family, context.incident_energy_kev, context.setup, context.minimum_ratio)
        if plain
        else _build_family_lines(*family, context)
        for family in component.families
    ]
    if component.kind == "pileup":
        return _build_pileup_lines(*families)
    return families[0]


@lru_cache(maxsize=4096)
def _find_plain_lines(
    symbol: str, shell: str, incident_energy_kev: float, setup: Detector, minimum_ratio: float
) -> tuple[_Line, ...]:
    """Lines of a family without adjustments."""
    context = _Context(
        incident_energy_kev=incident_energy_kev, setup=setup, branching=Branching(), minimum_ratio=minimum_ratio
    )
    return _build_family_lines(symbol, shell, context)


def _build_user_lines(name: str, given: Sequence[tuple[float, float]]) -> tuple[_Line, ...]:
    bad = [f"({e:g}, {r:g})" for e, r in given if not (LOWEST_KEV <= e <= HIGHEST_KEV and r > 0.0)]
    if bad or not given:
        raise FitError(
            f"{name}: user lines {', '.join(bad) or 'are missing'}; give (energy in keV from "
            f"{LOWEST_KEV:g} to {HIGHEST_KEV:g}, ratio above 0)"
        )
    return _normalise([_Line(energy_kev=e, ratio=r, has_tail=True) for e, r in given])


def _build_family_lines(symbol: str, shell: str, context: _Context) -> tuple[_Line, ...]:
    z = xraylib.SymbolToAtomicNumber(symbol)
    emitted = find_emitted_lines(z, shell, context.incident_energy_kev)
    lines = [
        _Line(
            energy_kev=energy,
            ratio=recorded,
            edge_kev=xraylib.EdgeEnergy(z, getattr(xraylib, f"{'K' if name[0] == 'K' else name[:2]}_SHELL")),
            is_kbeta=name[0] == "K" and name[1] != "L",
            has_tail=True,
            mu_per_um=_find_absorption(energy, context.setup),
            is_kalpha=name.startswith("KL"),
        )
        for (name, energy, _), recorded in zip(emitted, _compute_strengths(symbol, emitted, context), strict=True)
    ]
    if not any(line.ratio for line in lines):
        raise FitError(f"{symbol}: every {shell} line is absorbed or multiplied by 0; remove it")
    strong = [x for x in _normalise(lines) if x.ratio >= context.minimum_ratio]
    return _normalise(_merge(strong, MERGE_KEV))


def _compute_strengths(symbol: str, emitted: Sequence[tuple[str, float, float]], context: _Context) -> list[float]:
    """Strengths of the lines as the detector records them, on any scale, with the adjustments of the ratios."""
    seen = _find_recorded(tuple(energy for _, energy, _ in emitted), context.setup)
    plain = [(name, strength * float(share)) for (name, _, strength), share in zip(emitted, seen, strict=True)]
    correction = kbeta_correction(symbol, plain, context.branching)
    return [
        value * line_multiplier(symbol, name, context.branching) * (correction if name.startswith("KM") else 1.0)
        for name, value in plain
    ]


# Lines have their energies whatever excites them: what the detector makes of them is the same in every table.
_find_recorded: Final = lru_cache(maxsize=4096)(efficiency_of)
_find_escaping: Final = lru_cache(maxsize=4096)(escape_probability)
_find_absorption: Final = lru_cache(maxsize=8192)(absorption_per_um)


@lru_cache(maxsize=1024)
def _build_pileup_lines(first: tuple[_Line, ...], second: tuple[_Line, ...]) -> tuple[_Line, ...]:
    """Sums of every two lines; those closer than the detector resolves become one line."""
    pairs = [
        _Line(energy_kev=a.energy_kev + b.energy_kev, ratio=a.ratio * b.ratio)
        for a in first
        for b in second
        if min(a.ratio, b.ratio) >= PILEUP_MINIMUM_RATIO
    ]
    merged = _normalise(_merge(pairs, PILEUP_MERGE_KEV))
    return _normalise([x for x in merged if x.ratio >= PILEUP_MINIMUM_RATIO])


@lru_cache(maxsize=4096)
def _add_escape_lines(lines: tuple[_Line, ...], setup: Detector) -> tuple[_Line, ...]:
    """The lines, then their escape lines, each with the index of its (strongest) parent; all sum to 1."""
    probability = _find_escaping(tuple(x.energy_kev for x in lines), setup)
    whole = [
        x._replace(ratio=x.ratio / (1.0 + float(lost))) for x, lost in zip(lines, probability.sum(axis=0), strict=True)
    ]
    escapes = [
        parent._replace(
            energy_kev=parent.energy_kev - photon_kev,
            ratio=parent.ratio * float(probability[row, i]),
            is_kalpha=False,
            escape_parent=i,
        )
        for row, (photon_kev, _) in enumerate(escape_photons(setup))
        for i, parent in enumerate(whole)
    ]
    merged = _merge([x for x in escapes if x.ratio > 0.0 and x.energy_kev > LOWEST_KEV], ESCAPE_MERGE_KEV)
    return _normalise([*whole, *(x for x in merged if x.ratio >= ESCAPE_MINIMUM_RATIO)])


def _merge(lines: Sequence[_Line], within_kev: float) -> list[_Line]:
    """Join lines that differ by less than `within_kev` and nothing else; K-alpha lines stay apart."""
    groups: list[list[_Line]] = []
    open_groups: dict[object, list[_Line]] = {}
    for line in sorted(lines, key=lambda x: x.energy_kev):
        key = (line.edge_kev, line.is_kbeta, line.has_tail)
        group = open_groups.get(key)
        if group and not line.is_kalpha and line.energy_kev - group[0].energy_kev < within_kev:
            group.append(line)
            continue
        groups.append([line])
        open_groups[key] = groups[-1]
    return [_join(group) for group in groups]


def _join(group: Sequence[_Line]) -> _Line:
    total = sum(x.ratio for x in group)
    strongest = max(group, key=lambda x: x.ratio)
    mean_kev = sum(x.energy_kev * x.ratio for x in group) / total
    return strongest._replace(energy_kev=mean_kev, ratio=total)


def _normalise(lines: Sequence[_Line]) -> tuple[_Line, ...]:
    total = math.fsum(x.ratio for x in lines)
    return tuple(x._replace(ratio=x.ratio / total) for x in lines)


def _assemble(names: Sequence[str], per_component: Sequence[Sequence[_Line]], incident_energy_kev: float) -> LineTable:
    first = np.cumsum([0, *(len(lines) for lines in per_component)])
    rows = [
        (i, x, x.escape_parent + int(first[i]) if x.escape_parent >= 0 else -1)
        for i, lines in enumerate(per_component)
        for x in lines
    ]
    columns = ("energy_kev", "ratio", "edge_kev", "is_kbeta", "has_tail", "mu_per_um")
    return build_table_from_arrays(
        component_names=names,
        component=[i for i, _, _ in rows],
        escape_parent=[parent for _, _, parent in rows],
        incident_energy_kev=incident_energy_kev,
        table_version=TABLE_VERSION,
        **{name: [getattr(x, name) for _, x, _ in rows] for name in columns},
    )
