"""Numbers of the integrated fits that the record of a dataset keeps, for the trends of an archive."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.detector_sum import SOLVED
from hpcxrf.results.names import SUM
from hpcxrf.results.report.archive.facts import FitFacts, pack_fit_facts
from hpcxrf.store.spectra import SpectraStore


def describe_fits(fits: Mapping[str, SpectrumFit], store: SpectraStore) -> list[dict[str, Any]]:
    """JSON of the fits of single detectors that have a solution: free parameters, figures of merit, dead time.

    Args:
        fits: by detector; that of the sum, whose detectors have axes of their own, is left out.
        store: spectra of the scan.
    """
    dead = measure_dead_time(store)
    return pack_fit_facts(
        [_describe(name, fit, dead[int(name)]) for name, fit in fits.items() if name != SUM and fit.status in SOLVED]
    )


def measure_dead_time(store: SpectraStore) -> Sequence[float]:
    """Dead time of every detector over the scan, 1 - sum of live times / sum of real times; NaN where not known."""
    times = store.times()
    live, real = times.live_time_s.astype(np.float64), times.real_time_s.astype(np.float64)
    known = np.isfinite(live) & np.isfinite(real) & (real > 0)
    sums = [(np.where(known, one, 0.0)).sum(axis=(1, 2)) for one in (live, real)]
    return [1.0 - alive / total if total > 0 else math.nan for alive, total in zip(*sums, strict=True)]


def _describe(name: str, fit: SpectrumFit, dead_time: float) -> FitFacts:
    free = fit.free.tolist()
    columns = (fit.parameter_names, fit.theta.tolist(), fit.theta_sigma.tolist(), fit.parameter_units, free)
    rows = [row[:4] for row in zip(*columns, strict=True) if row[4]]
    return FitFacts(
        detector=name,
        theta={parameter: (value, sigma) for parameter, value, sigma, _ in rows},
        units={parameter: unit for parameter, _, _, unit in rows},
        r2=fit.r2,
        r2_expected=fit.r2_expected,
        deviance=fit.deviance,
        verdict=fit.verdict,
        dead_time=dead_time,
    )
