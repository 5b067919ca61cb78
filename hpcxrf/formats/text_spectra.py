"""From the spectra of a text file, which are in memory, to a scan: the same checks and notes for every format."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import InputFileError
from hpcxrf.formats.axes import choose_calibration, describe_calibration
from hpcxrf.formats.hdf5_files import check_rows, refuse_bad_counts
from hpcxrf.formats.scan import EnergyCalibration, FloatMap, RawScan, ReadOptions, ScanScalars
from hpcxrf.notes import Note

FEWEST_CHANNELS: Final = 16
LARGEST_WHOLE: Final = 2.0**32
"""Counts from here on do not fit into 32 bits."""
_MOST_CHANNELS: Final = 1 << 20
_CHANNELS_ABOVE_EV: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSpectra:
    """Spectra and what a text file says of them."""

    counts: NDArray[Any]
    """(detector, y, x, channel)."""
    calibration: tuple[EnergyCalibration, ...] | None = None
    """One per detector."""
    live_time_s: FloatMap | None = None
    """(detector, y, x)."""
    real_time_s: FloatMap | None = None
    """(detector, y, x)."""
    scaler_names: tuple[str, ...] = ()
    scaler_values: FloatMap | None = None
    """(scaler, y, x)."""
    x_um: FloatMap | None = None
    """(y, x)."""
    y_um: FloatMap | None = None
    """(y, x)."""
    tube: str | None = None
    notes: tuple[Note, ...] = ()


def make_scan(path: Path, format_name: str, spectra: TextSpectra, options: ReadOptions) -> RawScan:
    """Make a scan of spectra in memory.

    Args:
        path: the file.
        format_name: name of the format, as `inspect` prints it.
        spectra: what was read.
        options: what the user adds to the file.

    Raises:
        InputFileError: a number of channels that no spectrum has, or an energy axis that does not rise.
    """
    counts = narrow_counts(spectra.counts)
    n_detectors, n_rows, n_columns, n_channels = counts.shape
    refuse_channel_number(path, n_channels)
    scalars = ScanScalars(
        live_time_s=spectra.live_time_s,
        real_time_s=spectra.real_time_s,
        scaler_names=spectra.scaler_names,
        scaler_units=("",) * len(spectra.scaler_names),
        scaler_values=spectra.scaler_values,
        x_um=spectra.x_um,
        y_um=spectra.y_um,
    )
    times = describe_time("live time", spectra.live_time_s) + describe_time("real time", spectra.real_time_s)
    return RawScan(
        name=path.stem,
        format=format_name,
        files=(path,),
        shape=(n_detectors, n_rows, n_columns, n_channels),
        dtype=counts.dtype,
        rows_per_read=n_rows,
        read_counts=lambda rows: _read_rows(path, counts, rows),
        read_scalars=lambda: scalars,
        calibration=choose_calibration(str(path), spectra.calibration, options, n_detectors, n_channels),
        tube=spectra.tube,
        notes=(*spectra.notes, *times, *describe_calibration(options)),
    )


def _read_rows(path: Path, counts: NDArray[Any], rows: slice) -> NDArray[Any]:
    wanted = check_rows(path, rows, counts.shape[1])
    for detector, spectra in enumerate(counts[:, wanted]):
        refuse_bad_counts(spectra, path=path, detector=detector, first_row=wanted.start)
    return counts[:, wanted].copy()


def narrow_counts(counts: NDArray[Any]) -> NDArray[Any]:
    """Store whole counts of 0 or more as 32-bit numbers, as far as they fit; others as they are."""
    if counts.dtype.kind == "u" or counts.size == 0:
        return counts
    whole = bool((counts == np.rint(counts)).all()) and counts.min() >= 0 and counts.max() < LARGEST_WHOLE
    return counts.astype(np.uint32) if whole else counts


def refuse_channel_number(path: Path, n_channels: int) -> None:
    """Refuse what is too short or too long for the spectrum of an energy-dispersive detector.

    Raises:
        InputFileError: fewer than 16 channels, or more than 2^20.
    """
    if not FEWEST_CHANNELS <= n_channels <= _MOST_CHANNELS:
        raise InputFileError(
            f"{path}: {n_channels} channels; a spectrum has {FEWEST_CHANNELS} to {_MOST_CHANNELS}, check what the "
            "file holds"
        )


def note_missing_axis(keys: str) -> Note:
    """Write the sentence on a file without an energy axis.

    Args:
        keys: whatever would have given it, in the words of the format.
    """
    return Note("warning", f"the file gives no energy axis ({keys})")


def describe_time(name: str, seconds: FloatMap | None) -> tuple[Note, ...]:
    """Write a sentence on the times of a file, for people."""
    if seconds is None or not np.isfinite(seconds).any():
        return ()
    low, high = float(np.nanmin(seconds)), float(np.nanmax(seconds))
    return (Note("fact", f"{name}: {low:g} s" if low == high else f"{name}: {low:g} to {high:g} s"),)


def spread_times(seconds: Sequence[float], shape: tuple[int, int, int]) -> FloatMap | None:
    """Give each detector its time in every pixel, (detector, y, x); None unless there is one time, or one a detector.

    A time of 0 or less means that the instrument did not record it.
    """
    n_detectors = shape[0]
    if len(seconds) not in {1, n_detectors} or min(seconds, default=0.0) <= 0.0:
        return None
    return np.broadcast_to(np.array(seconds).reshape(-1, 1, 1), shape).copy()


def fit_axis(path: Path, energy_kev: NDArray[np.float64]) -> EnergyCalibration:
    """Fit a line through the energies of the channels, or a parabola where the line is off by a hundredth of a channel.

    Raises:
        InputFileError: the energies do not rise, or are off by more than half a channel.
    """
    n = len(energy_kev)
    if n < 3 or not (np.isfinite(energy_kev).all() and (np.diff(energy_kev) > 0.0).all()):
        raise InputFileError(f"{path}: the energy must be finite and rise from channel to channel; correct that column")
    channels = np.arange(n)
    slope = float((energy_kev[-1] - energy_kev[0]) / (n - 1))
    off = float(np.abs(energy_kev - energy_kev[0] - slope * channels).max()) / slope
    if off <= 0.01:
        return EnergyCalibration(offset_kev=float(energy_kev[0]), slope_kev=slope)
    a, b, c = np.polynomial.polynomial.polyfit(channels, energy_kev, 2).tolist()
    fitted = EnergyCalibration(offset_kev=a, slope_kev=b, quadratic_kev=c)
    error = float(np.abs(energy_kev - (a + b * channels + c * channels**2)).max()) / slope
    if error > 0.5:
        raise InputFileError(
            f"{path}: the steps of the energy are uneven (off by {error:.1f} channels from a parabola), which no "
            "detector makes: an energy scan (XANES) is not a spectrum; give a file of spectra"
        )
    return fitted if error < off else EnergyCalibration(offset_kev=float(energy_kev[0]), slope_kev=slope)


def shift_channels(calibration: EnergyCalibration, first: float, step: float = 1.0) -> EnergyCalibration:
    """Count the channels from 0 where the file counts them from `first`, every `step`-th."""
    a, b, c = calibration.offset_kev, calibration.slope_kev, calibration.quadratic_kev
    return EnergyCalibration(
        offset_kev=a + b * first + c * first * first,
        slope_kev=(b + 2.0 * c * first) * step,
        quadratic_kev=c * step * step,
    )


def guess_kev_per_unit(step: float) -> tuple[float, str]:
    """Guess the unit of an axis by its step: keV below 0.5 a channel, else eV; the factor to keV and the name."""
    return (1e-3, "eV") if step >= _CHANNELS_ABOVE_EV else (1.0, "keV")


def join_calibrations(
    path: Path, calibrations: Sequence[EnergyCalibration], n_channels: int
) -> tuple[EnergyCalibration, list[Note]]:
    """Find the one calibration of spectra that are pixels of the same detector: the median of theirs.

    Returns:
        The calibration, and notes where they differ.

    Raises:
        InputFileError: they differ by more than one channel.
    """
    table = np.array([(c.offset_kev, c.slope_kev, c.quadratic_kev) for c in calibrations])
    if (table == table[0]).all():
        return calibrations[0], []
    middle = np.median(table, axis=0)
    ends = np.array([[1.0, 0.0, 0.0], [1.0, n_channels - 1.0, (n_channels - 1.0) ** 2]])
    off = float(np.abs((table - middle) @ ends.T).max()) / abs(float(middle[1]) or 1.0)
    if not off <= 1.0:
        raise InputFileError(
            f"{path}: the spectra have calibrations that differ by {off:.1f} channels; put those of one calibration "
            "into a file of their own"
        )
    offset, slope, quadratic = middle.tolist()
    joined = EnergyCalibration(offset_kev=offset, slope_kev=slope, quadratic_kev=quadratic)
    text = f"the calibrations of the spectra differ by up to {off:.2g} channels; their median is taken"
    return joined, [Note("warning", text)]
