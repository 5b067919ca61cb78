"""Edges near the incident energy: which lines come and go where the true energy is not the nominal one.

A listed family whose edge lies up to 2 standard deviations above the nominal energy is fitted as any other, its lines
never switched off. Where the fitted energy then lies below that edge, the family is not excited: it is fitted again
without, and left out of the scan if no detector has it.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

import torch

from hpcxrf.errors import FitError
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.detector_sum import SOLVED
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.fitting.spectrum.theta import INCIDENT
from hpcxrf.fitting.uncertainty import Uncertainty
from hpcxrf.notes import Note
from hpcxrf.physics.branching import Branching
from hpcxrf.physics.components import HIGHEST_INCIDENT_KEV, is_excited, lowest_edge_kev, parse_component
from hpcxrf.physics.condense import select_components
from hpcxrf.physics.detector import Detector
from hpcxrf.physics.lines import LineTable, build_line_table
from hpcxrf.physics.parameters import INDEX

_INCIDENT: Final = INDEX[INCIDENT]
# Edges are rounded, move with chemistry by some eV, and the energy axis is not better known.
_LEAST_UNSURE_KEV: Final = 0.01
_UNSURE_SIGMA: Final = 3.0
_LEFT_OUT: Final = "left out of this scan: "
# What is below this share of its family is not missed.
_MINIMUM_SHARE: Final = 0.01


def find_near_edges(
    table: LineTable, detector: Detector, branching: Branching | None, reach_kev: float, minimum_ratio: float
) -> tuple[float, ...]:
    """Edges (keV) between which the true incident energy may lie, of lines that hold a share of their family.

    Args:
        table: lines at the nominal energy.
        detector: of the table.
        branching: of the table.
        reach_kev: how far from the nominal energy the true one may be.
        minimum_ratio: lines below this share of their family are left out.
    """
    nominal = table.incident_energy_kev
    below = table.edge_kev[table.edge_kev > nominal - reach_kev].tolist()
    names = [n for n in table.component_names if _has_edge_above(n, nominal)]
    if not names:
        return tuple(sorted(set(below)))
    highest = min(nominal + reach_kev, HIGHEST_INCIDENT_KEV)
    higher = build_line_table(
        names, highest, efficiency=detector, branching=branching, escape=False, minimum_ratio=minimum_ratio
    )
    above = [
        edge
        for i in range(len(names))
        for edge in higher.edge_kev[higher.component == i].unique().tolist()
        if edge > nominal and _share_of(higher, i, edge) >= _MINIMUM_SHARE
    ]
    return tuple(sorted({*below, *above}))


def _has_edge_above(name: str, nominal_kev: float) -> bool:
    """Whether more energy may excite more lines: a K family has one edge only."""
    component = parse_component(name)
    return component.kind in {"L", "M"} or (component.kind == "K" and not is_excited(component, nominal_kev))


def _share_of(table: LineTable, component: int, edge_kev: float) -> float:
    lines = (table.component == component) & (table.edge_kev == edge_kev)
    return float(table.ratio[lines].sum())


def doubt_of_energy_kev(fit: SpectrumFit, problem: FitProblem) -> float:
    """By how much (keV) the true incident energy may be above the fitted one: 3 sigma, and at least 10 eV.

    At a bound the fit has not determined it, and the doubt is that of its nominal value.
    """
    sigma = float(fit.theta_sigma[_INCIDENT])
    if bool(fit.at_bound[_INCIDENT]):
        sigma = problem.parameters[_INCIDENT].prior_sd
    return max(_UNSURE_SIGMA * sigma, _LEAST_UNSURE_KEV) if sigma > 0.0 else _LEAST_UNSURE_KEV


def find_unexcited(names: Sequence[str], highest_kev: float, fitted_kev: float) -> dict[str, Note]:
    """Say of every component that an incident energy cannot excite why.

    Args:
        names: components.
        highest_kev: the most that the incident energy may be.
        fitted_kev: the fitted one, for the sentence.

    Returns:
        Warnings by name.
    """
    found = {}
    for name in names:
        above = [
            f"{shell} edge {edge:.4g} keV"
            for symbol, shell in parse_component(name).families
            if (edge := lowest_edge_kev(symbol, shell)) >= highest_kev
        ]
        if above:
            reason = f"{name}: {above[0]} is above the incident energy {fitted_kev:.4g} keV that was fitted"
            found[name] = Note("warning", _LEFT_OUT + reason)
    return found


def notes_of_left_out(fits: Sequence[SpectrumFit]) -> list[Note]:
    """Why components are missing in all fits of one scan, each once: of the first fit that says so."""
    found: dict[str, Note] = {}
    for note in (note for fit in fits for note in fit.notes if note.text.startswith(_LEFT_OUT)):
        name = note.text.removeprefix(_LEFT_OUT).partition(":")[0]
        if all(name not in fit.component_names for fit in fits):
            found.setdefault(name, note)
    return list(found.values())


def drop_unexcited(fits: Sequence[SpectrumFit]) -> list[SpectrumFit]:
    """Leave out the components that no detector's fitted energy excites; what one detector has stays in all.

    Args:
        fits: of the detectors of one scan, with the same components; `solve_problem` leaves a component that is not
            excited without lines.

    Raises:
        FitError: no element is left.
    """
    solved = [fit for fit in fits if fit.status in SOLVED]
    if not solved:
        return list(fits)
    gone = set.intersection(*(names_without_lines(fit.table) for fit in solved))
    if not gone:
        return list(fits)
    if gone.issuperset(solved[0].table.component_names):
        reasons = "; ".join(dict.fromkeys(m for fit in solved for m in fit.messages if m.startswith(_LEFT_OUT)))
        raise FitError(f"no element of the list can be fitted; {reasons}")
    return [_leave_out(fit, gone) for fit in fits]


def names_without_lines(table: LineTable) -> set[str]:
    """Components that have their place in a table, and no line."""
    lines = torch.bincount(table.component, minlength=len(table.component_names)).tolist()
    return {name for name, count in zip(table.component_names, lines, strict=True) if count == 0}


def _leave_out(fit: SpectrumFit, gone: Collection[str]) -> SpectrumFit:
    """The same fit without components that have no counts in it."""
    places = [i for i, name in enumerate(fit.component_names) if name not in gone]
    problem = fit.problem
    if problem is not None:
        problem = replace(problem, table=_without(problem.table, gone))
    return replace(
        fit,
        component_names=tuple(fit.component_names[i] for i in places),
        table=_without(fit.table, gone),
        amplitude=fit.amplitude[places],
        amplitude_sigma=fit.amplitude_sigma[places],
        detection_limit=fit.detection_limit[places],
        errors=None if fit.errors is None else _select_components(fit.errors, places),
        component_counts=fit.component_counts[places],
        problem=problem,
    )


def _select_components(errors: Uncertainty, places: Sequence[int]) -> Uncertainty:
    """The errors of some components."""
    own = ("amplitude", "amplitude_flaws", "null", "null_flaws", "photon")
    variances = replace(errors.variances, **{name: getattr(errors.variances, name)[places] for name in own})
    shown = {name: getattr(errors, name)[places] for name in ("amplitude_sigma", "detection_limit", "photon_variance")}
    return replace(errors, variances=variances, **shown)


def _without(table: LineTable, gone: Collection[str]) -> LineTable:
    return select_components(table, [name for name in table.component_names if name not in gone])
