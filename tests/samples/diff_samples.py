"""Results stores of two runs: what is changed on purpose between them, and nothing else."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from results_sample import COMPONENTS, N_CHANNELS, pixel_fit, spectrum_fit, true_maps

from hpcxrf.fitting.status import FitStatus
from hpcxrf.fitting.verdict import Verdict
from hpcxrf.results.store.maps import create_results, finalise, write_block, write_spectrum_fits

SHAPE = (20, 30)
EXPOSURE = 100.0


def write_result(
    path: Path,
    *,
    title: str = "leaf",
    sha256: str = "a" * 64,
    source: str = "/data/leaf.h5",
    detectors: tuple[str, ...] = ("0",),
    components: tuple[str, ...] = COMPONENTS,
    scale: dict[str, float] | None = None,
    theta: dict[str, float] | None = None,
    deviance: float = 1.02,
    verdict: Verdict = Verdict.GOOD,
    status: FitStatus = FitStatus.CONVERGED,
    bad_pixels: int = 0,
    configuration: dict | None = None,
    attributes: dict | None = None,
) -> Path:
    """Write a store; `scale` multiplies the maps of components, `theta` adds to parameters in units of their sigma."""
    every = true_maps(SHAPE)
    for name, factor in (scale or {}).items():
        every[COMPONENTS.index(name)] *= factor
    places = [COMPONENTS.index(name) for name in components]
    create_results(
        path,
        detectors=detectors,
        components=components,
        shape_yx=SHAPE,
        n_channels=N_CHANNELS,
        attributes={
            "title": title,
            "source_files": [{"path": source, "bytes": 1000, "sha256": sha256}],
            "configuration": configuration or {"input": {"files": [source]}, "fit": {"kbeta_sd": 0.0}},
            "hpcxrf_version": "0.1.0",
            **(attributes or {}),
        },
    )
    tile = pixel_fit(every[places])
    if bad_pixels:
        tile.status[-bad_pixels:] = FitStatus.SATURATED
    for place in range(len(detectors)):
        write_block(path, place, slice(0, SHAPE[0]), slice(0, SHAPE[1]), tile)
    fit = spectrum_fit(true_maps(SHAPE).sum((1, 2)) / EXPOSURE)
    moved = fit.theta.clone()
    for name, steps in (theta or {}).items():
        at = fit.parameter_names.index(name)
        moved[at] += steps * float(torch.nan_to_num(fit.theta_sigma, nan=1.0)[at])
    fit = replace(
        fit,
        component_names=components,
        amplitude=fit.amplitude[places],
        amplitude_sigma=fit.amplitude_sigma[places],
        detection_limit=fit.detection_limit[places],
        component_counts=fit.component_counts[places],
        theta=moved,
        deviance=deviance,
        verdict=verdict,
        status=status,
    )
    write_spectrum_fits(path, dict.fromkeys(detectors, fit), N_CHANNELS)
    finalise(path, {})
    return path


def amplitude_map(component: str, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Amplitude and sigma of a component as they stand in a store, float64."""
    maps = true_maps(SHAPE)
    maps[COMPONENTS.index(component)] *= scale
    fit = pixel_fit(maps)
    at = COMPONENTS.index(component)
    return tuple(x[:, at].numpy().astype(np.float64).reshape(SHAPE) for x in (fit.amplitude, fit.sigma))
