"""Maps of counts that lie in memory or in an opened file: the fits of a run, without a run directory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from hpcxrf.config.pixels import PixelConfig
from hpcxrf.fitting.pixels.basis import PixelBasis
from hpcxrf.fitting.pixels.mixtures import find_mixtures
from hpcxrf.fitting.pixels.weight_classes import find_weight_classes
from hpcxrf.fitting.result import FitStatus, PixelFit, SpectrumFit
from hpcxrf.fitting.spectrum.detector_sum import SOLVED
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.formats.scan import RawScan
from hpcxrf.notes import Note
from hpcxrf.pipeline.blocks import Block, blocks_of
from hpcxrf.pipeline.pixels.choices import sample_pixels
from hpcxrf.pipeline.pixels.device import device_guard
from hpcxrf.pipeline.pixels.flags import saturated_pixels, without_saturated
from hpcxrf.pipeline.pixels.from_config import basis_of, needs_model, pixel_model_of, solver_of
from hpcxrf.pipeline.pixels.task import PixelTask, fit_blocks, read_block
from hpcxrf.results.names import shown_name
from hpcxrf.runner.worker import Clock, one_thread
from hpcxrf.store.bands import COUNT_TYPES, find_narrowest_type
from hpcxrf.store.schema import spectra_layout

Counts = NDArray[Any]

_MAPS: Final = ("amplitude", "sigma", "detection_limit")
"""Names of the maps that have one layer a component."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadSpectra:
    """Counts of a scan read as those of a spectra store are, in the same chunks and of the same type."""

    shape: tuple[int, int, int, int]
    """(detector, y, x, channel)."""
    dtype: np.dtype[Any]
    """Narrowest of uint16, uint32 and float32 that holds every count."""
    read: Callable[[slice], Counts]
    """`read(rows)` gives (detector, rows, x, channel)."""
    total: NDArray[np.float64]
    """(detector, channel): sum over the pixels."""
    highest: NDArray[np.float64]
    """(detector, channel): maximum over the pixels."""
    present: NDArray[np.bool_]
    """(y, x): where a spectrum was recorded."""

    @property
    def chunks(self) -> tuple[int, ...]:
        """(detector, y, x, channel) of what a store reads at once."""
        return spectra_layout(self.shape, self.dtype.itemsize).chunks

    def read_rows(self, detectors: Sequence[int], y: slice, x: slice = slice(None)) -> Counts:
        """Read counts of a region, (detector, y, x, channel)."""
        return np.ascontiguousarray(self.read(y)[list(detectors)][:, :, x], dtype=self.dtype)

    def integrated(self, detector: int) -> NDArray[np.float64]:
        """Sum of the spectra of all pixels of one detector, (channel,)."""
        return np.asarray(self.total[detector])

    def max_channel_spectrum(self, detector: int) -> NDArray[np.float64]:
        """Highest counts of any pixel in each channel of one detector, (channel,)."""
        return np.asarray(self.highest[detector])

    def measured(self, y: slice = slice(None), x: slice = slice(None)) -> NDArray[np.bool_]:
        """Where a spectrum was recorded, (y, x)."""
        return np.asarray(self.present[y, x])


def spectra_of_array(counts: Counts) -> ReadSpectra:
    """Read counts in memory as a scan.

    Args:
        counts: (detector, y, x, channel), finite and not negative.

    Raises:
        InputFileError: counts that are negative or not finite.
    """
    n_detectors, n_y, n_x, n_channels = counts.shape
    return ReadSpectra(
        shape=(n_detectors, n_y, n_x, n_channels),
        dtype=find_narrowest_type(counts, "counts"),
        read=lambda rows: counts[:, rows],
        total=counts.sum(axis=(1, 2), dtype=np.float64),
        highest=counts.max(axis=(1, 2)).astype(np.float64),
        present=np.ones((n_y, n_x), dtype=np.bool_),
    )


def spectra_of_scan(scan: RawScan) -> ReadSpectra:
    """Read an opened file as a scan: once by bands of rows for sums and type, later band by band as it is fitted.

    Raises:
        InputFileError: the file cannot be read, or holds counts that are negative or not finite.
    """
    n_detectors, n_rows, n_x, n_channels = scan.shape
    total = np.zeros((n_detectors, n_channels))
    highest, dtype = np.zeros_like(total), COUNT_TYPES[0]
    for start in range(0, n_rows, scan.rows_per_read):
        rows = slice(start, min(start + scan.rows_per_read, n_rows))
        counts = scan.read_counts(rows)
        found = find_narrowest_type(counts, f"{scan.files[0]}, rows {rows.start}..{rows.stop - 1}")
        dtype = max(dtype, found, key=COUNT_TYPES.index)
        total += counts.sum(axis=(1, 2), dtype=np.float64)
        np.maximum(highest, counts.max(axis=(1, 2)), out=highest)
    measured = scan.read_scalars().measured
    return ReadSpectra(
        shape=scan.shape,
        dtype=dtype,
        read=scan.read_counts,
        total=total,
        highest=highest,
        present=np.ones((n_rows, n_x), dtype=np.bool_) if measured is None else measured,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorMaps:
    """Maps of one detector, or of the sum of several."""

    arrays: dict[str, Counts]
    """Maps by name: (component, y, x), (parameter, y, x) or (y, x)."""
    notes: tuple[Note, ...] = ()
    """Sentences on the weights, on components that the counts hardly tell apart, and on pixels without counts."""


def map_detector(
    spectra: ReadSpectra,
    name: str,
    fits: Mapping[str, SpectrumFit],
    problems: Sequence[FitProblem],
    config: PixelConfig,
    device: torch.device,
) -> DetectorMaps:
    """Fit every pixel of one detector, or of the sum of all, at the theta of the summed spectra.

    Args:
        spectra: counts of the scan.
        name: name of the detector, its number counted from 0, or `sum`.
        fits: fits of the summed spectra by name.
        problems: problems of all detectors of the scan.
        config: section `pixels` of a run file: method, background and weights.
        device: device that the pixels are fitted on.

    Returns:
        The maps; those of a detector whose spectrum has no solution are empty.

    Raises:
        FitError: columns with indistinguishable spectra, or a method that does not fit the sum of detectors.
    """
    arrays: dict[str, Counts] = {}
    shape_yx = spectra.shape[1:3]
    if fits[name].status not in SOLVED:
        blank = np.full((len(fits[name].component_names), *shape_yx), np.nan, dtype=np.float32)
        status = np.full(shape_yx, int(FitStatus.EMPTY), dtype=np.uint8)
        return DetectorMaps(arrays={**dict.fromkeys(_MAPS, blank), "deviance": blank[0], "status": status})
    with one_thread():
        basis, notes = _choose_basis(spectra, name, fits, problems, config)
        model = pixel_model_of(name, fits, problems) if needs_model(config) else None
        with device_guard(device):
            solver = solver_of(config, basis, model, device)

    def write(block: Block, fit: PixelFit) -> None:
        full = saturated_pixels(spectra, block, name, basis.channels)
        _put(arrays, without_saturated(fit, full), block, shape_yx)

    task = PixelTask(
        store=spectra,
        detector=name,
        channels=basis.channels,
        solver=solver,
        config=config,
        clock=Clock(),
        device=device,
    )
    return DetectorMaps(arrays=arrays, notes=(*notes, *fit_blocks(blocks_of(shape_yx), task, write)))


def _choose_basis(
    spectra: ReadSpectra,
    name: str,
    fits: Mapping[str, SpectrumFit],
    problems: Sequence[FitProblem],
    config: PixelConfig,
) -> tuple[PixelBasis, list[Note]]:
    """Linear model of the pixels, with weights for classes of them where that gains precision, and notes."""
    n_pixels = int(spectra.present.sum())
    basis = basis_of(name, fits, problems, n_pixels, config)
    shown = replace(basis, names=tuple(shown_name(one) for one in basis.names))
    notes = [Note("warning", mixture.text) for mixture in find_mixtures(shown, n_pixels)]
    if not config.wants_weight_classes:
        return basis, notes
    counts, measured = sample_pixels(spectra, name, basis.channels, read_block)
    classes = find_weight_classes(torch.from_numpy(counts), torch.from_numpy(measured), basis)
    if len(classes.share) == 1:
        return basis, notes
    return replace(basis, weight_classes=classes), [*notes, Note("fact", classes.report)]


def _put(arrays: dict[str, Counts], fit: PixelFit, tile: Block, shape_yx: tuple[int, int]) -> None:
    """Write the pixels of a tile, in row-major order, into the maps."""
    tile_yx = (tile.y.stop - tile.y.start, tile.x.stop - tile.x.start)
    for name in (*_MAPS, "deviance", "status", "theta_shift", "theta_shift_sigma"):
        values = getattr(fit, name)
        if values is None:
            continue
        layers = np.moveaxis(values.numpy().reshape(*tile_yx, *values.shape[1:]), (0, 1), (-2, -1))
        if name not in arrays:
            arrays[name] = np.zeros((*values.shape[1:], *shape_yx), dtype=layers.dtype)
        arrays[name][..., tile.y, tile.x] = layers
