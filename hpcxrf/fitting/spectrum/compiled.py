"""Steps of the variable projection on a processor by compiled kernels: the same numbers as of the tensor operations.

The kernels draw each peak over the channels where it is not nothing, in double precision whatever the model asks for.
What they do not know, the line shapes of MAPS, stays with the tensors, and so does every other device. That depends on
the problem alone: the first fit on a machine waits for the kernels, so that none gets other digits than the next. The
members of a batch are searched one by one.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from types import ModuleType
from typing import Final

import numpy as np
import torch
from torch import Tensor

from hpcxrf.fitting.kernels import spectrum_layout as at
from hpcxrf.fitting.kernels.spectrum_layout import (
    MAX_DAMPING,
    MIN_DAMPING,
    MOST_EXCHANGES,
    NOTHING,
    SMALL_STEPS,
    START_DAMPING,
    WEAK_DAMPING,
)
from hpcxrf.fitting.nnls import nnls_gram
from hpcxrf.fitting.spectrum.least_squares import LeastSquares, State
from hpcxrf.fitting.spectrum.pack import Floats, Indices, PackedModel, find_spans, list_rows, pack_model, pack_space

_SHAPES: Final = 3
_WAYS: Final = 8


def can_be_compiled(theta: Tensor, least_squares: LeastSquares) -> bool:
    """Whether the kernels know the model: on a processor always but with the line shapes of MAPS, if there is a member.

    Args:
        theta: (*batch, parameter).
        least_squares: counts and weights of the same batch, or of none.
    """
    return (
        theta.device.type == "cpu"
        and theta.dtype == torch.float64
        and theta.dim() <= 2
        and theta.numel() > 0
        and not theta.requires_grad
        and least_squares.space.centre.dim() == 1
        and not least_squares.model.constants.maps_line_shape
    )


@functools.cache
def load_spectrum_kernels() -> ModuleType:
    """The kernels; the first call on a machine compiles them."""
    # It loads numba, which a fit on a GPU has no need of.
    from hpcxrf.fitting.kernels.machine_code import load_kernels

    return load_kernels("spectrum")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Point:
    """Where the search of one member stands, as `State` has it."""

    theta: Floats
    linear: Floats
    positive: Indices
    """(column,) 1 or 0."""
    residual: Floats
    misfit: float
    hessian: Floats
    gradient: Floats
    damping: float = START_DAMPING
    small: int = 0
    iterations: int = 0
    done: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A model, its bounds, and arrays that the kernels write, for one theta at a time."""

    model: PackedModel
    space: Floats
    wanted: Indices
    sums: Floats
    ratio: Floats
    slopes: Floats
    terms: Floats
    data: Floats
    shapes: Floats
    columns: Floats
    spans: Indices
    weighted: Floats
    gram: Floats
    """(1, column, column)."""
    rhs: Floats
    linear: Floats
    """(1, column) coefficients, and so the next."""
    free: Indices
    found: Indices
    square: Floats
    vectors: Floats
    numbers: Indices
    ways: Floats
    factors: Floats
    rows: Floats
    row_spans: Indices
    cross: Floats
    small: Floats
    work: Floats
    step: Floats
    step_numbers: Indices


def start_compiled(theta: Tensor, least_squares: LeastSquares) -> State:
    """Solve the amplitudes at theta (*batch, parameter), which is inside the bounds, and prepare the first step."""
    search = open_search(least_squares)
    n, points = len(search.columns), []
    for one, counts, weights in _list_members(theta, least_squares):
        search.data[at.COUNTS], search.data[at.WEIGHTS] = counts, weights
        at_first = _evaluate(one, np.ones(n, np.uint64), search)
        point = _derive(one, at_first, search)
        points.append(replace(point, done=not math.isfinite(point.misfit)))
    return _join(points, theta)


def minimise_compiled(state: State, least_squares: LeastSquares, *, iterations: int, tolerance: float) -> State:
    """Run damped steps on every member that is not done (`hpcxrf.fitting.spectrum.separable.minimise`)."""
    search = open_search(least_squares)
    points = []
    for point, (_, counts, weights) in zip(_split(state), _list_members(state.theta, least_squares), strict=True):
        search.data[at.COUNTS], search.data[at.WEIGHTS] = counts, weights
        left = iterations
        while left > 0 and not point.done:
            point = _step(point, search, tolerance)  # noqa: PLW2901
            left -= 1
        points.append(point)
    return _join(points, state.theta)


def find_misfits_compiled(theta: Tensor, least_squares: LeastSquares) -> Tensor:
    """Least weighted sum of squares (trial,) at each theta (trial, parameter)."""
    search = open_search(least_squares)
    begin, found = np.ones(len(search.columns), np.uint64), []
    for one, counts, weights in _list_members(theta, least_squares):
        search.data[at.COUNTS], search.data[at.WEIGHTS] = counts, weights
        found.append(_evaluate(one, begin, search))
    return torch.tensor(found, dtype=torch.float64)


def derive_ratios_compiled(theta: Tensor, linear: Tensor, least_squares: LeastSquares) -> Tensor:
    """Derivative (channel, parameter) of the counts by the parameters of the line ratios, amplitudes held.

    Args:
        theta: (parameter,).
        linear: (component + hat,) coefficients.
        least_squares: whose line ratios are all free.
    """
    s, one = open_search(least_squares), np.array(theta.numpy())
    draw_search(one, s)
    derive_rows(one, linear.numpy(), s)
    of_ratios = s.wanted >= at.N_THETA
    return torch.from_numpy((s.rows[of_ratios] * s.data[at.BIN_KEV]).T)


def open_search(least_squares: LeastSquares) -> Search:
    """Pack a model, and allocate what the kernels write.

    Args:
        least_squares: one that `can_be_compiled`.
    """
    hats, space = np.ascontiguousarray(least_squares.hats.T.numpy()), pack_space(least_squares.space)
    model = pack_model(least_squares.model, least_squares.space, len(hats))
    wanted = list_rows(least_squares.space)
    n_lines, n_q = model.linear.shape
    n_channels, n_components = int(model.sizes[at.N_CHANNELS]), int(model.sizes[at.N_COMPONENTS])
    n_profiles, n, k, n_p = len(model.profiles), n_components + len(hats), len(wanted), space.shape[1]
    data, columns, spans = np.empty((at.DATA, n_channels)), np.empty((n, n_channels)), np.empty((n, 2), np.uint64)
    data[at.CHANNEL] = least_squares.model.channel.numpy()
    columns[n_components:] = hats
    spans[n_components:] = find_spans(hats)
    return Search(
        model=model,
        space=space,
        wanted=wanted,
        sums=np.empty((n_components, 2 + n_q)),
        ratio=np.empty(n_lines),
        slopes=np.empty((n_lines, n_q)),
        terms=np.empty((n_profiles, at.TERMS)),
        data=data,
        shapes=np.empty(_SHAPES * n_profiles * n_channels),
        columns=columns,
        spans=spans,
        weighted=np.empty((n, n_channels)),
        gram=np.empty((1, n, n)),
        rhs=np.empty((1, n)),
        linear=np.empty((1, n)),
        free=np.empty((1, n), np.uint64),
        found=np.empty(1, np.uint64),
        square=np.empty((2, n, n)),
        vectors=np.empty((2, n)),
        numbers=np.empty((3, n), np.uint64),
        ways=np.empty((_WAYS, 6)),
        factors=np.empty((at.N_THETA, _WAYS - 1)),
        rows=np.empty((k, n_channels)),
        row_spans=np.empty((k, 2), np.uint64),
        cross=np.empty((k, n)),
        small=np.empty((k, k)),
        work=np.empty((3, n_p, n_p)),
        step=np.empty((5, n_p)),
        step_numbers=np.empty((2, n_p), np.uint64),
    )


def draw_search(theta: Floats, s: Search) -> None:
    """Draw the columns of the model at theta.

    Args:
        theta: (parameter,).
        s: where they are written.
    """
    kernels, m = load_spectrum_kernels(), s.model
    kernels.place_lines(theta, m.sizes, m.constants, m.lines, m.index, m.linear, s.sums, s.ratio, s.slopes, s.terms)
    kernels.draw_columns(
        theta, m.sizes, m.constants, s.terms, m.profiles, m.index, s.data, s.shapes, s.columns, s.spans
    )


def _evaluate(theta: Floats, begin: Indices, s: Search) -> float:
    """Columns, amplitudes and residual at theta; the misfit, NaN where there is none.

    Args:
        theta: (parameter,).
        begin: (column,) 1 for columns that are free at first.
        s: where all is written.
    """
    draw_search(theta, s)
    kernels, sizes = load_spectrum_kernels(), s.model.sizes
    s.free[0] = begin
    kernels.multiply_columns(sizes, s.data, s.columns, s.spans, s.weighted, s.gram[0], s.rhs[0])
    kernels.solve_members(s.gram, s.rhs, MOST_EXCHANGES, s.free, s.square, s.vectors, s.numbers, s.linear, s.found)
    misfit = kernels.leave_residual(sizes, s.data, s.columns, s.spans, s.linear[0])
    if not np.isfinite(theta).all():
        return math.nan
    return float(misfit) if s.found[0] else _solve_stuck(begin, s)


def _solve_stuck(begin: Indices, s: Search) -> float:
    """Where pivoting goes in a circle: by the tensors, which then take another way."""
    gram, rhs = torch.from_numpy(s.gram[0]), torch.from_numpy(s.rhs[0])
    found = nnls_gram(gram, rhs, torch.from_numpy(begin.astype(np.bool_)))
    s.linear[0], s.free[0] = found.x.numpy(), found.positive.numpy()
    misfit = load_spectrum_kernels().leave_residual(s.model.sizes, s.data, s.columns, s.spans, s.linear[0])
    return float(misfit)


def _derive(theta: Floats, misfit: float, s: Search) -> _Point:
    """The point that was evaluated last, with the normal equations there."""
    hessian, gradient = np.empty((len(theta), len(theta))), np.empty(len(theta))
    derive_rows(theta, s.linear[0], s)
    load_spectrum_kernels().build_equations(
        s.model.sizes,
        s.data,
        s.space,
        s.wanted,
        s.rows,
        s.row_spans,
        s.weighted,
        s.spans,
        s.gram[0],
        s.square,
        s.free,
        s.numbers,
        s.cross,
        s.small,
        hessian,
        gradient,
    )
    return _Point(
        theta=theta,
        linear=s.linear[0].copy(),
        positive=s.free[0].copy(),
        residual=s.data[at.RESIDUAL].copy(),
        misfit=misfit,
        hessian=hessian,
        gradient=gradient,
    )


def derive_rows(theta: Floats, linear: Floats, s: Search) -> None:
    """Derive what was drawn last, per unit of density.

    Args:
        theta: (parameter,).
        linear: (component + hat,) coefficients.
        s: where the derivatives are written.
    """
    m = s.model
    load_spectrum_kernels().derive(
        theta,
        m.sizes,
        m.constants,
        m.lines,
        m.index,
        s.slopes,
        s.terms,
        m.profiles,
        s.shapes,
        s.data,
        linear,
        s.wanted,
        s.ways,
        s.factors,
        s.rows,
        s.row_spans,
    )


def _weigh_prior(theta: Floats, space: Floats) -> float:
    pull = (theta - space[at.CENTRE_OF_PRIOR]) / space[at.PRIOR_SD]
    return float(pull @ (space[at.FREE] * pull))


def _step(now: _Point, s: Search, tolerance: float) -> _Point:
    """One damped step, as `hpcxrf.fitting.spectrum.separable` takes it."""
    trial, per_channel = np.empty_like(now.theta), now.misfit / s.data.shape[1]
    promised = load_spectrum_kernels().take_step(
        now.theta, s.space, per_channel, now.damping, now.hessian, now.gradient, s.work, s.step, s.step_numbers, trial
    )
    before = now.misfit + per_channel * _weigh_prior(now.theta, s.space)
    flat = 0.0 <= promised <= tolerance * before and now.damping <= WEAK_DAMPING
    if flat and promised <= NOTHING * tolerance * before:
        return replace(now, done=True)
    misfit = _evaluate(trial, now.positive, s)
    gained = before - misfit - per_channel * _weigh_prior(trial, s.space)
    damping = _adapt_damping(now.damping, gained, promised)
    point, small, better = now, now.small, gained > 0.0
    if better:
        point, small = _derive(trial, misfit, s), now.small + 1 if gained <= tolerance * before else 0
    return replace(
        point,
        damping=damping,
        small=small,
        iterations=now.iterations + 1,
        # A rejected step that promised little says the same as two small ones: this is the optimum.
        done=small >= SMALL_STEPS or (flat and not better) or damping > MAX_DAMPING,
    )


def _adapt_damping(damping: float, gained: float, promised: float) -> float:
    kept = gained / max(promised, 1e-300)
    factor = 0.2 if kept > 0.75 else 1.0 if kept > 0.4 else 4.0
    return max(damping * factor, MIN_DAMPING)


def _list_members(theta: Tensor, least_squares: LeastSquares) -> Iterator[tuple[Floats, Floats, Floats]]:
    """Theta, counts and weights of each member."""
    batch = theta.shape[:-1]
    each = (theta, least_squares.counts, least_squares.weights)
    wide = [x.expand((*batch, x.shape[-1])).reshape(-1, x.shape[-1]).numpy() for x in each]
    for one, counts, weights in zip(*wide, strict=True):
        yield np.array(one), counts, weights


def _split(state: State) -> Iterator[_Point]:
    """The members of a state."""
    batch = state.misfit.dim()
    values = {f.name: getattr(state, f.name) for f in fields(State)}
    flat = {name: (x if batch else x[None]).numpy() for name, x in values.items()}
    for i in range(len(flat["misfit"])):
        yield _Point(
            theta=flat["theta"][i],
            linear=flat["linear"][i],
            positive=flat["positive"][i].astype(np.uint64),
            residual=flat["residual"][i],
            misfit=float(flat["misfit"][i]),
            hessian=np.ascontiguousarray(flat["hessian"][i]),
            gradient=np.ascontiguousarray(flat["gradient"][i]),
            damping=float(flat["damping"][i]),
            small=int(flat["small"][i]),
            iterations=int(flat["iterations"][i]),
            done=bool(flat["done"][i]),
        )


def _join(points: Sequence[_Point], theta: Tensor) -> State:
    """State of the batch of theta (*batch, parameter)."""
    joined = {f.name: np.stack([getattr(one, f.name) for one in points]) for f in fields(State)}
    joined["positive"] = joined["positive"] > 0
    batch = theta.shape[:-1]
    return State(**{name: torch.from_numpy(x).reshape((*batch, *x.shape[1:])) for name, x in joined.items()})
