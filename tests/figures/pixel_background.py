"""Bias of absent elements in pixel maps by the number of background columns: `python pixel_background.py SEED ...`.

Every seed is a scan of 12 288 pixels of air, silicate, carbonate (500 counts of Ca) and grains of Fe and Cr (700 and
200) by the simulator, whose detector has shelves, tails, escape and pile-up of its own. The integrated spectrum is
drawn and fitted; the maps' biases are those of the expected spectra of every phase, without noise: exact for that fit.
The number of columns is chosen from 32 768 drawn pixels. Printed are counts a pixel, mean +- standard error over seeds.
"""

import sys

import numpy as np
import torch

import hpcxrf
from hpcxrf.fitting.pixels.background_columns import add_to_groups, choose_background, group_pixels, join_background
from hpcxrf.fitting.pixels.basis import group_background, pixel_basis, pixel_operator
from hpcxrf.fitting.spectrum.detector_sum import evaluate_columns
from hpcxrf.formats.scan import EnergyCalibration
from hpcxrf.simulate.scan import simulate_scan
from hpcxrf.simulate.spec import DetectorSpec, PhaseSpec, ScanSpec

LISTED = ("Si", "Ar", "K", "Ca", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn")
PHASES = {
    "air": {"Ar": 6.0, "elastic": 12.0, "compton": 10.0, "continuum": 12.0},
    "silicate": {"Si": 60.0, "K": 40.0, "Ca": 80.0, "Fe": 60.0, "elastic": 60.0, "compton": 120.0, "continuum": 90.0},
    "carbonate": {"Ca": 500.0, "Fe": 10.0, "elastic": 50.0, "compton": 150.0, "continuum": 60.0},
    "grains": {"Fe": 700.0, "Cr": 200.0, "elastic": 50.0, "compton": 30.0, "continuum": 50.0},
}
SHARES = np.array([0.2, 0.5, 0.2, 0.1])
SHOWN = {"carbonate": ("Ti", "V", "Mn"), "silicate": ("Ti", "V", "Mn"), "grains": ("Ti", "V")}
N_PIXELS, N_JUDGED, ENERGY_KEV = 12_288, 32_768, 13.5


def mean_spectra(seed, scale):
    """(phase, channel) expected counts of a pixel of one phase, pile-up included."""
    detector = DetectorSpec(calibration=EnergyCalibration(offset_kev=0.012, slope_kev=0.00952), noise_fwhm_kev=0.085)
    spec = ScanSpec(
        name="scan",
        seed=seed,
        shape=(1, 4, 4, 2048),
        incident_energy_kev=ENERGY_KEV,
        detectors=(detector,),
        phases=tuple(PhaseSpec(name=name, counts=counts) for name, counts in PHASES.items()),
        listed_elements=LISTED,
        counts_scale=scale,
        real_time_s=0.03 * scale,
    )
    scan = simulate_scan(spec)
    total = scan.phase_counts.sum(axis=1)
    piled = (total / spec.real_time_s * detector.pileup_time_s)[:, None]
    return (1 - piled) * (scan.phase_counts @ scan.spectra[0]) + total[:, None] * piled * scan.pileup_spectra[0]


def biases(seed, scale):
    """By number of columns (4, and as chosen): counts (phase, component) too much; and the choice's sentence."""
    rng, mean = np.random.default_rng(seed), mean_spectra(seed, scale)
    fit = hpcxrf.fit_spectrum(rng.poisson(N_PIXELS * (SHARES @ mean)).astype(float), list(LISTED), ENERGY_KEV)
    channels = slice(fit.first_channel, fit.first_channel + len(fit.counts))
    phi = evaluate_columns(fit, fit.problem, torch.arange(channels.start, channels.stop, dtype=torch.float64))
    parts = group_background(fit.background_parts, 16)
    basis = pixel_basis(phi, fit.amplitude, parts, N_PIXELS, names=fit.component_names, first_channel=fit.first_channel)
    drawn = rng.poisson(mean[rng.choice(len(mean), N_JUDGED, p=SHARES), channels]).astype(np.uint16)
    counts, measured = torch.from_numpy(drawn), torch.ones(N_JUDGED, dtype=torch.bool)
    sums = group_pixels(counts[::32], measured[::32], basis)
    chosen = choose_background(add_to_groups(sums, counts, measured), basis)
    truth = scale * np.array([[PHASES[phase].get(name, 0.0) for name in basis.names] for phase in PHASES])
    found = {}
    for label, n in (("4", 4), ("chosen", chosen.n_columns)):
        projector = pixel_operator(join_background(basis, n)).projector.numpy().astype(float)
        found[label] = (mean[:, channels] @ projector)[:, : len(basis.names)] - truth
    return basis.names, found, chosen.report


def main(seeds, scale):
    every = {"4": [], "chosen": []}
    for seed in seeds:
        names, found, report = biases(seed, scale)
        sys.stdout.write(f"seed {seed}: {report}\n")
        for label, values in found.items():
            every[label].append(values)
    phases = list(PHASES)
    for label, values in every.items():
        stacked = np.array(values)
        error = stacked.std(axis=0, ddof=1) / len(seeds) ** 0.5 if len(seeds) > 1 else np.full(stacked[0].shape, np.nan)
        for phase, components in SHOWN.items():
            row = phases.index(phase)
            text = ", ".join(
                f"{c} {stacked.mean(axis=0)[row, names.index(c)]:+.3f} +- {error[row, names.index(c)]:.3f}"
                for c in components
            )
            sys.stdout.write(f"{label:>7} columns, {phase}: {text}\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main([int(one) for one in sys.argv[1:]] or [1], 1.0)
