"""A calibration from nothing: every plausible energy axis is tried on a coarse spectrum, the best are refined.

Variable projection finds the optimum of the basin it starts in; what makes a fit independent of starting values is
to look at all basins first. Gaussians of a broad width on rebinned counts are enough to tell them apart.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from hpcxrf.errors import FitError
from hpcxrf.fitting.coarse import (
    coarse_start,
    contrast_weights,
    fine_theta,
    rebin,
    select,
    unexplained,
)
from hpcxrf.fitting.integrated import fit_spectrum
from hpcxrf.fitting.nnls import nnls_gram
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.separable import minimise
from hpcxrf.fitting.setup import SpectrumSetup
from hpcxrf.physics.parameters import INDEX, Parameter, pack
from hpcxrf.physics.scatter import compton_energy_kev
from hpcxrf.physics.shapes import INV_SQRT_2PI

# Slopes 2 % apart move a 10 keV peak by 200 eV, offsets of 60 eV between them: half the width below.
_SLOPE_RATIO: Final = 1.02
_OFFSET_STEP_KEV: Final = 0.06
_SCREEN_FWHM_KEV: Final = 0.18
_SCREEN_BINS: Final = 340
_COMPTON_ANGLES_DEG: Final = (60.0, 90.0, 140.0)
_SCREEN_HATS: Final = 6
_WEAKEST_LINE: Final = 0.05
_MERGE_KEV: Final = 0.03
_CHUNK: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Energy axes, best first."""

    offset_kev: Tensor
    """(candidate,)."""
    slope_kev: Tensor
    cost: Tensor
    """(candidate,) share of the weighted counts that is left unexplained."""


def screen(counts: Tensor, setup: SpectrumSetup, *, keep: int = 16) -> Candidates:
    """Rank energy axes over the whole of the bounds of offset and slope.

    Counts outside the energy range count as unexplained, so that an axis gains nothing by moving peaks out.

    Args:
        counts: (channel,) float64, the full spectrum.
        setup: lines, bounds, nominal incident energy, energy range.
        keep: candidates to return, at least 60 eV apart at an end of the range.
    """
    bin_size = max(1, counts.shape[0] // _SCREEN_BINS)
    y, centre = rebin(counts, bin_size)
    weights = contrast_weights(y)
    offsets, slopes = _grid(setup)
    costs = [
        _costs(y, weights, centre, offsets[i : i + _CHUNK], slopes[i : i + _CHUNK], setup)
        for i in range(0, offsets.shape[0], _CHUNK)
    ]
    cost = torch.cat(costs) / (weights * y * y).sum()
    order = torch.argsort(cost, stable=True)
    kept = _distinct(offsets[order], slopes[order], setup, counts.shape[0], 0.06, keep)
    chosen = order[kept]
    return Candidates(offset_kev=offsets[chosen], slope_kev=slopes[chosen], cost=cost[chosen])


def find_calibration(counts: Tensor, setup: SpectrumSetup, *, keep: int = 2) -> list[SpectrumSetup]:
    """Starting values from nothing but lines and a nominal incident energy.

    Args:
        counts: (channel,) the full spectrum.
        setup: its start of offset and slope is not used, their bounds are.
        keep: starts to return, best first.

    Returns:
        Copies of the setup with starting values to fit from.

    Raises:
        FitError: the spectrum has no counts.
    """
    full = counts.to(torch.float64)
    if float(full.sum()) <= 0.0:
        raise FitError("calibration: the spectrum has no counts; there is nothing to find")
    found = screen(full, setup)
    coarse, problem = coarse_start(full, found.offset_kev, found.slope_kev, setup)
    for iterations, survivors in ((4, 8), (4, 5), (6, keep)):
        coarse = minimise(coarse, problem, iterations=iterations)
        order = torch.argsort(unexplained(coarse, problem), stable=True)
        coarse, problem = select(coarse, problem, order[:survivors])
    starts = [fine_theta(theta, setup) for theta in coarse.theta]
    return [replace(setup, parameters=_with_start(setup.parameters, theta)) for theta in starts]


def fit_from_nothing(counts: Tensor, setup: SpectrumSetup) -> SpectrumFit:
    """Find the energy axis, then fit; of several starts the one with the highest R2.

    Args:
        counts: (channel,) raw counts of the full spectrum.
        setup: lines, bounds and nominal incident energy; its energy axis is not used.

    Raises:
        FitError: the spectrum has no counts, or no axis puts the energy range inside it.
    """
    began = time.process_time()
    fits = [fit_spectrum(counts, start_setup) for start_setup in find_calibration(counts, setup)]
    best = max(fits, key=lambda fit: fit.r2)
    return replace(best, cpu_s=time.process_time() - began)


def _grid(setup: SpectrumSetup) -> tuple[Tensor, Tensor]:
    by_name = {p.name: p for p in setup.parameters}
    slope, offset = by_name["energy_slope"], by_name["energy_offset"]
    n_slopes = 1 + int(
        torch.tensor(slope.upper / slope.lower).log() / torch.tensor(_SLOPE_RATIO).log()
    )
    n_offsets = 1 + round((offset.upper - offset.lower) / _OFFSET_STEP_KEV)
    slopes = torch.logspace(
        float(torch.tensor(slope.lower).log10()),
        float(torch.tensor(slope.upper).log10()),
        n_slopes,
        dtype=torch.float64,
    )
    offsets = torch.linspace(offset.lower, offset.upper, n_offsets, dtype=torch.float64)
    pairs = torch.cartesian_prod(slopes, offsets)
    return pairs[:, 1], pairs[:, 0]


def _screen_lines(setup: SpectrumSetup) -> tuple[Tensor, Tensor, Tensor]:
    """Strong lines, neighbours merged: energy, share and column; elastic and Compton columns included."""
    table = setup.table
    energies: list[float] = []
    shares: list[float] = []
    columns: list[int] = []
    for c in range(len(table.component_names)):
        mine = (table.component == c) & (table.escape_parent < 0) & (table.ratio > _WEAKEST_LINE)
        lines = sorted(
            zip(table.energy_kev[mine].tolist(), table.ratio[mine].tolist(), strict=True)
        )
        for energy, share in _merge(lines):
            energies.append(energy)
            shares.append(share)
            columns.append(c)
    e0 = table.incident_energy_kev
    scatter = [e0] if setup.elastic else []
    angles = torch.tensor(_COMPTON_ANGLES_DEG, dtype=torch.float64)
    scatter += compton_energy_kev(
        torch.tensor(e0, dtype=torch.float64), angles, setup.constants.electron_rest_energy_kev
    ).tolist()
    n = len(table.component_names)
    energies += scatter
    shares += [1.0] * len(scatter)
    columns += list(range(n, n + len(scatter)))
    return (
        torch.tensor(energies, dtype=torch.float64),
        torch.tensor(shares, dtype=torch.float64),
        torch.tensor(columns),
    )


def _merge(lines: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for energy, share in lines:
        if merged and energy - merged[-1][0] < _MERGE_KEV:
            before, weight = merged[-1]
            total = weight + share
            merged[-1] = ((before * weight + energy * share) / total, total)
        else:
            merged.append((energy, share))
    return merged


def _costs(
    y: Tensor, weights: Tensor, centre: Tensor, offset: Tensor, slope: Tensor, setup: SpectrumSetup
) -> Tensor:
    """Weighted sum of squares that the best non-negative columns leave, (candidate,)."""
    line_kev, share, column = _screen_lines(setup)
    energy = offset[:, None] + slope[:, None] * centre
    inside = ((energy >= setup.energy_min_kev) & (energy <= setup.energy_max_kev)).double()
    noise = _SCREEN_FWHM_KEV / setup.constants.fwhm_per_sigma
    fano = pack(setup.parameters)[INDEX["fwhm_fanoprime"]]
    sigma = torch.sqrt(noise**2 + setup.constants.width_factor * line_kev * fano)
    u = ((energy[:, :, None] - line_kev) / sigma).float()
    shape = torch.exp((-0.5 * u * u).clamp(min=-30.0)) * INV_SQRT_2PI
    spread = torch.nn.functional.one_hot(column).double() * (share / sigma)[:, None]
    peaks = (shape @ spread.float()).double()
    knots = torch.linspace(
        setup.energy_min_kev, setup.energy_max_kev, _SCREEN_HATS, dtype=torch.float64
    )
    step = knots[1] - knots[0]
    hats = (1.0 - (energy[:, :, None] - knots).abs() / step).clamp(min=0.0)
    columns = torch.cat([peaks, hats], dim=-1) * inside[:, :, None]
    weighted = columns * weights[None, :, None]
    rhs = (weighted.mT @ y[:, None])[..., 0]
    gram = columns.mT @ weighted
    x = nnls_gram(gram, rhs, max_exchanges=12).x
    return (
        (weights * y * y).sum()
        - 2.0 * (rhs * x).sum(-1)
        + (x[:, None] @ gram @ x[..., None])[:, 0, 0]
    )


def _distinct(
    offset: Tensor,
    slope: Tensor,
    setup: SpectrumSetup,
    n_channels: int,
    apart_kev: float,
    keep: int,
) -> Tensor:
    """Indices of the first `keep` axes that differ from every better one by `apart_kev` at an end."""
    ends = _end_channels(setup, offset[0], slope[0], n_channels)
    at_ends = offset[:, None] + slope[:, None] * ends
    kept: list[int] = []
    for i in range(offset.shape[0]):
        if all(float((at_ends[i] - at_ends[j]).abs().max()) >= apart_kev for j in kept):
            kept.append(i)
        if len(kept) == keep:
            break
    return torch.tensor(kept)


def _end_channels(setup: SpectrumSetup, offset: Tensor, slope: Tensor, n_channels: int) -> Tensor:
    energies = torch.tensor([setup.energy_min_kev, setup.energy_max_kev], dtype=torch.float64)
    return ((energies - offset) / slope).clamp(0.0, n_channels - 1.0)


def _with_start(parameters: tuple[Parameter, ...], theta: Tensor) -> tuple[Parameter, ...]:
    return tuple(
        replace(p, value=min(max(value, p.lower), p.upper))
        for p, value in zip(parameters, theta.tolist(), strict=True)
    )
