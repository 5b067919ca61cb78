"""Maps whose sums are too high: amplitudes that cannot be negative come out high where a component is faint or absent.

Half of what noise does to a component that is not there would be negative, and is cut off: what is left adds up over
the pixels. The fit of the summed spectrum has no such bias, so that the two are compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.config.pixels import PixelConfig
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.methods import METHODS
from hpcxrf.notes import Note
from hpcxrf.results.names import name_detector, shown_name

LEAST_SIGMA: Final = 3.0
LEAST_SHARE: Final = 0.03
"""Of the summed spectrum's amplitude."""
_MOST_NAMED: Final = 6
# Times what is there, from which on a percentage says nothing.
_MOST_TIMES: Final = 10.0

Counts = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Excess:
    """A component whose map adds up to more than there is."""

    component: str
    counts: float
    """Sum of the map."""
    expected: float
    """Amplitude of the fit of the summed spectrum."""
    sigma: float
    """Standard uncertainty of the difference, at most."""

    @property
    def text(self) -> str:
        """The excess in a few words."""
        over = self.counts - self.expected
        relative = f" +{100 * over / self.expected:.0f} %" if over < _MOST_TIMES * self.expected else ""
        known = f"{self.counts:.4g} counts, not {self.expected:.4g} ± {self.sigma:.2g}"
        return f"{shown_name(self.component)}{relative} ({known})"


def can_exceed(config: PixelConfig) -> bool:
    """Whether maps of this method may add up to too much: those that are not below 0, or have a clipped background."""
    return METHODS[config.method].non_negative or config.background == "snip"


def find_excess(
    components: Sequence[str], total: Counts, variance: Counts, amplitude: Counts, sigma: Counts
) -> list[Excess]:
    """Components whose maps add up to more than three sigmas and 3 % above the summed spectrum's amplitude.

    Args:
        components: names.
        total: (component,) sums of the maps.
        variance: (component,) sums of the pixels' squared uncertainties.
        amplitude: (component,) of the fit of the summed spectrum, recorded counts.
        sigma: (component,) its uncertainties.
    """
    # Both are of the same counts: the larger uncertainty is not exceeded by chance.
    error = np.sqrt(np.maximum(np.nan_to_num(sigma) ** 2, variance))
    over = total - amplitude
    high = (over > LEAST_SIGMA * error) & (over > LEAST_SHARE * np.maximum(amplitude, 0.0)) & (error > 0)
    return [
        Excess(component=components[i], counts=float(total[i]), expected=float(amplitude[i]), sigma=float(error[i]))
        for i in sorted(np.flatnonzero(high).tolist(), key=lambda i: -over[i] / error[i])
    ]


def describe_excess(detector: str, found: Sequence[Excess], config: PixelConfig) -> list[Note]:
    """Warn of maps that add up to too much; nothing where none does.

    Args:
        detector: name of the detector, or `sum`.
        found: those of `find_excess`.
        config: section `pixels` of the run file.
    """
    if not found:
        return []
    place = name_detector(detector)
    named = ", ".join(one.text for one in found[:_MOST_NAMED])
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    why = (
        "amplitudes that cannot be negative come out high where they are faint"
        if METHODS[config.method].non_negative
        else "a background that is clipped in every pixel leaves too much"
    )
    text = (
        f"{place}: maps of {config.method} add up to more than the fit of the summed spectrum: {named}{more}; {why}; "
        "take sums and means from pixel method linear, or from regions"
    )
    return [Note("warning", text)]


def check_arrays(
    detector: str, fit: SpectrumFit, amplitude: NDArray[Any], sigma: NDArray[Any], config: PixelConfig
) -> list[Note]:
    """Compare maps in memory with the fit of their summed spectrum.

    Args:
        detector: name of the detector, or `sum`.
        fit: fit of the summed spectrum.
        amplitude: (component, y, x).
        sigma: (component, y, x).
        config: section `pixels` of the run file.
    """
    if not can_exceed(config):
        return []
    total = np.asarray(np.nansum(amplitude, axis=(1, 2), dtype=np.float64))
    variance = np.asarray(np.nansum(sigma.astype(np.float64) ** 2, axis=(1, 2)))
    expected, error = fit.amplitude.numpy(), fit.amplitude_sigma.numpy()
    return describe_excess(detector, find_excess(fit.component_names, total, variance, expected, error), config)
