"""Sentences on the choices that were made in preparing a fit, written from the origins of its values."""

from collections.abc import Mapping, Sequence
from typing import Final

from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.fitting.spectrum.theta import INCIDENT
from hpcxrf.formats.override import Override
from hpcxrf.notes import Note
from hpcxrf.physics.detector import Detector
from hpcxrf.physics.parameters import Parameter
from hpcxrf.pipeline.prepare.bounds import ParameterRows
from hpcxrf.pipeline.prepare.branching import KBETA, FileBranching
from hpcxrf.pipeline.prepare.resolve import Settings
from hpcxrf.pipeline.prepare.sources import Origin, Sources, Value

# The one parameter whose value means nothing without the width law.
_WIDTH: Final = "fwhm_fanoprime"


# Nominal energies are rounded, and those of a monochromator drift by some tens of eV.
_SAME_ENERGY_KEV: Final = 0.05


def write_notes(
    settings: Settings, sources: Sources, problem: FitProblem, site: Sequence[str] = ()
) -> tuple[Note, ...]:
    """Write a sentence for every value of a fit that is not the user's own word or a plain default.

    Args:
        settings: values with their origins.
        sources: the files that they were read from.
        problem: what was prepared with them.
        site: names of the parameters in `fit.parameters`.
    """
    override = sources.override
    file = [] if override is None else _file_notes(settings, override)
    return (
        *settings.element_notes,
        *_energy_notes(settings, sources),
        *file,
        *_axis_notes(settings, sources, problem),
        *([] if override is None else _bound_notes(settings.rows, override.path.name)),
        *_site_notes(site),
        *_widened_notes(settings.rows.final, problem.parameters),
        *([] if override is None else _window_notes(settings.detector, override.path.name)),
        *([] if override is None else _ratio_notes(settings.branching, override.path.name)),
        *([] if override is None else _snip_notes(settings, override)),
        *_method_notes(problem),
    )


def _site_notes(site: Sequence[str]) -> list[Note]:
    return [Note("fact", f"bounds, priors and scales from fit.parameters: {', '.join(sorted(site))}")] if site else []


def _method_notes(problem: FitProblem) -> list[Note]:
    if problem.method == "separable":
        return []
    return [Note("fact", f"{problem.method} minimises the mean square, as published")]


def _energy_notes(settings: Settings, sources: Sources) -> list[Note]:
    """Where the incident energy is from, and a warning where another source contradicts it."""
    energy = settings.incident_energy_kev
    override, scan_kev = sources.override, sources.facts.incident_energy_kev
    others: dict[str, float | None] = {"the scan file": scan_kev if energy.origin is not Origin.SCAN else None}
    if override is not None and energy.origin is not Origin.OVERRIDE:
        others[override.path.name] = override.values.get("COHERENT_SCT_ENERGY")
    said = _name_energy_source(settings, sources)
    if settings.tube is not None:
        return said
    return said + [
        Note("warning", f"incident energy {energy.value:g} keV is used, but {file} says {other:g} keV")
        for file, other in others.items()
        if other is not None and abs(other - energy.value) > _SAME_ENERGY_KEV
    ]


def _name_energy_source(settings: Settings, sources: Sources) -> list[Note]:
    energy, tube = settings.incident_energy_kev, settings.tube
    if tube is not None:
        place = ", as the scan file says" if tube.origin is Origin.SCAN else ""
        return [Note("fact", f"excited by a {tube.value.anode} tube at {tube.value.kv:g} kV{place}")]
    if energy.origin is Origin.OVERRIDE and sources.override is not None:
        return [Note("fact", f"incident energy {energy.value:g} keV from {sources.override.path.name}")]
    if energy.origin is Origin.SCAN:
        return [Note("fact", f"incident energy {energy.value:g} keV from the scan file")]
    return []


def _file_notes(settings: Settings, override: Override) -> list[Note]:
    used = {n: v for n, v in settings.start.items() if v.origin is Origin.OVERRIDE and n != INCIDENT}
    notes = [Note("fact", f"starting values from {override.path.name}")] if used else []
    if settings.width is not None and _WIDTH in {*used, *settings.width.bounds}:
        notes.append(settings.width.reason)
    return [*notes, *_moved_notes(used)]


def _axis_notes(settings: Settings, sources: Sources, problem: FitProblem) -> list[Note]:
    if problem.find_axis:
        return [Note("fact", "energy calibration determined from the spectrum")]
    if sources.previous is None:
        of_scan = any(one.origin is Origin.SCAN and name != INCIDENT for name, one in settings.start.items())
        return [Note("fact", "energy calibration from the scan file")] if of_scan else []
    earlier = {n: v for n, v in settings.start.items() if v.origin is Origin.PREVIOUS}
    notes = [Note("fact", f"starting values from {sources.previous.store.name}, detector {sources.detector}")]
    notes += _moved_notes(earlier)
    if settings.start[INCIDENT] == settings.incident_energy_kev:
        text = (
            f"incident energy starts at its nominal {settings.incident_energy_kev.value:g} keV: it was "
            f"{sources.previous.theta[INCIDENT]:g} keV there"
        )
        notes.append(Note("warning", text))
    return notes


def _moved_notes(values: Mapping[str, Value[float]]) -> list[Note]:
    return [
        Note("warning", f"start of {name} {one.written:g} is taken as {one.value:g}")
        for name, one in values.items()
        if one.written is not None
    ]


def _bound_notes(rows: ParameterRows, file: str) -> list[Note]:
    before = {p.name: p for p in rows.default}
    bounded = {n: p for n, p in rows.from_file.items() if p is not None}
    held = [n for n, p in bounded.items() if before[n].free and not p.free]
    used = [
        f"{n} {p.lower:g} to {p.upper:g}"
        for n, p in bounded.items()
        if p.free and (p.lower, p.upper) != (before[n].lower, before[n].upper)
    ]
    unused = [n for n, p in rows.from_file.items() if p is None]
    notes = [Note("fact", f"bounds from {file}: {', '.join(used)}")] if used else []
    if held:
        notes.append(Note("fact", f"fixed, as {file} gives them one bound for both: {', '.join(held)}"))
    if unused:
        text = f"not used of {file}: bounds of {', '.join(unused)}, which no detector has within"
        notes.append(Note("warning", text))
    return notes


def _widened_notes(rows: Sequence[Parameter], parameters: Sequence[Parameter]) -> list[Note]:
    """Warning that a start lies outside of its bounds: it is believed."""
    names = [p.name for row, p in zip(rows, parameters, strict=True) if (row.lower, row.upper) != (p.lower, p.upper)]
    return [Note("warning", f"bounds widened to hold the start of {', '.join(names)}")] if names else []


def _window_notes(detector: Mapping[str, Value[object]], file: str) -> list[Note]:
    usual = Detector()
    words = [
        f"{name} {one.value}"
        for name, one in detector.items()
        if one.origin is Origin.OVERRIDE and one.value != getattr(usual, name)
    ]
    return [Note("fact", f"detector: {', '.join(words)} from {file}")] if words else []


def _ratio_notes(branching: FileBranching | None, file: str) -> list[Note]:
    if branching is None:
        return []
    applied, notes = branching.applied, []
    if applied.kbeta_base:
        words = [f"{s} {ratio * applied.k_ratios[s][KBETA]:.3f}" for s, ratio in applied.kbeta_base.items()]
        text = (
            f"K-beta to K-alpha-1 of {', '.join(words)}: the multipliers of {file} times the ratios of the MAPS line "
            "table, which they were made for"
        )
        notes.append(Note("fact", text))
    direct = [s for s, m in applied.k_ratios.items() if (m[0], m[1], m[3]) != (1.0, 1.0, 1.0)]
    direct = [*direct, *dict.fromkeys([*applied.l_families, *applied.l_ratios])]
    if direct:
        text = (
            f"line ratios of {', '.join(direct)}: multipliers of {file} on the library's ratios; if they were made to "
            "repair the MAPS line table, remove them"
        )
        notes.append(Note("warning", text))
    if branching.unknown:
        text = (
            f"not used of {file}: K multipliers of {', '.join(branching.unknown)}, as the ratio of the MAPS line table "
            "that they belong to is not known; the library's is used"
        )
        notes.append(Note("warning", text))
    return notes


def _snip_notes(settings: Settings, override: Override) -> list[Note]:
    width = override.values.get("SNIP_WIDTH")
    if width is None:
        return []
    if settings.snip_width is not None:
        return [Note("fact", f"peak clipping with SNIP_WIDTH {width:g} of {override.path.name}")]
    text = (
        f"not used of {override.path.name}: SNIP_WIDTH {width:g}, a width of the peak clipping of MAPS; it acts with "
        "fit.background: snip and a MAPS set of fit.constants"
    )
    return [Note("warning", text)]
