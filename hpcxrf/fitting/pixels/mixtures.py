"""Families with indistinguishable spectra: what their maps share is known, how they share it is not."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from torch import Tensor

from hpcxrf.fitting.pixels.basis import PixelBasis, column_names, pixel_operator, shared_weights, unit_diagonal

# Sigma of an amplitude over that of the same column alone, from which a family is named at any counts.
_INFLATION: Final = 10.0
# Sigmas from which an amplitude is taken as seen.
_SEEN: Final = 3.0
# Times the counts of a mean pixel that the brightest pixels of a scan may have.
_BRIGHTEST: Final = 100.0
# Of two estimates: below it, what one has too much the other has too little, for the most part.
_CORRELATION: Final = -0.5
_SMALLEST_EIGENVALUE: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """Components that are seen together and not apart."""

    members: tuple[str, ...]
    counts: float
    """Counts of all members together, where the text says: in a pixel, or in all of them where `in_sum`."""
    sigma: float
    """Standard uncertainty of that sum."""
    inflation: float
    """Largest of the members' sigmas over what it were without any other column."""
    times: float
    """Factor on the counts of a mean pixel that would show one of them by itself; infinite where none was found."""
    in_sum: bool
    """True where not even the spectrum of all pixels separates them."""
    text: str
    """Sentence that says the same."""

    def record(self) -> dict[str, Any]:
        """JSON values of the mixture; they have no infinity."""
        plain = asdict(self)
        return plain | {"times": self.times if math.isfinite(self.times) else None}


def find_mixtures(basis: PixelBasis, n_pixels: int = 1) -> tuple[Mixture, ...]:
    """Groups of components that are more alike than the counts of a pixel can tell.

    Two components belong to a group where the sum of both is seen, three sigmas, in a mean pixel, in one of up to 100
    times its counts or in the spectrum of all pixels, but neither of them by itself, and their estimates are
    anticorrelated; or, at any counts, where a component's sigma is ten times what it were alone. Sigmas are those of
    the linear maps: a component's map says with them that it is not known; this says why.

    Args:
        basis: columns and mean pixel, with the components' names.
        n_pixels: pixels whose mean the basis is.

    Raises:
        FitError: columns of which one is a combination of others.
    """
    n = basis.n_components
    inflation, pairs = _find_alike(basis)
    covariance = _covariance(basis)
    amplitude = basis.coefficients[:n].clamp(min=0.0)
    pairs |= _find_pairs(amplitude, covariance, n_pixels)
    labels = column_names(basis)
    return tuple(
        _describe(group, amplitude, covariance, inflation, labels, n_pixels) for group in _groups(pairs, len(labels))
    )


def _covariance(basis: PixelBasis) -> Tensor:
    """(component, component) of a mean pixel's linear fit; 0 for a component that is not measured."""
    projector = pixel_operator(basis).projector[:, : basis.n_components].to(torch.float64)
    return projector.T @ (basis.expected.clamp(min=0.0)[:, None] * projector)


def _find_pairs(amplitude: Tensor, covariance: Tensor, n_pixels: int) -> set[tuple[int, int]]:
    """Every two components that are seen only together, where their sum is just seen or in the spectrum of all pixels.

    Args:
        amplitude: (component,) of a mean pixel.
        covariance: (component, component) of the same.
        n_pixels: pixels whose mean it is.
    """
    total, variance = amplitude[:, None] + amplitude, covariance.diagonal()
    both = (variance[:, None] + variance + 2.0 * covariance).clamp(min=0.0)
    correlation = covariance / (variance[:, None] * variance).sqrt()
    alone = amplitude / variance.sqrt()
    best = torch.maximum(alone[:, None], alone)
    found = torch.zeros_like(covariance, dtype=torch.bool)
    for level in (_level_of(total, both), torch.full_like(total, float(n_pixels))):
        root = level.sqrt()
        found |= (total * root >= _SEEN * both.sqrt()) & ~(best * root >= _SEEN) & (correlation <= _CORRELATION)
    measured = variance > 0.0
    found &= measured[:, None] & measured
    return {(i, j) for i, j in torch.nonzero(found.triu(1)).tolist()}


def _level_of(total: Tensor, variance: Tensor) -> Tensor:
    """Times the counts of a mean pixel at which sums of components are seen, 1 to the brightest; any shape."""
    wanted = torch.where(total > 0.0, _SEEN**2 * variance / total**2, math.inf)
    # A little more, so that rounding does not decide.
    return (1.0001 * wanted).clamp(1.0, _BRIGHTEST)


def _find_alike(basis: PixelBasis) -> tuple[Tensor, set[tuple[int, int]]]:
    """Every column's sigma over that of it alone, and the pairs for which that of a component is large."""
    weighted = basis.columns * shared_weights(basis.expected)[:, None]
    unit, scale = unit_diagonal(basis.columns.T @ weighted)
    values, vectors = torch.linalg.eigh(unit)
    inverse = (vectors / values.clamp(min=_SMALLEST_EIGENVALUE)) @ vectors.T
    factor = inverse.diagonal().clamp(min=1.0).sqrt()
    correlation = (inverse / (factor[:, None] * factor)).abs().fill_diagonal_(0.0)
    found = set()
    for k in range(basis.n_components):
        if float(scale[k]) > 0.0 and float(factor[k]) >= _INFLATION:
            mate = int(correlation[k].argmax())
            found.add((min(k, mate), max(k, mate)))
    return factor, found


def _groups(pairs: set[tuple[int, int]], n: int) -> list[list[int]]:
    """Connected groups of two or more, in order."""
    group = list(range(n))
    for i, j in sorted(pairs):
        old, new = max(group[i], group[j]), min(group[i], group[j])
        group = [new if g == old else g for g in group]
    members = [[i for i in range(n) if group[i] == g] for g in sorted(set(group))]
    return [m for m in members if len(m) > 1]


def _describe(
    group: list[int], amplitude: Tensor, covariance: Tensor, inflation: Tensor, labels: Sequence[str], n_pixels: int
) -> Mixture:
    known = [i for i in group if i < len(amplitude)]
    sigma = covariance.diagonal()[known].clamp(min=1e-300).sqrt()
    best = float((amplitude[known] / sigma).max())
    times = (_SEEN / best) ** 2 if best > 0.0 else math.inf
    in_sum = times > n_pixels
    together, variance = amplitude[known].sum(), covariance[known][:, known].sum().clamp(min=0.0)
    level = float(n_pixels) if in_sum else float(_level_of(together, variance))
    total, error = level * float(together), math.sqrt(level * float(variance))
    parts = ", ".join(
        f"{labels[i]} {level * float(amplitude[i]):.3g} ± {math.sqrt(level) * float(s):.2g}"
        for i, s in zip(known, sigma, strict=True)
    )
    names = tuple(labels[i] for i in group)
    factor = float(inflation[known].max())
    place = "the spectrum of all pixels" if in_sum else _place(level)
    verdict = "are hardly" if times <= 1.0 else "cannot be"
    return Mixture(
        members=names,
        counts=total,
        sigma=error,
        inflation=factor,
        times=times,
        in_sum=in_sum,
        text=(
            f"{', '.join(names)} {verdict} told apart in {place}: together {total:.3g} ± {error:.2g} counts, of "
            f"which {parts}, sigma up to {factor:.2g} times that of one alone; trust the sum of their maps, or leave "
            "out what is not there"
        ),
    )


def _place(level: float) -> str:
    return "a mean pixel" if level < 1.5 else f"a pixel of {level:.2g} times the mean counts"
