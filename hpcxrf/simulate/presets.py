"""Ready specifications: the demonstration scan, and spectra as varied as a beamline's archive."""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.formats.scan import EnergyCalibration
from hpcxrf.simulate.sampling import (
    draw_detector,
    draw_nominal_energy_kev,
    draw_rate_hz,
    draw_sample,
    draw_scatter,
    make_generator,
)
from hpcxrf.simulate.scan import SimulatedScan, draw_counts, expected_amplitudes, expected_counts, simulate_scan
from hpcxrf.simulate.spec import DetectorSpec, PhaseSpec, ScanSpec, StructureSpec

DEMO_ENERGY_KEV: Final = 13.5
DEMO_ELEMENTS: Final = ("Si", "P", "S", "Cl", "Ar", "K", "Ca", "Ti", "Mn", "Fe", "Ni", "Cu", "Zn", "As", "Pb_L")
"""Elements that the demonstration lists; its leaf also holds a trace of Se, which is not listed."""

_AIR: Final = PhaseSpec(name="air", counts={"Ar": 14.0, "elastic": 12.0, "compton": 10.0, "continuum": 12.0})
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
    structure=StructureSpec(kind="spots", region="everywhere", size=0.024, cover=34.0, contrast=0.6),
)
DEMO_PHASES: Final = (_AIR, _TISSUE, _SAP, _VEIN, _TRICHOME, _SILICATE, _CARBONATE, _RUTILE, _OXIDE, _DUST)


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
    detectors = tuple(_build_detector(i) for i in range(shape[0]))
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
        file_calibration=tuple(
            replace(c, offset_kev=c.offset_kev - 0.006, slope_kev=c.slope_kev * 1.0004)
            for c in (d.calibration for d in detectors)
        ),
    )


def _build_detector(index: int) -> DetectorSpec:
    """Detectors that differ in calibration, resolution and solid angle; 2048 channels hold 18 keV."""
    return DetectorSpec(
        calibration=EnergyCalibration(offset_kev=0.012 - 0.021 * index, slope_kev=0.00952 + 0.00011 * index),
        noise_fwhm_kev=0.085 + 0.006 * index,
        gain=(1.0, 0.86, 0.93, 0.74)[index % 4],
    )


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
    rng = make_generator(seed)
    sample = draw_sample(rng)
    energy = sample.incident_energy_kev
    return ScanSpec(
        name=f"spectrum_{seed}",
        seed=seed,
        shape=(1, 1, 1, channels),
        incident_energy_kev=energy,
        detectors=(draw_detector(rng, energy, channels),),
        phases=(PhaseSpec(name="sample", counts=sample.counts),),
        listed_elements=sample.listed_elements,
        scatter=draw_scatter(rng),
        real_time_s=sample.total_counts / draw_rate_hz(rng),
        i0_drift=0.0,
        file_energy_kev=draw_nominal_energy_kev(rng, energy),
    )
