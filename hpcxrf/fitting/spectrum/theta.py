"""Theta before a fit: the default rows at an incident energy, and the limits of what a detector can be.

This module loads no torch: a run file is checked with it on a login node.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from hpcxrf.physics.parameters import PARAMETERS, Parameter

INCIDENT: Final = "coherent_sct_energy"
"""Name of the parameter that is the energy of the beam."""
AXIS: Final = ("energy_offset", "energy_slope", "energy_quadratic")
"""Names of the parameters of the energy axis."""
INCIDENT_RANGE_SD: Final = 1.5
"""Standard deviations that the incident energy may end away from its nominal value."""
EDGE_REACH_SD: Final = 2.0
"""Standard deviations above the nominal incident energy up to which a listed edge may lie: 19 of 20 true energies are
nearer than that, so that an edge beyond it is not excited."""
DEFAULT_INCIDENT_SD_KEV: Final = 0.3
AXIS_LIMITS: Final[Mapping[str, tuple[float, float]]] = {
    "energy_offset": (-5.0, 5.0),
    "energy_slope": (1e-4, 0.2),
    "energy_quadratic": (-1e-5, 1e-5),
    INCIDENT: (0.1, 200.0),
}
"""Limits (keV, keV/channel, keV/channel^2, keV) beyond which no detector has its energy axis. The shapes of the peaks
have the bounds of the parameter table as their limits."""

# An axis ends this many standard deviations from a straight line at most: what bends farther is another axis.
_MOST_BENT_SD: Final = 4.0
_SLOPE_STEP: Final = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisTrust:
    """How far an energy calibration may be off, as standard deviations."""

    offset_sd_kev: float
    slope_sd: float
    """Relative to the slope."""
    sag_sd_kev: float
    """Farthest that the axis leaves a straight line, in the middle of the fit range."""


STATED: Final = AxisTrust(offset_sd_kev=0.02, slope_sd=0.001, sag_sd_kev=0.01)
"""Trust in a calibration that the user writes down."""
WRITTEN: Final = AxisTrust(offset_sd_kev=0.05, slope_sd=0.01, sag_sd_kev=0.02)
"""Trust in a calibration that a file brings along."""
FOUND: Final = AxisTrust(offset_sd_kev=0.5, slope_sd=1.0, sag_sd_kev=0.02)
"""Trust in where a search begins: none but in its being nearly straight."""
FOUND_OF_FEW: Final = AxisTrust(offset_sd_kev=0.5, slope_sd=1.0, sag_sd_kev=0.004)
"""The same where few peaks cannot tell a bent axis from a tilted one."""


def trust_axis(rows: tuple[Parameter, ...], trust: AxisTrust, energy_max_kev: float) -> tuple[Parameter, ...]:
    """Give the rows of the energy axis the priors of a calibration; what a site has set stays.

    Args:
        rows: with the calibration as their starting values.
        trust: how far it may be off.
        energy_max_kev: upper end of the fit range: the bend is measured over the channels up to it.
    """
    values = {p.name: p.value for p in rows}
    used = count_used_channels(values["energy_offset"], values["energy_slope"], energy_max_kev)
    bend = 4.0 * trust.sag_sd_kev / used**2
    prior = dict(zip(AXIS, (trust.offset_sd_kev, trust.slope_sd * values["energy_slope"], bend), strict=True))
    table = {p.name: p for p in PARAMETERS}
    trusted = []
    for row in rows:
        own = row.name not in AXIS or row.prior_sd != table[row.name].prior_sd
        one = row if own else replace(row, prior_sd=min(row.prior_sd, prior[row.name]))
        if row.name == "energy_slope" and row.scale == table[row.name].scale:
            one = replace(one, scale=_SLOPE_STEP * row.value)
        trusted.append(_hold_straight(one) if row.name == "energy_quadratic" and not own else one)
    return tuple(trusted)


def count_used_channels(offset_kev: float, slope_kev: float, energy_max_kev: float) -> float:
    """Number of channels up to the upper end of the fit range, 1 at least, over which the bend is measured."""
    return max((energy_max_kev - offset_kev) / slope_kev, 1.0)


def _hold_straight(row: Parameter) -> Parameter:
    reach = _MOST_BENT_SD * row.prior_sd
    return replace(row, lower=max(row.lower, row.value - reach), upper=min(row.upper, row.value + reach))


def default_parameters(
    incident_energy_kev: float, incident_energy_sd_kev: float = DEFAULT_INCIDENT_SD_KEV
) -> tuple[Parameter, ...]:
    """Rows of the parameter table with the incident energy in its place.

    Args:
        incident_energy_kev: nominal energy, 0.1 to 200 keV: the start of `coherent_sct_energy`, which may end 1.5
            standard deviations away.
        incident_energy_sd_kev: standard deviation of its prior, above 0.
    """
    reach = INCIDENT_RANGE_SD * incident_energy_sd_kev
    incident = replace(
        next(p for p in PARAMETERS if p.name == INCIDENT),
        value=incident_energy_kev,
        lower=max(incident_energy_kev - reach, AXIS_LIMITS[INCIDENT][0]),
        upper=incident_energy_kev + reach,
        prior_sd=incident_energy_sd_kev,
    )
    return tuple(incident if p.name == INCIDENT else p for p in PARAMETERS)


def edge_reach_kev(
    rows: Sequence[Parameter], incident_energy_sd_kev: float, *, fixed: Collection[str] = (), free: Collection[str] = ()
) -> float:
    """How far (keV) above the nominal incident energy an edge may lie to be fitted; 0 where the energy is fixed.

    Args:
        rows: rows of theta.
        incident_energy_sd_kev: standard deviation of the nominal incident energy.
        fixed: names of parameters that are held.
        free: names of parameters that are fitted although their row says otherwise.
    """
    moves = any(p.name == INCIDENT and (p.free or INCIDENT in free) for p in rows) and INCIDENT not in fixed
    return EDGE_REACH_SD * incident_energy_sd_kev if moves else 0.0


def axis_faults(values: Mapping[str, float], n_channels: int | None = None) -> list[str]:
    """Find starting values of an energy axis that no detector has, or an axis that falls.

    Args:
        values: starting values by name; those of the shapes are not looked at.
        n_channels: channels of the spectrum; None: whether the axis rises is not looked at.

    Returns:
        Sentences with name, value and limits.
    """
    faults = [
        f"{name} is {values[name]:g}, must lie between {low:g} and {high:g}"
        for name, (low, high) in AXIS_LIMITS.items()
        if name in values and not low <= values[name] <= high
    ]
    if n_channels is not None and "energy_slope" in values:
        slope, bend = values["energy_slope"], values.get("energy_quadratic", 0.0)
        if slope + 2.0 * bend * (n_channels - 1) <= 0.0:
            faults.append(f"energy_quadratic {bend:g} makes the axis fall before channel {n_channels - 1}")
    return faults
