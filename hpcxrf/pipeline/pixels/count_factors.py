"""How the counts of a scan scatter: as raw counts do, or with a factor that sigma, limits and deviance carry."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from hpcxrf.fitting.count_scale import estimate_count_scale
from hpcxrf.pipeline.pixels.choices import sample_pixels
from hpcxrf.pipeline.pixels.findings import Findings, read_good_block

if TYPE_CHECKING:
    # It loads zarr, which a fit of one file has no need of.
    from hpcxrf.store.spectra import Spectra

_SCATTER_PIXELS: Final = 512
# Whole counts are raw unless they scatter beyond what raw ones of any map were found to.
_WHOLE_FROM: Final = 0.7
_WHOLE_TO: Final = 1.4
# Fractions are scaled; less than this is not worth carrying.
_FRACTION_LEAST: Final = 0.1


def find_count_factors(
    spectra: "Spectra", ranges: Mapping[int, slice], findings: Findings
) -> tuple[dict[str, float], list[str]]:
    """Measure the variance over mean of the counts of each detector.

    Args:
        spectra: the scan; some hundred pixels are read.
        ranges: channels of the fit range by detector.
        findings: outlier pixels, which have no part in it.

    Returns:
        Factors by name of the detector where they are not those of raw counts, and sentences on them.
    """
    factors, texts = dict[str, float](), []
    whole = spectra.dtype.kind == "u"
    for d, within in ranges.items():
        factor = _measure_factor(spectra, d, within, findings)
        if _is_scaled(factor, whole=whole):
            factors[str(d)] = float(factor or 1.0)
        if text := _describe_factor(d, factor, whole=whole):
            texts.append(text)
    return factors, texts


def average_factor(factors: Mapping[str, float], spectra: "Spectra", detectors: Iterable[int]) -> float:
    """Variance over mean of the sum of some detectors, from those of each.

    Args:
        factors: by name of the detector; one that is not named has 1.
        spectra: the scan.
        detectors: numbers of those that are summed.
    """
    counts = {str(d): float(spectra.integrated(d).sum()) for d in detectors}
    return sum(factors.get(name, 1.0) * number for name, number in counts.items()) / sum(counts.values())


def _measure_factor(spectra: "Spectra", detector: int, within: slice, findings: Findings) -> float | None:
    counts, measured = sample_pixels(
        spectra, str(detector), within, lambda store, block, name: read_good_block(store, block, name, findings)
    )
    good = counts[measured]
    some = good[:: max(1, len(good) // _SCATTER_PIXELS)]
    scale = estimate_count_scale(torch.from_numpy(some.astype(np.float64)))
    return None if scale is None else scale.factor


def _is_scaled(factor: float | None, *, whole: bool) -> bool:
    if factor is None:
        return False
    return not _WHOLE_FROM < factor < _WHOLE_TO if whole else abs(factor - 1.0) > _FRACTION_LEAST


def _describe_factor(detector: int, factor: float | None, *, whole: bool) -> str:
    if factor is None:
        unknown = "there are too few pixels to measure how they scatter, and sigma is that of raw counts"
        return "" if whole else f"detector {detector}: counts are not whole, as if corrected or scaled; {unknown}"
    if not _is_scaled(factor, whole=whole):
        kept = "they scatter as raw counts do, and sigma is that of raw counts"
        return "" if whole else f"detector {detector}: counts are not whole, as if corrected or scaled; {kept}"
    what = "counts scatter" if whole else "counts are not whole and scatter"
    return (
        f"detector {detector}: {what} with {factor:.3g} times the variance of raw counts, as corrected or scaled "
        f"counts do; sigma is {factor**0.5:.3g} times that of raw counts, and limits and deviance carry the factor"
    )
