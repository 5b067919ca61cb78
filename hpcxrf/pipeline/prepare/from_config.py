"""From what the user asked and what the files say, to what the fit is given; every choice is put into words."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from hpcxrf.config.fit import DEFAULT_ENERGY_MIN_KEV
from hpcxrf.config.run import RunConfig
from hpcxrf.errors import ConfigError, FitError
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.detector_sum import SOLVED
from hpcxrf.fitting.spectrum.integrated import fit_spectrum
from hpcxrf.fitting.spectrum.problem import SpectrumSetup, fit_range
from hpcxrf.fitting.spectrum.search import fit_from_nothing
from hpcxrf.formats.override import Override, find_override, read_override
from hpcxrf.physics.branching import Branching
from hpcxrf.physics.components import HIGHEST_INCIDENT_KEV, parse_component, parse_components
from hpcxrf.physics.condense import condense
from hpcxrf.physics.constants import constant_set
from hpcxrf.physics.detector import DetectorSetup
from hpcxrf.physics.lines import LineTable, build_line_table
from hpcxrf.physics.parameters import INDEX, Parameter, with_values
from hpcxrf.pipeline.prepare.bounds import parameter_table
from hpcxrf.pipeline.prepare.branching import branching_of
from hpcxrf.pipeline.prepare.starting import detector_setup, start_values, starting_parameters
from hpcxrf.pipeline.records import ScanFacts

# A line under a thousandth of its family is below the counting noise of the family.
_MINIMUM_RATIO: Final = 1e-3
_ABOVE_INCIDENT_KEV: Final = 1.0
# A component whose lines lie outside of the fit range is not measured by it.
_MINIMUM_SHARE_INSIDE: Final = 0.01
# What is below this share of its family is not missed.
_MINIMUM_SHARE_BEYOND: Final = 0.01
_INCIDENT: Final = INDEX["coherent_sct_energy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What one detector's fit is given, and why."""

    setup: SpectrumSetup
    from_nothing: bool
    """The energy axis is to be found, its start means nothing."""
    windows: DetectorSetup
    """What lies before the detector's chip, and the chip: of the run file, the override file or by default."""
    notes: tuple[str, ...]
    edges_kev: tuple[float, ...] = ()
    """Edges of the listed families about the nominal incident energy, within what it is known to."""
    lines_at: Callable[[float], LineTable] | None = None
    """The line table at another incident energy; None where there is none to be fitted."""


def prepare(config: RunConfig, facts: ScanFacts, detector: int) -> Prepared:
    """Line table, starting values, fit range and constants of one detector.

    Raises:
        ConfigError: no elements, no energy calibration, or no incident energy to be had; names of parameters
            that do not exist.
        FitError: elements that do not exist, cannot be excited, or lie outside the fit range.
        InputFileError: the override file cannot be read.
    """
    _refuse_tube(config, facts)
    override = _override(config, facts, detector)
    incident, notes = _incident_energy(config, facts, override)
    values, start_notes = start_values(config, facts, override, detector, incident)
    rows, bound_notes = parameter_table(config, override, incident)
    parameters = starting_parameters(config, rows, values, facts)
    windows, window_notes = detector_setup(config, override)
    components = _components(config, override)
    _refuse_components(components, incident, facts)
    branching, ratio_notes = branching_of(override, components)
    table = _line_table(components, incident, windows=windows, branching=branching, facts=facts)
    low, high = _energy_range(config, override, incident, facts, values)
    setup = SpectrumSetup(
        table=table,
        constants=constant_set(config.fit.constants),
        parameters=parameters,
        energy_min_kev=low,
        energy_max_kev=high,
        background=config.fit.background,
        method=config.fit.method,
        objective=config.fit.objective,
        kbeta_sd=config.fit.kbeta_sd,
        elastic=config.sample.source == "monochromatic",
    )
    from_nothing = config.fit.calibration == "none"
    if not from_nothing:
        fit_range(parameters, low, high, facts.n_channels)
    _refuse_outside(table, setup, facts)
    monochromatic = config.sample.source == "monochromatic"
    return Prepared(
        setup=setup,
        from_nothing=from_nothing,
        windows=windows,
        notes=(
            *notes,
            *start_notes,
            *bound_notes,
            *_grown(rows, parameters),
            *window_notes,
            *ratio_notes,
            *_published(config),
        ),
        edges_kev=_near_edges(config, table, windows, branching) if monochromatic else (),
        lines_at=partial(_line_table, components, windows=windows, branching=branching, facts=facts)
        if monochromatic
        else None,
    )


def fit_prepared(counts: Tensor, prepared: Prepared) -> SpectrumFit:
    """Fit the integrated spectrum (channel,) of one detector as it was prepared.

    Theta is NaN where there is no solution: where the fit began is no result.
    """
    if prepared.from_nothing and bool(torch.isfinite(counts).all()) and float(counts.sum()) > 0.0:
        fit = fit_from_nothing(counts, prepared.setup)
    else:
        fit = fit_spectrum(counts, prepared.setup)
    if fit.status not in SOLVED:
        return dataclasses.replace(fit, theta=torch.full_like(fit.theta, torch.nan))
    return _at_fitted_energy(counts, fit, prepared)


def _at_fitted_energy(counts: Tensor, fit: SpectrumFit, prepared: Prepared) -> SpectrumFit:
    """The fit again with the lines of the fitted incident energy, where an edge lies between it and the nominal one.

    The edge switch of the model can turn lines off, but not bring lines that the nominal energy does not excite, nor
    give what is left of a family its right sum.
    """
    nominal, fitted = prepared.setup.table.incident_energy_kev, float(fit.theta[_INCIDENT])
    low, high = sorted((nominal, fitted))
    crossed = [edge for edge in prepared.edges_kev if low < edge <= high]
    if not crossed or prepared.lines_at is None:
        return fit
    edges = ", ".join(f"{edge:g}" for edge in crossed)
    told = f"edges at {edges} keV lie between the nominal incident energy and the fitted {fitted:.3f} keV"
    try:
        table = prepared.lines_at(fitted)
    except FitError as error:
        kept = f"{told}; the lines are those of the nominal energy, as {error}"
        return dataclasses.replace(fit, messages=(*fit.messages, kept))
    moved = started_at(prepared, fit.theta)
    setup = dataclasses.replace(moved.setup, table=table)
    again = fit_spectrum(counts, setup, starts=fit.theta[None])
    return dataclasses.replace(
        again,
        flags=fit.flags,
        cpu_s=fit.cpu_s + again.cpu_s,
        theta_initial=fit.theta_initial,
        messages=(*again.messages, f"{told}; lines and ratios are those of the fitted energy"),
    )


def started_at(prepared: Prepared, theta: Tensor) -> Prepared:
    """The same fit from a given theta (parameter,), its energy axis included."""
    names = [p.name for p in prepared.setup.parameters]
    values = dict(zip(names, theta.tolist(), strict=True))
    setup = dataclasses.replace(prepared.setup, parameters=with_values(prepared.setup.parameters, values))
    return dataclasses.replace(prepared, setup=setup, from_nothing=False)


def line_markers(table: LineTable) -> list[tuple[float, str]]:
    """Energy and label of each component's strongest line, for plots."""
    markers = []
    for index, name in enumerate(table.component_names):
        mine = torch.nonzero((table.component == index) & (table.escape_parent < 0))[:, 0]
        strongest = mine[table.ratio[mine].argmax()]
        markers.append((float(table.energy_kev[strongest]), name))
    return markers


def _refuse_tube(config: RunConfig, facts: ScanFacts) -> None:
    """A tube's spectrum has no elastic line, and fitted as monochromatic it gives numbers that mean nothing."""
    if facts.tube is not None and config.sample.source != "tube":
        raise ConfigError(
            f"{facts.source}: was measured with an X-ray tube ({facts.tube}); give sample.source: tube (--source tube) "
            "and sample.incident_energy_kev (--energy), the effective energy at which line ratios are taken"
        )


def _grown(rows: Sequence[Parameter], parameters: Sequence[Parameter]) -> list[str]:
    """A start outside of its bounds is believed, and said."""
    names = [p.name for row, p in zip(rows, parameters, strict=True) if (row.lower, row.upper) != (p.lower, p.upper)]
    return [f"bounds widened to hold the start of {', '.join(names)}"] if names else []


def _published(config: RunConfig) -> list[str]:
    method = config.fit.method
    return [] if method == "separable" else [f"{method} minimises the mean square, as published"]


def _near_edges(
    config: RunConfig, table: LineTable, windows: DetectorSetup, branching: Branching | None
) -> tuple[float, ...]:
    """Edges between which the true incident energy may lie, of lines that hold a share of their family."""
    nominal, sd = table.incident_energy_kev, config.fit.incident_energy_sd_kev
    below = table.edge_kev[table.edge_kev > nominal - 2.0 * sd].tolist()
    # A K family has one edge, and above the nominal energy it is refused.
    names = [n for n in table.component_names if parse_component(n).kind in {"L", "M"}]
    if not names:
        return tuple(sorted(set(below)))
    higher = build_line_table(
        names,
        min(nominal + 2.0 * sd, HIGHEST_INCIDENT_KEV),
        efficiency=windows,
        branching=branching,
        escape=False,
        minimum_ratio=_MINIMUM_RATIO,
    )
    above = [
        edge
        for i in range(len(names))
        for edge in higher.edge_kev[higher.component == i].unique().tolist()
        if edge > nominal and _share_of(higher, i, edge) >= _MINIMUM_SHARE_BEYOND
    ]
    return tuple(sorted({*below, *above}))


def _share_of(table: LineTable, component: int, edge_kev: float) -> float:
    lines = (table.component == component) & (table.edge_kev == edge_kev)
    return float(table.ratio[lines].sum())


def _refuse_components(components: Sequence[str], incident_kev: float, facts: ScanFacts) -> None:
    try:
        parse_components(components, incident_kev, ())
    except FitError as error:
        raise FitError(f"{facts.source}: {error}") from error


def _line_table(
    components: Sequence[str],
    incident_kev: float,
    *,
    windows: DetectorSetup,
    branching: Branching | None,
    facts: ScanFacts,
) -> LineTable:
    try:
        table = build_line_table(
            components, incident_kev, efficiency=windows, branching=branching, minimum_ratio=_MINIMUM_RATIO
        )
        return condense(table)
    except FitError as error:
        raise FitError(f"{facts.source}: {error}") from error


def _override(config: RunConfig, facts: ScanFacts, detector: int) -> Override | None:
    choice = config.fit.override
    if choice == "none":
        found = None
    elif choice == "auto":
        found = find_override(facts.source, detector)
    else:
        found = Path(choice)
    if found is None and config.fit.calibration == "override":
        raise ConfigError(
            f"{facts.source}: fit.calibration is 'override', but no maps_fit_parameters_override.txt lies beside "
            "the scan or in the folder above; name it in fit.override"
        )
    return None if found is None else read_override(found)


def _incident_energy(config: RunConfig, facts: ScanFacts, override: Override | None) -> tuple[float, list[str]]:
    if config.sample.incident_energy_kev is not None:
        return config.sample.incident_energy_kev, []
    if override is not None and "COHERENT_SCT_ENERGY" in override.values:
        energy = override.values["COHERENT_SCT_ENERGY"]
        return energy, [f"incident energy {energy:g} keV from {override.path.name}"]
    if facts.incident_energy_kev is not None:
        return facts.incident_energy_kev, [f"incident energy {facts.incident_energy_kev:g} keV from the scan file"]
    raise ConfigError(
        f"{facts.source}: the incident energy is not known; give sample.incident_energy_kev (--energy), and for a "
        "tube also sample.source: tube, the energy being the effective one"
    )


def _components(config: RunConfig, override: Override | None) -> tuple[str, ...]:
    if config.sample.elements:
        return config.sample.elements
    if override is not None and override.elements:
        return (*override.elements, *override.pileup)
    raise ConfigError("no elements: give sample.elements (--elements Si,P,S,...), or an override file that lists them")


def _energy_range(
    config: RunConfig, override: Override | None, incident_kev: float, facts: ScanFacts, values: dict[str, float]
) -> tuple[float, float]:
    if config.fit.energy_range_kev is not None:
        return config.fit.energy_range_kev
    if override is not None and override.energy_range_kev is not None:
        low, top = override.energy_range_kev
        return low, top
    high = incident_kev + _ABOVE_INCIDENT_KEV
    if "energy_slope" not in values:
        return DEFAULT_ENERGY_MIN_KEV, high
    top = values.get("energy_offset", 0.0) + values["energy_slope"] * (facts.n_channels - 1)
    return DEFAULT_ENERGY_MIN_KEV, min(high, top)


def _refuse_outside(table: LineTable, setup: SpectrumSetup, facts: ScanFacts) -> None:
    """A component whose lines all lie outside the fit range would be fitted to nothing."""
    outside = [
        f"{name} ({_span(table, i)} keV)"
        for i, name in enumerate(table.component_names)
        if _share_inside(table, i, setup) < _MINIMUM_SHARE_INSIDE
    ]
    if outside:
        raise FitError(
            f"{facts.source}: no line of {', '.join(outside)} lies in the fit range "
            f"{setup.energy_min_kev:g} to {setup.energy_max_kev:g} keV; widen it or leave these out"
        )


def _share_inside(table: LineTable, index: int, setup: SpectrumSetup) -> float:
    mine = (table.component == index) & (table.escape_parent < 0)
    energy, ratio = table.energy_kev[mine], table.ratio[mine]
    inside = (energy >= setup.energy_min_kev) & (energy <= setup.energy_max_kev)
    return float(ratio[inside].sum() / ratio.sum())


def _span(table: LineTable, index: int) -> str:
    energies: Sequence[float] = table.energy_kev[table.component == index].tolist()
    return f"{min(energies):.2f} to {max(energies):.2f}"
