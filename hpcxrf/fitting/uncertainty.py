"""Covariance of theta and amplitudes, and what could have been detected."""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from hpcxrf.fitting.objective import poisson_weights

# Currie 1968, Anal. Chem. 40, 586: both errors at 5 %, L_D = 2.71 + 3.29 sigma_0.
CURRIE_OFFSET: Final = 2.71
CURRIE_FACTOR: Final = 3.29
_UNMEASURED_SHARE: Final = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncertainty:
    """Standard uncertainties, already scaled by sqrt(reduced chi2) where that exceeds 1."""

    amplitude_sigma: Tensor
    """(component,)."""
    theta_sigma: Tensor
    """(parameter,), NaN where the parameter was not free to move."""
    detection_limit: Tensor
    """(component,)."""
    degrees_of_freedom: int
    reduced_chi2: float


def detection_limit(sigma_null: Tensor) -> Tensor:
    """Currie's limit of detection, 95 %, counts.

    Args:
        sigma_null: standard uncertainty of the amplitude in the absence of the component, any shape.
    """
    return CURRIE_OFFSET + CURRIE_FACTOR * sigma_null


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
) -> Uncertainty:
    """Covariance `(J' W J + prior)^-1` with Poisson weights of the model, J = [components, hats above 0, theta].

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
    """
    n_components = amplitude.shape[0]
    used = torch.cat([positive_hats.new_ones(n_components), positive_hats])
    full = torch.cat([columns[:, used], jacobian[:, moving]], dim=1)
    prior = torch.cat([columns.new_zeros(int(used.sum())), prior_precision[moving]])
    weights = poisson_weights(expected)
    degrees = max(counts.shape[0] - full.shape[1], 1)
    chi2 = float((weights * (counts - expected) ** 2).sum() / degrees)
    excess = max(chi2, 1.0) ** 0.5
    # The prior holds whatever the misfit is: it is scaled here as the excess is multiplied in afterwards.
    prior = prior * excess**2
    sigma = _inverse_diagonal(full, weights[None], prior)[0].sqrt() * excess
    absent = expected - columns[:, :n_components].T * amplitude[:, None]
    null = _inverse_diagonal(full, poisson_weights(absent), prior)
    sigma_null = null.diagonal()[:n_components].sqrt() * excess
    # A component without a count in the fit range (a scatter peak beyond its end) was not measured.
    unmeasured = columns[:, :n_components].sum(dim=0) < _UNMEASURED_SHARE
    sigma[:n_components][unmeasured] = torch.nan
    sigma_null = torch.where(unmeasured, torch.nan, sigma_null)
    theta_sigma = torch.full_like(prior_precision, torch.nan)
    theta_sigma[moving] = sigma[int(used.sum()) :]
    return Uncertainty(
        amplitude_sigma=sigma[:n_components],
        theta_sigma=theta_sigma,
        detection_limit=detection_limit(sigma_null),
        degrees_of_freedom=degrees,
        reduced_chi2=chi2,
    )


def _inverse_diagonal(full: Tensor, weights: Tensor, prior: Tensor) -> Tensor:
    """Diagonals (case, column) of `(J' W J + prior)^-1` for weights (case, channel); NaN where singular."""
    information = torch.einsum("nk,cn,nl->ckl", full, weights, full) + torch.diag(prior)
    scale = information.diagonal(dim1=-2, dim2=-1).clamp(min=1e-300).rsqrt()
    unit = information * scale[:, :, None] * scale[:, None, :]
    eye = torch.eye(unit.shape[-1], dtype=unit.dtype, device=unit.device)
    factor, info = torch.linalg.cholesky_ex(unit + 1e-12 * eye)
    variance = torch.cholesky_inverse(factor).diagonal(dim1=-2, dim2=-1) * scale**2
    return torch.where((info == 0)[:, None], variance, torch.nan)
