"""Draws of the posterior beside the normal law of the fit, on measured spectra: printed, not asserted.

    PYTHONPATH=. python tests/figures/posterior_of_spectra.py
    PYTHONPATH=. python tests/figures/posterior_of_spectra.py thick_steel 1000

A part of a file's name draws that spectrum alone; a number is that of the draws, and of those of the warm-up.
Line ratios are held in the draws, and neither flaws of the model nor ratios are in what they are compared with: the
covariance of counting noise and priors at the optimum, with the ratios held.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch

import hpcxrf
from hpcxrf.fitting.spectrum.mismatch import evaluate_fit
from hpcxrf.fitting.uncertainty import spectrum_uncertainty

SHARED = Path(__file__).resolve().parents[3] / "shared"
APS = "Si,S,Cl,Ar,K,Ca,Ti,Cr,Mn,Fe,Co,Ni,Cu,Zn,La_L"
SPECTRA = (
    ("data/aps-2ide/mda/axo_std.mda", f"{APS},Pd_L,Mo_L,Pb_M,Ca_Ca", 10.0, 0),
    ("data/aps-2ide/mda/2xfm_0011.mda", APS, 10.0, 0),
    ("data/larch-srm1832/srm1832.mca", "Si,Cl,Ar,Ca,V,Cr,Mn,Fe,Co,Ni,Cu,Zn", 12.49, 0),
    ("cases/spectra/thick_steel_kbeta.npz", "Ar,V,Cr,Mn,Fe,Ni,Cu,As,W_L,Pb_L", 16.0, None),
    ("cases/spectra/axorf4_compton.npz", "Si,S,Cl,Ar,K,Ca,Ti,Cr,Mn,Fe,Co,Ni,Cu,Zn,La_L,Pd_L,Pb_L,Mo,Br", 21.0, None),
)


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def read_spectrum(path, detector):
    if path.suffix == ".npz":
        return np.load(path)["counts"].astype(float)
    scan = hpcxrf.open_scan(path)
    return scan.read_counts(slice(0, scan.shape[1]))[detector].reshape(-1, scan.shape[3]).sum(axis=0).astype(float)


def normal_law(fit):
    """Standard deviations (component,) of counting noise and priors, the line ratios held."""
    at = evaluate_fit(fit, fit.problem).at
    hats = fit.background_parts.T
    columns = torch.cat([at.evaluation.phi, hats / hats.amax(dim=0).clamp(min=1e-9)], dim=1)
    errors = spectrum_uncertainty(
        fit.counts,
        fit.model,
        columns,
        at.jacobian,
        fit.amplitude,
        moving=fit.free & ~fit.at_bound,
        positive_hats=hats.amax(dim=0) > 0,
        prior_precision=at.prior_sd**-2.0,
    )
    return errors.amplitude_sigma


def main():
    torch.set_num_threads(1)
    wanted, draws = sys.argv[1] if len(sys.argv) > 1 else "", int(sys.argv[2]) if len(sys.argv) > 2 else 300
    for name, elements, incident_kev, detector in [one for one in SPECTRA if wanted in one[0]]:
        fit = hpcxrf.fit_spectrum(read_spectrum(SHARED / name, detector), elements, incident_kev)
        began = time.process_time()
        groups = hpcxrf.posterior(fit, chains=2, warm_up=draws, draws=draws, seed=3)
        drawn = groups["posterior"]["amplitude"]
        r_hat, sigma = float(groups["convergence"]["amplitude_r_hat"].max()), normal_law(fit).tolist()
        spent = time.process_time() - began
        say(f"{name}: {fit.counts.sum():.2g} counts, chi2 {fit.reduced_chi2:.1f}, {spent:.0f} CPU s")
        for i, component in enumerate(fit.component_names):
            one = drawn.sel(component=component).values
            value, mean, sd = float(fit.amplitude[i]), float(one.mean()), float(one.std())
            say(
                f"  {component:24s} fit {value:12.1f} +- {sigma[i]:9.1f}  draws {mean:12.1f} +- {sd:9.1f}  "
                f"ratio {sd / sigma[i]:.2f} shift {(mean - value) / sigma[i]:+.2f}"
            )
        say(f"  largest R-hat {r_hat:.3f}")


if __name__ == "__main__":
    main()
