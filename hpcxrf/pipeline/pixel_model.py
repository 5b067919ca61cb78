"""The pixels' model beyond fixed columns: how they change with theta, for one detector or the sum of all."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hpcxrf.fitting.detector_sum import SOLVED, sum_columns
from hpcxrf.fitting.pixel_basis import Tangents
from hpcxrf.fitting.pixel_tangent import tangents_at
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.setup import SpectrumSetup
from hpcxrf.physics.model import SpectrumModel
from hpcxrf.pipeline.inputs import SUM


def tangents_of(
    name: str, fits: Mapping[str, SpectrumFit], setups: Sequence[SpectrumSetup]
) -> Tangents:
    """Changes of the pixels' columns with theta; in the sum, all detectors drift together.

    Args:
        name: of the detector, or `sum`.
        fits: by detector.
        setups: of all detectors of the scan.
    """
    if name != SUM:
        fit = fits[name]
        return tangents_at(fit.theta, _model(fit, setups[int(name)]))
    every = [fits[str(d)] for d in range(len(setups))]
    some = next(d for d, fit in enumerate(every) if fit.status in SOLVED)

    def columns_at(step: Tensor) -> Tensor:
        return sum_columns([replace(fit, theta=fit.theta + step) for fit in every], setups).phi

    return tangents_at(every[some].theta, _model(every[some], setups[some]), columns_at=columns_at)


def _model(fit: SpectrumFit, setup: SpectrumSetup) -> SpectrumModel:
    stop = fit.first_channel + fit.counts.shape[0]
    return SpectrumModel(
        table=fit.table,
        channel=torch.arange(fit.first_channel, stop, dtype=torch.float64),
        constants=setup.constants,
        elastic=setup.elastic,
    )
