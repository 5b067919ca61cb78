"""Whether a fit can be believed: chi2 against what it should be, unexplained peaks, families at zero, the energy axis.

Limits were set on 130 fits: measured spectra, simulated ones of 1e3 to 1e8 counts with up to two unlisted elements,
the same with the strongest element left out of the list, and the same on an axis that was 6 % wrong. Of the right ones
50 of 60 are good, and none differs from its spectrum by more than 16 % beyond noise; those whose axis stayed wrong
differ by 41 % and more, those without their strongest element by 11 % and more.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor

from hpcxrf.fitting.axis.flags import AMBIGUOUS, INCIDENT_DOUBTFUL, NOT_FOUND
from hpcxrf.fitting.result import FitStatus, SpectrumFit
from hpcxrf.fitting.verdict import Verdict
from hpcxrf.physics.constants import PHYSICS
from hpcxrf.physics.model import SCATTER
from hpcxrf.physics.scatter import line_sigma_kev

DOUBTFUL_MISFIT: Final = 0.10
RUNNING_MISFIT: Final = 0.06
"""Misfit that is doubtful where the residual is no noise at all, but keeps its sign from peak to peak."""
WRONG_MISFIT: Final = 0.30
PEAK_Z: Final = 6.0
PEAK_SHARE: Final = 0.05
"""Counts of an unexplained peak in units of those of the strongest family."""
RUN_Z: Final = 6.0
ZERO_SHARE: Final = 0.7
LEAST_FAMILIES: Final = 5
"""Families that a list must have before how many of them are at zero says anything."""
_CHI2_SD: Final = 3.0
_MODEL_SD: Final = 0.02
"""Relative error of a model of a peak that is no news: a peak of the residual has to stand out from it."""
_BINS_PER_SIGMA: Final = 2.0
_KERNEL_SIGMAS: Final = 9.0
_AXIS: Final = ("energy_offset", "energy_slope", "coherent_sct_energy")
_VERDICTS: Final[Mapping[str, Verdict]] = MappingProxyType(
    {NOT_FOUND: Verdict.WRONG, AMBIGUOUS: Verdict.DOUBTFUL, INCIDENT_DOUBTFUL: Verdict.DOUBTFUL}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Binned:
    """Counts and model on bins of half the width of a line."""

    energy_kev: Tensor
    sigma_kev: Tensor
    counts: Tensor
    model: Tensor


def judge_fit(fit: SpectrumFit) -> SpectrumFit:
    """The fit with its verdict.

    Args:
        fit: any.

    Returns:
        The same fit; what `verdict` and `verdict_reasons` were before does not matter.
    """
    found = _judge(fit)
    verdict = max((one for one, _ in found), default=Verdict.GOOD)
    reasons = tuple(why for _, why in sorted(found, key=lambda one: -one[0]))
    return replace(fit, verdict=verdict, verdict_reasons=reasons)


def _judge(fit: SpectrumFit) -> list[tuple[Verdict, str]]:
    if fit.status is FitStatus.EMPTY:
        # A detector that was off is no wrong result of the others.
        return [(Verdict.NOT_JUDGED, "no counts in the fit range")]
    if fit.status not in {FitStatus.CONVERGED, FitStatus.MAX_ITERATIONS}:
        outcome = fit.status.name.lower().replace("_", " ")
        return [(Verdict.WRONG, f"the fit has no solution: {outcome}")]
    binned = bin_spectrum(fit)
    misfit = compute_misfit(binned, fit.count_factor)
    return [
        *_judge_axis(fit),
        *_judge_convergence(fit),
        *_judge_misfit(fit, misfit, binned),
        *_judge_peaks(fit, binned),
        *_judge_zeros(fit, misfit),
    ]


def compute_misfit(binned: Binned, count_factor: float = 1.0) -> float:
    """Root mean square of what fit and counts differ by, relative to the counts and beyond their noise.

    `sqrt((chi2 - 1) n / counts)` is what a relative error of the model makes of a chi2 per bin. It does not grow with
    the counts, as chi2 does; 3 standard deviations of chi2 are noise. The variance is that of the smoothed counts where
    these are above the model: a peak that is missing from the model counts by its share of all counts, and not by how
    little lies under it.

    Args:
        binned: counts and model.
        count_factor: variance of the counts over their mean.
    """
    n = binned.counts.shape[0]
    variance = count_factor * torch.maximum(binned.model, _smooth(binned)).clamp(min=1.0)
    chi2 = float(((binned.counts - binned.model) ** 2 / variance).mean())
    excess = (chi2 - 1.0 - _CHI2_SD * (2.0 / n) ** 0.5) * count_factor
    return math.sqrt(max(excess, 0.0) * n / max(float(binned.counts.sum()), 1.0))


def _smooth(binned: Binned) -> Tensor:
    """(bin,) counts averaged over a line."""
    return _average(binned.counts, _kernel(binned))


def _kernel(binned: Binned) -> Tensor:
    """Gaussians of the width of a line (bin, offset) about each bin, each adding up to 1; offset 0 in the middle.

    Beyond 9 sigma there is nothing.
    """
    energy = binned.energy_kev
    least = float(energy.diff().min()) if energy.shape[0] > 1 else 0.0
    reach = float(binned.sigma_kev.max()) * _KERNEL_SIGMAS
    half = min(math.ceil(reach / least), energy.shape[0]) if least > 0.0 else energy.shape[0]
    beside = _list_neighbours(energy, half, beyond=math.inf)
    kernel = torch.exp(-0.5 * ((beside - energy[:, None]) / binned.sigma_kev[:, None]).square())
    return kernel / kernel.sum(dim=1, keepdim=True)


def _list_neighbours(values: Tensor, half: int, *, beyond: float) -> Tensor:
    """Values (bin, offset) of the bins about each bin, and of those that are not there."""
    return torch.nn.functional.pad(values, (half, half), value=beyond).unfold(0, 2 * half + 1, 1)


def _average(values: Tensor, kernel: Tensor) -> Tensor:
    """Values (bin,) weighed by a kernel (bin, offset)."""
    return (kernel * _list_neighbours(values, kernel.shape[1] // 2, beyond=0.0)).sum(dim=1)


def _judge_axis(fit: SpectrumFit) -> list[tuple[Verdict, str]]:
    flags = [(_VERDICTS[flag], _explain(fit, flag)) for flag in fit.flags if flag in _VERDICTS]
    bounds = zip(fit.parameter_names, fit.at_bound.tolist(), strict=True)
    stuck = [name for name, at_bound in bounds if at_bound and name in _AXIS]
    if stuck:
        flags.append((Verdict.DOUBTFUL, f"{', '.join(stuck)} ended at a bound"))
    return flags


def _explain(fit: SpectrumFit, flag: str) -> str:
    """The sentence of the notes that explains a flag."""
    return next((note.text for note in fit.notes if note.text.startswith(f"{flag}:")), flag)


def _judge_convergence(fit: SpectrumFit) -> list[tuple[Verdict, str]]:
    if fit.status is FitStatus.CONVERGED:
        return []
    return [(Verdict.DOUBTFUL, f"the fit did not converge in {fit.iterations} steps")]


def _judge_misfit(fit: SpectrumFit, misfit: float, binned: Binned) -> list[tuple[Verdict, str]]:
    text = f"fit and counts differ by {misfit:.0%} (rms) beyond counting noise, reduced chi2 is {fit.reduced_chi2:.3g}"
    if misfit > WRONG_MISFIT:
        return [(Verdict.WRONG, text)]
    if misfit > DOUBTFUL_MISFIT:
        return [(Verdict.DOUBTFUL, text)]
    if misfit > RUNNING_MISFIT and _measure_runs(binned, fit.count_factor) > RUN_Z:
        return [(Verdict.DOUBTFUL, f"{text}, and the residual keeps its sign from peak to peak")]
    return []


def _judge_peaks(fit: SpectrumFit, binned: Binned) -> list[tuple[Verdict, str]]:
    families = [i for i, name in enumerate(fit.component_names) if name not in SCATTER]
    if not families:
        return []
    strongest = max(families, key=lambda i: float(fit.amplitude[i]))
    limit = PEAK_SHARE * max(float(fit.amplitude[strongest]), 1.0)
    found = [peak for peak in find_unexplained_peaks(binned, fit.count_factor) if peak[2] > limit]
    if not found:
        return []
    energy_kev, z, counts = max(found, key=lambda peak: peak[2])
    share = counts / max(float(fit.amplitude[strongest]), 1.0)
    text = (
        f"an unexplained peak at {energy_kev:.2f} keV ({z:.0f} standard deviations) has {share:.0%} of the counts of "
        f"{fit.component_names[strongest]}: an element is missing from the list, or the energy axis is wrong"
    )
    return [(Verdict.DOUBTFUL, text)]


def _judge_zeros(fit: SpectrumFit, misfit: float) -> list[tuple[Verdict, str]]:
    families = [i for i, name in enumerate(fit.component_names) if name not in SCATTER]
    at_zero = [i for i in families if not bool(fit.found[i])]
    if len(families) < LEAST_FAMILIES or len(at_zero) < ZERO_SHARE * len(families):
        return []
    given = fit.problem is not None and not fit.problem.find_axis
    if given and misfit <= DOUBTFUL_MISFIT:
        # A calibration that holds, and a list of more than the sample has.
        return []
    verdict = Verdict.WRONG if misfit > DOUBTFUL_MISFIT else Verdict.DOUBTFUL
    return [(verdict, f"{len(at_zero)} of {len(families)} listed families are not found")]


def find_unexplained_peaks(binned: Binned, count_factor: float = 1.0) -> list[tuple[float, float, float]]:
    """Peaks of the residual that have the width of a line: (energy_kev, standard deviations, counts), highest first.

    A matched filter, its noise that of the counts and of a model that is 2 % off within the width of a line.
    """
    kernel = _kernel(binned)
    residual = _average(binned.counts - binned.model, kernel)
    noise2 = _average(count_factor * binned.model.clamp(min=1.0), kernel * kernel)
    z = residual / (noise2 + (_MODEL_SD * _average(binned.model, kernel)) ** 2).sqrt()
    counts = residual / (kernel * kernel).sum(dim=1)
    higher = torch.nn.functional.max_pool1d(z[None, None], 5, stride=1, padding=2)[0, 0]
    peaks = torch.nonzero((z > PEAK_Z) & (z >= higher))[:, 0].tolist()
    return [(float(binned.energy_kev[i]), float(z[i]), float(counts[i])) for i in sorted(peaks, key=lambda i: -z[i])]


def _measure_runs(binned: Binned, count_factor: float) -> float:
    """Correlation of neighbours in the residual, bins one sigma wide, in standard deviations of that of noise."""
    noise = (count_factor * binned.model.clamp(min=1.0)).sqrt()
    pull = (binned.counts - binned.model) / noise
    step = round(_BINS_PER_SIGMA)
    n = pull.shape[0] // step
    wide = pull[: n * step].reshape(n, step).sum(dim=1)
    square = float((wide * wide).sum())
    return float((wide[1:] * wide[:-1]).sum()) / square * n**0.5 if square > 0.0 else 0.0


def bin_spectrum(fit: SpectrumFit) -> Binned:
    """Bins of half the sigma of a line at the low end of the range; a part of a bin at the upper end is left out."""
    constants = PHYSICS if fit.problem is None else fit.problem.constants
    theta = dict(zip(fit.parameter_names, fit.theta.tolist(), strict=True))
    channel = fit.first_channel + torch.arange(fit.counts.shape[0], dtype=torch.float64)
    slope, bend = theta["energy_slope"], theta.get("energy_quadratic", 0.0)
    energy_kev = theta["energy_offset"] + channel * (slope + channel * bend)
    sigma_kev = line_sigma_kev(fit.theta, energy_kev.clamp(min=0.1), constants)
    size = max(1, int(float(sigma_kev.min()) / (_BINS_PER_SIGMA * slope)))
    n = channel.shape[0] // size

    def rebin(values: Tensor) -> Tensor:
        return values[: n * size].reshape(n, size).sum(dim=1)

    return Binned(
        energy_kev=rebin(energy_kev) / size,
        sigma_kev=rebin(sigma_kev) / size,
        counts=rebin(fit.counts),
        model=rebin(fit.model),
    )
