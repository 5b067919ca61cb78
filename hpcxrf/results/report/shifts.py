"""Pictures of theta's shifts, where every pixel has a theta of its own."""

from dataclasses import replace
from typing import Final

import numpy as np
import xarray as xr

from hpcxrf.fitting.status import FitStatus
from hpcxrf.results.report.thumbnails import FloatArray, MapSummary, block_mean
from hpcxrf.store.schema import BLOCK_Y

_PER_THOUSAND: Final = {"keV": "eV", "keV/channel": "eV/channel"}
BEYOND: Final = "pixels beyond"


def summarise_shifts(maps: xr.Dataset, summary: MapSummary) -> MapSummary | None:
    """Pictures of the shifts, and of the share of pixels that drifted farther than they can be followed.

    Args:
        maps: group `maps` of a results store.
        summary: of the same detector's maps.

    Returns:
        The summary with these pictures in place of the components'; None where all pixels have the scan's theta.
    """
    if "theta_shift" not in maps:
        return None
    one = maps[["theta_shift", "status"]].sel(detector=summary.detector)
    names, scales = [], []
    for name, unit in zip(one["parameter"].values, one["parameter_unit"].values, strict=True):
        scales.append(1000.0 if str(unit) in _PER_THOUSAND else 1.0)
        names.append(f"{name}, {_PER_THOUSAND.get(str(unit), str(unit))}")
    rows = summary.factor * max(1, BLOCK_Y // summary.factor)
    bands = [
        _read_band(one.isel(y=slice(y, y + rows)), np.array(scales), summary.factor)
        for y in range(0, one.sizes["y"], rows)
    ]
    pictures = np.concatenate(bands, axis=-2)
    beyond = summary.status_counts[FitStatus.BEYOND_TANGENT] > 0
    shown = (*names, BEYOND) if beyond else tuple(names)
    found = np.ones(len(shown), dtype=np.bool_)
    return replace(summary, components=shown, pictures=pictures[: len(shown)], found=found)


def _read_band(band: xr.Dataset, scales: FloatArray, factor: int) -> FloatArray:
    """The shifts of the fitted pixels, then 1 where a pixel is beyond."""
    status = band["status"].values
    shift = band["theta_shift"].values.astype(float) * scales[:, None, None]
    fitted = np.isfinite(shift).all(axis=0)
    beyond = np.where(fitted, (status == FitStatus.BEYOND_TANGENT).astype(float), np.nan)
    return block_mean(np.concatenate([shift, beyond[None]]), factor)
