"""Basis, model and solver of the pixels, from the run file and the fits of the integrated spectra, or from a store."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from hpcxrf.config.pixels import PixelConfig
from hpcxrf.config.run import RunConfig
from hpcxrf.fitting.pixels.background_columns import MOST_COLUMNS
from hpcxrf.fitting.pixels.basis import PixelBasis, group_background, pixel_basis
from hpcxrf.fitting.pixels.fit import prepare_solver
from hpcxrf.fitting.pixels.model import DetectorPart, PixelModel
from hpcxrf.fitting.pixels.nonlinear import model_tangents
from hpcxrf.fitting.pixels.parts import Solver
from hpcxrf.fitting.pixels.tangent import DRIFT_SD, RELATIVE_DRIFT_SD
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.detector_sum import (
    SOLVED,
    component_shares,
    evaluate_columns,
    find_common_channels,
    sum_columns,
)
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.methods import METHODS, PixelMethodName
from hpcxrf.physics.constants import constant_set
from hpcxrf.physics.parameters import PARAMETERS
from hpcxrf.pipeline.prepare.inputs import SUM


def basis_of(
    name: str, fits: Mapping[str, SpectrumFit], problems: Sequence[FitProblem], n_pixels: int, config: PixelConfig
) -> PixelBasis:
    """Linear model of a pixel, at the theta of the fits of some spectra summed over pixels.

    Args:
        name: name of the detector, or `sum`.
        fits: fits by detector.
        problems: problems of all detectors of the scan.
        n_pixels: pixels that were summed.
        config: section `pixels` of the run file; without a number of background columns there, the basis has all.
    """
    fit = fits[name]
    groups = group_background(fit.background_parts, _most_columns(config))
    if name == SUM:
        every = [fits[str(d)] for d in range(len(problems))]
        phi = sum_columns(every, problems).phi
    else:
        stop = fit.first_channel + fit.counts.shape[0]
        channel = torch.arange(fit.first_channel, stop, dtype=torch.float64)
        phi = evaluate_columns(fit, problems[int(name)], channel)
    names = fit.component_names
    basis = pixel_basis(phi, fit.amplitude, groups, n_pixels, names=names, first_channel=fit.first_channel)
    if not METHODS[config.method].tangents:
        return basis
    return replace(basis, tangents=model_tangents(pixel_model_of(name, fits, problems)))


def _most_columns(config: PixelConfig) -> int:
    if config.background == "snip":
        return 0
    return MOST_COLUMNS if config.background_columns is None else config.background_columns


def pixel_model_of(name: str, fits: Mapping[str, SpectrumFit], problems: Sequence[FitProblem]) -> PixelModel:
    """Detectors, lines and channels that the columns of the pixels are made of.

    Args:
        name: name of the detector, or `sum`.
        fits: fits by detector.
        problems: problems of all detectors of the scan.
    """
    if name != SUM:
        fit, problem = fits[name], problems[int(name)]
        stop = fit.first_channel + fit.counts.shape[0]
        part = DetectorPart(theta=fit.theta, table=fit.table, share=torch.ones_like(fit.amplitude), copies=fit.copies)
        return PixelModel(
            parts=(part,),
            channel=torch.arange(fit.first_channel, stop, dtype=torch.float64),
            constants=problem.constants,
            elastic=problem.elastic,
        )
    every = [fits[str(d)] for d in range(len(problems))]
    shares = component_shares(every)
    first, last = find_common_channels(every)
    return PixelModel(
        parts=tuple(
            DetectorPart(theta=fit.theta, table=fit.table, share=share, copies=fit.copies)
            for fit, share in zip(every, shares, strict=True)
            if fit.status in SOLVED
        ),
        channel=torch.arange(first, last, dtype=torch.float64),
        constants=problems[0].constants,
        elastic=problems[0].elastic,
    )


def needs_model(config: PixelConfig) -> bool:
    """Whether the pixels are fitted with more than fixed columns."""
    return METHODS[config.method].free or config.background == "snip"


def free_parameters(method: PixelMethodName) -> dict[str, str]:
    """Units by name of the parameters that every pixel has of its own."""
    if not METHODS[method].free:
        return {}
    return {p.name: p.unit for p in PARAMETERS if p.name in {*DRIFT_SD, *RELATIVE_DRIFT_SD}}


def solver_of(config: PixelConfig, basis: PixelBasis, model: PixelModel | None, device: torch.device) -> Solver:
    """The method of the run file, prepared for the pixels of one detector.

    Args:
        config: section `pixels` of the run file.
        basis: linear model of the pixels.
        model: true model of the pixels; None where `needs_model` is false.
        device: device of the counts.

    Raises:
        FitError: columns with indistinguishable spectra, or a method that does not fit the sum of detectors.
    """
    return prepare_solver(config.method, basis, model, device, clipped=config.background == "snip")


def stored_solver(path: Path, detector: str, basis: PixelBasis, config: RunConfig, device: torch.device) -> Solver:
    """The method of the run, prepared for the pixels of one detector of a results store.

    Args:
        path: the results store.
        detector: name of the detector.
        basis: its basis in the store.
        config: configuration of the run.
        device: device of the counts.

    Raises:
        OutputError: the store has no model of the pixels, which the method needs.
        FitError: columns with indistinguishable spectra.
    """
    model = None
    if needs_model(config.pixels):
        # It loads zarr, which a fit of one file has no need of.
        from hpcxrf.results.store.pixel_model import read_pixel_model

        model = read_pixel_model(path, detector, constant_set(config.fit.constants))
    return solver_of(config.pixels, basis, model, device)
