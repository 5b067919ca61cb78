"""The other published baseline: NLopt's subplex over log10 amplitudes and theta together, without derivatives.

Algorithm: Rowan 1990 (Functional stability analysis of numerical algorithms), as NLopt's LN_SBPLX; called as XRF-Maps
calls it, first step apart: bounds, xtol_rel 1e-10, 20 000 evaluations, objective SS_res / SS_tot.
"""

from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hpcxrf.errors import ConfigError
from hpcxrf.fitting.spectrum.gradient import LARGEST_LOG10, SMALLEST_LOG10, JointFit, guess_log10
from hpcxrf.fitting.spectrum.least_squares import LeastSquares
from hpcxrf.fitting.spectrum.separable import design
from hpcxrf.physics.model import bin_width_kev, energy_kev
from hpcxrf.physics.parameters import PARAMETER_NAMES
from hpcxrf.physics.scatter import compton_shape

EVALUATIONS: Final = 20_000
_XTOL_REL: Final = 1e-10
_FIRST_STEP_SCALES: Final = 5.0
_FIRST_STEP_LOG10: Final = 1.0
_TOO_LARGE: Final = 1e300

Vector = npt.NDArray[np.float64]


def fit_sbplx(
    theta: Tensor, least_squares: LeastSquares, *, evaluations: int = EVALUATIONS, log10_linear: Tensor | None = None
) -> JointFit:
    """Minimise SS_res / SS_tot by LN_SBPLX over log10 amplitudes and free theta together. Deterministic.

    Args:
        theta: (parameter,) float64 start.
        least_squares: one spectrum, on the CPU; its prior is not used.
        evaluations: largest number of evaluations of the model.
        log10_linear: (component + hat,) start of the amplitudes; None: from the counts, see `guess_log10`.

    Returns:
        The best point seen.

    Raises:
        ConfigError: the package nlopt is not installed.
    """
    require_nlopt()
    nlopt: Any = import_module("nlopt")
    space = least_squares.space
    begin = theta.clamp(space.lower, space.upper)
    logs = guess_log10(begin, least_squares) if log10_linear is None else log10_linear.to(begin)
    lower = _pack(space.lower, torch.full_like(logs, SMALLEST_LOG10), least_squares)
    upper = _pack(space.upper, torch.full_like(logs, LARGEST_LOG10), least_squares)
    first = _pack(begin, logs, least_squares).clip(lower, upper)
    objective = _Objective(first, begin, least_squares)
    search = nlopt.opt(nlopt.LN_SBPLX, lower.size)
    search.set_lower_bounds(lower)
    search.set_upper_bounds(upper)
    search.set_initial_step(_first_step(logs, least_squares))
    search.set_min_objective(lambda x, _: objective(x))
    search.set_xtol_rel(_XTOL_REL)
    search.set_maxeval(evaluations)
    try:
        search.optimize(first)
    except nlopt.RoundoffLimited:
        # No smaller step can be resolved: an end like that of the tolerance.
        return objective.best(converged=True)
    return objective.best(converged=search.last_optimize_result() != nlopt.MAXEVAL_REACHED)


def require_nlopt() -> None:
    """Refuse a fit whose package is not installed, before it starts.

    Raises:
        ConfigError: the package nlopt is not installed.
    """
    if find_spec("nlopt") is None:
        raise ConfigError("method sbplx needs the package nlopt, which is not installed: pip install hpcxrf[bench]")


def _pack(theta: Tensor, log10_linear: Tensor, least_squares: LeastSquares) -> Vector:
    """All searched numbers in one vector: free theta, then the amplitudes."""
    packed: Vector = torch.cat([theta[least_squares.space.free], log10_linear]).cpu().numpy()
    return packed


def _first_step(log10_linear: Tensor, least_squares: LeastSquares) -> Vector:
    """Five scales of theta and a decade of the amplitudes.

    XRF-Maps leaves it to NLopt's rule, a quarter of the distance between the bounds. From five random starts
    on a measured spectrum that ends at R2 0.09 to 0.998, median 0.42; from these steps, all end above 0.997.
    """
    decade = torch.full_like(log10_linear, _FIRST_STEP_LOG10)
    return _pack(_FIRST_STEP_SCALES * least_squares.space.scale, decade, least_squares)


class _Objective:
    """SS_res / SS_tot of a packed vector; keeps the best one evaluated."""

    def __init__(self, first: Vector, theta: Tensor, least_squares: LeastSquares) -> None:
        self._columns = _Columns(theta, least_squares)
        self._counts: Vector = least_squares.counts.numpy()
        self._weights: Vector = least_squares.weights.numpy()
        spread = self._counts - self._counts.mean()
        self._total = max(float(self._weights @ spread**2), 1e-300)
        self._least, self._evaluations = float("inf"), 0
        self._at = first

    def __call__(self, packed: Vector) -> float:
        self._evaluations += 1
        n_free = self._columns.n_free
        linear = np.power(10.0, packed[n_free:])
        residual = self._counts - self._columns.evaluate(packed[:n_free]) @ linear
        value = float((self._weights * residual) @ residual) / self._total
        if value < self._least:
            self._least, self._at = value, packed.copy()
        return value if value < _TOO_LARGE else _TOO_LARGE

    def best(self, *, converged: bool) -> JointFit:
        n_free = self._columns.n_free
        return JointFit(
            theta=self._columns.theta(self._at[:n_free]),
            linear=torch.from_numpy(np.power(10.0, self._at[n_free:])),
            loss=self._least * self._total / self._counts.size,
            evaluations=self._evaluations,
            converged=converged,
        )


class _Columns:
    """Columns at the free theta; computes what has changed since the last time.

    Most moves of subplex leave theta, or all of it but the Compton peak's own parameters, where it was.
    """

    def __init__(self, theta: Tensor, least_squares: LeastSquares) -> None:
        # Single precision, as in the other baseline: it moves the objective by some 1e-8.
        fast = replace(least_squares.model, shape_dtype=torch.float32)
        self._start, self._problem = theta, replace(least_squares, model=fast)
        free = least_squares.space.free.nonzero()[:, 0].tolist()
        names = [PARAMETER_NAMES[i] for i in free]
        self._of_lines = np.array([not name.startswith("compton_") for name in names], dtype=bool)
        self._last: Vector = np.full(len(free), np.nan)
        self._compton = len(least_squares.model.component_names) - 1
        width = self._compton + 1 + least_squares.hats.shape[1]
        self._values: Vector = np.empty((least_squares.counts.shape[0], width), order="F")

    @property
    def n_free(self) -> int:
        return self._last.size

    def theta(self, free: Vector) -> Tensor:
        """All of theta (parameter,)."""
        theta = self._start.clone()
        theta[self._problem.space.free] = torch.from_numpy(free.copy())
        return theta

    def evaluate(self, free: Vector) -> Vector:
        """(channel, component + hat)."""
        changed = free != self._last
        if changed[self._of_lines].any():
            self._values[:] = design(self.theta(free), self._problem)[1].numpy()
        elif changed.any():
            self._values[:, self._compton] = self._compton_column(self.theta(free)).numpy()
        self._last = free.copy()
        return self._values

    def _compton_column(self, theta: Tensor) -> Tensor:
        model = self._problem.model
        shape = compton_shape(theta, energy_kev(theta, model.channel), model.constants)
        return shape.density * bin_width_kev(theta, model.channel, model.constants)
