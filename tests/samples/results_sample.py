"""A results store that looks like a fitted scan: known maps, known spectra, one pixel of every outcome."""

from pathlib import Path

import numpy as np
import torch
from fit_samples import one_line

from hpcxrf.fitting.result import FitStatus, FittedRatios, PixelFit, SpectrumFit
from hpcxrf.notes import Note
from hpcxrf.results.store.maps import create_results, finalise, write_block, write_spectrum_fits
from hpcxrf.store.schema import BLOCK_X, BLOCK_Y

LINES_KEV = {
    "S": 2.308,
    "K": 3.313,
    "Ca": 3.691,
    "Ti": 4.509,
    "Cr": 5.412,
    "Mn": 5.895,
    "Fe": 6.399,
    "Ni": 7.472,
    "Cu": 8.041,
    "Zn": 8.631,
    "compton": 9.6,
    "elastic": 10.0,
}
COMPONENTS = tuple(LINES_KEV)
WEIGHTS = np.array([80, 150, 400, 60, 20, 30, 900, 15, 250, 120, 700, 500.0])
PARAMETERS = {
    # name: unit, value, sigma, initial, lower, upper, free, at bound
    "energy_offset": ("keV", 0.0021, 2e-4, 0.0, -0.5, 0.5, True, False),
    "energy_slope": ("keV/channel", 0.01, 1e-7, 0.01, 0.004, 0.03, True, False),
    "energy_quadratic": ("keV/channel^2", 0.0, np.nan, 0.0, -1e-7, 1e-7, False, False),
    "fwhm_offset": ("keV", 0.112, 8e-4, 0.12, 0.02, 0.25, True, False),
    "fwhm_fanoprime": ("keV", 6e-4, 2e-5, 2.3e-4, 2e-5, 6e-4, True, True),
    "compton_angle": ("deg", 92.4, 0.8, 90.0, 40.0, 170.0, True, False),
    "step_offset": ("1", 0.0, np.nan, 0.0, 0.0, 0.1, False, False),
}
N_CHANNELS = 1200
FIRST, LAST = 100, 1100
EXPOSURE = 1000.0
"""Counts of the maps for one count of the integrated spectrum, so that noise shows in R2."""


def true_maps(shape_yx: tuple[int, int]) -> np.ndarray:
    """Smooth grains (component, y, x), mean counts of each component near its weight."""
    y, x = np.meshgrid(*(np.linspace(0, 1, n) for n in shape_yx), indexing="ij")
    rng = np.random.default_rng(5)
    maps = []
    for weight in WEIGHTS:
        grains = sum(
            np.exp(-(((y - cy) ** 2 + (x - cx) ** 2) / (2 * width**2)))
            for cy, cx, width in rng.uniform([0, 0, 0.04], [1, 1, 0.16], (9, 3))
        )
        maps.append(weight * (0.15 + grains))
    return np.stack(maps)


def pixel_fit(amplitude: np.ndarray) -> PixelFit:
    """A fit of a tile whose amplitudes are these (component, y, x)."""
    flat = amplitude.reshape(amplitude.shape[0], -1).T.astype(np.float32)
    sigma = np.sqrt(np.abs(flat) + 9.0)
    status = np.full(len(flat), FitStatus.CONVERGED, dtype=np.uint8)
    status[0], flat[0], sigma[0] = FitStatus.EMPTY, 0.0, np.nan
    return PixelFit(
        amplitude=torch.from_numpy(flat),
        sigma=torch.from_numpy(sigma),
        detection_limit=torch.full(flat.shape, 15.0),
        deviance=torch.ones(len(flat)),
        status=torch.from_numpy(status),
    )


def spectrum_fit(totals: np.ndarray, *, seed: int = 0) -> SpectrumFit:
    """A fit of Gaussians on a smooth background, with Poisson counts."""
    energy = 0.0021 + 0.01 * np.arange(FIRST, LAST)
    width = 0.06
    shapes = np.stack(
        [
            np.exp(-0.5 * ((energy - line) / width) ** 2) * 0.01 / (width * np.sqrt(2 * np.pi))
            for line in LINES_KEV.values()
        ]
    )
    parts = shapes * totals[:, None]
    background = 4 + 4e-4 * totals.sum() * np.exp(-((energy - 6) ** 2) / 12)
    model = parts.sum(0) + background
    counts = np.random.default_rng(seed).poisson(model).astype(float)
    column = [
        torch.tensor(np.array(values))
        for values in zip(*PARAMETERS.values(), strict=True)
        if not isinstance(values[0], str)
    ]
    value, sigma, initial, lower, upper, free, at_bound = column
    residual, spread = ((counts - model) ** 2).sum(), ((counts - counts.mean()) ** 2).sum()
    return SpectrumFit(
        component_names=COMPONENTS,
        table=one_line(),
        parameter_names=tuple(PARAMETERS),
        parameter_units=tuple(row[0] for row in PARAMETERS.values()),
        theta=value.double(),
        theta_sigma=sigma.double(),
        theta_initial=initial.double(),
        theta_lower=lower.double(),
        theta_upper=upper.double(),
        free=free,
        at_bound=at_bound,
        amplitude=torch.from_numpy(totals),
        amplitude_sigma=torch.from_numpy(np.sqrt(totals + 0.01 * totals.sum())),
        detection_limit=torch.full((len(totals),), 0.0105 * float(totals.sum()), dtype=torch.float64),
        first_channel=FIRST,
        counts=torch.from_numpy(counts),
        model=torch.from_numpy(model),
        background=torch.from_numpy(background),
        background_parts=torch.from_numpy(background[None]),
        component_counts=torch.from_numpy(parts),
        r2=float(1 - residual / spread),
        r2_expected=float(1 - counts.sum() / spread),
        reduced_chi2=float(((counts - model) ** 2 / model).mean()),
        deviance=1.02,
        status=FitStatus.CONVERGED,
        iterations=9,
        cpu_s=0.21,
        ratios=FittedRatios(
            names=("sample_transmission", "sample_light_share", "air_depth", "kbeta_all", "Fe K-beta"),
            value=torch.tensor([0.98, 0.3, 0.4, 0.03, -0.021], dtype=torch.float64),
            sigma=torch.tensor([torch.nan, 0.4, 0.1, 0.02, 0.011], dtype=torch.float64),
            prior_sd=torch.tensor([1.0, 0.5, 3.0, 0.04, 0.05], dtype=torch.float64),
            depth_gain=1.5,
        ),
        notes=(Note("fact", "the width constant is 3.58, from the date of the override file"),),
    )


def line_markers() -> list[tuple[float, str]]:
    """One marker a component."""
    named = {"compton": "compton", "elastic": "elastic"}
    return [(energy, named.get(name, f"{name} Ka")) for name, energy in LINES_KEV.items()]


def make_store(
    path: Path,
    *,
    shape_yx: tuple[int, int] = (96, 300),
    detectors: tuple[str, ...] = ("0", "1"),
    step_um: float | None = 0.5,
    last_row: int | None = None,
    complete: bool = True,
) -> np.ndarray:
    """Write a whole store and return its maps (component, y, x); rows from `last_row` on are not run."""
    ny, nx = shape_yx
    maps = true_maps(shape_yx)
    y_um, x_um = np.meshgrid(np.arange(ny) * 1.0, np.arange(nx) * 1.0, indexing="ij")
    create_results(
        path,
        detectors=detectors,
        components=COMPONENTS,
        shape_yx=shape_yx,
        n_channels=N_CHANNELS,
        attributes={"dataset_id": path.stem, "versions": {"hpcxrf": "0.1.0"}},
        positions_um=None if step_um is None else (x_um * step_um, y_um * step_um),
    )
    for detector in range(len(detectors)):
        for y0 in range(0, last_row or ny, BLOCK_Y):
            for x0 in range(0, nx, BLOCK_X):
                y, x = slice(y0, min(y0 + BLOCK_Y, ny)), slice(x0, min(x0 + BLOCK_X, nx))
                write_block(path, detector, y, x, pixel_fit(maps[:, y, x]))
    fits = {name: spectrum_fit(maps.sum((1, 2)) / EXPOSURE, seed=seed) for seed, name in enumerate(detectors)}
    write_spectrum_fits(path, fits, N_CHANNELS, line_markers=line_markers())
    if complete:
        finalise(path, {"source": "simulated"})
    return maps
