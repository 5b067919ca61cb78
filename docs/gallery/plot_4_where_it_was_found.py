"""
Where an element was found
==========================

The amplitude of nickel, and the pixels in which it exceeds Currie's decision limit. By chance it
would in one of twenty.
"""

import matplotlib.pyplot as plt

import hpcxrf
from hpcxrf.simulate import demo_spec, raw_scan, simulate_scan

cube = raw_scan(simulate_scan(demo_spec(seed=7, shape=(1, 48, 64, 2048)))).read_counts(slice(0, 48))[0]
fit = hpcxrf.fit_spectrum(cube.sum((0, 1)), "Si,P,S,Cl,Ar,K,Ca,Ti,Mn,Fe,Ni,Cu,Zn,Se,As,Pb_L", 13.5)
maps = hpcxrf.fit_map(cube, fit)
left, right = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")[1]
maps.xrf.map("Ni").plot(ax=left, yincrease=False, robust=True)
maps.xrf.map("Ni").where(maps.xrf.found("Ni")).plot(ax=right, yincrease=False, robust=True)
