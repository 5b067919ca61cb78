"""A model drawn by the compiled kernels: columns, all derivatives, and sums over groups of lines, at one theta."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from hpcxrf.fitting.kernels import spectrum_layout as at
from hpcxrf.fitting.spectrum.compiled import (
    Search,
    can_be_compiled,
    derive_rows,
    draw_search,
    load_spectrum_kernels,
    open_search,
)
from hpcxrf.fitting.spectrum.least_squares import LeastSquares, Space
from hpcxrf.physics.model import SpectrumModel


def can_draw(theta: Tensor, model: SpectrumModel) -> bool:
    """Whether the kernels know the model.

    Args:
        theta: (parameter,).
        model: any.
    """
    return theta.dim() == 1 and can_be_compiled(theta, _pose(theta, model))


def draw_columns(theta: Tensor, model: SpectrumModel) -> Tensor:
    """Columns (channel, component) at theta; the model is one that `can_draw`."""
    s = open_search(_pose(theta, model))
    draw_search(np.array(theta.numpy()), s)
    return torch.from_numpy(s.columns).T


def draw_compiled(
    theta: Tensor, amplitude: Tensor, model: SpectrumModel, *, group: Tensor, n_groups: int, sds: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Draw a model that `can_draw`.

    Args:
        theta: (parameter,), followed by the parameters of the line ratios where the model has them.
        amplitude: (component,) counts.
        model: its lines all get their tails.
        group: (line,) int64 of lines and elastic ones.
        n_groups: how many there are.
        sds: (line, 2) relative errors by absorption, and of the share of the tail.

    Returns:
        As `hpcxrf.fitting.spectrum.drawn.Drawn` has them: columns, widths of the channels, derivatives, sums by group,
        sums by component.
    """
    s = open_search(_pose(theta, replace(model, tailed=None)))
    one, linear = np.array(theta.numpy()), np.array(amplitude.numpy())
    draw_search(one, s)
    derive_rows(one, linear, s)
    n_channels = s.data.shape[1]
    sums, families = np.zeros((n_groups, at.SUMS, n_channels)), np.zeros((len(linear), 2, n_channels))
    load_spectrum_kernels().sum_lines(
        s.model.sizes,
        s.terms,
        s.model.profiles,
        s.model.index,
        s.shapes,
        s.data,
        linear,
        group.numpy().astype(np.uint64),
        np.ascontiguousarray(sds.numpy()),
        sums,
        families,
    )
    columns, bins = torch.from_numpy(s.columns), torch.from_numpy(s.data[at.BIN_KEV].copy())
    jacobian = _complete_axis(amplitude @ columns / bins, bins, model.channel, s)
    return columns.T, bins, jacobian.T, torch.from_numpy(sums), torch.from_numpy(families)


def _complete_axis(per_kev: Tensor, bins: Tensor, channel: Tensor, s: Search) -> Tensor:
    """Derivatives (parameter, channel) of counts: of the axis, the kernel gives that by a shift of all energies."""
    rows = torch.from_numpy(s.rows) * bins
    rows[at.SLOPE] = channel * rows[at.OFFSET] + per_kev
    rows[at.QUADRATIC] = channel * channel * rows[at.OFFSET] + 2.0 * channel * per_kev
    return rows


def _pose(theta: Tensor, model: SpectrumModel) -> LeastSquares:
    """A spectrum without counts, all of whose parameters are free, which the kernels take."""
    nothing, one = torch.zeros_like(model.channel), torch.ones_like(theta)
    space = Space(
        centre=theta,
        prior_sd=one,
        scale=one,
        lower=theta,
        upper=theta,
        free=torch.ones_like(theta, dtype=torch.bool),
        free_names=frozenset(),
    )
    return LeastSquares(counts=nothing, weights=nothing, model=model, hats=nothing[:, None][:, :0], space=space)
