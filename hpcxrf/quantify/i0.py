"""The incident flux of every pixel, as an ion chamber or a ring current tells it.

A scaler counts while its own gate is open, which is neither the real time nor the live time of a detector: in the first
column of a fly scan the gate was 2.55 times, the live time 2.43 times that of the others; in a step scan of the same
beamline the gate was 1.0 s and the real time 0.5 s. So a count is divided by the clock that counted with it.

This module loads numpy only: a plan reads scalers with it.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

FloatMap = NDArray[np.float64]

_STEPS: Final = np.array([1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0])
_UNITS_A_PER_V: Final = np.array([1e-12, 1e-9, 1e-6, 1e-3])


@dataclass(frozen=True, slots=True, kw_only=True)
class I0:
    """Incident flux of some pixels."""

    rate: FloatMap
    """(y, x): counts per second of a count, else the scaler's own unit; NaN where it was not measured or is not
    positive."""
    sigma: FloatMap
    """(y, x): standard uncertainty by counting, same unit; 0 where it is not known."""


def compute_i0_rate(
    values: FloatMap, *, kind: Literal["count", "rate"], gate_s: FloatMap | float | None, gain: FloatMap | float = 1.0
) -> I0:
    """Turn the values of a scaler into a rate with its counting error.

    The error is sqrt(N) of N counts. Where a count is that of a converter from voltage to frequency, N is not a number
    of photons, and the error is that of the digits and of noise as large as theirs: a lower limit.

    Args:
        values: (y, x) of the scaler.
        kind: `count`: number of counts while the gate was open; `rate`: counts per second, or a current.
        gate_s: seconds that the gate was open, (y, x) or one number; None: not known, which a count cannot do without.
        gain: factor for the sensitivity of an amplifier against that of the reference.

    Raises:
        ValueError: a count without its gate.
    """
    if kind == "count" and gate_s is None:
        raise ValueError("a count needs the seconds of its gate")
    gate = np.broadcast_to(np.asarray(np.nan if gate_s is None else gate_s, dtype=np.float64), values.shape)
    timed, factor = gate > 0.0, np.broadcast_to(np.asarray(gain, dtype=np.float64), values.shape)
    seconds = np.where(timed, gate, np.nan)
    rate = values / seconds if kind == "count" else np.asarray(values, dtype=np.float64)
    known = np.isfinite(rate) & (rate > 0.0) & np.isfinite(factor) & (factor > 0.0)
    rate = np.where(known, rate, np.nan)
    # Of a current no number of counts is known.
    sigma = np.sqrt(rate / seconds) if gate_s is not None else np.where(known, 0.0, np.nan)
    return I0(rate=rate * factor, sigma=np.where(np.isfinite(sigma), sigma, 0.0) * factor)


def compute_gate_s(clock: FloatMap, clock_hz: float) -> FloatMap:
    """Seconds (y, x) that a clock of so many ticks a second counted; NaN where it did not count."""
    return np.where(np.isfinite(clock) & (clock > 0.0), clock, np.nan) / clock_hz


def find_sensitivity_a_per_v(number: FloatMap, unit: FloatMap) -> FloatMap:
    """Sensitivity (y, x) of an SR570 in A/V from the places of number and unit in its lists; NaN where there is none.

    Args:
        number: place in 1, 2, 5, 10, 20, 50, 100, 200, 500.
        unit: place in pA/V, nA/V, uA/V, mA/V.
    """
    places = np.isfinite(number) & np.isfinite(unit)
    n, u = (np.where(places, one, -1).astype(np.int64) for one in (number, unit))
    inside = places & (n >= 0) & (n < len(_STEPS)) & (u >= 0) & (u < len(_UNITS_A_PER_V))
    values = _STEPS[n.clip(0, len(_STEPS) - 1)] * _UNITS_A_PER_V[u.clip(0, len(_UNITS_A_PER_V) - 1)]
    return np.where(inside, values, np.nan)


def average_i0(i0: I0, weight: FloatMap | None = None) -> tuple[float, float]:
    """Mean I0 over the pixels where it is known, and its counting error.

    Args:
        i0: of all pixels.
        weight: (y, x) weight of each, its live time for a spectrum that is the sum of them; None: 1.

    Returns:
        Mean and standard uncertainty; NaN where no pixel has an I0.
    """
    weights = np.ones_like(i0.rate) if weight is None else np.where(weight > 0.0, weight, 0.0)
    weights = np.where(np.isfinite(i0.rate), weights, 0.0)
    total = float(weights.sum())
    if not total > 0.0:
        return float("nan"), float("nan")
    mean = float((weights * np.nan_to_num(i0.rate)).sum()) / total
    return mean, float(np.sqrt(((weights * i0.sigma) ** 2).sum())) / total
