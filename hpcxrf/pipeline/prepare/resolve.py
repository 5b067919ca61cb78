"""Every value that a fit is prepared with, decided once, with the place that it comes from."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hpcxrf.config.detector import DetectorConfig
from hpcxrf.config.fit import FitConfig
from hpcxrf.config.run import RunConfig
from hpcxrf.config.sample import AUTO, SampleConfig
from hpcxrf.errors import ConfigError, FitError
from hpcxrf.fitting.spectrum.theta import AXIS, AXIS_LIMITS, INCIDENT, edge_reach_kev
from hpcxrf.formats.override import Override, theta_bounds, theta_values, width_law
from hpcxrf.notes import Note
from hpcxrf.physics.constants import constant_set
from hpcxrf.physics.element_list import ElementList, leave_out_unexcited, read_element_list
from hpcxrf.physics.tube import ANODES, Layer, Tube
from hpcxrf.pipeline.prepare.bounds import FileBounds, ParameterRows, bound_parameters
from hpcxrf.pipeline.prepare.branching import FileBranching, read_branching
from hpcxrf.pipeline.prepare.checks import limit_faults, refuse_start, start_limits
from hpcxrf.pipeline.prepare.sources import Origin, Sources, Value
from hpcxrf.pipeline.records import ScanFacts

_CALIBRATION: Final = {"CAL_OFFSET", "CAL_SLOPE"}
_OFFSET_AND_SLOPE: Final = {"energy_offset", "energy_slope"}

Start = Mapping[str, Value[float]]
"""Starting values of theta by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileWidth:
    """The width law that an override file is made for, and what it gives in it."""

    reason: Note
    """Note that says which law it is and why."""
    values: Mapping[str, float]
    """Starting values by parameter."""
    bounds: FileBounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Values of one detector's fit with their origins."""

    elements: Value[tuple[str, ...]]
    """Those of the list that the incident energy excites."""
    element_notes: tuple[Note, ...]
    """Sentences on names of the list that were read otherwise than they look, or left out."""
    incident_energy_kev: Value[float]
    """Of a tube that is described its high voltage."""
    tube: Value[Tube] | None
    """Anode, high voltage and filters; None: no tube, or one that is not described."""
    start: Start
    rows: ParameterRows
    """Bounds, priors and scales of theta."""
    detector: Mapping[str, Value[Any]]
    """Material and lengths of windows and chip that are not the default."""
    energy_range_kev: Value[tuple[float, float]] | None
    """Fit range; None: the default of the incident energy."""
    branching: FileBranching | None
    width: FileWidth | None
    """What the override file says in its width law; None without such a file."""
    snip_width: Value[float] | None
    """SNIP_WIDTH, where it acts: in the peak clipping of MAPS, which the MAPS constants have."""


def resolve(config: RunConfig, sources: Sources) -> Settings:
    """Decide every value of one detector's fit: the run file's word, then the files', then the default.

    Raises:
        ConfigError: no elements, no incident energy or no energy calibration in any source; a tube that the run file
            does not name; names, values and options that cannot be fitted.
        FitError: elements that do not exist, are listed twice, or none that the incident energy excites.
    """
    require_known(config, sources)
    tube = resolve_tube(config.sample, sources.facts)
    refuse_start(config.fit)
    override = sources.override
    incident = _incident_energy(config.sample, sources)
    width = None if override is None else _read_width(config.fit, override)
    start = _start(config.fit, sources, incident, {} if width is None else width.values)
    if faults := limit_faults(config.fit, {name: one.value for name, one in start.items()}):
        raise ConfigError(f"{sources.facts.source}: starting values: " + "; ".join(faults))
    listed = _elements(config.sample, override)
    rows = bound_parameters(config.fit, {} if width is None else width.bounds, incident.value)
    elements = _keep_excited(listed.value, incident.value, sources.facts, _edge_reach_kev(config, rows, tube))
    return Settings(
        elements=Value(elements.names, listed.origin),
        element_notes=elements.notes,
        incident_energy_kev=incident,
        tube=tube,
        start=start,
        rows=rows,
        detector=_detector(config.detector, override),
        energy_range_kev=_energy_range(config.fit, override),
        branching=None if override is None else read_branching(override, elements.names),
        width=width,
        snip_width=None if override is None else _snip_width(config.fit, override),
    )


def list_components(config: RunConfig, sources: Sources) -> tuple[str, ...]:
    """Name the components that are listed for a scan, whether it can show them or not.

    Args:
        config: run file.
        sources: those of any of its detectors.

    Raises:
        ConfigError: no elements in any source.
        FitError: elements that do not exist or are listed twice.
    """
    return read_element_list(_elements(config.sample, sources.override).value).names


def require_known(config: RunConfig, sources: Sources) -> None:
    """Refuse a scan of which nobody says what a fit must know: all that is missing at once.

    Raises:
        ConfigError: no incident energy, no energy calibration or no elements in any source; a tube that the run file
            does not name.
    """

    def find_list() -> object:
        return () if config.sample.elements == AUTO else _elements(config.sample, sources.override)

    faults = []
    for find in (
        lambda: _incident_energy(config.sample, sources),
        # Which energy it is compared with plays no part in whether there is an axis.
        lambda: _calibration(config.fit, sources, math.nan),
        find_list,
    ):
        try:
            find()
        except ConfigError as error:
            faults.append(str(error))
    if faults:
        raise ConfigError("\n".join(faults))


def resolve_incident(sample: SampleConfig, sources: Sources) -> float:
    """Decide the nominal incident energy, keV.

    Raises:
        ConfigError: no source gives one.
    """
    resolve_tube(sample, sources.facts)
    return _incident_energy(sample, sources).value


def resolve_detector(config: DetectorConfig, sources: Sources) -> dict[str, Any]:
    """Decide material and lengths of windows and chip that are not the default."""
    return {name: one.value for name, one in _detector(config, sources.override).items()}


def resolve_tube(sample: SampleConfig, facts: ScanFacts) -> Value[Tube] | None:
    """Decide anode, high voltage and filters of a tube: the run file's word, then that of the scan file.

    Returns:
        None where there is no tube, or one of which only an effective energy is known.

    Raises:
        ConfigError: the file names a tube that neither describes, or the run file takes it for monochromatic; values
            that the formulas do not hold for.
    """
    if sample.anode is not None and sample.tube_kv is not None:
        return Value(_build_tube(sample.anode, sample.tube_kv, sample), Origin.RUN_FILE)
    if sample.incident_energy_kev is None and (found := _read_tube(facts.tube)):
        return Value(_build_tube(*found, sample), Origin.SCAN)
    _refuse_tube(sample, facts)
    return None


def _build_tube(anode: str, kv: float, sample: SampleConfig) -> Tube:
    if sample.tube_filters_um is None:
        return Tube(anode=anode, kv=kv)
    layers = tuple(Layer(material=name, thickness_um=length) for name, length in sample.tube_filters_um.items())
    return Tube(anode=anode, kv=kv, layers=layers)


def _read_tube(text: str | None) -> tuple[str, float] | None:
    """Anode and high voltage of what a file says of its tube: `Rh, 28 kV`, `Rh anode, 50 kV`; None: one is missing."""
    voltages = set(re.findall(r"(\d+(?:\.\d+)?) ?kV", text or ""))
    anodes = {one for one in re.findall(r"\b[A-Z][a-z]?\b", text or "") if one in ANODES}
    return (anodes.pop(), float(voltages.pop())) if len(anodes) == len(voltages) == 1 else None


def _refuse_tube(sample: SampleConfig, facts: ScanFacts) -> None:
    """A tube's spectrum has no elastic line, and fitted as monochromatic it gives numbers that mean nothing."""
    if sample.source == "tube" and sample.incident_energy_kev is None:
        raise ConfigError(
            f"{facts.source}: does not say which tube it was measured with; give sample.anode and sample.tube_kv "
            "(--anode Rh --kv 50), or sample.incident_energy_kev (--energy), an effective energy"
        )
    if facts.tube is not None and sample.source != "tube":
        raise ConfigError(
            f"{facts.source}: was measured with an X-ray tube ({facts.tube}); give sample.source: tube (--source tube) "
            "with sample.anode and sample.tube_kv (--anode, --kv), or with sample.incident_energy_kev (--energy), the "
            "effective energy at which line ratios are taken"
        )


def _incident_energy(sample: SampleConfig, sources: Sources) -> Value[float]:
    override, facts = sources.override, sources.facts
    if (tube := resolve_tube(sample, facts)) is not None:
        return Value(tube.value.kv, tube.origin)
    if sample.incident_energy_kev is not None:
        return Value(sample.incident_energy_kev, Origin.RUN_FILE)
    if override is not None and "COHERENT_SCT_ENERGY" in override.values:
        return Value(override.values["COHERENT_SCT_ENERGY"], Origin.OVERRIDE)
    if facts.incident_energy_kev is not None:
        return Value(facts.incident_energy_kev, Origin.SCAN)
    raise ConfigError(
        f"{facts.source}: the incident energy is not known; give sample.incident_energy_kev (--energy), or for a "
        "tube sample.source: tube with sample.anode and sample.tube_kv (--source tube --anode Rh --kv 50)"
    )


def _elements(sample: SampleConfig, override: Override | None) -> Value[tuple[str, ...]]:
    if sample.elements:
        return Value(sample.elements, Origin.RUN_FILE)
    if override is not None and override.elements:
        return Value((*override.elements, *override.pileup), Origin.OVERRIDE)
    raise ConfigError("no elements: give sample.elements (--elements Si,P,S,...), or an override file that lists them")


def _edge_reach_kev(config: RunConfig, rows: ParameterRows, tube: Value[Tube] | None) -> float:
    if config.sample.source == "tube" or tube is not None:
        return 0.0
    fit = config.fit
    return edge_reach_kev(rows.final, fit.incident_energy_sd_kev, fixed=fit.fixed, free=fit.free)


def _keep_excited(listed: Sequence[str], incident_energy_kev: float, facts: ScanFacts, reach_kev: float) -> ElementList:
    """One list serves many scans: what this one cannot show is left out of it."""
    try:
        read = read_element_list(listed)
    except FitError as error:
        raise FitError(f"{facts.source}: {error}") from error
    kept = leave_out_unexcited(read.names, incident_energy_kev, reach_kev)
    if not kept.names:
        reasons = "; ".join(note.text for note in kept.notes)
        raise FitError(f"{facts.source}: no element of the list can be fitted; {reasons}")
    return ElementList(names=kept.names, notes=(*read.notes, *kept.notes))


def _read_width(fit: FitConfig, override: Override) -> FileWidth:
    law, reason = width_law(override, fit.width_law)
    target = constant_set(fit.constants).width_factor
    return FileWidth(
        reason=reason,
        values=theta_values(override, law=law, target=target),
        bounds=theta_bounds(override, law=law, target=target),
    )


def _start(
    fit: FitConfig, sources: Sources, incident: Value[float], file_values: Mapping[str, float]
) -> dict[str, Value[float]]:
    """Starting theta: the override file's values, then the calibration that is chosen, then the user's own."""
    beside = {INCIDENT, *(AXIS if fit.calibration == "none" else ())}
    from_file = {name: value for name, value in file_values.items() if name not in beside}
    return {
        INCIDENT: incident,
        **_move_within_limits(fit, from_file, Origin.OVERRIDE),
        **_calibration(fit, sources, incident.value),
        **{name: Value(value, Origin.RUN_FILE) for name, value in fit.start.items()},
    }


def _calibration(fit: FitConfig, sources: Sources, incident_energy_kev: float) -> dict[str, Value[float]]:
    """What goes over the values of an override file: an earlier fit, or the axis of the scan file."""
    if fit.calibration == "none":
        return {}
    if sources.previous is not None:
        theta = dict(sources.previous.theta)
        if abs(theta[INCIDENT] - incident_energy_kev) > fit.incident_energy_sd_kev:
            # This scan was measured at another energy.
            del theta[INCIDENT]
        return _move_within_limits(fit, theta, Origin.PREVIOUS)
    starts_axis = fit.start.keys() >= _OFFSET_AND_SLOPE
    has_axis = sources.override is not None and sources.override.values.keys() >= _CALIBRATION
    if fit.calibration == "override" and not has_axis and not starts_axis:
        raise ConfigError(
            f"{sources.facts.source}: fit.calibration is 'override', but the override file gives no CAL_OFFSET and "
            "CAL_SLOPE; add them, or give fit.calibration: file or none (--calibration)"
        )
    if fit.calibration == "override" or (fit.calibration == "auto" and has_axis):
        return {}
    return _scan_axis(sources, starts_axis=starts_axis)


def _scan_axis(sources: Sources, *, starts_axis: bool) -> dict[str, Value[float]]:
    facts = sources.facts
    if facts.calibration is not None:
        one = facts.calibration[sources.detector]
        axis = zip(AXIS, (one.offset_kev, one.slope_kev, one.quadratic_kev), strict=True)
        return {name: Value(value, Origin.SCAN) for name, value in axis}
    if starts_axis:
        return {}
    raise ConfigError(
        f"{facts.source}: no energy calibration, neither in the file nor in an override file; give "
        "input.energy_offset_kev and input.energy_slope_kev (--energy-offset, --energy-slope), fit.override, or "
        "fit.calibration: none (--calibration none) to have it determined from the spectrum"
    )


def _move_within_limits(fit: FitConfig, values: Mapping[str, float], origin: Origin) -> dict[str, Value[float]]:
    """Shapes of a file, moved to the nearest value that a detector has; an axis or energy stays as it is."""
    limits, moved = start_limits(fit), {}
    for name, value in values.items():
        low, high = limits[name]
        nearest = value if name in AXIS_LIMITS else min(max(value, low), high)
        moved[name] = Value(nearest, origin, written=None if nearest == value else value)
    return moved


def _detector(config: DetectorConfig, override: Override | None) -> dict[str, Value[Any]]:
    """Windows and material: of the run file, else of the override file, where 0 means not given."""
    names = ("material", "be_window_um", "air_path_mm", "dead_layer_um", "chip_thickness_um")
    mine = {name: Value(getattr(config, name), Origin.RUN_FILE) for name in names if getattr(config, name) is not None}
    if override is None:
        return mine
    written = {
        "material": override.detector_material,
        "be_window_um": override.be_window_um,
        "air_path_mm": None if override.air_path_um is None else override.air_path_um / 1000.0,
        "dead_layer_um": override.dead_layer_um,
        "chip_thickness_um": override.chip_thickness_um,
    }
    return {name: Value(value, Origin.OVERRIDE) for name, value in written.items() if value} | mine


def _energy_range(fit: FitConfig, override: Override | None) -> Value[tuple[float, float]] | None:
    if fit.energy_range_kev is not None:
        return Value(fit.energy_range_kev, Origin.RUN_FILE)
    if override is not None and override.energy_range_kev is not None:
        return Value(override.energy_range_kev, Origin.OVERRIDE)
    return None


def _snip_width(fit: FitConfig, override: Override) -> Value[float] | None:
    width = override.values.get("SNIP_WIDTH")
    if width is None or fit.background != "snip" or not constant_set(fit.constants).maps_line_shape:
        return None
    if width <= 0.0:
        raise ConfigError(f"{override.path}: SNIP_WIDTH is {width:g}, must be above 0; 0.5 is usual")
    return Value(width, Origin.OVERRIDE)
