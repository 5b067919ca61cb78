"""Columns of the design matrix, and what they are compared with."""

import torch
from fit_samples import table, theta_of

from hpcxrf.physics.constants import PHYSICS
from hpcxrf.physics.model import design_matrix

TABLE = table(("Ca", "Fe", "Ba_L", "Au_M", "Ca_Ca"))
NO_LOSS = {"f_tail_offset": 0.0, "kb_f_tail_offset": 0.0, "compton_f_tail": 0.0, "compton_hi_f_tail": 0.0}


def column(lines, channel, index=0, **values):
    return design_matrix(theta_of(**values), lines, channel, constants=PHYSICS)[..., index]


def f64(value):
    return torch.tensor(value, dtype=torch.float64)
