"""The posterior of theta and amplitudes of an integrated spectrum: a normal law at the optimum, or draws.

What the fit reports, `laplace`, is a normal law; the draws of `hmc` are of the whole posterior, with its bounds at 0
and its skewness. Both know counting noise and priors only: flaws of the model are in the sigma of a fit, not here.
"""

from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor

from hpcxrf.errors import FitError
from hpcxrf.fitting.result import FitStatus, SpectrumFit
from hpcxrf.fitting.spectrum.chains import compute_effective_size, compute_r_hat
from hpcxrf.fitting.spectrum.density import Target, curvature, evaluate_density, put_together, take_apart
from hpcxrf.fitting.spectrum.hmc import Draws, run_chains
from hpcxrf.fitting.spectrum.integrated import fit_amplitudes
from hpcxrf.fitting.spectrum.least_squares import build_space
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.physics.model import SpectrumModel, evaluate, find_tailed_lines

PosteriorKind = Literal["laplace", "hmc"]
CHAINS: Final = 4
WARM_UP: Final = 400
DRAWS: Final = 500
GOOD_R_HAT: Final = 1.01
_FAINT: Final = 0.3
"""Coefficients at 0 are begun at this many of their standard deviations."""
_FLAT: Final = 10.0
"""Mean of the prior of a coefficient, in counts of the whole spectrum: flat where there are any counts."""
_MOST: Final = 1e4


@dataclass(frozen=True, slots=True, kw_only=True)
class Posterior:
    """Draws of the posterior of one spectrum."""

    parameter_names: tuple[str, ...]
    """The free ones."""
    component_names: tuple[str, ...]
    theta: Tensor
    """(chain, draw, parameter)."""
    amplitude: Tensor
    """(chain, draw, component) recorded counts; NaN for one without a line in the fit range."""
    log_density: Tensor
    """(chain, draw)."""
    energy: Tensor
    """(chain, draw)."""
    acceptance: Tensor
    """(chain, draw), 0 to 1."""
    diverging: Tensor
    """(chain, draw) bool."""
    steps: Tensor
    """(draw,) gradients of each draw."""
    step_size: float
    r_hat: Tensor
    """(parameter + component,); below 1.01 the chains agree."""
    effective_size: Tensor
    """(parameter + component,) independent draws that the chains are worth."""

    @property
    def agrees(self) -> bool:
        """Whether every chain has found the same distribution, without divergence."""
        known = torch.isfinite(torch.cat([self.theta, self.amplitude], dim=-1)).all(dim=0).all(dim=0)
        return bool((self.r_hat < GOOD_R_HAT)[known].all()) and not bool(self.diverging.any())


def sample_posterior(
    fit: SpectrumFit,
    problem: FitProblem,
    *,
    chains: int = CHAINS,
    warm_up: int = WARM_UP,
    draws: int = DRAWS,
    seed: int = 0,
) -> Posterior:
    """Draw theta and amplitudes from their posterior by Hamiltonian Monte Carlo, chains side by side.

    K-beta and other line ratios are held where the fit left them. A full spectrum of 1200 channels takes 16 ms a
    gradient and chain, and some eight gradients a draw.

    Args:
        fit: with a solution; the chains start around it.
        problem: that of the fit.
        chains: at least 2.
        warm_up: draws of the adaptation of each chain, which are thrown away; at least 40.
        draws: draws of each chain that are kept; at least 8.
        seed: of the random numbers.

    Raises:
        FitError: a fit without solution, or numbers of chains or draws that are too small.
    """
    faults = [
        f"{name} is {value}, must be at least {least}"
        for name, value, least in (("chains", chains, 2), ("warm_up", warm_up, 40), ("draws", draws, 8))
        if value < least
    ]
    if fit.status not in {FitStatus.CONVERGED, FitStatus.MAX_ITERATIONS}:
        faults.append(f"the fit has no solution ({fit.status.name.lower()}); a posterior needs one to start from")
    if faults:
        raise FitError("posterior: " + "; ".join(faults))
    target, linear = build_target(fit, problem)
    found = draw_posterior(
        target, fit.theta, linear, chains=chains, warm_up=warm_up, draws=draws, generator=_seeded(seed)
    )
    return _describe(found, target, fit)


def build_target(fit: SpectrumFit, problem: FitProblem) -> tuple[Target, Tensor]:
    """The posterior of a fitted spectrum, and the coefficients (component + hat,) that fit it at the fit's theta.

    Background columns that the fit left at 0 stay at 0.
    """
    channel = torch.arange(fit.first_channel, fit.first_channel + fit.counts.shape[0], dtype=torch.float64)
    model = SpectrumModel(
        table=fit.table,
        channel=channel,
        constants=problem.constants,
        elastic=problem.elastic,
        copies=fit.copies,
        tailed=find_tailed_lines(fit.table, elastic=problem.elastic, constants=problem.constants, copies=fit.copies),
    )
    # The knots of the fit follow from where it began, and narrow ones beside the scatter peaks may be among them.
    parts = fit.background_parts
    hats = (parts / parts.amax(dim=1, keepdim=True)).T
    fixed = fit.background - parts.sum(dim=0)
    columns = torch.cat([evaluate(fit.theta, model).phi, hats], dim=1)
    linear, _ = fit_amplitudes(fit.counts - fixed, columns)
    target = Target(
        counts=fit.counts,
        fixed=fixed,
        hats=hats,
        model=model,
        space=build_space(problem.parameters),
        scale=torch.full_like(linear, _FLAT * float(fit.counts.sum())) / columns.sum(dim=0).clamp(min=_FLAT / _MOST),
    )
    return target, linear


def draw_posterior(
    target: Target, theta: Tensor, linear: Tensor, *, chains: int, warm_up: int, draws: int, generator: torch.Generator
) -> Draws:
    """Draw from the posterior of a target.

    Args:
        target: one spectrum, or several side by side.
        theta: (*batch, parameter) near the optimum.
        linear: (*batch, component + hat) coefficients near the optimum, 0 or more.
        chains: number of chains.
        warm_up: draws that are thrown away.
        draws: draws that are kept.
        generator: of the random numbers.
    """
    phi = evaluate(theta, target.model).phi
    columns = torch.cat([phi, target.hats.expand(*phi.shape[:-2], -1, -1)], dim=-1)
    expected = ((columns @ linear[..., :, None])[..., 0] + target.fixed).clamp(min=0.1)
    least = _FAINT / (columns**2 / expected[..., None]).sum(dim=-2).clamp(min=1e-12).sqrt()
    centre = put_together(theta, torch.maximum(linear, torch.minimum(least, target.scale)), target)
    factor = torch.linalg.cholesky(torch.linalg.inv(curvature(centre, target)))
    spread = torch.randn((chains, *centre.shape), generator=generator, dtype=torch.float64)
    return run_chains(
        centre + (factor @ spread[..., None])[..., 0],
        factor,
        lambda position: evaluate_density(position, target),
        warm_up=warm_up,
        draws=draws,
        generator=generator,
    )


def _describe(found: Draws, target: Target, fit: SpectrumFit) -> Posterior:
    at = take_apart(found.position.movedim(0, 1), target)
    moving, n = target.moving, len(fit.component_names)
    # A component without a line in the fit range has no sigma either.
    amplitude = torch.where(torch.isfinite(fit.amplitude_sigma), at.linear[..., :n], torch.nan)
    theta = at.theta[..., moving]
    every = torch.cat([theta, amplitude], dim=-1)
    return Posterior(
        parameter_names=tuple(fit.parameter_names[i] for i in moving.tolist()),
        component_names=fit.component_names,
        theta=theta,
        amplitude=amplitude,
        log_density=found.log_density.T,
        energy=found.energy.T,
        acceptance=found.acceptance.T,
        diverging=found.diverging.T,
        steps=found.steps,
        step_size=found.step_size,
        r_hat=compute_r_hat(every),
        effective_size=compute_effective_size(every),
    )


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
