"""From a run file and a scan to the problem that is fitted; every choice is put into words."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hpcxrf.config.run import RunConfig
from hpcxrf.errors import ConfigError, FitError
from hpcxrf.fitting.spectrum.prepare import FitOptions, build_problem, lines_outside
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.fitting.spectrum.theta import AXIS, STATED, WRITTEN, AxisTrust
from hpcxrf.formats.scan import EnergyCalibration
from hpcxrf.notes import Note
from hpcxrf.physics.constants import constant_set
from hpcxrf.physics.detector import Detector
from hpcxrf.physics.element_list import leave_out
from hpcxrf.physics.lines import LineTable
from hpcxrf.pipeline.prepare.notes import write_notes
from hpcxrf.pipeline.prepare.resolve import Settings, resolve
from hpcxrf.pipeline.prepare.sources import Origin, read_sources
from hpcxrf.pipeline.records import ScanFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedFit:
    """The problem of one detector, and why it is this one."""

    problem: FitProblem
    notes: tuple[Note, ...]


def prepare(config: RunConfig, facts: ScanFacts, detector: int) -> PreparedFit:
    """Read what the files say about one detector, and prepare its fit.

    Args:
        config: a checked run file.
        facts: facts of the scan.
        detector: number of the detector, counted from 0.

    Raises:
        ConfigError: no elements, no energy calibration, or no incident energy in any source; names of parameters
            that do not exist.
        FitError: elements that do not exist, or none that is excited and has a line in the fit range.
        InputFileError: the override file cannot be read.
    """
    sources = read_sources(config.fit, facts, detector)
    settings = resolve(config, sources)
    try:
        problem, outside = _prepare_inside(config, settings, facts.n_channels)
    except (ConfigError, FitError) as error:
        raise type(error)(f"{facts.source}: {error}") from error
    notes = write_notes(settings, sources, problem, tuple(config.fit.parameters))
    return PreparedFit(problem=problem, notes=(*notes, *outside))


def _prepare_inside(config: RunConfig, settings: Settings, n_channels: int) -> tuple[FitProblem, tuple[Note, ...]]:
    """The problem without components whose lines all lie outside of the fit range, and sentences on those."""
    names = settings.elements.value
    problem = _prepare(config, settings, names, n_channels)
    outside = lines_outside(problem)
    if not outside:
        return problem, ()
    span = f"the fit range {problem.energy_min_kev:g} to {problem.energy_max_kev:g} keV"
    kept = leave_out(names, {name: f"{line}: no line lies in {span}" for name, line in outside.items()})
    if not kept.names:
        reasons = "; ".join(note.text for note in kept.notes)
        raise FitError(f"no element of the list can be fitted; {reasons}; widen fit.energy_range_kev")
    return _prepare(config, settings, kept.names, n_channels), kept.notes


def _prepare(config: RunConfig, settings: Settings, elements: Sequence[str], n_channels: int) -> FitProblem:
    """The run file as a caller of the library."""
    fit, start = config.fit, {name: one.value for name, one in settings.start.items()}
    energy_range, branching, snip_width = settings.energy_range_kev, settings.branching, settings.snip_width
    return build_problem(
        elements,
        settings.incident_energy_kev.value,
        n_channels=n_channels,
        calibration=None if fit.calibration == "none" else _calibration(start),
        trust=_trust(config, settings),
        detector=Detector(**{name: one.value for name, one in settings.detector.items()}),
        air_is_known=config.detector.air_path_mm is not None,
        options=FitOptions(
            energy_range_kev=None if energy_range is None else energy_range.value,
            background=fit.background,
            method=fit.method,
            objective=fit.objective,
            kbeta_sd=fit.kbeta_sd,
            incident_energy_sd_kev=fit.incident_energy_sd_kev,
            source=config.sample.source if settings.tube is None else "tube",
            tube=None if settings.tube is None else settings.tube.value,
            constants=constant_set(fit.constants),
            snip_width=None if snip_width is None else snip_width.value,
        ),
        parameters=settings.rows.final,
        start=start,
        fixed=fit.fixed,
        free=fit.free,
        branching=None if branching is None else branching.applied,
    )


def _calibration(start: dict[str, float]) -> EnergyCalibration:
    offset, slope, quadratic = (start.get(name, 0.0) for name in AXIS)
    return EnergyCalibration(offset_kev=offset, slope_kev=slope, quadratic_kev=quadratic)


def _trust(config: RunConfig, settings: Settings) -> AxisTrust:
    """Trust in the calibration by where it comes from: the user's own word, or a file."""
    stated = {Origin.RUN_FILE, Origin.PREVIOUS}
    axis = [settings.start[name].origin for name in ("energy_offset", "energy_slope") if name in settings.start]
    of_scan = config.input.energy_slope_kev is not None and Origin.SCAN in axis
    return STATED if of_scan or (axis and set(axis) <= stated) else WRITTEN


def line_markers(table: LineTable) -> list[tuple[float, str]]:
    """Find energy (keV) and label of each component's strongest line, for plots."""
    markers = []
    for index, name in enumerate(table.component_names):
        mine = torch.nonzero((table.component == index) & (table.escape_parent < 0))[:, 0]
        strongest = mine[table.ratio[mine].argmax()]
        markers.append((float(table.energy_kev[strongest]), name))
    return markers
