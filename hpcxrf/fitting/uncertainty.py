"""Covariance of theta and amplitudes, what counts as found, and what could have been detected.

Two errors stand side by side. Counting noise gives `H^-1` with `H = J' W J + prior`. Usual flaws of the model (columns
N, one standard deviation each) move the estimates by `H^-1 J' W N`, as often up as down, and how large they are in this
spectrum, k, is read from its own residual (`hpcxrf.fitting.model_error`):
`sigma^2 = diag H^-1 + k^2 sum_j (H^-1 J' W N_j)^2`. A reduced chi2 above 1 multiplies nothing: a misfit under one peak
says nothing about another one.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from hpcxrf.fitting.limits import detection_limit
from hpcxrf.fitting.model_error import Flaws, VisibleFlaws, estimate_model_error, multiply_flaws, project_flaws
from hpcxrf.fitting.objective import poisson_weights
from hpcxrf.fitting.spectrum.compiled import load_spectrum_kernels
from hpcxrf.fitting.spectrum.pack import find_spans

# Share of a weight below which a change of it is rounding.
_SAME: Final = 1e-13
_UNMEASURED_SHARE: Final = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Variances:
    """Variances of counting noise and of the model's flaws apart, the flaws of usual size (k = 1)."""

    amplitude: Tensor
    """(component,) counting noise."""
    amplitude_flaws: Tensor
    """(component,)."""
    null: Tensor
    """(component,) counting noise of the amplitude in the absence of the component."""
    null_flaws: Tensor
    """(component,) the same, of the flaws of all others."""
    photon: Tensor
    """(component,) counting noise that one recorded count of the component adds, count: 1 where a peak stands alone,
    more where others overlap it; 1 where it was not measured."""
    theta: Tensor
    """(parameter,), NaN where the parameter was not free to move."""
    theta_flaws: Tensor
    """(parameter,)."""
    visible: VisibleFlaws | None
    """What the residual shows of the flaws; None: `model_error` is given."""
    model_error: float
    """k."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncertainty:
    """Standard uncertainties, counting noise and flaws of the model together."""

    amplitude_sigma: Tensor
    """(component,)."""
    theta_sigma: Tensor
    """(parameter,), NaN where the parameter was not free to move."""
    detection_limit: Tensor
    """(component,)."""
    photon_variance: Tensor
    """(component,) variance that one recorded count of the component adds to its amplitude, count."""
    degrees_of_freedom: int
    reduced_chi2: float
    model_error: float
    """Size of the model's flaws in units of usual ones; 0 where none were asked for."""
    variances: Variances


def spectrum_uncertainty(
    counts: Tensor,
    expected: Tensor,
    columns: Tensor,
    jacobian: Tensor,
    amplitude: Tensor,
    *,
    moving: Tensor,
    positive_hats: Tensor,
    prior_precision: Tensor,
    flaws: Flaws | None = None,
    model_error: float | None = None,
) -> Uncertainty:
    """Covariance of counting noise with Poisson weights of the model, J = [components, hats above 0, theta], and flaws.

    Every component is in J, also one that ended at 0: its sigma is that of the signed estimate.

    Args:
        counts: (channel,) raw counts.
        expected: (channel,) model with background.
        columns: (channel, component + hat).
        jacobian: (channel, parameter), counts per unit of the parameter.
        amplitude: (component,).
        moving: (parameter,) bool: free and not at a bound.
        positive_hats: (hat,) bool.
        prior_precision: (parameter,): 1 / prior_sd^2.
        flaws: usual errors of the model; None: the model is taken for true.
        model_error: size of the flaws in units of usual ones; None: it is read from the residual.
    """
    n_components = amplitude.shape[0]
    used = torch.cat([positive_hats.new_ones(n_components), positive_hats])
    # What could have been detected does not hang on which columns of the background this noise has left at 0.
    every = torch.cat([columns, jacobian[:, moving]], dim=1)
    in_fit = torch.cat([used, used.new_ones(every.shape[1] - used.shape[0])])
    prior = torch.cat([columns.new_zeros(columns.shape[1]), prior_precision[moving]])
    weights = poisson_weights(expected)
    residual, root = counts - expected, weights.sqrt()
    degrees = max(counts.shape[0] - int(in_fit.sum()), 1)
    # One that is not finite has no flaws to be told.
    flawed = flaws is not None and bool(torch.isfinite(flaws.columns.sum()) & torch.isfinite(every.sum()))
    flaws = flaws if flaws is not None and flawed else Flaws(columns=every[:, :0], owner=moving.new_zeros(0).long())
    products = multiply_flaws(every * root[:, None], residual * root, flaws)
    of_fit = products.choose_columns(in_fit)
    inverse = _invert(of_fit.columns + torch.diag(prior[in_fit]))
    shift = inverse @ of_fit.cross
    absent = poisson_weights(expected - columns[:, :n_components].T * amplitude[:, None])
    null, null_flaws, photon = _null_variances(every, absent, products.columns, prior, flaws, weights)
    # A component without a count in the fit range (a scatter peak beyond its end) was not measured.
    unmeasured = columns[:, :n_components].sum(dim=0) < _UNMEASURED_SHARE
    visible = project_flaws(of_fit) if flawed and model_error is None else None
    variance, by_flaws = inverse.diagonal(), shift.square().sum(dim=1)
    variances = Variances(
        amplitude=variance[:n_components].masked_fill(unmeasured, torch.nan),
        amplitude_flaws=by_flaws[:n_components],
        null=null.masked_fill(unmeasured, torch.nan),
        null_flaws=null_flaws,
        photon=torch.where(unmeasured | ~torch.isfinite(photon), 1.0, photon),
        theta=_scatter(variance[int(used.sum()) :], moving),
        theta_flaws=_scatter(by_flaws[int(used.sum()) :], moving),
        visible=visible,
        model_error=(model_error or 0.0) if flawed else 0.0,
    )
    chi2 = float((weights * residual**2).sum() / degrees)
    return combine_variances(variances, degrees_of_freedom=degrees, reduced_chi2=chi2)


def combine_variances(
    variances: Variances, *, degrees_of_freedom: int, reduced_chi2: float, factor: float = 1.0
) -> Uncertainty:
    """Add counting noise and flaws.

    Args:
        variances: of raw counts.
        degrees_of_freedom: of the fit.
        reduced_chi2: of raw counts.
        factor: variance over mean of the counts, 1 for raw ones: less of the residual is left for flaws to explain.
    """
    visible = variances.visible
    k = variances.model_error if visible is None else estimate_model_error(visible, factor=factor)

    def add(noise: Tensor, by_flaws: Tensor) -> Tensor:
        return (factor * noise + k**2 * by_flaws).sqrt()

    sigma_null = add(variances.null, variances.null_flaws)
    return Uncertainty(
        amplitude_sigma=add(variances.amplitude, variances.amplitude_flaws),
        theta_sigma=add(variances.theta, variances.theta_flaws),
        detection_limit=detection_limit(sigma_null, factor * variances.photon),
        photon_variance=factor * variances.photon,
        degrees_of_freedom=degrees_of_freedom,
        reduced_chi2=reduced_chi2 / factor,
        model_error=k,
        variances=variances,
    )


def _null_variances(
    full: Tensor, weights: Tensor, shared: Tensor, prior: Tensor, flaws: Flaws, whitening: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Variances (component,) by noise and by flaws in a spectrum without the component, and what a count of it adds.

    Args:
        full: (channel, column), the components first.
        weights: (component, channel) Poisson weights of the model without that component.
        shared: (column, column) information by the weights of the whole model.
        prior: (column,) precision.
        flaws: in units of the noise of the whole model; a component that is absent has none of its own.
        whitening: (channel,) weights of the whole model.
    """
    n = weights.shape[0]
    inverse = _invert_rows(_sum_information(full, weights, shared, whitening) + torch.diag(prior))
    estimator = (inverse @ full.T) * weights
    response = (estimator / whitening.sqrt()) @ flaws.columns
    photon = (estimator.square() * full[:, :n].T).sum(dim=1)
    foreign = flaws.owner[None] != torch.arange(n, device=flaws.owner.device)[:, None]
    return inverse[:, :n].diagonal(), torch.where(foreign, response, 0.0).square().sum(dim=1), photon


def _sum_information(full: Tensor, weights: Tensor, shared: Tensor, common: Tensor) -> Tensor:
    """`full' diag(weights) full` (case, column, column), of weights that differ from common ones in few channels.

    Args:
        full: (channel, column).
        weights: (case, channel).
        shared: (column, column) for the common weights.
        common: (channel,).
    """
    changed = weights - common
    if full.device.type == "cpu" and full.dtype == torch.float64:
        return _sum_compiled(full, shared, changed, changed.abs() > _SAME * common)
    cases = []
    for one, some in zip(changed, changed.abs() > _SAME * common, strict=True):
        few = full[some]
        cases.append(shared + few.T @ (few * one[some, None]))
    return torch.stack(cases)


def _sum_compiled(full: Tensor, shared: Tensor, changed: Tensor, differs: Tensor) -> Tensor:
    """The same by a kernel, which leaves out what of a column, and of a change, is nothing."""
    rows = np.ascontiguousarray(full.numpy().T)
    information = np.empty((len(changed), *shared.shape))
    load_spectrum_kernels().add_information(
        rows,
        find_spans(rows),
        np.ascontiguousarray(changed.numpy()),
        find_spans(differs.numpy()),
        shared.numpy(),
        np.empty(rows.shape[1]),
        information,
    )
    return torch.from_numpy(information)


def _invert_rows(information: Tensor) -> Tensor:
    """Row i of the inverse of case i, (case, column), by Cholesky; NaN where singular."""
    n = information.shape[0]
    scale = information.diagonal(dim1=-2, dim2=-1).clamp(min=1e-300).rsqrt()
    unit = information * scale[..., :, None] * scale[..., None, :]
    eye = torch.eye(unit.shape[-1], dtype=unit.dtype, device=unit.device)
    factor, info = torch.linalg.cholesky_ex(unit + 1e-12 * eye)
    row = torch.cholesky_solve(eye[:n, :, None], factor)[..., 0] * scale * scale.diagonal()[:, None]
    return torch.where((info == 0)[:, None], row, torch.nan)


def _invert(information: Tensor) -> Tensor:
    """Inverse (*case, column, column) by Cholesky; NaN where singular."""
    scale = information.diagonal(dim1=-2, dim2=-1).clamp(min=1e-300).rsqrt()
    unit = information * scale[..., :, None] * scale[..., None, :]
    eye = torch.eye(unit.shape[-1], dtype=unit.dtype, device=unit.device)
    factor, info = torch.linalg.cholesky_ex(unit + 1e-12 * eye)
    inverse = torch.cholesky_inverse(factor) * scale[..., :, None] * scale[..., None, :]
    return torch.where((info == 0)[..., None, None], inverse, torch.nan)


def _scatter(values: Tensor, moving: Tensor) -> Tensor:
    """(parameter,), NaN where nothing moved."""
    found = torch.full(moving.shape, torch.nan, dtype=values.dtype, device=values.device)
    found[moving] = values
    return found
