"""From elements, incident energy and detector to the problem that is fitted: no file, no configuration.

Run files and the functions of `hpcxrf.api` both end here.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Final, get_args

import xraylib

from hpcxrf.errors import ConfigError, FitError
from hpcxrf.fitting.spectrum.near_edges import find_near_edges
from hpcxrf.fitting.spectrum.problem import LEAST_CHANNELS, Background, FitProblem, Method, Objective, Source, fit_range
from hpcxrf.fitting.spectrum.theta import (
    AXIS,
    AXIS_LIMITS,
    EDGE_REACH_SD,
    INCIDENT,
    WRITTEN,
    AxisTrust,
    axis_faults,
    default_parameters,
    edge_reach_kev,
    trust_axis,
)
from hpcxrf.formats.scan import EnergyCalibration
from hpcxrf.physics.anode_scatter import ScatterCopies, keep_main_series
from hpcxrf.physics.branching import Branching
from hpcxrf.physics.components import find_emitted_lines, parse_component, parse_components
from hpcxrf.physics.condense import condense
from hpcxrf.physics.constants import PHYSICS, ConstantSet
from hpcxrf.physics.detector import Detector
from hpcxrf.physics.element_list import read_element_list
from hpcxrf.physics.lines import LineTable, build_line_table
from hpcxrf.physics.parameters import Parameter, replace_values
from hpcxrf.physics.tube import Tube, find_anode_lines
from hpcxrf.physics.tube_table import build_tube_table, find_scatter_copies

DEFAULT_ENERGY_MIN_KEV: Final = 1.0
MOST_KBETA_SD: Final = 10.0
# A line under a thousandth of its family is below the counting noise of the family.
_MINIMUM_RATIO: Final = 1e-3
_ABOVE_INCIDENT_KEV: Final = 1.0
# A component whose lines lie outside of the fit range is not measured by it.
_MINIMUM_SHARE_INSIDE: Final = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """How a spectrum is fitted, whatever its sample and detector."""

    energy_range_kev: tuple[float, float] | None = None
    """Fit range; None: 1 keV to 1 keV above the incident energy, or to the end of the spectrum."""
    background: Background = "hats"
    method: Method = "separable"
    objective: Objective | None = None
    """Quantity that is minimised in the end; None: `poisson`, and `mse` for `adam` and `sbplx`."""
    kbeta_sd: float = 0.0
    """Relative width of the prior that ties K-beta to K-alpha lines of one family; 0: the usual one, 5 %."""
    incident_energy_sd_kev: float = 0.3
    """Standard deviation of the nominal incident energy, which may end 1.5 times as far away."""
    source: Source = "monochromatic"
    """Kind of source; the spectrum of a `tube` has no elastic peak at the incident energy."""
    tube: Tube | None = None
    """Anode, high voltage and filters, where they are known: its lines, scattered by the sample, are fitted, and
    families are excited by its spectrum. None: the incident energy of a tube is an effective one."""
    constants: ConstantSet = PHYSICS
    snip_width: float | None = None
    """Half-width of the peak clipping of MAPS (SNIP_WIDTH), where background and constants ask for it."""


def prepare_spectrum(elements: Sequence[str], incident_energy_kev: float, **arguments: Any) -> FitProblem:  # noqa: ANN401 (those of build_problem)
    """Build the problem of one detector's spectrum, and refuse elements whose lines lie outside of the fit range.

    Args:
        elements: families, `Fe` (K lines), `Pt_L`, `Au_M`, pile-up `Ca_Ca`.
        incident_energy_kev: nominal energy of the beam, 0.1 to 200 keV; of a tube the effective one.
        arguments: those of `build_problem`.

    Raises:
        ConfigError: as `build_problem`.
        FitError: as `build_problem`, and elements that lie outside of the fit range.
    """
    problem = build_problem(elements, incident_energy_kev, **arguments)
    if outside := lines_outside(problem):
        raise FitError(
            f"no line of {', '.join(outside.values())} lies in the fit range {problem.energy_min_kev:g} to "
            f"{problem.energy_max_kev:g} keV; widen it or leave these out"
        )
    return problem


def build_problem(
    elements: Sequence[str],
    incident_energy_kev: float,
    *,
    n_channels: int,
    calibration: EnergyCalibration | None = None,
    trust: AxisTrust = WRITTEN,
    detector: Detector | None = None,
    air_is_known: bool = False,
    options: FitOptions | None = None,
    parameters: tuple[Parameter, ...] | None = None,
    start: Mapping[str, float] | None = None,
    fixed: Sequence[str] = (),
    free: Sequence[str] = (),
    branching: Branching | None = None,
) -> FitProblem:
    """Build the problem of one detector's spectrum: line table, starting values, bounds and fit range.

    Args:
        elements: families, `Fe` (K lines), `Pt_L`, `Au_M`, pile-up `Ca_Ca`.
        incident_energy_kev: nominal energy of the beam, 0.1 to 200 keV; of a tube the effective one, or its high
            voltage where the options describe the tube.
        n_channels: channels of the full spectrum.
        calibration: initial energy calibration; None: the energy axis is determined from the spectrum.
        trust: how far the calibration may be off.
        detector: windows and chip; None: the usual silicon drift detector.
        air_is_known: the air path of the detector was given, so that line ratios may imply little more or less of it.
        options: how it is fitted; None: the defaults.
        parameters: rows of theta with bounds, priors and scales; None: `default_parameters`.
        start: starting values of theta by name, over those of calibration and rows.
        fixed: names of parameters that are held at their start.
        free: names of parameters that are fitted although their row says otherwise.
        branching: adjustments of the line ratios.

    Raises:
        ConfigError: options that are not valid or exclude each other, starting values that no detector has; all
            faults at once.
        FitError: elements that do not exist or that the energy cannot excite; a fit range outside of the spectrum.
    """
    options, detector = options or FitOptions(), detector or Detector()
    values = {INCIDENT: incident_energy_kev} | _axis_values(calibration) | dict(start or {})
    _refuse(elements, incident_energy_kev, options, values, None if calibration is None else n_channels)
    elements = read_element_list(elements).names
    monochromatic, sd_kev = options.source == "monochromatic", options.incident_energy_sd_kev
    rows = parameters or default_parameters(incident_energy_kev, sd_kev)
    reach_kev = edge_reach_kev(rows, sd_kev, fixed=fixed, free=free) if monochromatic else 0.0
    parse_components(elements, incident_energy_kev, (), reach_kev=reach_kev)
    highest_kev = incident_energy_kev if options.tube is None else _highest_line_kev(elements, options.tube)
    low, high = options.energy_range_kev or _default_range(highest_kev, values, n_channels)
    copies = _scatter_copies(options.tube, elements, detector, (low, high))
    if options.tube is None:
        table = lines_at(incident_energy_kev, elements, detector, branching, reach_kev=reach_kev)
    else:
        table = _excite(elements, options.tube, detector, branching)
    parameters = _start_rows(rows, values, fixed if monochromatic else (*fixed, INCIDENT), free)
    problem = FitProblem(
        table=table,
        constants=options.constants,
        parameters=parameters if calibration is None else trust_axis(parameters, trust, high),
        energy_min_kev=low,
        energy_max_kev=high,
        background=options.background,
        method=options.method,
        objective=options.objective or ("poisson" if options.method == "separable" else "mse"),
        kbeta_sd=options.kbeta_sd,
        elastic=monochromatic,
        copies=copies,
        snip_width=options.snip_width,
        detector=detector,
        air_is_known=air_is_known,
        branching=branching,
        edges_kev=find_near_edges(table, detector, branching, EDGE_REACH_SD * sd_kev, _MINIMUM_RATIO)
        if monochromatic
        else (),
        find_axis=calibration is None,
    )
    if calibration is None and n_channels < LEAST_CHANNELS:
        raise FitError(
            f"the spectrum has {n_channels} channels, a fit needs at least {LEAST_CHANNELS}; give the whole spectrum "
            "(--energy-axis says which axis of an array it is)"
        )
    if calibration is not None:
        fit_range(problem.parameters, low, high, n_channels)
    return problem


def lines_at(
    incident_energy_kev: float,
    elements: Sequence[str],
    detector: Detector,
    branching: Branching | None,
    *,
    reach_kev: float = 0.0,
    unexcited: Collection[str] = (),
) -> LineTable:
    """Build the line table of a fit: lines above a thousandth of their family, those a few eV apart joined.

    Args:
        incident_energy_kev: keV.
        elements: components.
        detector: windows and chip.
        branching: adjustments of the line ratios.
        reach_kev: as in `build_line_table`.
        unexcited: components that keep their place without a line.

    Raises:
        FitError: elements that do not exist, or that the energy cannot excite.
    """
    return condense(
        build_line_table(
            elements,
            incident_energy_kev,
            efficiency=detector,
            branching=branching,
            minimum_ratio=_MINIMUM_RATIO,
            reach_kev=reach_kev,
            unexcited=unexcited,
        )
    )


def _excite(elements: Sequence[str], tube: Tube, detector: Detector, branching: Branching | None) -> LineTable:
    table = build_tube_table(elements, tube, detector=detector, branching=branching, minimum_ratio=_MINIMUM_RATIO)
    return condense(table)


def _highest_line_kev(elements: Sequence[str], tube: Tube) -> float:
    """Highest energy at which a tube's spectrum has a line of the anode or of a listed family, keV."""
    lines = find_anode_lines(tube)
    strongest = max((line.photons for line in lines), default=0.0)
    anode = [line.energy_kev for line in lines if line.photons > _MINIMUM_SHARE_INSIDE * strongest]
    families = [family for name in elements for family in parse_component(name).families]
    emitted = [
        max(find_emitted_lines(xraylib.SymbolToAtomicNumber(symbol), shell, tube.kv), key=lambda one: one[2])[1]
        for symbol, shell in families
    ]
    return min(max([*anode, *emitted], default=tube.kv), tube.kv)


def _scatter_copies(
    tube: Tube | None, elements: Sequence[str], detector: Detector, range_kev: tuple[float, float]
) -> ScatterCopies | None:
    """Scattered lines of the anode; the second series is left to the element's own family where that is listed.

    No spectrum can tell the scattered lines of an element from its fluorescence.
    """
    if tube is None:
        return None
    copies = find_scatter_copies(tube, detector, lowest_kev=range_kev[0], highest_kev=range_kev[1])
    other = "L" if copies.main == "K" else "K"
    listed = tube.anode if other == "K" else f"{tube.anode}_{other}"
    return keep_main_series(copies) if listed in elements else copies


def option_faults(options: FitOptions) -> list[str]:
    """Find options that are not valid, or that exclude each other: sentences that begin with the name."""
    faults = [
        f"{name} is {value!r}, must be {', '.join(map(repr, allowed))}"
        for name, value, allowed in (
            ("background", options.background, get_args(Background)),
            ("method", options.method, get_args(Method)),
            ("objective", options.objective, (*get_args(Objective), None)),
            ("source", options.source, get_args(Source)),
        )
        if value not in allowed
    ]
    if not _is_number(options.kbeta_sd) or not 0.0 <= options.kbeta_sd <= MOST_KBETA_SD:
        faults.append(f"kbeta_sd is {options.kbeta_sd!r}, must be 0 to {MOST_KBETA_SD:g}")
    if not _is_number(options.incident_energy_sd_kev) or options.incident_energy_sd_kev <= 0.0:
        faults.append(f"incident_energy_sd_kev is {options.incident_energy_sd_kev!r}, must be above 0")
    span = options.energy_range_kev
    if span is not None and not (all(map(_is_number, span)) and 0.0 <= span[0] < span[1]):
        faults.append(f"energy_range_kev is {tuple(span)}, must be two energies that rise from 0 keV or more")
    return faults or _exclusions(options)


def _exclusions(options: FitOptions) -> list[str]:
    faults = []
    if options.method != "separable" and options.objective not in {None, "mse"}:
        faults.append(
            f"objective {options.objective!r} is not available with method {options.method!r} (mean square only); use "
            "'mse' or method 'separable'"
        )
    if options.tube is not None and options.source != "tube":
        faults.append(f"a {options.tube.anode} tube is described, but source is {options.source!r}; use source 'tube'")
    if options.tube is not None and (options.constants != PHYSICS or options.method != "separable"):
        faults.append(
            "the spectrum of a tube needs constants 'physics' and method 'separable'; leave anode and kv out for an "
            "effective energy"
        )
    if options.kbeta_sd > 0.0 and options.method != "separable":
        faults.append(f"kbeta_sd {options.kbeta_sd:g} needs method 'separable', not {options.method!r}")
    if options.kbeta_sd > 0.0 and options.constants != PHYSICS:
        faults.append(
            f"kbeta_sd {options.kbeta_sd:g} is not available with constants {options.constants.name!r}, which hold "
            "K-beta lines at their ratio; use one of the two"
        )
    return faults


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def _refuse(
    elements: Sequence[str],
    incident_energy_kev: float,
    options: FitOptions,
    values: Mapping[str, float],
    n_channels: int | None,
) -> None:
    faults = [] if elements else ['elements is empty; list the families, as in ["Si", "Fe", "Pt_L"]']
    low, high = AXIS_LIMITS[INCIDENT]
    if not _is_number(incident_energy_kev) or not low <= incident_energy_kev <= high:
        faults.append(f"incident_energy_kev is {incident_energy_kev!r}, must lie between {low:g} and {high:g} keV")
    else:
        faults += [f"starting values: {fault}" for fault in axis_faults(values, n_channels)]
    if invalid := option_faults(options):
        faults.append("invalid options: " + "; ".join(invalid))
    if faults:
        raise ConfigError("; ".join(faults))


def _axis_values(calibration: EnergyCalibration | None) -> dict[str, float]:
    """Starting values of the axis; a bend of 0 is that of the table."""
    if calibration is None:
        return {}
    values = (calibration.offset_kev, calibration.slope_kev, calibration.quadratic_kev)
    return {name: value for name, value in zip(AXIS, values, strict=True) if name != AXIS[2] or value != 0.0}


def _start_rows(
    rows: tuple[Parameter, ...], values: Mapping[str, float], fixed: Sequence[str], free: Sequence[str]
) -> tuple[Parameter, ...]:
    return tuple(
        replace(p, free=(p.free or p.name in free) and p.name not in fixed) for p in replace_values(rows, values)
    )


def _default_range(incident_energy_kev: float, values: Mapping[str, float], n_channels: int) -> tuple[float, float]:
    high = incident_energy_kev + _ABOVE_INCIDENT_KEV
    if "energy_slope" not in values:
        return DEFAULT_ENERGY_MIN_KEV, high
    top = values.get("energy_offset", 0.0) + values["energy_slope"] * (n_channels - 1)
    return DEFAULT_ENERGY_MIN_KEV, min(high, top)


def lines_outside(problem: FitProblem) -> dict[str, str]:
    """Find components whose lines all lie outside of the fit range, and would be fitted to nothing.

    Returns:
        Name and span of the lines in keV, by name.
    """
    table = problem.table
    return {
        name: f"{name} ({_span(table, i)} keV)"
        for i, name in enumerate(table.component_names)
        if _share_inside(table, i, problem) < _MINIMUM_SHARE_INSIDE
    }


def _share_inside(table: LineTable, index: int, problem: FitProblem) -> float:
    mine = (table.component == index) & (table.escape_parent < 0)
    energy, ratio = table.energy_kev[mine], table.ratio[mine]
    inside = (energy >= problem.energy_min_kev) & (energy <= problem.energy_max_kev)
    return float(ratio[inside].sum() / ratio.sum())


def _span(table: LineTable, index: int) -> str:
    energies: Sequence[float] = table.energy_kev[table.component == index].tolist()
    return f"{min(energies):.2f} to {max(energies):.2f}"
