"""PyMca as an arm of the benchmark: Levenberg-Marquardt over its own lines, parameters and background."""

import copy
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hpcxrf.fitting.result import FitStatus
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.physics.components import parse_component
from hpcxrf.physics.model import COMPTON, ELASTIC
from hpcxrf.physics.parameters import INDEX
from hpcxrf.studies.peers.common import PeerResult, measure_since, read_clocks
from hpcxrf.studies.starts import component_names

FloatArray = npt.NDArray[np.float64]

PYMCA_ITERATIONS: Final = 50
"""PyMca stops by itself after 4 to 12; its default of 10 would cut some fits short."""

# sigma^2 = (noise / 2.3548)^2 + 0.00385 * energy * fano, keV: 3.85 eV a pair.
_PAIR_KEV: Final = 0.00385
_AXIS_REACH: Final = (0.5, 0.1)
"""Largest moves of offset (keV) and slope (relative); ours are wider, but PyMca's are symmetrical."""
_NOISE_REACH_KEV: Final = 0.15
_FANO_REACH: Final = 0.9
_SNIP_KEV: Final = 0.25


def fit_pymca(full: Tensor, limits: tuple[int, int], problem: FitProblem, theta: Tensor) -> PeerResult:
    """Levenberg-Marquardt as `McaTheory` runs it.

    Args:
        full: (channel,) float64 counts of the full spectrum.
        limits: first and last channel of the fit range, both included.
        problem: components, nominal incident energy and background.
        theta: (parameter,) to start from.

    Returns:
        The result.
    """
    fit = import_module("PyMca5.PyMcaPhysics.xrf.ClassMcaTheory").McaTheory()
    fixed = import_module("PyMca5.PyMcaMath.fitting.Gefit").CFIXED
    fit.configure(_configure(fit.config, limits, problem, theta))
    channel = np.arange(full.shape[0], dtype=np.float64)
    began = read_clocks()
    fit.setData(channel, full.numpy(), xmin=limits[0], xmax=limits[1])
    fit.estimate()
    found, _, sigma, iterations, _ = fit.startfit(digest=0)
    cpu_s, wall_s = measure_since(began)
    values, errors = np.asarray(found), np.asarray(sigma)
    model = np.ravel(fit.mcatheory(values, np.ravel(fit.xdata))) + np.ravel(fit.zz)
    finite = bool(np.isfinite(values).all() and np.isfinite(model).all())
    held = {
        "energy_quadratic": 0.0,
        "coherent_sct_energy": problem.table.incident_energy_kev,
        "compton_angle": float(theta[INDEX["compton_angle"]]),
    }
    done = FitStatus.CONVERGED if iterations < PYMCA_ITERATIONS else FitStatus.MAX_ITERATIONS
    return PeerResult(
        theta=_place_by_name(_translate_theta(values, problem) | held, theta),
        theta_sigma=_place_by_name(_translate_theta(errors, problem), theta),
        amplitude=_sum_amplitudes(fit, values, channel, problem),
        model=torch.from_numpy(model),
        n_free=int((fit.codes[0] != fixed).sum()),
        evaluations=int(iterations),
        status=done if finite else FitStatus.NONFINITE,
        cpu_s=cpu_s,
        wall_s=wall_s,
    )


def _configure(
    default: Mapping[str, Any], limits: tuple[int, int], problem: FitProblem, theta: Tensor
) -> dict[str, Any]:
    """PyMca's default configuration with our components, energies, range and starting values."""
    value = {p.name: v for p, v in zip(problem.parameters, theta.tolist(), strict=True)}
    config = {name: copy.deepcopy(section) for name, section in default.items()}
    groups = _list_groups(problem)
    config["peaks"] = {}
    for element, shell in groups.values():
        config["peaks"].setdefault(element, []).append(shell)
    pileup = len(groups) < len(problem.table.component_names)
    offset_reach, slope_reach = _AXIS_REACH
    slope, fano = value["energy_slope"], _fano_of(value["fwhm_fanoprime"], problem)
    config["fit"].update(
        energy=[problem.table.incident_energy_kev],
        energyweight=[1.0],
        energyflag=[1],
        energyscatter=[1],
        scatterflag=int(problem.elastic),
        stripflag=int(problem.background != "none"),
        stripalgorithm=1,
        snipwidth=round(_SNIP_KEV / slope),
        continuum=0,
        maxiter=PYMCA_ITERATIONS,
        fitweight=1,
        use_limit=1,
        xmin=limits[0],
        xmax=limits[1],
        sumflag=int(pileup),
        escapeflag=1,
        hypermetflag=1,
    )
    config["detector"].update(
        zero=value["energy_offset"],
        deltazero=offset_reach,
        gain=slope,
        deltagain=slope_reach * slope,
        noise=value["fwhm_offset"],
        deltanoise=_NOISE_REACH_KEV,
        fano=fano,
        deltafano=_FANO_REACH * fano,
        fixedsum=int(not pileup),
    )
    # Off, but this is where the scattering angle is read from.
    config["attenuators"]["Matrix"] = [0, "MULTILAYER", 0.0, 0.0, 45.0, 45.0, 1, value["compton_angle"]]
    return config


def _list_groups(problem: FitProblem) -> dict[str, tuple[str, str]]:
    """Element and shell of the components that it can model: not pile-up, not a user's own lines."""
    names = problem.table.component_names
    parsed = {name: parse_component(name).kind for name in names}
    return {name: (name.partition("_")[0], kind) for name, kind in parsed.items() if kind in {"K", "L", "M"}}


def _fano_of(fwhm_fanoprime: float, problem: FitProblem) -> float:
    return problem.constants.width_factor * fwhm_fanoprime / _PAIR_KEV


def _translate_theta(values: FloatArray, problem: FitProblem) -> dict[str, float]:
    """Its four parameters, or their uncertainties, in our names and units."""
    zero, gain, noise, fano = values[:4].tolist()
    return {
        "energy_offset": zero,
        "energy_slope": gain,
        "fwhm_offset": abs(noise),
        "fwhm_fanoprime": fano / _fano_of(1.0, problem),
    }


def _place_by_name(values: Mapping[str, float], like: Tensor) -> Tensor:
    """(parameter,), NaN where there is no value."""
    theta = torch.full_like(like, torch.nan)
    for name, value in values.items():
        theta[INDEX[name]] = value
    return theta


def _sum_amplitudes(
    fit: Any,  # noqa: ANN401 (an untyped class)
    values: FloatArray,
    channel: FloatArray,
    problem: FitProblem,
) -> Tensor:
    """Counts of each component over all channels, escape peaks included, from its own model."""
    groups = {name: f"{element} {shell}" for name, (element, shell) in _list_groups(problem).items()}
    groups |= {ELASTIC: "Scatter Peak000", COMPTON: "Scatter Compton000"}
    places = {label: i for i, label in enumerate(fit.PARAMETERS) if i >= fit.NGLOBAL}
    amplitudes = []
    for name in component_names(problem):
        place = places.get(groups.get(name, ""))
        if place is None:
            amplitudes.append(torch.nan)
            continue
        alone = values.copy()
        alone[fit.NGLOBAL :] = 0.0
        alone[place] = values[place]
        amplitudes.append(float(np.sum(fit.mcatheory(alone, channel, summing=0))))
    return torch.tensor(amplitudes, dtype=torch.float64)
