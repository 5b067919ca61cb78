"""A model drawn at one theta with all that its errors follow from: columns, derivatives, and sums over its lines."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hpcxrf.fitting.kernels import spectrum_layout as at
from hpcxrf.fitting.spectrum.compiled_drawing import can_draw, draw_columns, draw_compiled
from hpcxrf.physics.jacobian import counts_jacobian
from hpcxrf.physics.model import Evaluation, PlacedLines, SpectrumModel, evaluate
from hpcxrf.physics.shapes import low_energy_tail, maps_low_energy_tail


@dataclass(frozen=True, slots=True, kw_only=True)
class LineGroups:
    """Lines that are wrong together: those of one component and one subshell, K-beta and escape lines apart."""

    group: Tensor
    """(line,) int64, lines of the table and elastic ones."""
    owner: Tensor
    """(group,) int64: the component."""
    escapes: Tensor
    """(group,) bool: a group of escape lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineErrors:
    """Relative errors of each line, (line,)."""

    absorption_sd: Tensor
    """Of its share by the absorption before the detector."""
    tail_sd: Tensor
    """Of the share of its tail, in units of its Gaussian."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Columns, derivatives and sums at one theta; Compton peaks are in no sum."""

    lines: PlacedLines
    groups: LineGroups
    errors: LineErrors
    phi: Tensor
    """(channel, component)."""
    bin_kev: Tensor
    """(channel,)."""
    jacobian: Tensor
    """(channel, parameter), counts per unit of the parameter, of theta and of the line ratios."""
    sums: Tensor
    """(group, 4, channel) counts per keV: peaks with their tails, their derivative by a shift, per keV, and by a
    relative widening, and tails in the place of Gaussians times `tail_sd`."""
    families: Tensor
    """(component, 2, channel) counts per keV: peaks with their tails, and times `absorption_sd`."""


def draw_phi(theta: Tensor, model: SpectrumModel) -> Tensor:
    """Columns (channel, component) of a model, counts a channel of one count.

    Args:
        theta: (parameter,), followed by the parameters of the line ratios where the model has them.
        model: lines and channels.
    """
    return draw_columns(theta, model) if can_draw(theta, model) else evaluate(theta, model).phi


def draw(
    theta: Tensor,
    amplitude: Tensor,
    model: SpectrumModel,
    *,
    lines: PlacedLines,
    groups: LineGroups,
    errors: LineErrors,
) -> Drawn:
    """Draw a model.

    Args:
        theta: (parameter,), followed by the parameters of the line ratios where the model has them.
        amplitude: (component,) counts.
        model: lines and channels.
        lines: of the model at theta.
        groups: of these lines.
        errors: of these lines.
    """
    if can_draw(theta, model):
        phi, bin_kev, jacobian, sums, families = draw_compiled(
            theta,
            amplitude,
            model,
            group=groups.group,
            n_groups=groups.owner.shape[0],
            sds=torch.stack([errors.absorption_sd, errors.tail_sd], dim=1),
        )
    else:
        e = evaluate(theta, model)
        phi, bin_kev, jacobian = e.phi, e.bin_kev, counts_jacobian(theta, amplitude, e, model)
        sums, families = _sum_lines(e, amplitude, model, groups, errors)
    return Drawn(
        lines=lines,
        groups=groups,
        errors=errors,
        phi=phi,
        bin_kev=bin_kev,
        jacobian=jacobian,
        sums=sums,
        families=families,
    )


def _sum_lines(
    e: Evaluation, amplitude: Tensor, model: SpectrumModel, groups: LineGroups, errors: LineErrors
) -> tuple[Tensor, Tensor]:
    """The sums of `Drawn`; usual errors need no more digits than those of float32."""
    in_group = _mark(groups.group, groups.owner.shape[0])
    in_family = _mark(e.lines.column, amplitude.shape[0])
    height = amplitude[e.lines.column] * e.lines.weight * e.lines.norm / e.lines.sigma_kev
    u, gauss, low = (shape.to(torch.float32) for shape in (e.u, e.gauss, _complete_tails(e, model)))
    ug = u * gauss

    def add(shape: Tensor, factor: Tensor, member: Tensor) -> Tensor:
        return ((height * factor)[:, None] * member).to(shape.dtype).T @ shape.T

    one = torch.ones_like(height)
    sums = height.new_zeros((groups.owner.shape[0], at.SUMS, gauss.shape[0]))
    sums[:, at.WHOLE] = add(gauss, one, in_group) + add(low, e.lines.tail, in_group)
    sums[:, at.SHIFTED] = add(ug, 1.0 / e.lines.sigma_kev, in_group)
    sums[:, at.WIDENED_BY] = add(u * ug - gauss, one, in_group)
    sums[:, at.TAILED] = add(low - gauss, errors.tail_sd, in_group)
    families = height.new_zeros((amplitude.shape[0], 2, gauss.shape[0]))
    families[:, 0] = add(gauss, one, in_family) + add(low, e.lines.tail, in_family)
    absorption = errors.absorption_sd
    families[:, 1] = add(gauss, absorption, in_family) + add(low, absorption * e.lines.tail, in_family)
    return sums, families


def _mark(number: Tensor, n: int) -> Tensor:
    return (number[:, None] == torch.arange(n, device=number.device)).to(torch.float64)


def _complete_tails(e: Evaluation, model: SpectrumModel) -> Tensor:
    """Tails (channel, line) of all lines; an evaluation may have left out those of lines without one."""
    if e.tailed is None:
        return e.low
    shape = maps_low_energy_tail if model.constants.maps_line_shape else low_energy_tail
    rest = torch.ones_like(e.lines.column, dtype=torch.bool)
    rest[e.tailed] = False
    low = torch.empty_like(e.gauss)
    low[:, e.tailed] = e.low
    low[:, rest] = shape(e.u[:, rest], e.lines.gamma[rest].to(e.u.dtype))
    return low
