"""
Lead or arsenic
===============

A spectrum with 1000 counts of each, drawn 40 times: what one gains the other loses, and sigma knows it.
"""

import matplotlib.pyplot as plt
import torch

import hpcxrf

table, theta = hpcxrf.line_table("Fe,Zn,As,Pb_L", 16.5), hpcxrf.default_theta(16.5)
expected = hpcxrf.model_spectrum(theta, torch.tensor([2e4, 1e4, 1e3, 1e3, 5e3, 2e4]).double(), table, 2048)
draws = torch.poisson(expected.expand(40, -1), generator=torch.Generator().manual_seed(1))
fits = [hpcxrf.amplitudes(one) for one in hpcxrf.fit_spectrum(draws, "Fe,Zn,As,Pb_L", 16.5)]
(x, dx), (y, dy) = ([[getattr(f[e], k) for f in fits] for k in ("counts", "sigma")] for e in ("As", "Pb_L"))
plt.errorbar(x, y, dy, dx, fmt=".", lw=0.6)
plt.gca().set(xlabel="counts of As", ylabel="counts of Pb L")
