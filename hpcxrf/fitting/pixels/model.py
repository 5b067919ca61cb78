"""The true model of a scan's pixels: of one detector, or of the raw sum of several, each with its own theta."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

from hpcxrf.errors import FitError
from hpcxrf.fitting.pixels.basis import PixelBasis, PixelOperator, Tangents
from hpcxrf.fitting.pixels.follow import Expansions
from hpcxrf.fitting.pixels.full import FullModel, full_model
from hpcxrf.fitting.pixels.methods import moved_to, prepared
from hpcxrf.fitting.pixels.tangent import tangents_at
from hpcxrf.physics.background import SNIP_HALF_WIDTH_FWHM, fwhm_channels
from hpcxrf.physics.constants import ConstantSet
from hpcxrf.physics.lines import LineTable
from hpcxrf.physics.model import SpectrumModel, evaluate
from hpcxrf.physics.parameters import INDEX

# Expansion points that are kept: some MB each.
_KEPT: Final = 24
# Distance of two expansion points along a parameter, in units of what the columns can follow. Half of it by offset
# and half by gain is what a pixel may be away from the nearest.
_SPACING: Final = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorPart:
    """One detector's part of the spectra."""

    theta: Tensor
    """(parameter,) float64."""
    table: LineTable
    share: Tensor
    """(component,) float64: of the component's counts; 1 of a detector alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelModel:
    """What the columns of the pixels are made of."""

    parts: tuple[DetectorPart, ...]
    channel: Tensor
    """(channel,) float64: of the fit range, counted from 0 of the full spectrum."""
    constants: ConstantSet
    elastic: bool


def spectrum_model(model: PixelModel, part: DetectorPart) -> SpectrumModel:
    """Lines, channels and constants of one part."""
    return SpectrumModel(table=part.table, channel=model.channel, constants=model.constants, elastic=model.elastic)


def columns_at(model: PixelModel, step: Tensor | float = 0.0) -> Tensor:
    """Columns (channel, component) float64 where theta of every part has changed by `step` (parameter,)."""
    return sum(
        (part.share * evaluate(part.theta + step, spectrum_model(model, part)).phi for part in model.parts),
        start=torch.zeros((), dtype=torch.float64),
    )


def model_tangents(model: PixelModel) -> Tangents:
    """Changes of the columns with theta; in a sum, all detectors drift together."""
    return _tangents(model, torch.zeros_like(model.parts[0].theta), None)


def _tangents(model: PixelModel, step: Tensor, like: Tangents | None) -> Tangents:
    """At theta changed by `step`, with the priors of earlier ones."""
    first = model.parts[0]
    prior = None if like is None else dict(zip(like.names, like.prior_sd.tolist(), strict=True))
    return tangents_at(
        first.theta + step,
        spectrum_model(model, first),
        prior,
        columns_at=lambda change: columns_at(model, step + change),
    )


def expansions(model: PixelModel, basis: PixelBasis, device: torch.device, names: Sequence[str] = ()) -> Expansions:
    """Further points of expansion, on a lattice that theta, prior and lines fix, each made when a pixel needs it.

    Args:
        model: of the pixels.
        basis: with tangents.
        device: of the counts.
        names: of the components, for messages.
    """
    around = basis.tangents
    if around is None:
        raise FitError("pixel expansions need a basis with tangents: give that of the nonlinear method")
    spacing = _SPACING / around.motion.abs().amax(dim=0).clamp(min=1e-12)

    @lru_cache(maxsize=_KEPT)
    def at(place: tuple[int, ...]) -> PixelOperator:
        centre = spacing * torch.tensor(place, dtype=torch.float64)
        step = torch.zeros_like(model.parts[0].theta)
        for name, sd, moved in zip(around.names, around.prior_sd, centre, strict=True):
            step[INDEX[name]] = sd * moved
        return prepared(_moved(model, basis, step, around, centre), device, names)

    return Expansions(
        spacing=spacing.to(torch.float32).to(device), prior_sd=around.prior_sd.to(torch.float32).to(device), at=at
    )


def _moved(model: PixelModel, basis: PixelBasis, step: Tensor, around: Tangents, centre: Tensor) -> PixelBasis:
    """The basis at another theta."""
    background = basis.columns[:, basis.n_components :]
    columns = torch.cat([columns_at(model, step), background], dim=1)
    tangents = replace(_tangents(model, step, around), centre=centre)
    return replace(basis, columns=columns, expected=columns @ basis.coefficients, tangents=tangents)


def clipping_of(model: PixelModel, device: torch.device) -> Tensor:
    """Half-width (channel,) of the pixels' peak clipping, that of integrated spectra; of a sum, its first part's."""
    width = fwhm_channels(model.parts[0].theta, model.channel, model.constants)
    return (SNIP_HALF_WIDTH_FWHM * width).to(torch.float32).to(device)


def full_of(model: PixelModel, basis: PixelBasis, device: torch.device) -> FullModel:
    """What the pixels are fitted with by the true model.

    Raises:
        FitError: the raw sum of several detectors.
    """
    if len(model.parts) != 1:
        raise FitError("pixel method 'full' fits the theta of one detector, not of a sum; give pixels.detectors: each")
    (part,) = model.parts
    found = full_model(spectrum_model(model, part), part.theta, basis)
    return moved_to(device, found)
