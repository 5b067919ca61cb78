"""Where the compared methods start: theta at random or about a fit, amplitudes at random or guessed from the counts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Literal

import torch
from torch import Tensor

from hpcxrf.fitting.spectrum.least_squares import build_space
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.physics.model import COMPTON, ELASTIC
from hpcxrf.physics.parameters import INDEX, Parameter
from hpcxrf.physics.scatter import compton_energy_kev

Width = Literal["narrow", "wide"]

FLOOR_COUNTS: Final = 1.0
"""Start of an amplitude that was below: the smallest that MAPS starts from."""
LARGEST_START_LOG10: Final = 6.0
# The guess of MapsTorch 0.0.2 (`init_elem_amps`): a peak has the mean counts about its middle in this many channels.
_LINE_WINDOW_KEV: Final = 0.1
_SCATTER_WINDOW_KEV: Final = 0.4
_PEAK_CHANNELS: Final = 8.0

# Half-widths of the ranges around the problem's own values; that of the slope is a share of it.
_AXIS: Final[Mapping[Width, Mapping[str, float]]] = MappingProxyType(
    {
        "narrow": MappingProxyType(
            {"energy_offset": 0.05, "energy_slope": 0.02, "energy_quadratic": 2e-8, "coherent_sct_energy": 0.2}
        ),
        "wide": MappingProxyType(
            {"energy_offset": 0.2, "energy_slope": 0.05, "energy_quadratic": 1e-7, "coherent_sct_energy": 0.3}
        ),
    }
)
_SHAPES: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {
        "compton_fwhm_corr": (1.0, 4.0),
        "compton_f_tail": (0.0, 1.0),
        "compton_hi_f_tail": (0.0, 0.1),
        "f_tail_offset": (0.0, 0.1),
        "kb_f_tail_offset": (0.0, 0.2),
        "fwhm_fanoprime": (5e-5, 5e-4),
        "fwhm_offset": (0.05, 0.2),
    }
)
_COMPTON_ANGLE_DEG: Final[Mapping[Width, tuple[float, float]]] = MappingProxyType(
    {"narrow": (70.0, 120.0), "wide": (70.0, 170.0)}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JointStart:
    """Where every method starts; the separable one, which solves for its amplitudes, from theta alone."""

    theta: Tensor
    """(parameter,) float64."""
    log10_amplitude: Tensor
    """(component,) float64, of counts."""


def random_start(problem: FitProblem, width: Width, seed: int) -> JointStart:
    """Draw a start, uniform in the ranges of the protocol; every log10 amplitude is U(0, 6).

    The axis and the incident energy are drawn around the problem's own values, shapes in absolute ranges. Fixed
    parameters, and those that the protocol does not name, stay. A draw beyond a bound is put on it.

    Args:
        problem: components, starting values and bounds.
        width: `narrow`: offset +-0.05 keV, slope +-2 %, E0 +-0.2 keV; `wide`: +-0.2 keV, +-5 %, +-0.3 keV.
        seed: the draw depends on nothing else.
    """
    generator = torch.Generator().manual_seed(seed)
    n_parameters, n_components = len(problem.parameters), len(component_names(problem))
    share = torch.rand(n_parameters + n_components, generator=generator, dtype=torch.float64)
    drawn = [_draw(p, float(u), width) for p, u in zip(problem.parameters, share[:n_parameters], strict=True)]
    return JointStart(
        theta=torch.tensor(drawn, dtype=torch.float64), log10_amplitude=LARGEST_START_LOG10 * share[n_parameters:]
    )


def _draw(parameter: Parameter, share: float, width: Width) -> float:
    """The parameter at that share (0 to 1) of its range."""
    name, value = parameter.name, parameter.value
    reach = _AXIS[width].get(name)
    if reach is not None:
        half = reach * value if name == "energy_slope" else reach
        low, high = value - half, value + half
    elif name == "compton_angle":
        low, high = _COMPTON_ANGLE_DEG[width]
    else:
        low, high = _SHAPES.get(name, (value, value))
    if not parameter.free:
        return value
    return min(max(low + share * (high - low), parameter.lower), parameter.upper)


def perturbed_start(
    theta: Tensor, theta_sigma: Tensor, amplitude: Tensor, problem: FitProblem, seed: int
) -> JointStart:
    """A fitted theta moved within its uncertainty, uniform in +-1 sigma; for the task `refinement`.

    Args:
        theta: (parameter,) fitted.
        theta_sigma: (parameter,); what has NaN is not moved, nor is what the problem holds fixed.
        amplitude: (component,) fitted counts; those below 1 count start at 1 count, as log10 has no 0.
        problem: bounds, into which theta is put.
        seed: the draw depends on nothing else.
    """
    generator = torch.Generator().manual_seed(seed)
    share = 2.0 * torch.rand(theta.shape, generator=generator, dtype=torch.float64) - 1.0
    space = build_space(problem.parameters)
    moved = torch.where(space.free, share * torch.nan_to_num(theta_sigma), 0.0)
    return JointStart(
        theta=torch.maximum(torch.minimum(theta + moved, space.upper), space.lower),
        log10_amplitude=torch.log10(amplitude.clamp(min=FLOOR_COUNTS)),
    )


def guess_amplitudes(start: JointStart, counts: Tensor, problem: FitProblem) -> JointStart:
    """The same theta, with amplitudes guessed from the counts as MapsTorch does by default.

    Eight times the mean counts a channel within 0.1 keV of the strongest line of a family, at the energy axis of the
    start; within 0.4 keV of elastic and Compton peak. Nothing is subtracted, and the least is 1 count. MapsTorch has
    the strongest line as the amplitude; here it is the whole family.

    Args:
        start: its amplitudes are not used.
        counts: (channel,) raw counts of the full spectrum.
        problem: with the line table.
    """
    theta = {p.name: value for p, value in zip(problem.parameters, start.theta.tolist(), strict=True)}
    windows = [(energy, _LINE_WINDOW_KEV, share) for energy, share in _find_strongest_lines(problem)]
    incident, angle = (start.theta[INDEX[name]] for name in ("coherent_sct_energy", "compton_angle"))
    scattered = compton_energy_kev(incident, angle, problem.constants.electron_rest_energy_kev)
    peaks = (incident, scattered) if problem.elastic else (scattered,)
    windows += [(float(energy), _SCATTER_WINDOW_KEV, 1.0) for energy in peaks]
    height = [_mean_counts(counts, energy, half, theta) for energy, half, _ in windows]
    strongest = (_PEAK_CHANNELS * torch.tensor(height, dtype=torch.float64)).clamp(min=FLOOR_COUNTS)
    share = torch.tensor([one for _, _, one in windows], dtype=torch.float64)
    return replace(start, log10_amplitude=torch.log10(strongest / share))


def component_names(problem: FitProblem) -> tuple[str, ...]:
    """The order of amplitudes: the table's components, then elastic (not for a tube) and Compton peak."""
    return problem.table.component_names + ((ELASTIC, COMPTON) if problem.elastic else (COMPTON,))


def _find_strongest_lines(problem: FitProblem) -> list[tuple[float, float]]:
    """Energy (keV) of the strongest line of each component of the table, and its share of the counts."""
    table = problem.table
    found = []
    for number in range(len(table.component_names)):
        ratio = torch.where(table.component == number, table.ratio, 0.0)
        line = int(ratio.argmax())
        found.append((float(table.energy_kev[line]), float(ratio[line])))
    return found


def _mean_counts(counts: Tensor, energy_kev: float, half_kev: float, theta: Mapping[str, float]) -> float:
    """Counts a channel in a window; 0 where it lies outside of the spectrum."""
    ends = (energy_kev - half_kev, energy_kev + half_kev)
    low, high = (round((end - theta["energy_offset"]) / theta["energy_slope"]) for end in ends)
    inside = counts[max(low, 0) : max(high + 1, 0)]
    return float(inside.mean()) if inside.numel() else 0.0
