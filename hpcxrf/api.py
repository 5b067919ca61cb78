"""What a notebook needs: fit a spectrum that is an array, look at the fit, and compute spectra to train through.

Every name here is also a name of `hpcxrf` itself:

    import hpcxrf
    fit = hpcxrf.fit_integrated(counts, ["Si", "Ca", "Fe", "Pt_L"], 12.5)
    hpcxrf.amplitudes(fit)["Fe"].counts
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hpcxrf.config.run import RunConfig, check_config
from hpcxrf.errors import ConfigError, FitError
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.detector_sum import SOLVED
from hpcxrf.fitting.spectrum.problem import Background, Method, Objective
from hpcxrf.formats.scan import EnergyCalibration
from hpcxrf.physics import model
from hpcxrf.physics.constants import PHYSICS, ConstantSet
from hpcxrf.physics.detector import DetectorSetup
from hpcxrf.physics.lines import LineTable, build_line_table
from hpcxrf.physics.parameters import PARAMETER_NAMES, PARAMETERS, pack, with_values
from hpcxrf.pipeline.prepare.from_config import Prepared, fit_prepared, prepare
from hpcxrf.pipeline.records import ScanFacts
from hpcxrf.runner.worker import one_thread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Counts = npt.ArrayLike | Tensor
_AXIS: Final = ("energy_offset", "energy_slope", "energy_quadratic")
_INCIDENT: Final = "coherent_sct_energy"


class Amplitude(NamedTuple):
    """Recorded counts of a component over the full spectrum."""

    counts: float
    sigma: float
    """Standard uncertainty, that of theta included."""
    detection_limit: float
    """Currie, both errors 5 %; `counts` below it say that the component was not found."""


class Value(NamedTuple):
    """A fitted nonlinear parameter."""

    value: float
    sigma: float
    """NaN where the parameter was fixed or ended at a bound."""
    unit: str


def fit_integrated(
    counts: Counts,
    elements: Sequence[str],
    incident_energy_kev: float,
    *,
    energy_offset_kev: float | None = None,
    energy_slope_kev: float | None = None,
    start: SpectrumFit | None = None,
    energy_range_kev: tuple[float, float] | None = None,
    background: Background = "hats",
    method: Method = "separable",
    objective: Objective | None = None,
    kbeta_sd: float = 0.0,
    incident_energy_sd_kev: float = 0.3,
    source: Literal["monochromatic", "tube"] = "monochromatic",
) -> SpectrumFit | list[SpectrumFit]:
    """Fit integrated spectra: energy axis, peak shape, amplitudes, and the uncertainties of all.

    Without `energy_offset_kev` and `energy_slope_kev`, and without `start`, the energy axis is found from the
    lines and the nominal incident energy.

    Args:
        counts: raw counts, numpy array or tensor: (channel,), or (spectrum, channel) for several that are
            fitted one by one. Not scaled for dead time, channels from 0 of the full spectrum.
        elements: families, `Fe` (K lines), `Pt_L`, `Au_M`, pile-up `Ca_Ca`; elastic and Compton peaks come by
            themselves. A string `"Si,Ca,Fe"` will do.
        incident_energy_kev: nominal energy of the beam; of a tube the effective one.
        energy_offset_kev: energy of channel 0, where the calibration is known roughly (to 50 eV).
        energy_slope_kev: keV per channel, to 2 %; goes with the offset.
        start: an earlier fit of the same detector: its theta is where this fit starts (a warm start), each
            value moved into the bounds of this fit.
        energy_range_kev: fit range; None: 1 keV to 1 keV above the incident energy.
        background: `hats` (fitted with the peaks), `snip` (subtracted) or `none`.
        method: `separable`, or for comparison `adam` or `sbplx` (needs the nlopt package).
        objective: what is minimised in the end: `poisson` (deviance), `mse` or `l1`; None: `poisson`, and `mse`
            for `adam` and `sbplx`, which have no other.
        kbeta_sd: above 0, K-beta is free of K-alpha under a prior of this relative width.
        incident_energy_sd_kev: how well the incident energy is known.
        source: `tube` has no elastic line.

    Returns:
        One fit, or a list of them where `counts` has two dimensions. A spectrum without counts gives NaN and
        says so in `fit.status`.

    Raises:
        ConfigError: counts or options that cannot be meant, all faults at once.
        FitError: elements that do not exist or that the energy cannot excite, a fit range outside of the
            spectrum, or a start that has no solution.
    """
    spectra = _spectra(counts)
    axis = _axis(energy_offset_kev, energy_slope_kev, start)
    fit_options = {
        "calibration": "none" if axis is None else "file",
        "override": "none",
        "energy_range_kev": energy_range_kev,
        "background": background,
        "method": method,
        "kbeta_sd": kbeta_sd,
        "incident_energy_sd_kev": incident_energy_sd_kev,
        **({} if objective is None else {"objective": objective}),
    }
    sample = {"elements": _names(elements), "incident_energy_kev": incident_energy_kev, "source": source}
    config = _config({"input": {"files": ["counts"]}, "sample": sample, "fit": fit_options})
    facts = ScanFacts(
        source=Path("counts"),
        n_detectors=1,
        n_channels=spectra.shape[-1],
        calibration=None if axis is None else (axis,),
        incident_energy_kev=None,
    )
    prepared = prepare(config, facts, 0)
    if start is not None:
        prepared = _warm(prepared, start)
    with one_thread():
        fits = [fit_prepared(spectrum, prepared) for spectrum in spectra.reshape(-1, facts.n_channels)]
    return fits[0] if spectra.ndim == 1 else fits


def amplitudes(fit: SpectrumFit) -> dict[str, Amplitude]:
    """Counts, uncertainty and detection limit of each component, in the order of the fit.

    The scatter peaks have their MAPS names, `COHERENT_SCT_AMPLITUDE` and `COMPTON_AMPLITUDE`.
    """
    columns = (fit.amplitude.tolist(), fit.amplitude_sigma.tolist(), fit.detection_limit.tolist())
    rows = zip(fit.component_names, *columns, strict=True)
    return {name: Amplitude(value, sigma, limit) for name, value, sigma, limit in rows}


def parameters(fit: SpectrumFit) -> dict[str, Value]:
    """Fitted theta by name: value, uncertainty, unit."""
    rows = zip(fit.parameter_names, fit.theta.tolist(), fit.theta_sigma.tolist(), fit.parameter_units, strict=True)
    return {name: Value(value, sigma, unit) for name, value, sigma, unit in rows}


def plot_fit(fit: SpectrumFit, *, scale: Literal["log", "linear"] = "log", title: str = "") -> "Figure":
    """The spectrum with its fit, components and background, and the standardised residual under it.

    Args:
        fit: a fit with a solution.
        scale: of the counts axis.
        title: above the picture.

    Returns:
        A matplotlib figure. Jupyter shows it after `%matplotlib inline`; `figure.savefig("fit.png")` keeps it.

    Raises:
        FitError: the fit has no solution to be drawn.
    """
    from hpcxrf.results.report.picture import fit_dataset
    from hpcxrf.results.report.plots import spectrum_figure

    _require_solution(fit, "plot_fit")
    figure = spectrum_figure(fit_dataset(fit, "", _seen_markers(fit)), "", scale)
    if title:
        figure.suptitle(title, x=0.01, ha="left", parse_math=False)
    return figure


def line_table(
    elements: Sequence[str], incident_energy_kev: float, *, detector: DetectorSetup | None = None
) -> LineTable:
    """Lines of the elements as the detector records them; its `component_names` are the first amplitudes.

    Args:
        elements: as for `fit_integrated`.
        incident_energy_kev: 0.1 to 200 keV.
        detector: windows and material; None: the usual silicon drift detector.

    Raises:
        FitError: elements that do not exist, or that the incident energy cannot excite.
    """
    return build_line_table(_names(elements), incident_energy_kev, efficiency=detector or DetectorSetup())


def default_theta(incident_energy_kev: float, **values: float) -> Tensor:
    """Theta of a usual detector, to be changed by name: `default_theta(12.5, energy_slope=0.012)`.

    Args:
        incident_energy_kev: becomes `coherent_sct_energy`; lines whose edge is above it are dark.
        values: by the names of `hpcxrf.physics.parameters.PARAMETER_NAMES`.

    Returns:
        (parameter,) float64 in that order.

    Raises:
        ConfigError: a name that is no parameter.
    """
    unknown = sorted(set(values) - set(PARAMETER_NAMES))
    if unknown:
        raise ConfigError(
            f"default_theta: no parameter is called {', '.join(unknown)}; there are {', '.join(PARAMETER_NAMES)}"
        )
    return pack(with_values(PARAMETERS, {_INCIDENT: incident_energy_kev} | values))


def model_spectrum(
    theta: Tensor,
    amplitude: Tensor,
    table: LineTable,
    channel: Tensor | int,
    *,
    constants: ConstantSet = PHYSICS,
    elastic: bool = True,
) -> Tensor:
    """Expected counts without background, differentiable in theta and amplitude.

    Args:
        theta: (*batch, parameter) float64, of `default_theta` or of your own network.
        amplitude: (*batch, component) counts: the table's components, then elastic, then Compton.
        table: of `line_table`.
        channel: (channel,) float64, counted from 0 of the full spectrum; or the number of channels.
        constants: line shapes and width law; the default is right unless MAPS is to be matched.
        elastic: whether there is an elastic column (not for a tube).

    Returns:
        (*batch, channel) counts; gradients are finite within the bounds of `PARAMETERS`.

    Raises:
        ConfigError: sizes that do not go together: all of them at once.
    """
    _check_sizes(theta, amplitude, len(table.component_names) + 1 + int(elastic))
    if isinstance(channel, int):
        channel = torch.arange(channel, dtype=theta.dtype, device=theta.device)
    return model.model_spectrum(theta, amplitude, table, channel, constants=constants, elastic=elastic)


def _check_sizes(theta: Tensor, amplitude: Tensor, n_components: int) -> None:
    wanted = (("theta", theta, len(PARAMETER_NAMES)), ("amplitude", amplitude, n_components))
    faults = [
        f"{name} has shape {tuple(t.shape)}, its last axis must be {size}"
        for name, t, size in wanted
        if t.ndim == 0 or t.shape[-1] != size
    ]
    if faults:
        raise ConfigError(
            f"model_spectrum: {'; '.join(faults)} (the components of the table, then elastic, then Compton)"
        )


def _names(elements: Sequence[str]) -> list[str]:
    given = elements.split(",") if isinstance(elements, str) else elements
    return [name.strip() for name in given]


def _spectra(counts: Counts) -> Tensor:
    """Counts as float64 on the CPU, (channel,) or (spectrum, channel)."""
    if isinstance(counts, Tensor):
        spectra = counts.detach().to("cpu", torch.float64)
    else:
        spectra = torch.tensor(np.asarray(counts, dtype=np.float64))
    faults = []
    if spectra.ndim not in {1, 2} or spectra.numel() == 0:
        faults.append(
            f"shape {tuple(spectra.shape)}, must be (channel,) or (spectrum, channel); sum a map over its pixels first"
        )
    elif float(spectra.nan_to_num().min()) < 0.0:
        faults.append(f"lowest is {float(spectra.nan_to_num().min()):g}, raw counts are 0 or more")
    if faults:
        raise ConfigError("counts: " + "; ".join(faults))
    return spectra


def _axis(offset_kev: float | None, slope_kev: float | None, start: SpectrumFit | None) -> EnergyCalibration | None:
    """The axis that was given, else that of the earlier fit, else None: it is to be found."""
    if (offset_kev is None) != (slope_kev is None):
        raise ConfigError(
            "energy_offset_kev and energy_slope_kev go together; give both, or neither to have the axis found"
        )
    if offset_kev is not None and slope_kev is not None:
        return EnergyCalibration(offset_kev=offset_kev, slope_kev=slope_kev)
    if start is None:
        return None
    _require_solution(start, "start")
    theta = dict(zip(start.parameter_names, start.theta.tolist(), strict=True))
    offset, slope, quadratic = (theta[name] for name in _AXIS)
    return EnergyCalibration(offset_kev=offset, slope_kev=slope, quadratic_kev=quadratic)


def _require_solution(fit: SpectrumFit, where: str) -> None:
    if fit.status not in SOLVED:
        raise FitError(f"{where}: the fit ended as {fit.status.name} and has no solution; give one that is solved")


def _config(raw: dict[str, object]) -> RunConfig:
    try:
        config = check_config(raw, "fit_integrated")
    except ConfigError as error:
        faults = str(error).partition("\n")[2]
        raise ConfigError(f"fit_integrated: these options cannot be meant:\n{faults}") from error
    if not config.sample.elements:
        raise ConfigError('fit_integrated: elements is empty; list the families, as in ["Si", "Fe", "Pt_L"]')
    return config


def _warm(prepared: Prepared, start: SpectrumFit) -> Prepared:
    """The same fit started at the theta of an earlier one; an axis that was given stays, and so do the bounds."""
    _require_solution(start, "start")
    theta = dict(zip(start.parameter_names, start.theta.tolist(), strict=True))
    parameters = tuple(
        p if p.name in _AXIS else replace(p, value=min(max(theta.get(p.name, p.value), p.lower), p.upper))
        for p in prepared.setup.parameters
    )
    return replace(prepared, setup=replace(prepared.setup, parameters=parameters))


def _seen_markers(fit: SpectrumFit) -> list[tuple[float, str]]:
    """Energy (keV) and name of what was found, at its highest channel in the fit range."""
    highest = fit.component_counts.argmax(dim=1) + fit.first_channel
    theta = dict(zip(fit.parameter_names, fit.theta.tolist(), strict=True))
    offset, slope, quadratic = (theta[name] for name in _AXIS)
    at = offset + slope * highest + quadratic * highest**2
    return [
        (energy, name)
        for energy, name, amplitude in zip(at.tolist(), fit.component_names, fit.amplitude.tolist(), strict=True)
        if amplitude > 0.0 and not name.endswith("_AMPLITUDE")
    ]
