"""The scan of the case study: a thin leaf with veins and traces of Mn, Cu and Pt, a few counts a pixel.

Made after the description of the published case study (about 500 x 600 pixels of a plant, reference in README);
the numbers are ours.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.formats.scan import EnergyCalibration
from hpcxrf.simulate.sampling import draw_detector, draw_nominal_energy_kev, make_generator
from hpcxrf.simulate.scan import SimulatedScan, row_truth
from hpcxrf.simulate.spec import DetectorSpec, PhaseSpec, ScanSpec, StructureSpec

PLANT_ENERGY_KEV: Final = 12.4
PLANT_ELEMENTS: Final = ("Al", "Si", "P", "S", "Cl", "Ar", "K", "Ca", "Ti", "Mn", "Fe", "Ni", "Cu", "Zn", "Pt_L")
PLANT_TRACES: Final = ("Mn", "Cu", "Pt_L")
"""Elements that the published case study maps."""
_CHANNELS: Final = 2048
_TRIALS, _NOISE, _REGIONS = 3, 4, 5
"""First words of spawn keys: numbers of a trial are those of no structure, no scan and no sample."""
# How far the energy axis that a file claims is from the true one: what an instrument's drift leaves in months.
_CLAIMED_OFFSET_KEV: Final = 0.01
_CLAIMED_SLOPE: Final = 5e-4
_TRIAL_ENERGY_KEV: Final = (12.0, 12.8)

_AIR: Final = PhaseSpec(name="air", counts={"Ar": 4.0, "elastic": 4.0, "compton": 3.0, "continuum": 2.0})
_TISSUE: Final = PhaseSpec(
    name="thin tissue",
    counts={
        "Al": 0.4,
        "Si": 1.2,
        "P": 9.0,
        "S": 12.0,
        "Cl": 14.0,
        "K": 75.0,
        "Ca": 28.0,
        "Mn": 1.2,
        "Fe": 5.0,
        "Ni": 0.25,
        "Cu": 0.9,
        "Zn": 4.0,
        "Pt_L": 0.25,
        "elastic": 12.0,
        "compton": 38.0,
        "continuum": 10.0,
    },
    structure=StructureSpec(kind="cells", region="leaf", size=0.06, contrast=0.18),
)
_VEIN: Final = PhaseSpec(
    name="veins",
    counts={
        "P": 6.0,
        "S": 5.0,
        "Cl": 9.0,
        "K": 90.0,
        "Ca": 85.0,
        "Mn": 2.5,
        "Fe": 4.0,
        "Zn": 6.0,
        "Pt_L": 5.0,
        "elastic": 7.0,
        "compton": 26.0,
        "continuum": 6.0,
    },
    structure=StructureSpec(kind="veins", region="leaf", size=0.022, contrast=0.6),
)
_COPPER: Final = PhaseSpec(
    name="copper-rich side",
    counts={"Cu": 2.2, "S": 2.0, "Zn": 1.0},
    structure=StructureSpec(kind="smooth", region="leaf", size=0.16, contrast=0.7),
)
_TRICHOME: Final = PhaseSpec(
    name="trichome bases",
    counts={"Si": 8.0, "Ca": 60.0, "Mn": 26.0, "Zn": 3.0, "compton": 6.0},
    structure=StructureSpec(kind="spots", region="leaf", size=0.035, cover=40.0, contrast=0.4),
)
_PLATINUM: Final = PhaseSpec(
    name="platinum aggregates",
    counts={"Pt_L": 14.0, "Cl": 3.0},
    structure=StructureSpec(kind="spots", region="leaf", size=0.028, cover=30.0, contrast=0.5),
)
_DUST: Final = PhaseSpec(
    name="mineral dust",
    counts={"Al": 20.0, "Si": 60.0, "K": 12.0, "Ca": 20.0, "Ti": 9.0, "Fe": 70.0, "Ni": 2.0},
    structure=StructureSpec(kind="spots", region="everywhere", size=0.015, cover=45.0, contrast=0.6),
)
PLANT_PHASES: Final = (_AIR, _TISSUE, _VEIN, _COPPER, _TRICHOME, _PLATINUM, _DUST)


def plant_spec(
    *, seed: int, size: tuple[int, int] = (500, 600), name: str = "plant", counts_scale: float = 1.0
) -> ScanSpec:
    """A leaf at 12.4 keV: some 250 counts a pixel, of them 1 to 30 of Mn, Cu and Pt_L each.

    One detector of 2048 channels, whose energy axis the file claims a few eV off.

    Args:
        seed: of the sample and of the noise.
        size: rows and columns.
        name: of the scan.
        counts_scale: exposure over that of the preset, at an unchanged rate.
    """
    rng = make_generator(seed)
    detector = DetectorSpec(
        calibration=EnergyCalibration(
            offset_kev=float(rng.uniform(-0.05, 0.05)), slope_kev=float(rng.uniform(0.0085, 0.0105))
        ),
        noise_fwhm_kev=float(rng.uniform(0.08, 0.11)),
    )
    return ScanSpec(
        name=name,
        seed=seed,
        shape=(1, *size, _CHANNELS),
        incident_energy_kev=PLANT_ENERGY_KEV,
        detectors=(detector,),
        phases=PLANT_PHASES,
        listed_elements=PLANT_ELEMENTS,
        counts_scale=counts_scale,
        real_time_s=0.01 * counts_scale,
        step_um=2.0,
        file_calibration=(_perturb_axis(detector.calibration, rng),),
    )


def trial_spec(plant: ScanSpec, trial: int) -> ScanSpec:
    """The same sample before another detector, with another beam and another nominal energy.

    The detector is drawn as those of an archive are (offset +-0.3 keV, slope 0.008-0.015 keV), the true incident
    energy from 12.0 to 12.8 keV, the nominal one within 0.3 keV of it.

    Args:
        plant: of `plant_spec`.
        trial: counted from 0.
    """
    rng = np.random.default_rng(np.random.SeedSequence(plant.seed, spawn_key=(_TRIALS, trial)))
    energy = float(rng.uniform(*_TRIAL_ENERGY_KEV))
    detector = draw_detector(rng, energy, plant.shape[3])
    return replace(
        plant,
        name=f"{plant.name}-trial-{trial:02}",
        incident_energy_kev=energy,
        detectors=(detector,),
        file_calibration=(_perturb_axis(detector.calibration, rng),),
        file_energy_kev=draw_nominal_energy_kev(rng, energy),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SummedScan:
    """The spectrum of all pixels of a scan together."""

    counts: NDArray[np.int64]
    """(channel,)."""
    amplitude: dict[str, float]
    """Expected recorded counts of each component, those in pile-up left out."""


def sum_scan(scan: SimulatedScan, noise: int) -> SummedScan:
    """Draw the sum over all pixels of detector 0 without drawing the pixels.

    A sum of Poisson variables is one of the summed expectation, so this is what summing a drawn scan gives, of
    another noise.

    Args:
        scan: of `simulate_scan`.
        noise: with the seed of the scan, of the noise.
    """
    amplitude, expected = _expect_sum(scan, range(scan.spec.shape[1]), slice(None))
    key = np.random.SeedSequence(scan.spec.seed, spawn_key=(_NOISE, noise))
    return SummedScan(
        counts=np.random.default_rng(key).poisson(expected),
        amplitude=dict(zip(scan.components, amplitude.tolist(), strict=True)),
    )


def draw_region(scan: SimulatedScan, box: tuple[slice, slice], draws: int) -> NDArray[np.int64]:
    """Draw the summed spectrum (draw, channel) of a region of detector 0 that often, each with noise of its own.

    The expectation is that of the drawn scan; a smaller number of draws is part of a larger one.

    Args:
        scan: of `simulate_scan`; its seed and the place of the region are the seed of the noise.
        box: rows and columns.
        draws: how many.
    """
    rows, columns = box
    _, expected = _expect_sum(scan, range(rows.start, rows.stop), columns)
    key = np.random.SeedSequence(scan.spec.seed, spawn_key=(_REGIONS, rows.start, columns.start))
    return np.random.default_rng(key).poisson(expected, size=(draws, expected.size))


def _expect_sum(scan: SimulatedScan, rows: range, columns: slice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Expected counts of some pixels of detector 0: of each component, those in pile-up left out, and by channel."""
    truths = [row_truth(scan, row) for row in rows]
    amplitude = np.sum([t.amplitude[0][:, columns].sum(axis=1) for t in truths], axis=0)
    pileup = np.sum([t.pileup[0][:, columns].sum(axis=1) for t in truths], axis=0)
    return amplitude, amplitude @ scan.spectra[0] + pileup @ scan.pileup_spectra[0]


def _perturb_axis(true: EnergyCalibration, rng: np.random.Generator) -> EnergyCalibration:
    offset = float(rng.uniform(-_CLAIMED_OFFSET_KEV, _CLAIMED_OFFSET_KEV))
    share = float(rng.uniform(-_CLAIMED_SLOPE, _CLAIMED_SLOPE))
    return replace(true, offset_kev=true.offset_kev + offset, slope_kev=true.slope_kev * (1.0 + share))
