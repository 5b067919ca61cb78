"""Other programs on the same spectrum: mapstorch 0.0.2 and PyMca, as arms of the benchmark.

Each works as its own users run it: its own line table, background and stopping rule. What they share with the other
arms is the spectrum, the components, the fit range and the starting theta. What they return is put into the words of
this project, and judged by it: R2 and deviance of background + model over the fit range, in linear counts.

Neither takes starting amplitudes: both guess them from the spectrum, which is kinder than the protocol's random ones.
"""

import copy
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hpcxrf.errors import ConfigError
from hpcxrf.fitting.objective import poisson_deviance, r_squared, r_squared_expected
from hpcxrf.fitting.protocol import JointStart, ProtocolFit
from hpcxrf.fitting.result import FitStatus
from hpcxrf.fitting.setup import SpectrumSetup, fit_range
from hpcxrf.physics.components import parse_component
from hpcxrf.physics.model import COMPTON, ELASTIC
from hpcxrf.physics.parameters import INDEX
from hpcxrf.pipeline.worker import one_thread

Peer = Literal["mapstorch", "pymca"]
FloatArray = npt.NDArray[np.float64]

MAPSTORCH_STEPS: Final = 500
PYMCA_ITERATIONS: Final = 50
"""PyMca stops by itself after 4 to 12; its default of 10 would cut some fits short."""

_PACKAGES: Final[Mapping[str, str]] = MappingProxyType(
    {"mapstorch": "mapstorch", "pymca": "PyMca5"}
)
# MAPS's names where they are not ours in upper case.
_MAPSTORCH_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {"step_offset": "F_STEP_OFFSET", "step_linear": "F_STEP_LINEAR"}
)
_MAPSTORCH_TAILS: Final = (
    "F_TAIL_OFFSET", "F_TAIL_LINEAR", "KB_F_TAIL_OFFSET", "KB_F_TAIL_LINEAR",
    "COMPTON_F_TAIL", "COMPTON_HI_F_TAIL",
)  # fmt: skip
# sigma^2 = (noise / 2.3548)^2 + 0.00385 * energy * fano, keV: 3.85 eV a pair.
_PYMCA_PAIR_KEV: Final = 0.00385
_PYMCA_AXIS_REACH: Final = (0.5, 0.1)
"""How far offset (keV) and slope (its share) may move; ours are wider, but PyMca's are symmetrical."""
_PYMCA_NOISE_REACH_KEV: Final = 0.15
_PYMCA_FANO_REACH: Final = 0.9
_PYMCA_SNIP_KEV: Final = 0.25
# What the programs raise when their parameters have left the range in which they can compute.
_BREAKDOWN: Final = (ArithmeticError, LookupError, ValueError, RuntimeError, TypeError)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Result:
    """What a program found, in our units and order."""

    theta: Tensor
    theta_sigma: Tensor
    amplitude: Tensor
    model: Tensor
    """(channel,) over the fit range, with background."""
    n_free: int
    evaluations: int
    status: FitStatus
    cpu_s: float = 0.0
    wall_s: float = 0.0


def require_peers(names: Sequence[str]) -> None:
    """Refuse a benchmark whose peers are not installed, before it starts.

    Args:
        names: methods of the benchmark; those that are no peers are passed over.

    Raises:
        ConfigError: every package that is missing, and the command that installs them.
    """
    missing = [
        f"{name} needs the package {_PACKAGES[name]}"
        for name in names
        if name in _PACKAGES and find_spec(_PACKAGES[name]) is None
    ]
    if missing:
        raise ConfigError(
            f"benchmark.methods: {'; '.join(missing)}; run pip install hpcxrf[bench], or leave them out"
        )


def fit_peer(name: Peer, counts: Tensor, setup: SpectrumSetup, start: JointStart) -> ProtocolFit:
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
        setup: components, nominal incident energy, fit range (at the setup's own calibration, as for every
            method); a background other than `none` is SNIP here.
        start: theta to start from; its amplitudes are not used.

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
    limits = fit_range(setup.parameters, setup.energy_min_kev, setup.energy_max_kev, full.shape[0])
    inside = full[limits[0] : limits[1] + 1]
    if not bool(torch.isfinite(full).all()) or float(inside.sum()) <= 0.0:
        bad = FitStatus.EMPTY if bool(torch.isfinite(full).all()) else FitStatus.NONFINITE
        return _judged(_nothing(inside, setup, bad), inside)
    run: Callable[..., _Result] = _fit_mapstorch if name == "mapstorch" else _fit_pymca
    said, began = StringIO(), _now()
    with one_thread(), redirect_stdout(said), np.errstate(all="ignore"):
        try:
            result = run(full, limits, setup, start.theta)
        except _BREAKDOWN as error:
            _log.warning("%s broke down: %s: %s", name, type(error).__name__, error)
            cpu_s, wall_s = _since(began)
            result = replace(
                _nothing(inside, setup, FitStatus.NONFINITE), cpu_s=cpu_s, wall_s=wall_s
            )
    if said.getvalue().strip():
        _log.info("%s said: %s", name, said.getvalue().strip())
    return _judged(result, inside)


def _judged(result: _Result, inside: Tensor) -> ProtocolFit:
    degrees = max(inside.shape[0] - result.n_free, 1)
    return ProtocolFit(
        theta=result.theta, theta_sigma=result.theta_sigma, amplitude=result.amplitude,
        r2=float(r_squared(inside, result.model)), r2_expected=float(r_squared_expected(inside)),
        deviance=float(poisson_deviance(inside, result.model)) / degrees,
        cpu_s=result.cpu_s, wall_s=result.wall_s, evaluations=result.evaluations,
        status=result.status, model=result.model,
    )  # fmt: skip


def _component_names(setup: SpectrumSetup) -> tuple[str, ...]:
    return setup.table.component_names + ((ELASTIC, COMPTON) if setup.elastic else (COMPTON,))


def _nothing(inside: Tensor, setup: SpectrumSetup, status: FitStatus) -> _Result:
    theta = inside.new_full((len(setup.parameters),), torch.nan)
    return _Result(
        theta=theta, theta_sigma=theta, amplitude=theta.new_full((len(_component_names(setup)),), torch.nan),
        model=torch.full_like(inside, torch.nan), n_free=0, evaluations=0, status=status,
    )  # fmt: skip


def _now() -> tuple[float, float]:
    """CPU and wall seconds."""
    return time.process_time(), time.perf_counter()


def _since(began: tuple[float, float]) -> tuple[float, float]:
    cpu_s, wall_s = _now()
    return cpu_s - began[0], wall_s - began[1]


def _fit_mapstorch(
    full: Tensor, limits: tuple[int, int], setup: SpectrumSetup, theta: Tensor
) -> _Result:
    first = _run_mapstorch(full, limits, setup, theta, fixed={})
    if first.status is not FitStatus.NONFINITE:
        return first
    _log.warning("mapstorch ended in NaN; fitted once more without tails")
    again = _run_mapstorch(full, limits, setup, theta, fixed=dict.fromkeys(_MAPSTORCH_TAILS, 0.0))
    return replace(
        again, cpu_s=first.cpu_s + again.cpu_s, wall_s=first.wall_s + again.wall_s,
        evaluations=first.evaluations + again.evaluations,
    )  # fmt: skip


def _run_mapstorch(
    full: Tensor,
    limits: tuple[int, int],
    setup: SpectrumSetup,
    theta: Tensor,
    fixed: Mapping[str, float],
) -> _Result:
    opt, default = import_module("mapstorch.opt"), import_module("mapstorch.default")
    constants = _mapstorch_table(setup, default)
    elements = [name for name in setup.table.component_names if name in constants]
    free = [p for p in default.default_fitting_params if _is_free(p, setup) and p not in fixed]
    start = default.default_param_vals | _mapstorch_values(setup, theta) | fixed
    began = _now()
    tensors, peaks, background, losses = opt.fit_spec(
        full.numpy().astype(np.float32), limits, elements_to_fit=elements, fitting_params=free,
        init_param_vals=start, fixed_param_vals=dict(fixed), n_iter=MAPSTORCH_STEPS,
        use_snip=setup.background != "none", progress_bar=False, device="cpu", e_consts=constants,
    )  # fmt: skip
    cpu_s, wall_s = _since(began)
    found = {name: float(value.detach()) for name, value in tensors.items()}
    # The spectrum is that of the last step's parameters, which the last step then moved once more.
    model = torch.from_numpy(np.asarray(peaks + background, dtype=np.float64))
    finite = bool(np.isfinite(list(found.values())).all() and torch.isfinite(model).all())
    return _Result(
        theta=theta.new_tensor([found.get(_mapstorch_name(p.name), torch.nan) for p in setup.parameters]),
        theta_sigma=torch.full_like(theta, torch.nan),
        amplitude=_mapstorch_amplitudes(tensors, elements, constants, full.shape[0], setup),
        model=model, n_free=len(free) + len(elements) + 2, evaluations=len(losses),
        # It prints and stops where a step fails.
        status=FitStatus.MAX_ITERATIONS if finite and len(losses) == MAPSTORCH_STEPS else FitStatus.NONFINITE,
        cpu_s=cpu_s, wall_s=wall_s,
    )  # fmt: skip


def _mapstorch_table(setup: SpectrumSetup, default: Any) -> dict[str, Any]:  # noqa: ANN401 (an untyped module)
    """Its own lines, with the pile-ups that are asked for, which its usual table has only three of."""
    names = setup.table.component_names
    pileups = [name for name in names if parse_component(name).kind == "pileup"]
    if not pileups:
        return dict(default.default_energy_consts)
    constant = import_module("mapstorch.constant")
    return dict(constant.define_constants(default.default_elem_info, pileups))


def _is_free(maps_name: str, setup: SpectrumSetup) -> bool:
    return any(p.free and _mapstorch_name(p.name) == maps_name for p in setup.parameters)


def _mapstorch_name(name: str) -> str:
    return _MAPSTORCH_NAMES.get(name, name.upper())


def _mapstorch_values(setup: SpectrumSetup, theta: Tensor) -> dict[str, float]:
    """Theta by its names; its escape factor is another thing than ours and stays 0, its default."""
    values = {
        _mapstorch_name(p.name): value
        for p, value in zip(setup.parameters, theta.tolist(), strict=True)
        if p.name != "escape_factor"
    }
    # 3.58 eV by default here, 2.96 in earlier versions: fwhm_fanoprime means nothing without it.
    return values | {"FWHM_FANO_COEFF": setup.constants.width_factor}


def _mapstorch_amplitudes(
    tensors: Mapping[str, Tensor],
    elements: Sequence[str],
    constants: Mapping[str, Any],
    n_channels: int,
    setup: SpectrumSetup,
) -> Tensor:
    """Counts of each component over all channels: its own amplitude is that of one line of the family."""
    basis, names = import_module("mapstorch.map").build_model_basis(
        tensors, (0, n_channels - 1), list(elements), e_consts=constants
    )
    totals = dict(zip(names, basis.detach().double().sum(dim=-1).tolist(), strict=True))
    amplitudes = [
        10.0 ** float(tensors[name].detach()) * totals[name] if name in totals else torch.nan
        for name in _component_names(setup)
    ]
    return torch.tensor(amplitudes, dtype=torch.float64)


def _fit_pymca(
    full: Tensor, limits: tuple[int, int], setup: SpectrumSetup, theta: Tensor
) -> _Result:
    fit = import_module("PyMca5.PyMcaPhysics.xrf.ClassMcaTheory").McaTheory()
    fixed = import_module("PyMca5.PyMcaMath.fitting.Gefit").CFIXED
    fit.configure(_pymca_configuration(fit.config, limits, setup, theta))
    channel = np.arange(full.shape[0], dtype=np.float64)
    began = _now()
    fit.setData(channel, full.numpy(), xmin=limits[0], xmax=limits[1])
    fit.estimate()
    found, _, sigma, iterations, _ = fit.startfit(digest=0)
    cpu_s, wall_s = _since(began)
    values, errors = np.asarray(found), np.asarray(sigma)
    model = np.ravel(fit.mcatheory(values, np.ravel(fit.xdata))) + np.ravel(fit.zz)
    finite = bool(np.isfinite(values).all() and np.isfinite(model).all())
    held = {
        "energy_quadratic": 0.0, "coherent_sct_energy": setup.table.incident_energy_kev,
        "compton_angle": float(theta[INDEX["compton_angle"]]),
    }  # fmt: skip
    done = FitStatus.CONVERGED if iterations < PYMCA_ITERATIONS else FitStatus.MAX_ITERATIONS
    return _Result(
        theta=_with_names(_theta_of_pymca(values, setup) | held, theta),
        theta_sigma=_with_names(_theta_of_pymca(errors, setup), theta),
        amplitude=_pymca_amplitudes(fit, values, channel, setup),
        model=torch.from_numpy(model), n_free=int((fit.codes[0] != fixed).sum()),
        evaluations=int(iterations), status=done if finite else FitStatus.NONFINITE,
        cpu_s=cpu_s, wall_s=wall_s,
    )  # fmt: skip


def _pymca_configuration(
    default: Mapping[str, Any], limits: tuple[int, int], setup: SpectrumSetup, theta: Tensor
) -> dict[str, Any]:
    """PyMca's default configuration with our components, energies, range and starting values."""
    value = {p.name: v for p, v in zip(setup.parameters, theta.tolist(), strict=True)}
    config = {name: copy.deepcopy(section) for name, section in default.items()}
    groups = _pymca_groups(setup)
    config["peaks"] = {}
    for element, shell in groups.values():
        config["peaks"].setdefault(element, []).append(shell)
    pileup = len(groups) < len(setup.table.component_names)
    offset_reach, slope_reach = _PYMCA_AXIS_REACH
    slope, fano = value["energy_slope"], _fano_of(value["fwhm_fanoprime"], setup)
    config["fit"].update(
        energy=[setup.table.incident_energy_kev], energyweight=[1.0], energyflag=[1], energyscatter=[1],
        scatterflag=int(setup.elastic), stripflag=int(setup.background != "none"), stripalgorithm=1,
        snipwidth=round(_PYMCA_SNIP_KEV / slope), continuum=0, maxiter=PYMCA_ITERATIONS, fitweight=1,
        use_limit=1, xmin=limits[0], xmax=limits[1], sumflag=int(pileup), escapeflag=1, hypermetflag=1,
    )  # fmt: skip
    config["detector"].update(
        zero=value["energy_offset"], deltazero=offset_reach, gain=slope, deltagain=slope_reach * slope,
        noise=value["fwhm_offset"], deltanoise=_PYMCA_NOISE_REACH_KEV,
        fano=fano, deltafano=_PYMCA_FANO_REACH * fano, fixedsum=int(not pileup),
    )  # fmt: skip
    # Off, but this is where the scattering angle is read from.
    config["attenuators"]["Matrix"] = [
        0,
        "MULTILAYER",
        0.0,
        0.0,
        45.0,
        45.0,
        1,
        value["compton_angle"],
    ]
    return config


def _pymca_groups(setup: SpectrumSetup) -> dict[str, tuple[str, str]]:
    """Element and shell of the components that it can model: not pile-up, not a user's own lines."""
    names = setup.table.component_names
    parsed = {name: parse_component(name).kind for name in names}
    return {
        name: (name.partition("_")[0], kind)
        for name, kind in parsed.items()
        if kind in {"K", "L", "M"}
    }


def _fano_of(fwhm_fanoprime: float, setup: SpectrumSetup) -> float:
    return setup.constants.width_factor * fwhm_fanoprime / _PYMCA_PAIR_KEV


def _theta_of_pymca(values: FloatArray, setup: SpectrumSetup) -> dict[str, float]:
    """Its four parameters, or their uncertainties, in our names and units."""
    zero, gain, noise, fano = values[:4].tolist()
    return {
        "energy_offset": zero, "energy_slope": gain, "fwhm_offset": abs(noise),
        "fwhm_fanoprime": fano / _fano_of(1.0, setup),
    }  # fmt: skip


def _with_names(values: Mapping[str, float], like: Tensor) -> Tensor:
    """(parameter,), NaN where there is no value."""
    theta = torch.full_like(like, torch.nan)
    for name, value in values.items():
        theta[INDEX[name]] = value
    return theta


def _pymca_amplitudes(
    fit: Any,  # noqa: ANN401 (an untyped class)
    values: FloatArray,
    channel: FloatArray,
    setup: SpectrumSetup,
) -> Tensor:
    """Counts of each component over all channels, escape peaks included, from its own model."""
    groups = {name: f"{element} {shell}" for name, (element, shell) in _pymca_groups(setup).items()}
    groups |= {ELASTIC: "Scatter Peak000", COMPTON: "Scatter Compton000"}
    places = {label: i for i, label in enumerate(fit.PARAMETERS) if i >= fit.NGLOBAL}
    amplitudes = []
    for name in _component_names(setup):
        place = places.get(groups.get(name, ""))
        if place is None:
            amplitudes.append(torch.nan)
            continue
        alone = values.copy()
        alone[fit.NGLOBAL :] = 0.0
        alone[place] = values[place]
        amplitudes.append(float(np.sum(fit.mcatheory(alone, channel, summing=0))))
    return torch.tensor(amplitudes, dtype=torch.float64)
