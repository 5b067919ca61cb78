"""Do Markov chains agree, and how many independent draws are they worth?

Rank-normalised split R-hat and the effective sample size of the bulk: Vehtari, Gelman, Simpson, Carpenter and Buerkner
2021, Bayesian Analysis 16, 667.
"""

import torch
from torch import Tensor


def compute_r_hat(draws: Tensor) -> Tensor:
    """Rank-normalised split R-hat (quantity,): 1 where the chains have forgotten their starts, below 1.01 is good.

    Args:
        draws: (chain, draw, quantity), at least 4 draws; NaN for a quantity that does not vary.
    """
    z = _normalise_ranks(_split(draws))
    n = z.shape[1]
    within = z.var(dim=1).mean(dim=0)
    between = n * z.mean(dim=1).var(dim=0)
    r_hat: Tensor = ((n - 1) / n + between / (n * within)).sqrt()
    return r_hat


def compute_effective_size(draws: Tensor) -> Tensor:
    """Number of independent draws (quantity,) that know the bulk of the distribution as well.

    Args:
        draws: (chain, draw, quantity), at least 4 draws.
    """
    z = _normalise_ranks(_split(draws))
    chains, n, _ = z.shape
    centred = z - z.mean(dim=1, keepdim=True)
    transform = torch.fft.rfft(centred, 2 * n, dim=1)
    covariance = torch.fft.irfft(transform.abs() ** 2, 2 * n, dim=1)[:, :n] / n
    within = covariance[:, 0].mean(dim=0) * n / (n - 1)
    total = within * (n - 1) / n + z.mean(dim=1).var(dim=0)
    rho = 1.0 - (within - covariance.mean(dim=0) * n / (n - 1)) / total
    rho[0] = 1.0
    # Geyer 1992: sums of neighbours are positive and fall as long as they are more than noise.
    pairs = rho[: n // 2 * 2].reshape(n // 2, 2, -1).sum(dim=1)
    positive = (pairs > 0).to(pairs.dtype).cumprod(dim=0)
    falling = pairs.cummin(dim=0).values
    time = -1.0 + 2.0 * (falling * positive).sum(dim=0)
    size: Tensor = chains * n / time.clamp(min=1.0 / torch.tensor(float(chains * n)).log10())
    return size


def _split(draws: Tensor) -> Tensor:
    """Halves of the chains as chains of their own."""
    half = draws.shape[1] // 2
    return torch.cat([draws[:, :half], draws[:, -half:]])


def _normalise_ranks(draws: Tensor) -> Tensor:
    """Normal quantiles of the ranks among all draws of a quantity; equal draws have their ranks in order."""
    chains, n, quantities = draws.shape
    order = draws.reshape(chains * n, quantities).argsort(dim=0, stable=True)
    ranks = order.argsort(dim=0, stable=True).to(torch.float64) + 1.0
    z: Tensor = torch.special.ndtri((ranks - 0.375) / (chains * n + 0.25)).reshape(chains, n, quantities)
    return z
