"""Starting values, bounds and detector data of a fit, from the run file, the override file and the scan file."""

from dataclasses import replace
from typing import Final

from hpcxrf.config import RunConfig
from hpcxrf.errors import ConfigError
from hpcxrf.formats.override import Override, theta_values, width_law
from hpcxrf.physics.constants import constant_set
from hpcxrf.physics.detector import DetectorSetup
from hpcxrf.physics.parameters import PARAMETERS, Parameter, with_values
from hpcxrf.pipeline.records import ScanFacts

INCIDENT: Final = "coherent_sct_energy"
_AXIS: Final = ("energy_offset", "energy_slope", "energy_quadratic")
# How far the incident energy may be from its nominal value.
_INCIDENT_RANGE_KEV: Final = 0.45
# Beyond these no energy axis is one. Shapes have the bounds of the parameter table as their limits.
_AXIS_LIMITS: Final = {
    "energy_offset": (-5.0, 5.0),
    "energy_slope": (1e-4, 0.2),
    "energy_quadratic": (-1e-5, 1e-5),
    INCIDENT: (0.1, 200.0),
}
_WINDOWS: Final = ("be_window_um", "air_path_mm", "dead_layer_um", "chip_thickness_um")


def refuse_start(config: RunConfig) -> None:
    """Refuse starting values of the run file that no detector has, and names that do not exist, all at once.

    Raises:
        ConfigError: names, values and limits.
    """
    known = {p.name for p in PARAMETERS}
    asked = {*config.fit.start, *config.fit.fixed, *config.fit.free}
    faults = [
        f"no parameter is called {name}; there are {', '.join(sorted(known))}"
        for name in sorted(asked - known)
    ]
    faults += _outside({k: v for k, v in config.fit.start.items() if k in known})
    if faults:
        raise ConfigError("fit: " + "; ".join(faults))


def start_values(
    config: RunConfig, facts: ScanFacts, override: Override | None, detector: int
) -> tuple[dict[str, float], list[str]]:
    """Starting theta by name: the override's values, the calibration asked for, then the user's own.

    Raises:
        ConfigError: no energy calibration is to be had, or a file gives one that is none.
    """
    values: dict[str, float] = {}
    notes = []
    if override is not None:
        constants = constant_set(config.fit.constants)
        law, why = width_law(override, config.fit.width_law)
        given = theta_values(override, law=law, target=constants.width_factor)
        values, clipped = _within_bounds(given)
        notes += [f"starting values from {override.path.name}", why, *clipped]
        notes += _unused(override)
    if config.fit.calibration == "none":
        for name in _AXIS:
            values.pop(name, None)
        return values | config.fit.start, [*notes, "energy calibration found from the lines"]
    has_override = all(name in values for name in _AXIS[:2])
    if config.fit.calibration == "file" or (config.fit.calibration == "auto" and not has_override):
        axis = _file_axis(config, facts, detector)
        values |= axis
        notes += ["energy calibration from the scan file"] if axis else []
    return values | config.fit.start, notes


def starting_parameters(
    config: RunConfig, values: dict[str, float], facts: ScanFacts
) -> tuple[Parameter, ...]:
    """The parameter table with these starting values, and with what the run file frees or fixes.

    Raises:
        ConfigError: a value that no detector has, or an axis that falls: names, values and limits.
    """
    refuse_start(config)
    faults = _outside(values)
    end = facts.n_channels - 1
    if config.fit.calibration != "none":
        slope, bend = values["energy_slope"], values.get("energy_quadratic", 0.0)
        if slope + 2.0 * bend * end <= 0.0:
            faults.append(f"energy_quadratic {bend:g} makes the axis fall before channel {end}")
    if faults:
        raise ConfigError(f"{facts.source}: starting values: " + "; ".join(faults))
    fixed = set(config.fit.fixed)
    if config.sample.source == "tube":
        # Without an elastic peak nothing but the Compton hump knows of it.
        fixed.add(INCIDENT)
    result = []
    for p in with_values(PARAMETERS, values):
        free = (p.free or p.name in config.fit.free) and p.name not in fixed
        bounded = replace(p, free=free)
        if p.name == INCIDENT:
            nominal = values[INCIDENT]
            bounded = replace(
                bounded, lower=nominal - _INCIDENT_RANGE_KEV, upper=nominal + _INCIDENT_RANGE_KEV
            )
        result.append(bounded)
    return tuple(result)


def detector_setup(config: RunConfig, override: Override | None) -> tuple[DetectorSetup, list[str]]:
    """Windows and material: of the run file, else of the override file (0 is not given), else the defaults."""
    given = {
        name: getattr(config.detector, name)
        for name in ("material", *_WINDOWS)
        if getattr(config.detector, name) is not None
    }
    if override is None:
        return DetectorSetup(**given), []
    air = None if override.air_path_um is None else override.air_path_um / 1000.0
    stored = {
        "material": override.detector_material,
        "be_window_um": override.be_window_um,
        "air_path_mm": air,
        "dead_layer_um": override.dead_layer_um,
        "chip_thickness_um": override.chip_thickness_um,
    }
    used = {k: v for k, v in stored.items() if v and k not in given}
    usual = DetectorSetup()
    words = ", ".join(f"{k} {v}" for k, v in used.items() if v != getattr(usual, k))
    notes = [f"detector: {words} from {override.path.name}"] if words else []
    return DetectorSetup(**{**used, **given}), notes


def _file_axis(config: RunConfig, facts: ScanFacts, detector: int) -> dict[str, float]:
    if facts.calibration is not None:
        one = facts.calibration[detector]
        return dict(zip(_AXIS, (one.offset_kev, one.slope_kev, one.quadratic_kev), strict=True))
    if {"energy_offset", "energy_slope"} <= set(config.fit.start):
        return {}
    raise ConfigError(
        f"{facts.source}: no energy calibration, neither in the file nor in an override file; give "
        "input.energy_offset_kev and input.energy_slope_kev (--energy-offset, --energy-slope), fit.override, or "
        "fit.calibration: none (--calibration none) to have it found"
    )


def _limits() -> dict[str, tuple[float, float]]:
    return {p.name: (p.lower, p.upper) for p in PARAMETERS} | _AXIS_LIMITS


def _outside(values: dict[str, float]) -> list[str]:
    limits = _limits()
    return [
        f"{name} is {value:g}, must lie between {limits[name][0]:g} and {limits[name][1]:g}"
        for name, value in values.items()
        if not limits[name][0] <= value <= limits[name][1]
    ]


def _within_bounds(values: dict[str, float]) -> tuple[dict[str, float], list[str]]:
    """Shapes of an override file, moved to the nearest value that a detector has; each move is a sentence."""
    limits, inside, notes = _limits(), {}, []
    for name, value in values.items():
        low, high = limits[name]
        inside[name] = value if name in _AXIS_LIMITS else min(max(value, low), high)
        if inside[name] != value:
            notes.append(f"override file: {name} {value:g} is taken as {inside[name]:g}")
    return inside, notes


def _unused(override: Override) -> list[str]:
    """What of an override file plays no part, so that nobody waits for its effect."""
    unused = []
    if override.branching_k or override.branching_l or override.branching_l_family:
        unused.append("branching adjustments (they repair the MAPS line table; xraylib's is used)")
    if override.bounds:
        unused.append("bounds")
    return [f"not used of {override.path.name}: {', '.join(unused)}"] if unused else []
