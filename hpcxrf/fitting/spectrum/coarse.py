"""A few steps on coarse channels, with the parameters that place peaks alone: cheap, and far-reaching.

A start whose axis is off by half a peak costs dozens of full steps, of which the first halves do nothing but move the
axis. On bins of a quarter of a peak, without the tails' parameters, they cost a tenth.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from hpcxrf.fitting.spectrum.least_squares import LeastSquares, Space, State, build_space
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.fitting.spectrum.separable import minimise, start, take_starts
from hpcxrf.physics.background import hat_basis
from hpcxrf.physics.condense import condense
from hpcxrf.physics.model import SpectrumModel, energy_kev
from hpcxrf.physics.parameters import INDEX, pack

# A peak of 150 eV then has nearly four bins.
COARSE_BIN_KEV: Final = 0.04
_LARGEST_BIN: Final = 8
COARSE_FREE: Final = ("energy_offset", "energy_slope", "coherent_sct_energy", "fwhm_offset", "compton_angle")
_HATS: Final = 24
_STEPS: Final = 12
# Strong lines without tails, those within half a peak merged.
_COARSE_LINES: Final = {"widening_kev2": 1e-4, "within_kev": 0.06, "minimum_ratio": 0.02, "tailed_ratio": 2.0}
_TOLERANCE: Final = 1e-3


def rebin(counts: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Sums of `size` channels, and the channel number at the middle of each bin."""
    n = counts.shape[0] // size
    y = counts[: n * size].reshape(n, size).sum(dim=1)
    bins = torch.arange(n, dtype=torch.float64, device=counts.device)
    return y, bins * size + (size - 1) / 2.0


def contrast_weights(y: Tensor) -> Tensor:
    """`1 / (smoothed y + 1 + 1e-3 max)`: small peaks count, noise does not."""
    smooth = torch.nn.functional.avg_pool1d(y[None, None], 5, stride=1, padding=2, count_include_pad=False)[0, 0]
    return 1.0 / (smooth + 1.0 + 1e-3 * y.max())


def choose_bin(slope_kev: float) -> int:
    """Channels of a coarse bin: 40 eV, 8 channels at most."""
    return min(max(round(COARSE_BIN_KEV / slope_kev), 1), _LARGEST_BIN)


def start_coarse(
    full: Tensor,
    offset_kev: Tensor,
    slope_kev: Tensor,
    problem: FitProblem,
    size: int,
    start_values: Mapping[str, Tensor] | None = None,
) -> tuple[State, LeastSquares]:
    """Starts on bins of a few channels; a start's weights are 0 outside of the energy range on its own axis.

    Args:
        full: (channel,) float64, the full spectrum.
        offset_kev: (start,).
        slope_kev: (start,).
        problem: everything else of the starting values.
        size: channels of a bin.
        start_values: (start,) of other parameters by name, where they are free; the others are the problem's.
    """
    y, _ = rebin(full, size)
    channel = torch.arange(y.shape[0], dtype=torch.float64, device=full.device)
    theta = pack(problem.parameters).to(full.device).repeat(slope_kev.shape[0], 1)
    theta[:, 0] = offset_kev + slope_kev * (size - 1) / 2.0
    theta[:, 1] = slope_kev * size
    theta[:, 2] = theta[:, 2] * size**2
    for name, values in (start_values or {}).items():
        p = problem.parameters[INDEX[name]]
        if p.free:
            theta[:, INDEX[name]] = values.clamp(p.lower, p.upper)
    model = SpectrumModel(
        table=condense(problem.table, **_COARSE_LINES),
        channel=channel,
        constants=problem.constants,
        elastic=problem.elastic,
        copies=problem.copies,
        with_step=False,
        tailed=torch.zeros(0, dtype=torch.int64, device=full.device),
        shape_dtype=torch.float32,
    )
    energy = energy_kev(theta, channel)
    inside = (energy >= problem.energy_min_kev) & (energy <= problem.energy_max_kev)
    least_squares = LeastSquares(
        counts=y.expand(theta.shape[0], -1),
        weights=contrast_weights(y) * inside.double(),
        model=model,
        hats=hat_basis(channel, torch.linspace(0.0, y.shape[0] - 1.0, _HATS).to(channel)),
        space=_build_coarse_space(problem, size, full.device),
    )
    return start(theta, least_squares), least_squares


def find_coarse_theta(full: Tensor, problem: FitProblem) -> Tensor:
    """Starting values (parameter,) for the full fit, the peaks brought into place.

    Args:
        full: (channel,) float64, the full spectrum.
        problem: starting values; what is fixed stays.
    """
    theta = pack(problem.parameters).to(full.device)
    size = choose_bin(float(theta[1]))
    state, least_squares = start_coarse(full, theta[None, 0], theta[None, 1], problem, size)
    state = minimise(state, least_squares, iterations=_STEPS, tolerance=_TOLERANCE)
    return rescale_theta(state.theta[0], problem, size)


def rescale_theta(theta: Tensor, problem: FitProblem, size: int) -> Tensor:
    """Theta (*batch, parameter) of bins of `size` channels in single ones; what is fixed is as it was set."""
    single = theta.clone()
    single[..., 2] = theta[..., 2] / size**2
    single[..., 1] = theta[..., 1] / size
    single[..., 0] = theta[..., 0] - single[..., 1] * (size - 1) / 2.0
    space = build_space(problem.parameters, theta.device)
    return torch.where(space.free, single, space.centre)


def select(state: State, least_squares: LeastSquares, which: Tensor) -> tuple[State, LeastSquares]:
    """The chosen starts, in that order."""
    return take_starts(state, which), replace(
        least_squares, counts=least_squares.counts[which], weights=least_squares.weights[which]
    )


def take_member(least_squares: LeastSquares, index: int) -> LeastSquares:
    """Least squares of one start, without batch."""
    return replace(least_squares, counts=least_squares.counts[index], weights=least_squares.weights[index])


def _build_coarse_space(problem: FitProblem, size: int, device: torch.device) -> Space:
    """The parameters that place peaks, in coarse channels; the axis without a prior."""
    space = build_space(problem.parameters, device)
    factor = torch.ones_like(space.scale)
    factor[1], factor[2] = size, size**2
    free = torch.zeros_like(space.free)
    for name in COARSE_FREE:
        free[INDEX[name]] = space.free[INDEX[name]]
    wide = space.prior_sd.clone()
    wide[:2] = 1e3
    return Space(
        centre=space.centre * factor,
        prior_sd=wide * factor,
        scale=space.scale * factor,
        lower=space.lower * factor,
        upper=space.upper * factor,
        free=free,
        free_names=space.free_names & frozenset(COARSE_FREE),
    )
