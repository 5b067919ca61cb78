"""How well spectra of X-ray tubes are fitted from nothing, on a generator with another tube spectrum than the fit's.

`python tests/figures/tube_figures.py 81000 20 Rh Mo W` draws 20 spectra of each anode; seeds 0 to 11 were used in
development. Printed are the axis, families above 1 % of the counts, and what is suggested beside a complete list.
"""

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "samples"))

from tube_samples import draw_tube

import hpcxrf
from hpcxrf.fitting.axis.flags import AXIS_FLAGS
from hpcxrf.fitting.spectrum.identify import suggest

RIGHT_KEV = 0.1
SHARE = 0.01
ANODE_KEV = {"Rh": (2.4, 3.2), "Mo": (2.0, 2.7), "W": (7.2, 12.1)}


def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def main_line_kev(fit, name):
    mine = (fit.table.component == fit.table.component_names.index(name)) & (fit.table.escape_parent < 0)
    return float(fit.table.energy_kev[mine][fit.table.ratio[mine].argmax()])


def fit_one(seed, anode):
    sample = draw_tube(seed, anode)
    began = time.process_time()
    fit = hpcxrf.fit_spectrum(sample.counts, sample.names, tube=hpcxrf.Tube(anode=anode, kv=sample.kv))
    cpu_s = time.process_time() - began
    channel = (np.array([1.5, 20.0]) - sample.offset_kev) / sample.slope_kev
    off = np.abs(fit.theta[0].item() + fit.theta[1].item() * channel - [1.5, 20.0]).max()
    right, flagged = off < RIGHT_KEV, bool(set(fit.flags) & set(AXIS_FLAGS))
    found = suggest(fit, fit.problem, efficiency=fit.problem.detector)
    total = sum(sample.truth.values())
    low, high = ANODE_KEV[anode]
    rows = []
    for name, true in sample.truth.items():
        if true < SHARE * total or not right:
            continue
        i = fit.component_names.index(name)
        error, sigma = float(fit.amplitude[i]) - true, float(fit.amplitude_sigma[i])
        rows.append((error / true, error / sigma, low < main_line_kev(fit, name) < high, sigma / true))
    say(
        seed,
        anode,
        f"{total:.1e} counts, R2 {fit.r2:.5f} ({fit.r2_expected:.5f}), chi2 {fit.reduced_chi2:.2f}, axis off",
    )
    say(f"  {1e3 * off:.0f} eV, {fit.verdict.word}, {cpu_s:.1f} CPU s", *fit.flags, *(one.name for one in found))
    return right, flagged, len(found), cpu_s, rows


def main(first, count, anodes):
    for anode in anodes:
        done = [fit_one(first + i, anode) for i in range(count)]
        rows = np.array([row for one in done for row in one[-1]])
        own = rows[:, 2] > 0
        apart, under = rows[~own], rows[own]
        wrong = sum(not right and not flagged for right, flagged, *_ in done)
        error, sigmas = np.abs(apart[:, 0]), np.abs(apart[:, 1])
        right, needless = sum(one[0] for one in done), sum(one[0] and one[1] for one in done)
        say(f"{anode}: axis right {right} of {count}, wrong without a flag {wrong}, needless flags {needless};")
        say(f"  {len(apart)} families within 5 %: {(error < 0.05).mean():.3f},")
        say(f"  95 % of errors below {np.quantile(error, 0.95):.3f}, within 2 sigma {(sigmas < 2.0).mean():.3f};")
        covered = (np.abs(under[:, 1]) < 2.0).mean() if len(under) else np.nan
        say(f"  {len(under)} under the anode's L lines within 2 sigma: {covered:.3f}; false suggestions a spectrum")
        say(f"  {np.mean([one[2] for one in done]):.2f}; CPU median {np.median([one[3] for one in done]):.1f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
