"""What is refused before a scan is read: options that exclude each other, unknown names, impossible values.

This module loads no torch: a login node checks run files with it.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from hpcxrf.config.fit import FitConfig, ParameterConfig
from hpcxrf.errors import ConfigError
from hpcxrf.fitting.spectrum.theta import AXIS_LIMITS, INCIDENT
from hpcxrf.physics.parameters import PARAMETERS, Parameter

_ABOVE_ZERO: Final = ("energy_slope", "gamma_offset", "compton_gamma", "compton_hi_gamma", INCIDENT)


def refuse_start(fit: FitConfig) -> None:
    """Refuse what no detector can be fitted with, options that exclude each other, unknown names, all at once.

    Raises:
        ConfigError: names, values and limits.
    """
    known = {p.name for p in PARAMETERS}
    named = {*fit.start, *fit.fixed, *fit.free, *fit.parameters}
    faults = [f"no parameter is called {name}; there are {', '.join(sorted(known))}" for name in sorted(named - known)]
    faults += _site_faults(fit)
    faults += limit_faults(fit, {k: v for k, v in fit.start.items() if k in known})
    faults += _exclusions(fit)
    if faults:
        raise ConfigError("fit: " + "; ".join(faults))


def limit_faults(fit: FitConfig, values: Mapping[str, float]) -> list[str]:
    """Find starting values outside of their limits: sentences with name, value and limits."""
    ends = start_limits(fit)
    return [
        f"{name} is {value:g}, must lie between {ends[name][0]:g} and {ends[name][1]:g}"
        for name, value in values.items()
        if not ends[name][0] <= value <= ends[name][1]
    ]


def start_limits(fit: FitConfig) -> dict[str, tuple[float, float]]:
    """Limits of every starting value: what an energy axis can be, else the bounds of table and site."""
    table = {p.name: (p.lower, p.upper) for p in PARAMETERS} | dict(AXIS_LIMITS)
    site = {
        name: (table[name][0] if row.lower is None else row.lower, table[name][1] if row.upper is None else row.upper)
        for name, row in fit.parameters.items()
        if name in table
    }
    return table | site


def apply_site_row(parameter: Parameter, site: ParameterConfig) -> Parameter:
    """Change a row of the parameter table to what `fit.parameters` says of it."""
    return replace(
        parameter,
        lower=parameter.lower if site.lower is None else site.lower,
        upper=parameter.upper if site.upper is None else site.upper,
        prior_sd=parameter.prior_sd if site.prior_sd is None else site.prior_sd,
        scale=parameter.scale if site.scale is None else site.scale,
    )


def _site_faults(fit: FitConfig) -> list[str]:
    """Find what is wrong with `fit.parameters`, beside names that do not exist."""
    faults = []
    for p in PARAMETERS:
        if p.name not in fit.parameters:
            continue
        site = fit.parameters[p.name]
        # The other end of the incident energy comes with the nominal energy of each scan.
        open_ended = p.name == INCIDENT and None in {site.lower, site.upper}
        row = apply_site_row(replace(p, lower=0.0, upper=AXIS_LIMITS[INCIDENT][1]) if open_ended else p, site)
        if row.lower >= row.upper:
            faults.append(f"parameters.{p.name}: lower {row.lower:g} must be below upper {row.upper:g}")
        faults += _impossible_bounds(p.name, site)
    return faults


def _impossible_bounds(name: str, site: ParameterConfig) -> list[str]:
    """Bounds beyond which there is no model: widths and fractions below 0, an axis that no detector has."""
    low, high = AXIS_LIMITS.get(name, (0.0, float("inf")))
    faults = [
        f"parameters.{name}: {end} {value:g} must lie between {low:g} and {high:g}"
        for end, value in (("lower", site.lower), ("upper", site.upper))
        if value is not None and not low <= value <= high
    ]
    if name in _ABOVE_ZERO and site.lower == 0.0 and not faults:
        faults.append(f"parameters.{name}: lower 0 must be above 0")
    return faults


def _exclusions(fit: FitConfig) -> list[str]:
    faults = []
    if fit.kbeta_sd > 0.0 and fit.constants != "physics":
        faults.append(
            f"kbeta_sd {fit.kbeta_sd:g} frees the K-beta lines, which constants {fit.constants} hold at their ratio "
            "for parity; give one of them"
        )
    if fit.kbeta_sd > 0.0 and fit.method != "separable":
        faults.append(f"kbeta_sd {fit.kbeta_sd:g} needs method separable; {fit.method} has the ratios of the table")
    if fit.auto_elements and not fit.suggest:
        faults.append("auto_elements adds what suggest finds; set suggest: true, or auto_elements: false")
    return faults
