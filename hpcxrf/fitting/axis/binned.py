"""A spectrum in bins of about one peak width, and the shapes of all families in them, as far as evidence needs them.

A few hundred bins hold all that lines say of themselves. The response is a Gaussian; tails, steps, errors of ratios,
positions and widths are columns of one standard deviation, which together with the counting noise are the covariance
of the residual.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import torch
from torch import Tensor

from hpcxrf.fitting.axis.peaks import Peaks
from hpcxrf.fitting.axis.tables import Family, list_families
from hpcxrf.fitting.spectrum.candidates import build_excited_lines
from hpcxrf.physics.condense import select_components
from hpcxrf.physics.detector import Detector
from hpcxrf.physics.lines import LineTable

_BIN_WIDTHS: Final = 1.1
_MOST_BINS: Final = 500
_FWHM_PER_SIGMA: Final = 2.3548
_HAT_FWHM: Final = 4.5
_COMPTON_FROM: Final = 0.76
_COMPTON_WIDTHS: Final = (1.8, 3.0)
_ESCAPE_KEV: Final = 1.742
# Flaws: shares, keV.
_KBETA_SD: Final = 0.12
# Below argon the 3p electrons are those of the bond: K-beta varies with it, and tables of it differ by factors.
_VALENCE_KBETA_SD: Final = 0.05
_VALENCE_Z: Final = 18
_SUBSHELL_SD: Final = 0.12
_POSITION_SD_KEV: Final = 0.0015
_WIDTH_SD: Final = 0.012
_ESCAPE_SD: Final = 0.5
_ABSORPTION_SD: Final = 0.4
_ABSORPTION_KEV: Final = 1.5
_TAIL_SD: Final = 0.03
# Beyond this a Gaussian is 2e-37, and an exponential 2e-35: the smallest numbers of float32 are 1e-38.
_NOTHING_SIGMAS: Final = 13.0
_NOTHING: Final = 80.0
_TAIL_KEV: Final = 0.13
_STEP_SD: Final = 0.003
# What is not known of an axis that peaks have found, and of its widths.
_OFFSET_SD_KEV: Final = 0.02
_SLOPE_SD: Final = 0.003
_BEND_SD_KEV: Final = 0.005
_WIDTH_LAW_SD: Final = 0.08
# Where it stands on the flank of the Compton peak, its maximum is not its energy.
_ELASTIC_SD_KEV: Final = 0.05
RARE_COST: Final = 5.0
"""Families of a higher cost (radioactive ones, rare gases) are never found."""
N_THETA: Final = 6
"""Columns of the axis, of the widths and of the elastic peak, which are the first among the flaws."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisPoint:
    """An energy axis with widths and the incident energy."""

    offset_kev: float
    slope_kev: float
    bend_kev: float
    """Energy by which the axis bends away from its chord between 1 keV and the incident energy."""
    width_factor: tuple[float, float]
    """Logarithm of the widths relative to those of the peaks, at 6 keV and per 6 keV."""
    incident_kev: float
    moved: tuple[float, ...] = (0.0,) * 6
    """By how many standard deviations of each parameter the axis has moved from where the peaks put it."""

    def bend_at(self, energy_kev: Tensor) -> Tensor:
        """Shape (any) of the bend: 0 at 1 keV and at the incident energy, 1 between."""
        top = self.incident_kev - 1.0
        return 4.0 * (energy_kev - 1.0) * (self.incident_kev - energy_kev) / top**2

    def energy_kev(self, channel: Tensor) -> Tensor:
        """Energies (any) of channels."""
        straight = self.offset_kev + self.slope_kev * channel
        return straight + self.bend_kev * self.bend_at(straight)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bins:
    """A spectrum in bins."""

    edges: Tensor
    """(bin + 1,) channels."""
    counts: Tensor
    """(bin,)."""
    smooth: Tensor
    """(bin,) counts with those of the neighbours."""
    pileup: Tensor
    """(bin,) sums of two events, 1 in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapes:
    """Columns at one axis: counts in each bin per recorded count."""

    names: tuple[str, ...]
    family: Tensor
    """(bin, family)."""
    rest: Tensor
    """(bin, other) background, scatter, pile-up; the elastic peak is the last one where there is a beam."""
    energy_kev: Tensor
    """(bin,)."""
    flaws_of: "LineFlaws"


@dataclass(frozen=True, slots=True, kw_only=True)
class LineFlaws:
    """Derivatives of every line, from which the flaws of the active families are made."""

    table: LineTable
    line: Tensor
    """(bin, line) times the ratio."""
    by_energy: Tensor
    by_width: Tensor
    tail: Tensor
    step: Tensor
    elastic: bool


def table_at(incident_kev: float, detector: Detector) -> LineTable:
    """Lines of every family of the tables that an incident energy excites."""
    every = build_excited_lines(incident_kev, detector)
    names = [n for n in every.component_names if n in families_by_name() and families_by_name()[n].cost < RARE_COST]
    return select_components(every, names) if len(names) < len(every.component_names) else every


@lru_cache(maxsize=1)
def families_by_name() -> dict[str, Family]:
    """Families of the tables by their names."""
    return {f.name: f for f in list_families()}


def make_bins(counts: Tensor, peaks: Peaks, at: AxisPoint, low_kev: float, high_kev: float) -> Bins | None:
    """Bin the counts between two energies; None where nothing of the spectrum lies there.

    Args:
        counts: (channel,) float64.
        peaks: of the spectrum, for the widths.
        at: the axis.
        low_kev: lower end.
        high_kev: upper end.
    """
    n = counts.shape[0]
    first = max(int(np.ceil((low_kev - at.offset_kev) / at.slope_kev)), 0)
    last = min(int((high_kev - at.offset_kev) / at.slope_kev), n - 1)
    if last - first < 40:
        return None
    channel = np.arange(first, last + 1, dtype=np.float64)
    width = peaks.width.at(channel)
    per_bin = max(_BIN_WIDTHS, float((1.0 / width).sum()) / _MOST_BINS)
    number = np.floor(np.cumsum(1.0 / (per_bin * width)))
    starts = np.concatenate([[first], channel[1:][np.diff(number) > 0], [last + 1]])
    edges = torch.from_numpy(starts)
    sums = torch.cat([counts.new_zeros(1), counts.cumsum(dim=0)])
    at_edges = sums[edges.long()]
    binned = at_edges.diff()
    padded = torch.cat([binned[:1], binned, binned[-1:]])
    size = edges.diff()
    wide = torch.cat([size[:1], size, size[-1:]])
    smooth = (padded[:-2] + 2.0 * padded[1:-1] + padded[2:]) / (wide[:-2] + 2.0 * wide[1:-1] + wide[2:]) * size
    return Bins(edges=edges - 0.5, counts=binned, smooth=smooth, pileup=_sum_events(counts, edges, at))


def _sum_events(counts: Tensor, edges: Tensor, at: AxisPoint) -> Tensor:
    n = counts.shape[0]
    length = 1 << (2 * n - 1).bit_length()
    sums = torch.fft.irfft(torch.fft.rfft(counts, length).square(), length)[: 2 * n]
    # Energies add up: of two channels the sum lies at their sum less the channel of zero energy.
    total = torch.cat([sums.new_zeros(1), sums.clamp(min=0.0).cumsum(dim=0)])
    place = (edges - at.offset_kev / at.slope_kev).clamp(0.0, 2.0 * n - 1.0)
    below = place.floor().long().clamp(max=2 * n - 1)
    share = place - below
    cumulative = total[below] * (1.0 - share) + total[(below + 1).clamp(max=2 * n)] * share
    return cumulative.diff() / total[-1].clamp(min=1.0)


def build_shapes(bins: Bins, peaks: Peaks, at: AxisPoint, table: LineTable, *, elastic: bool) -> Shapes:
    """Build the columns of all families of a table, of background, scatter and pile-up.

    Args:
        bins: the spectrum.
        peaks: of it, for the widths.
        at: axis, widths, incident energy.
        table: lines of the families.
        elastic: False for a tube.
    """
    edges = at.energy_kev(bins.edges)
    energy = 0.5 * (edges[1:] + edges[:-1])
    line_kev = table.energy_kev
    sigma = _sigma_kev(line_kev, peaks, at)
    x = ((edges[:, None] - line_kev) / sigma).float()
    ratio = table.ratio.float()
    # Numbers too small to be normal take ten times as long.
    gauss = torch.exp(-0.5 * x.clamp(-_NOTHING_SIGMAS, _NOTHING_SIGMAS).square()) * 0.3989423
    whole = torch.special.ndtr(x)
    decay = (sigma / _TAIL_KEV).float()
    low = whole + torch.exp((decay * x + 0.5 * decay.square()).clamp(-_NOTHING, 0.0)) * torch.special.ndtr(-x - decay)
    line = whole.diff(dim=0) * ratio
    n = len(table.component_names)
    member = (table.component[:, None] == torch.arange(n)).float()
    step = torch.special.ndtr(-0.5 * (x[1:] + x[:-1])) * (edges.diff()[:, None] / line_kev).float()
    return Shapes(
        names=table.component_names,
        family=(line @ member).double(),
        rest=_build_rest(edges, energy, bins, peaks, at, elastic=elastic),
        energy_kev=energy,
        flaws_of=LineFlaws(
            table=table,
            line=line,
            by_energy=-gauss.diff(dim=0) * (ratio / sigma.float()),
            by_width=-(x * gauss).diff(dim=0) * ratio,
            tail=(low.diff(dim=0) - whole.diff(dim=0)) * ratio,
            step=step * ratio,
            elastic=elastic,
        ),
    )


def _sigma_kev(energy: Tensor, peaks: Peaks, at: AxisPoint) -> Tensor:
    channel = ((energy - at.offset_kev) / at.slope_kev).numpy()
    law = torch.from_numpy(peaks.width.at(channel)) * at.slope_kev
    first, second = at.width_factor
    return law * torch.exp(first + second * (energy - 6.0) / 6.0)


def _peak(edges: Tensor, centre: Tensor, sigma: Tensor) -> Tensor:
    """(bin, peak) Gaussians."""
    found: Tensor = torch.special.ndtr((edges[:, None] - centre) / sigma).diff(dim=0)
    return found


def _build_rest(edges: Tensor, energy: Tensor, bins: Bins, peaks: Peaks, at: AxisPoint, *, elastic: bool) -> Tensor:
    sigma = _sigma_kev(energy, peaks, at)
    position = (edges.diff() / (_HAT_FWHM * _FWHM_PER_SIGMA * sigma)).cumsum(dim=0)
    knots = torch.arange(int(float(position[-1])) + 2, dtype=energy.dtype)
    hats = (1.0 - (position[:, None] - knots).abs()).clamp(min=0.0) * edges.diff()[:, None]
    parts = [hats, bins.pileup[:, None]]
    if elastic:
        top = torch.tensor([at.incident_kev], dtype=energy.dtype)
        own = _sigma_kev(top, peaks, at)
        for factor in _COMPTON_WIDTHS:
            steps = int(max((1.0 - _COMPTON_FROM) * at.incident_kev / float(1.2 * factor * own), 1.0))
            centres = top * torch.linspace(_COMPTON_FROM, 1.0, steps + 1)[:-1]
            parts.append(_peak(edges, centres, factor * own))
        parts += [_peak(edges, top - _ESCAPE_KEV, own), _peak(edges, top, own)]
    columns = torch.cat(parts, dim=1)
    return columns / columns.sum(dim=0).clamp(min=1e-12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaws:
    """What is not known of the axis (the first six), common errors of the model, and those of single families."""

    columns: Tensor
    """(bin, flaw)."""
    owner: tuple[int, ...]
    """(flaw,) family, -1 for those of the axis and the common ones."""


def list_flaws(shapes: Shapes, amplitude: Tensor, rest: Tensor, at: AxisPoint) -> Flaws:
    """List what is not known of the axis, and usual errors of the model.

    Args:
        shapes: of the axis.
        amplitude: (family,) counts; a family of 0 has no flaws.
        rest: (other,) counts.
        at: the axis.
    """
    f = shapes.flaws_of
    table = f.table
    height = amplitude[table.component].float()
    model_by_energy = (f.by_energy @ height).double()
    model_by_width = (f.by_width @ height).double()
    e, zero = shapes.energy_kev, torch.zeros_like(shapes.energy_kev)
    elastic = zero
    if f.elastic:
        peak = shapes.rest[:, -1]
        elastic = -_derive(peak, e) * float(rest[-1])
        model_by_energy = model_by_energy + elastic
    # An axis that reads too low lifts the lines on it.
    theta = [
        model_by_energy * -_OFFSET_SD_KEV,
        model_by_energy * -_SLOPE_SD * e,
        model_by_energy * -_BEND_SD_KEV * at.bend_at(e),
        model_by_width * _WIDTH_LAW_SD,
        model_by_width * _WIDTH_LAW_SD * (e - 6.0) / 6.0,
        elastic * _ELASTIC_SD_KEV,
    ]
    absorb = _ABSORPTION_SD * (_ABSORPTION_KEV / table.energy_kev) ** 3
    active = torch.nonzero(amplitude > 0)[:, 0].tolist()
    own = [_flaws_of_family(f, i, float(amplitude[i]), absorb) for i in active]
    common = _list_common_flaws(f, height)
    owner = [-1] * (len(theta) + common.shape[1])
    owner += [i for i, columns in zip(active, own, strict=True) for _ in range(columns.shape[1])]
    return Flaws(columns=torch.cat([torch.stack(theta, dim=1), common, *own], dim=1), owner=tuple(owner))


def leave_out_flaws(shapes: Shapes, flaws: Flaws, amplitude: Tensor, without: int) -> Tensor:
    """(bin, flaw) of what a family that is absent leaves: its own go, and its share of the common ones.

    Args:
        shapes: of the axis.
        flaws: of `list_flaws`.
        amplitude: (family,) counts they were made with.
        without: the family.
    """
    others = torch.where(torch.arange(amplitude.shape[0]) == without, 0.0, amplitude)
    common = _list_common_flaws(shapes.flaws_of, others[shapes.flaws_of.table.component].float())
    last = N_THETA + common.shape[1]
    kept = [j for j, i in enumerate(flaws.owner) if j >= last and i != without]
    return torch.cat([flaws.columns[:, :N_THETA], common, flaws.columns[:, kept]], dim=1)


def _list_common_flaws(f: LineFlaws, height: Tensor) -> Tensor:
    """(bin, flaw) of tails, shelves and escape peaks of all lines, of so many counts each (line,)."""
    escape = (f.table.escape_parent >= 0).float()
    weak = (2.0 / f.table.energy_kev).square()
    common = [
        f.tail @ (height * _TAIL_SD),
        f.tail @ (height * (_TAIL_SD * weak).float()),
        f.step @ (height * _STEP_SD),
        f.line @ (height * escape * _ESCAPE_SD),
    ]
    return torch.stack(common, dim=1).double()


def _derive(peak: Tensor, energy: Tensor) -> Tensor:
    """Derivative of a binned peak by energy."""
    slope = torch.zeros_like(peak)
    slope[1:-1] = (peak[2:] - peak[:-2]) / (energy[2:] - energy[:-2])
    return slope


def _flaws_of_family(f: LineFlaws, index: int, counts: float, absorb: Tensor) -> Tensor:
    mine = torch.nonzero(f.table.component == index)[:, 0]
    line = f.line[:, mine].double() * counts
    ratio = f.table.ratio[mine]
    whole, total = line.sum(dim=1), float(ratio.sum())
    groups: list[tuple[Tensor, float]] = []
    kbeta = f.table.is_kbeta[mine]
    if bool(kbeta.any()):
        share = float(ratio[kbeta].sum()) / total
        light = families_by_name()[f.table.component_names[index]].z < _VALENCE_Z
        groups.append((kbeta.double(), max(_KBETA_SD, _VALENCE_KBETA_SD / share) if light else _KBETA_SD))
    else:
        edges = f.table.edge_kev[mine]
        subshells = edges.unique().tolist()
        groups += [((edges == one).double(), _SUBSHELL_SD) for one in subshells] if len(subshells) > 1 else []
    groups.append((absorb[mine], 1.0))
    moved = [sd * (line @ g - whole * float((g * ratio).sum()) / total) for g, sd in groups]
    moved.append(f.by_energy[:, mine].sum(dim=1).double() * counts * _POSITION_SD_KEV)
    moved.append(f.by_width[:, mine].sum(dim=1).double() * counts * _WIDTH_SD)
    return torch.stack(moved, dim=1)


def move_axis(at: AxisPoint, step: Sequence[float], *, farthest_kev: float) -> AxisPoint:
    """Move an axis by so many standard deviations of each of the six parameters, no line by more than the farthest."""
    offset, slope, bend = step[0] * _OFFSET_SD_KEV, step[1] * _SLOPE_SD, step[2] * _BEND_SD_KEV
    top = at.incident_kev
    most = max(abs(offset + slope), abs(offset + slope * top), abs(offset + 0.5 * slope * top + bend))
    factor = min(1.0, farthest_kev / most) if most > 0.0 else 1.0
    taken = [factor * one for one in step]
    first, second = at.width_factor
    scale = 1.0 + taken[1] * _SLOPE_SD
    return AxisPoint(
        offset_kev=at.offset_kev * scale + taken[0] * _OFFSET_SD_KEV,
        slope_kev=at.slope_kev * scale,
        bend_kev=at.bend_kev + taken[2] * _BEND_SD_KEV,
        width_factor=(first + taken[3] * _WIDTH_LAW_SD, second + taken[4] * _WIDTH_LAW_SD),
        incident_kev=at.incident_kev + taken[5] * _ELASTIC_SD_KEV,
        moved=tuple(m + t for m, t in zip(at.moved, taken, strict=True)),
    )
