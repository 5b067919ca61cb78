"""How wrong the model of one spectrum is, in units of its usual flaws, read from the spectrum's own residual.

Every flaw (a column N_j of one standard deviation) is allowed to be k times as large as usual. What the fit can not
imitate of them shows in the residual: with P the projection off the fit's own columns, l and U the eigenvalues and
eigenvectors of `N' P N` and `u = U' N' P r / sqrt(l)`, each u is normal with the variance `1 + k^2 l`. k is where the
median of `u^2 / (1 + k^2 l)` is that of chi2 with one degree of freedom. The median, because an element that is not
listed is a few large u: by likelihood these alone would make k 3 to 8.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

USUAL_MODEL_ERROR: Final = 0.5
"""k of a spectrum that is too faint to tell; 58 simulated ones with another detector response have .1 to .7."""
_PRIOR_WEIGHT: Final = 3.0
"""Directions that the usual k counts as."""
_LEAST_VISIBLE: Final = 4.0
"""Variance, in units of the counting noise, from which on a direction says something about k."""
_LEAST_DIRECTIONS: Final = 4
_RANGE: Final = (0.02, 8.0)
_MEDIAN_CHI2: Final = 0.4549364
"""Median of chi2 with one degree of freedom."""
_BISECTIONS: Final = 18
_NOTHING: Final = 1e-11
_INVISIBLE: Final = 0.1
"""Flaws of which the fit leaves no more than this, in units of the counting noise, are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaws:
    """Usual errors of a fitted model, each one standard deviation high."""

    columns: Tensor
    """(channel, flaw) in units of the counting noise: counts times the square root of the Poisson weight."""
    owner: Tensor
    """(flaw,) int64: the component that would not have it if it were absent; -1: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VisibleFlaws:
    """Directions of the flaws that the fit can not imitate."""

    variance: Tensor
    """(direction,) variance of each where k is 1, in units of the counting noise."""
    square: Tensor
    """(direction,) square of what the residual has of each; 1 is expected of counting noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Products:
    """Scalar products over the channels, all in units of the counting noise."""

    columns: Tensor
    """(column, column) of the columns of a fit."""
    cross: Tensor
    """(column, flaw)."""
    flaws: Tensor
    """(flaw, flaw)."""
    columns_residual: Tensor
    """(column,) with the residual."""
    flaws_residual: Tensor
    """(flaw,)."""

    def choose_columns(self, chosen: Tensor) -> "Products":
        """Those of some columns (column,) bool."""
        return replace(
            self,
            columns=self.columns[chosen][:, chosen],
            cross=self.cross[chosen],
            columns_residual=self.columns_residual[chosen],
        )


def multiply_flaws(explained: Tensor, residual: Tensor, flaws: Flaws) -> Products:
    """Multiply what a fit explains, its residual, and the flaws of its model.

    Args:
        explained: (channel, any) columns of the fit, of any rank.
        residual: (channel,).
        flaws: of the fitted model. All in units of the counting noise.
    """
    beside = torch.cat([explained, flaws.columns, residual[:, None]], dim=1)
    n, own = explained.shape[1], flaws.columns.T @ beside[:, explained.shape[1] :]
    cross = explained.T @ beside
    return Products(
        columns=cross[:, :n].contiguous(),
        cross=cross[:, n:-1],
        flaws=own[:, :-1],
        columns_residual=cross[:, -1],
        flaws_residual=own[:, -1],
    )


def project_flaws(products: Products) -> VisibleFlaws:
    """Take apart what the fit leaves of its flaws, from products with its columns."""
    basis = _orthonormalise(products.columns)
    explained = basis.T @ products.cross
    gram = products.flaws - explained.T @ explained
    shown = gram.diagonal() > _INVISIBLE**2
    left = products.flaws_residual - explained.T @ (basis.T @ products.columns_residual)
    variance, turn = torch.linalg.eigh(gram[shown][:, shown])
    seen = variance > _NOTHING * variance[-1:].clamp(min=1.0)
    amount = turn[:, seen].T @ left[shown]
    return VisibleFlaws(variance=variance[seen], square=amount**2 / variance[seen])


def estimate_model_error(visible: VisibleFlaws, *, factor: float = 1.0) -> float:
    """Estimate k, the size of the flaws of this spectrum in units of usual ones, 0.02 to 8.

    Args:
        visible: of `project_flaws`.
        factor: variance over mean of the counts, 1 for raw ones.

    Returns:
        The estimate by the median, drawn to 0.5 as by three further directions; 0.5 below four directions.
    """
    variance = visible.variance / factor
    told = variance > _LEAST_VISIBLE
    count = int(told.sum())
    if count < _LEAST_DIRECTIONS:
        return USUAL_MODEL_ERROR
    own = _solve_median(visible.square[told] / factor, variance[told])
    weighted = count * math.log(own) + _PRIOR_WEIGHT * math.log(USUAL_MODEL_ERROR)
    return math.exp(weighted / (count + _PRIOR_WEIGHT))


def _solve_median(square: Tensor, variance: Tensor) -> float:
    """The k at which the median of the standardised squares is that of chi2; an end of the range beyond it."""
    low, high = (math.log(k) for k in _RANGE)
    # By tensors 77 directions take five times as long, most of it in calls.
    squares, variances = square.cpu().numpy(), variance.cpu().numpy()
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        median = float(np.median(squares / (1.0 + math.exp(2.0 * middle) * variances)))
        low, high = (middle, high) if median > _MEDIAN_CHI2 else (low, middle)
    return math.exp(0.5 * (low + high))


def _orthonormalise(gram: Tensor) -> Tensor:
    """Combinations (column, rank) of columns that are an orthonormal basis of their span, by their Gram matrix."""
    norm = gram.diagonal().clamp(min=0.0).sqrt()
    scale = torch.where(norm > 0.0, 1.0 / norm, 0.0)
    values, vectors = torch.linalg.eigh(gram * scale[:, None] * scale)
    kept = values > _NOTHING * values[-1:]
    basis: Tensor = scale[:, None] * vectors[:, kept] * values[kept].rsqrt()
    return basis
