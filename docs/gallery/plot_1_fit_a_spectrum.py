"""
Fit a spectrum
==============

The counts of a simulated leaf, summed over all pixels, a list of elements, and the energy of the
beam: the energy axis is found. The residual shows selenium, which is in the sample and not in the list.
"""

import hpcxrf
from hpcxrf.simulate import demo_spec, raw_scan, simulate_scan

scan = raw_scan(simulate_scan(demo_spec(seed=7, shape=(1, 24, 32, 2048))))
counts = scan.read_counts(slice(0, 24)).sum(axis=(0, 1, 2))
fit = hpcxrf.fit_spectrum(counts, "Si,P,S,Cl,Ar,K,Ca,Ti,Mn,Fe,Ni,Cu,Zn,As,Pb_L", 13.5)
figure = hpcxrf.plot_fit(fit, title=f"{fit.verdict.word}, R2 {fit.r2:.5f}")
