"""Train a network through the spectrum model: no labels, the physics is the teacher.

A map has many pixels of few counts each. An encoder reads the noisy spectrum of a pixel and guesses the counts of
every element; the spectrum model of hpcxrf turns the guess back into a spectrum; the Poisson deviance between the
two is what is minimised. As the model is differentiable in everything, the energy calibration of the detector,
which all pixels share, is learned in the same pass, from a start that is wrong by half a peak width.

    python workflows/train_through_model.py

takes about ten seconds on one core. Change `ELEMENTS`, the encoder, or which parameters of theta are learned.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

import hpcxrf
from hpcxrf.physics.parameters import INDEX

ELEMENTS = ("Si", "Ca", "Fe", "Zn")
INCIDENT_KEV = 10.5
N_CHANNELS = 560  # of 20 eV: 0 to 11.2 keV
TRUE_AXIS = {"energy_offset": 0.015, "energy_slope": 0.0200}
GUESSED_AXIS = {"energy_offset": -0.025, "energy_slope": 0.0202}
# Units in which they are learned: about what moves a peak by a few times its width.
AXIS_STEP = {"energy_offset": 0.3, "energy_slope": 1e-3}


class SpectrumAutoencoder(nn.Module):
    """Spectrum -> network -> counts of each component -> spectrum model -> expected spectrum."""

    def __init__(self, n_hidden: int = 64) -> None:
        super().__init__()
        # The lines of the elements: energies and ratios from the tables, once.
        self.table = hpcxrf.line_table(ELEMENTS, INCIDENT_KEV)
        # Elements, then the elastic and the Compton peak.
        n_components = len(ELEMENTS) + 2
        self.encoder = nn.Sequential(
            nn.Linear(N_CHANNELS, n_hidden), nn.GELU(), nn.Linear(n_hidden, n_components)
        ).double()
        # Theta starts as the detector's maker might state it. Two of its entries are learned, in units of
        # AXIS_STEP, so that one learning rate suits them and the network's weights alike.
        self.register_buffer("theta_start", hpcxrf.default_theta(INCIDENT_KEV, **GUESSED_AXIS))
        self.axis = nn.Parameter(torch.zeros(len(AXIS_STEP), dtype=torch.float64))

    def theta(self) -> Tensor:
        """The nonlinear parameters with what was learned, (parameter,)."""
        steps = torch.tensor(list(AXIS_STEP.values()), dtype=torch.float64)
        places = torch.tensor([INDEX[name] for name in AXIS_STEP])
        return self.theta_start.index_add(0, places, steps * self.axis)

    def amplitudes(self, counts: Tensor) -> Tensor:
        """Counts of each component, (pixel, component), from spectra (pixel, channel)."""
        # Square roots make the noise of every channel alike, and squares undo them. The total is known: the
        # encoder only shares it out, so that exposure time is nothing to be learned.
        total = counts.sum(dim=-1, keepdim=True).clamp(min=1.0)
        share = self.encoder(10.0 * torch.sqrt(counts / total)).square()
        return total * share / share.sum(dim=-1, keepdim=True).clamp(min=1e-9)

    def forward(self, counts: Tensor) -> Tensor:
        """Expected spectra (pixel, channel)."""
        return hpcxrf.model_spectrum(self.theta(), self.amplitudes(counts), self.table, N_CHANNELS)


def simulate_pixels(n_pixels: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy spectra (pixel, channel) of 500 to 5000 counts, and the true amplitudes (pixel, component)."""
    generator = torch.Generator().manual_seed(seed)
    shares = torch.rand(n_pixels, len(ELEMENTS) + 2, generator=generator, dtype=torch.float64) ** 2
    total = 500.0 * 10.0 ** torch.rand(n_pixels, 1, generator=generator, dtype=torch.float64)
    amplitude = total * shares / shares.sum(dim=-1, keepdim=True)
    table = hpcxrf.line_table(ELEMENTS, INCIDENT_KEV)
    theta = hpcxrf.default_theta(INCIDENT_KEV, **TRUE_AXIS)
    expected = hpcxrf.model_spectrum(theta, amplitude, table, N_CHANNELS)
    return torch.poisson(expected, generator=generator), amplitude


def poisson_deviance(counts: Tensor, expected: Tensor) -> Tensor:
    """Mean deviance of a channel: what -2 log likelihood has above that of a perfect fit."""
    safe = expected.clamp(min=1e-6)
    log_ratio = torch.xlogy(counts, counts) - counts * safe.log()  # finite, and its gradient, at 0 counts
    return 2.0 * (safe - counts + log_ratio).mean()


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What came out of it."""

    module: SpectrumAutoencoder
    losses: tuple[float, ...]
    """Mean deviance per channel before each step."""
    gradients_finite: bool


def train(*, n_pixels: int = 512, steps: int = 400, seed: int = 1) -> Training:
    """Minimise the deviance of simulated pixels through the model, with Adam."""
    torch.manual_seed(seed)
    counts, _ = simulate_pixels(n_pixels, seed)
    module = SpectrumAutoencoder()
    optimiser = torch.optim.Adam(module.parameters(), lr=3e-3)
    losses, finite = [], True
    for _ in range(steps):
        optimiser.zero_grad()
        loss = poisson_deviance(counts, module(counts))
        loss.backward()
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        finite = finite and all(bool(torch.isfinite(g).all()) for g in gradients)
        optimiser.step()
        losses.append(loss.item())
    return Training(module=module, losses=tuple(losses), gradients_finite=finite)


def report(training: Training) -> str:
    """The loss as it fell, the calibration against the truth, and the amplitudes of pixels never seen."""
    every = max(1, len(training.losses) // 8)
    lines = [
        f"step {step:4d}   deviance per channel {loss:8.3f}"
        for step, loss in enumerate(training.losses)
        if step % every == 0 or step == len(training.losses) - 1
    ]
    theta = training.module.theta().detach()
    for name, truth in TRUE_AXIS.items():
        found, guess = float(theta[INDEX[name]]), GUESSED_AXIS[name]
        lines.append(f"{name:14s} start {guess:8.5f}   learned {found:8.5f}   truth {truth:8.5f}")
    counts, truth = simulate_pixels(512, seed=99)
    with torch.no_grad():
        error = training.module.amplitudes(counts) - truth
    # Counting alone would leave sqrt(amplitude).
    in_noise = (error.square().mean(dim=0) / truth.mean(dim=0)).sqrt()
    for name, value in zip((*ELEMENTS, "elastic", "Compton"), in_noise.tolist(), strict=True):
        lines.append(f"{name:8s} error of unseen pixels: {value:.2f} times counting noise")
    return "\n".join(lines)


if __name__ == "__main__":
    print(report(train()))  # noqa: T201 (an example that is read on the terminal)
