"""Variable projection: Levenberg-Marquardt over theta alone, amplitudes solved inside, batched over starts.

For every theta the best non-negative amplitudes follow from normal equations, so that a dozen parameters are
searched instead of forty. Kaufman's form of the Jacobian is used: the derivative of the model at fixed
amplitudes, projected against the free columns (Golub and Pereyra 2003, Inverse Problems 19, R1).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

import torch
from torch import Tensor

from hpcxrf.fitting.kernels.spectrum_layout import (
    AT_BOUND,
    MAX_DAMPING,
    MIN_DAMPING,
    MOST_STEP,
    NOTHING,
    SMALL_STEPS,
    START_DAMPING,
    WEAK_DAMPING,
)
from hpcxrf.fitting.nnls import nnls_gram, solve_masked
from hpcxrf.fitting.spectrum.compiled import (
    can_be_compiled,
    derive_ratios_compiled,
    find_misfits_compiled,
    minimise_compiled,
    start_compiled,
)
from hpcxrf.fitting.spectrum.least_squares import LeastSquares, State
from hpcxrf.physics.jacobian import counts_jacobian, ratio_columns
from hpcxrf.physics.model import Evaluation, evaluate

HALVING: Final = ((5, 2), (4, 1))


def start(theta: Tensor, least_squares: LeastSquares) -> State:
    """Solve the amplitudes at theta (*batch, parameter) and prepare the first step."""
    inside = theta.clamp(least_squares.space.lower, least_squares.space.upper)
    if can_be_compiled(inside, least_squares):
        return start_compiled(inside, least_squares)
    inner = _solve_linear(inside, least_squares, None)
    hessian, gradient = _normal_equations(inside, inner, least_squares)
    none_yet = torch.zeros(inner.misfit.shape, dtype=torch.int64, device=inner.misfit.device)
    return State(
        theta=inside,
        linear=inner.linear,
        positive=inner.positive,
        residual=inner.residual,
        misfit=inner.misfit,
        hessian=hessian,
        gradient=gradient,
        damping=torch.full_like(inner.misfit, START_DAMPING),
        small=none_yet,
        iterations=none_yet,
        done=~torch.isfinite(inner.misfit),
    )


def find_misfits(theta: Tensor, least_squares: LeastSquares) -> Tensor:
    """Least weighted sum of squares (trial,) at each theta (trial, parameter), or nearly the least there is."""
    if can_be_compiled(theta, least_squares):
        return find_misfits_compiled(theta, least_squares)
    columns = design(theta, least_squares)[1]
    weighted = columns * least_squares.weights[..., :, None]
    solution = nnls_gram(columns.mT @ weighted, weighted.mT @ least_squares.counts, max_exchanges=6, exact=False)
    residual = least_squares.counts - (columns @ solution.x.nan_to_num()[..., :, None])[..., 0]
    return (least_squares.weights * residual * residual).sum(dim=-1)


def derive_ratios(theta: Tensor, linear: Tensor, least_squares: LeastSquares) -> Tensor:
    """Derivative (channel, parameter) of the counts by the parameters of the line ratios, amplitudes held.

    Args:
        theta: (parameter,) theta, followed by the parameters of the ratios, which are free.
        linear: (component + hat,) coefficients.
        least_squares: with a model of the ratios.
    """
    if can_be_compiled(theta, least_squares):
        return derive_ratios_compiled(theta, linear, least_squares)
    evaluation, model = evaluate(theta, least_squares.model), least_squares.model
    return ratio_columns(theta, linear[: len(model.component_names)], evaluation, model)


def predict(state: State, least_squares: LeastSquares) -> Tensor:
    """Counts (*batch, channel) of the model at a state, without the background that is in no column."""
    return least_squares.counts - state.residual


def minimise(state: State, least_squares: LeastSquares, *, iterations: int, tolerance: float = 1e-6) -> State:
    """Run at most that many damped Gauss-Newton steps on every start that is not done.

    A start is done when two successive accepted steps improve the objective by less than `tolerance`
    (relative), or when no step improves it any more.
    """
    if can_be_compiled(state.theta, least_squares):
        return minimise_compiled(state, least_squares, iterations=iterations, tolerance=tolerance)
    for _ in range(iterations):
        if bool(state.done.all()):
            break
        state = _step(state, least_squares, tolerance)
    return state


def best_of(starts: Tensor, least_squares: LeastSquares, *, rounds: Sequence[tuple[int, int]] = HALVING) -> State:
    """Successive halving: all starts take some steps, the better ones some more, until one is left.

    Args:
        starts: (start, parameter).
        least_squares: one spectrum, counts and weights (channel,).
        rounds: steps, and how many starts are kept after them; the last must keep 1.

    Returns:
        State of the best start, without batch.
    """
    state = start(starts, least_squares)
    for iterations, keep in rounds:
        if state.misfit.shape[0] > keep:
            state = minimise(state, least_squares, iterations=iterations)
            order = torch.argsort(objective(state, least_squares), stable=True)
            state = take_starts(state, order[:keep])
    return take_starts(state, torch.tensor(0))


def take_starts(state: State, index: Tensor) -> State:
    """The starts at these places, in that order."""
    return State(**{f.name: getattr(state, f.name)[index] for f in fields(State)})


def objective(state: State, least_squares: LeastSquares) -> Tensor:
    """(*batch,): misfit plus prior, as the steps compare it."""
    return state.misfit + state.misfit / least_squares.counts.shape[-1] * _prior(state.theta, least_squares)


def design(theta: Tensor, least_squares: LeastSquares) -> tuple[Evaluation, Tensor]:
    """Model evaluation and all columns (*batch, channel, component + hat)."""
    evaluation = evaluate(theta, least_squares.model)
    hats = least_squares.hats.expand(*evaluation.phi.shape[:-2], -1, -1)
    return evaluation, torch.cat([evaluation.phi, hats], dim=-1)


def _prior(theta: Tensor, least_squares: LeastSquares) -> Tensor:
    space = least_squares.space
    pull = (theta - space.centre) / space.prior_sd
    return torch.where(space.free, pull * pull, 0.0).sum(dim=-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inner:
    """The linear problem solved at one theta, with the products that the outer step reuses."""

    evaluation: Evaluation
    columns: Tensor
    gram: Tensor
    linear: Tensor
    positive: Tensor
    residual: Tensor
    misfit: Tensor


def _solve_linear(theta: Tensor, least_squares: LeastSquares, positive: Tensor | None) -> _Inner:
    evaluation, columns = design(theta, least_squares)
    weighted = columns * least_squares.weights[..., :, None]
    gram = columns.mT @ weighted
    solution = nnls_gram(gram, (weighted.mT @ least_squares.counts[..., :, None])[..., 0], positive)
    residual = least_squares.counts - (columns @ solution.x[..., :, None])[..., 0]
    misfit = (least_squares.weights * residual * residual).sum(dim=-1)
    return _Inner(
        evaluation=evaluation,
        columns=columns,
        gram=gram,
        linear=solution.x,
        positive=solution.positive,
        residual=residual,
        misfit=misfit,
    )


def _normal_equations(theta: Tensor, inner: _Inner, least_squares: LeastSquares) -> tuple[Tensor, Tensor]:
    amplitude = inner.linear[..., : inner.evaluation.phi.shape[-1]]
    jacobian = counts_jacobian(
        theta, amplitude, inner.evaluation, least_squares.model, names=least_squares.space.free_names
    )
    jacobian = torch.where(least_squares.space.free, jacobian * least_squares.space.scale, 0.0)
    weighted = jacobian * least_squares.weights[..., :, None]
    cross = inner.columns.mT @ weighted
    # The same relative ridge as the inner solve has.
    ridge = torch.diag_embed(1e-10 * inner.gram.diagonal(dim1=-2, dim2=-1))
    projected = solve_masked(inner.gram + ridge, cross, inner.positive)
    cross = torch.where(inner.positive[..., None], cross, 0.0)
    hessian = jacobian.mT @ weighted - cross.mT @ projected
    return hessian, (weighted.mT @ inner.residual[..., :, None])[..., 0]


def _step(state: State, least_squares: LeastSquares, tolerance: float) -> State:
    trial, promised = _solve_damped_step(state, least_squares)
    per_channel = state.misfit / least_squares.counts.shape[-1]
    before = state.misfit + per_channel * _prior(state.theta, least_squares)
    # Not so where strong damping has made the step short.
    flat = (promised <= tolerance * before) & (state.damping <= WEAK_DAMPING)
    nothing = flat & (promised >= 0) & (promised <= NOTHING * tolerance * before)
    state = replace(state, done=state.done | nothing)
    if bool(state.done.all()):
        return state
    inner = _solve_linear(trial, least_squares, state.positive)
    gained = before - inner.misfit - per_channel * _prior(trial, least_squares)
    better = (gained > 0) & ~state.done
    hessian, gradient = state.hessian, state.gradient
    if bool(better.any()):
        hessian, gradient = _normal_equations(trial, inner, least_squares)
    small = torch.where(better, torch.where(gained <= tolerance * before, state.small + 1, 0), state.small)
    damping = torch.where(state.done, state.damping, _adapt_damping(state, gained, promised))
    taken = State(
        theta=trial,
        linear=inner.linear,
        positive=inner.positive,
        residual=inner.residual,
        misfit=inner.misfit,
        hessian=hessian,
        gradient=gradient,
        damping=damping,
        small=small,
        iterations=state.iterations,
        done=state.done,
    )
    merged = _choose_members(better, taken, state)
    # A rejected step that promised little says the same as two small ones: this is the optimum.
    flat = flat & (promised >= 0) & ~better
    return State(
        **{f.name: getattr(merged, f.name) for f in fields(State)}
        | {
            "damping": damping,
            "small": small,
            "iterations": state.iterations + (~state.done).long(),
            "done": state.done | (small >= SMALL_STEPS) | flat | (damping > MAX_DAMPING),
        }
    )


def _adapt_damping(state: State, gained: Tensor, promised: Tensor) -> Tensor:
    """Adapt the damping to the share of the promised gain that came true.

    Along a curved valley full steps overshoot to and fro, each a little lower; that shows as half-kept promises,
    and a stronger damping ends it.
    """
    kept = gained / promised.clamp(min=1e-300)
    factor = torch.where(kept > 0.75, 0.2, torch.where(kept > 0.4, 1.0, 4.0))
    return (state.damping * factor).clamp(min=MIN_DAMPING)


def _solve_damped_step(state: State, least_squares: LeastSquares) -> tuple[Tensor, Tensor]:
    """Solve `(H + lambda diag H) d = g` over the parameters that are free to move.

    Returns:
        Theta after the step, inside its bounds, and the gain (*batch,) that the quadratic model promises there.
    """
    space = least_squares.space
    per_channel = (state.misfit / least_squares.counts.shape[-1])[..., None]
    precision = per_channel * torch.where(space.free, (space.scale / space.prior_sd) ** 2, 0.0)
    pull = precision * (space.centre - state.theta) / space.scale
    gradient = state.gradient + pull
    hessian = state.hessian + torch.diag_embed(precision)
    near = AT_BOUND * space.scale
    at_lower, at_upper = state.theta <= space.lower + near, state.theta >= space.upper - near
    blocked = (at_lower & (gradient < 0)) | (at_upper & (gradient > 0))
    diagonal = hessian.diagonal(dim1=-2, dim2=-1)
    moving = space.free & ~blocked & (diagonal > 0)
    damped = hessian + torch.diag_embed(state.damping[..., None] * diagonal)
    room_down = ((space.lower - state.theta) / space.scale).clamp(min=-MOST_STEP)
    room_up = ((space.upper - state.theta) / space.scale).clamp(max=MOST_STEP)
    wanted = torch.nan_to_num(solve_masked(damped, gradient, moving))
    held = moving & ((wanted < room_down) | (wanted > room_up))
    done = torch.where(held, wanted.clamp(room_down, room_up), 0.0)
    # What runs into a limit stops there, and the others take the best step that goes with it.
    rest = gradient - (damped @ done[..., None])[..., 0]
    wanted = torch.nan_to_num(solve_masked(damped, rest, moving & ~held))
    done = done + wanted.clamp(room_down, room_up)
    trial = (state.theta + done * space.scale).clamp(space.lower, space.upper)
    curvature = (done * (hessian @ done[..., None])[..., 0]).sum(dim=-1)
    return trial, 2.0 * (gradient * done).sum(dim=-1) - curvature


def _choose_members(choose: Tensor, yes: State, no: State) -> State:
    """Member by member, one state or the other."""

    def pick(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(choose.reshape(list(choose.shape) + [1] * (a.dim() - choose.dim())), a, b)

    return State(**{f.name: pick(getattr(yes, f.name), getattr(no, f.name)) for f in fields(State)})
