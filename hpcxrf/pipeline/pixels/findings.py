"""What the integrated stage finds out about pixels and detectors, for every task that fits pixels afterwards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from hpcxrf.fitting.limits import detection_limit, null_sigma
from hpcxrf.fitting.result import FitStatus, PixelFit, SpectrumFit
from hpcxrf.pipeline.blocks import Block
from hpcxrf.pipeline.pixels.flags import saturated_pixels
from hpcxrf.pipeline.pixels.task import read_block
from hpcxrf.pipeline.prepare.agreement import without_detector_names
from hpcxrf.pipeline.prepare.inputs import SUM

if TYPE_CHECKING:
    # It loads zarr, which a fit of one file has no need of.
    from hpcxrf.store.spectra import Spectra

_BLANK: Final = ("amplitude", "sigma", "detection_limit", "theta_shift", "theta_shift_sigma")


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Faults of pixels and detectors of a scan."""

    outliers: Mapping[int, Sequence[tuple[int, int]]] = field(default_factory=dict)
    """Outlier pixels (y, x) by detector."""
    factors: Mapping[str, float] = field(default_factory=dict)
    """Variance over mean of the counts by name of the detector, or `sum`, where it is not 1."""
    left_out: Mapping[int, str] = field(default_factory=dict)
    """Reasons by detector of those that the sum is made without."""

    def attributes(self) -> dict[str, Any]:
        """Give the findings as JSON values, for the root of a results store."""
        return {
            "outliers": {str(d): [list(pixel) for pixel in pixels] for d, pixels in self.outliers.items()},
            "count_factor": dict(self.factors),
            "detectors_left_out": {str(d): reason for d, reason in self.left_out.items()},
        }

    def factor_of(self, detector: str) -> float:
        """Variance over mean of the counts of a detector, or of the sum."""
        return self.factors.get(detector, 1.0)


def read_findings(attributes: Mapping[str, Any]) -> Findings:
    """Read the findings of a results store; one of version 0.1.0 has none."""
    return Findings(
        outliers={int(d): [(y, x) for y, x in pixels] for d, pixels in attributes.get("outliers", {}).items()},
        factors=dict(attributes.get("count_factor", {})),
        left_out={int(d): str(reason) for d, reason in attributes.get("detectors_left_out", {}).items()},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WithoutDetectors:
    """Spectra of a scan in which some detectors recorded nothing, as those that a sum is made without."""

    store: "Spectra"
    left_out: frozenset[int]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(detector, y, x, channel)."""
        return self.store.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the counts."""
        return self.store.dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """(detector, y, x, channel) of what is read at once."""
        return self.store.chunks

    def read_rows(self, detectors: Sequence[int], y: slice, x: slice = slice(None)) -> NDArray[Any]:
        """Read counts of a region, (detector, y, x, channel); 0 of detectors that are left out."""
        if not self.left_out.intersection(detectors):
            return self.store.read_rows(detectors, y, x)
        _, n_y, n_x, n_channels = self.shape
        size = (len(range(n_y)[y]), len(range(n_x)[x]), n_channels)
        return np.stack(
            [
                np.zeros(size, self.dtype) if d in self.left_out else self.store.read_rows([d], y, x)[0]
                for d in detectors
            ]
        )

    def integrated(self, detector: int) -> NDArray[np.float64]:
        """Read the sum of the spectra of all pixels of one detector, (channel,)."""
        return np.zeros(self.shape[3]) if detector in self.left_out else self.store.integrated(detector)

    def max_channel_spectrum(self, detector: int) -> NDArray[np.float64]:
        """Read the highest counts of any pixel in each channel of one detector, (channel,)."""
        return np.zeros(self.shape[3]) if detector in self.left_out else self.store.max_channel_spectrum(detector)

    def measured(self, y: slice = slice(None), x: slice = slice(None)) -> NDArray[np.bool_]:
        """Read where a spectrum was recorded, (y, x)."""
        return self.store.measured(y, x)

    def missing(self, detector: int, y: slice = slice(None), x: slice = slice(None)) -> NDArray[np.bool_]:
        """Read where the spectrum of one detector was not measured, (y, x)."""
        found = self.store.missing(detector, y, x)
        return np.zeros_like(found) if detector in self.left_out else found

    def spikes(self, detector: int) -> NDArray[np.int64]:
        """Read y, x and channel (place, 3) of channels that a detector can hardly have counted."""
        found = self.store.spikes(detector)
        return found[:0] if detector in self.left_out else found


def spectra_of(store: "Spectra", detector: str, findings: Findings) -> "Spectra":
    """Spectra that a detector's pixels are fitted from: of the sum, without the detectors that are left out."""
    if detector != SUM or not findings.left_out:
        return store
    return WithoutDetectors(store=store, left_out=frozenset(findings.left_out))


def outlier_rows(findings: Findings, block: Block, detector: str) -> NDArray[np.bool_] | None:
    """Outlier pixels (pixel,) of a block; None where it has none.

    Args:
        findings: those of the scan.
        block: rows and columns.
        detector: name of the detector; `sum`: any detector that is a part of it.
    """
    which = [d for d in findings.outliers if d not in findings.left_out] if detector == SUM else [int(detector)]
    inside = [
        (y - block.y.start, x - block.x.start)
        for d in which
        for y, x in findings.outliers.get(d, ())
        if block.y.start <= y < block.y.stop and block.x.start <= x < block.x.stop
    ]
    if not inside:
        return None
    rows = np.zeros((block.y.stop - block.y.start, block.x.stop - block.x.start), dtype=np.bool_)
    rows[tuple(np.array(inside).T)] = True
    return rows.reshape(-1)


def flag_pixels(fit: PixelFit, rows: NDArray[np.bool_] | None, status: FitStatus) -> PixelFit:
    """Flag pixels (pixel,) and blank their numbers: their amplitudes would be wrong by an unknown amount.

    What was not measured, or has no counts, stays what it is.
    """
    if rows is None or not rows.any():
        return fit
    where = torch.from_numpy(rows)
    blank: dict[str, Any] = {}
    for name in _BLANK:
        values = getattr(fit, name)
        if values is not None:
            blank[name] = values.masked_fill(where[:, None], torch.nan)
    kept = (FitStatus.EMPTY, FitStatus.NOT_MEASURED, FitStatus.SATURATED)
    measured = ~torch.isin(fit.status, torch.tensor([int(s) for s in kept], dtype=fit.status.dtype))
    flagged = torch.where(where & measured, int(status), fit.status)
    return replace(fit, **blank, status=flagged.to(fit.status.dtype))


def carry_factor(fit: PixelFit, factor: float) -> PixelFit:
    """The fit of counts whose variance is so many times their mean: sigma, limits and deviance carry the factor."""
    if factor == 1.0:
        return fit
    root = factor**0.5
    photon = 1.0 if fit.photon_variance is None else fit.photon_variance
    return replace(
        fit,
        sigma=fit.sigma * root,
        detection_limit=detection_limit(null_sigma(fit.detection_limit, photon) * root, factor * photon),
        photon_variance=None if fit.photon_variance is None else factor * fit.photon_variance,
        deviance=fit.deviance / factor,
        # Its expectation is that of raw counts.
        deviance_z=None,
        theta_shift_sigma=None if fit.theta_shift_sigma is None else fit.theta_shift_sigma * root,
    )


def apply_findings(
    fit: PixelFit,
    spectra: "Spectra",
    block: Block,
    detector: str,
    channels: slice,
    findings: Findings,
    rows: NDArray[np.bool_] | None = None,
) -> PixelFit:
    """Flag outlier and saturated pixels of a block, and let its errors carry the factor of scaled counts.

    Args:
        fit: fit of the pixels of the block, in row-major order.
        spectra: those of `spectra_of`.
        block: rows and columns.
        detector: name of the detector, or `sum`.
        channels: channels of the fit range.
        findings: those of the scan.
        rows: (pixel,): pixels of the block that were fitted; None: all.
    """
    for bad, status in (
        (saturated_pixels(spectra, block, detector, channels), FitStatus.SATURATED),
        (outlier_rows(findings, block, detector), FitStatus.OUTLIER),
    ):
        fit = flag_pixels(fit, bad if bad is None or rows is None else bad[rows], status)
    return carry_factor(fit, findings.factor_of(detector))


def fits_for(name: str, fits: Mapping[str, SpectrumFit], findings: Findings) -> Mapping[str, SpectrumFit]:
    """Fits by detector as a result is made of them: of the sum, without the detectors that are left out."""
    return without_detector_names(fits, findings.left_out) if name == SUM and findings.left_out else fits


def read_good_block(
    store: "Spectra", block: Block, detector: str, findings: Findings
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Counts (pixel, channel) of one block and which pixels (pixel,) are measured and no outliers."""
    counts, measured = read_block(spectra_of(store, detector, findings), block, detector)
    bad = outlier_rows(findings, block, detector)
    return counts, measured if bad is None else measured & ~bad
