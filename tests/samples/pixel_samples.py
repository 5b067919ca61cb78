"""A basis of four families, scatter and a continuum, and Poisson pixels of it, for the tests of all pixel methods."""

import torch
from fit_samples import TRUTH, channels, drawn, table, theta_of

from hpcxrf.fitting.pixels.full import full_model
from hpcxrf.fitting.pixels.methods import MethodData, fit_pixels, pixel_basis, pixel_operator
from hpcxrf.fitting.pixels.tangent import drift_sd, tangent_operator, tangents_at
from hpcxrf.fitting.pixels.weight_classes import Phases, phase_operator
from hpcxrf.physics.constants import PHYSICS
from hpcxrf.physics.model import SpectrumModel, evaluate, tailed_lines
from hpcxrf.physics.parameters import INDEX

METHODS = ("linear", "phases", "nnls", "poisson", "nonlinear", "full")
NAMES = ("Ca", "Fe", "Zn", "Ba_L", "elastic", "Compton")
TABLE = table(("Ca", "Fe", "Zn", "Ba_L"))
CHANNEL = channels(120, 640)
THETA = theta_of(**(TRUTH | {"energy_slope": 0.02008, "energy_quadratic": 0.0}))
MODEL = SpectrumModel(
    table=TABLE, channel=CHANNEL, constants=PHYSICS, tailed=tailed_lines(TABLE, elastic=True, constants=PHYSICS)
)
PHI = evaluate(THETA, MODEL).phi
N_COMPONENTS = PHI.shape[1]
CONTINUUM = torch.stack([660.0 - CHANNEL, CHANNEL - 100.0]).clamp(min=1.0)
MEAN = torch.tensor([30.0, 100.0, 10.0, 20.0, 50.0, 150.0], dtype=torch.float64)
BASIS = pixel_basis(PHI, MEAN, 40.0 * CONTINUUM / CONTINUUM.sum(), 1)
OPERATOR = pixel_operator(BASIS)


def two_phases():
    """The mean pixel, and one that is nearly nothing but continuum and calcium."""
    light = torch.tensor([3.0, 0.002, 1.0, 0.1, 0.002, 0.002, 2.0, 2.0], dtype=torch.float64)
    return torch.stack([BASIS.coefficients, light * BASIS.coefficients])


def data():
    share = torch.tensor([0.5, 0.5], dtype=torch.float64)
    phases = Phases(coefficients=two_phases(), share=share, gain=share, report="")
    return MethodData(
        phases=phase_operator(phases, BASIS),
        tangent=tangent_operator(BASIS, tangents_at(THETA, MODEL)),
        full=full_model(MODEL, THETA, BASIS),
    )


DATA = data()


def fit(counts, method="linear", operator=OPERATOR, **options):
    """Fit by a method; `phases` is `linear` with weights by phase."""
    given = None if method == "linear" else DATA
    every = torch.ones(len(counts), dtype=torch.bool)
    options = {"measured": every, "data": given} | options
    name = "linear" if method == "phases" else method
    return fit_pixels(counts, operator=operator, method=name, **options)


def poisson_pixels(coefficients, seed=0):
    """Counts (pixel, channel) of coefficients (pixel, column)."""
    return drawn((coefficients @ BASIS.columns.T).clamp(min=0.0), seed).to(torch.float32)


def drifted_pixels(coefficients, drift, seed=0):
    """Counts with theta moved by `drift` (pixel, parameter of the tangents)."""
    theta = THETA.expand(len(drift), -1).clone()
    for i, name in enumerate(drift_sd(THETA)):
        theta[:, INDEX[name]] += drift[:, i]
    expected = []
    for i in range(0, len(drift), 50):
        phi = evaluate(theta[i : i + 50], MODEL).phi
        peaks = (phi @ coefficients[i : i + 50, :N_COMPONENTS, None])[..., 0]
        expected.append(peaks + coefficients[i : i + 50, N_COMPONENTS:] @ BASIS.columns[:, N_COMPONENTS:].T)
    return drawn(torch.cat(expected), seed).to(torch.float32)
