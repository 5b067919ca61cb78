"""Arguments of the library's functions on maps, scans and runs, checked and brought into one form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from hpcxrf.config.pixels import PixelConfig
from hpcxrf.config.run import RunConfig, check_config, load_run_file
from hpcxrf.config.settings import Setting
from hpcxrf.errors import ConfigError, FitError, InputFileError
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.detector_sum import fit_detector_sum
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.formats.scan import RawScan
from hpcxrf.methods import METHODS, PixelMethodName, methods_that
from hpcxrf.pipeline.arguments import Counts, read_spectra, require_solution
from hpcxrf.pipeline.arrays import ReadSpectra, spectra_of_array, spectra_of_scan
from hpcxrf.pipeline.prepare.inputs import SUM
from hpcxrf.runner.worker import one_thread

Fits = SpectrumFit | Sequence[SpectrumFit]

_RUN_FILE_SUFFIXES: Final = (".yaml", ".yml")
_LAYOUTS: Final = {2: ("spectrum",), 3: ("y", "x"), 4: ("y", "x")}
"""Axes of a pixel by number of axes of the counts."""


def read_pixels(counts: Counts | RawScan) -> tuple[ReadSpectra, tuple[str, ...]]:
    """Read counts of pixels, in memory or of an opened file.

    Args:
        counts: (y, x, channel), (spectrum, channel) or (detector, y, x, channel), or a scan.

    Returns:
        The spectra, and the names of the axes of a pixel.

    Raises:
        ConfigError: another shape; counts that are negative or not finite.
        InputFileError: the file cannot be read.
    """
    if isinstance(counts, RawScan):
        return spectra_of_scan(counts), ("y", "x")
    array: NDArray[Any] = counts.detach().cpu().numpy() if isinstance(counts, Tensor) else np.asarray(counts)
    if array.ndim not in _LAYOUTS or array.size == 0:
        raise ConfigError(
            f"counts has shape {array.shape}, must be (y, x, channel), (spectrum, channel) or (detector, y, x, "
            "channel); a single spectrum is fitted by fit_spectrum"
        )
    try:
        return spectra_of_array(array.reshape((1,) * (4 - array.ndim) + array.shape)), _LAYOUTS[array.ndim]
    except InputFileError as error:
        raise ConfigError(str(error)) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedFits:
    """Fits of summed spectra by name, as the pixels are fitted with them."""

    fits: Mapping[str, SpectrumFit]
    """Fits by detector, `sum` among them where it is wanted."""
    problems: Sequence[FitProblem]
    """Problems of all detectors of the counts."""
    wanted: tuple[str, ...]
    """Names of the maps."""


def name_fits(fit: Fits, spectra: ReadSpectra, detector: int | Literal["sum"] | None) -> NamedFits:
    """Say which fit belongs to which detector, and fit the sum of all where it is wanted.

    Args:
        fit: one fit, or one a detector.
        spectra: counts of the pixels.
        detector: number of the detector that is wanted, or `sum`; None: all.

    Raises:
        ConfigError: no such detector, or another number of fits than of detectors, or counts that end below the fit
            range.
        FitError: a fit without solution where it is the only one, or a fit of a sum of detectors.
    """
    number = None if detector == SUM else detector
    several = match_detectors(fit, spectra.shape[0], number)
    _check_channels(list(several.values()), spectra.shape[3])
    problems = {d: _problem_of(one) for d, one in several.items()}
    if len(several) == 1:
        (only,) = several.values()
        require_solution(only, "fit")
    every = [problems.get(d, next(iter(problems.values()))) for d in range(spectra.shape[0])]
    fits = {str(d): one for d, one in several.items()}
    if detector == SUM:
        with one_thread():
            fits[SUM] = fit_detector_sum(torch.from_numpy(spectra.total), list(several.values()), every)
    return NamedFits(fits=fits, problems=every, wanted=(SUM,) if detector == SUM else tuple(map(str, several)))


def match_detectors(fit: Fits, n_detectors: int, detector: int | None) -> dict[int, SpectrumFit]:
    """Say which fit belongs to which detector.

    Args:
        fit: one fit, or one a detector.
        n_detectors: detectors of the counts.
        detector: number of the detector that is wanted; None: all.

    Raises:
        ConfigError: no such detector, or another number of fits than of detectors.
    """
    if detector is not None and detector not in range(n_detectors):
        raise ConfigError(f"detector is {detector!r}, must lie between 0 and {n_detectors - 1}")
    several = [fit] if isinstance(fit, SpectrumFit) else list(fit)
    if len(several) == 1 and (detector is not None or n_detectors == 1):
        return {detector or 0: several[0]}
    if len(several) != n_detectors:
        raise ConfigError(
            f"fit: {len(several)} for counts of {n_detectors} detectors; give a list with a fit of each detector, or "
            "choose one with detector="
        )
    return {d: one for d, one in enumerate(several) if detector in {None, d}}


def _problem_of(fit: SpectrumFit) -> FitProblem:
    if fit.problem is None:
        raise FitError("fit: the fit of a sum of detectors has no theta of its own; give a list with that of each")
    return fit.problem


def _check_channels(fits: Sequence[SpectrumFit], n_channels: int) -> None:
    needed = max(fit.first_channel + fit.counts.shape[0] for fit in fits)
    if needed > n_channels:
        raise ConfigError(
            f"counts has {n_channels} channels, the fit range ends at channel {needed - 1}; give the full spectra, "
            "channels from 0, as to fit_spectrum"
        )


def choose_torch_device(name: str) -> torch.device:
    """Choose the device of the pixels.

    Raises:
        FitError: a CUDA device is asked for and torch sees none.
        ConfigError: not the name of a device.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if name.split(":", maxsplit=1)[0] not in {"cpu", "cuda"}:
        raise ConfigError(f"device is {name!r}, must be 'auto', 'cpu' or 'cuda'")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise FitError(f"device is {name!r}, but torch sees no CUDA device here; use 'cpu', or a CUDA build of torch")
    return torch.device("cuda:0" if name == "cuda" else name)


def sum_pixels(spectra: ReadSpectra, detector: int, mask: npt.ArrayLike | None) -> Tensor:
    """Sum the spectra of the pixels of a region, (channel,) float64, read by bands of rows.

    Args:
        spectra: counts of the scan.
        detector: number of the detector, counted from 0.
        mask: (y, x), True inside; None: all pixels.

    Raises:
        ConfigError: a mask of another shape or without a pixel.
    """
    if mask is None:
        return torch.from_numpy(spectra.integrated(detector).copy())
    inside = np.asarray(mask, dtype=bool)
    shape_yx = spectra.shape[1:3]
    if inside.shape != shape_yx and inside.shape == shape_yx[1:] and shape_yx[0] == 1:
        inside = inside[None]
    if inside.shape != shape_yx or not inside.any():
        raise ConfigError(
            f"mask has shape {inside.shape} and {int(inside.sum())} pixels; give shape {shape_yx}, one or more pixels"
        )
    step, total = spectra.chunks[1], np.zeros(spectra.shape[3])
    for y in range(0, shape_yx[0], step):
        rows = slice(y, min(y + step, shape_yx[0]))
        if inside[rows].any():
            total += spectra.read_rows([detector], rows)[0][inside[rows]].sum(axis=0, dtype=np.float64)
    return torch.from_numpy(total)


def region_spectrum(
    counts: Counts | RawScan, fit: SpectrumFit, mask: npt.ArrayLike | None, detector: int | None
) -> Tensor:
    """Sum the spectra of a region, or take a spectrum that is already summed, (channel,) float64.

    Raises:
        ConfigError: counts, mask or detector that are not valid.
        InputFileError: the scan cannot be read.
    """
    if mask is None and not isinstance(counts, RawScan) and np.ndim(np.asarray(counts)) == 1:
        return read_spectra(counts)[0]
    spectra, _ = read_pixels(counts)
    (place,) = match_detectors(fit, spectra.shape[0], detector)
    return sum_pixels(spectra, place, mask)


def pixel_config(
    method: str, background: str, background_columns: int | None, weights: str, *, deviance: bool
) -> PixelConfig:
    """Check the options of the pixels; they are those of the section `pixels` of a run file.

    Raises:
        ConfigError: all faults at once, by the names of the arguments.
    """
    faults = [
        f"{name} is {value!r}, must be {', '.join(map(repr, allowed))}"
        for name, value, allowed in (
            ("method", method, tuple(METHODS)),
            ("background", background, ("columns", "snip")),
            ("weights", weights, ("auto", "one")),
        )
        if value not in allowed
    ]
    if background_columns is not None and background_columns not in range(17):
        faults.append(f"background_columns is {background_columns!r}, must be 0 to 16, or None")
    if background == "snip" and method in METHODS and not METHODS[cast("PixelMethodName", method)].snip:
        faults.append(f"background 'snip' is not available with method {method!r}; use {methods_that('snip')}")
    if faults:
        raise ConfigError("invalid options: " + "; ".join(faults))
    return PixelConfig(
        method=cast("PixelMethodName", method),
        background=cast("Literal['columns', 'snip']", background),
        background_columns=background_columns,
        weights=cast("Literal['auto', 'one']", weights),
        deviance=deviance,
    )


def read_positions(scan: RawScan) -> dict[str, NDArray[np.float64]]:
    """Read the stage positions of a scan, micrometres, by name as far as they are known everywhere."""
    scalars = scan.read_scalars()
    known = {"x_um": scalars.x_um, "y_um": scalars.y_um}
    return {name: np.array(one) for name, one in known.items() if one is not None and bool(np.isfinite(one).all())}


def read_run_config(
    source: str | Path | Sequence[str | Path], sections: Mapping[str, Mapping[str, Any]]
) -> tuple[RunConfig, str]:
    """Read a run file, or the names of scans, with values by section over its own.

    Returns:
        The checked configuration, and the text of a run file that says the same.

    Raises:
        ConfigError: the file cannot be read, or values that are not valid: all of them at once.
    """
    files = [Path(source)] if isinstance(source, str | Path) else [Path(one) for one in source]
    given = {(section, key): value for section, values in sections.items() for key, value in values.items()}
    if len(files) == 1 and files[0].suffix in _RUN_FILE_SUFFIXES:
        settings = [Setting(place=place, value=v, origin=".".join(place)) for place, v in given.items()]
        return load_run_file(files[0], settings)
    raw: dict[str, Any] = {name: dict(values) for name, values in sections.items() if values}
    raw["input"] = {**raw.get("input", {}), "files": [str(file.absolute()) for file in files]}
    return check_config(raw, "hpcxrf.run"), yaml.safe_dump(raw, sort_keys=False)
