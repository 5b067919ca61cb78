"""Faults of a scan's pixels, whatever they are fitted with: counts at their type's end, times, scalers."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.formats.counts import SATURATED_UINT32
from hpcxrf.formats.scan import LARGEST_COUNT
from hpcxrf.notes import Note
from hpcxrf.pipeline.blocks import Block, blocks_of
from hpcxrf.pipeline.prepare.inputs import SUM

if TYPE_CHECKING:
    # It loads zarr, which a fit of one file has no need of.
    from hpcxrf.store.spectra import Spectra, SpectraStore

# No count where so many are expected: one pixel in 7e10 by chance.
_SURELY_SOME: Final = 25.0


def find_doubts(store: "SpectraStore") -> list[Note]:
    """Warn of faults of a scan's times and scalers, and of counts at the end of their type.

    Args:
        store: the spectra.
    """
    measured = store.measured()
    texts = [
        f"detector {d}: a channel holds {largest_count(store.dtype)} counts, the most that it can; pixels with such a "
        "channel in the fit range are flagged saturated, have no amplitudes, and are left out of the summed spectrum"
        for d in range(store.shape[0])
        if _can_be_saturated(store, d, slice(None))
    ]
    for d, live in enumerate(store.times().live_time_s):
        known = measured & ~store.missing(d)
        bad = int((known & ~(live > 0)).sum())
        if 0 < bad < int(known.sum()):
            texts.append(
                f"detector {d}: live time is 0 or not known in {bad} of {int(known.sum())} measured pixels, though "
                "they have counts; regions with such a pixel have no live time, and no counts per second"
            )
    for name in store.scaler_names:
        bad = int((measured & ~np.isfinite(store.scaler(name))).sum())
        if bad:
            texts.append(
                f"scaler {name} is not finite in {bad} of {int(measured.sum())} measured pixels; it is not used in "
                "the fits, but maps divided by it are undefined there"
            )
    return [Note("warning", text) for text in texts]


def saturated_pixels(store: "Spectra", block: Block, detector: str, channels: slice) -> NDArray[np.bool_] | None:
    """Pixels (pixel,) of a block with a count at the end of its type; None where the scan has none.

    Args:
        store: the spectra.
        block: rows and columns.
        detector: name of the detector; `sum`: any detector.
        channels: channels of the fit range.
    """
    which = range(store.shape[0]) if detector == SUM else [int(detector)]
    full = None
    for one in (d for d in which if _can_be_saturated(store, d, channels)):
        found = _full(store, one, block, channels)
        full = found if full is None else full | found
    return full


def silent_pixels(recorded: NDArray[np.bool_], counts: NDArray[Any], store: "Spectra") -> NDArray[np.bool_]:
    """Pixels (pixel,) of a sum in which a detector recorded nothing, though by its part of the scan it should have.

    Args:
        recorded: (detector, pixel): has counts.
        counts: (pixel, channel) of the sum.
        store: the spectra; a detector that is dead in the whole scan is not a part of the sum.
    """
    share = _shares(store)
    silent = np.asarray(~recorded.all(axis=0), dtype=np.bool_)
    seen = recorded[:, silent]
    total = counts[silent].sum(axis=1, dtype=np.float64)
    missing = np.where(seen, 0.0, share[:, None]).max(axis=0, initial=0.0)
    others = np.where(seen, share[:, None], 0.0).sum(axis=0)
    # Where all are silent the pixel is empty, and said to be so.
    silent[silent] = (others > 0) & (total * missing > _SURELY_SOME * others)
    return silent


def _shares(store: "Spectra") -> NDArray[np.float64]:
    """Counts (detector,) of the scan where no channel is saturated: one such pixel can outweigh the rest."""
    which = range(store.shape[0])
    full = np.any([_saturated_channels(store, d) for d in which], axis=0)
    return np.array([store.integrated(d)[~full].sum() for d in which])


def saturated_spectra(store: "SpectraStore", channels: Mapping[int, slice]) -> NDArray[np.float64]:
    """Summed spectra (detector, channel) of the saturated pixels: a flat top is not a peak, and outweighs a whole scan.

    Args:
        store: the spectra.
        channels: channels of the fit range, by detector.
    """
    total = np.zeros((store.shape[0], store.shape[3]))
    for detector, within in channels.items():
        if not _can_be_saturated(store, detector, within):
            continue
        for block in blocks_of((store.shape[1], store.shape[2])):
            for counts in _some_rows(store, detector, block):
                full = (counts[..., within] >= full_count(store.dtype)).any(axis=-1)
                total[detector] += counts[full].sum(axis=0, dtype=np.float64)
    return total


def _full(store: "Spectra", detector: int, block: Block, channels: slice) -> NDArray[np.bool_]:
    """Saturated pixels (pixel,) of one detector."""
    most = full_count(store.dtype)
    parts = [(counts[..., channels] >= most).any(axis=-1) for counts in _some_rows(store, detector, block)]
    return np.concatenate(parts).reshape(-1)


def _some_rows(store: "Spectra", detector: int, block: Block) -> Iterator[NDArray[Any]]:
    """Counts (y, x, channel) of a block, a few rows in memory at a time."""
    step = store.chunks[1]
    for y in range(block.y.start, block.y.stop, step):
        yield store.read_rows([detector], slice(y, min(y + step, block.y.stop)), block.x)[0]


def _can_be_saturated(store: "Spectra", detector: int, channels: slice) -> bool:
    return bool(_saturated_channels(store, detector)[channels].any())


def _saturated_channels(store: "Spectra", detector: int) -> NDArray[np.bool_]:
    """Channels (channel,) that some pixel has full; fractions have none."""
    return np.asarray(store.max_channel_spectrum(detector) >= full_count(store.dtype))


def largest_count(dtype: np.dtype[Any]) -> int:
    """Largest count that a channel of this type can hold, for people."""
    return LARGEST_COUNT if dtype == np.uint16 else 2**32 - 1


def full_count(dtype: np.dtype[Any]) -> float:
    """Count from which on a channel of this type is full."""
    return {"uint16": LARGEST_COUNT, "uint32": SATURATED_UINT32}.get(dtype.name, np.inf)
