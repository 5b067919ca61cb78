"""What is decided for all pixels of a scan before any of them is fitted, and said: phases, and families too alike."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from hpcxrf.errors import FitError
from hpcxrf.fitting.pixels.basis import Phases, PixelBasis
from hpcxrf.fitting.pixels.mixtures import Mixture, mixtures
from hpcxrf.fitting.pixels.weight_classes import find_phases
from hpcxrf.pipeline.blocks import SAMPLE_PIXELS, Block
from hpcxrf.pipeline.prepare.inputs import SUM
from hpcxrf.pipeline.records import DatasetJob
from hpcxrf.results.names import shown_name
from hpcxrf.store.spectra import SpectraStore

# Chunks spread over the scan are read for the phases.
_SAMPLE_CHUNKS: Final = 16

Bases = dict[str, tuple[int, PixelBasis]]
ReadBlock = Callable[[SpectraStore, Block, str], tuple[NDArray[Any], NDArray[np.bool_]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelChoices:
    """Bases with what was decided."""

    bases: Bases
    notes: tuple[str, ...]
    mixed: dict[str, list[dict[str, Any]]]
    """By detector: groups of components that the counts cannot tell apart, as JSON values."""
    phases: dict[str, str]
    """By detector: what was found and chosen, also where it is one set of weights; empty where nothing was chosen."""


def choose_for_pixels(
    bases: Bases, components: tuple[str, ...], store: SpectraStore, job: DatasetJob, read_block: ReadBlock
) -> PixelChoices:
    """Decide, the same for any tiling and number of workers.

    Args:
        bases: first channel and linear model of the pixels, by detector.
        components: names.
        store: the spectra; some thousand pixels are read where phases are looked for.
        job: the dataset.
        read_block: counts (pixel, channel) and measured (pixel,) of a block of one detector.

    Raises:
        FitError: columns of which one is a combination of others.
    """
    n_pixels = int(store.measured().sum())
    mixed = {name: _mixed(job, basis, components, n_pixels) for name, (_, basis) in bases.items()}
    phases = _phases(bases, store, job, read_block)
    chosen = {
        name: (first, replace(basis, phases=phases[name] if _several(phases.get(name)) else None))
        for name, (first, basis) in bases.items()
    }
    alike = [f"{_place(name)}: {one.text}" for name, found in mixed.items() for one in found]
    told = [f"{_place(name)}: {p.report}{_pixels(p, n_pixels)}" for name, p in phases.items() if _several(p)]
    return PixelChoices(
        bases=chosen,
        notes=(*alike, *told),
        mixed={name: [one.record() for one in found] for name, found in mixed.items()},
        phases={name: p.report for name, p in phases.items()},
    )


def sample_pixels(
    store: SpectraStore, detector: str, channels: slice, read_block: ReadBlock
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Counts (pixel, channel) of some channels and measured (pixel,) of pixels spread evenly over the scan.

    Whole chunks are read, as many along each axis as keep the scan's proportions; of a small scan all.
    """
    _, n_y, n_x, _ = store.shape
    step_y, step_x = store.chunks[1:3]
    across = -(-n_x // step_x)
    down = -(-n_y // step_y)
    columns = _spread(across, max(1, round(_SAMPLE_CHUNKS**0.5)), _SAMPLE_CHUNKS // down)
    rows = _spread(down, _SAMPLE_CHUNKS // len(columns), 1)
    each = -(-SAMPLE_PIXELS // (len(rows) * len(columns)))
    parts = []
    for y, x in ((y, x) for y in rows for x in columns):
        block = Block(y=slice(y * step_y, min((y + 1) * step_y, n_y)), x=slice(x * step_x, min((x + 1) * step_x, n_x)))
        counts, measured = read_block(store, block, detector)
        stride = -(-len(counts) // each)
        parts.append((counts[::stride, channels].copy(), measured[::stride]))
        # The next chunk need not lie beside this one.
        del counts
    return np.concatenate([c for c, _ in parts]), np.concatenate([m for _, m in parts])


def _spread(n: int, wanted: int, at_least: int) -> list[int]:
    """Places evenly over n, as many as are wanted or as there is room for."""
    number = min(n, max(wanted, at_least, 1))
    return [(2 * i + 1) * n // (2 * number) for i in range(number)]


def _phases(bases: Bases, store: SpectraStore, job: DatasetJob, read_block: ReadBlock) -> dict[str, Phases]:
    config = job.config.pixels
    if (config.method, config.background, config.phases) != ("linear", "columns", "auto"):
        return {}
    found = {}
    for name, (first, basis) in bases.items():
        channels = slice(first, first + basis.columns.shape[0])
        counts, measured = sample_pixels(store, name, channels, read_block)
        found[name] = find_phases(torch.from_numpy(counts), torch.from_numpy(measured), basis)
    return found


def _mixed(job: DatasetJob, basis: PixelBasis, components: tuple[str, ...], n_pixels: int) -> tuple[Mixture, ...]:
    try:
        return mixtures(basis, [shown_name(name) for name in components], n_pixels)
    except FitError as error:
        raise FitError(f"{job.source}: {error}") from error


def _several(phases: Phases | None) -> bool:
    return phases is not None and len(phases.share) > 1


def _pixels(phases: Phases, n_pixels: int) -> str:
    if not _several(phases):
        return ""
    parts = [f"{round(share * n_pixels)}" for share in phases.share.tolist()]
    return f"; about {' and '.join(parts)} pixels"


def _place(name: str) -> str:
    return "sum of the detectors" if name == SUM else f"detector {name}"
