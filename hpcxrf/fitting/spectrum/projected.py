"""Matched filters in a residual, after projection against all that is already explained."""

import math
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from hpcxrf.fitting.limits import detection_limit

# Share of a column's norm below which what projection left of it is rounding.
_NOTHING: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """Covariance `1 + N N'` of a residual in units of the counting noise, N the usual flaws of a model."""

    flaws: Tensor
    """(channel, flaw)."""
    factor: Tensor
    """Cholesky factor of `1 + N' N`."""

    def dual(self, columns: Tensor) -> Tensor:
        """Inverse covariance times the columns (channel, any), by Woodbury's identity."""
        inside = torch.cholesky_solve(self.flaws.T @ columns, self.factor)
        return columns - self.flaws @ inside


def build_metric(flaws: Tensor) -> Metric:
    """The metric of flaws (channel, flaw), each one standard deviation high; may have no column."""
    gram = flaws.T @ flaws + torch.eye(flaws.shape[1], dtype=flaws.dtype)
    return Metric(flaws=flaws, factor=torch.linalg.cholesky(gram))


@dataclass(frozen=True, slots=True, kw_only=True)
class Projected:
    """Columns and residual after projection; `dual`: times the inverse covariance."""

    basis: Tensor
    """(channel, explained), orthonormal with `basis_dual`."""
    basis_dual: Tensor
    columns: Tensor
    """(channel, column)."""
    dual: Tensor
    residual: Tensor
    """(channel,)."""
    whole: Tensor
    """(column,) norm of each column before projection."""
    metric: Metric
    within: int = 0
    """Channels less bins: what differs within a bin is noise of variance 1."""

    @property
    def norm(self) -> Tensor:
        """(column,)."""
        return (self.columns * self.dual).sum(dim=0).clamp(min=0.0).sqrt()

    @property
    def surviving(self) -> Tensor:
        """(column,) share of the norm that is left, 0 to 1."""
        return self.norm / self.whole.clamp(min=1e-300)

    @property
    def scale(self) -> float:
        """Square root of the reduced chi2 that remains per channel, at least 1."""
        chi2 = self.within + float(self.residual @ self.metric.dual(self.residual[:, None])[:, 0])
        degrees = max(self.within + self.residual.shape[0] - self.basis.shape[1], 1)
        return math.sqrt(max(chi2 / degrees, 1.0))

    @property
    def z(self) -> Tensor:
        """(column,) `x' V^-1 r / |x| / scale`; 0 where nothing of a column is left."""
        norm = self.norm
        alive = norm > _NOTHING * self.whole
        raw = (self.dual.T @ self.residual) / torch.where(alive, norm, 1.0)
        return torch.where(alive, raw, 0.0) / self.scale


def project(explained: Tensor, columns: Tensor, residual: Tensor, metric: Metric, *, within: int = 0) -> Projected:
    """Project columns and residual against what is explained, all in units of the counting noise.

    Args:
        explained: (channel, any), of any rank; of bins of channels as well.
        columns: (channel, column).
        residual: (channel,).
        metric: covariance of the residual.
        within: channels less bins.
    """
    basis, basis_dual = _orthonormalise(explained, metric)
    both = torch.cat([columns, residual[:, None]], dim=1)
    dual = metric.dual(columns)
    left = remove_basis(basis, basis_dual, both)
    return Projected(
        basis=basis,
        basis_dual=basis_dual,
        columns=left[:, :-1],
        dual=dual - basis_dual @ (basis_dual.T @ columns),
        residual=left[:, -1],
        whole=(columns * dual).sum(dim=0).clamp(min=0.0).sqrt(),
        metric=metric,
        within=within,
    )


def join_column(given: Projected, index: int) -> Projected:
    """The same with one of the columns among the explained ones."""
    return _join(given, given.columns[:, index], given.dual[:, index], given.norm[index])


def join_shape(given: Projected, shape: Tensor) -> Projected:
    """The same with a shape (channel,) of any amplitude among the explained ones; in units of the counting noise."""
    own = remove_basis(given.basis, given.basis_dual, shape[:, None])[:, 0]
    dual = given.metric.dual(own[:, None])[:, 0]
    norm2 = float(own @ dual)
    if norm2 <= _NOTHING**2 * float(shape @ shape):
        return given
    return _join(given, own, dual, torch.tensor(norm2, dtype=shape.dtype).sqrt())


def _join(given: Projected, column: Tensor, dual: Tensor, norm: Tensor) -> Projected:
    unit, unit_dual = column / norm, dual / norm
    share = unit_dual @ given.columns
    return replace(
        given,
        basis=torch.cat([given.basis, unit[:, None]], dim=1),
        basis_dual=torch.cat([given.basis_dual, unit_dual[:, None]], dim=1),
        columns=given.columns - unit[:, None] * share,
        dual=given.dual - unit_dual[:, None] * share,
        residual=given.residual - unit * (unit_dual @ given.residual),
    )


def z_beside(given: Projected, other: int) -> Tensor:
    """(column,) z of every column once column `other` is explained too."""
    norm2 = given.norm[other] ** 2
    share = given.dual[:, other] @ given.columns / norm2
    along = given.dual[:, other] @ given.residual
    left2 = (given.norm**2 - share**2 * norm2).clamp(min=0.0)
    alive = left2 > _NOTHING * given.whole**2
    raw = (given.dual.T @ given.residual - share * along) / torch.where(alive, left2, 1.0).sqrt()
    return torch.where(alive, raw, 0.0) / given.scale


def limits(given: Projected) -> Tensor:
    """(column,) Currie's limit of detection, 95 %; infinite where nothing of a column is left."""
    return detection_limit(given.scale / given.norm)


def fit_together(given: Projected, indices: list[int]) -> tuple[Tensor, Tensor]:
    """Amplitudes (column,) of several columns fitted at once, and the diagonal of their covariance."""
    columns, dual = given.columns[:, indices], given.dual[:, indices]
    covariance = torch.linalg.pinv(columns.T @ dual, hermitian=True)
    return covariance @ (dual.T @ given.residual), covariance.diagonal()


def remove_basis(basis: Tensor, basis_dual: Tensor, columns: Tensor) -> Tensor:
    """Columns (channel, any) without their part along the basis; twice, as rounding wants it."""
    once = columns - basis @ (basis_dual.T @ columns)
    return once - basis @ (basis_dual.T @ once)


def _orthonormalise(columns: Tensor, metric: Metric) -> tuple[Tensor, Tensor]:
    """The span of the columns, orthonormal in the metric, and its dual."""
    norm = columns.norm(dim=0)
    unit = columns[:, norm > 0] / norm[norm > 0]
    dual = metric.dual(unit)
    values, vectors = torch.linalg.eigh(unit.T @ dual)
    kept = values > 1e-11 * values[-1:]
    turn = vectors[:, kept] * values[kept].rsqrt()
    return unit @ turn, dual @ turn
