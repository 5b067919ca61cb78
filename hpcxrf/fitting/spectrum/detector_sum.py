"""The raw sum of all detectors, fitted with every detector's own calibration.

The sum's columns are `sum_d w_dc Phi_c(theta_d)`, w_dc the detector's share of component c: nothing is resampled, and
a peak that the sum smears is smeared in the model as well. One share for all components would not do: windows and
angles differ, and scatter reaches the detectors in other proportions than fluorescence.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hpcxrf.errors import FitError
from hpcxrf.fitting.objective import poisson_deviance, r_squared, r_squared_expected
from hpcxrf.fitting.pixels.basis import group_background
from hpcxrf.fitting.result import FitStatus, SpectrumFit
from hpcxrf.fitting.spectrum.integrated import fit_amplitudes
from hpcxrf.fitting.spectrum.judge import judge_fit
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.fitting.uncertainty import Variances, combine_variances, spectrum_uncertainty
from hpcxrf.notes import Note
from hpcxrf.physics.model import SpectrumModel, evaluate

_BACKGROUND_COLUMNS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class SumColumns:
    """Columns of the summed spectrum on the channels that all detectors were fitted in."""

    first_channel: int
    phi: Tensor
    """(channel, component)."""
    background: Tensor
    """(part, channel) counts."""
    share: Tensor
    """(detector,) share of all counts, 0 for a detector without counts."""


def evaluate_columns(fit: SpectrumFit, problem: FitProblem, channel: Tensor) -> Tensor:
    """Design matrix of a finished fit on given channels, (channel, component)."""
    model = SpectrumModel(
        table=fit.table, channel=channel, constants=problem.constants, elastic=problem.elastic, copies=fit.copies
    )
    # As the pixels' own models make them, to the last bit.
    return evaluate(fit.theta, model).phi


def sum_columns(fits: Sequence[SpectrumFit], problems: Sequence[FitProblem]) -> SumColumns:
    """Combine the detectors' columns, each component weighted by the detectors' shares of it.

    A component that no detector has takes the detectors' shares of all counts.

    Args:
        fits: one per detector; those without a solution have no share.
        problems: of the same detectors.

    Raises:
        FitError: no detector has a solution.
    """
    first, last = find_common_channels(fits)
    used = [i for i, fit in enumerate(fits) if fit.status in SOLVED]
    channel = torch.arange(first, last, dtype=torch.float64)
    share = _shares(fits)
    weights = component_shares(fits)
    phi = sum(
        (weights[i] * evaluate_columns(fits[i], problems[i], channel) for i in used),
        start=torch.zeros((), dtype=torch.float64),
    )
    parts = [
        group_background(
            fit.background_parts[:, first - fit.first_channel : last - fit.first_channel], _BACKGROUND_COLUMNS
        )
        for fit in (fits[i] for i in used)
        if fit.background_parts.shape[0] > 0
    ]
    size = max((p.shape[0] for p in parts), default=0)
    background = torch.zeros((size, last - first), dtype=torch.float64)
    for part in parts:
        background[: part.shape[0]] += part
    return SumColumns(first_channel=first, phi=phi, background=background, share=share)


def find_common_channels(fits: Sequence[SpectrumFit]) -> tuple[int, int]:
    """First channel that all detectors were fitted in, and the one after the last.

    Raises:
        FitError: no detector has a solution.
    """
    used = [fit for fit in fits if fit.status in SOLVED]
    if not used:
        raise FitError(
            "detector sum: no detector has counts in the fit range; check fit.energy_min_kev and fit.energy_max_kev"
        )
    first = max(fit.first_channel for fit in used)
    return first, min(fit.first_channel + fit.counts.shape[0] for fit in used)


def _shares(fits: Sequence[SpectrumFit]) -> Tensor:
    """(detector,) share of all counts, 0 for a detector without a solution."""
    share = torch.zeros(len(fits), dtype=torch.float64)
    for i, fit in enumerate(fits):
        if fit.status in SOLVED:
            share[i] = fit.counts.sum()
    return share / share.sum()


def component_shares(fits: Sequence[SpectrumFit]) -> Tensor:
    """(detector, component): each detector's part of a component's counts; columns add up to 1.

    A component that no detector has takes the detectors' shares of all counts.
    """
    share = _shares(fits)
    amplitude = torch.stack(
        [
            fit.amplitude.clamp(min=0.0).nan_to_num() if share[i] > 0 else fit.amplitude * 0.0
            for i, fit in enumerate(fits)
        ]
    ).nan_to_num()
    total = amplitude.sum(dim=0)
    return torch.where(total > 0, amplitude / total.clamp(min=1e-300), share[:, None])


SOLVED = (FitStatus.CONVERGED, FitStatus.MAX_ITERATIONS)


def fit_detector_sum(counts: Tensor, fits: Sequence[SpectrumFit], problems: Sequence[FitProblem]) -> SpectrumFit:
    """Fit amplitudes of the summed spectrum at every detector's own theta.

    Theta of the result is the mean over detectors, weighted by their counts, for the table only: the model
    used each one's own.

    Args:
        counts: (detector, channel) raw integrated counts, full spectra.
        fits: one per detector.
        problems: of the same detectors.

    Raises:
        FitError: no detector has a solution.
    """
    began = time.process_time()
    parts = sum_columns(fits, problems)
    total = parts.background.sum(dim=1).clamp(min=1e-300)
    columns = torch.cat([parts.phi, (parts.background / total[:, None]).T], dim=1)
    stop = parts.first_channel + columns.shape[0]
    used = parts.share > 0
    inside = counts[used][:, parts.first_channel : stop].to(torch.float64).sum(dim=0)
    unit, _ = fit_amplitudes(inside, columns, poisson=False)
    linear, positive = fit_amplitudes(inside, columns)
    expected, n = columns @ linear, parts.phi.shape[1]
    nothing = inside.new_zeros((inside.shape[0], 0))
    errors = spectrum_uncertainty(
        inside,
        expected,
        columns,
        nothing,
        linear[:n],
        moving=positive.new_zeros(0),
        positive_hats=positive[n:],
        prior_precision=inside.new_zeros(0),
    )
    background = columns[:, n:].T * linear[n:, None]
    mean = _average_theta(fits, parts.share)
    solved = [fit for fit, weight in zip(fits, parts.share.tolist(), strict=True) if weight > 0]
    errors = combine_variances(
        _sum_variances(errors.variances, solved, mean.theta_sigma),
        degrees_of_freedom=errors.degrees_of_freedom,
        reduced_chi2=errors.reduced_chi2,
    )
    fitted = replace(
        mean,
        amplitude=linear[:n],
        amplitude_sigma=errors.amplitude_sigma,
        detection_limit=errors.detection_limit,
        errors=errors,
        first_channel=parts.first_channel,
        counts=inside,
        model=expected,
        background=background.sum(dim=0),
        background_parts=background,
        component_counts=parts.phi.T * linear[:n, None],
        r2=float(r_squared(inside, columns @ unit)),
        r2_expected=float(r_squared_expected(inside)),
        reduced_chi2=errors.reduced_chi2,
        deviance=float(poisson_deviance(inside, expected)) / errors.degrees_of_freedom,
        status=FitStatus.CONVERGED,
        iterations=0,
        cpu_s=time.process_time() - began,
        ratios=None,
        flags=tuple(dict.fromkeys(flag for fit in solved for flag in fit.flags)),
        notes=(Note("fact", "theta shown for the sum is the mean over detectors; the fit used each detector's own"),),
    )
    return judge_fit(fitted)


def _sum_variances(own: Variances, fits: Sequence[SpectrumFit], theta_sigma: Tensor) -> Variances:
    """Counting noise and flaws of a sum.

    At fixed theta the sum knows nothing of what the calibrations add; the detectors' own fits do. Their counting noise
    is independent; most of their flaws are of the lines and of the sample, and the same in all of them.

    Args:
        own: of the sum's own fit, without flaws.
        fits: of its detectors.
        theta_sigma: (parameter,) of the mean over detectors.
    """
    parts = [fit.errors.variances for fit in fits if fit.errors is not None]
    if len(parts) < len(fits):
        raise FitError("detector sum: a fit has no errors to be summed; fit every detector with this program")
    size = torch.tensor([fit.model_error for fit in fits], dtype=torch.float64)
    k = float(size.mean())

    def add_noise(name: str) -> Tensor:
        of_detectors = torch.stack([getattr(part, name) for part in parts]).sum(dim=0)
        return torch.maximum(getattr(own, name), of_detectors)

    def add_flaws(name: str) -> Tensor:
        sd = torch.stack([getattr(part, name) for part in parts]).sqrt() * (size / k if k > 0.0 else size)[:, None]
        return sd.sum(dim=0).square()

    return Variances(
        amplitude=add_noise("amplitude"),
        amplitude_flaws=add_flaws("amplitude_flaws"),
        null=add_noise("null"),
        null_flaws=add_flaws("null_flaws"),
        photon=own.photon,
        theta=theta_sigma.square(),
        theta_flaws=torch.zeros_like(theta_sigma),
        visible=None,
        model_error=k,
    )


def _average_theta(fits: Sequence[SpectrumFit], share: Tensor) -> SpectrumFit:
    """The first solved fit, with theta, start and sigma averaged over detectors."""
    used = [i for i in range(len(fits)) if share[i] > 0]
    weights = share[used][:, None]

    def mean(name: str) -> Tensor:
        return (torch.stack([getattr(fits[i], name) for i in used]) * weights).sum(dim=0)

    spread = torch.stack([fits[i].theta_sigma for i in used])
    sigma = ((spread * weights) ** 2).nansum(dim=0).sqrt()
    return replace(
        fits[used[0]],
        theta=mean("theta"),
        theta_initial=mean("theta_initial"),
        theta_sigma=torch.where(spread.isnan().all(dim=0), torch.nan, sigma),
        at_bound=torch.stack([fits[i].at_bound for i in used]).any(dim=0),
    )
