"""What a fit of an integrated spectrum is given beside its counts."""

from dataclasses import dataclass
from typing import Literal

from hpcxrf.errors import FitError
from hpcxrf.physics.constants import ConstantSet
from hpcxrf.physics.lines import LineTable
from hpcxrf.physics.parameters import Parameter

Background = Literal["hats", "snip", "none"]
Method = Literal["separable", "adam", "sbplx"]
Objective = Literal["poisson", "mse", "l1"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectrumSetup:
    """Everything that a fit of one detector's spectrum needs beside its counts."""

    table: LineTable
    constants: ConstantSet
    parameters: tuple[Parameter, ...]
    """Starting values, bounds and priors of theta."""
    energy_min_kev: float
    energy_max_kev: float
    background: Background = "hats"
    method: Method = "separable"
    objective: Objective = "poisson"
    """What theta and amplitudes minimise in the end; R2 is always that of the mean-square optimum."""
    kbeta_sd: float = 0.0
    """Relative width of the prior that ties K-beta to K-alpha lines; 0: their ratio is that of the table."""
    elastic: bool = True
    """False for a tube source."""


def fit_range(
    parameters: tuple[Parameter, ...], energy_min_kev: float, energy_max_kev: float, n_channels: int
) -> tuple[int, int]:
    """First and last channel (both included) of an energy range, at the starting calibration.

    Raises:
        FitError: the range is empty or lies outside the spectrum; both are named.
    """
    values = {p.name: p.value for p in parameters}
    offset, slope = values["energy_offset"], values["energy_slope"]
    bend = values["energy_quadratic"]
    first, last = (_channel_at(energy, offset, slope, bend) for energy in (energy_min_kev, energy_max_kev))
    low, high = max(first, 0), min(last, n_channels - 1)
    if energy_min_kev >= energy_max_kev or high - low + 1 < 50:
        raise FitError(
            f"fit range {energy_min_kev:g} to {energy_max_kev:g} keV is channels {first} to {last}, but the "
            f"spectrum has channels 0 to {n_channels - 1} ({offset:g} to "
            f"{offset + slope * (n_channels - 1):g} keV): give a range of at least 50 channels inside it"
        )
    return low, high


def _channel_at(energy_kev: float, offset: float, slope: float, bend: float) -> int:
    """Nearest channel; the bend of an axis is small, two steps are enough."""
    straight = (energy_kev - offset) / slope
    channel = straight
    for _ in range(2):
        channel = straight - bend * channel**2 / slope
    return round(channel)
