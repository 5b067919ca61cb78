"""
Which method keeps the mean?
============================

An element that is not there, in pixels of few counts: a signed method scatters about zero, one that cannot
be negative does not.
"""

import matplotlib.pyplot as plt

import hpcxrf
from hpcxrf.simulate import demo_spec, raw_scan, simulate_scan

cube = raw_scan(simulate_scan(demo_spec(seed=7, shape=(1, 48, 64, 2048)))).read_counts(slice(0, 48))[0]
fit = hpcxrf.fit_spectrum(cube.sum((0, 1)), "Si,P,S,Cl,Ar,K,Ca,Ti,Cr,Mn,Fe,Ni,Cu,Zn,Se,As,Pb_L", 13.5)
for method in ("linear", "poisson"):
    chromium = hpcxrf.fit_map(cube, fit, method=method).xrf.map("Cr").values.ravel()
    plt.hist(chromium, bins=60, range=(-20, 20), histtype="step", label=f"{method}: mean {chromium.mean():+.2f}")
plt.gca().set(xlabel="counts of Cr in a pixel", ylabel="pixels")
plt.legend()
