"""The nonlinear parameters (theta): names, units, bounds, priors and steps, in one table."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One nonlinear parameter."""

    name: str
    unit: str
    value: float
    """Default start."""
    lower: float
    upper: float
    prior_sd: float
    """Standard deviation of the Gaussian prior around the start."""
    scale: float
    """Typical step: the unit in which the solver measures this parameter."""
    free: bool
    """Fitted unless the caller fixes it."""


def _row(
    name: str, unit: str, value: float, bounds: tuple[float, float], prior_sd: float, scale: float, *, free: bool = True
) -> Parameter:
    return Parameter(
        name=name, unit=unit, value=value, lower=bounds[0], upper=bounds[1], prior_sd=prior_sd, scale=scale, free=free
    )


# Bounds, priors and scales were measured over synthetic and real spectra: the bounds hold every detector
# seen, the priors are wide enough not to move a spectrum of 1e4 counts, the scales make one LM step of
# 1 move the spectrum by about its noise.
PARAMETERS: Final[tuple[Parameter, ...]] = (
    _row("energy_offset", "keV", 0.0, (-1.5, 1.5), 0.5, 0.01),
    _row("energy_slope", "keV/channel", 0.01, (0.002, 0.06), 0.01, 1e-5),
    _row("energy_quadratic", "keV/channel^2", 0.0, (-1e-7, 1e-7), 5e-8, 1e-8),
    _row("fwhm_offset", "keV", 0.11, (0.02, 0.25), 0.05, 0.01),
    _row("fwhm_fanoprime", "keV", 1.6e-4, (2e-5, 6e-4), 1e-4, 3e-5),
    _row("coherent_sct_energy", "keV", 10.0, (4.0, 120.0), 0.3, 0.05),
    _row("compton_angle", "deg", 90.0, (40.0, 170.0), 40.0, 5.0),
    _row("compton_fwhm_corr", "1", 1.8, (1.0, 4.0), 1.0, 0.3),
    _row("compton_f_step", "1", 0.0, (0.0, 0.1), 0.02, 0.01, free=False),
    _row("compton_f_tail", "1", 0.3, (0.0, 2.0), 0.4, 0.2),
    _row("compton_gamma", "1", 3.0, (1.0, 6.0), 1.0, 1.0),
    _row("compton_hi_f_tail", "1", 0.01, (0.0, 0.5), 0.1, 0.02),
    _row("compton_hi_gamma", "1", 3.0, (1.0, 6.0), 1.0, 1.0, free=False),
    _row("step_offset", "1", 0.0, (0.0, 0.1), 0.02, 0.005, free=False),
    _row("step_linear", "1/keV", 0.0, (0.0, 0.1), 0.02, 0.005, free=False),
    _row("f_tail_offset", "1", 0.02, (0.0, 0.15), 0.03, 0.01),
    _row("f_tail_linear", "1", 0.0, (0.0, 0.1), 0.02, 0.01, free=False),
    _row("kb_f_tail_offset", "1", 0.03, (0.0, 0.25), 0.06, 0.02),
    _row("kb_f_tail_linear", "1", 0.0, (0.0, 0.1), 0.02, 0.01, free=False),
    _row("gamma_offset", "1", 2.5, (1.0, 6.0), 1.0, 1.0),
    _row("gamma_linear", "1/keV", 0.0, (0.0, 1.0), 0.1, 0.1, free=False),
    _row("escape_factor", "1", 1.0, (0.0, 3.0), 0.3, 0.1, free=False),
)
PARAMETER_NAMES: Final[tuple[str, ...]] = tuple(p.name for p in PARAMETERS)
_ROOM_SCALES: Final = 10.0
INDEX: Final[Mapping[str, int]] = {p.name: i for i, p in enumerate(PARAMETERS)}


def replace_values(parameters: tuple[Parameter, ...], values: Mapping[str, float]) -> tuple[Parameter, ...]:
    """Replace starting values by name; bounds grow to hold a value that lies outside.

    Raises:
        KeyError: a name that is not a parameter.
    """
    unknown = sorted(set(values) - {p.name for p in parameters})
    if unknown:
        raise KeyError(f"no such parameter: {', '.join(unknown)}")
    return tuple(_move_start(p, values[p.name]) if p.name in values else p for p in parameters)


def _move_start(parameter: Parameter, value: float) -> Parameter:
    """A start outside of the bounds widens them by a few steps beyond it: at a bound it could not move."""
    low, high = parameter.lower, parameter.upper
    room = _ROOM_SCALES * parameter.scale
    return replace(
        parameter,
        value=value,
        lower=low if value >= low else value - room,
        upper=high if value <= high else value + room,
    )


def pack(parameters: tuple[Parameter, ...]) -> "Tensor":
    """Starting values as theta, float64, shape (parameter,)."""
    # A login node reads this table, too, and has no seconds for torch.
    import torch

    return torch.tensor([p.value for p in parameters], dtype=torch.float64)
