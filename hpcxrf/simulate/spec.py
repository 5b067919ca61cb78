"""Specification of a simulated scan: detectors, phases and their places, exposure, listed elements."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from hpcxrf.errors import ConfigError
from hpcxrf.formats.scan import EnergyCalibration

StructureKind = Literal["uniform", "smooth", "cells", "grains", "veins", "spots"]
Region = Literal["everywhere", "leaf", "around"]

SCATTER_COMPONENTS: Final = ("elastic", "compton", "continuum")
"""Names that a phase may give beside element families."""

MAX_DETECTORS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorSpec:
    """One silicon drift detector and its electronics."""

    calibration: EnergyCalibration = field(default_factory=lambda: EnergyCalibration(offset_kev=0.0, slope_kev=0.01))
    noise_fwhm_kev: float = 0.09
    fano_factor: float = 0.115
    tail_fraction: float = 0.015
    """Share of a line's counts in its exponential tail, at about 3 keV."""
    tail_gamma: float = 2.5
    """Decay length of that tail in units of the line's sigma."""
    step_fraction: float = 0.002
    escape_scale: float = 1.0
    """Multiplies the computed probability of a silicon escape; 0 switches it off."""
    be_window_um: float = 8.0
    air_path_cm: float = 1.0
    dead_layer_um: float = 0.1
    chip_um: float = 450.0
    gain: float = 1.0
    """Solid angle relative to the nominal detector."""
    dead_time_s: float = 6e-7
    """Dead time per event, non-extending."""
    pileup_time_s: float = 5e-8
    """Two events nearer than this are recorded as one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScatterSpec:
    """Profile of the Compton peak."""

    angle_deg: float = 95.0
    doppler: float = 0.008
    """Standard deviation of the Doppler broadening relative to the peak's energy."""
    low_tail_fraction: float = 0.25
    low_tail_gamma: float = 2.5
    high_tail_fraction: float = 0.03
    high_tail_gamma: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StructureSpec:
    """Variation of a phase's density over the scan; lengths in units of the scan's shorter side."""

    kind: StructureKind = "uniform"
    region: Region = "everywhere"
    size: float = 0.1
    """Typical size of a grain, a cell, a spot, a gradient."""
    cover: float = 0.5
    """`grains`: share of the grains that hold the phase; `spots`: number per unit area."""
    contrast: float = 0.3
    """Standard deviation of the logarithm of the density from place to place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseSpec:
    """A material: the counts that a pixel full of it gives, and where it lies."""

    name: str
    counts: Mapping[str, float]
    """Events a pixel by family (`Fe`, `Pb_L`, `Au_M`) or by `elastic`, `compton`, `continuum`."""
    structure: StructureSpec = field(default_factory=StructureSpec)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanSpec:
    """A simulated scan. The same specification always gives the same counts."""

    name: str
    seed: int
    shape: tuple[int, int, int, int]
    """(detector, y, x, channel)."""
    incident_energy_kev: float
    detectors: tuple[DetectorSpec, ...]
    phases: tuple[PhaseSpec, ...]
    listed_elements: tuple[str, ...]
    """Elements that the user lists: may lack one that is there and hold one that is not."""
    scatter: ScatterSpec = field(default_factory=ScatterSpec)
    counts_scale: float = 1.0
    """Multiplies the counts of every phase."""
    real_time_s: float = 0.02
    """Exposure of a pixel."""
    i0_drift: float = 0.03
    """Relative loss of the incident beam between two top-ups of the ring."""
    step_um: float = 5.0
    file_calibration: tuple[EnergyCalibration, ...] | None = None
    """Calibration that the file claims, one per detector; None: the true one."""
    file_energy_kev: float | None = None
    """Incident energy that the file claims; None: the true one."""


def list_families(spec: ScanSpec) -> tuple[str, ...]:
    """Element families of all phases, each once, in the order of first appearance."""
    names = (name for phase in spec.phases for name in phase.counts)
    return tuple(dict.fromkeys(n for n in names if n not in SCATTER_COMPONENTS))


def check_spec(spec: ScanSpec) -> None:
    """Refuse what cannot be simulated.

    Raises:
        ConfigError: every fault of the specification at once.
    """
    faults = [*_check_shape(spec), *_check_beam(spec), *_check_phases(spec)]
    if faults:
        raise ConfigError(f"simulation {spec.name!r}: " + "; ".join(faults))


def _check_shape(spec: ScanSpec) -> list[str]:
    faults = []
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", spec.name):
        faults.append("the name becomes a file's: letters, digits, dot, underscore and hyphen only")
    if min(spec.shape) < 1:
        faults.append(f"shape {spec.shape}: must be four positive numbers (detector, y, x, channel)")
    if len(spec.detectors) != spec.shape[0] or len(spec.detectors) > MAX_DETECTORS:
        faults.append(
            f"{len(spec.detectors)} detectors for shape {spec.shape}: must be equal, and at most {MAX_DETECTORS}"
        )
    claimed = spec.file_calibration
    if claimed is not None and len(claimed) != len(spec.detectors):
        faults.append(f"file_calibration has {len(claimed)} entries: must be one per detector")
    faults += [
        f"detector {i}: slope {d.calibration.slope_kev} keV must be positive"
        for i, d in enumerate(spec.detectors)
        if not d.calibration.slope_kev > 0
    ]
    return faults


def _check_beam(spec: ScanSpec) -> list[str]:
    positive = {
        "incident_energy_kev": spec.incident_energy_kev,
        "real_time_s": spec.real_time_s,
        "counts_scale": spec.counts_scale,
        "step_um": spec.step_um,
    }
    faults = [f"{name} {value}: must be positive" for name, value in positive.items() if not value > 0]
    if not 0 <= spec.i0_drift < 1:
        faults.append(f"i0_drift {spec.i0_drift}: must be at least 0 and less than 1")
    if spec.seed < 0:
        faults.append(f"seed {spec.seed}: must not be negative")
    return faults


def _check_phases(spec: ScanSpec) -> list[str]:
    faults = [] if spec.phases else ["no phase: must have at least one"]
    return faults + [
        f"phase {phase.name!r}: {name} {counts} counts must be finite and not negative"
        for phase in spec.phases
        for name, counts in phase.counts.items()
        if not 0 <= counts < float("inf")
    ]
