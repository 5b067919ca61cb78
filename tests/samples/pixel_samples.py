"""A basis of four families, scatter and a continuum, and Poisson pixels of it, for the tests of all pixel methods."""

from dataclasses import replace

import torch
from fit_samples import TRUTH, channels, drawn, table, theta_of

from hpcxrf.fitting.kernels.layout import FAINT
from hpcxrf.fitting.pixels.basis import pixel_basis, pixel_operator
from hpcxrf.fitting.pixels.fit import fit_pixels, prepare_solver
from hpcxrf.fitting.pixels.full import full_model, full_solver
from hpcxrf.fitting.pixels.model import DetectorPart, PixelModel
from hpcxrf.fitting.pixels.parts import move_to
from hpcxrf.fitting.pixels.tangent import drift_sd, tangents_at
from hpcxrf.fitting.pixels.weight_classes import WeightClasses
from hpcxrf.physics.constants import PHYSICS
from hpcxrf.physics.model import SpectrumModel, evaluate, find_tailed_lines
from hpcxrf.physics.parameters import INDEX

CPU = torch.device("cpu")
METHODS = ("linear", "weight_classes", "nnls", "poisson", "nonlinear", "full")
NAMES = ("Ca", "Fe", "Zn", "Ba_L", "elastic", "Compton")
TABLE = table(("Ca", "Fe", "Zn", "Ba_L"))
CHANNEL = channels(120, 640)
THETA = theta_of(**(TRUTH | {"energy_slope": 0.02008, "energy_quadratic": 0.0}))
MODEL = SpectrumModel(
    table=TABLE, channel=CHANNEL, constants=PHYSICS, tailed=find_tailed_lines(TABLE, elastic=True, constants=PHYSICS)
)
PHI = evaluate(THETA, MODEL).phi
N_COMPONENTS = PHI.shape[1]
CONTINUUM = torch.stack([660.0 - CHANNEL, CHANNEL - 100.0]).clamp(min=1.0)
MEAN = torch.tensor([30.0, 100.0, 10.0, 20.0, 50.0, 150.0], dtype=torch.float64)
BASIS = pixel_basis(PHI, MEAN, 40.0 * CONTINUUM / CONTINUUM.sum(), 1)
OPERATOR = pixel_operator(BASIS)


ONE_DETECTOR = PixelModel(
    parts=(DetectorPart(theta=THETA, table=TABLE, share=torch.ones(N_COMPONENTS, dtype=torch.float64)),),
    channel=CHANNEL,
    constants=PHYSICS,
    elastic=True,
)


def two_classes():
    """Coefficients of the mean pixel, and of one that is nearly nothing but continuum and calcium."""
    light = torch.tensor([3.0, 0.002, 1.0, 0.1, 0.002, 0.002, 2.0, 2.0], dtype=torch.float64)
    return torch.stack([BASIS.coefficients, light * BASIS.coefficients])


def prepare(method, basis=BASIS, device=CPU):
    """Solver of a method; `weight_classes` is `linear` with weights by class. No pixel is followed."""
    if method == "weight_classes":
        share = torch.tensor([0.5, 0.5], dtype=torch.float64)
        classes = WeightClasses(coefficients=two_classes(), share=share, gain=share, report="")
        return prepare_solver("linear", replace(basis, weight_classes=classes), None, device)
    if method == "nonlinear":
        return prepare_solver(method, replace(basis, tangents=tangents_at(THETA, MODEL)), None, device)
    if method == "full":
        return full_solver(move_to(device, full_model(MODEL, THETA, basis)), basis, device)
    return prepare_solver(method, basis, None, device)


SOLVERS = {method: prepare(method) for method in METHODS}


def fit(counts, method="linear", solver=None, **options):
    """Fit by a method, or by a solver of another basis."""
    options = {"measured": torch.ones(len(counts), dtype=torch.bool)} | options
    return fit_pixels(counts, solver=SOLVERS[method] if solver is None else solver, **options)


def deviance_of_faint(counts, basis=BASIS):
    """How far the deviance per degree of freedom (pixel,) may be from the exact one: that of few counts; 0 of others.

    What lacks of the least expectation is summed over some channels, with an error of at most 0.05 counts in the pixels
    that were drawn to try it, which is twice in a deviance. Other pixels may have somewhat more.
    """
    free = counts.shape[1] - basis.columns.shape[1]
    return torch.where(counts.to(torch.float64).sum(dim=1) < FAINT, 0.2 / free, 0.0)


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
