"""Other programs on the same spectrum: mapstorch 0.0.2 and PyMca, as arms of the benchmark.

Each works as its own users run it: its own line table, background and stopping rule. What they share with the other
arms is the spectrum, the components, the fit range and the starting theta. What they return is put into the words of
this project, and judged by it: R2 and deviance of background + model over the fit range, in linear counts.

Neither takes starting amplitudes: both guess them from the spectrum, which is kinder than the protocol's random ones.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from importlib.util import find_spec
from io import StringIO
from types import MappingProxyType
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor

from hpcxrf.errors import ConfigError
from hpcxrf.fitting.objective import poisson_deviance, r_squared, r_squared_expected
from hpcxrf.fitting.result import FitStatus
from hpcxrf.fitting.spectrum.problem import FitProblem, fit_range
from hpcxrf.runner.worker import one_thread
from hpcxrf.studies.peers.common import PeerResult, measure_since, read_clocks
from hpcxrf.studies.peers.mapstorch import fit_mapstorch
from hpcxrf.studies.peers.pymca import fit_pymca
from hpcxrf.studies.protocol import ProtocolFit, build_protocol_least_squares
from hpcxrf.studies.starts import JointStart, component_names

Peer = Literal["mapstorch", "pymca"]

_PACKAGES: Final[Mapping[str, str]] = MappingProxyType({"mapstorch": "mapstorch", "pymca": "PyMca5"})
# What the programs raise when their parameters have left the range in which they can compute.
_BREAKDOWN: Final = (ArithmeticError, LookupError, ValueError, RuntimeError, TypeError)

_log = logging.getLogger(__name__)


def require_peers(names: Sequence[str]) -> None:
    """Refuse a benchmark whose peers are not installed, before it starts.

    Args:
        names: methods of the benchmark; those that are not peers are passed over.

    Raises:
        ConfigError: every package that is missing, and the command that installs them.
    """
    missing = [
        f"{name} needs the package {_PACKAGES[name]}"
        for name in names
        if name in _PACKAGES and find_spec(_PACKAGES[name]) is None
    ]
    if missing:
        raise ConfigError(f"benchmark.methods: {'; '.join(missing)}; run pip install hpcxrf[bench], or leave them out")


def fit_peer(
    name: Peer, counts: Tensor, problem: FitProblem, start: JointStart, *, shared_background: bool = False
) -> ProtocolFit:
    """Fit an integrated spectrum with another program.

    `mapstorch` is `fit_spec` of 0.0.2: Adam, 500 steps, mean square, its learning rates and its list of free
    parameters, SNIP in every step, tails. Should they end in NaN, the fit is made once more without tails, and
    the seconds of both count. `cpu_s` is the whole call.

    `pymca` is `McaTheory`: Levenberg-Marquardt with weights 1 / counts, Gaussian peaks with escape, SNIP taken once,
    as in its default configuration. It fits offset, slope, noise and Fano factor; the energy axis is linear, and the
    incident energy is the nominal one, which it cannot fit. Pile-up is its own one-parameter kind, on where a
    pile-up component is listed. `cpu_s` is background, estimate and fit, without building its configuration
    and line table (0.03 to 0.1 s).

    Args:
        name: the program.
        counts: (channel,) raw counts of the full spectrum.
        problem: components, nominal incident energy, fit range (at the problem's own calibration, as for every
            method); a background other than `none` is SNIP here.
        start: theta to start from; its amplitudes are not used.
        shared_background: True: the program is given the counts less the background of all methods, and takes none
            of its own.

    Returns:
        The fit. NaN in theta is a parameter that the program does not have, in `theta_sigma` one without
        uncertainty (mapstorch gives none), in `amplitude` a component that it cannot model.
        A program that broke down gives NaN and status NONFINITE, and the log says how.

    Raises:
        ConfigError: the program is not installed.
        FitError: the fit range lies outside the spectrum.
    """
    require_peers([name])
    full = counts.to("cpu", torch.float64)
    limits = fit_range(problem.parameters, problem.energy_min_kev, problem.energy_max_kev, full.shape[0])
    inside = full[limits[0] : limits[1] + 1]
    if not bool(torch.isfinite(full).all()) or float(inside.sum()) <= 0.0:
        bad = FitStatus.EMPTY if bool(torch.isfinite(full).all()) else FitStatus.NONFINITE
        return _judge(_make_empty_result(inside, problem, bad), inside)
    fixed = torch.zeros_like(inside)
    if shared_background:
        fixed = build_protocol_least_squares(full, problem, start)[1]
        full, problem = full.clone(), replace(problem, background="none")
        full[limits[0] : limits[1] + 1] -= fixed
    run: Callable[..., PeerResult] = fit_mapstorch if name == "mapstorch" else fit_pymca
    printed, began = StringIO(), read_clocks()
    with one_thread(), redirect_stdout(printed), np.errstate(all="ignore"):
        try:
            result = run(full, limits, problem, start.theta)
        except _BREAKDOWN as error:
            _log.warning("%s broke down: %s: %s", name, type(error).__name__, error)
            cpu_s, wall_s = measure_since(began)
            result = replace(_make_empty_result(inside, problem, FitStatus.NONFINITE), cpu_s=cpu_s, wall_s=wall_s)
    if printed.getvalue().strip():
        _log.info("%s printed: %s", name, printed.getvalue().strip())
    return _judge(replace(result, model=result.model + fixed), inside)


def _judge(result: PeerResult, inside: Tensor) -> ProtocolFit:
    degrees = max(inside.shape[0] - result.n_free, 1)
    return ProtocolFit(
        theta=result.theta,
        theta_sigma=result.theta_sigma,
        amplitude=result.amplitude,
        r2=float(r_squared(inside, result.model)),
        r2_expected=float(r_squared_expected(inside)),
        deviance=float(poisson_deviance(inside, result.model)) / degrees,
        cpu_s=result.cpu_s,
        wall_s=result.wall_s,
        evaluations=result.evaluations,
        status=result.status,
        model=result.model,
    )


def _make_empty_result(inside: Tensor, problem: FitProblem, status: FitStatus) -> PeerResult:
    theta = inside.new_full((len(problem.parameters),), torch.nan)
    return PeerResult(
        theta=theta,
        theta_sigma=theta,
        amplitude=theta.new_full((len(component_names(problem)),), torch.nan),
        model=torch.full_like(inside, torch.nan),
        n_free=0,
        evaluations=0,
        status=status,
    )
