"""The pixels' model beyond fixed columns, for one detector or the sum of all: what it is made of, and in a task."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from hpcxrf.config.pixels import PixelConfig
from hpcxrf.config.regions import FREE_METHODS
from hpcxrf.config.run import RunConfig
from hpcxrf.fitting.pixels.basis import PixelBasis, Tangents
from hpcxrf.fitting.pixels.methods import MethodData, PixelMethod, group_background, pixel_basis
from hpcxrf.fitting.pixels.model import DetectorPart, PixelModel, clipping_of, expansions, full_of, model_tangents
from hpcxrf.fitting.pixels.tangent import DRIFT_SD, RELATIVE_DRIFT_SD
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.detector_sum import SOLVED, component_shares, detector_columns, sum_channels, sum_columns
from hpcxrf.fitting.spectrum.problem import SpectrumSetup
from hpcxrf.physics.constants import constant_set
from hpcxrf.physics.parameters import PARAMETERS
from hpcxrf.pipeline.prepare.inputs import SUM
from hpcxrf.results.store.pixel_models import read_pixel_model


def basis_of(
    name: str, fits: Mapping[str, SpectrumFit], setups: Sequence[SpectrumSetup], n_pixels: int, config: RunConfig
) -> tuple[int, PixelBasis]:
    """First channel and linear model of a pixel, at the theta of the fits of some spectra summed over pixels.

    Args:
        name: of the detector, or `sum`.
        fits: by detector.
        setups: of all detectors of the scan.
        n_pixels: pixels that were summed.
        config: of the run.
    """
    fit = fits[name]
    clipped = config.pixels.background == "snip"
    n_groups = 0 if clipped else config.pixels.background_columns
    groups = group_background(fit.background_parts, n_groups)
    if name == SUM:
        every = [fits[str(d)] for d in range(len(setups))]
        phi = sum_columns(every, setups).phi
    else:
        stop = fit.first_channel + fit.counts.shape[0]
        channel = torch.arange(fit.first_channel, stop, dtype=torch.float64)
        phi = detector_columns(fit, setups[int(name)], channel)
    basis = pixel_basis(phi, fit.amplitude, groups, n_pixels)
    if config.pixels.method == "nonlinear":
        basis = replace(basis, tangents=tangents_of(name, fits, setups))
    return fit.first_channel, basis


def tangents_of(name: str, fits: Mapping[str, SpectrumFit], setups: Sequence[SpectrumSetup]) -> Tangents:
    """Changes of the pixels' columns with theta; in the sum, all detectors drift together.

    Args:
        name: of the detector, or `sum`.
        fits: by detector.
        setups: of all detectors of the scan.
    """
    return model_tangents(pixel_model_of(name, fits, setups))


def pixel_model_of(name: str, fits: Mapping[str, SpectrumFit], setups: Sequence[SpectrumSetup]) -> PixelModel:
    """What the columns of the pixels are made of.

    Args:
        name: of the detector, or `sum`.
        fits: by detector.
        setups: of all detectors of the scan.
    """
    if name != SUM:
        fit, setup = fits[name], setups[int(name)]
        stop = fit.first_channel + fit.counts.shape[0]
        part = DetectorPart(theta=fit.theta, table=fit.table, share=torch.ones_like(fit.amplitude))
        return PixelModel(
            parts=(part,),
            channel=torch.arange(fit.first_channel, stop, dtype=torch.float64),
            constants=setup.constants,
            elastic=setup.elastic,
        )
    every = [fits[str(d)] for d in range(len(setups))]
    shares = component_shares(every)
    first, last = sum_channels(every)
    return PixelModel(
        parts=tuple(
            DetectorPart(theta=fit.theta, table=fit.table, share=share)
            for fit, share in zip(every, shares, strict=True)
            if fit.status in SOLVED
        ),
        channel=torch.arange(first, last, dtype=torch.float64),
        constants=setups[0].constants,
        elastic=setups[0].elastic,
    )


def needs_model(config: RunConfig) -> bool:
    """Whether the pixels are fitted with more than fixed columns."""
    return config.pixels.method in FREE_METHODS or config.pixels.background == "snip"


def free_parameters(method: PixelMethod) -> dict[str, str]:
    """Units by name of the parameters that every pixel has of its own."""
    if method not in FREE_METHODS:
        return {}
    return {p.name: p.unit for p in PARAMETERS if p.name in {*DRIFT_SD, *RELATIVE_DRIFT_SD}}


def method_data(
    model: PixelModel | None, basis: PixelBasis, config: PixelConfig, device: torch.device, names: Sequence[str] = ()
) -> MethodData:
    """What the pixels' method needs beside the operator.

    Args:
        model: of the pixels; None where the method needs none.
        basis: of the pixels.
        config: of the pixels.
        device: of the counts.
        names: of the components, for messages.

    Raises:
        FitError: `full` on the sum of detectors.
    """
    if model is None:
        return MethodData()
    if config.background == "snip":
        return MethodData(clipping=clipping_of(model, device))
    if config.method == "full":
        return MethodData(full=full_of(model, basis, device))
    return MethodData(expansions=expansions(model, basis, device, names))


def stored_model(path: Path, detector: str, config: RunConfig) -> PixelModel | None:
    """The model of one detector's pixels from a results store; None where the run's method needs none."""
    if not needs_model(config):
        return None
    return read_pixel_model(
        path, detector, constant_set(config.fit.constants), elastic=config.sample.source == "monochromatic"
    )
