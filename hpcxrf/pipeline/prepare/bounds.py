"""Bounds, priors and scales of theta: the built-in table, then an override file's, then the site's own."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from hpcxrf.config.fit import FitConfig, ParameterConfig
from hpcxrf.config.run import RunConfig
from hpcxrf.formats.override import Override, theta_bounds, width_law
from hpcxrf.physics.constants import constant_set
from hpcxrf.physics.parameters import PARAMETERS, Parameter

INCIDENT: Final = "coherent_sct_energy"
AXIS: Final = ("energy_offset", "energy_slope", "energy_quadratic")
# How far the incident energy may end from its nominal value, in its standard deviations.
INCIDENT_RANGE_SD: Final = 1.5
# Beyond these no energy axis is one. Shapes have the bounds of the parameter table as their limits.
AXIS_LIMITS: Final[Mapping[str, tuple[float, float]]] = {
    "energy_offset": (-5.0, 5.0),
    "energy_slope": (1e-4, 0.2),
    "energy_quadratic": (-1e-5, 1e-5),
    INCIDENT: (0.1, 200.0),
}
# A file's bounds of these may be wider than the table's; a bend of the axis is none that a peak would stand.
_WIDER: Final = ("energy_offset", "energy_slope", INCIDENT)
_ABOVE_ZERO: Final = ("energy_slope", "gamma_offset", "compton_gamma", "compton_hi_gamma", INCIDENT)
_ANY_SIGN: Final = ("energy_offset", "energy_quadratic")


def parameter_table(
    config: RunConfig, override: Override | None, incident_kev: float
) -> tuple[tuple[Parameter, ...], list[str]]:
    """The table of theta for one detector, before its starting values, and sentences about it.

    The incident energy may end 1.5 of its standard deviations from the nominal one. Bounds of an override file
    hold within the limits of what a detector can be; those of an energy axis that is to be found do not count.
    `fit.parameters` goes over both.
    """
    table = {p.name: p for p in PARAMETERS}
    table[INCIDENT] = _incident(table[INCIDENT], incident_kev, config.fit.incident_energy_sd_kev)
    notes: list[str] = []
    if override is not None:
        given = _file_bounds(config, override, incident_kev)
        bounded = {n: _narrowed(table[n], pair) for n, pair in given.items()}
        notes = _notes(override, table, bounded)
        table |= {n: p for n, p in bounded.items() if p is not None}
    site = config.fit.parameters
    table |= {n: site_row(p, site[n]) for n, p in table.items() if n in site}
    if site:
        notes.append(f"bounds, priors and scales from fit.parameters: {', '.join(sorted(site))}")
    return tuple(table.values()), notes


def site_row(parameter: Parameter, site: ParameterConfig) -> Parameter:
    """The row with what the site says of it."""
    return replace(
        parameter,
        lower=parameter.lower if site.lower is None else site.lower,
        upper=parameter.upper if site.upper is None else site.upper,
        prior_sd=parameter.prior_sd if site.prior_sd is None else site.prior_sd,
        scale=parameter.scale if site.scale is None else site.scale,
    )


def site_faults(fit: FitConfig) -> list[str]:
    """What is wrong with `fit.parameters`, beside names that do not exist."""
    faults = []
    for p in PARAMETERS:
        if p.name not in fit.parameters:
            continue
        given = fit.parameters[p.name]
        if p.name == INCIDENT and None in {given.lower, given.upper}:
            # The other end comes with the nominal energy of each scan.
            row = site_row(replace(p, lower=0.0, upper=AXIS_LIMITS[INCIDENT][1]), given)
        else:
            row = site_row(p, given)
        if row.lower >= row.upper:
            faults.append(f"parameters.{p.name}: lower {row.lower:g} must be below upper {row.upper:g}")
        faults += _impossible(p.name, given)
    return faults


def limits(fit: FitConfig) -> dict[str, tuple[float, float]]:
    """Where a starting value must lie: what an energy axis can be, else the bounds of table and site."""
    table = {p.name: (p.lower, p.upper) for p in PARAMETERS} | dict(AXIS_LIMITS)
    site = {
        name: (
            table[name][0] if given.lower is None else given.lower,
            table[name][1] if given.upper is None else given.upper,
        )
        for name, given in fit.parameters.items()
        if name in table
    }
    return table | site


def _incident(parameter: Parameter, nominal_kev: float, sd_kev: float) -> Parameter:
    reach = INCIDENT_RANGE_SD * sd_kev
    return replace(
        parameter,
        value=nominal_kev,
        lower=max(nominal_kev - reach, AXIS_LIMITS[INCIDENT][0]),
        upper=nominal_kev + reach,
        prior_sd=sd_kev,
    )


def _file_bounds(
    config: RunConfig, override: Override, incident_kev: float
) -> dict[str, tuple[float | None, float | None]]:
    """Bounds of the file that can be meant for this fit."""
    law, _ = width_law(override, config.fit.width_law)
    target = constant_set(config.fit.constants).width_factor
    given = theta_bounds(override, law=law, target=target)
    if config.fit.calibration == "none":
        given = {n: pair for n, pair in given.items() if n not in AXIS}
    low, high = given.get(INCIDENT, (None, None))
    other_energy = (low is not None and incident_kev < low) or (high is not None and incident_kev > high)
    asked = config.fit.incident_energy_sd_kev != FitConfig().incident_energy_sd_kev
    if asked or other_energy:
        # The run file's word on the energy goes over that of the file, whose bounds are about its own energy.
        given.pop(INCIDENT, None)
    return given


def _narrowed(parameter: Parameter, given: tuple[float | None, float | None]) -> Parameter | None:
    """The row within the file's bounds; None where nothing is left. One value alone means fixed."""
    wide = parameter.name in _WIDER
    low, high = AXIS_LIMITS[parameter.name] if wide else (parameter.lower, parameter.upper)
    lower = parameter.lower if given[0] is None else max(given[0], low)
    upper = parameter.upper if given[1] is None else min(given[1], high)
    if lower > upper:
        return None
    if lower == upper:
        return replace(parameter, value=lower, free=False)
    return replace(parameter, lower=lower, upper=upper)


def _notes(override: Override, before: Mapping[str, Parameter], bounded: Mapping[str, Parameter | None]) -> list[str]:
    name = override.path.name
    held = [n for n, p in bounded.items() if p is not None and before[n].free and not p.free]
    used = [
        f"{n} {p.lower:g} to {p.upper:g}"
        for n, p in bounded.items()
        if p is not None and p.free and (p.lower, p.upper) != (before[n].lower, before[n].upper)
    ]
    unused = [n for n, p in bounded.items() if p is None]
    notes = [f"bounds from {name}: {', '.join(used)}"] if used else []
    if held:
        notes.append(f"fixed, as {name} gives them one bound for both: {', '.join(held)}")
    if unused:
        notes.append(f"not used of {name}: bounds of {', '.join(unused)}, which no detector has within")
    return notes


def _impossible(name: str, given: ParameterConfig) -> list[str]:
    """Bounds beyond which the model is none: widths and fractions below 0, an axis that no detector has."""
    low, high = AXIS_LIMITS.get(name, (0.0, float("inf")))
    faults = [
        f"parameters.{name}: {end} {value:g} must lie between {low:g} and {high:g}"
        for end, value in (("lower", given.lower), ("upper", given.upper))
        if value is not None and not low <= value <= high
    ]
    if name in _ABOVE_ZERO and given.lower == 0.0 and not faults:
        faults.append(f"parameters.{name}: lower 0 must be above 0")
    return faults
