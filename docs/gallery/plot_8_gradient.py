"""
What a parameter does to a spectrum
===================================

The derivative of the model's counts by the Compton angle, from the gradients that PyTorch takes through the model.
"""

import matplotlib.pyplot as plt
import torch

import hpcxrf

table, theta = hpcxrf.line_table("Ca,Fe,Zn", 12.0), hpcxrf.default_theta(12.0)
amplitude = torch.tensor([1e4, 1e4, 1e4, 1e4, 1e5], dtype=torch.float64)
slopes = torch.func.jacfwd(lambda one: hpcxrf.model_spectrum(one, amplitude, table, 1400))(theta)
plt.plot(hpcxrf.model_spectrum(theta, amplitude, table, 1400) / 10, label="counts / 10")
plt.plot(slopes[:, 6], label="change by one degree of the Compton angle")
plt.gca().set(xlabel="channel", xlim=(1000, 1300))
plt.legend()
