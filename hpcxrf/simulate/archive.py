"""Specifications of a synthetic archive: small maps as varied as what five years of a beamline bring."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import ConfigError
from hpcxrf.formats.scan import EnergyCalibration
from hpcxrf.simulate.sampling import (
    draw_detector,
    draw_nominal_energy_kev,
    draw_rate_hz,
    draw_sample,
    draw_scatter,
    make_generator,
)
from hpcxrf.simulate.scan import beam_current, live_share, phase_density
from hpcxrf.simulate.spec import SCATTER_COMPONENTS, DetectorSpec, PhaseSpec, ScanSpec, StructureKind, StructureSpec

MAX_DRAWN_DETECTORS: Final = 4
FEWEST_PIXELS_A_SIDE: Final = 4
"""Fewest rows and columns: with fewer no structure shows, and 1e8 counts would not fit into the pixels."""
CHANNEL_LIMITS: Final = (512, 8192)

_DATASETS: Final = 3
"""First word of the spawn keys that make an archive's datasets independent of each other."""
_MOST_IN_ONE_PIXEL: Final = 0.25
_KINDS: Final[tuple[StructureKind, ...]] = ("smooth", "cells", "grains", "spots")

FloatArray = NDArray[np.float64]


def dataset_name(index: int) -> str:
    """`sim-00000`."""
    return f"sim-{index:05d}"


def dataset_seed(seed: int, index: int) -> int:
    """Seed of one dataset of an archive, 0 to 2^53 - 1, so that every reader of JSON keeps it."""
    words = np.random.SeedSequence(seed, spawn_key=(_DATASETS, index))
    return int(words.generate_state(1, np.uint64)[0] >> np.uint64(11))


def archive_spec(
    seed: int, index: int, *, shape_yx: tuple[int, int] = (8, 8), channels: int = 2048, detectors: int | None = None
) -> ScanSpec:
    """One dataset of a synthetic archive; the same for the same arguments, whatever else the archive holds.

    Samples, energies, detectors and scatter are drawn as in `random_spectrum_spec`: 8-20 keV, 3-25 families,
    0-2 of them unlisted, 1-4 listed ones absent, nominal incident energy within 0.3 keV of the true one. Here
    they lie in 2-3 phases with structure, so that a region differs in composition from the whole; the
    summed spectrum of detector 0 expects 1e3 to 1e8 recorded counts, log-uniform, at 3e3 to 2e5 events a
    second in the hottest pixel (at most 12 % dead time); the detectors' calibrations lie near a common one:
    slope +-1 %, offset +-30 eV. The file claims the true calibrations: who benchmarks draws his starting
    values around them, or takes none.

    Args:
        seed: of the archive, not negative.
        index: of the dataset, not negative.
        shape_yx: rows and columns, at least 4 each.
        channels: 512 to 8192; the slope is inverse to it.
        detectors: 1 to 4; drawn if not given. The others stay what they are when it changes.

    Raises:
        ConfigError: every argument that is out of range.
    """
    check_options(seed=seed, shape_yx=shape_yx, channels=channels, detectors=detectors)
    number = dataset_seed(seed, index)
    rng = make_generator(number)
    sample = draw_sample(rng)
    energy = sample.incident_energy_kev
    common = draw_detector(rng, energy, channels)
    scatter = draw_scatter(rng)
    nominal, rate_hz = draw_nominal_energy_kev(rng, energy), draw_rate_hz(rng)
    phases = _draw_phases(rng, sample.counts)
    drawn = int(rng.integers(1, MAX_DRAWN_DETECTORS + 1))
    chosen = tuple(_draw_near(rng, common, i) for i in range(detectors or drawn))
    spec = ScanSpec(
        name=dataset_name(index),
        seed=number,
        shape=(len(chosen), *shape_yx, channels),
        incident_energy_kev=energy,
        detectors=chosen,
        phases=phases,
        listed_elements=sample.listed_elements,
        scatter=scatter,
        file_energy_kev=nominal,
    )
    return _expose(_spread_phases(spec), sample.total_counts, rate_hz)


def check_options(*, seed: int, shape_yx: tuple[int, int], channels: int, detectors: int | None) -> None:
    """Refuse options that are out of range.

    Raises:
        ConfigError: every argument that is out of range.
    """
    low, high = CHANNEL_LIMITS
    faults = []
    if seed < 0:
        faults.append(f"seed {seed}: must not be negative")
    if min(shape_yx) < FEWEST_PIXELS_A_SIDE:
        faults.append(f"shape {shape_yx}: must be at least {FEWEST_PIXELS_A_SIDE} rows and columns")
    if not low <= channels <= high:
        faults.append(f"{channels} channels: must be {low} to {high}")
    if detectors is not None and not 1 <= detectors <= MAX_DRAWN_DETECTORS:
        faults.append(f"{detectors} detectors: must be 1 to {MAX_DRAWN_DETECTORS}")
    if faults:
        raise ConfigError("archive: " + "; ".join(faults))


def _draw_near(rng: np.random.Generator, common: DetectorSpec, index: int) -> DetectorSpec:
    """A detector of the same make as the others, with its own axis, width, tail and solid angle."""
    axis = common.calibration
    calibration = EnergyCalibration(
        offset_kev=axis.offset_kev + float(rng.uniform(-0.03, 0.03)),
        slope_kev=axis.slope_kev * (1.0 + float(rng.uniform(-0.01, 0.01))),
        quadratic_kev=axis.quadratic_kev,
    )
    gain = float(rng.uniform(0.5, 1.0))
    return replace(
        common,
        calibration=calibration,
        noise_fwhm_kev=float(rng.uniform(0.05, 0.14)),
        tail_fraction=float(rng.uniform(0.0, 0.05)),
        gain=gain if index else 1.0,
    )


def _draw_phases(rng: np.random.Generator, counts: Mapping[str, float]) -> tuple[PhaseSpec, ...]:
    """Two or three phases that share the events of the whole map among them.

    The first lies everywhere and holds most of the scatter. Families have their own preference for a phase.
    """
    phases = int(rng.integers(2, 4))
    scatters = np.array([name in SCATTER_COMPONENTS for name in counts])
    preference = np.exp(rng.normal(0.0, np.where(scatters, 0.4, 1.2), (phases, len(counts))))
    preference[1:, scatters] *= 0.3
    share = preference / preference.sum(axis=0)
    structures = [_draw_structure(rng, main=i == 0) for i in range(phases)]
    return tuple(
        PhaseSpec(
            name="matrix" if i == 0 else f"inclusion {i}",
            counts={n: float(s) * c for (n, c), s in zip(counts.items(), share[i], strict=True)},
            structure=structure,
        )
        for i, structure in enumerate(structures)
    )


def _draw_structure(rng: np.random.Generator, *, main: bool) -> StructureSpec:
    kind = _KINDS[0] if main else _KINDS[int(rng.integers(len(_KINDS)))]
    size, contrast = float(rng.uniform(0.15, 0.4)), float(rng.uniform(0.5, 1.0))
    share, number = float(rng.uniform(0.3, 0.7)), float(rng.uniform(6.0, 25.0))
    return StructureSpec(
        kind=kind, size=size, cover=number if kind == "spots" else share, contrast=0.3 * contrast if main else contrast
    )


def _spread_phases(spec: ScanSpec) -> ScanSpec:
    """The same with cells for a phase that lies in no pixel, or nearly all of it in one."""
    density = phase_density(spec)
    total = density.sum(axis=(1, 2))
    bad = density.max(axis=(1, 2)) >= _MOST_IN_ONE_PIXEL * total
    phases = (
        replace(p, structure=replace(p.structure, kind="cells")) if b else p
        for p, b in zip(spec.phases, bad.tolist(), strict=True)
    )
    return replace(spec, phases=tuple(phases))


def _expose(spec: ScanSpec, total_counts: float, rate_hz: float) -> ScanSpec:
    """The same with counts a pixel in place of those of the whole map, and with its exposure.

    The hottest pixel of the detector that sees most has the rate; detector 0 (of gain 1) records the total.
    """
    height = spec.shape[1]
    lit = phase_density(spec) * np.stack([beam_current(spec, row) for row in range(height)])
    pixels = lit.sum(axis=(1, 2)).tolist()
    phases = tuple(
        replace(p, counts={name: c / n for name, c in p.counts.items()})
        for p, n in zip(spec.phases, pixels, strict=True)
    )
    events = np.tensordot([sum(p.counts.values()) for p in phases], lit, axes=1)
    real_time_s = float(events.max()) * max(d.gain for d in spec.detectors) / rate_hz
    live = live_share(events / real_time_s, spec.detectors[0].dead_time_s)
    scale = total_counts / float((events * live).sum())
    return replace(spec, phases=phases, counts_scale=scale, real_time_s=scale * real_time_s)
