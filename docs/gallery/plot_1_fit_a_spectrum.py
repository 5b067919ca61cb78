"""
Fit a spectrum
==============

Counts of a simulated leaf, summed over all pixels, and a list of elements are all that is given: the energy axis is found.
"""

import hpcxrf
from hpcxrf.simulate import demo_spec, raw_scan, simulate_scan

scan = raw_scan(simulate_scan(demo_spec(shape=(1, 24, 32, 2048))))
counts = scan.read_counts(slice(0, 24)).sum(axis=(0, 1, 2))
fit = hpcxrf.fit_spectrum(counts, "Si,P,S,Cl,Ar,K,Ca,Ti,Mn,Fe,Ni,Cu,Zn,Se,As,Pb_L", 13.5)
hpcxrf.plot_fit(fit, title=f"{fit.verdict.name}, R2 {fit.r2:.5f}")
