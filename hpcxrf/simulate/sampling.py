"""Samples, detectors and beams drawn at random, as varied as what five years of a beamline bring."""

from dataclasses import dataclass

import numpy as np

from hpcxrf.formats.scan import EnergyCalibration
from hpcxrf.simulate.line_data import LIGHTEST, edge_kev, line_kev, list_symbols
from hpcxrf.simulate.spec import DetectorSpec, ScatterSpec

_SAMPLES = 2
"""First word of the spawn keys: the random numbers of a sample are those of no structure and no noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnSample:
    """A sample in the beam, and the user's list of its elements."""

    incident_energy_kev: float
    counts: dict[str, float]
    """Events by family and by `elastic`, `compton`, `continuum`; they sum to `total_counts`."""
    total_counts: float
    listed_elements: tuple[str, ...]
    """Sorted: without the unlisted families, with families that are not there."""


def make_generator(seed: int) -> np.random.Generator:
    """The random numbers that a sample, its detectors and its beam are drawn from."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_SAMPLES,)))


def draw_sample(rng: np.random.Generator) -> DrawnSample:
    """8-20 keV; 3-25 families with strengths over three decades; 1e3-1e8 counts, log-uniform.

    0-2 families are traces that are not listed, at most 1 % of the fluorescence and never so many that
    fewer than three are listed; 1-4 listed ones are not there.
    """
    energy = float(rng.uniform(8.0, 20.0))
    candidates = _list_candidates(energy)
    present = rng.choice(candidates, int(rng.integers(3, min(25, len(candidates) - 4) + 1)), replace=False)
    rest = [name for name in candidates if name not in set(present)]
    absent = rng.choice(rest, int(rng.integers(1, 5)), replace=False)
    hidden = present[: min(int(rng.integers(0, 3)), len(present) - 3)]
    unlisted = {str(n) for n in hidden}
    total = float(10 ** rng.uniform(3.0, 8.0))
    counts = _draw_counts(rng, [str(n) for n in present], unlisted, total)
    return DrawnSample(
        incident_energy_kev=energy,
        counts=counts,
        total_counts=total,
        listed_elements=tuple(sorted({*map(str, present), *map(str, absent)} - unlisted)),
    )


def draw_nominal_energy_kev(rng: np.random.Generator, incident_energy_kev: float) -> float:
    """Nominal incident energy of the beamline: within 0.3 keV of the true one."""
    return incident_energy_kev + float(rng.uniform(-0.3, 0.3))


def draw_rate_hz(rng: np.random.Generator) -> float:
    """Input count rate, 3e3 to 2e5 events a second, log-uniform: at most 12 % dead time."""
    return float(10 ** rng.uniform(3.5, 5.3))


def _list_candidates(incident_energy_kev: float) -> list[str]:
    """Families with their strongest line between 1.2 keV and the incident energy; rare ones left out."""
    shells = (("", range(13, 57), "K"), ("_L", range(42, 93), "L3"), ("_M", range(76, 93), "M5"))
    symbols = list_symbols()
    rare = {"Kr", "Tc", "Xe", "Pm", "Po", "At", "Rn", "Fr", "Ra", "Ac", "Pa"}
    return [
        f"{symbol}{suffix}"
        for suffix, numbers, subshell in shells
        for number in numbers
        if (symbol := symbols[number - LIGHTEST]) not in rare
        and edge_kev(symbol, subshell) < incident_energy_kev - 0.4
        and line_kev(symbol, subshell) > 1.2
    ]


def _draw_counts(rng: np.random.Generator, present: list[str], unlisted: set[str], total: float) -> dict[str, float]:
    """Events by component; unlisted families are traces, at most 1 % of the fluorescence."""
    strength = 10 ** rng.uniform(-3.0, 0.0, len(present))
    known = sum(s for n, s in zip(present, strength, strict=True) if n not in unlisted)
    shares = {
        n: min(float(s), 0.01 * known) if n in unlisted else float(s) for n, s in zip(present, strength, strict=True)
    }
    scatter = dict(
        zip(
            ("elastic", "compton", "continuum"),
            (10 ** rng.uniform([-2.0, -1.7, -1.7], [-0.7, -0.4, -0.7])).tolist(),
            strict=True,
        )
    )
    fluorescence = (1.0 - sum(scatter.values()) * 0.99) / sum(shares.values())
    events = {name: share * max(fluorescence, 0.1) for name, share in shares.items()} | scatter
    scale = total / sum(events.values())
    return {name: value * scale for name, value in events.items()}


def draw_detector(rng: np.random.Generator, incident_energy_kev: float, channels: int) -> DetectorSpec:
    """Slope 0.008-0.015 keV for 2048 channels (inversely for others), offset +-0.3 keV.

    The axis reaches at least 0.7 keV above the incident energy.
    """
    per_channel = 2048 / channels
    least = max(0.008 * per_channel, (incident_energy_kev + 1.0) / channels)
    calibration = EnergyCalibration(
        offset_kev=float(rng.uniform(-0.3, 0.3)),
        slope_kev=float(rng.uniform(least, 0.015 * per_channel)),
        quadratic_kev=float(rng.uniform(-1e-8, 1e-8)) * per_channel**2,
    )
    return DetectorSpec(
        calibration=calibration,
        noise_fwhm_kev=float(rng.uniform(0.05, 0.14)),
        fano_factor=float(rng.uniform(0.105, 0.135)),
        tail_fraction=float(rng.uniform(0.0, 0.05)),
        tail_gamma=float(rng.uniform(1.5, 4.0)),
        step_fraction=float(rng.uniform(0.0, 0.005)),
        be_window_um=float(rng.choice([8.0, 12.5, 25.0])),
        air_path_cm=float(rng.uniform(0.0, 4.0)),
        dead_layer_um=float(rng.uniform(0.05, 0.3)),
        chip_um=float(rng.choice([350.0, 450.0, 500.0, 1000.0])),
        pileup_time_s=float(10 ** rng.uniform(-8.0, -6.7)),
    )


def draw_scatter(rng: np.random.Generator) -> ScatterSpec:
    """A Compton peak between 70 and 150 degrees, asymmetric."""
    return ScatterSpec(
        angle_deg=float(rng.uniform(70.0, 150.0)),
        doppler=float(rng.uniform(0.004, 0.014)),
        low_tail_fraction=float(rng.uniform(0.1, 0.4)),
        low_tail_gamma=float(rng.uniform(1.5, 4.0)),
        high_tail_fraction=float(rng.uniform(0.0, 0.08)),
        high_tail_gamma=float(rng.uniform(1.5, 3.0)),
    )
