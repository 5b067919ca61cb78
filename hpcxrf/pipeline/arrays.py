"""Maps of counts that lie in memory or in an opened file: the fits of a run, without a run directory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from hpcxrf.config.pixels import PixelConfig
from hpcxrf.fitting.pixels.background_columns import find_classes
from hpcxrf.fitting.pixels.basis import PixelBasis, photon_variance
from hpcxrf.fitting.pixels.mixtures import find_mixtures
from hpcxrf.fitting.result import FitStatus, PixelFit, SpectrumFit
from hpcxrf.fitting.spectrum.detector_sum import SOLVED
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.formats.counts import CountFaults, mend_counts
from hpcxrf.formats.scan import RawScan
from hpcxrf.notes import Note
from hpcxrf.pipeline.blocks import Block, blocks_of
from hpcxrf.pipeline.pixels.choices import choose_columns, sample_pixels
from hpcxrf.pipeline.pixels.count_factors import average_factor, find_count_factors
from hpcxrf.pipeline.pixels.device import device_guard
from hpcxrf.pipeline.pixels.excess import check_arrays
from hpcxrf.pipeline.pixels.findings import Findings, apply_findings
from hpcxrf.pipeline.pixels.from_config import basis_of, needs_model, pixel_model_of, solver_of
from hpcxrf.pipeline.pixels.outliers import describe_outliers, find_outliers
from hpcxrf.pipeline.pixels.task import PixelTask, fit_blocks, read_block
from hpcxrf.pipeline.prepare.inputs import SUM
from hpcxrf.pipeline.sums import Advance, sum_scan
from hpcxrf.results.names import shown_name
from hpcxrf.results.photon_variance import name_components
from hpcxrf.runner.worker import Clock, one_thread
from hpcxrf.store.bands import counted_type, find_narrowest_type, read_mended
from hpcxrf.store.exposure import describe_unexposed, find_unexposed
from hpcxrf.store.schema import spectra_layout
from hpcxrf.store.spikes import find_spikes

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
    absent: NDArray[np.bool_]
    """(detector, y, x): where the spectrum of one detector was not."""
    places: NDArray[np.int64]
    """(place, 4): detector, y, x, channel of channels that a detector can hardly have counted."""
    notes: tuple[Note, ...] = ()
    """Warnings of counts that were mended."""

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

    def missing(self, detector: int, y: slice = slice(None), x: slice = slice(None)) -> NDArray[np.bool_]:
        """Where the spectrum of one detector was not measured, (y, x)."""
        return np.asarray(self.absent[detector, y, x])

    def spikes(self, detector: int) -> NDArray[np.int64]:
        """Places (place, 3) of channels that a detector can hardly have counted: y, x, channel."""
        return np.ascontiguousarray(self.places[self.places[:, 0] == detector, 1:])


def spectra_of_array(counts: Counts) -> ReadSpectra:
    """Read counts in memory as a scan.

    Args:
        counts: (detector, y, x, channel).

    Raises:
        InputFileError: values that are not counts.
    """
    n_detectors, n_y, n_x, n_channels = counts.shape
    mended = mend_counts(counts, "counts")
    faults = CountFaults(size=counts.size)
    faults.add(int(mended.negative.sum()), mended.lowest, int(mended.missing.sum()), "counts")
    return ReadSpectra(
        shape=(n_detectors, n_y, n_x, n_channels),
        dtype=counted_type(find_narrowest_type(mended.counts, "counts")),
        read=lambda rows: mended.counts[:, rows],
        total=mended.counts.sum(axis=(1, 2), dtype=np.float64),
        highest=mended.counts.max(axis=(1, 2)).astype(np.float64),
        present=np.logical_not(mended.missing.all(axis=0)),
        absent=mended.missing,
        places=find_spikes(mended.counts),
        notes=tuple(faults.notes()),
    )


def spectra_of_scan(scan: RawScan, advance: Advance | None = None) -> ReadSpectra:
    """Read an opened file as a scan: once by bands of rows for sums and type, later band by band as it is fitted.

    Args:
        scan: the scan.
        advance: called with (rows read, rows).

    Raises:
        InputFileError: the file cannot be read, or holds values that are not counts.
    """
    sums, scalars = sum_scan(scan, advance), scan.read_scalars()
    unexposed = find_unexposed(
        scalars.live_time_s,
        lambda rows: read_mended(scan, rows).counts,
        rows_per_read=max(scan.rows_per_read, 1),
        measured=scalars.measured,
    )
    missing = sums.missing if unexposed is None else sums.missing | unexposed
    somewhere = np.asarray(np.logical_not(missing.all(axis=0)))
    return ReadSpectra(
        shape=scan.shape,
        dtype=sums.dtype,
        read=lambda rows: read_mended(scan, rows).counts,
        total=sums.total,
        highest=sums.highest,
        present=somewhere if scalars.measured is None else scalars.measured & somewhere,
        absent=missing,
        places=sums.spikes,
        notes=(*sums.notes, *describe_unexposed(unexposed)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorMaps:
    """Maps of one detector, or of the sum of several."""

    arrays: dict[str, Counts]
    """Maps by name: (component, y, x), (parameter, y, x) or (y, x)."""
    photon_variance: dict[str, float]
    """Variance that one recorded count of a component adds to its amplitude, by component."""
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
        nothing = {**dict.fromkeys(_MAPS, blank), "deviance": blank[0], "deviance_z": blank[0], "status": status}
        return DetectorMaps(arrays=nothing, photon_variance={})
    with one_thread():
        basis, notes = _choose_basis(spectra, name, fits, problems, config)
        model = pixel_model_of(name, fits, problems) if needs_model(config) else None
        with device_guard(device):
            solver = solver_of(config, basis, model, device)

    findings, remarks = _find_findings(spectra, name, basis.channels)

    def write(block: Block, fit: PixelFit) -> None:
        good = apply_findings(fit, spectra, block, name, basis.channels, findings)
        _put(arrays, good, block, shape_yx)

    task = PixelTask(
        store=spectra,
        detector=name,
        channels=basis.channels,
        solver=solver,
        config=config,
        clock=Clock(),
        device=device,
    )
    found = fit_blocks(blocks_of(shape_yx), task, write)
    high = check_arrays(name, fits[name], arrays["amplitude"], arrays["sigma"], config)
    with one_thread():
        photon = findings.factor_of(name) * photon_variance(basis)
    return DetectorMaps(
        arrays=arrays,
        photon_variance=name_components(fits[name].component_names, photon),
        notes=(*spectra.notes, *remarks, *notes, *found, *high),
    )


def _find_findings(spectra: ReadSpectra, name: str, channels: slice) -> tuple[Findings, list[Note]]:
    """Outlier pixels of a detector, or of all that are summed, how their counts scatter, and sentences on both."""
    which = range(spectra.shape[0]) if name == SUM else [int(name)]
    pixels = {d: found for d in which if (found := find_outliers(spectra, d).pixels_in(channels))}
    texts = [
        f"{describe_outliers(d, one)}; leave them out of the spectrum that you fit, as a run does"
        for d, one in pixels.items()
    ]
    factors, scatter = find_count_factors(spectra, dict.fromkeys(which, channels), Findings(outliers=pixels))
    if name == SUM and factors:
        factors[SUM] = average_factor(factors, spectra, which)
    notes = [Note("warning", text) for text in [*texts, *scatter]]
    return Findings(outliers=pixels, factors=factors), notes


def _choose_basis(
    spectra: ReadSpectra,
    name: str,
    fits: Mapping[str, SpectrumFit],
    problems: Sequence[FitProblem],
    config: PixelConfig,
) -> tuple[PixelBasis, list[Note]]:
    """Linear model of the pixels, with weights for classes of them where that gains precision, and notes."""
    n_pixels = int(spectra.present.sum())
    every = basis_of(name, fits, problems, n_pixels, config)
    basis, _ = choose_columns(every, spectra, name, read_block, config)
    shown = replace(basis, names=tuple(shown_name(one) for one in basis.names))
    notes = [Note("warning", mixture.text) for mixture in find_mixtures(shown, n_pixels)]
    if not config.wants_weight_classes:
        return basis, notes
    counts, measured = sample_pixels(spectra, name, basis.channels, read_block)
    classes = find_classes(torch.from_numpy(counts), torch.from_numpy(measured), basis)
    if len(classes.share) == 1:
        return basis, notes
    return replace(basis, weight_classes=classes), [*notes, Note("fact", classes.report)]


def _put(arrays: dict[str, Counts], fit: PixelFit, tile: Block, shape_yx: tuple[int, int]) -> None:
    """Write the pixels of a tile, in row-major order, into the maps."""
    tile_yx = (tile.y.stop - tile.y.start, tile.x.stop - tile.x.start)
    for name in (*_MAPS, "deviance", "deviance_z", "status", "theta_shift", "theta_shift_sigma"):
        values = getattr(fit, name)
        if name == "deviance_z" and values is None:
            # Another detector may have it.
            values = torch.full_like(fit.deviance, torch.nan)
        if values is None:
            continue
        layers = np.moveaxis(values.numpy().reshape(*tile_yx, *values.shape[1:]), (0, 1), (-2, -1))
        if name not in arrays:
            arrays[name] = np.zeros((*values.shape[1:], *shape_yx), dtype=layers.dtype)
        arrays[name][..., tile.y, tile.x] = layers
