"""A calibration from nothing: the energy axes that are worth a fit.

Variable projection finds the optimum of the basin it starts in; what makes a fit independent of starting values is
to look at all basins first. The positions of the peaks tell them apart (`hpcxrf.fitting.axis`); where a spectrum has
too few peaks for that, every axis of a grid is tried with Gaussians of a broad width on rebinned counts.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from hpcxrf.fitting.axis.candidates import Axes, find_axes
from hpcxrf.fitting.axis.incident import find_elastic
from hpcxrf.fitting.axis.peaks import Peaks
from hpcxrf.fitting.nnls import nnls_gram
from hpcxrf.fitting.spectrum.coarse import contrast_weights, rebin
from hpcxrf.fitting.spectrum.compiled import load_spectrum_kernels
from hpcxrf.fitting.spectrum.pack import Floats, find_spans
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.physics.anode_scatter import list_strong_copies
from hpcxrf.physics.parameters import INDEX, pack
from hpcxrf.physics.scatter import compton_energy_kev
from hpcxrf.physics.shapes import INV_SQRT_2PI

# Slopes 2 % apart move a 10 keV peak by 200 eV, offsets of 60 eV between them: half the width below.
_SLOPE_RATIO: Final = 1.02
_OFFSET_STEP_KEV: Final = 0.06
_SCREEN_FWHM_KEV: Final = 0.18
_SCREEN_BINS: Final = 340
# Of the energies at which an elastic peak is looked for, where the incident energy is known to no better.
_ELASTIC_STEP_KEV: Final = 0.15
_COMPTON_ANGLES_DEG: Final = (60.0, 90.0, 140.0)
_SCREEN_HATS: Final = 6
_WEAKEST_LINE: Final = 0.05
_MERGE_KEV: Final = 0.03
_CHUNK: Final = 64
# Rounds of non-negative least squares. Of 200 axes 79 were far from their optimum after 4, 5 after 12, and none later.
_EXCHANGES: Final = 30
_GRID_KEV: Final = 0.004
# Widths after which a peak is nothing: 3e-6 of its height.
_REACH: Final = 5.0
# Candidates that are ranked for one that is kept: neighbours of a good one are good as well.
_POOL: Final = 16
# With fewer peaks their positions fix no axis.
_FEW_PEAKS: Final = 8
_WIDTH_KEV: Final = 6.0
# Of a channel.
_ROUNDING: Final = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Energy axes, those that explain the positions of the peaks best first."""

    offset_kev: Tensor
    """(candidate,)."""
    slope_kev: Tensor
    incident_kev: Tensor
    """(candidate,) where its elastic peak is: the highest peak near the nominal energy, else the nominal energy."""
    angle_deg: Tensor
    """(candidate,) where its Compton peak is strongest, on a coarse grid."""
    fwhm_offset_kev: Tensor
    """(candidate,) that gives the peaks their measured width."""
    score: Tensor
    """(candidate,) log probability of the peaks' positions, up to a constant."""


def has_few_peaks(peaks: Peaks) -> bool:
    """True where the positions of the peaks fix no axis, so that the grid of `screen` is searched."""
    return bool(peaks.channel.size < _FEW_PEAKS)


def propose_axes(
    counts: Tensor,
    peaks: Peaks,
    problem: FitProblem,
    *,
    keep: int,
    window: float,
    incident_kev: float,
    screened: tuple[Tensor, Tensor] | None = None,
) -> Candidates:
    """Propose energy axes within the bounds of offset and slope.

    Args:
        counts: (channel,) float64, the full spectrum.
        peaks: its peaks.
        problem: lines, bounds, nominal incident energy, energy range.
        keep: axes to return; twice as many where the spectrum has too few peaks to tell them apart.
        window: axes are dropped whose score is lower than the best by more than this, unless there are few peaks;
            infinite: none is dropped, and the grid is searched as well.
        incident_kev: about which the elastic peak is looked for.
        screened: what `screen` gave for this spectrum and problem, where it is known already.
    """
    found = find_axes_within(peaks, problem, keep=keep, incident_kev=incident_kev)
    few = has_few_peaks(peaks) or window == math.inf
    likely = found.score >= (-np.inf if few else found.score.max(initial=-np.inf) - window)
    offsets, slopes, scores = (
        torch.from_numpy(one[likely]).to(counts) for one in (found.offset_kev, found.slope_kev, found.score)
    )
    if few:
        more = screened or screen(counts, problem, keep=keep)
        lowest = scores.amin(dim=0, keepdim=True) if scores.numel() else torch.zeros(1, dtype=counts.dtype)
        offsets, slopes = torch.cat([offsets, more[0]]), torch.cat([slopes, more[1]])
        scores = torch.cat([scores, lowest.expand(more[0].shape[0])])
    elastic = find_elastic(peaks, offsets.cpu().numpy(), slopes.cpu().numpy(), incident_kev)
    return Candidates(
        offset_kev=offsets,
        slope_kev=slopes,
        incident_kev=torch.from_numpy(np.where(np.isfinite(elastic), elastic, incident_kev)).to(counts),
        angle_deg=_find_angles(counts, offsets, slopes, problem),
        fwhm_offset_kev=_measure_fwhm_offset(offsets, slopes, peaks, problem),
        score=scores,
    )


def find_axes_within(peaks: Peaks, problem: FitProblem, *, keep: int, incident_kev: float) -> Axes:
    """Find the axes within the bounds of a problem that put the peaks on probable energies, best first.

    Args:
        peaks: those of the spectrum.
        problem: lines, bounds and nominal incident energy; what is fixed has its one value.
        keep: axes to return.
        incident_kev: the nominal incident energy, or another one to try.
    """
    by_name = {p.name: p for p in problem.parameters}
    offset, slope = by_name["energy_offset"], by_name["energy_slope"]
    return find_axes(
        peaks,
        incident_kev,
        offsets_kev=(offset.lower, offset.upper) if offset.free else (offset.value, offset.value),
        slopes_kev=(slope.lower, slope.upper) if slope.free else (slope.value, slope.value),
        listed=problem.table.component_names,
        elastic=problem.elastic,
        anode=() if problem.copies is None else list_strong_copies(problem.copies),
        keep=keep,
    )


def _find_angles(counts: Tensor, offset: Tensor, slope: Tensor, problem: FitProblem) -> Tensor:
    """(candidate,): scattering angle of the strongest of a few Compton peaks."""
    return _compute_costs(_rebin(counts), offset, slope, problem, enough=offset.shape[0])[1]


def _measure_fwhm_offset(offset: Tensor, slope: Tensor, peaks: Peaks, problem: FitProblem) -> Tensor:
    """Electronic width that, beside the usual Fano factor, gives a peak at 6 keV its measured width."""
    at = torch.from_numpy(peaks.width.at(((_WIDTH_KEV - offset) / slope).cpu().numpy())).to(slope)
    fano = pack(problem.parameters)[INDEX["fwhm_fanoprime"]].to(slope)
    left = (slope * at).square() - problem.constants.width_factor * _WIDTH_KEV * fano
    return problem.constants.fwhm_per_sigma * left.clamp(min=0.0).sqrt()


def screen(counts: Tensor, problem: FitProblem, *, keep: int = 16) -> tuple[Tensor, Tensor]:
    """Rank energy axes over the whole of the bounds of offset and slope.

    Counts outside the energy range count as unexplained, so that an axis gains nothing by moving peaks out.

    Args:
        counts: (channel,) float64, the full spectrum.
        problem: lines, bounds, nominal incident energy, energy range.
        keep: candidates to return, at least 60 eV apart at an end of the range.

    Returns:
        Offsets and slopes (candidate,), best first.
    """
    offsets, slopes = (axis.to(counts.device) for axis in _build_grid(problem))
    cost, _ = _compute_costs(_rebin(counts), offsets, slopes, problem, enough=_POOL * keep)
    known = torch.isfinite(cost)
    order = torch.argsort(torch.where(known, cost, torch.inf), stable=True)[: int(known.sum())]
    chosen = order[select_distinct_axes(offsets[order], slopes[order], problem, counts.shape[0], 0.06, keep)]
    return offsets[chosen], slopes[chosen]


def _build_grid(problem: FitProblem) -> tuple[Tensor, Tensor]:
    """Offsets and slopes of all axes; what is fixed has its one value."""
    by_name = {p.name: p for p in problem.parameters}
    slope, offset = by_name["energy_slope"], by_name["energy_offset"]
    slopes = torch.tensor([slope.value], dtype=torch.float64)
    if slope.free:
        low, high = math.log10(slope.lower), math.log10(slope.upper)
        n_slopes = 1 + int((high - low) / math.log10(_SLOPE_RATIO))
        slopes = torch.logspace(low, high, n_slopes, dtype=torch.float64)
    offsets = torch.tensor([offset.value], dtype=torch.float64)
    if offset.free:
        n_offsets = 1 + round((offset.upper - offset.lower) / _OFFSET_STEP_KEV)
        offsets = torch.linspace(offset.lower, offset.upper, n_offsets, dtype=torch.float64)
    pairs = torch.cartesian_prod(slopes, offsets)
    return pairs[:, 1], pairs[:, 0]


def _list_strong_lines(problem: FitProblem) -> tuple[Floats, Floats, list[int]]:
    """Strong lines, neighbours merged: energy, share and column; elastic and Compton columns included."""
    table = problem.table
    strong = ((table.escape_parent < 0) & (table.ratio > _WEAKEST_LINE)).tolist()
    every = zip(table.component.tolist(), table.energy_kev.tolist(), table.ratio.tolist(), strict=True)
    lines = sorted(line for line, is_strong in zip(every, strong, strict=True) if is_strong)
    found: list[tuple[float, float, int]] = []
    for column, of_column in itertools.groupby(lines, key=lambda line: line[0]):
        found += [(*line, column) for line in _merge([(energy, share) for _, energy, share in of_column])]
    e0 = table.incident_energy_kev if problem.copies is None else problem.copies.main_kev
    angles = torch.tensor(_COMPTON_ANGLES_DEG, dtype=torch.float64)
    scatter = _elastic_energies(problem)
    scatter += compton_energy_kev(
        torch.tensor(e0, dtype=torch.float64), angles, problem.constants.electron_rest_energy_kev
    ).tolist()
    found += [(energy, 1.0, column) for column, energy in enumerate(scatter, len(table.component_names))]
    energies, shares, columns = zip(*found, strict=True)
    return np.array(energies), np.array(shares), list(columns)


def _elastic_energies(problem: FitProblem) -> list[float]:
    """The nominal energy, with company where it is so uncertain that its peak may lie beside; a tube's strong lines."""
    if problem.copies is not None:
        return [energy_kev for energy_kev, _ in list_strong_copies(problem.copies)]
    if not problem.elastic:
        return []
    incident = next(p for p in problem.parameters if p.name == "coherent_sct_energy")
    reach = min(incident.value - incident.lower, incident.upper - incident.value)
    steps = round(reach / _ELASTIC_STEP_KEV - 1e-6)
    nominal = problem.table.incident_energy_kev
    return [nominal + i * _ELASTIC_STEP_KEV for i in range(-steps, steps + 1)]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bins:
    """A spectrum in some hundred bins, each (bin,) float64."""

    counts: Tensor
    weights: Tensor
    centre: Tensor
    """Channel in the middle of each bin."""

    @property
    def square(self) -> Tensor:
        """Weighted square of the counts."""
        return self.weights * self.counts.square()


def _rebin(counts: Tensor) -> _Bins:
    y, centre = rebin(counts, max(1, counts.shape[0] // _SCREEN_BINS))
    return _Bins(counts=y, weights=contrast_weights(y), centre=centre)


def _compute_costs(
    bins: _Bins, offset: Tensor, slope: Tensor, problem: FitProblem, *, enough: int
) -> tuple[Tensor, Tensor]:
    """Share of the weighted counts that each axis leaves unexplained, infinite if not tried; its angle.

    What lies outside of the energy range is a lower bound of it. Axes are tried by that bound, and those whose
    bound is above the cost of `enough` others are never tried.
    """
    whole = bins.square.sum()
    bound = _bound_costs(bins, offset, slope, problem)
    explain = _choose_solver(bins, slope, _compute_shapes(problem), problem)
    order = torch.argsort(bound, stable=True)
    cost = torch.full_like(bound, torch.inf)
    n_elastic = len(_elastic_energies(problem))
    angles = torch.tensor(_COMPTON_ANGLES_DEG, dtype=offset.dtype)
    angle = torch.full_like(bound, _COMPTON_ANGLES_DEG[1])
    n_lines = len(problem.table.component_names)
    for first in range(0, order.shape[0], _CHUNK):
        tried = order[first : first + _CHUNK]
        if first >= enough and float(bound[tried[0]]) > float(cost.kthvalue(enough).values):
            break
        explained, linear = explain(offset[tried], slope[tried])
        cost[tried] = 1.0 - explained / whole
        scatter = linear[:, n_lines:]
        angle[tried] = _find_strongest(
            scatter[:, n_elastic : n_elastic + angles.shape[0]], angles, _COMPTON_ANGLES_DEG[1]
        )
    return cost, angle


def _bound_costs(bins: _Bins, offset: Tensor, slope: Tensor, problem: FitProblem) -> Tensor:
    """(axis,): share of the weighted square that lies outside of the energy range."""
    before = torch.nn.functional.pad(bins.square.cumsum(dim=0), (1, 0))
    ends = torch.stack([(energy - offset) / slope for energy in (problem.energy_min_kev, problem.energy_max_kev)])
    # Rounding can put a bin at an end on the other side than the solver does: it counts as inside, as this is a bound.
    low, high = ends.amin(dim=0) - _ROUNDING, ends.amax(dim=0) + _ROUNDING
    first, last = torch.searchsorted(bins.centre, low), torch.searchsorted(bins.centre, high, right=True)
    return 1.0 - (before[last] - before[first]) / before[-1]


_Explain = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def _choose_solver(bins: _Bins, slope: Tensor, shapes: Floats, problem: FitProblem) -> _Explain:
    """What gives, of some offsets and slopes (axis,), the weighted square that is explained, and the coefficients.

    Kernels know axes that rise, on a processor; they draw each column over its own bins.
    """
    if slope.device.type == "cpu" and bool((slope > 0.0).all()):
        return _prepare_kernel(bins, shapes, problem)
    table = torch.from_numpy(shapes.T).to(slope.device)

    def explain(offset: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        energy = offset[:, None] + slope[:, None] * bins.centre
        inside = (energy >= problem.energy_min_kev) & (energy <= problem.energy_max_kev)
        row = ((energy - problem.energy_min_kev) / _GRID_KEV).round().long()
        return _solve_tensors(bins, table[torch.where(inside, row, table.shape[0] - 1)])

    return explain


def _prepare_kernel(bins: _Bins, table: Floats, problem: FitProblem) -> _Explain:
    counts, weights, centre = (np.ascontiguousarray(one.numpy()) for one in (bins.counts, bins.weights, bins.centre))
    reach = find_spans(table)
    grid = np.array([problem.energy_min_kev, _GRID_KEV, problem.energy_max_kev])
    n, n_bins = len(table), len(centre)
    columns, spans, energy = np.empty((n, n_bins)), np.empty((n, 2), np.uint64), np.empty(n_bins)
    room = np.empty((n, n_bins)), np.empty((3, n, n)), np.empty((3, n)), np.empty((4, n), np.uint64)
    kernels = load_spectrum_kernels()

    def explain(offset: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        axes = torch.stack([offset, slope], dim=1).numpy()
        linear, explained = np.empty((len(axes), n)), np.empty(len(axes))
        kernels.screen_axes(
            *(axes, centre, counts, weights, grid, table, reach, _EXCHANGES, columns, spans, energy, *room),
            *(linear, explained),
        )
        # A system that is singular explains nothing.
        linear[~np.isfinite(explained)] = 0.0
        return torch.from_numpy(np.nan_to_num(explained, copy=False)), torch.from_numpy(linear)

    return explain


def _find_strongest(heights: Tensor, places: Tensor, otherwise: float) -> Tensor:
    """(candidate,): place of the highest of (candidate, place), `otherwise` where all are 0."""
    if places.numel() == 0:
        return heights.new_full(heights.shape[:1], otherwise)
    found = places.to(heights.device)[heights.argmax(dim=-1)]
    return torch.where(heights.amax(dim=-1) > 0.0, found, otherwise)


def _compute_shapes(problem: FitProblem) -> Floats:
    """Columns on a fine grid over the energy range, (column, energy); at the last energy all are 0."""
    line_kev, share, column = _list_strong_lines(problem)
    low, high = problem.energy_min_kev, problem.energy_max_kev
    grid = low + _GRID_KEV * np.arange(int((high - low) / _GRID_KEV) + 2)
    noise = _SCREEN_FWHM_KEV / problem.constants.fwhm_per_sigma
    fano = float(pack(problem.parameters)[INDEX["fwhm_fanoprime"]])
    sigma = np.sqrt(noise**2 + problem.constants.width_factor * line_kev * fano)
    first, last = np.searchsorted(grid, line_kev - _REACH * sigma), np.searchsorted(grid, line_kev + _REACH * sigma)
    n_peaks = column[-1] + 1
    table = np.zeros((n_peaks + _SCREEN_HATS, grid.size + 1))
    for at, begin, end in zip(range(line_kev.size), first, last, strict=True):
        u = (grid[begin:end] - line_kev[at]) / sigma[at]
        table[column[at], begin:end] += np.exp(-0.5 * u * u) * (share[at] * INV_SQRT_2PI / sigma[at])
    knots = np.linspace(low, high, _SCREEN_HATS)
    table[n_peaks:, :-1] = (1.0 - np.abs(grid - knots[:, None]) / (knots[1] - knots[0])).clip(min=0.0)
    return table


def _solve_tensors(bins: _Bins, columns: Tensor) -> tuple[Tensor, Tensor]:
    """The weighted square that columns (axis, bin, column) explain, and their non-negative coefficients."""
    weighted = columns * bins.weights[:, None]
    rhs, gram = (weighted.mT @ bins.counts[:, None])[..., 0], columns.mT @ weighted
    x = nnls_gram(gram, rhs, max_exchanges=_EXCHANGES, exact=False).x.nan_to_num()
    return 2.0 * (rhs * x).sum(-1) - (x[:, None] @ gram @ x[..., None])[:, 0, 0], x


def select_distinct_axes(
    offset: Tensor, slope: Tensor, problem: FitProblem, n_channels: int, apart_kev: float, keep: int
) -> Tensor:
    """Indices of the first `keep` axes that differ from every better one by `apart_kev` at an end."""
    energies = torch.tensor([problem.energy_min_kev, problem.energy_max_kev], dtype=torch.float64)
    end_channels = ((energies - offset[0]) / slope[0]).clamp(0.0, n_channels - 1.0)
    at_ends = (offset[:, None] + slope[:, None] * end_channels).cpu().numpy()
    kept: list[int] = []
    for i in range(len(at_ends)):
        if not kept or np.abs(at_ends[i] - at_ends[kept]).max(axis=1).min() >= apart_kev:
            kept.append(i)
        if len(kept) == keep:
            break
    return torch.tensor(kept)
