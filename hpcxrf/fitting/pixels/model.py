"""The true model of a scan's pixels: of one detector, or of the raw sum of several, each with its own theta."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hpcxrf.physics.anode_scatter import ScatterCopies
from hpcxrf.physics.constants import ConstantSet
from hpcxrf.physics.lines import LineTable
from hpcxrf.physics.model import SpectrumModel, evaluate


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorPart:
    """One detector's part of the spectra."""

    theta: Tensor
    """(parameter,) float64."""
    table: LineTable
    share: Tensor
    """(component,) float64: part of the component's counts; 1 of a detector alone."""
    copies: ScatterCopies | None = None
    """Scattered lines of a tube's anode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelModel:
    """Detectors, lines and channels that the columns of the pixels are made of."""

    parts: tuple[DetectorPart, ...]
    channel: Tensor
    """(channel,) float64: channels of the fit range, counted from 0 of the full spectrum."""
    constants: ConstantSet
    elastic: bool


def spectrum_model(model: PixelModel, part: DetectorPart) -> SpectrumModel:
    """Lines, channels and constants of one part."""
    return SpectrumModel(
        table=part.table, channel=model.channel, constants=model.constants, elastic=model.elastic, copies=part.copies
    )


def columns_at(model: PixelModel, step: Tensor | float = 0.0) -> Tensor:
    """Columns (channel, component) float64 where theta of every part has changed by `step` (parameter,)."""
    return sum(
        (part.share * evaluate(part.theta + step, spectrum_model(model, part)).phi for part in model.parts),
        start=torch.zeros((), dtype=torch.float64),
    )
