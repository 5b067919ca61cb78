"""What a worker runs for the normalised maps of a scan, block by block, so that no scan is whole in memory."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr
from numpy.typing import NDArray

from hpcxrf.config.normalise import NormaliseConfig
from hpcxrf.notes import Note
from hpcxrf.pipeline.blocks import Block, block_of_job, blocks_of
from hpcxrf.pipeline.normalise.choice import choose_i0
from hpcxrf.pipeline.normalise.facts import (
    describe_group,
    describe_normalisation,
    note_amplifier,
    note_flags,
    note_judged,
    refuse_all_flagged,
)
from hpcxrf.pipeline.normalise.times import RowTimes, ScanTimes, find_live_times, read_rows, sum_exposure
from hpcxrf.pipeline.prepare.inputs import SUM
from hpcxrf.pipeline.records import DatasetJob, I0Reference
from hpcxrf.quantify.i0 import FloatMap
from hpcxrf.quantify.normalise import (
    Combination,
    NormalisedMaps,
    PixelFlag,
    combine_detectors,
    find_combination,
    find_flags,
    find_ratio_outliers,
    normalise_maps,
    sum_live_time,
)
from hpcxrf.results.photon_variance import unpack_components
from hpcxrf.results.store.derived import write_blocks
from hpcxrf.results.store.normalised import COMBINED, create_normalised, normalised_files, open_rates
from hpcxrf.results.store.storage import array_of, labels_of, open_group, require_readable_schema
from hpcxrf.results.store.tiled import TiledMap, open_map
from hpcxrf.runner.records import TaskRecord
from hpcxrf.runner.worker import Clock, attempt, one_thread
from hpcxrf.store.rundir import RunDir
from hpcxrf.store.spectra import SpectraStore, open_spectra

# Windows and angles differ from detector to detector: below, lines are absorbed too differently to be compared.
_COMPARED_KEV: Final = 3.0
# Scatter depends on the angle, pile-up on the count rate.
_FAMILY: Final = re.compile(r"[A-Z][a-z]?(_[LM])?")
_COUNTS: Final = ("amplitude", "sigma", "detection_limit")
# Blocks in which the noise of the detectors is compared: some all over the scan, as counts vary over it.
_SAMPLE_BLOCKS: Final = 4


def run_normalise(job: DatasetJob, after: Sequence[TaskRecord]) -> TaskRecord:
    """Normalise the maps of a scan that are finished.

    Args:
        job: which dataset.
        after: records that must exist first.

    Raises:
        ConfigError: the scan has no I0, no clock of it, or no live time.
        InputFileError: no pixel has an I0 and a live time.
    """
    del after
    run = RunDir(path=job.run_dir)
    with attempt(job, "normalise"):
        clock = Clock()
        path = run.results_store(job.dataset_id)
        with one_thread():
            notes = normalise_results(
                path,
                open_spectra(run.spectra_store(job.dataset_id)),
                job.config.normalise,
                reference=job.i0_reference,
                block_yx=block_of_job(job),
                where=job.source,
            )
        checksums = {str((path / name).relative_to(job.run_dir)): one for name, one in normalised_files(path).items()}
        return clock.record(job, "normalise", "normalise", checksums=checksums, notes=notes)


def normalise_results(
    path: Path,
    store: SpectraStore,
    config: NormaliseConfig,
    *,
    reference: I0Reference | None,
    block_yx: tuple[int, int],
    where: object,
) -> tuple[Note, ...]:
    """Write the group `normalised` of a results store that is not closed; twice equals once.

    Args:
        path: folder of the results store, with finished maps and spectra.
        store: spectra of the scan, which have its times and scalers.
        config: section of the run file.
        reference: I0 that the rates are brought to; None: they are not divided by I0.
        block_yx: rows and columns of the blocks of its maps.
        where: the scan's file, for messages.

    Returns:
        Sentences on what was done, left out and flagged.

    Raises:
        ConfigError: the scan has no I0, no clock of it, or no live time.
        InputFileError: no pixel has an I0 and a live time.
    """
    root: dict[str, Any] = dict(require_readable_schema(path))
    maps, spectrum = open_group(path, "maps"), open_group(path, "spectrum")
    names, components = labels_of(maps, "detector"), labels_of(maps, "component")
    apart = {int(d): str(why) for d, why in root.get("detectors_left_out", {}).items()}
    shape_yx = store.shape[1:3]
    times = ScanTimes(
        store=store,
        config=config,
        reference=reference,
        live=find_live_times(store, config, where),
        i0=choose_i0(config, store.scaler_names, where),
        parts=[d for d in range(store.shape[0]) if d not in apart],
    )
    blocks = blocks_of(shape_yx, block_yx)
    totals = sum_exposure(times, blocks).live_time_s
    each = [name for name in names if name != SUM]
    judged = _judge_detectors(spectrum, each, totals, apart) if len(each) > 1 else {}
    used = [name for name in each if name not in judged or config.detectors == "all"]
    factors, noise = root.get("count_factor", {}), dict(maps.attrs)
    photon = np.stack([unpack_components(noise, components, name, factors.get(name, 1.0)) for name in names])
    shares = _share_counts(store, totals, times.parts)
    source = _Source(
        counts={name: open_map(path / "maps" / name) for name in _COUNTS},
        n_components=len(components),
        names=names,
        times=times,
        reference=reference,
        shares=shares,
    )
    combination = None
    if len(each) > 1 and used:
        rate, sigma = _integrated_rates(spectrum, used, totals)
        combination = find_combination(rate, sigma, _sample_variance(source, blocks, used))
    positions = {name: np.asarray(array_of(maps, name)[...]) for name in ("x_um", "y_um") if name in maps}
    entries = [*names, *([COMBINED] if combination is not None else [])]
    # The one that stands for all is written, and nothing that follows from the maps of counts.
    primary = next(name for name in (COMBINED, SUM, *entries) if name in entries)
    left_out = {name: why for name, why in judged.items() if name not in used}
    create_normalised(
        path,
        detectors=entries,
        components=components,
        shape_yx=shape_yx,
        block_yx=block_yx,
        stored=[primary],
        attributes=describe_group(root, times, reference, left_out),
        with_i0=times.i0 is not None,
        combination=None if combination is None else (used, combination),
        positions_um=positions,
    )
    flags, rates = np.zeros((len(entries), len(PixelFlag)), dtype=np.int64), open_rates(path)
    for rows, inside in read_rows(times, blocks):
        for block in inside:
            flags += _write_block(rates, source, rows, block, entries.index(primary), used, combination, photon)
    refuse_all_flagged(flags, times, where)
    return (
        Note("fact", describe_normalisation(times, reference)),
        *note_amplifier(times, reference),
        *note_judged(judged, used),
        *note_flags(flags, entries, times),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """Maps of counts with what they are divided by."""

    counts: Mapping[str, TiledMap]
    """Maps by name of `_COUNTS`."""
    n_components: int
    names: Sequence[str]
    times: ScanTimes
    reference: I0Reference | None
    shares: NDArray[np.float64]
    """(detector,) parts of the counts of the raw sum, of all detectors of the scan."""

    def live_of(self, name: str, rows: RowTimes, block: Block) -> FloatMap:
        """Live time (y, x) of an entry of the detector axis."""
        live = rows.live_of(block)
        if name != SUM:
            own: FloatMap = live[int(name)]
            return own
        return sum_live_time(live[list(self.times.parts)], self.shares[list(self.times.parts)])

    def read(self, quantity: str, name: str, block: Block) -> NDArray[Any]:
        """Read counts (component, y, x) of one block of an entry: `amplitude`, `sigma` or `detection_limit`."""
        return self.counts[quantity].read(self.names.index(name), block.y, block.x)

    def normalise(self, name: str, rows: RowTimes, block: Block) -> NormalisedMaps:
        """Normalise one block of an entry of the detector axis."""
        return normalise_maps(
            *(self.read(quantity, name, block) for quantity in _COUNTS),
            live_time_s=self.live_of(name, rows, block),
            i0=rows.i0_of(block),
            reference=1.0 if self.reference is None else self.reference.value,
        )

    def find_flags(self, name: str, rows: RowTimes, block: Block) -> NDArray[np.uint8]:
        """Flags of one block of an entry of the detector axis."""
        amplitude = self.read("amplitude", name, block)
        return find_flags(amplitude, live_time_s=self.live_of(name, rows, block), i0=rows.i0_of(block))

    def counting_variance(self, name: str, rows: RowTimes, block: Block) -> NDArray[Any]:
        """Variance (component, y, x) of a detector's rates by counting, but for I0, which all detectors share."""
        sigma = self.read("sigma", name, block)
        live = self.live_of(name, rows, block)
        variance: NDArray[Any] = (sigma / np.where(live > 0.0, live, np.nan)) ** 2
        return variance


def _write_block(
    rates: Mapping[str, TiledMap],
    source: _Source,
    rows: RowTimes,
    block: Block,
    primary: int,
    used: Sequence[str],
    combination: Combination | None,
    photon: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Normalise and write one block: what pixels have of all entries, and the maps of the primary one.

    Args:
        rates: maps that are written.
        source: maps of counts with what they are divided by.
        rows: times of the block's rows.
        block: which.
        primary: place on the detector axis of the entry whose maps are stored.
        used: names of the detectors that are combined.
        combination: how; None: they are not.
        photon: (detector, component) variance that one recorded count adds.

    Returns:
        Number of pixels (entry, flag).
    """
    names = source.names
    wanted = used if combination is not None else [names[primary]]
    parts = {name: source.normalise(name, rows, block) for name in wanted}
    flags = [parts[name].flag if name in parts else source.find_flags(name, rows, block) for name in names]
    live = [source.live_of(name, rows, block) for name in names]
    stored = parts[wanted[0]]
    if combination is not None:
        stored = combine_detectors([*parts.values()], combination, photon[[names.index(name) for name in used]])
        flags.append(stored.flag)
        live.append(np.full(stored.flag.shape, np.nan))
    maps = {"rate": stored.rate, "sigma": stored.sigma, "detection_limit": stored.detection_limit}
    write_blocks(rates, primary, block.y, block.x, maps)
    for row, (flag, live_time_s) in enumerate(zip(flags, live, strict=True)):
        write_blocks(rates, row, block.y, block.x, {"flag": flag, "live_time_s": live_time_s})
    i0 = rows.i0_of(block)
    if i0 is not None:
        write_blocks(rates, None, block.y, block.x, {"i0": i0.rate, "i0_sigma": i0.sigma})
    return np.stack([np.bincount(flag.ravel(), minlength=len(PixelFlag)) for flag in flags])


def _integrated_rates(
    spectrum: zarr.Group, names: Sequence[str], totals: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rates (detector, component) of the integrated spectra, counts per second of live time, and their sigma."""
    rows = [labels_of(spectrum, "detector").index(name) for name in names]
    live = totals[[int(name) for name in names], None]
    seconds = np.where(live > 0.0, live, np.nan)
    amplitude, sigma = (np.asarray(array_of(spectrum, name)[...])[rows] for name in ("amplitude", "sigma"))
    return amplitude / seconds, sigma / seconds


def _judge_detectors(
    spectrum: zarr.Group, each: Sequence[str], totals: NDArray[np.float64], apart: Mapping[int, str]
) -> dict[str, str]:
    """Reasons by name of the detectors that disagree with the others; those that the sum is made without among them.

    Args:
        spectrum: group `spectrum` of the results.
        each: names of the detectors of the maps.
        totals: (detector,) live time of all pixels.
        apart: reasons of those that the sum is made without.
    """
    found = {name: apart[int(name)] for name in each if int(name) in apart}
    compared = [name for name in each if name not in found]
    names = labels_of(spectrum, "component")
    markers: Any = spectrum.attrs.get("line_markers", [])
    energy_kev = {str(name): float(energy) for energy, name in markers}
    places = [
        i
        for i, name in enumerate(names)
        if _FAMILY.fullmatch(name) is not None and energy_kev.get(name, 0.0) >= _COMPARED_KEV
    ]
    rate, sigma = _integrated_rates(spectrum, compared, totals)
    for one in find_ratio_outliers(rate[:, places], sigma[:, places]):
        found[compared[one.detector]] = (
            f"its part of {names[places[one.component]]} is {100.0 * one.deviation:+.1f} +- {100.0 * one.sigma:.1f} % "
            "off that of the others"
        )
    return found


def _share_counts(store: SpectraStore, totals: NDArray[np.float64], parts: Sequence[int]) -> NDArray[np.float64]:
    """Parts (detector,) that detectors have of the rate of all counts of the raw sum; 0 of those not in it."""
    rate = np.zeros(store.shape[0])
    for d in parts:
        rate[d] = store.integrated(d).sum() / totals[d] if totals[d] > 0.0 else 0.0
    total = float(rate.sum())
    return rate / total if total > 0.0 else rate


def _sample_variance(source: _Source, blocks: Sequence[Block], used: Sequence[str]) -> NDArray[np.float64]:
    """Mean variance (detector, component) of a pixel's rate by counting, in some blocks."""
    chosen = [blocks[i] for i in np.unique(np.linspace(0, len(blocks) - 1, _SAMPLE_BLOCKS).round().astype(int))]
    shape = (len(used), source.n_components)
    total, number = np.zeros(shape), np.zeros(shape)
    for rows, inside in read_rows(source.times, chosen):
        for block, (i, name) in itertools.product(inside, enumerate(used)):
            variance = source.counting_variance(name, rows, block)
            total[i] += np.nansum(variance, axis=(1, 2))
            number[i] += np.isfinite(variance).sum(axis=(1, 2))
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)
