"""The problem that a fit of an integrated spectrum solves: everything but the counts."""

from dataclasses import dataclass, field, replace
from typing import Final, Literal

from torch import Tensor

from hpcxrf.errors import FitError
from hpcxrf.physics.anode_scatter import ScatterCopies
from hpcxrf.physics.branching import Branching
from hpcxrf.physics.constants import ConstantSet
from hpcxrf.physics.detector import Detector
from hpcxrf.physics.lines import LineTable
from hpcxrf.physics.parameters import Parameter, replace_values

LEAST_CHANNELS: Final = 50
"""Fewest channels of a fit range."""

Background = Literal["hats", "snip", "none"]
Method = Literal["separable", "adam", "sbplx"]
Objective = Literal["poisson", "mse", "l1"]
Source = Literal["monochromatic", "tube"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitProblem:
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
    """Relative width of the prior that ties K-beta to K-alpha lines of one family; 0: the usual one, 5 %."""
    elastic: bool = True
    """True: there is one elastic peak, at the incident energy; False for a tube source."""
    copies: ScatterCopies | None = None
    """Lines of a tube's anode as the sample scatters them; None where the anode is not known, or there is no tube."""
    snip_width: float | None = None
    """Half-width of the peak clipping of MAPS in its own units (SNIP_WIDTH of an override file); None: 0.5, its
    usual one. The clipping of the physics constants has a width of its own."""
    detector: Detector = field(default_factory=Detector)
    """Detector of which the line table has the efficiency."""
    air_is_known: bool = False
    """True where the air path of the detector was given: line ratios may imply little more or less of it."""
    branching: Branching | None = None
    """Adjustments of the line ratios that are in the line table."""
    edges_kev: tuple[float, ...] = ()
    """Edges of the listed families about the nominal incident energy, within what it is known to."""
    model_error: float | None = None
    """Size of the model's flaws in units of usual ones, as the fit of the whole scan showed it; None: it is estimated
    from the residual."""
    hold_ratios: bool = False
    """True: the line ratios stay those of the table, which an earlier fit has adjusted."""
    find_axis: bool = False
    """True: the energy axis is to be determined from the spectrum, and its starting values mean nothing."""


def start_from(problem: FitProblem, theta: Tensor) -> FitProblem:
    """Let the same problem start at a given theta, its energy axis included.

    Args:
        problem: the problem; its bounds grow where they do not hold the start.
        theta: (parameter,) in the order of `problem.parameters`, finite.
    """
    names = [p.name for p in problem.parameters]
    values = dict(zip(names, theta.tolist(), strict=True))
    return replace(problem, parameters=replace_values(problem.parameters, values), find_axis=False)


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
    if energy_min_kev >= energy_max_kev or high - low + 1 < LEAST_CHANNELS:
        raise FitError(
            f"fit range {energy_min_kev:g} to {energy_max_kev:g} keV is channels {first} to {last}, but the "
            f"spectrum has channels 0 to {n_channels - 1} ({offset:g} to "
            f"{offset + slope * (n_channels - 1):g} keV): give a range of at least {LEAST_CHANNELS} channels inside it"
        )
    return low, high


def _channel_at(energy_kev: float, offset: float, slope: float, bend: float) -> int:
    """Nearest channel; the bend of an axis is small, two steps are enough."""
    straight = (energy_kev - offset) / slope
    channel = straight
    for _ in range(2):
        channel = straight - bend * channel**2 / slope
    return round(channel)
