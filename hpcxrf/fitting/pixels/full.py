"""The true model in every pixel, theta free under a prior: good for regions of some thousand pixels that drift far.

The same variable projection as for integrated spectra. Weights are those of the pixel's own model, from amplitudes at
the starting theta first and then from the fit. On a processor a compiled kernel takes the steps, one pixel after the
other, at some 1000 spectra a second and core; tensors, which are the model, take them on any other device, and those
of the line shapes of MAPS, a few pixels at a time, which is what a core's cache holds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from hpcxrf.errors import FitError
from hpcxrf.fitting.kernels.spectrum_layout import COVARIANCE_RIDGE, LEAST_COUNTS, WEIGHT_FLOOR
from hpcxrf.fitting.nnls import nnls_gram
from hpcxrf.fitting.objective import poisson_deviance
from hpcxrf.fitting.pixels.basis import PixelBasis
from hpcxrf.fitting.pixels.compiled_full import (
    FOUND,
    STUCK,
    CompiledModel,
    compile_model,
    fit_true_model,
    load_true_model_kernels,
)
from hpcxrf.fitting.pixels.model import PixelModel, spectrum_model
from hpcxrf.fitting.pixels.parts import Estimate, Solver, move_to, prepare_operator, rows_at_a_time
from hpcxrf.fitting.pixels.tangent import drift_sd
from hpcxrf.fitting.spectrum.least_squares import LeastSquares, Space, State
from hpcxrf.fitting.spectrum.separable import design, minimise, start
from hpcxrf.physics.jacobian import counts_jacobian
from hpcxrf.physics.model import SpectrumModel, evaluate, find_tailed_lines
from hpcxrf.physics.parameters import INDEX, PARAMETER_NAMES

# Fixed, and counted from the start of the tile, as the micro-batches are.
PIXELS_AT_A_TIME: Final = 4
# Shapes of all lines, their products and derivatives by theta, float32; derivatives of the counts, float64.
_LINE_ARRAYS: Final = 12
_COLUMN_ARRAYS: Final = 8
_BY_PIXEL: Final = ("coefficients", "solved", "factors", "variance", "null_variance", "shift", "shift_sigma", "misfit")
_STEP_PARAMETERS: Final = ("step_offset", "step_linear")
PASSES: Final = ((12, 1e-4), (12, 1e-6))
_FARTHEST_SD: Final = 6.0
_SCALE_SD: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class FullModel:
    """Model, prior and background of the pixels, on one device."""

    model: SpectrumModel
    theta: Tensor
    """(parameter,) float64: start of every pixel, and the centre of the prior."""
    background: Tensor
    """(channel, column) float64."""
    space: Space
    places: Tensor
    """(free parameter,) int64: places in theta of those that are free."""


KERNELS: Final = ("true_model",)
"""Modules of kernels that a processor needs."""


def load_kernels() -> None:
    """Load what a processor needs; the first call on a machine compiles it."""
    load_true_model_kernels()


def prepare(basis: PixelBasis, model: PixelModel | None, device: torch.device) -> Solver:
    """Prepare the method.

    Args:
        basis: background columns and mean pixel.
        model: model of the pixels of one detector.
        device: device of the counts.

    Raises:
        FitError: no model, the raw sum of several detectors, or columns with indistinguishable spectra.
    """
    if model is None:
        raise FitError("pixel method 'full' needs the model of the pixels; give a PixelModel")
    if len(model.parts) != 1:
        raise FitError(
            "pixel method 'full' fits the theta of one detector, not of a sum of detectors; set pixels.detectors: each"
        )
    (part,) = model.parts
    full = move_to(device, full_model(spectrum_model(model, part), part.theta, basis))
    return full_solver(full, basis, device)


def full_solver(full: FullModel, basis: PixelBasis, device: torch.device) -> Solver:
    """Solver of a model on its device.

    Args:
        full: model, prior and background.
        basis: basis of the pixels.
        device: device of the counts.
    """
    operator = prepare_operator(basis, device)
    compiled = compile_model(full.model, full.space, full.background, PASSES) if can_be_compiled(full) else None

    def estimate(counts: Tensor, signed: Tensor, *, deviance: bool, errors: bool) -> Estimate:
        del signed, deviance, errors
        return fit_full(counts, full) if compiled is None else fit_compiled(counts, full, compiled)

    return Solver(operator=operator, estimate=estimate)


def can_be_compiled(full: FullModel) -> bool:
    """Whether the kernels know the model: on a processor always but with the line shapes of MAPS."""
    return full.theta.device.type == "cpu" and not full.model.constants.maps_line_shape


def full_model(
    model: SpectrumModel, theta: Tensor, basis: PixelBasis, prior_sd: Mapping[str, float] | None = None
) -> FullModel:
    """Prepare the fits of a region.

    Args:
        model: lines, channels and constants of the pixels.
        theta: (parameter,) float64, that of the integrated fit or of the region.
        basis: basis whose background columns the pixels have.
        prior_sd: standard deviation of the free parameters, units of theta; None: energy offset, gain and width.

    Raises:
        KeyError: a name that is not a parameter.
    """
    prior = drift_sd(theta) if prior_sd is None else dict(prior_sd)
    sd = torch.ones_like(theta)
    free = torch.zeros_like(theta, dtype=torch.bool)
    for name, value in prior.items():
        sd[INDEX[name]] = value
        free[INDEX[name]] = True
    return FullModel(
        model=replace(
            model,
            shape_dtype=torch.float32,
            with_step=any(name in prior or float(theta[INDEX[name]]) != 0.0 for name in _STEP_PARAMETERS),
            tailed=find_tailed_lines(
                model.table, elastic=model.elastic, constants=model.constants, copies=model.copies
            ),
        ),
        theta=theta,
        background=basis.columns[:, basis.n_components :],
        space=Space(
            centre=theta,
            prior_sd=sd,
            scale=_SCALE_SD * sd,
            lower=theta - _FARTHEST_SD * sd,
            upper=theta + _FARTHEST_SD * sd,
            free=free,
            free_names=frozenset(prior),
        ),
        places=torch.tensor([INDEX[name] for name in PARAMETER_NAMES if name in prior], device=theta.device),
    )


def fit_compiled(counts: Tensor, full: FullModel, compiled: CompiledModel) -> Estimate:
    """Amplitudes and theta of a micro-batch by the kernels.

    Args:
        counts: (pixel, channel) finite, any real dtype.
        full: model of `full_model`.
        compiled: the same, of `compile_model`.
    """
    found = fit_true_model(counts, compiled)
    single, theta = torch.float32, torch.from_numpy(found.theta)
    coefficients = torch.from_numpy(found.coefficients).to(single)
    estimate = Estimate(
        coefficients=coefficients,
        solved=torch.from_numpy(found.status == FOUND),
        factors=coefficients[:, :0],
        columns=coefficients.new_zeros((0, counts.shape[1])),
        variance=torch.from_numpy(found.variance).to(single),
        null_variance=torch.from_numpy(found.null_variance).to(single),
        shift=(theta - full.theta).index_select(1, full.places).to(single),
        shift_sigma=torch.from_numpy(found.theta_sigma).to(single),
        misfit=torch.from_numpy(found.misfit).to(single),
    )
    for i in np.flatnonzero(found.status == STUCK):
        # Where pivoting goes in a circle: by the tensors, which then take another way.
        estimate = _replace_pixel(estimate, int(i), _fit_some(counts[i : i + 1], full))
    return estimate


def _replace_pixel(estimate: Estimate, i: int, by: Estimate) -> Estimate:
    """The estimate with the pixel at a place taken from another, of that pixel alone."""
    place = torch.tensor([i])
    new = {name: getattr(estimate, name).index_copy(0, place, getattr(by, name)) for name in _BY_PIXEL}
    return replace(estimate, **new)


def fit_full(counts: Tensor, full: FullModel) -> Estimate:
    """Amplitudes and theta of a micro-batch by tensor operations.

    Args:
        counts: (pixel, channel) finite, any real dtype.
        full: model of `full_model`.
    """
    size = rows_at_a_time(counts.device, _bytes_of_a_pixel(counts.shape[1], full), PIXELS_AT_A_TIME)
    parts = [_fit_some(counts[i : i + size], full) for i in range(0, max(len(counts), 1), size)]
    columns = full.background.new_zeros((0, counts.shape[1])).to(torch.float32)
    joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in _BY_PIXEL}
    return Estimate(columns=columns, **joined)


def _bytes_of_a_pixel(n_channels: int, full: FullModel) -> int:
    lines = full.model.table.energy_kev.shape[0] + 1
    columns = len(full.model.component_names) + full.background.shape[1] + full.theta.shape[0]
    return n_channels * (4 * _LINE_ARRAYS * lines + 8 * _COLUMN_ARRAYS * columns)


def _fit_some(counts: Tensor, full: FullModel) -> Estimate:
    y = counts.to(torch.float64)
    theta = full.theta.expand(y.shape[0], -1)
    columns = torch.cat([evaluate(full.theta, full.model).phi, full.background], dim=1)
    expected = _first_guess(y, columns)
    least_squares = LeastSquares(
        counts=y, weights=_weights(expected), model=full.model, hats=full.background, space=full.space
    )
    state = start(theta, least_squares)
    for i, (iterations, tolerance) in enumerate(PASSES):
        if i > 0:
            least_squares = replace(least_squares, weights=_weights(_expected_counts(state, least_squares)))
            state = start(state.theta, least_squares)
        state = minimise(state, least_squares, iterations=iterations, tolerance=tolerance)
    return _describe(state, least_squares, full)


def _first_guess(y: Tensor, columns: Tensor) -> Tensor:
    """Expected counts (pixel, channel) at the starting theta, unit weights."""
    gram = (columns.T @ columns).expand(y.shape[0], -1, -1)
    return nnls_gram(gram, y @ columns).x @ columns.T


def _expected_counts(state: State, least_squares: LeastSquares) -> Tensor:
    _, columns = design(state.theta, least_squares)
    return (columns @ state.linear[..., None])[..., 0]


def _weights(expected: Tensor) -> Tensor:
    """`1 / mu`, raised to a share of the pixel's mean where there is next to nothing."""
    floor = WEIGHT_FLOOR * expected.mean(dim=1, keepdim=True)
    return 1.0 / torch.maximum(expected, floor.clamp(min=LEAST_COUNTS))


def _describe(state: State, least_squares: LeastSquares, full: FullModel) -> Estimate:
    evaluation, columns = design(state.theta, least_squares)
    expected = (columns @ state.linear[..., None])[..., 0]
    n = evaluation.phi.shape[-1]
    jacobian = counts_jacobian(state.theta, state.linear[:, :n], evaluation, full.model, names=full.space.free_names)
    variance, null, shift_sigma = _variances(
        torch.cat([columns, jacobian.index_select(-1, full.places)], dim=-1),
        _weights(expected),
        state.linear[:, :n],
        full.space.prior_sd.index_select(0, full.places) ** -2,
    )
    single = torch.float32
    coefficients = state.linear.to(single)
    return Estimate(
        coefficients=coefficients,
        solved=state.done,
        factors=coefficients[:, :0],
        columns=coefficients.new_zeros((0, columns.shape[1])),
        variance=variance.to(single),
        null_variance=null.to(single),
        shift=(state.theta - full.theta).index_select(1, full.places).to(single),
        shift_sigma=shift_sigma.to(single),
        misfit=poisson_deviance(least_squares.counts, expected).to(single),
    )


def _variances(full: Tensor, weights: Tensor, amplitude: Tensor, prior: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Variance (pixel, component) of the amplitudes with theta free, in the absence of the component, sigma of theta.

    Args:
        full: (pixel, channel, column then parameter) derivatives of the counts.
        weights: (pixel, channel).
        amplitude: (pixel, component).
        prior: (parameter,) 1 / sd^2.
    """
    n = amplitude.shape[1]
    weighted = full * weights[..., None]
    information = full.mT @ weighted
    diagonal = information.diagonal(dim1=-2, dim2=-1)
    diagonal[:, full.shape[2] - prior.shape[0] :] += prior
    scale = diagonal.clamp(min=1e-300).rsqrt()
    unit = information * scale[:, :, None] * scale[:, None, :]
    unit = unit + COVARIANCE_RIDGE * torch.eye(unit.shape[-1], dtype=unit.dtype, device=unit.device)
    factor, info = torch.linalg.cholesky_ex(unit)
    covariance = torch.cholesky_inverse(factor) * scale[:, :, None] * scale[:, None, :]
    variance = covariance.diagonal(dim1=-2, dim2=-1)[:, :n]
    estimator = weighted @ covariance[:, :, :n]
    own = amplitude * (full[..., :n] * estimator**2).sum(dim=1)
    bad = (info != 0)[:, None]
    return (
        variance.masked_fill(bad, torch.nan),
        torch.maximum(variance - own, 0.0 * variance).masked_fill(bad, torch.nan),
        covariance.diagonal(dim1=-2, dim2=-1)[:, -len(prior) :].sqrt().masked_fill(bad, torch.nan),
    )
