"""Choices for all pixels of a scan before any is fitted, with their notes: background, weights, families too alike."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from hpcxrf.config.pixels import PixelConfig
from hpcxrf.errors import FitError
from hpcxrf.fitting.pixels.background_columns import (
    add_to_groups,
    choose_background,
    find_classes,
    group_pixels,
    join_background,
)
from hpcxrf.fitting.pixels.basis import PixelBasis
from hpcxrf.fitting.pixels.mixtures import Mixture, find_mixtures
from hpcxrf.fitting.pixels.weight_classes import WeightClasses
from hpcxrf.notes import Note
from hpcxrf.pipeline.blocks import SAMPLE_PIXELS, Block
from hpcxrf.pipeline.pixels.findings import Findings, read_good_block
from hpcxrf.pipeline.records import DatasetJob
from hpcxrf.results.names import name_detector, shown_name

if TYPE_CHECKING:
    # It loads zarr, which a fit of one file has no need of.
    from hpcxrf.store.spectra import Spectra, SpectraStore

_JUDGED_PIXELS: Final = 32_768
"""Pixels that the number of background columns is judged by: those of chunks spread over the scan."""
_LEAST_CHUNKS: Final = 16
_MANY_CHUNKS: Final = 64
_SAMPLE_BYTES: Final = 128 << 20
"""Chunks that are read: at least 16, so that they lie all over the scan, and 64 or as many as the pixels need where
that is not more than this of decoded counts."""

Bases = dict[str, PixelBasis]
ReadBlock = Callable[["Spectra", Block, str], tuple[NDArray[Any], NDArray[np.bool_]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelChoices:
    """Bases with what was decided."""

    bases: Bases
    notes: tuple[Note, ...]
    mixed: dict[str, list[dict[str, Any]]]
    """Groups of components with indistinguishable spectra by detector, as JSON values."""
    weights: dict[str, str]
    """Sentences on the fit weights by detector, also where it is one set; empty where classes were not looked for."""
    background: dict[str, str]
    """Sentences on the number of background columns by detector; empty where the run file gives it."""


def choose_for_pixels(bases: Bases, store: "SpectraStore", job: DatasetJob, findings: Findings) -> PixelChoices:
    """Decide, the same for any tiling and number of workers.

    Args:
        bases: linear models of the pixels by detector.
        store: the spectra; some thousand pixels are read where weight classes are looked for.
        job: the dataset.
        findings: outlier pixels, which have no part in the choice, and detectors that the sum is made without.

    Raises:
        FitError: columns of which one is a combination of others.
    """
    n_pixels = int(store.measured().sum())

    def read_good(spectra: "Spectra", block: Block, detector: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        return read_good_block(spectra, block, detector, findings)

    found = {name: _choose_background(basis, store, name, read_good, job) for name, basis in bases.items()}
    bases = {name: basis for name, (basis, _) in found.items()}
    mixed = {name: _mixtures(job, basis, n_pixels) for name, basis in bases.items()}
    classes = _weight_classes(bases, store, job, read_good)
    several = {name: one for name, one in classes.items() if len(one.share) > 1}
    alike = [Note("warning", f"{name_detector(name)}: {one.text}") for name, every in mixed.items() for one in every]
    weighed = [
        Note("fact", f"{name_detector(name)}: {one.report}; {_sizes(one, n_pixels)}") for name, one in several.items()
    ]
    return PixelChoices(
        bases={name: replace(basis, weight_classes=several.get(name)) for name, basis in bases.items()},
        notes=(*alike, *weighed),
        mixed={name: [one.record() for one in found] for name, found in mixed.items()},
        weights={name: one.report for name, one in classes.items()},
        background={name: report for name, (_, report) in found.items() if report},
    )


def sample_pixels(
    store: "Spectra", detector: str, channels: slice, read_block: ReadBlock
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Counts (pixel, channel) of some channels and measured (pixel,) of pixels spread evenly over the scan.

    Whole chunks are read, as many along each axis as keep the scan's proportions; of a small scan all.
    """
    parts = list(_read_sample(store, detector, channels, read_block, SAMPLE_PIXELS))
    return np.concatenate([c for c, _ in parts]), np.concatenate([m for _, m in parts])


def choose_columns(
    basis: PixelBasis, store: "Spectra", detector: str, read_block: ReadBlock, config: PixelConfig
) -> tuple[PixelBasis, str]:
    """The basis with as many background columns as the scan's own pixels ask for, and a sentence on it.

    Args:
        basis: basis with all background columns.
        store: the spectra; pixels of the chunks of `sample_pixels` are read, more of them.
        detector: name of the detector, or `sum`.
        read_block: reader of the counts and of which pixels have a part in the choice.
        config: section `pixels` of the run file; where it gives the number, the basis stays and nothing is said.
    """
    if config.background_columns is not None or config.background != "columns":
        return basis, ""
    some, good = sample_pixels(store, detector, basis.channels, read_block)
    sums = group_pixels(torch.from_numpy(some), torch.from_numpy(good), basis)
    if sums is not None:
        for counts, measured in _read_sample(store, detector, basis.channels, read_block, _JUDGED_PIXELS):
            sums = add_to_groups(sums, torch.from_numpy(counts), torch.from_numpy(measured))
    chosen = choose_background(sums, basis)
    return join_background(basis, chosen.n_columns), chosen.report


def _read_sample(
    store: "Spectra", detector: str, channels: slice, read_block: ReadBlock, most: int
) -> Iterator[tuple[NDArray[Any], NDArray[np.bool_]]]:
    """Counts (pixel, channel) and measured (pixel,) of about so many pixels, chunk by chunk."""
    _, n_y, n_x, _ = store.shape
    step_y, step_x = store.chunks[1:3]
    across = -(-n_x // step_x)
    down = -(-n_y // step_y)
    wanted = max(_MANY_CHUNKS, -(-most // (step_y * step_x)))
    room = _SAMPLE_BYTES // (2 * step_y * step_x * store.shape[3])
    number = max(_LEAST_CHUNKS, min(wanted, room))
    columns = _spread_evenly(across, max(1, round(number**0.5)), number // down)
    rows = _spread_evenly(down, number // len(columns), 1)
    each = -(-most // (len(rows) * len(columns)))
    for y, x in ((y, x) for y in rows for x in columns):
        block = Block(y=slice(y * step_y, min((y + 1) * step_y, n_y)), x=slice(x * step_x, min((x + 1) * step_x, n_x)))
        counts, measured = read_block(store, block, detector)
        stride = -(-len(counts) // each)
        some = counts[::stride, channels].copy()
        # The next chunk need not lie beside this one.
        del counts
        yield some, measured[::stride]


def _spread_evenly(n: int, wanted: int, at_least: int) -> list[int]:
    """Places evenly over n, as many as are wanted or as there is room for."""
    number = min(n, max(wanted, at_least, 1))
    return [(2 * i + 1) * n // (2 * number) for i in range(number)]


def _choose_background(
    basis: PixelBasis, store: "SpectraStore", name: str, read_block: ReadBlock, job: DatasetJob
) -> tuple[PixelBasis, str]:
    try:
        return choose_columns(basis, store, name, read_block, job.config.pixels)
    except FitError as error:
        raise FitError(f"{job.source}: {error}") from error


def _weight_classes(
    bases: Bases, store: "SpectraStore", job: DatasetJob, read_block: ReadBlock
) -> dict[str, WeightClasses]:
    if not job.config.pixels.wants_weight_classes:
        return {}
    found = {}
    for name, basis in bases.items():
        counts, measured = sample_pixels(store, name, basis.channels, read_block)
        found[name] = find_classes(torch.from_numpy(counts), torch.from_numpy(measured), basis)
    return found


def _mixtures(job: DatasetJob, basis: PixelBasis, n_pixels: int) -> tuple[Mixture, ...]:
    shown = replace(basis, names=tuple(shown_name(name) for name in basis.names))
    try:
        return find_mixtures(shown, n_pixels)
    except FitError as error:
        raise FitError(f"{job.source}: {error}") from error


def _sizes(classes: WeightClasses, n_pixels: int) -> str:
    parts = [f"{round(share * n_pixels)}" for share in classes.share.tolist()]
    return f"the classes have about {' and '.join(parts)} pixels"
