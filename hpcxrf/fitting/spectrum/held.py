"""A spectrum fitted again with most of an earlier fit held: theta, or all but some components in their energy window.

What a fit by eye needs while a parameter is being moved: the amplitudes are linear, and theta is what the user says.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from hpcxrf.errors import FitError
from hpcxrf.fitting.nnls import nnls_gram
from hpcxrf.fitting.objective import poisson_deviance, poisson_weights, r_squared
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.detector_sum import SOLVED, evaluate_columns
from hpcxrf.fitting.spectrum.integrated import fit_spectrum
from hpcxrf.fitting.spectrum.judge import judge_fit
from hpcxrf.fitting.spectrum.problem import FitProblem, start_from
from hpcxrf.fitting.spectrum.theta import AXIS
from hpcxrf.fitting.uncertainty import Uncertainty, combine_variances, spectrum_uncertainty
from hpcxrf.notes import Note
from hpcxrf.physics.model import energy_kev
from hpcxrf.physics.parameters import Parameter

_LEAST_HEIGHT: Final = 0.02
"""Height of a component, in units of its highest channel, from which a channel is in its window: 2.8 standard
deviations about a line, and lines of at least 2 %."""
_PASSES: Final = 3
_OF_RANGE: Final = (*AXIS, "fwhm_offset", "fwhm_fanoprime")
"""Parameters whose start says where the fit range and the knots of the background are."""
_KNOWN: Final = 1e-9
"""Standard deviation of a value that is given, in steps of its row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Channels that some components are fitted in."""

    columns: Tensor
    """(channel, component) of the fit range."""
    inside: Tensor
    """(channel,) bool, of the fit range."""
    spans_kev: tuple[tuple[float, float], ...]
    """First and last energy of each connected part."""


def fit_at_theta(counts: Tensor, fit: SpectrumFit, problem: FitProblem, theta: Tensor) -> SpectrumFit:
    """Fit the amplitudes and the background of a spectrum at a given theta, line ratios as an earlier fit left them.

    The same search as that of theta, of which nothing is free: fit range, background and weights are its own. Sigma
    is that at this theta, and the flaws of the model are those that the earlier fit showed.

    Args:
        counts: (channel,) raw counts of the full spectrum.
        fit: an earlier fit with a solution, which gives line ratios.
        problem: problem of that fit.
        theta: (parameter,), finite.
    """
    posed = problem if not problem.find_axis else start_from(problem, fit.theta)
    rows = tuple(_hold(row, value) for row, value in zip(posed.parameters, theta.tolist(), strict=True))
    held = replace(
        posed,
        parameters=rows,
        table=fit.table,
        copies=fit.copies,
        method="separable",
        hold_ratios=True,
        model_error=fit.model_error if math.isfinite(fit.model_error) else None,
    )
    found = fit_spectrum(counts, held, starts=theta[None])
    return judge_fit(replace(found, ratios=fit.ratios, problem=problem))


def _hold(row: Parameter, value: float) -> Parameter:
    """A row that is not fitted, its bounds about the value.

    Fit range and background lie where the start of the search put them. What would be fitted is taken for known: its
    prior is no flaw of the model at this theta.
    """
    return replace(
        row,
        value=row.value if row.name in _OF_RANGE else value,
        free=False,
        prior_sd=_KNOWN * row.scale if row.free else row.prior_sd,
        lower=min(row.lower, value),
        upper=max(row.upper, value),
    )


def find_window(fit: SpectrumFit, problem: FitProblem, names: Sequence[str]) -> Window:
    """Find the channels of the fit range that show some components, whatever their amplitudes are.

    Args:
        fit: a fit with a solution; its theta places and widens the peaks.
        problem: problem of that fit.
        names: components of the fit.

    Raises:
        FitError: the fit range shows none of them.
    """
    n = fit.counts.shape[0]
    channel = torch.arange(fit.first_channel, fit.first_channel + n, dtype=torch.float64)
    places = [fit.component_names.index(name) for name in names]
    columns = evaluate_columns(fit, problem, channel)[:, places]
    inside = ((columns >= _LEAST_HEIGHT * columns.max(dim=0).values) & (columns > 0.0)).any(dim=1)
    if not bool(inside.any()):
        raise FitError(f"no line of {', '.join(names)} lies in the fit range; choose other components")
    return Window(columns=columns, inside=inside, spans_kev=_list_spans(inside, energy_kev(fit.theta, channel)))


def _list_spans(inside: Tensor, energy: Tensor) -> tuple[tuple[float, float], ...]:
    padded = torch.nn.functional.pad(inside.to(torch.int8), (1, 1))
    step = padded.diff()
    first, stop = torch.nonzero(step == 1)[:, 0].tolist(), torch.nonzero(step == -1)[:, 0].tolist()
    return tuple((float(energy[a]), float(energy[b - 1])) for a, b in zip(first, stop, strict=True))


def fit_components(fit: SpectrumFit, problem: FitProblem, names: Sequence[str]) -> SpectrumFit:
    """Fit the amplitudes of some components in their energy window, all else held: theta, background, all others.

    Args:
        fit: a fit with a solution, of the same counts.
        problem: problem of that fit.
        names: components of the fit.

    Returns:
        The fit with the new amplitudes and their sigma, which is that of the window with all else known.

    Raises:
        FitError: no line of theirs lies in the fit range, or the fit has no errors to change.
    """
    window = find_window(fit, problem, names)
    places = [fit.component_names.index(name) for name in names]
    columns = window.columns
    rest = fit.model - fit.component_counts[places].sum(dim=0)
    inside = window.inside
    linear = _solve(fit.counts[inside], rest[inside], columns[inside], fit.model[inside])
    component_counts = fit.component_counts.clone()
    component_counts[places] = columns.T * linear[:, None]
    model = rest + component_counts[places].sum(dim=0)
    amplitude = fit.amplitude.clone()
    amplitude[places] = linear
    errors = _renew_errors(fit, inside, columns, linear, model, places)
    spans = ", ".join(f"{low:.2f} to {high:.2f}" for low, high in window.spans_kev)
    said = f"only {', '.join(names)} fitted, in {spans} keV; theta, background and all other components are held"
    renewed = replace(
        fit,
        amplitude=amplitude,
        amplitude_sigma=errors.amplitude_sigma,
        detection_limit=errors.detection_limit,
        errors=errors,
        component_counts=component_counts,
        model=model,
        r2=float(r_squared(fit.counts, model)),
        reduced_chi2=errors.reduced_chi2,
        deviance=float(poisson_deviance(fit.counts, model)) / errors.degrees_of_freedom,
        iterations=0,
        notes=(*fit.notes, Note("fact", said)),
    )
    return judge_fit(renewed)


def _solve(counts: Tensor, rest: Tensor, columns: Tensor, expected: Tensor) -> Tensor:
    """Non-negative coefficients (column,) of what is left of the counts, Poisson weights of the whole model."""
    linear = columns.new_zeros(columns.shape[1])
    for _ in range(_PASSES):
        weighted = columns * poisson_weights(expected)[:, None]
        linear = nnls_gram(columns.T @ weighted, weighted.T @ (counts - rest)).x
        expected = rest + columns @ linear
    return linear


def _renew_errors(
    fit: SpectrumFit, inside: Tensor, columns: Tensor, linear: Tensor, model: Tensor, places: Sequence[int]
) -> Uncertainty:
    """Errors of the fit with the counting noise of a window for some components; their flaws stay."""
    if fit.errors is None or fit.status not in SOLVED:
        raise FitError("the fit has no errors to be changed; fit the spectrum with this program first")
    nothing = columns.new_zeros((int(inside.sum()), 0))
    found = spectrum_uncertainty(
        fit.counts[inside],
        model[inside],
        columns[inside],
        nothing,
        linear,
        moving=inside.new_zeros(0),
        positive_hats=inside.new_zeros(0),
        prior_precision=columns.new_zeros(0),
    )
    before = fit.errors.variances
    own = {name: getattr(before, name).clone() for name in ("amplitude", "null", "photon")}
    for name, values in own.items():
        values[list(places)] = getattr(found.variances, name)
    degrees = fit.errors.degrees_of_freedom
    chi2 = float((poisson_weights(model) * (fit.counts - model) ** 2).sum() / degrees)
    return combine_variances(
        replace(before, **own, visible=None, model_error=fit.errors.model_error),
        degrees_of_freedom=degrees,
        reduced_chi2=chi2,
        factor=1.0,
    )
