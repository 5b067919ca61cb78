"""Bounds, priors and scales of theta: the built-in table, then an override file's bounds, then the site's own."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from hpcxrf.config.fit import FitConfig
from hpcxrf.fitting.spectrum.theta import AXIS, AXIS_LIMITS, INCIDENT, default_parameters
from hpcxrf.physics.parameters import Parameter
from hpcxrf.pipeline.prepare.checks import apply_site_row

FileBounds = Mapping[str, tuple[float | None, float | None]]
"""Lower and upper bound by parameter, None where the file gives none."""
# A file's bounds of these may be wider than the table's; a bend of the axis is none that a peak would stand.
_WIDER: Final = ("energy_offset", "energy_slope", INCIDENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterRows:
    """The table of theta for one detector, before its starting values."""

    default: tuple[Parameter, ...]
    """Rows of the built-in table at the nominal incident energy."""
    from_file: Mapping[str, Parameter | None]
    """Rows within the bounds of the override file; None where no detector lies within them."""
    final: tuple[Parameter, ...]
    """Rows that are fitted, those of the site over both."""


def bound_parameters(fit: FitConfig, file_bounds: FileBounds, incident_energy_kev: float) -> ParameterRows:
    """Bring the bounds of table, override file and site together.

    The incident energy may end 1.5 of its standard deviations from the nominal one. Bounds of an override file
    hold within the limits of what a detector can be; those of an energy axis that is to be determined do not count.
    `fit.parameters` goes over both.
    """
    default = default_parameters(incident_energy_kev, fit.incident_energy_sd_kev)
    table = {p.name: p for p in default}
    used = _meant_for_this_fit(fit, file_bounds, incident_energy_kev)
    from_file = {name: _narrow(table[name], pair) for name, pair in used.items()}
    table |= {name: row for name, row in from_file.items() if row is not None}
    table |= {name: apply_site_row(row, fit.parameters[name]) for name, row in table.items() if name in fit.parameters}
    return ParameterRows(default=default, from_file=from_file, final=tuple(table.values()))


def _meant_for_this_fit(fit: FitConfig, file_bounds: FileBounds, incident_energy_kev: float) -> FileBounds:
    bounds = {n: pair for n, pair in file_bounds.items() if fit.calibration != "none" or n not in AXIS}
    low, high = bounds.get(INCIDENT, (None, None))
    other_energy = (low is not None and incident_energy_kev < low) or (high is not None and incident_energy_kev > high)
    if other_energy or fit.incident_energy_sd_kev != FitConfig().incident_energy_sd_kev:
        # The run file's word on the energy goes over that of the file, whose bounds are about its own energy.
        bounds.pop(INCIDENT, None)
    return bounds


def _narrow(parameter: Parameter, pair: tuple[float | None, float | None]) -> Parameter | None:
    """The row within the file's bounds; None where nothing is left. One value alone means fixed."""
    low, high = AXIS_LIMITS[parameter.name] if parameter.name in _WIDER else (parameter.lower, parameter.upper)
    lower = parameter.lower if pair[0] is None else max(pair[0], low)
    upper = parameter.upper if pair[1] is None else min(pair[1], high)
    if lower > upper:
        return None
    if lower == upper:
        return replace(parameter, value=lower, free=False)
    return replace(parameter, lower=lower, upper=upper)
