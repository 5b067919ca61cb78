"""
Three elements in one picture
=============================

Iron in red, calcium in green, potassium in blue.
"""

import matplotlib.pyplot as plt

import hpcxrf
from hpcxrf.simulate import demo_spec, raw_scan, simulate_scan

cube = raw_scan(simulate_scan(demo_spec(seed=7, shape=(1, 48, 64, 2048)))).read_counts(slice(0, 48))[0]
fit = hpcxrf.fit_spectrum(cube.sum((0, 1)), "Si,P,S,Cl,Ar,K,Ca,Ti,Mn,Fe,Ni,Cu,Zn,Se,As,Pb_L", 13.5)
plt.imshow(hpcxrf.fit_map(cube, fit).xrf.rgb("Fe", "Ca", "K"))
plt.title("Fe, Ca, K")
