"""Simulation-based calibration of the posterior's draws: printed, not asserted.

    PYTHONPATH=.:tests/samples python tests/figures/posterior_calibration.py 100 1

Theta and amplitudes are drawn from the priors, a spectrum of three families and 400 channels from them; among draws of
its posterior the rank of the truth is uniform (Talts, Betancourt, Simpson, Vehtari and Gelman 2018, arXiv 1804.06788).
"""

import math
import sys
import time
from dataclasses import replace

import torch
from fit_samples import INCIDENT_KEV, channels, table

from hpcxrf.fitting.spectrum.density import Target, take_apart
from hpcxrf.fitting.spectrum.least_squares import build_space
from hpcxrf.fitting.spectrum.posterior import draw_posterior
from hpcxrf.physics.background import hats_for_range
from hpcxrf.physics.constants import PHYSICS
from hpcxrf.physics.model import SpectrumModel, evaluate, find_tailed_lines
from hpcxrf.physics.parameters import PARAMETERS, pack, replace_values

FREE = {"energy_offset": 0.01, "energy_slope": 2e-5, "fwhm_offset": 0.01, "coherent_sct_energy": 0.03}
FREE |= {"compton_angle": 4.0}
MEAN_COUNTS = 400.0
THIN = 5


def make_target(counts):
    """Three families, elastic and Compton on 400 channels of 28 eV; the counts are put in later."""
    values = {"coherent_sct_energy": INCIDENT_KEV, "energy_slope": 0.028}
    start = tuple(
        replace(p, free=p.name in FREE, prior_sd=FREE.get(p.name, p.prior_sd))
        for p in replace_values(PARAMETERS, values)
    )
    lines, channel = table(("Ca", "Fe", "Zn")), channels(46, 445)
    model = SpectrumModel(
        table=lines,
        channel=channel,
        constants=PHYSICS,
        tailed=find_tailed_lines(lines, elastic=True, constants=PHYSICS),
    )
    hats = hats_for_range(pack(start), channel, constants=PHYSICS)[:, ::4]
    scale = torch.cat([torch.full((5,), MEAN_COUNTS), torch.full((hats.shape[1],), 2.0)]).double()
    fixed = torch.full((400,), 0.5).double()
    return Target(counts=counts, fixed=fixed, hats=hats, model=model, space=build_space(start), scale=scale)


def draw_truth(target, count, generator):
    """Theta (spectrum, parameter), coefficients and Poisson counts from the priors."""
    space, n = target.space, target.scale.shape[0]
    theta = space.centre + torch.where(space.free, space.prior_sd, 0.0) * torch.randn(
        (count, space.centre.shape[0]), generator=generator, dtype=torch.float64
    )
    theta = theta.clamp(space.lower, space.upper)
    linear = -target.scale * torch.rand((count, n), generator=generator, dtype=torch.float64).log()
    phi = evaluate(theta, target.model).phi
    columns = torch.cat([phi, target.hats.expand(count, -1, -1)], dim=-1)
    mean = (columns @ linear[..., None])[..., 0] + target.fixed
    return theta, linear, torch.poisson(mean, generator=generator)


def find_ranks(count, seed, *, warm_up=120, draws=100):
    """Share of the draws (spectrum, quantity) that lie below the truth, 0 to 1."""
    generator = torch.Generator().manual_seed(seed)
    empty = make_target(torch.zeros(400).double())
    theta, linear, counts = draw_truth(empty, count, generator)
    target = replace(empty, counts=counts)
    found = draw_posterior(target, theta, linear, chains=1, warm_up=warm_up, draws=draws, generator=generator)
    at = take_apart(found.position[::THIN, 0], target)
    moving = target.moving
    drawn = torch.cat([at.theta[..., moving], at.linear], dim=-1)
    truth = torch.cat([theta[:, moving], linear], dim=-1)
    return (drawn < truth).double().mean(dim=0), found


def uniformity(ranks, bins=5):
    """Chi2 of the ranks (any,) in equal bins, and its probability in a normal approximation (Wilson and Hilferty)."""
    seen = torch.histc(ranks.reshape(-1).clamp(max=0.999999), bins, 0.0, 1.0)
    expected = ranks.numel() / bins
    chi2 = float(((seen - expected) ** 2 / expected).sum())
    k = bins - 1
    z = ((chi2 / k) ** (1 / 3) - (1 - 2 / (9 * k))) / math.sqrt(2 / (9 * k))
    return chi2, 0.5 * math.erfc(z / math.sqrt(2))


def main():
    torch.set_num_threads(1)
    count, seed = int(sys.argv[1]), int(sys.argv[2])
    began = time.process_time()
    ranks, found = find_ranks(count, seed)
    names = [
        *FREE,
        "Ca",
        "Fe",
        "Zn",
        "elastic",
        "Compton",
        *(f"hat {i}" for i in range(ranks.shape[1] - len(FREE) - 5)),
    ]
    say = sys.stdout.write
    say(f"{count} spectra, acceptance {float(found.acceptance.mean()):.2f}, {int(found.diverging.sum())} divergences, ")
    say(f"{float(found.steps.double().mean()):.1f} steps a draw, {time.process_time() - began:.0f} CPU s\n")
    for name, rank in zip(names, ranks.T, strict=True):
        chi2, p = uniformity(rank)
        say(f"{name:20s} mean rank {float(rank.mean()):.3f}  chi2 of 5 bins {chi2:5.1f}  p {p:.3f}\n")


if __name__ == "__main__":
    main()
