"""
Maps of a cube
==============

Every pixel of an array of counts, fitted with the columns of the summed spectrum.
"""

import hpcxrf
from hpcxrf.simulate import demo_spec, raw_scan, simulate_scan

cube = raw_scan(simulate_scan(demo_spec(seed=7, shape=(1, 48, 64, 2048)))).read_counts(slice(0, 48))[0]
fit = hpcxrf.fit_spectrum(cube.sum((0, 1)), "Si,P,S,Cl,Ar,K,Ca,Ti,Mn,Fe,Ni,Cu,Zn,Se,As,Pb_L", 13.5)
maps = hpcxrf.fit_map(cube, fit)
figure = hpcxrf.plot_maps(maps, ["Si", "P", "K", "Ca", "Mn", "Fe", "Cu", "Zn"])
