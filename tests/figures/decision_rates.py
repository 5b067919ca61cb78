"""How often an absent element is found, and one at its detection limit is not: printed, not asserted.

    PYTHONPATH=. python tests/figures/decision_rates.py spectra 300 60000
    PYTHONPATH=. python tests/figures/decision_rates.py regions 300 61000
    PYTHONPATH=. python tests/figures/decision_rates.py pixels 20 62000

Both should be 5 % (Currie). Spectra are those of `interval_coverage.py exact`, with up to three families that are
listed and absent. Each of these is counted as found or not; then one of them (of regions one after the other) is put in
with the counts of the detection limit that was reported, and it is counted whether it is missed. `regions` are spectra
of 100 to 1000 pixels of a scan, fitted from the scan's theta and its model error; `pixels` are single ones of 60 to 600
counts (`linear`). A limit says what the measurement can do, and that of one faint region is itself uncertain by a
fifth, so that more are missed: of regions the limit of the expected spectrum is tried, too. (Of a whole spectrum that
has no meaning: its noise shows how large the model's flaws may be.)
"""

import sys
from itertools import pairwise

import numpy as np
import torch
from interval_coverage import make_exact, say

import hpcxrf

ABSENT = 3
PIXELS = 4000


def list_absent(one):
    return [name for name in one.names if name not in one.truth]


def fit_first(one, counts):
    offset_kev, slope_kev = one.axis
    options = {"energy_offset_kev": offset_kev, "energy_slope_kev": slope_kev}
    return hpcxrf.fit_spectrum(counts, list(one.names), one.incident_kev, **options)


def judge_spectra(seed, *, region):
    """Of absent families found, and missed at the limit of one draw and of what is expected: (0 or 1, total counts)."""
    rng = np.random.default_rng(seed)
    one = make_exact(rng, ABSENT)
    mean, absent = one.mean, list_absent(one)
    if region:
        scan = fit_first(one, rng.poisson(mean))
        mean = mean * rng.uniform(100, 1000) / 12_000

        def fit(counts):
            return hpcxrf.refine(counts, scan)
    else:

        def fit(counts):
            return fit_first(one, counts)

    first, total = fit(rng.poisson(mean)), float(mean.sum())
    found = dict(zip(first.component_names, first.found.tolist(), strict=True))
    false = [(int(found[name]), total) for name in absent]
    missed = ([], [])
    shown = [first, fit(mean)] if region else [first]
    for name in absent if region else rng.choice(absent, min(len(absent), 1)).tolist():
        for rows, one_fit in zip(missed, shown, strict=False):
            again = fit(rng.poisson(mean + limit_of(one_fit, name) * one.shapes[:, one.names.index(name)]))
            seen = dict(zip(again.component_names, again.found.tolist(), strict=True))
            rows.append((int(not seen[name]), total))
    return false, *missed


def limit_of(fit, name):
    return float(fit.detection_limit[fit.component_names.index(name)])


def judge_pixels(seed):
    """The same of single pixels, whose limits are those of their own maps."""
    rng = np.random.default_rng(seed)
    one = make_exact(rng, ABSENT)
    counts = 10.0 ** rng.uniform(np.log10(60), np.log10(600))
    fit = fit_first(one, rng.poisson(one.mean * (PIXELS * counts / one.mean.sum())))
    mean = one.mean * (counts / one.mean.sum())
    maps = hpcxrf.fit_map(rng.poisson(np.tile(mean, (PIXELS, 1))), fit, deviance=False)
    false, missed = [], []
    for name in list_absent(one):
        false += [(int(f), counts) for f in maps.xrf.found(name).values]
        limit = maps["detection_limit"].sel(component=name).values
        planted = mean + float(np.median(limit)) * one.shapes[:, one.names.index(name)]
        more = hpcxrf.fit_map(rng.poisson(np.tile(planted, (PIXELS, 1))), fit, deviance=False)
        missed += [(int(not f), counts) for f in more.xrf.found(name).values]
    return false, missed, []


def print_rates(label, rows):
    rows = np.array(rows, dtype=float).reshape(-1, 2)
    for low, high in [(0, 1e9), *pairwise([0, 1e3, 1e4, 1e5, 1e6, 1e9])]:
        mine = rows[(rows[:, 1] >= low) & (rows[:, 1] < high), 0]
        if mine.size:
            error = (0.0475 / mine.size) ** 0.5
            say(f"{label}, {low:g} to {high:g} counts: {mine.mean():.3f} +- {error:.3f} of {mine.size}")


def main():
    torch.set_num_threads(1)
    kind, number, first = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    every = ([], [], [])
    for seed in range(first, first + number):
        more = judge_pixels(seed) if kind == "pixels" else judge_spectra(seed, region=kind == "regions")
        for rows, new in zip(every, more, strict=True):
            rows.extend(new)
    labels = ("absent and found", "at the limit and not found", "at the limit of the expected spectrum and not found")
    for label, rows in zip(labels, every, strict=True):
        print_rates(label, rows)


if __name__ == "__main__":
    main()
