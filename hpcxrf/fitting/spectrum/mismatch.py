"""Usual errors of a fitted model, by place and size: columns of one standard deviation each.

A spectrum of 1e7 counts shows every flaw of its model: a K-beta ratio, a tail, an edge in the continuum. Whoever
looks for something new in its residual has to tell it from these. Each column is one way of being wrong, as high as
is usual; `V = W^-1 + N N'` is then the covariance of the residual (weights W, columns N).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
import xraylib
from torch import Tensor

from hpcxrf.fitting.kernels import spectrum_layout as at
from hpcxrf.fitting.model_error import Flaws
from hpcxrf.fitting.objective import poisson_weights
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.drawn import Drawn, LineErrors, LineGroups, draw
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.fitting.spectrum.ratio_groups import build_light_model, list_named_groups
from hpcxrf.physics.detector import LOWEST_KEV, Detector, escape_photons, escape_probability
from hpcxrf.physics.model import PlacedLines, SpectrumModel, energy_kev, place_lines
from hpcxrf.physics.parameters import INDEX
from hpcxrf.physics.ratios import COMMON, find_parents
from hpcxrf.physics.scatter import line_sigma_kev

# Usual flaws, as shares: of the ratios within a family (tables differ by 5 % and more), of the escape peaks that
# the table has and of all others, of the tails, of the width of a line; its position in keV; of the Compton profile
# and the continuum; of the step that the detector's dead layer puts into the continuum. Air and windows add to
# ratios and continuum: 2 cm of air absorb half at 2 keV, and the path is hardly ever known.
RATIO_SD: Final = 0.05
ESCAPE_SD: Final = 0.3
FAINT_ESCAPE_SD: Final = 1.0
TAIL_SD: Final = 0.3
TAIL_SHARE_SD: Final = 0.002
WIDTH_SD: Final = 0.01
POSITION_SD_KEV: Final = 0.001
COMPTON_SD: Final = 0.03
CONTINUUM_SD: Final = 0.05
EDGE_SD: Final = 0.15
ABSORPTION_SD: Final = 0.5
"""Error of the optical depth before the detector at 1.5 keV; it falls with the cube of the energy."""
_ABSORPTION_KEV: Final = 1.5
_ESCAPE_GRID: Final = 48
FWHM_PER_SIGMA: Final = 2.3548
_OF_SAMPLE: Final = 2
"""Parameters of the line ratios that are the sample's; they come first."""
_NOTICEABLE: Final = 0.3
"""Columns that nowhere amount to this many standard deviations of the counting noise are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPoint:
    """A fitted model with its derivatives, all that its usual errors follow from."""

    theta: Tensor
    """(parameter,)."""
    free: Tensor
    """(parameter,) bool: fitted."""
    prior_sd: Tensor
    """(parameter,)."""
    kbeta_sd: float
    """Relative width of the prior of free K-beta ratios; 0: they were tied."""
    amplitude: Tensor
    """(component,)."""
    component_counts: Tensor
    """(component, channel)."""
    background: Tensor
    """(channel,)."""
    expected: Tensor
    """(channel,) with background."""
    model: SpectrumModel
    drawn: Drawn

    @property
    def weights(self) -> Tensor:
        """(channel,) Poisson weights."""
        return poisson_weights(self.expected)

    @property
    def energy_kev(self) -> Tensor:
        """(channel,)."""
        return energy_kev(self.theta, self.model.channel)

    @property
    def fwhm_kev(self) -> Tensor:
        """(channel,) width of a line at each channel."""
        positive = self.energy_kev.clamp(min=0.1)
        return FWHM_PER_SIGMA * line_sigma_kev(self.theta, positive, self.model.constants)


@dataclass(frozen=True, slots=True, kw_only=True)
class FitPoint:
    """A fit with the model evaluated at its theta."""

    fit: SpectrumFit
    problem: FitProblem
    model: SpectrumModel
    """Model of the fit; where line ratios were fitted, with those of its table and free to change from there."""
    drawn: Drawn
    weights: Tensor
    """(channel,) Poisson weights of the fitted model."""

    @property
    def jacobian(self) -> Tensor:
        """(channel, parameter), counts per unit of the parameter of theta."""
        return self.drawn.jacobian[:, : self.fit.theta.shape[0]]

    @property
    def ratio_columns(self) -> Tensor:
        """Derivatives (channel, parameter) by the line ratios but those of the sample, of `fit.ratios.value[2:]`."""
        return self.drawn.jacobian[:, self.fit.theta.shape[0] + _OF_SAMPLE :]

    @property
    def at(self) -> ModelPoint:
        """The fitted model."""
        return ModelPoint(
            theta=self.fit.theta,
            free=self.fit.free,
            prior_sd=torch.tensor([p.prior_sd for p in self.problem.parameters], dtype=torch.float64),
            kbeta_sd=self.problem.kbeta_sd,
            amplitude=self.fit.amplitude,
            component_counts=self.fit.component_counts,
            background=self.fit.background,
            expected=self.fit.model,
            model=self.model,
            drawn=self.drawn,
        )

    @property
    def energy_kev(self) -> Tensor:
        """(channel,)."""
        return self.at.energy_kev

    @property
    def fwhm_kev(self) -> Tensor:
        """(channel,) width of a line at each channel."""
        return self.at.fwhm_kev


def evaluate_fit(fit: SpectrumFit, problem: FitProblem) -> FitPoint:
    """Draw a fit's model with its derivatives where the fit ended."""
    stop = fit.first_channel + fit.counts.shape[0]
    model = SpectrumModel(
        table=fit.table,
        channel=torch.arange(fit.first_channel, stop, dtype=torch.float64),
        constants=problem.constants,
        elastic=problem.elastic,
        copies=fit.copies,
        shape_dtype=torch.float32,
    )
    theta = fit.theta
    if fit.ratios is not None:
        groups = list_named_groups(fit.table, fit.copies, fit.ratios.names[len(COMMON) :])
        model = replace(model, ratios=build_light_model(fit.table, groups))
        # The table has the fitted ratios: nothing changes them, a sample without depth first of all.
        unchanged = torch.zeros_like(fit.ratios.value)
        unchanged[0] = 1.0
        theta = torch.cat([theta, unchanged])
    return FitPoint(
        fit=fit,
        problem=problem,
        model=model,
        drawn=draw_point(theta, fit.amplitude, model),
        weights=poisson_weights(fit.model),
    )


def draw_point(theta: Tensor, amplitude: Tensor, model: SpectrumModel) -> Drawn:
    """Draw a model with what its usual errors follow from.

    Args:
        theta: (parameter,), followed by the parameters of the line ratios where the model has them.
        amplitude: (component,) counts.
        model: lines and channels.
    """
    lines = place_lines(theta, model)
    # M lines have no tail in some models, whatever the detector does.
    share = theta[INDEX["f_tail_offset"]]
    tail_sd = lines.tail * TAIL_SD + TAIL_SHARE_SD + torch.where(lines.tail > 0, 0.0, share)
    errors = LineErrors(absorption_sd=_absorption_sd(_absorbed_kev(lines, model)), tail_sd=tail_sd)
    return draw(theta, amplitude, model, lines=lines, groups=_group_lines(lines, model), errors=errors)


def mismatch_columns(point: FitPoint, efficiency: Detector) -> Tensor:
    """Usual errors of this model, each column one standard deviation high, in units of the noise.

    Args:
        point: the fit.
        efficiency: the detector.

    Returns:
        (channel, column): counts times the square root of the weight.
    """
    return find_flaws(point.at, efficiency).columns


def find_flaws(point: ModelPoint, efficiency: Detector) -> Flaws:
    """Usual errors of a fitted model by place and size.

    Errors of the ratios within a family leave its counts as they are: they say where its counts lie, not how many.

    Args:
        point: the fitted model.
        efficiency: the detector.
    """
    parts = [
        *_line_flaws(point),
        (_find_escapes(point, efficiency), _count_components(point)),
        (_vary_fixed_parameters(point), _count_components(point)[:1] * 0 - 1),
        *_smooth_flaws(point, efficiency.material),
    ]
    root = point.weights.sqrt()
    rows, owner = [], []
    for shape, owners in parts:
        whitened = shape * root
        kept = whitened.norm(dim=1) > _NOTICEABLE
        rows.append(whitened[kept])
        owner.append(owners.expand(shape.shape[0])[kept])
    return Flaws(columns=torch.cat(rows).T, owner=torch.cat(owner))


def relative_columns(point: FitPoint) -> Tensor:
    """The whole model times hats one FWHM apart: errors of 100 % that change from peak to peak.

    Returns:
        (channel, column).
    """
    return (_hats(point.at, 1.0) * point.fit.model).T


def _line_flaws(point: ModelPoint) -> list[tuple[Tensor, Tensor]]:
    """Ratios, absorption, position, width and tail of every group of lines (flaw, channel), and each one's component.

    Errors of ratios are at a fixed sum of the family: the same relative error of all its lines is none.
    """
    d = point.drawn
    groups, lines, owner, family = d.groups, d.lines, d.groups.owner, _count_components(point)
    share = lines.weight / lines.weight.new_zeros(family.shape).index_add(0, lines.column, lines.weight).clamp(
        min=1e-300
    ).index_select(0, lines.column)
    of_group = share.new_zeros(owner.shape).index_add(0, groups.group, share)
    of_family = share.new_zeros(family.shape).index_add(0, lines.column, share * d.errors.absorption_sd)
    ratio_sd = torch.where(groups.escapes, ESCAPE_SD, max(RATIO_SD, point.kbeta_sd))[:, None]
    whole, absorbed = d.families[:, 0], d.families[:, 1]
    shapes = [
        (ratio_sd * (d.sums[:, at.WHOLE] - of_group[:, None] * whole[owner]), owner),
        (absorbed - of_family[:, None] * whole, family),
        (POSITION_SD_KEV * d.sums[:, at.SHIFTED], owner),
        (WIDTH_SD * d.sums[:, at.WIDENED_BY], owner),
        (d.sums[:, at.TAILED], owner),
    ]
    return [(shape * d.bin_kev, owners) for shape, owners in shapes]


def _absorbed_kev(lines: PlacedLines, model: SpectrumModel) -> Tensor:
    """(line,) energy at which each line comes to the detector: an escape line is absorbed as its parent."""
    parent = find_parents(model.table)
    line_kev = lines.line_kev.clone()
    line_kev[: parent.shape[0]] = line_kev[parent]
    return line_kev


def _group_lines(lines: PlacedLines, model: SpectrumModel) -> LineGroups:
    """A group is the lines of one component and one subshell, K-beta and escape lines apart."""
    table = model.table
    escapes = table.escape_parent >= 0
    marks = (table.component, table.edge_kev, table.is_kbeta, escapes)
    key = torch.stack([mark.to(torch.float64) for mark in marks], dim=1)
    unique, group = torch.unique(key, dim=0, return_inverse=True)
    # The elastic lines of a column are one group.
    first, n_elastic = len(table.component_names), len(model.scatter_names) - 1
    column = lines.column[table.component.shape[0] :]
    elastic = torch.arange(first, first + n_elastic, device=group.device)
    return LineGroups(
        group=torch.cat([group, unique.shape[0] + column - first]),
        owner=torch.cat([unique[:, 0].long(), elastic]),
        escapes=torch.cat([unique[:, 3] > 0, elastic < 0]),
    )


def _count_components(point: ModelPoint) -> Tensor:
    """(component,) 0, 1, 2 ..."""
    return torch.arange(point.amplitude.shape[0], device=point.amplitude.device)


def _absorption_sd(energy_kev: Tensor) -> Tensor:
    relative: Tensor = (_ABSORPTION_KEV / energy_kev.clamp(min=0.5)) ** 3
    return relative * ABSORPTION_SD


def _find_escapes(point: ModelPoint, detector: Detector) -> Tensor:
    """Escape peaks (component, channel) of those for which the line table has none: faint lines and scatter."""
    table = point.model.table
    listed = torch.zeros_like(point.amplitude, dtype=torch.bool)
    listed[table.component[table.escape_parent >= 0]] = True
    energy = point.energy_kev
    (photon_kev, _), *_ = escape_photons(detector)
    grid = torch.linspace(float(energy[0].clamp(min=LOWEST_KEV)), float(energy[-1]), _ESCAPE_GRID)
    share = torch.from_numpy(escape_probability(grid.numpy(), detector).sum(axis=0)).to(energy.device)
    grid = grid.to(energy.device)
    moved = torch.searchsorted(energy, energy + photon_kev).clamp(max=energy.shape[0] - 1)
    inside = energy + photon_kev <= energy[-1]
    nearest = torch.searchsorted(grid, energy[moved].float()).clamp(max=_ESCAPE_GRID - 1)
    lost = point.component_counts[:, moved] * (share[nearest] * inside * FAINT_ESCAPE_SD)
    return torch.where(listed[:, None], 0.0, lost)


def _vary_fixed_parameters(point: ModelPoint) -> Tensor:
    """Parameters that were not fitted (parameter, channel), each off by the width of its prior."""
    fixed = ~point.free
    return (point.drawn.jacobian[:, : fixed.shape[0]][:, fixed] * point.prior_sd[fixed]).T


def _smooth_flaws(point: ModelPoint, material: str) -> list[tuple[Tensor, Tensor]]:
    """Compton profile, continuum, and the step of the dead layer in it (flaw, channel), and the component of each."""
    edge_kev = xraylib.EdgeEnergy(xraylib.SymbolToAtomicNumber(material), xraylib.K_SHELL)
    sigma = point.fwhm_kev / FWHM_PER_SIGMA
    continuum = point.background * (CONTINUUM_SD + _absorption_sd(point.energy_kev))
    above = torch.special.ndtr((point.energy_kev - edge_kev) / sigma)
    compton = _count_components(point)[-1:]
    nobody = compton * 0 - 1
    return [
        (_hats(point, 1.0) * (point.component_counts[-1] * COMPTON_SD), compton),
        (_hats(point, 2.0) * continuum, nobody),
        ((above * point.background * EDGE_SD)[None], nobody),
    ]


def _hats(point: ModelPoint, spacing: float) -> Tensor:
    """Piecewise-linear hats (knot, channel), knots `spacing` FWHM apart, that add up to 1."""
    energy, knots = point.energy_kev, _knots(point, spacing)
    step = knots.diff()
    left, right = torch.cat([step[:1], step]), torch.cat([step, step[-1:]])
    distance = energy - knots[:, None]
    return torch.where(distance < 0, 1.0 + distance / left[:, None], 1.0 - distance / right[:, None]).clamp(min=0.0)


def _knots(point: ModelPoint, spacing: float) -> Tensor:
    energy, fwhm = point.energy_kev, point.fwhm_kev
    per_channel = point.drawn.bin_kev / (spacing * fwhm)
    position = per_channel.cumsum(dim=0)
    wanted: Sequence[int] = range(int(float(position[-1])) + 1)
    at = torch.searchsorted(position, position.new_tensor([float(w) for w in wanted]))
    knots: Tensor = torch.cat([energy[at.clamp(max=energy.shape[0] - 1)], energy[-1:]]).unique()
    return knots
