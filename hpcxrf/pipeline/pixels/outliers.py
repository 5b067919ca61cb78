"""Pixels with channels that no detector can have counted: found against their own neighbours and the other pixels."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.store.spikes import is_spike

if TYPE_CHECKING:
    # It loads zarr, which a fit of one file has no need of.
    from hpcxrf.store.spectra import Spectra

# A channel that so many pixels have is the detector's: it is fitted as badly in every pixel, and spoils none.
_MOST_OF_A_CHANNEL: Final = 0.1
_MOST_OF_A_SCAN: Final = 0.25
# Few pixels may be outliers together, whatever their share.
_FEW: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Outliers:
    """Outlier pixels of one detector."""

    places: NDArray[np.int64]
    """(place, 3): y, x and channel of every channel that cannot be."""
    spectra: Mapping[tuple[int, int], NDArray[np.float64]] = field(default_factory=dict)
    """Spectrum (channel,) of each of the pixels."""

    def pixels_in(self, channels: slice) -> tuple[tuple[int, int], ...]:
        """List y and x of the pixels with such a channel in a range."""
        inside = (self.places[:, 2] >= channels.start) & (self.places[:, 2] < channels.stop)
        return tuple(dict.fromkeys((y, x) for y, x, _ in self.places[inside].tolist()))

    def sum_of(self, pixels: Collection[tuple[int, int]]) -> NDArray[np.float64] | float:
        """Sum of the spectra of some of the pixels, (channel,); 0 of none."""
        return sum((self.spectra[pixel] for pixel in pixels), start=np.float64(0.0))


NO_OUTLIERS: Final = Outliers(places=np.empty((0, 3), dtype=np.int64))


def find_outliers(store: "Spectra", detector: int) -> Outliers:
    """Find the pixels of one detector whose suspicious channels the other pixels do not have.

    Args:
        store: the spectra, which know suspicious channels by their neighbours.
        detector: number of the detector, counted from 0.
    """
    places = store.spikes(detector)
    n_pixels = int(store.measured().sum())
    most = max(_FEW, _MOST_OF_A_CHANNEL * n_pixels)
    numbers = np.bincount(places[:, 2], minlength=store.shape[3]) if len(places) else np.zeros(store.shape[3])
    places = places[numbers[places[:, 2]] <= min(most, n_pixels // 2)]
    pixels = {(y, x) for y, x, _ in places.tolist()}
    if not pixels or len(pixels) > max(_FEW, _MOST_OF_A_SCAN * n_pixels):
        return NO_OUTLIERS
    spectra = dict(_read_pixels(store, detector, pixels))
    others = store.integrated(detector) - sum(spectra.values())
    shared = {channel for channel in set(places[:, 2].tolist()) if is_spike(others, channel)}
    kept = places[[channel not in shared for channel in places[:, 2].tolist()]]
    left = {(y, x) for y, x, _ in kept.tolist()}
    return Outliers(places=kept, spectra={pixel: spectrum for pixel, spectrum in spectra.items() if pixel in left})


def describe_outliers(detector: int, pixels: Collection[tuple[int, int]]) -> str:
    """Say in a sentence how many outliers a detector has."""
    y, x = min(pixels)
    number = "1 pixel has" if len(pixels) == 1 else f"{len(pixels)} pixels have"
    return (
        f"detector {detector}: {number} channels in the fit range that no detector can have counted, as neither their "
        f"neighbours nor other pixels have such counts (row {y}, column {x}{', ...' if len(pixels) > 1 else ''}); "
        "flagged outlier, without amplitudes, and left out of the summed spectrum"
    )


def _read_pixels(
    store: "Spectra", detector: int, pixels: Collection[tuple[int, int]]
) -> Iterator[tuple[tuple[int, int], NDArray[np.float64]]]:
    """Spectra of some pixels, every chunk of the store read once."""
    step_y, step_x = store.chunks[1:3]
    by_chunk: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for y, x in sorted(pixels):
        by_chunk.setdefault((y // step_y, x // step_x), []).append((y, x))
    for (chunk_y, chunk_x), mine in sorted(by_chunk.items()):
        first_y, first_x = chunk_y * step_y, chunk_x * step_x
        rows = slice(first_y, min(first_y + step_y, store.shape[1]))
        columns = slice(first_x, min(first_x + step_x, store.shape[2]))
        counts = store.read_rows([detector], rows, columns)[0]
        for y, x in mine:
            yield (y, x), counts[y - first_y, x - first_x].astype(np.float64)
