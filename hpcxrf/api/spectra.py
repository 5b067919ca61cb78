"""Integrated spectra that are arrays: fitted, refined, read and drawn."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy.typing as npt

from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.held import fit_at_theta, fit_components
from hpcxrf.fitting.spectrum.near_edges import drop_unexcited
from hpcxrf.fitting.spectrum.prepare import FitOptions, prepare_spectrum
from hpcxrf.fitting.spectrum.problem import Background, Method, Objective, Source, start_from
from hpcxrf.fitting.spectrum.search import set_axis
from hpcxrf.fitting.spectrum.solve import refit, solve_problem
from hpcxrf.formats.scan import RawScan
from hpcxrf.physics.detector import Detector
from hpcxrf.physics.tube import Tube
from hpcxrf.pipeline.arguments import (
    Counts,
    choose_calibration,
    choose_incident,
    errors_of,
    find_markers,
    problem_of,
    read_spectra,
    require_solution,
    split_names,
    start_warm,
)
from hpcxrf.pipeline.prepare.theta import Bounds
from hpcxrf.pipeline.theta_arguments import (
    ThetaChanges,
    change_problem,
    check_theta,
    hold_start,
    require_held,
    start_theta,
)
from hpcxrf.runner.worker import one_thread

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


class Amplitude(NamedTuple):
    """Recorded counts of a component over the full spectrum."""

    counts: float
    sigma: float
    """Standard uncertainty, that of theta included."""
    detection_limit: float
    """Currie limit, both errors 5 %: what the spectrum could show. Whether a component was found is decided at the
    lower limit of `decision_limits`."""


class Value(NamedTuple):
    """A fitted nonlinear parameter."""

    value: float
    sigma: float
    """Standard uncertainty; NaN where the parameter was fixed or ended at a bound."""
    unit: str


def fit_spectrum(
    counts: Counts,
    elements: Sequence[str],
    incident_energy_kev: float | None = None,
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
    source: Source = "monochromatic",
    tube: Tube | None = None,
    detector: Detector | None = None,
) -> SpectrumFit | list[SpectrumFit]:
    """Fit integrated spectra: energy axis, peak shape, amplitudes, and the uncertainties of all.

    Without `energy_offset_kev` and `energy_slope_kev`, and without `start`, the energy axis is determined from the
    lines and the nominal incident energy.

    Args:
        counts: raw counts, numpy array or tensor: (channel,), or (spectrum, channel) for several that are
            fitted one by one. Not scaled for dead time, channels from 0 of the full spectrum. Negative ones are
            taken as 0 with a warning in `notes`, more than 0.1 % of them are refused.
        elements: families, `Fe` (K lines), `Pt_L`, `Au_M`, pile-up `Ca_Ca`; elastic and Compton peaks come by
            themselves. A string `"Si,Ca,Fe"` will do.
        incident_energy_kev: nominal energy of the beam, 0.1 to 200 keV; of a tube that is not described the effective
            one; not given beside `tube`.
        energy_offset_kev: energy of channel 0, where the calibration is known roughly (to 50 eV).
        energy_slope_kev: keV per channel, to 2 %; goes with the offset.
        start: an earlier fit of the same detector: its theta is where this fit starts (a warm start), each
            value moved into the bounds of this fit.
        energy_range_kev: fit range; None: 1 keV to 1 keV above the incident energy.
        background: `hats` (fitted with the peaks), `snip` (subtracted) or `none`.
        method: `separable`, or for comparison `adam` or `sbplx` (needs the nlopt package).
        objective: quantity that is minimised in the end: `poisson` (deviance), `mse` or `l1`; None: `poisson`, and
            `mse` for `adam` and `sbplx`, which have no other.
        kbeta_sd: relative width of the prior that ties the K-beta to the K-alpha lines of one family; 0: 5 %, as far as
            tables differ.
        incident_energy_sd_kev: standard deviation of the nominal incident energy, above 0.
        source: `tube` has no elastic line at one energy.
        tube: anode, high voltage and filters of a tube: `hpcxrf.Tube(anode="Rh", kv=50.0)`. Its lines, scattered by
            the sample, are fitted; `source` is then a tube.
        detector: windows and chip, its air path being known to 8 mm; None: the usual silicon drift detector, in as much
            air as the line ratios imply.

    Returns:
        One fit, or a list of them where `counts` has two dimensions. A spectrum without counts gives NaN, with the
        reason in `fit.status`.

    Raises:
        ConfigError: counts or options that are not valid, all faults at once.
        FitError: elements that do not exist or that the energy cannot excite, a fit range outside of the
            spectrum, or a start that has no solution.

    Example:
        >>> fit = hpcxrf.fit_spectrum(cube.sum((0, 1)), ["Si", "Ca", "Fe"], 12.0)
        >>> fit.status.name
        'CONVERGED'
        >>> hpcxrf.amplitudes(fit)["Fe"].counts > hpcxrf.decision_limits(fit)["Fe"]
        True
    """
    with errors_of("fit_spectrum"):
        spectra, notes = read_spectra(counts)
        problem = prepare_spectrum(
            split_names(elements),
            choose_incident(incident_energy_kev, tube),
            n_channels=spectra.shape[-1],
            calibration=choose_calibration(energy_offset_kev, energy_slope_kev, start),
            detector=detector,
            air_is_known=detector is not None,
            options=FitOptions(
                energy_range_kev=energy_range_kev,
                background=background,
                method=method,
                objective=objective,
                kbeta_sd=kbeta_sd,
                incident_energy_sd_kev=incident_energy_sd_kev,
                source=source if tube is None else "tube",
                tube=tube,
            ),
        )
        if start is not None:
            problem = start_warm(problem, start)
        with one_thread():
            each = spectra.reshape(-1, spectra.shape[-1])
            fits = drop_unexcited([solve_problem(spectrum, problem) for spectrum in each])
        if notes:
            fits = [replace(fit, notes=(*notes, *fit.notes)) for fit in fits]
    return fits[0] if spectra.ndim == 1 else fits


fit_integrated = fit_spectrum
"""Name of `fit_spectrum` in version 0.1.0."""


def refine(
    counts: Counts | RawScan,
    fit: SpectrumFit,
    mask: npt.ArrayLike | None = None,
    *,
    detector: int | None = None,
    theta: Mapping[str, float] | None = None,
    fixed: Collection[str] = (),
    free: Collection[str] = (),
    bounds: Mapping[str, Bounds] | None = None,
    same_counts: bool = False,
) -> SpectrumFit:
    """Fit the summed spectrum of a region again from the theta of an earlier fit: theta and amplitudes together.

    Args:
        counts: raw counts of a map as for `fit_map`, or the (channel,) spectrum that is already summed.
        fit: fit of the whole scan's spectrum of the same detector.
        mask: (y, x), True inside the region; None: all pixels.
        detector: number of the detector, counted from 0, where the counts have several.
        theta: values of theta by name from which the search begins, in the place of those of `fit`; those that are
            held keep them.
        fixed: names of parameters that are held.
        free: names of parameters that are fitted although `fit` held them.
        bounds: (lower, upper) of theta by name; None for one of the two: as they were.
        same_counts: True where the counts are those of `fit`: priors stay where they were before it, so that no count
            is used twice. Otherwise they are about the theta of `fit`, and the flaws of the model those that it showed.

    Returns:
        The fit of the region, with the same components.

    Raises:
        ConfigError: counts, mask, detector or theta that are not valid, all faults at once.
        FitError: an earlier fit without solution.
        InputFileError: the scan cannot be read.

    Example:
        >>> iron = hpcxrf.fit_map(cube, fit).xrf.map("Fe")
        >>> region = hpcxrf.refine(cube, fit, iron > iron.median())
        >>> hpcxrf.amplitudes(region)["Fe"].counts < hpcxrf.amplitudes(fit)["Fe"].counts
        True
        >>> held = hpcxrf.refine(cube, fit, same_counts=True, theta={"fwhm_offset": 0.12}, fixed=["fwhm_offset"])
        >>> hpcxrf.parameters(held)["fwhm_offset"].value
        0.12
    """
    from hpcxrf.pipeline.map_arguments import region_spectrum

    with errors_of("refine"):
        problem = replace(problem_of(fit), method="separable")
        changes = ThetaChanges(values=theta or {}, fixed=fixed, free=free, bounds=bounds or {})
        if not same_counts:
            problem = start_from(problem, fit.theta)
            problem = replace(problem, model_error=fit.model_error if math.isfinite(fit.model_error) else None)
        elif problem.find_axis:
            problem = replace(set_axis(problem, fit.theta), find_axis=False)
        check_theta(changes, problem.parameters)
        start = start_theta(fit, changes)
        problem = hold_start(change_problem(problem, changes), start)
        spectrum = region_spectrum(counts, fit, mask, detector)
        with one_thread():
            return (solve_problem if same_counts else refit)(spectrum, problem, start=start)


def fit_amplitudes(
    counts: Counts | RawScan,
    fit: SpectrumFit,
    mask: npt.ArrayLike | None = None,
    *,
    detector: int | None = None,
    theta: Mapping[str, float] | None = None,
    only: Sequence[str] | None = None,
) -> SpectrumFit:
    """Fit the amplitudes alone, at the theta and the line ratios of an earlier fit: linear, in some milliseconds.

    Sigma is that at this theta, which is taken for known.

    Args:
        counts: raw counts of a map as for `fit_map`, or the (channel,) spectrum that is already summed.
        fit: fit of a spectrum of the same detector.
        mask: (y, x), True inside the region; None: all pixels.
        detector: number of the detector, counted from 0, where the counts have several.
        theta: values of theta by name, in the place of those of `fit`.
        only: components that are fitted, in the channels that show them; background and all other components are held
            at `fit`, which must be of the same counts. None: all, and the background with them.

    Returns:
        The fit, with the components of `fit`.

    Raises:
        ConfigError: counts, mask, detector, theta or names that are not valid, all faults at once.
        FitError: an earlier fit without solution, or no line of `only` in the fit range.
        InputFileError: the scan cannot be read.

    Example:
        >>> wider = hpcxrf.fit_amplitudes(cube, fit, theta={"fwhm_offset": 0.2})
        >>> wider.deviance > fit.deviance
        True
        >>> iron = hpcxrf.fit_amplitudes(cube, fit, only=["Fe"])
        >>> hpcxrf.amplitudes(iron)["Ca"] == hpcxrf.amplitudes(fit)["Ca"]
        True
    """
    from hpcxrf.pipeline.map_arguments import region_spectrum

    with errors_of("fit_amplitudes"):
        problem, changes = problem_of(fit), ThetaChanges(values=theta or {})
        check_theta(changes, problem.parameters)
        spectrum = region_spectrum(counts, fit, mask, detector)
        with one_thread():
            if only is None:
                return fit_at_theta(spectrum, fit, problem, start_theta(fit, changes))
            require_held(spectrum, fit, changes, only)
            return fit_components(fit, problem, split_names(only))


def amplitudes(fit: SpectrumFit) -> dict[str, Amplitude]:
    """Name the counts, uncertainty and detection limit of each component, in the order of the fit.

    The scatter peaks have their MAPS names, `COHERENT_SCT_AMPLITUDE` and `COMPTON_AMPLITUDE`.

    Example:
        >>> list(hpcxrf.amplitudes(fit))
        ['Si', 'Ca', 'Fe', 'COHERENT_SCT_AMPLITUDE', 'COMPTON_AMPLITUDE']
    """
    columns = (fit.amplitude.tolist(), fit.amplitude_sigma.tolist(), fit.detection_limit.tolist())
    rows = zip(fit.component_names, *columns, strict=True)
    return {name: Amplitude(value, sigma, limit) for name, value, sigma, limit in rows}


def decision_limits(fit: SpectrumFit) -> dict[str, float]:
    """Name the counts above which each component counts as found; an absent one exceeds them in one of twenty spectra.

    Currie's decision limit, about half of the detection limit: a component of the size of the detection limit is found
    in nineteen of twenty spectra.

    Example:
        >>> found = [n for n, limit in hpcxrf.decision_limits(fit).items() if hpcxrf.amplitudes(fit)[n].counts > limit]
        >>> "Fe" in found
        True
    """
    return dict(zip(fit.component_names, fit.decision_limit.tolist(), strict=True))


def parameters(fit: SpectrumFit) -> dict[str, Value]:
    """Name the fitted theta: value, uncertainty, unit.

    Example:
        >>> hpcxrf.parameters(fit)["energy_slope"].unit
        'keV/channel'
    """
    rows = zip(fit.parameter_names, fit.theta.tolist(), fit.theta_sigma.tolist(), fit.parameter_units, strict=True)
    return {name: Value(value, sigma, unit) for name, value, sigma, unit in rows}


def posterior(
    fit: SpectrumFit, *, chains: int = 4, warm_up: int = 400, draws: int = 500, seed: int = 0
) -> dict[str, "xr.Dataset"]:
    """Draw theta and amplitudes of a fit from their posterior by Hamiltonian Monte Carlo, chains side by side.

    The draws know counting noise and the priors of theta; flaws of the model are in the sigma of the fit alone. Line
    ratios are held where the fit left them. A spectrum of 1200 channels takes some minutes.

    Args:
        fit: a fit with a solution.
        chains: number of chains, at least 2.
        warm_up: draws of the adaptation, which are thrown away, at least 40.
        draws: draws of each chain, at least 8.
        seed: of the random numbers.

    Returns:
        Datasets `posterior` and `sample_stats` (chain, draw, ...), named as ArviZ names them, and `convergence` with
        R-hat (good below 1.01) and the effective number of draws of every quantity.

    Raises:
        FitError: a fit without solution, of a sum, or of another program; too few chains or draws.

    Example:
        >>> groups = hpcxrf.posterior(fit, chains=2, warm_up=40, draws=8)
        >>> groups["posterior"]["amplitude"].dims
        ('chain', 'draw', 'component')
    """
    from hpcxrf.fitting.spectrum.posterior import sample_posterior
    from hpcxrf.results.store.posterior import build_posterior_groups

    with errors_of("posterior"), one_thread():
        found = sample_posterior(fit, problem_of(fit), chains=chains, warm_up=warm_up, draws=draws, seed=seed)
    return build_posterior_groups(found)


def plot_fit(fit: SpectrumFit, *, scale: Literal["log", "linear"] = "log", title: str = "") -> "Figure":
    """Draw the spectrum with its fit, components and background, and the standardised residual under it.

    Args:
        fit: a fit with a solution.
        scale: scale of the counts axis.
        title: text above the picture.

    Returns:
        A matplotlib figure. Jupyter shows it after `%matplotlib inline`; `figure.savefig("fit.png")` keeps it.

    Raises:
        FitError: the fit has no solution to be drawn.

    Example:
        >>> hpcxrf.plot_fit(fit).savefig("fit.png")
    """
    from hpcxrf.results.report.fit_dataset import build_fit_dataset
    from hpcxrf.results.report.plots import draw_spectrum_figure

    require_solution(fit, "plot_fit")
    figure = draw_spectrum_figure(build_fit_dataset(fit, "", find_markers(fit)), "", scale)
    if title:
        figure.suptitle(title, x=0.01, ha="left", parse_math=False)
    return figure
