"""The picture of how well the pixels are fitted: their deviance beside what noise alone gives."""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import xarray as xr

from hpcxrf.results.report.thumbnails import MapSummary, block_mean
from hpcxrf.store.schema import BLOCK_Y

TITLE: Final = "deviance above noise"
UNIT: Final = "σ"
LIMITS: Final = (-3.0, 9.0)
"""Ends of its colours: the same on every page, so that scans compare."""
TICKS: Final = (0.0, 3.0, 6.0)
BAD: Final = 3.0
"""Standard deviations above which a pixel is fitted worse than noise explains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Misfits:
    """The picture, and what it says in numbers."""

    summary: MapSummary
    """The detector's, with this picture in place of the components'."""
    median: float
    bad_share: float
    """Share of the fitted pixels above `BAD`, 0 to 1."""


def summarise_misfits(maps: xr.Dataset, summary: MapSummary) -> Misfits | None:
    """Summarise how far the deviance of the pixels is from its expectation.

    Args:
        maps: group `maps` of a results store.
        summary: of the same detector's maps.

    Returns:
        None where it is not known: no deviance, counts that are not raw, or the results of an earlier version.
    """
    if "deviance_z" not in maps:
        return None
    one = maps["deviance_z"].sel(detector=summary.detector)
    rows = summary.factor * max(1, BLOCK_Y // summary.factor)
    bands = [one.isel(y=slice(y, y + rows)).values for y in range(0, one.sizes["y"], rows)]
    known = np.concatenate([band[np.isfinite(band)] for band in bands])
    if known.size == 0:
        return None
    picture = np.concatenate([block_mean(band, summary.factor) for band in bands])
    shown = replace(
        summary, components=(TITLE,), pictures=picture[None], median_sigma=np.ones(1), found=np.ones(1, dtype=np.bool_)
    )
    return Misfits(summary=shown, median=float(np.median(known)), bad_share=float(np.mean(known > BAD)))
