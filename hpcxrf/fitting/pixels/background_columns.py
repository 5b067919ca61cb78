"""In how many columns the background of the pixels is fitted: as few as leave absent components without bias.

The background of the integrated spectrum has a dozen hats. Joined to a few columns they cost the amplitudes less
precision, but where groups of pixels have backgrounds of unlike shape (a shelf below the calcium of carbonate grains,
none elsewhere), what the joined columns cannot follow is taken for the counts of components that are not there: with
four columns V and Ti came out 0.05 counts a pixel too low beside 500 counts of Ca.

For n columns the mean amplitudes of a group of pixels differ from those with all hats by Delta = (P_n - P)' y / N, a
linear function of the group's summed spectrum y, whose noise is known: E(Delta^2) = bias^2 + sigma^2. The smallest n is
taken for which bias^2, averaged over groups, is shown to be small. Pixels are grouped by their even channels and summed
in their odd ones, and the other way round, so that chance in the grouping is no bias. Where the pixels are too few to
show it, all hats are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from hpcxrf.fitting.pixels.basis import PixelBasis, group_background, pixel_operator, shared_weights, unit_diagonal
from hpcxrf.fitting.pixels.weight_classes import (
    WeightClasses,
    composition_roots,
    find_weight_classes,
    group_by_nearest_mean,
    half_basis,
)

MOST_COLUMNS: Final = 16
"""Most columns of the background; more hats than these are joined to them."""
CANDIDATES: Final = (4, 6, 8, 10, 12)
LARGEST_BIAS: Final = 0.015
"""Counts a pixel that the root mean square over groups of a component's bias may have, with its own error."""
# Of a component's own counts: what the background takes from a strong peak is a matter of where its tail ends.
_SHARE_OF_OWN: Final = 2e-3
_N_GROUPS: Final = 6
_LEAST_PIXELS: Final = 200
_CHUNK: Final = 1024
# Roots of shares are at most 1.
_FAR: Final = 1e3


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSums:
    """Summed spectra of groups of pixels, twice: grouped by their even channels, then by their odd ones."""

    projectors: tuple[Tensor, Tensor]
    """(channel, column) float32 of the even and of the odd channels."""
    centres: Tensor
    """(2, group, column) float64: means of the groups' compositions."""
    counts: tuple[Tensor, Tensor]
    """(group, channel) float64: sums over pixels of the channels that did not group them, odd ones, then even ones."""
    n_pixels: Tensor
    """(2, group) float64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackgroundChoice:
    """Number of background columns, and why."""

    n_columns: int
    bias: tuple[tuple[int, str, float], ...]
    """By number of columns tried: the component that is worst off, and its bias with the error that it has, counts a
    pixel."""
    report: str
    """Sentence that says the same."""


def join_background(basis: PixelBasis, n_columns: int) -> PixelBasis:
    """The basis with neighbouring background columns joined to at most so many.

    Args:
        basis: the basis; each background column with the coefficient that it has in a mean pixel.
        n_columns: number wanted.
    """
    n = basis.n_components
    parts = (basis.columns[:, n:] * basis.coefficients[n:]).T
    joined = group_background(parts, n_columns)
    total = joined.sum(dim=1)
    return replace(
        basis,
        columns=torch.cat([basis.columns[:, :n], (joined / total[:, None]).T], dim=1),
        coefficients=torch.cat([basis.coefficients[:n], total]),
    )


def find_classes(counts: Tensor, measured: Tensor, basis: PixelBasis) -> WeightClasses:
    """Weight classes of the pixels, found with few background columns: many of them would add noise to what groups.

    Args:
        counts: (pixel, channel) raw counts of the fit range.
        measured: (pixel,) bool.
        basis: basis that the pixels are fitted with; the classes have its columns.
    """
    n = min(CANDIDATES[0], basis.columns.shape[1] - basis.n_components)
    classes = find_weight_classes(counts, measured, join_background(basis, n))
    joining = _joining(basis, n).to(classes.coefficients.device)
    return replace(classes, coefficients=classes.coefficients @ joining.T)


def group_pixels(counts: Tensor, measured: Tensor, basis: PixelBasis) -> GroupSums | None:
    """Groups of like composition, without any pixel as yet; None where the pixels are too few.

    Args:
        counts: (pixel, channel) raw counts of the fit range of some hundred pixels that are spread over the scan.
        measured: (pixel,) bool.
        basis: basis with all background columns.
    """
    y = _with_counts(counts, measured)
    if y.shape[0] < _LEAST_PIXELS:
        return None
    projectors = (pixel_operator(half_basis(basis, 0)).projector, pixel_operator(half_basis(basis, 1)).projector)
    centres = torch.stack([_centres(_roots(y, projectors, parity)) for parity in (0, 1)])
    return GroupSums(
        projectors=projectors,
        centres=centres,
        counts=(centres.new_zeros((_N_GROUPS, y.shape[1] // 2)), centres.new_zeros((_N_GROUPS, -(-y.shape[1] // 2)))),
        n_pixels=centres.new_zeros((2, _N_GROUPS)),
    )


def add_to_groups(sums: GroupSums, counts: Tensor, measured: Tensor) -> GroupSums:
    """Sums with further pixels, each added to the group that is nearest to it.

    Args:
        sums: those of `group_pixels`, or with pixels already.
        counts: (pixel, channel) raw counts of the fit range.
        measured: (pixel,) bool.
    """
    total, number = [one.clone() for one in sums.counts], sums.n_pixels.clone()
    for i in range(0, counts.shape[0], _CHUNK):
        y = _with_counts(counts[i : i + _CHUNK], measured[i : i + _CHUNK])
        for parity in (0, 1) if y.shape[0] else ():
            roots = _roots(y, sums.projectors, parity)
            label = torch.cdist(roots, sums.centres[parity]).argmin(dim=1)
            members = torch.nn.functional.one_hot(label, _N_GROUPS).to(torch.float32)
            # Whole counts below 2^24 add up exactly in whatever order.
            total[parity] += members.T @ y[:, 1 - parity :: 2]
            number[parity] += members.sum(dim=0)
    return replace(sums, counts=(total[0], total[1]), n_pixels=number)


def choose_background(sums: GroupSums | None, basis: PixelBasis) -> BackgroundChoice:
    """Decide how many columns the background of the pixels has.

    Args:
        sums: groups with their pixels; None: there are too few pixels for any.
        basis: basis with all background columns, and the components' names.
    """
    every = basis.columns.shape[1] - basis.n_components
    tried: list[tuple[int, str, float]] = []
    enough = sums is not None and bool((sums.n_pixels >= _LEAST_PIXELS).any(dim=1).all())
    for n in CANDIDATES if enough else ():
        if sums is None or n >= every:
            break
        worst, excess = _judge(sums, basis, n)
        tried.append((n, worst, excess))
        if excess <= LARGEST_BIAS:
            return BackgroundChoice(n_columns=n, bias=tuple(tried), report=_report(n, every, tried))
    return BackgroundChoice(n_columns=every, bias=tuple(tried), report=_report(every, every, tried))


def _report(n: int, every: int, tried: Sequence[tuple[int, str, float]]) -> str:
    if not tried:
        why = "the pixels are too few to judge fewer" if every > CANDIDATES[0] else "the fitted background has no more"
        return f"background in {n} columns: {why}"
    number, worst, excess = tried[-1]
    if number == n:
        return f"background in {n} of {every} columns: no component is off by more than {excess:.2g} counts a pixel"
    return (
        f"background in all {every} columns: with {number}, {worst} may be off by {excess:.2g} counts a pixel where it "
        "is not there"
    )


def _judge(sums: GroupSums, basis: PixelBasis, n: int) -> tuple[str, float]:
    """Component that is worst off with n columns, and the bias that it may have, its error included.

    Groups are weighed by how well they know it, and less where the component itself is strong.
    """
    square, noise, own = (
        torch.cat(one) for one in zip(*(_differences(sums, basis, n, p) for p in (0, 1)), strict=True)
    )
    weights = (noise + own + LARGEST_BIAS**2) ** -2
    weights = weights / weights.sum(dim=0)
    error = (2.0 * (weights * noise).square().sum(dim=0)).sqrt()
    most = (weights * (square - noise)).sum(dim=0).clamp(min=0.0) + error
    worst = int(most.argmax())
    names = basis.names or tuple(f"column {i}" for i in range(basis.n_components))
    return names[worst], float(most[worst]) ** 0.5


def _differences(sums: GroupSums, basis: PixelBasis, n: int, judged: int) -> tuple[Tensor, Tensor, Tensor]:
    """Squares (group, component) of what n columns change in the mean amplitudes; their noise; a share of the own."""
    used = sums.n_pixels[judged] >= _LEAST_PIXELS
    number = sums.n_pixels[judged][used][:, None]
    half = half_basis(basis, 1 - judged)
    mean = sums.counts[judged][used] / number
    weighted = half.columns * shared_weights(half.expected)[:, None]
    gram, rhs = half.columns.T @ weighted, mean @ weighted
    every = _solve(gram, torch.eye(gram.shape[0], dtype=gram.dtype))
    change = (_solve(gram, _joining(basis, n)) - every)[: basis.n_components]
    noise = torch.einsum("ck,gkl,cl->gc", change, (weighted.T * mean[:, None]) @ weighted, change) / number
    own = (_SHARE_OF_OWN * (rhs @ every.T)[:, : basis.n_components]).square()
    return (rhs @ change.T).square(), noise, own


def _solve(gram: Tensor, joining: Tensor) -> Tensor:
    """Matrix (column, column) by which right-hand sides of all columns become coefficients, some of them joined."""
    unit, scale = unit_diagonal(joining.T @ gram @ joining)
    seen = joining * scale
    solution: Tensor = seen @ torch.linalg.solve(unit, seen.T)
    return solution


def _joining(basis: PixelBasis, n: int) -> Tensor:
    """(column, joined column): share of the columns in what they are joined to."""
    k, every = basis.n_components, basis.columns.shape[1]
    joining = torch.zeros((every, k + n), dtype=torch.float64)
    joining[:k, :k] = torch.eye(k, dtype=torch.float64)
    for i, part in enumerate(torch.tensor_split(torch.arange(k, every), n) if n else ()):
        joining[part, k + i] = basis.coefficients[part] / basis.coefficients[part].sum()
    return joining


def _with_counts(counts: Tensor, measured: Tensor) -> Tensor:
    y = counts.to(torch.float32)
    total = y.sum(dim=1)
    return y[measured & torch.isfinite(total) & (total > 0)]


def _roots(y: Tensor, projectors: tuple[Tensor, Tensor], parity: int) -> Tensor:
    """What pixels are grouped by (pixel, column), from every other channel."""
    return composition_roots((y[:, parity::2] @ projectors[parity]).to(torch.float64))


def _centres(roots: Tensor) -> Tensor:
    """Mean compositions (group, column); one without pixels stays far from all."""
    label = group_by_nearest_mean(roots, _N_GROUPS)
    members = torch.nn.functional.one_hot(label, _N_GROUPS).to(roots.dtype)
    size = members.sum(dim=0)[:, None]
    return torch.where(size > 0, members.T @ roots / size.clamp(min=1.0), _FAR)
