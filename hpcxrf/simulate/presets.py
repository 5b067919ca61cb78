"""Ready specifications: the demonstration scan, and spectra as varied as a beamline's archive."""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.formats.scan import EnergyCalibration
from hpcxrf.simulate.scan import (
    SimulatedScan,
    draw_counts,
    expected_amplitudes,
    expected_counts,
    simulate_scan,
)
from hpcxrf.simulate.spec import (
    DetectorSpec,
    PhaseSpec,
    ScanSpec,
    ScatterSpec,
    StructureSpec,
)

DEMO_ENERGY_KEV: Final = 13.5
DEMO_ELEMENTS: Final = (
    *("Si", "P", "S", "Cl", "Ar", "K", "Ca", "Ti", "Mn", "Fe", "Ni", "Cu", "Zn", "As"),
    "Pb_L",
)
"""What the demonstration tells the user to fit; its leaf also holds a trace of Se."""

_AIR: Final = PhaseSpec(
    name="air", counts={"Ar": 14.0, "elastic": 12.0, "compton": 10.0, "continuum": 12.0}
)
_TISSUE: Final = PhaseSpec(
    name="leaf tissue",
    counts={
        "Si": 12.0,
        "P": 40.0,
        "S": 75.0,
        "Cl": 90.0,
        "K": 420.0,
        "Ca": 170.0,
        "Mn": 22.0,
        "Fe": 30.0,
        "Cu": 7.0,
        "Zn": 26.0,
        "Se": 1.5,
        "elastic": 70.0,
        "compton": 260.0,
        "continuum": 90.0,
    },
    structure=StructureSpec(kind="cells", region="leaf", size=0.055, contrast=0.16),
)
_SAP: Final = PhaseSpec(
    name="potassium-rich side",
    counts={"K": 170.0, "Cl": 60.0, "S": 18.0, "compton": 30.0},
    structure=StructureSpec(kind="smooth", region="leaf", size=0.22, contrast=0.55),
)
_VEIN: Final = PhaseSpec(
    name="veins",
    counts={
        "P": 30.0,
        "Cl": 60.0,
        "K": 520.0,
        "Ca": 640.0,
        "Mn": 16.0,
        "Zn": 40.0,
        "Cu": 6.0,
        "elastic": 40.0,
        "compton": 170.0,
        "continuum": 50.0,
    },
    structure=StructureSpec(kind="veins", region="leaf", size=0.024, contrast=0.6),
)
_TRICHOME: Final = PhaseSpec(
    name="trichome bases",
    counts={"Si": 140.0, "Ca": 620.0, "Mn": 520.0, "Zn": 60.0, "compton": 40.0},
    structure=StructureSpec(kind="spots", region="leaf", size=0.03, cover=26.0, contrast=0.5),
)
_SILICATE: Final = PhaseSpec(
    name="silicate soil",
    counts={
        "Si": 210.0,
        "K": 260.0,
        "Ca": 110.0,
        "Ti": 110.0,
        "Mn": 20.0,
        "Fe": 900.0,
        "Ni": 4.0,
        "Zn": 10.0,
        "elastic": 60.0,
        "compton": 90.0,
        "continuum": 110.0,
    },
    structure=StructureSpec(kind="grains", region="around", size=0.12, cover=0.75, contrast=0.5),
)
_CARBONATE: Final = PhaseSpec(
    name="carbonate grains",
    counts={"Ca": 2300.0, "Mn": 25.0, "Fe": 50.0, "elastic": 40.0, "continuum": 60.0},
    structure=StructureSpec(kind="grains", region="around", size=0.09, cover=0.22, contrast=0.4),
)
_RUTILE: Final = PhaseSpec(
    name="titanium oxide grains",
    counts={"Ti": 1100.0, "Fe": 160.0, "continuum": 30.0},
    structure=StructureSpec(kind="spots", region="around", size=0.03, cover=16.0, contrast=0.6),
)
_OXIDE: Final = PhaseSpec(
    name="iron oxide particles",
    counts={"Fe": 3600.0, "Mn": 150.0, "Ni": 130.0, "As": 60.0, "continuum": 50.0},
    structure=StructureSpec(kind="spots", region="around", size=0.045, cover=14.0, contrast=0.5),
)
_DUST: Final = PhaseSpec(
    name="smelter dust",
    counts={"S": 120.0, "Fe": 90.0, "Cu": 330.0, "Zn": 700.0, "As": 120.0, "Pb_L": 560.0},
    structure=StructureSpec(
        kind="spots", region="everywhere", size=0.024, cover=34.0, contrast=0.6
    ),
)
DEMO_PHASES: Final = (
    *(_AIR, _TISSUE, _SAP, _VEIN, _TRICHOME),
    *(_SILICATE, _CARBONATE, _RUTILE, _OXIDE, _DUST),
)


def demo_spec(
    *,
    seed: int = 7,
    shape: tuple[int, int, int, int] = (2, 96, 128, 2048),
    name: str = "leaf_on_soil",
    counts_scale: float = 1.0,
) -> ScanSpec:
    """A leaf on soil with hot particles at 13.5 keV.

    About 300 to 5000 counts a pixel and detector, times `counts_scale` (0.01 to 30 are sensible), which is
    reached by exposure at an unchanged rate. The calibrations that the file claims are off by a few eV, as
    an instrument's are. `shape` is (detector, y, x, channel) with 1 to 8 detectors.
    """
    detectors = tuple(_demo_detector(i) for i in range(shape[0]))
    return ScanSpec(
        name=name,
        seed=seed,
        shape=shape,
        incident_energy_kev=DEMO_ENERGY_KEV,
        detectors=detectors,
        phases=DEMO_PHASES,
        listed_elements=DEMO_ELEMENTS,
        counts_scale=counts_scale,
        real_time_s=0.03 * counts_scale,
        file_calibration=tuple(_claimed(d.calibration) for d in detectors),
    )


def _demo_detector(index: int) -> DetectorSpec:
    """Detectors that differ in calibration, resolution and solid angle; 2048 channels hold 18 keV."""
    return DetectorSpec(
        calibration=EnergyCalibration(
            offset_kev=0.012 - 0.021 * index, slope_kev=0.00952 + 0.00011 * index
        ),
        noise_fwhm_kev=0.085 + 0.006 * index,
        gain=(1.0, 0.86, 0.93, 0.74)[index % 4],
    )


def _claimed(true: EnergyCalibration) -> EnergyCalibration:
    return replace(true, offset_kev=true.offset_kev - 0.006, slope_kev=true.slope_kev * 1.0004)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedSpectrum:
    """One integrated spectrum with its truth."""

    scan: SimulatedScan
    counts: NDArray[np.uint32]
    """(channel,)."""
    expected: NDArray[np.float64]
    """(channel,) the same without noise."""
    amplitude: dict[str, float]
    """Expected recorded counts of each component, those in pile-up left out."""


def simulate_spectrum(spec: ScanSpec) -> SimulatedSpectrum:
    """Draw the sum spectrum of detector 0 over all pixels of a specification."""
    scan = simulate_scan(spec)
    everything = slice(None)
    amplitudes = expected_amplitudes(scan, everything)[0].sum(axis=(1, 2))
    counts = draw_counts(scan, everything)[0].sum(axis=(0, 1), dtype=np.uint32)
    return SimulatedSpectrum(
        scan=scan,
        counts=counts,
        expected=expected_counts(scan, everything)[0].sum(axis=(0, 1)),
        amplitude=dict(zip(scan.components, amplitudes.tolist(), strict=True)),
    )


def random_spectrum_spec(seed: int, *, channels: int = 2048) -> ScanSpec:
    """One spectrum (shape (1, 1, 1, channel)) drawn from what five years of a beamline bring.

    8-20 keV; slope 0.008-0.015 keV for 2048 channels (inversely for others), offset +-0.3 keV; 3-25
    families with strengths over three decades; 1e3-1e8 counts, log-uniform; 0-2 families that are not
    listed, 1-4 listed ones that are not there.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2,)))
    energy = float(rng.uniform(8.0, 20.0))
    candidates = _candidates(energy)
    present = rng.choice(
        candidates, int(rng.integers(3, min(25, len(candidates) - 4) + 1)), replace=False
    )
    rest = [name for name in candidates if name not in set(present)]
    absent = rng.choice(rest, int(rng.integers(1, 5)), replace=False)
    unlisted = present[: min(int(rng.integers(0, 3)), len(present) - 3)]
    total = float(10 ** rng.uniform(3.0, 8.0))
    counts = _random_counts(rng, [str(n) for n in present], {str(n) for n in unlisted}, total)
    listed = sorted({*map(str, present), *map(str, absent)} - {str(n) for n in unlisted})
    return ScanSpec(
        name=f"spectrum_{seed}",
        seed=seed,
        shape=(1, 1, 1, channels),
        incident_energy_kev=energy,
        detectors=(_random_detector(rng, energy, channels),),
        phases=(PhaseSpec(name="sample", counts=counts),),
        listed_elements=tuple(listed),
        scatter=_random_scatter(rng),
        real_time_s=total / float(10 ** rng.uniform(3.5, 5.3)),
        i0_drift=0.0,
        file_energy_kev=energy + float(rng.uniform(-0.3, 0.3)),
    )


def _candidates(incident_energy_kev: float) -> list[str]:
    """Families with their strongest line between 1.2 keV and the incident energy; rare ones left out."""
    import xraylib

    shells = (
        ("", range(13, 57), xraylib.K_SHELL, xraylib.KL3_LINE),
        ("_L", range(42, 93), xraylib.L3_SHELL, xraylib.L3M5_LINE),
        ("_M", range(76, 93), xraylib.M5_SHELL, xraylib.M5N7_LINE),
    )
    rare = {"Kr", "Tc", "Xe", "Pm", "Po", "At", "Rn", "Fr", "Ra", "Ac", "Pa"}
    return [
        f"{symbol}{suffix}"
        for suffix, numbers, shell, line in shells
        for number in numbers
        if (symbol := xraylib.AtomicNumberToSymbol(number)) not in rare
        and xraylib.EdgeEnergy(number, shell) < incident_energy_kev - 0.4
        and xraylib.LineEnergy(number, line) > 1.2
    ]


def _random_counts(
    rng: np.random.Generator, present: list[str], unlisted: set[str], total: float
) -> dict[str, float]:
    """Events by component; unlisted families are traces, at most 1 % of the fluorescence."""
    strength = 10 ** rng.uniform(-3.0, 0.0, len(present))
    known = sum(s for n, s in zip(present, strength, strict=True) if n not in unlisted)
    shares = {
        n: min(float(s), 0.01 * known) if n in unlisted else float(s)
        for n, s in zip(present, strength, strict=True)
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


def _random_detector(
    rng: np.random.Generator, incident_energy_kev: float, channels: int
) -> DetectorSpec:
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


def _random_scatter(rng: np.random.Generator) -> ScatterSpec:
    return ScatterSpec(
        angle_deg=float(rng.uniform(70.0, 150.0)),
        doppler=float(rng.uniform(0.004, 0.014)),
        low_tail_fraction=float(rng.uniform(0.1, 0.4)),
        low_tail_gamma=float(rng.uniform(1.5, 4.0)),
        high_tail_fraction=float(rng.uniform(0.0, 0.08)),
        high_tail_gamma=float(rng.uniform(1.5, 3.0)),
    )
