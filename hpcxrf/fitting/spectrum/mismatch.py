"""Usual errors of a fitted model, by place and size: columns of one standard deviation each.

A spectrum of 1e7 counts shows every flaw of its model: a K-beta ratio, a tail, an edge in the continuum. Whoever
looks for something new in its residual has to tell it from these. Each column is one way of being wrong, as high as
is usual; `V = W^-1 + N N'` is then the covariance of the residual (weights W, columns N).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
import xraylib
from torch import Tensor

from hpcxrf.fitting.objective import poisson_weights
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.physics.detector import LOWEST_KEV, Detector, escape_photons, escape_probability
from hpcxrf.physics.jacobian import counts_jacobian
from hpcxrf.physics.model import Evaluation, SpectrumModel, energy_kev, evaluate
from hpcxrf.physics.parameters import INDEX
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
_FWHM_PER_SIGMA: Final = 2.3548
_NOTICEABLE: Final = 0.3
"""Columns that nowhere amount to this many standard deviations of the counting noise are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitPoint:
    """A fit with the model evaluated at its theta."""

    fit: SpectrumFit
    problem: FitProblem
    model: SpectrumModel
    """Model of the fit, with the tails of all lines."""
    evaluation: Evaluation
    jacobian: Tensor
    """(channel, parameter), counts per unit of the parameter."""
    weights: Tensor
    """(channel,) Poisson weights of the fitted model."""

    @property
    def energy_kev(self) -> Tensor:
        """(channel,)."""
        return energy_kev(self.fit.theta, self.model.channel)

    @property
    def fwhm_kev(self) -> Tensor:
        """(channel,) width of a line at each channel."""
        positive = self.energy_kev.clamp(min=0.1)
        return _FWHM_PER_SIGMA * line_sigma_kev(self.fit.theta, positive, self.model.constants)


def evaluate_fit(fit: SpectrumFit, problem: FitProblem) -> FitPoint:
    """Evaluate a fit's model and its derivatives where the fit ended."""
    stop = fit.first_channel + fit.counts.shape[0]
    model = SpectrumModel(
        table=fit.table,
        channel=torch.arange(fit.first_channel, stop, dtype=torch.float64),
        constants=problem.constants,
        elastic=problem.elastic,
        shape_dtype=torch.float32,
    )
    evaluation = evaluate(fit.theta, model)
    return FitPoint(
        fit=fit,
        problem=problem,
        model=model,
        evaluation=evaluation,
        jacobian=counts_jacobian(fit.theta, fit.amplitude, evaluation, model),
        weights=poisson_weights(fit.model),
    )


def mismatch_columns(point: FitPoint, efficiency: Detector) -> Tensor:
    """Usual errors of this model, each column one standard deviation high, in units of the noise.

    Args:
        point: the fit.
        efficiency: the detector.

    Returns:
        (channel, column): counts times the square root of the weight.
    """
    shapes = torch.cat(
        [
            *_line_columns(point),
            *_escape_columns(point, efficiency),
            *_smooth_columns(point, efficiency.material),
            _prior_columns(point),
        ],
        dim=1,
    )
    whitened = shapes * point.weights.sqrt()[:, None]
    return whitened[:, whitened.norm(dim=0) > _NOTICEABLE]


def relative_columns(point: FitPoint) -> Tensor:
    """The whole model times hats one FWHM apart, whitened: errors of 100 % that change from peak to peak.

    Returns:
        (channel, column).
    """
    hats = _hats(point, 1.0)
    return hats * (point.fit.model * point.weights.sqrt())[:, None]


def _line_columns(point: FitPoint) -> list[Tensor]:
    """Ratios, escape, position, width and tail of every group of lines."""
    e, fit = point.evaluation, point.fit
    groups, escapes = _line_groups(point)
    height = fit.amplitude[e.column] * e.weight * e.norm / e.sigma_kev
    tail_share = fit.theta[INDEX["f_tail_offset"]]
    # M lines have no tail in the model, whatever the detector does.
    untailed = torch.where(e.tail > 0, 0.0, tail_share)
    tail_sd = e.tail * TAIL_SD + TAIL_SHARE_SD + untailed
    ug = e.u * e.gauss
    ratio = torch.where(escapes, ESCAPE_SD, max(RATIO_SD, point.problem.kbeta_sd))
    components = e.column[:, None] == torch.arange(fit.amplitude.shape[0])

    def add_lines(shape: Tensor, factor: Tensor, members: Tensor = groups) -> Tensor:
        return shape @ ((height * factor)[:, None] * members).to(shape.dtype)

    absorbed = _absorption_sd(e.line_kev)
    shapes = [
        add_lines(e.gauss, ratio) + add_lines(e.low, ratio * e.tail),
        add_lines(e.gauss, absorbed, components.to(torch.float64)),
        add_lines(ug, POSITION_SD_KEV / e.sigma_kev),
        add_lines(e.u * ug - e.gauss, torch.full_like(height, WIDTH_SD)),
        add_lines(e.low - e.gauss, tail_sd),
    ]
    return [shape.to(torch.float64) * e.bin_kev[:, None] for shape in shapes]


def _line_groups(point: FitPoint) -> tuple[Tensor, Tensor]:
    """Membership (line, group): lines of one component and one subshell, K-beta and escape lines apart."""
    table = point.model.table
    escapes = table.escape_parent >= 0
    marks = (table.component, table.edge_kev, table.is_kbeta, escapes)
    key = torch.stack([mark.to(torch.float64) for mark in marks], dim=1)
    _, group = torch.unique(key, dim=0, return_inverse=True)
    if point.model.elastic:
        group = torch.cat([group, group.max().reshape(1) + 1])
        escapes = torch.cat([escapes, escapes.new_zeros(1)])
    members = group[:, None] == torch.arange(int(group.max()) + 1)
    return members.to(torch.float64), escapes


def _absorption_sd(energy_kev: Tensor) -> Tensor:
    relative: Tensor = (_ABSORPTION_KEV / energy_kev.clamp(min=0.5)) ** 3
    return relative * ABSORPTION_SD


def _escape_columns(point: FitPoint, detector: Detector) -> list[Tensor]:
    """Escape peaks of every component, faint lines and scatter included, which the line table leaves out."""
    energy = point.energy_kev
    (photon_kev, _), *_ = escape_photons(detector)
    grid = torch.linspace(float(energy[0].clamp(min=LOWEST_KEV)), float(energy[-1]), _ESCAPE_GRID)
    share = torch.from_numpy(escape_probability(grid.numpy(), detector).sum(axis=0))
    moved = torch.searchsorted(energy, energy + photon_kev).clamp(max=energy.shape[0] - 1)
    inside = energy + photon_kev <= energy[-1]
    nearest = torch.searchsorted(grid, energy[moved].float()).clamp(max=_ESCAPE_GRID - 1)
    lost = point.fit.component_counts[:, moved] * (share[nearest] * inside * FAINT_ESCAPE_SD)
    return [lost.T]


def _prior_columns(point: FitPoint) -> Tensor:
    """Parameters that were not fitted, each off by the width of its prior."""
    prior = torch.tensor([p.prior_sd for p in point.problem.parameters], dtype=torch.float64)
    fixed = ~point.fit.free
    return point.jacobian[:, fixed] * prior[fixed]


def _smooth_columns(point: FitPoint, material: str) -> list[Tensor]:
    """Compton profile, continuum, and the step of the dead layer in the continuum."""
    fit = point.fit
    edge_kev = xraylib.EdgeEnergy(xraylib.SymbolToAtomicNumber(material), xraylib.K_SHELL)
    sigma = point.fwhm_kev / _FWHM_PER_SIGMA
    continuum = fit.background * (CONTINUUM_SD + _absorption_sd(point.energy_kev))
    above = torch.special.ndtr((point.energy_kev - edge_kev) / sigma)
    return [
        _hats(point, 1.0) * fit.component_counts[-1][:, None] * COMPTON_SD,
        _hats(point, 2.0) * continuum[:, None],
        (above * fit.background * EDGE_SD)[:, None],
    ]


def _hats(point: FitPoint, spacing: float) -> Tensor:
    """Piecewise-linear hats (channel, knot), knots `spacing` FWHM apart, that add up to 1."""
    energy, knots = point.energy_kev, _knots(point, spacing)
    step = knots.diff()
    left, right = torch.cat([step[:1], step]), torch.cat([step, step[-1:]])
    distance = energy[:, None] - knots
    return torch.where(distance < 0, 1.0 + distance / left, 1.0 - distance / right).clamp(min=0.0)


def _knots(point: FitPoint, spacing: float) -> Tensor:
    energy, fwhm = point.energy_kev, point.fwhm_kev
    per_channel = point.evaluation.bin_kev / (spacing * fwhm)
    position = per_channel.cumsum(dim=0)
    wanted: Sequence[int] = range(int(float(position[-1])) + 1)
    at = torch.searchsorted(position, torch.tensor([float(w) for w in wanted], dtype=torch.float64))
    knots: Tensor = torch.cat([energy[at.clamp(max=energy.shape[0] - 1)], energy[-1:]]).unique()
    return knots
