"""Theta as a user sets it for a fit: values, what is held and what is fitted, bounds; checked all at once."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import torch
from torch import Tensor

from hpcxrf.errors import ConfigError
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.physics.parameters import Parameter
from hpcxrf.pipeline.arguments import split_names, theta_by_name
from hpcxrf.pipeline.prepare.theta import Bounds, find_theta_faults

_ROOM_SCALES: Final = 10.0
"""Steps beyond a start outside of its bounds to which these are moved: at a bound it could not move."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThetaChanges:
    """What is said of theta over what an earlier fit has."""

    values: Mapping[str, float] = field(default_factory=dict)
    """Starting values by name, those of `fixed` held."""
    fixed: Collection[str] = ()
    free: Collection[str] = ()
    bounds: Mapping[str, Bounds] = field(default_factory=dict)
    """Lower and upper bound by name; None: as it was."""


def check_theta(changes: ThetaChanges, rows: Sequence[Parameter]) -> None:
    """Refuse names, values and bounds that cannot be fitted.

    Raises:
        ConfigError: all of them at once, each with its remedy.
    """
    faults = find_theta_faults(changes.values, changes.fixed, changes.free, changes.bounds, rows)
    if faults:
        raise ConfigError("; ".join(faults))


def require_held(spectrum: Tensor, fit: SpectrumFit, changes: ThetaChanges, only: Sequence[str]) -> None:
    """Refuse to fit some components alone where the rest cannot be held at an earlier fit.

    Args:
        spectrum: (channel,) counts.
        fit: the earlier fit.
        changes: what is said of theta.
        only: names of the components.

    Raises:
        ConfigError: all reasons at once.
    """
    inside = spectrum[fit.first_channel : fit.first_channel + fit.counts.shape[0]]
    names = split_names(only)
    faults = [f"only: {name} is not a component of the fit" for name in names if name not in fit.component_names]
    if faults:
        faults = [f"{'; '.join(faults)}; it has {', '.join(fit.component_names)}"]
    if not names:
        faults.append("only: is empty; name components of the fit, or leave it out for all")
    elif len(set(names)) < len(names):
        faults.append("only: names a component twice; name each once")
    if not torch.equal(inside, fit.counts):
        faults.append("only: the rest is held at the fit, which is of other counts; give a fit of these counts")
    if moved := [name for name, value in changes.values.items() if value != theta_by_name(fit).get(name)]:
        faults.append(f"only: theta is held with the rest; leave {', '.join(moved)} out, or only")
    if faults:
        raise ConfigError("; ".join(faults))


def change_problem(problem: FitProblem, changes: ThetaChanges) -> FitProblem:
    """The problem with rows held, freed and bounded as asked; priors stay, but for what is held at a value."""
    return replace(problem, parameters=tuple(_change_row(row, changes) for row in problem.parameters))


def start_theta(fit: SpectrumFit, changes: ThetaChanges) -> Tensor:
    """Theta (parameter,) of a fit with the values that were set."""
    values = theta_by_name(fit) | dict(changes.values)
    return torch.tensor([values[name] for name in fit.parameter_names], dtype=torch.float64)


def hold_start(problem: FitProblem, theta: Tensor) -> FitProblem:
    """The problem with bounds that hold a start (parameter,): one outside would be moved to the bound in silence."""
    rows = zip(problem.parameters, theta.tolist(), strict=True)
    return replace(problem, parameters=tuple(_make_room(row, value) for row, value in rows))


def _change_row(row: Parameter, changes: ThetaChanges) -> Parameter:
    lower, upper = changes.bounds.get(row.name, (None, None))
    row = replace(
        row,
        lower=row.lower if lower is None else lower,
        upper=row.upper if upper is None else upper,
        free=(row.free or row.name in changes.free) and row.name not in changes.fixed,
    )
    value = changes.values.get(row.name)
    return row if row.free or value is None else replace(row, value=value)


def _make_room(row: Parameter, value: float) -> Parameter:
    if row.lower <= value <= row.upper or not math.isfinite(value):
        return row
    room = _ROOM_SCALES * row.scale if row.free else 0.0
    return replace(row, lower=min(row.lower, value - room), upper=max(row.upper, value + room))
