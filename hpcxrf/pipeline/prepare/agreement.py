"""Detectors of one scan that disagree with the others beyond what errors and geometry explain.

All detectors see the same sample: their spectra fit about as well, and their elements have about the same ratios. One
with diffraction peaks, a drifting amplifier or a wrong axis does not, and spoils the sum of all.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from hpcxrf.config.detectors import DetectorsConfig
from hpcxrf.fitting.result import FitStatus, SpectrumFit
from hpcxrf.fitting.spectrum.detector_sum import SOLVED
from hpcxrf.physics.model import SCATTER

# Share of the variance of a spectrum that the model leaves beyond counting noise: absolute, and against the others.
_UNEXPLAINED: Final = 0.02
_TIMES_UNEXPLAINED: Final = 10.0
_TIMES_CHI2: Final = 10.0
# An element counts as another amount where it differs by half of it, by this share of all elements' counts, by ten
# times its error, and by twice what the other detectors differ among themselves, all of them: two kinds of detectors
# that see other parts of the sample are no fault of either.
_HALF: Final = 0.5
_OF_ALL: Final = 0.02
_TIMES_SIGMA: Final = 10.0
_TIMES_SPREAD: Final = 2.0
# Windows and angles differ from detector to detector: below, lines are absorbed too differently to be compared.
_COMPARED_KEV: Final = 3.0
_LEAST_TO_COMPARE: Final = 3


def find_disagreeing(fits: Sequence[SpectrumFit], excluded: Collection[int] = ()) -> dict[int, str]:
    """Find detectors that the sum is better made without, with the evidence.

    Args:
        fits: fits of the summed spectra, one a detector, all with the same components.
        excluded: numbers of detectors that are no part of the sum anyway.
    """
    used = [d for d, fit in enumerate(fits) if fit.status in SOLVED and d not in excluded]
    misfits = {d: text for d in used if (text := _describe_misfit(d, fits, used))}
    alike = [d for d in used if d not in misfits]
    ratios = {d: text for d in alike if (text := _describe_ratio(d, fits, alike))}
    # A minority is wrong; where it is a half nobody knows which.
    if 2 * len(ratios) >= len(alike):
        ratios = {}
    found = misfits | ratios
    return {d: found[d] for d in sorted(found)}


def find_left_out(fits: Sequence[SpectrumFit], config: DetectorsConfig) -> dict[int, str]:
    """Reasons by detector of those that the sum is made without: excluded, or in disagreement with the others.

    Args:
        fits: fits of the summed spectra, one a detector, all with the same components.
        config: section `detectors` of a run file.
    """
    reasons = dict.fromkeys(config.exclude, "excluded by the run file")
    return reasons | (find_disagreeing(fits, config.exclude) if config.judge else {})


def describe_left_out(
    left_out: Mapping[int, str], config: DetectorsConfig, n_detectors: int, *, summed: bool
) -> list[str]:
    """Sentences on detectors that disagree; those that the run file excludes are known to who wrote it.

    Args:
        left_out: reasons of `find_left_out`.
        config: section `detectors` of a run file.
        n_detectors: detectors of the scan.
        summed: the sum of the detectors is wanted.
    """
    parts = f"is left out of the sum, which is that of the other {n_detectors - len(left_out)}"
    end = parts if summed else "its maps are doubtful; detectors.exclude leaves it out"
    return [
        f"detector {d} disagrees with the others and {end}: {reason}"
        for d, reason in left_out.items()
        if d not in config.exclude
    ]


def without_detectors(fits: Sequence[SpectrumFit], left_out: Collection[int]) -> list[SpectrumFit]:
    """The fits as their sum is made of them: those of detectors that are left out have no solution."""
    return [replace(fit, status=FitStatus.EMPTY) if d in left_out else fit for d, fit in enumerate(fits)]


def without_detector_names(fits: Mapping[str, SpectrumFit], left_out: Collection[int]) -> dict[str, SpectrumFit]:
    """The same of fits by name."""
    names = {str(d) for d in left_out}
    return {name: replace(fit, status=FitStatus.EMPTY) if name in names else fit for name, fit in fits.items()}


def _describe_misfit(detector: int, fits: Sequence[SpectrumFit], used: Sequence[int]) -> str:
    """Evidence that a detector's spectrum is not one of these elements, where those of the others are; else empty."""
    others = [fits[d] for d in used if d != detector]
    if not others:
        return ""
    mine = fits[detector]
    usual = max(_median([_unexplained(fit) for fit in others]), 0.0)
    usual_chi2 = max(_median([fit.reduced_chi2 for fit in others]), 1.0)
    left = _unexplained(mine)
    enough = left > max(_UNEXPLAINED, _TIMES_UNEXPLAINED * usual) and mine.reduced_chi2 > _TIMES_CHI2 * usual_chi2
    if not enough:
        return ""
    return (
        f"R2 {mine.r2:.4f} and reduced chi2 {mine.reduced_chi2:.3g}, where the other detectors have "
        f"{_median([fit.r2 for fit in others]):.4f} and {usual_chi2:.3g}"
    )


def _unexplained(fit: SpectrumFit) -> float:
    return max(fit.r2_expected - fit.r2, 0.0)


def _describe_ratio(detector: int, fits: Sequence[SpectrumFit], used: Sequence[int]) -> str:
    """Evidence that a detector has another amount of an element than the others agree on; else empty."""
    compared = _compared_components(fits[detector])
    if len(used) < _LEAST_TO_COMPARE or len(compared) < 2:
        return ""
    share, error = zip(*(_shares(fits[d], compared) for d in used if d != detector), strict=True)
    theirs = torch.stack(share)
    usual, spread = theirs.median(dim=0).values, _spread(theirs)
    mine, sigma = _shares(fits[detector], compared)
    clear = usual > _TIMES_SIGMA * torch.stack(error).median(dim=0).values
    if not bool(clear.any()):
        return ""
    # What most elements have in common is the detector's own share of all counts.
    scale = (mine[clear] / usual[clear]).median()
    if not float(scale) > 0.0:
        return ""
    difference = mine - scale * usual
    least = torch.stack([_HALF * scale * usual, _OF_ALL * torch.ones_like(usual), _TIMES_SIGMA * sigma])
    wrong = difference.abs() > torch.maximum(least.max(dim=0).values, _TIMES_SPREAD * scale * spread)
    if not bool(wrong.any()):
        return ""
    worst = int(torch.where(wrong, difference.abs(), 0.0).argmax())
    name = fits[detector].component_names[compared[worst]]
    return (
        f"{name} makes {100 * float(mine[worst]):.3g} % of the counts of all elements, where the other detectors have "
        f"{100 * float(scale * usual[worst]):.3g} %"
    )


def _compared_components(fit: SpectrumFit) -> list[int]:
    """Places of the elements whose strongest line is seen alike by all detectors: neither scatter nor soft lines."""
    table, places = fit.table, []
    for i, name in enumerate(fit.component_names):
        if name in SCATTER:
            continue
        lines = torch.nonzero((table.component == i) & (table.escape_parent < 0))[:, 0]
        if len(lines) > 0 and float(table.energy_kev[lines[table.ratio[lines].argmax()]]) >= _COMPARED_KEV:
            places.append(i)
    return places


def _shares(fit: SpectrumFit, places: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Shares (component,) of some elements in the counts of all of them, and their sigma."""
    amplitude = fit.amplitude[list(places)]
    total = amplitude.clamp(min=0.0).sum().clamp(min=1.0)
    return amplitude / total, fit.amplitude_sigma[list(places)].nan_to_num() / total


def _spread(values: Tensor) -> Tensor:
    """Largest difference (component,) between the rows."""
    return values.amax(dim=0) - values.amin(dim=0)


def _median(values: Sequence[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).median())
