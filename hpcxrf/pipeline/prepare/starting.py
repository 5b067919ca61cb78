"""Starting values and detector data of a fit, from the run file, the override file and the scan file."""

from dataclasses import replace
from pathlib import Path
from typing import Final

from hpcxrf.config.run import RunConfig
from hpcxrf.errors import ConfigError
from hpcxrf.formats.override import Override, theta_bounds, theta_values, width_law
from hpcxrf.physics.constants import constant_set
from hpcxrf.physics.detector import DetectorSetup
from hpcxrf.physics.parameters import PARAMETERS, Parameter, with_values
from hpcxrf.pipeline.prepare.bounds import AXIS, AXIS_LIMITS, INCIDENT, limits, site_faults
from hpcxrf.pipeline.prepare.previous import previous_theta
from hpcxrf.pipeline.records import ScanFacts

_CALIBRATION: Final = {"CAL_OFFSET", "CAL_SLOPE"}
# The one parameter whose value means nothing without the width law.
_WIDTH: Final = "fwhm_fanoprime"
_WINDOWS: Final = ("be_window_um", "air_path_mm", "dead_layer_um", "chip_thickness_um")


def refuse_start(config: RunConfig) -> None:
    """Refuse what no detector can be fitted with, options that exclude each other, unknown names, all at once.

    Raises:
        ConfigError: names, values and limits.
    """
    fit = config.fit
    known = {p.name for p in PARAMETERS}
    asked = {*fit.start, *fit.fixed, *fit.free, *fit.parameters}
    faults = [f"no parameter is called {name}; there are {', '.join(sorted(known))}" for name in sorted(asked - known)]
    faults += site_faults(fit)
    faults += _outside(config, {k: v for k, v in fit.start.items() if k in known})
    faults += _excluding(config)
    if faults:
        raise ConfigError("fit: " + "; ".join(faults))


def start_values(
    config: RunConfig, facts: ScanFacts, override: Override | None, detector: int, incident_kev: float
) -> tuple[dict[str, float], list[str]]:
    """Starting theta by name: the override's values, the calibration asked for, then the user's own.

    Raises:
        ConfigError: no energy calibration is to be had, or a file gives one that is none.
    """
    over, said = _over_the_override(config, facts, override, detector, incident_kev)
    values: dict[str, float] = {}
    notes: list[str] = []
    if override is not None:
        beside = {INCIDENT, *over, *config.fit.start}
        beside |= set(AXIS) if config.fit.calibration == "none" else set()
        values, notes = _of_override(config, override, beside)
    return {INCIDENT: incident_kev} | values | over | config.fit.start, [*notes, *said]


def starting_parameters(
    config: RunConfig, table: tuple[Parameter, ...], values: dict[str, float], facts: ScanFacts
) -> tuple[Parameter, ...]:
    """The table of theta with these starting values, and with what the run file frees or fixes.

    Raises:
        ConfigError: a value that no detector has, or an axis that falls: names, values and limits.
    """
    refuse_start(config)
    faults = _outside(config, values)
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
    return tuple(
        replace(p, free=(p.free or p.name in config.fit.free) and p.name not in fixed)
        for p in with_values(table, values)
    )


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
        return dict(zip(AXIS, (one.offset_kev, one.slope_kev, one.quadratic_kev), strict=True))
    if _starts_axis(config):
        return {}
    raise ConfigError(
        f"{facts.source}: no energy calibration, neither in the file nor in an override file; give "
        "input.energy_offset_kev and input.energy_slope_kev (--energy-offset, --energy-slope), fit.override, or "
        "fit.calibration: none (--calibration none) to have it found"
    )


def _over_the_override(
    config: RunConfig, facts: ScanFacts, override: Override | None, detector: int, incident_kev: float
) -> tuple[dict[str, float], list[str]]:
    """What goes over the values of an override file: an earlier fit, or the axis of the scan file."""
    choice = config.fit.calibration
    if choice == "none":
        return {}, ["energy calibration found from the lines"]
    if config.fit.previous is not None:
        return _of_previous(config, Path(config.fit.previous), detector, incident_kev)
    has_axis = override is not None and _CALIBRATION.issubset(override.values)
    if choice in {"auto", "override"} and has_axis:
        return {}, []
    if choice == "override" and not _starts_axis(config):
        raise ConfigError(
            f"{facts.source}: fit.calibration is 'override', but the override file gives no CAL_OFFSET and CAL_SLOPE; "
            "add them, or give fit.calibration: file or none (--calibration)"
        )
    if choice == "override":
        return {}, []
    axis = _file_axis(config, facts, detector)
    return axis, ["energy calibration from the scan file"] if axis else []


def _starts_axis(config: RunConfig) -> bool:
    return {"energy_offset", "energy_slope"} <= set(config.fit.start)


def _of_override(config: RunConfig, override: Override, beside: set[str]) -> tuple[dict[str, float], list[str]]:
    """Starting values of the file, but those that come from elsewhere, and what it gives in words."""
    law, why = width_law(override, config.fit.width_law)
    target = constant_set(config.fit.constants).width_factor
    given = theta_values(override, law=law, target=target)
    values, clipped = _within_limits(config, {n: v for n, v in given.items() if n not in beside})
    notes = [f"starting values from {override.path.name}"] if values else []
    if _WIDTH in {*values, *theta_bounds(override, law=law, target=target)}:
        notes.append(why)
    return values, [*notes, *clipped]


def _of_previous(
    config: RunConfig, store: Path, detector: int, incident_kev: float
) -> tuple[dict[str, float], list[str]]:
    """Theta of the earlier fit; its incident energy only where this scan may have the same."""
    theta = previous_theta(store, detector, constant_set(config.fit.constants))
    theta, moved = _within_limits(config, theta)
    notes = [f"starting values from {store.name}, detector {detector}", *moved]
    if abs(theta[INCIDENT] - incident_kev) > config.fit.incident_energy_sd_kev:
        fitted = theta.pop(INCIDENT)
        notes.append(f"incident energy starts at its nominal {incident_kev:g} keV: it was {fitted:g} keV there")
    return theta, notes


def _excluding(config: RunConfig) -> list[str]:
    """Options that cannot be meant together."""
    fit = config.fit
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


def _outside(config: RunConfig, values: dict[str, float]) -> list[str]:
    ends = limits(config.fit)
    return [
        f"{name} is {value:g}, must lie between {ends[name][0]:g} and {ends[name][1]:g}"
        for name, value in values.items()
        if not ends[name][0] <= value <= ends[name][1]
    ]


def _within_limits(config: RunConfig, values: dict[str, float]) -> tuple[dict[str, float], list[str]]:
    """Shapes of a file, moved to the nearest value that a detector has; each move is a sentence."""
    ends, inside, notes = limits(config.fit), {}, []
    for name, value in values.items():
        low, high = ends[name]
        inside[name] = value if name in AXIS_LIMITS else min(max(value, low), high)
        if inside[name] != value:
            notes.append(f"start of {name} {value:g} is taken as {inside[name]:g}")
    return inside, notes
