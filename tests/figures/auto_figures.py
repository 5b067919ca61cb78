"""How often families and axis are found when nobody lists any, on spectra of the second simulator.

`python tests/figures/auto_figures.py 70000 70100` measures these seeds. A third argument `elam` leaves the K-beta
lines of Al to Cl as the simulator's database has them (15 %, which no sample shows); `suggest` counts instead what is
suggested falsely on top of a complete list.

Families count where the axis is right (within 0.1 keV from 1 keV to the incident energy). A detection limit is
2.71 + 3.29 sigma, all but the family known. Seeds below 70000 were used in development.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "samples"))

from axis_figures import axis_error_kev, say
from foreign_spectra import SCATTER, family_lines, random_spectrum
from scipy.special import ndtr

from hpcxrf.errors import FitError
from hpcxrf.fitting.axis.elements import find_elements
from hpcxrf.fitting.axis.flags import AXIS_FLAGS
from hpcxrf.fitting.spectrum.identify import suggest
from hpcxrf.fitting.spectrum.integrated import fit_spectrum
from hpcxrf.fitting.spectrum.prepare import build_problem
from hpcxrf.formats.scan import EnergyCalibration

RIGHT_KEV = 0.1
MANY_COUNTS = 1e6
NOISE_KEV, FANO_KEV = 0.08, 0.00366 * 0.12


def detection_limits(truth, light_kbeta):
    """Limits (counts) by family, at widths that are about the simulator's."""
    n = truth.counts.size
    edges = truth.energy_kev(np.arange(n + 1) - 0.5)
    found = {}
    for name, counts in truth.truth.items():
        if name in SCATTER:
            continue
        energy, weight = family_lines(name, truth.incident_kev, light_kbeta=light_kbeta)
        sigma = np.sqrt((NOISE_KEV / 2.3548) ** 2 + FANO_KEV * energy)
        shape = np.diff(ndtr((edges[:, None] - energy) / sigma), axis=0) @ weight
        inside = edges[:-1] > 1.0
        without = np.maximum(truth.counts - counts * shape, 0.5)
        found[name] = 2.71 + 3.29 * ((shape**2 / without)[inside].sum() + 1e-300) ** -0.5
    return found


def is_family(name):
    """An element's family: no sum of two photons, of which the spectra have some."""
    return name.removesuffix("_L").removesuffix("_M").isalpha()


def measure(seed, light_kbeta):
    """One spectrum: what was found, missed and claimed; None where it was refused."""
    truth = random_spectrum(seed, light_kbeta=light_kbeta)
    began = time.process_time()
    try:
        found = find_elements(torch.from_numpy(truth.counts), truth.nominal_kev)
    except FitError:
        say(seed, f"counts {truth.counts.sum():.2g} refused")
        return {"counts": truth.counts.sum(), "refused": True, "cpu": time.process_time() - began}
    spent = time.process_time() - began
    limits = detection_limits(truth, light_kbeta)
    real = {name for name in truth.truth if name not in SCATTER}
    strong = {name for name in real if truth.truth[name] > 3.0 * limits[name]}
    names = {name for name in found.names if is_family(name)}
    certain = {name for name in names if found.sureness[name] == "certain"}
    unsure = {name for name in names if found.sureness[name] == "indistinguishable"}
    error = axis_error_kev(found.fit.theta.numpy(), truth)
    row = {
        "counts": truth.counts.sum(),
        "refused": False,
        "right": error < RIGHT_KEV,
        "flags": [flag for flag in found.fit.flags if flag in AXIS_FLAGS],
        "strong": len(strong),
        "found": len(strong & names),
        "certain": len(strong & certain),
        "unsure": len(strong & unsure),
        "false": sorted(names - real),
        "false_certain": sorted(certain - real),
        "cpu": spent,
    }
    say(
        seed,
        f"counts {row['counts']:.2g} error {error:.3f} keV, {row['found']} of {row['strong']} found,",
        f"{row['certain']} certain, false {row['false']}, of these certain {row['false_certain']},",
        f"missed {sorted(strong - names)}, cpu {spent:.1f} s",
        *row["flags"],
    )
    return row


def summarise(name, rows):
    fitted = [row for row in rows if not row["refused"]]
    right = [row for row in fitted if row["right"]]
    wrong = [row for row in fitted if not row["right"]]
    if not right:
        return
    strong = sum(row["strong"] for row in right)
    say(
        f"{name}: n {len(rows)}, refused {len(rows) - len(fitted)}, axis right {len(right)} (flagged needlessly",
        f"{sum(bool(row['flags']) for row in right)}), wrong and flagged {sum(bool(row['flags']) for row in wrong)},",
        f"wrong without a flag {sum(not row['flags'] for row in wrong)}; above 3 limits {strong}: recall",
        f"{sum(row['found'] for row in right) / strong:.3f}, certain",
        f"{sum(row['certain'] for row in right) / strong:.3f},",
        f"indistinguishable {sum(row['unsure'] for row in right) / strong:.3f}; false a spectrum",
        f"{sum(len(row['false']) for row in right) / len(right):.3f}, certain",
        f"{sum(len(row['false_certain']) for row in right) / len(right):.3f}; CPU median",
        f"{np.median([row['cpu'] for row in rows]):.2f} s, p95 {np.percentile([row['cpu'] for row in rows], 95):.2f} s",
    )


def count_suggestions(seed):
    """Families that are suggested although the list is complete, and total counts."""
    truth = random_spectrum(seed, light_kbeta=True)
    listed = [name for name in truth.truth if name not in SCATTER]
    given = EnergyCalibration(offset_kev=truth.offset_kev, slope_kev=truth.slope_kev)
    problem = build_problem(listed, truth.incident_kev, n_channels=truth.counts.size, calibration=given)
    fit = fit_spectrum(torch.from_numpy(truth.counts), problem)
    found = suggest(fit, replace(problem, table=fit.table), efficiency=problem.detector)
    false = [one.name for one in found if is_family(one.name)]
    say(seed, f"counts {truth.counts.sum():.2g} suggested {false}")
    return len(false)


def main():
    torch.set_num_threads(1)
    if "suggest" in sys.argv[3:]:
        numbers = [count_suggestions(seed) for seed in range(int(sys.argv[1]), int(sys.argv[2]))]
        say(f"n {len(numbers)}, falsely suggested families a spectrum {np.mean(numbers):.3f}")
        return
    light_kbeta = "elam" not in sys.argv[3:]
    rows = [measure(seed, light_kbeta) for seed in range(int(sys.argv[1]), int(sys.argv[2]))]
    summarise("all", rows)
    summarise("below 1e6 counts", [row for row in rows if row["counts"] < MANY_COUNTS])
    summarise("above 1e6 counts", [row for row in rows if row["counts"] >= MANY_COUNTS])


if __name__ == "__main__":
    main()
