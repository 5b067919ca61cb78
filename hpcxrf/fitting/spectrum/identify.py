"""Suggested elements: not in the list, but present in the residual of a fit.

A candidate's column is projected against everything that the fit could still do (its components, its background, its
free parameters), so that a miscalibration is not taken for an element, and weighed in a covariance that holds the
usual flaws of a model beside the counting noise (`hpcxrf.fitting.spectrum.mismatch`). What is left is a matched filter:
`z = x' V^-1 r / |x|`. The best candidate joins the projected ones, until none is left.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from hpcxrf.fitting.result import FitStatus, SpectrumFit
from hpcxrf.fitting.spectrum.binning import Bins, bin_channels
from hpcxrf.fitting.spectrum.candidates import build_candidate_lines, build_edge_lines, build_pileup_lines, join_tables
from hpcxrf.fitting.spectrum.drawn import draw_phi
from hpcxrf.fitting.spectrum.mismatch import FitPoint, evaluate_fit, mismatch_columns, relative_columns
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.fitting.spectrum.projected import (
    Metric,
    Projected,
    build_metric,
    fit_together,
    join_column,
    join_shape,
    limits,
    project,
    remove_basis,
    z_beside,
)
from hpcxrf.fitting.spectrum.suggestion import THRESHOLD, EvidenceLine, Suggestion, threshold_at
from hpcxrf.physics.background import background_hats
from hpcxrf.physics.components import parse_component
from hpcxrf.physics.condense import select_lines
from hpcxrf.physics.detector import Detector
from hpcxrf.physics.lines import LineTable
from hpcxrf.physics.model import SpectrumModel, find_tailed_lines

LINE_THRESHOLD: Final = 4.0
"""Least excess, in standard deviations, of the line that should be seen best; other lines are only required where
more than this is expected of them."""
LINE_SHORTFALL: Final = 3.5
MAIN_LINE: Final = 2.5
MINOR_LINE: Final = 0.1
"""Share of a family's counts below which a missing line does not speak against it."""
MINIMUM_SURVIVING: Final = 0.12
MAX_SUGGESTIONS: Final = 8
_MAX_STEPS: Final = 24
_BINS_PER_SIGMA: Final = 2.0
"""Bins in one standard deviation of a line: a hundredth of a peak's evidence is lost in them."""
_SHOWN_LINES: Final = 4
_PILEUP_SEEN: Final = 3.0
_PILEUP_FACTOR: Final = 3.0
# Photons pile up pixel by pixel: what lies in grains on a tenth of the scan has ten times as many sums.
_CROWDED_FACTOR: Final = 10.0
_GREATEST_RELATIVE_SD: Final = 0.03
_STRONG_PEAKS: Final = 5


def suggest(
    fit: SpectrumFit, problem: FitProblem, *, efficiency: Detector, threshold: float | None = None
) -> tuple[Suggestion, ...]:
    """Components that are not listed but present in the residual of a fit, strongest first.

    Args:
        fit: of one detector's spectrum.
        problem: what it was fitted with.
        efficiency: the detector.
        threshold: least z of a suggestion; None: of a family that of the spectrum's counts, `threshold_at`, of pile-up
            `THRESHOLD`, as it has to have the counts that the rest of the pile-up says, too.

    Returns:
        At most `MAX_SUGGESTIONS`; none for a fit without a solution.
    """
    if fit.status not in {FitStatus.CONVERGED, FitStatus.MAX_ITERATIONS}:
        return ()
    search = _search(fit, problem, efficiency)
    of_family = threshold_at(float(fit.counts.sum())) if threshold is None else threshold
    of_others = THRESHOLD if threshold is None else threshold
    least = torch.tensor([of_family if kind == "family" else of_others for kind in search.kinds], dtype=torch.float64)
    found, scale = _search_greedily(search, least)
    by_name = dict(zip(search.names, least.tolist(), strict=True))
    return tuple(s for s in _describe(search, found, scale) if s.z >= by_name[s.name])


def family_limits(fit: SpectrumFit, problem: FitProblem, *, efficiency: Detector) -> dict[str, float]:
    """Detection limit (Currie, 95 %, counts) of every family that is not listed, in this fit's residual.

    What the fit can imitate, and what the usual flaws of its model amount to, raise the limit.
    """
    search = _search(fit, problem, efficiency)
    limit = limits(search.left).tolist()
    return {
        name: limit[i]
        for i, (name, kind) in enumerate(zip(search.names, search.kinds, strict=True))
        if kind == "family"
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """All that could be found in one residual."""

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    """Kind of each candidate: "family", "pileup" (of two components), "listed" (a component of the fit that ended at
    0, or its lines at an edge near the incident energy: nothing new), "sums" (all pile-up at once)."""
    left: Projected
    point: FitPoint
    table: LineTable
    """Lines of families, pile-ups and lines at edges, which are the first of `names`."""
    bins: Bins
    """What all columns are on."""


def _search(fit: SpectrumFit, problem: FitProblem, efficiency: Detector) -> _Search:
    point = evaluate_fit(fit, problem)
    families, pairs = build_candidate_lines(problem, efficiency), build_pileup_lines(fit, problem)
    edges = build_edge_lines(problem, efficiency)
    table = join_tables(join_tables(families, pairs), edges)
    bins = bin_channels(point, _BINS_PER_SIGMA)
    zero = fit.amplitude <= 0
    columns = [shape_components(point, table), point.drawn.phi[:, zero], convolve_pileup(point)[:, None]]
    explained, shifts = bins.whiten(_stack_explained(point)), bins.whiten(point.ratio_columns)
    residual = bins.whiten((fit.counts - fit.model)[:, None])[:, 0]
    if fit.ratios is not None:
        # What is missing has bent the ratios: they are looked at as they are expected, and may be as far off as usual.
        residual = residual + shifts @ fit.ratios.value[2:]
        shifts = shifts * fit.ratios.prior_sd[2:]
    metric = _weigh_residual(point, bins, explained, residual, shifts, efficiency)
    listed = [n for n, at_zero in zip(fit.component_names, zero.tolist(), strict=True) if at_zero]
    sizes = [len(part.component_names) for part in (families, pairs, edges)]
    return _Search(
        names=(*table.component_names, *listed, "pile-up"),
        kinds=(*["family"] * sizes[0], *["pileup"] * sizes[1], *["listed"] * (sizes[2] + len(listed)), "sums"),
        left=project(explained, bins.whiten(torch.cat(columns, dim=1)), residual, metric, within=bins.within),
        point=point,
        table=table,
        bins=bins,
    )


def shape_components(point: FitPoint, table: LineTable) -> Tensor:
    """Shapes (channel, component) of the components of a table, counts a channel of one count.

    Args:
        point: the fit at whose axis and widths they are.
        table: lines.
    """
    return draw_phi(point.fit.theta, _pose_lines(point, table))[:, : len(table.component_names)]


def _shape_lines(search: _Search, lines: Tensor) -> Tensor:
    """Shapes (bin, line) of some lines as they contribute to their components, in units of the noise."""
    # Each is a component of its own.
    number = torch.arange(lines.shape[0], device=lines.device)
    names = tuple(f"line {i}" for i in range(lines.shape[0]))
    apart = replace(select_lines(search.table, lines), component=number, component_names=names)
    return search.bins.whiten(shape_components(search.point, apart))


def _pose_lines(point: FitPoint, table: LineTable) -> SpectrumModel:
    constants = point.model.constants
    return SpectrumModel(
        table=table,
        channel=point.model.channel,
        constants=constants,
        elastic=False,
        with_step=False,
        tailed=find_tailed_lines(table, elastic=False, constants=constants),
        shape_dtype=torch.float32,
    )


def _stack_explained(point: FitPoint) -> Tensor:
    """Columns of what the fit can still do: components above 0, background, free parameters.

    A background that a missing peak drew up is 0 beside it: hats that ended at 0 may rise again too.
    """
    fit = point.fit
    present = point.drawn.phi[:, fit.amplitude > 0]
    background = fit.background_parts.T
    if point.problem.background == "hats":
        background = background_hats(
            fit.theta, point.model.channel, constants=point.problem.constants, elastic=point.problem.elastic
        )
    return torch.cat([present, background, point.jacobian[:, fit.free]], dim=1)


def convolve_pileup(point: FitPoint) -> Tensor:
    """Pile-up of the whole fitted spectrum with itself (channel,), per count; energies of two events add up.

    Args:
        point: the fit.
    """
    fit, n = point.fit, point.fit.model.shape[0]
    transform = torch.fft.rfft(fit.model, 2 * n)
    sums = torch.nn.functional.pad(torch.fft.irfft(transform**2, 2 * n), (0, 1))
    offset, slope = fit.theta[:2].tolist()
    position = point.model.channel - 2 * fit.first_channel - offset / slope
    below = position.floor().long().clamp(0, 2 * n - 1)
    share = (position - below).clamp(0.0, 1.0)
    inside = (position >= 0) & (position < 2 * n - 1)
    at = sums[below] * (1.0 - share) + sums[below + 1] * share
    return torch.where(inside, at, 0.0).clamp(min=0.0) / fit.model.sum() ** 2


def _weigh_residual(
    point: FitPoint, bins: Bins, explained: Tensor, residual: Tensor, shifts: Tensor, efficiency: Detector
) -> Metric:
    """Counting noise, usual flaws, and as much relative error as this residual shows."""
    root = point.weights.sqrt()[:, None]
    flaws = torch.cat([bins.whiten(mismatch_columns(point, efficiency) / root), shifts], dim=1)
    usual = build_metric(flaws)
    relative = bins.whiten(relative_columns(point))
    strong = relative[:, relative.norm(dim=0) > 1.0 / _GREATEST_RELATIVE_SD]
    if strong.shape[1] < _STRONG_PEAKS:
        return usual
    size = _relative_sd(project(explained, strong, residual, usual))
    return usual if size == 0.0 else build_metric(torch.cat([flaws, size * relative], dim=1))


def _relative_sd(left: Projected) -> float:
    """Relative error of the model beyond the usual flaws: a high median over its strong peaks.

    Each relative column has the variance 1 + size^2 norm^2; a missing element raises a few of them, so that
    the mean would be led astray.
    """
    norm2 = left.norm**2
    strong = norm2 > (3.0 * _GREATEST_RELATIVE_SD) ** -2
    if int(strong.sum()) < _STRONG_PEAKS:
        return 0.0
    square = (left.dual.T @ left.residual)[strong] ** 2 / norm2[strong]
    size2 = float(torch.quantile((square - 1.0) / norm2[strong], 0.6))
    return min(math.sqrt(max(size2, 0.0)), _GREATEST_RELATIVE_SD)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    index: int
    surviving: float
    lines: tuple[EvidenceLine, ...]
    """Evidence of the lines; empty for a component that is listed already."""


def _search_greedily(search: _Search, least: Tensor) -> tuple[list[_Found], float]:
    """Candidates in the order in which they were found, and the scale of what remains; `least` (candidate,) z."""
    left, refused = search.left, torch.zeros(len(search.names), dtype=torch.bool)
    found: list[_Found] = []
    for _ in range(_MAX_STEPS):
        z = _rival_z(search, left)
        z = torch.where(refused | (left.surviving < MINIMUM_SURVIVING) | (z < least), 0.0, z)
        best = int(z.argmax())
        if float(z[best]) <= 0.0 or len(found) >= MAX_SUGGESTIONS:
            break
        refused[best] = True
        lines = () if search.kinds[best] == "listed" else _weigh_evidence(search, left, best)
        if search.kinds[best] == "pileup" and not _is_pileup(search, left, best):
            continue
        if lines or search.kinds[best] == "listed":
            found.append(_Found(index=best, surviving=float(left.surviving[best]), lines=lines))
            left = _free_subshells(search, join_column(left, best), best)
    return found, left.scale


def _free_subshells(search: _Search, left: Projected, index: int) -> Projected:
    """The same with the subshells of a found L or M family free of each other: tables differ by a fifth and more.

    A fit would have them so; without it their errors are taken for other families.
    """
    table = search.table
    if search.kinds[index] != "family":
        return left
    mine = (table.component == index) & (table.escape_parent < 0)
    edges = table.edge_kev[mine].unique().tolist()
    share = {edge: float(table.ratio[mine & (table.edge_kev == edge)].sum()) for edge in edges}
    for edge in sorted(share, key=lambda one: -share[one])[1:]:
        lines = torch.nonzero(mine & (table.edge_kev == edge))[:, 0]
        left = join_shape(left, _shape_lines(search, lines).sum(dim=1))
    return left


def _rival_z(search: _Search, left: Projected) -> Tensor:
    """The z of every candidate; of families beside all pile-up, where that is seen at all."""
    z, sums = left.z, len(search.names) - 1
    if float(z[sums]) > _PILEUP_SEEN:
        family = torch.tensor([k == "family" for k in search.kinds])
        z = torch.where(family, torch.minimum(z, z_beside(left, sums)), z)
    z[sums] = 0.0
    return z


def _is_pileup(search: _Search, left: Projected, index: int) -> bool:
    """True where a pair has the counts that pile-up of the whole spectrum, where it is seen, gives it, or of grains."""
    sums = len(search.names) - 1
    every = float(left.z[sums] * left.scale / left.norm[sums])
    pair = float(left.z[index] * left.scale / left.norm[index])
    fit = search.point.fit
    families = parse_component(search.names[index]).families
    parents = [symbol if shell == "K" else f"{symbol}_{shell}" for symbol, shell in families]
    a, b = (float(fit.amplitude[fit.component_names.index(p)] / fit.model.sum()) for p in parents)
    expected = every * a * b * (1 if parents[0] == parents[1] else 2)
    return expected / _PILEUP_FACTOR < pair < expected * _CROWDED_FACTOR


def _weigh_evidence(search: _Search, left: Projected, index: int) -> tuple[EvidenceLine, ...]:
    """The lines of a candidate one by one, strongest evidence first; none if they contradict it."""
    groups = _separate_lines(search, index)
    columns = torch.stack([_shape_lines(search, g).sum(dim=1) for g in groups], dim=1)
    own = remove_basis(left.basis, left.basis_dual, columns)
    dual = left.metric.dual(own)
    norm = (own * dual).sum(dim=0).clamp(min=1e-300).sqrt()
    observed = (dual.T @ left.residual) / norm / left.scale
    expected = left.z[index] / left.norm[index] * (own.T @ dual).sum(dim=0) / norm
    share = torch.stack([search.table.ratio[g].sum() for g in groups])
    if not lines_agree(observed, expected, share):
        return ()
    lines = [_describe_line(search, g, columns[:, i], float(observed[i])) for i, g in enumerate(groups)]
    return tuple(sorted(lines, key=lambda line: -line.z)[:_SHOWN_LINES])


def lines_agree(observed: Tensor, expected: Tensor, share: Tensor) -> bool:
    """True where the lines of a family, one by one, agree with the family as a whole.

    The line that should be seen best must be seen by itself, and not be much stronger than the family makes it;
    the main line must be seen where it can be; any other of a tenth of the counts that should be seen must
    have half of its own.

    Args:
        observed: (line,) excess of each line alone, in standard deviations.
        expected: (line,) excess that the family's amplitude predicts.
        share: (line,) of the family's counts.
    """
    best, main = int(expected.argmax()), int(share.argmax())
    short = (expected > LINE_THRESHOLD) & (observed < 0.5 * expected) & (share > MINOR_LINE)
    short &= expected - observed > LINE_SHORTFALL
    hidden = expected[main] > MAIN_LINE and observed[main] < MAIN_LINE
    alien = observed[best] - expected[best] > 3.0 + 0.35 * expected[best]
    return float(observed[best]) >= LINE_THRESHOLD and not bool(short.any() | hidden | alien)


def _separate_lines(search: _Search, index: int) -> list[Tensor]:
    """Lines (indices into the table) of a candidate inside the range, joined where closer than one FWHM."""
    table, point = search.table, search.point
    energies = point.energy_kev
    inside = (table.energy_kev > energies[0]) & (table.energy_kev < energies[-1])
    # Lines of a subshell that the incident energy does not excite are in the table, with no share.
    own = (table.component == index) & (table.escape_parent < 0) & (table.ratio > 0.0)
    mine = torch.nonzero(own & inside)[:, 0]
    mine = mine[table.energy_kev[mine].argsort()]
    line_kev = table.energy_kev[mine]
    nearest = torch.searchsorted(energies, line_kev).clamp(max=energies.shape[0] - 1)
    apart = line_kev.diff() > point.fwhm_kev[nearest[1:]]
    number = torch.cat([apart.new_zeros(1), apart]).long().cumsum(dim=0)
    return [mine[number == i] for i in range(int(number[-1]) + 1)]


def _describe_line(search: _Search, lines: Tensor, column: Tensor, z: float) -> EvidenceLine:
    table, fit = search.table, search.point.fit
    ratio = table.ratio[lines]
    listed = search.bins.whiten(fit.component_counts.T).T
    size = listed.norm(dim=1) * column.norm()
    overlap = (listed @ column) / torch.where(size > 0, size, torch.inf)
    most = int(overlap.argmax())
    noticeable = float(overlap[most]) > 0.05
    return EvidenceLine(
        energy_kev=float((table.energy_kev[lines] * ratio).sum() / ratio.sum()),
        share=float(ratio.sum()),
        z=z,
        overlaps=fit.component_names[most] if noticeable else "",
        overlap=float(overlap[most]) if noticeable else 0.0,
    )


def _describe(search: _Search, found: list[_Found], scale: float) -> list[Suggestion]:
    """Suggestions with the amplitudes that they have together."""
    if not found:
        return []
    counts, variance = fit_together(search.left, [f.index for f in found])
    sigma = variance.sqrt() * scale
    limit = limits(search.left)
    described = [
        Suggestion(
            name=search.names[f.index],
            z=float(a / s),
            counts=float(a),
            sigma=float(s),
            detection_limit=float(limit[f.index]),
            surviving=f.surviving,
            lines=f.lines,
        )
        for f, a, s in zip(found, counts, sigma, strict=True)
        if f.lines
    ]
    return sorted(described, key=lambda s: -s.z)
