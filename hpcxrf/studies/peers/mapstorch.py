"""mapstorch 0.0.2 as an arm of the benchmark: Adam over its own lines, parameters and background."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from hpcxrf.fitting.result import FitStatus
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.physics.components import parse_component
from hpcxrf.studies.peers.common import PeerResult, measure_since, read_clocks
from hpcxrf.studies.starts import component_names

MAPSTORCH_STEPS: Final = 500

# MAPS's names where they are not ours in upper case.
_NAMES: Final[Mapping[str, str]] = MappingProxyType({"step_offset": "F_STEP_OFFSET", "step_linear": "F_STEP_LINEAR"})
_TAILS: Final = (
    "F_TAIL_OFFSET",
    "F_TAIL_LINEAR",
    "KB_F_TAIL_OFFSET",
    "KB_F_TAIL_LINEAR",
    "COMPTON_F_TAIL",
    "COMPTON_HI_F_TAIL",
)

_log = logging.getLogger(__name__)


def fit_mapstorch(full: Tensor, limits: tuple[int, int], problem: FitProblem, theta: Tensor) -> PeerResult:
    """Adam as `fit_spec` of 0.0.2 runs it; should it end in NaN, once more without tails.

    Args:
        full: (channel,) float64 counts of the full spectrum.
        limits: first and last channel of the fit range, both included.
        problem: components, free parameters and background.
        theta: (parameter,) to start from.

    Returns:
        The result; the seconds of both fits where there were two.
    """
    first = _run(full, limits, problem, theta, fixed={})
    if first.status is not FitStatus.NONFINITE:
        return first
    _log.warning("mapstorch ended in NaN; fitted once more without tails")
    again = _run(full, limits, problem, theta, fixed=dict.fromkeys(_TAILS, 0.0))
    return replace(
        again,
        cpu_s=first.cpu_s + again.cpu_s,
        wall_s=first.wall_s + again.wall_s,
        evaluations=first.evaluations + again.evaluations,
    )


def _run(
    full: Tensor, limits: tuple[int, int], problem: FitProblem, theta: Tensor, fixed: Mapping[str, float]
) -> PeerResult:
    opt, default = import_module("mapstorch.opt"), import_module("mapstorch.default")
    constants = _build_table(problem, default)
    elements = [name for name in problem.table.component_names if name in constants]
    free = [p for p in default.default_fitting_params if _is_free(p, problem) and p not in fixed]
    start = default.default_param_vals | _translate_theta(problem, theta) | fixed
    began = read_clocks()
    tensors, peaks, background, losses = opt.fit_spec(
        full.numpy().astype(np.float32),
        limits,
        elements_to_fit=elements,
        fitting_params=free,
        init_param_vals=start,
        fixed_param_vals=dict(fixed),
        n_iter=MAPSTORCH_STEPS,
        use_snip=problem.background != "none",
        progress_bar=False,
        device="cpu",
        e_consts=constants,
    )
    cpu_s, wall_s = measure_since(began)
    found = {name: float(value.detach()) for name, value in tensors.items()}
    # The spectrum is that of the last step's parameters, which the last step then moved once more.
    model = torch.from_numpy(np.asarray(peaks + background, dtype=np.float64))
    finite = bool(np.isfinite(list(found.values())).all() and torch.isfinite(model).all())
    return PeerResult(
        theta=theta.new_tensor([found.get(_maps_name(p.name), torch.nan) for p in problem.parameters]),
        theta_sigma=torch.full_like(theta, torch.nan),
        amplitude=_sum_amplitudes(tensors, elements, constants, full.shape[0], problem),
        model=model,
        n_free=len(free) + len(elements) + 2,
        evaluations=len(losses),
        # It prints and stops where a step fails.
        status=FitStatus.MAX_ITERATIONS if finite and len(losses) == MAPSTORCH_STEPS else FitStatus.NONFINITE,
        cpu_s=cpu_s,
        wall_s=wall_s,
    )


def _build_table(problem: FitProblem, default: Any) -> dict[str, Any]:  # noqa: ANN401 (an untyped module)
    """Its own lines, with the listed pile-ups, of which its usual table has only three."""
    names = problem.table.component_names
    pileups = [name for name in names if parse_component(name).kind == "pileup"]
    if not pileups:
        return dict(default.default_energy_consts)
    constant = import_module("mapstorch.constant")
    return dict(constant.define_constants(default.default_elem_info, pileups))


def _is_free(maps_name: str, problem: FitProblem) -> bool:
    return any(p.free and _maps_name(p.name) == maps_name for p in problem.parameters)


def _maps_name(name: str) -> str:
    return _NAMES.get(name, name.upper())


def _translate_theta(problem: FitProblem, theta: Tensor) -> dict[str, float]:
    """Theta by its names; its escape factor is another thing than ours and stays 0, its default."""
    values = {
        _maps_name(p.name): value
        for p, value in zip(problem.parameters, theta.tolist(), strict=True)
        if p.name != "escape_factor"
    }
    # 3.58 eV by default here, 2.96 in earlier versions: fwhm_fanoprime means nothing without it.
    return values | {"FWHM_FANO_COEFF": problem.constants.width_factor}


def _sum_amplitudes(
    tensors: Mapping[str, Tensor],
    elements: Sequence[str],
    constants: Mapping[str, Any],
    n_channels: int,
    problem: FitProblem,
) -> Tensor:
    """Counts of each component over all channels: its own amplitude is that of one line of the family."""
    basis, names = import_module("mapstorch.map").build_model_basis(
        tensors, (0, n_channels - 1), list(elements), e_consts=constants
    )
    totals = dict(zip(names, basis.detach().double().sum(dim=-1).tolist(), strict=True))
    amplitudes = [
        10.0 ** float(tensors[name].detach()) * totals[name] if name in totals else torch.nan
        for name in component_names(problem)
    ]
    return torch.tensor(amplitudes, dtype=torch.float64)
