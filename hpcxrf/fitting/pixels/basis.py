"""The linear model of a pixel, and the products that are computed once from it for all pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from hpcxrf.errors import FitError
from hpcxrf.fitting.pixels.bands import MOST_ROUNDING, BandedProjector, banded_projector, one_band, rounding
from hpcxrf.fitting.pixels.pairs import MOST_LOSS, Grouping, candidates, every_channel
from hpcxrf.fitting.pixels.single import to_single

if TYPE_CHECKING:
    from hpcxrf.fitting.pixels.tangent import Tangents
    from hpcxrf.fitting.pixels.weight_classes import WeightClasses

_WEIGHT_FLOOR: Final = 0.01
_EMPTY_COLUMN: Final = 1e-12
_SMALLEST_EIGENVALUE: Final = 1e-9
# A mixture's members: share of the largest weight in the combination that the data do not see.
_MEMBER_SHARE: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelBasis:
    """The linear model of a pixel, at fixed theta."""

    columns: Tensor
    """(channel, column) float64: the components, then background columns."""
    n_components: int
    expected: Tensor
    """(channel,) float64: mean model of a pixel, with background; it sets the shared weights."""
    coefficients: Tensor
    """(column,) float64: mean coefficients of a pixel."""
    names: tuple[str, ...] = ()
    """Names of the components, for messages."""
    first_channel: int | None = None
    """Channel of the full spectrum at which the fit range begins; None where it is not known: then all channels are
    fitted one by one, as neighbours may be added only from an even channel on."""
    tangents: "Tangents | None" = None
    """Changes of the columns with theta, where every pixel has a theta of its own."""
    weight_classes: "WeightClasses | None" = None
    """Classes of pixels that are fitted with weights of their own; None: one set of weights."""

    @property
    def channels(self) -> slice:
        """Channels of the full spectrum that are fitted.

        Raises:
            ValueError: the first one is not known.
        """
        if self.first_channel is None:
            raise ValueError("the first channel of this pixel basis is not known; give first_channel")
        return slice(self.first_channel, self.first_channel + self.columns.shape[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelOperator:
    """Products of the basis with itself and with its weights, by which counts become amplitudes and their sigma."""

    columns: Tensor
    """(column, channel) float32."""
    projector: Tensor
    """(channel, column) float32: counts @ projector = least-squares coefficients."""
    gram: Tensor
    """(column, column) float64."""
    weighted: Tensor
    """(channel, column) float64, for non-negative fits."""
    variance: Tensor
    """(column, component) float32: coefficients @ variance = variance of the components."""
    variance_floor: Tensor
    """(component,) variance if the pixel held one count of the mean spectrum."""
    photon_variance: Tensor
    """(component,) float32: variance that one recorded count of a component adds to its amplitude, count, with the
    shared weights of single channels, so that it does not depend on how channels are grouped."""
    measured: Tensor
    """(component,) bool: has counts in the fit range."""
    n_components: int
    grouping: Grouping
    """Sums of channels that projector, Gram matrix and weighted columns are made of: channels left out weigh 0."""
    banded: BandedProjector | None = None
    """The projector for raw counts whose channels may be added; None: nothing is added."""
    loss: float = 0.0
    """Largest relative growth of an amplitude's variance by that."""


def shared_weights(expected: Tensor) -> Tensor:
    """`1 / (mu + 0.01 mean(mu))` of the mean pixel's expected counts (channel,)."""
    mu = expected.clamp(min=0.0)
    return 1.0 / (mu + _WEIGHT_FLOOR * mu.mean())


def group_background(parts: Tensor, n_groups: int) -> Tensor:
    """Join neighbouring background parts, so that noise in a pixel is not spent on sixteen hats.

    Args:
        parts: (part, channel) counts of the integrated background's hats, in order of energy.
        n_groups: number of columns wanted; 0: none, the pixels are fitted without background.

    Returns:
        (at most n_groups, channel), with the same sum.
    """
    used = parts[parts.sum(dim=1) > 0]
    n = min(n_groups, used.shape[0])
    if n <= 0:
        return used[:0]
    return torch.stack([chunk.sum(dim=0) for chunk in torch.tensor_split(used, n)])


def pixel_basis(
    phi: Tensor,
    amplitude: Tensor,
    background: Tensor,
    n_pixels: int,
    *,
    names: Sequence[str] = (),
    first_channel: int | None = None,
) -> PixelBasis:
    """Basis of a pixel from the integrated fit.

    Args:
        phi: (channel, component) float64 at the fitted theta.
        amplitude: (component,) integrated counts.
        background: (group, channel) integrated counts, from `group_background`.
        n_pixels: pixels that were integrated.
        names: names of the components, for messages.
        first_channel: channel of the full spectrum at which the fit range begins; None: not known.
    """
    total = background.sum(dim=1)
    columns = torch.cat([phi, (background / total[:, None]).T], dim=1)
    coefficients = torch.cat([amplitude, total]) / n_pixels
    return PixelBasis(
        columns=columns,
        n_components=phi.shape[1],
        expected=columns @ coefficients,
        coefficients=coefficients,
        names=tuple(names),
        first_channel=first_channel,
    )


def pixel_operator(
    basis: PixelBasis, *, weights: Tensor | None = None, first_channel: int | None = None
) -> PixelOperator:
    """Projector, and the variance of its result as a linear function of the coefficients.

    With a = P' y, var(a_k) = sum_n P_nk^2 mu_n, and mu = columns @ a: so var(a) = a @ S with
    S_jk = sum_n columns_nj P_nk^2, a product of the size of the coefficients instead of the spectrum.

    A component without a count in the fit range (a scatter peak beyond its end) is not measured; it is left out
    and reads NaN in every pixel.

    Args:
        basis: columns and mean pixel.
        weights: (channel,) float64 in place of the shared ones.
        first_channel: channel of the full spectrum at which the fit range begins. Where it is not None, channels are
            left out and neighbours are added wherever no amplitude's variance grows by more than `pairs.MOST_LOSS`
            for the mean pixel.

    Raises:
        FitError: columns with indistinguishable spectra, so that no pixel has a unique solution.
    """
    weights = shared_weights(basis.expected) if weights is None else weights
    whole = _solve(basis, weights, every_channel(basis.columns.shape[0]))
    _refuse_mixtures(whole.unit, column_names(basis))
    chosen, loss = (whole, 0.0) if first_channel is None else _find_fastest(basis, weights, whole, first_channel)
    squares = chosen.projector[:, : basis.n_components] ** 2
    total = basis.coefficients.clamp(min=0.0)
    floor = (total / total.sum()) @ (basis.columns.T @ squares)
    return PixelOperator(
        columns=to_single(basis.columns.T.contiguous()),
        projector=to_single(chosen.projector.contiguous()),
        gram=chosen.gram,
        weighted=chosen.weighted,
        variance=to_single(basis.columns.T @ squares),
        variance_floor=floor.to(torch.float32),
        photon_variance=_photon_variance(basis, whole).to(torch.float32),
        measured=chosen.used[: basis.n_components],
        n_components=basis.n_components,
        grouping=chosen.grouping,
        banded=_cut_into_bands(basis, chosen) if chosen.grouping.count > 0 else None,
        loss=loss,
    )


def photon_variance(basis: PixelBasis) -> Tensor:
    """Variance (component,) float64 that one recorded count of a component adds to a pixel's amplitude, count.

    Args:
        basis: columns and mean pixel.
    """
    return _photon_variance(basis, _solve(basis, shared_weights(basis.expected), every_channel(len(basis.columns))))


def _photon_variance(basis: PixelBasis, whole: "_Solution") -> Tensor:
    n = basis.n_components
    added = (whole.projector[:, :n] ** 2 * basis.columns[:, :n]).sum(dim=0)
    return torch.where(whole.used[:n], added, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Solution:
    """Least squares of some sums of channels; float64, by channel unless stated otherwise."""

    grouping: Grouping
    gram: Tensor
    unit: Tensor
    """The Gram matrix with a diagonal of 1."""
    used: Tensor
    """(column,) bool."""
    weighted: Tensor
    projector: Tensor
    variance: Tensor
    """(component,): variance of the mean pixel's amplitudes."""


def _find_fastest(basis: PixelBasis, weights: Tensor, whole: _Solution, first_channel: int) -> tuple[_Solution, float]:
    """The fit of fewest sums that loses little, and what it loses."""
    squares = whole.projector[:, : basis.n_components] ** 2
    share = squares * basis.expected.clamp(min=0.0)[:, None] / whole.variance.clamp(min=1e-300)
    for grouping in candidates(share, first_channel):
        tried = _solve(basis, weights, grouping)
        grown = (tried.variance / whole.variance.clamp(min=1e-300))[tried.used[: len(whole.variance)]]
        loss = float(grown.max()) - 1.0
        if loss <= MOST_LOSS and bool((tried.used == whole.used).all()):
            return tried, max(loss, 0.0)
    return whole, 0.0


def _cut_into_bands(basis: PixelBasis, chosen: _Solution) -> BandedProjector:
    found = banded_projector(basis.columns, chosen.weighted, chosen.used, chosen.grouping)
    whole = one_band(chosen.projector, chosen.grouping)
    expected = basis.expected.clamp(min=0.0)
    allowed = (2.0 * rounding(whole, expected)).clamp(min=MOST_ROUNDING)
    return found if bool((rounding(found, expected) <= allowed).all()) else whole


def _solve(basis: PixelBasis, weights: Tensor, grouping: Grouping) -> _Solution:
    columns = grouping.added(basis.columns)
    # The mean of the variances that the channels' weights stand for adds up as counts do.
    seen = columns / grouping.added(1.0 / weights[:, None])
    gram = columns.T @ seen
    unit, scale = unit_diagonal(gram)
    factor, _ = torch.linalg.cholesky_ex(unit)
    solved = (torch.cholesky_solve((seen * scale).T, factor) * scale[:, None]).T
    projector = grouping.by_channel(solved)
    expected = basis.expected.clamp(min=0.0)
    return _Solution(
        grouping=grouping,
        gram=gram,
        unit=unit,
        used=scale > 0,
        weighted=grouping.by_channel(seen),
        projector=projector,
        variance=(projector[:, : basis.n_components] ** 2).T @ expected,
    )


def unit_diagonal(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Gram matrix scaled to a diagonal of 1, and the scale (column,); 0 for a column without a count.

    Args:
        gram: (column, column) float64.
    """
    diagonal = gram.diagonal()
    used = diagonal > _EMPTY_COLUMN * diagonal.max()
    scale = torch.where(used, diagonal.clamp(min=1e-300).rsqrt(), 0.0)
    return gram * scale[:, None] * scale + torch.diag((~used).to(gram.dtype)), scale


def column_names(basis: PixelBasis) -> tuple[str, ...]:
    """Names of all columns: the components' or, without names, their numbers; then `background 1` and on."""
    n = basis.n_components
    known = basis.names or tuple(f"column {i}" for i in range(n))
    return known + tuple(f"background {i + 1}" for i in range(basis.columns.shape[1] - n))


def _refuse_mixtures(unit: Tensor, labels: Sequence[str]) -> None:
    """Refuse columns of which one is a combination of others: the unit-diagonal Gram has an eigenvalue of 0."""
    values, vectors = torch.linalg.eigh(unit)
    if float(values[0]) > _SMALLEST_EIGENVALUE:
        return
    shares = vectors[:, 0].abs()
    guilty = torch.nonzero(shares > _MEMBER_SHARE * shares.max())[:, 0].tolist()
    seen = max(float(values[0]), 0.0)
    raise FitError(
        f"the pixel fit is singular: {', '.join(labels[i] for i in guilty)} have indistinguishable spectra (relative "
        f"eigenvalue {seen:.0e}); remove one of them"
    )
