"""Arguments of the library's functions on spectra: checked, and brought into the form that the fits take."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hpcxrf.errors import ConfigError, FitError, InputFileError
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.detector_sum import SOLVED
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.fitting.spectrum.theta import AXIS
from hpcxrf.formats.counts import CountFaults
from hpcxrf.formats.scan import EnergyCalibration
from hpcxrf.notes import Note
from hpcxrf.physics.parameters import PARAMETER_NAMES
from hpcxrf.physics.tube import Tube

Counts = npt.ArrayLike | Tensor


@contextmanager
def errors_of(function: str) -> Iterator[None]:
    """Let errors begin with the name of the function that was called."""
    try:
        yield
    except (ConfigError, FitError) as error:
        raise type(error)(f"{function}: {error}") from error


def split_names(elements: Sequence[str]) -> list[str]:
    """Read names from a sequence, or from one string with commas."""
    names = elements.split(",") if isinstance(elements, str) else elements
    return [name.strip() for name in names]


def read_spectra(counts: Counts) -> tuple[Tensor, tuple[Note, ...]]:
    """Read counts as float64 on the CPU, (channel,) or (spectrum, channel), and warn of negative ones taken as 0.

    Raises:
        ConfigError: another shape, or more than 0.1 % of negative counts.
    """
    if isinstance(counts, Tensor):
        spectra = counts.detach().to("cpu", torch.float64)
    else:
        spectra = torch.tensor(np.asarray(counts, dtype=np.float64))
    if spectra.ndim not in {1, 2} or spectra.numel() == 0:
        raise ConfigError(
            f"counts has shape {tuple(spectra.shape)}, must be (channel,) or (spectrum, channel); sum a map over its "
            "pixels first"
        )
    below = spectra < 0.0
    faults = CountFaults(size=spectra.numel())
    try:
        faults.add(int(below.sum()), float(spectra.nan_to_num().min()), 0, "counts")
    except InputFileError as error:
        raise ConfigError(str(error)) from error
    return spectra.masked_fill(below, 0.0), tuple(faults.notes())


def choose_incident(incident_energy_kev: float | None, tube: Tube | None) -> float:
    """The incident energy of the arguments, keV; of a tube that is described its high voltage.

    Raises:
        ConfigError: neither of them is given, or both.
    """
    if tube is not None:
        if incident_energy_kev is not None:
            raise ConfigError(
                f"incident_energy_kev is {incident_energy_kev:g} beside tube; a tube that is described has no "
                "effective energy, give one of the two"
            )
        return tube.kv
    if incident_energy_kev is None:
        raise ConfigError("incident_energy_kev is missing; give the energy of the beam in keV, or tube")
    return float(incident_energy_kev)


def choose_calibration(
    offset_kev: float | None, slope_kev: float | None, start: SpectrumFit | None
) -> EnergyCalibration | None:
    """Choose the energy axis of the arguments, else that of the earlier fit, else None: it is to be determined.

    Raises:
        ConfigError: an offset without a slope, or a slope without an offset.
        FitError: an earlier fit without solution.
    """
    if (offset_kev is None) != (slope_kev is None):
        raise ConfigError(
            "energy_offset_kev and energy_slope_kev go together; give both, or neither to determine the energy axis "
            "from the spectrum"
        )
    if offset_kev is not None and slope_kev is not None:
        return EnergyCalibration(offset_kev=float(offset_kev), slope_kev=float(slope_kev))
    if start is None:
        return None
    require_solution(start, "start")
    offset, slope, quadratic = (theta_by_name(start)[name] for name in AXIS)
    return EnergyCalibration(offset_kev=offset, slope_kev=slope, quadratic_kev=quadratic)


def start_warm(problem: FitProblem, start: SpectrumFit) -> FitProblem:
    """Start at the theta of an earlier fit, moved into the bounds; the energy axis of the problem stays.

    Raises:
        FitError: an earlier fit without solution.
    """
    require_solution(start, "start")
    theta = theta_by_name(start)
    parameters = tuple(
        p if p.name in AXIS else replace(p, value=min(max(theta.get(p.name, p.value), p.lower), p.upper))
        for p in problem.parameters
    )
    return replace(problem, parameters=parameters)


def theta_by_name(fit: SpectrumFit) -> dict[str, float]:
    """Name the fitted nonlinear parameters."""
    return dict(zip(fit.parameter_names, fit.theta.tolist(), strict=True))


def require_solution(fit: SpectrumFit, argument: str) -> None:
    """Refuse a fit that has none.

    Raises:
        FitError: its status.
    """
    if fit.status not in SOLVED:
        raise FitError(f"{argument}: the fit ended as {fit.status.name} and has no solution; give one that is solved")


def problem_of(fit: SpectrumFit) -> FitProblem:
    """Take the problem out of a solved fit.

    Raises:
        FitError: no solution, or a fit that knows no problem.
    """
    require_solution(fit, "fit")
    if fit.problem is None:
        raise FitError("fit: the fit of a sum of detectors has no theta of its own; give the fit of one detector")
    return fit.problem


def find_markers(fit: SpectrumFit) -> list[tuple[float, str]]:
    """Find energy (keV) and name of each component with counts, at its highest channel in the fit range."""
    highest = fit.component_counts.argmax(dim=1) + fit.first_channel
    offset, slope, quadratic = (theta_by_name(fit)[name] for name in AXIS)
    at = offset + slope * highest + quadratic * highest**2
    return [
        (energy, name)
        for energy, name, amplitude in zip(at.tolist(), fit.component_names, fit.amplitude.tolist(), strict=True)
        if amplitude > 0.0 and not name.endswith("_AMPLITUDE")
    ]


def check_model_sizes(theta: Tensor, amplitude: Tensor, n_components: int) -> None:
    """Refuse theta and amplitudes that do not fit a line table.

    Raises:
        ConfigError: all sizes that do not go together.
    """
    wanted = (("theta", theta, len(PARAMETER_NAMES)), ("amplitude", amplitude, n_components))
    faults = [
        f"{name} has shape {tuple(t.shape)}, its last axis must be {size}"
        for name, t, size in wanted
        if t.ndim == 0 or t.shape[-1] != size
    ]
    if faults:
        raise ConfigError(f"{'; '.join(faults)} (the components of the table, then elastic, then Compton)")
