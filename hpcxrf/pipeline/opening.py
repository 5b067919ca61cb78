"""One dataset of a run: opened and described for its tasks, or found to be done already, or refused."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

from hpcxrf.config.run import RunConfig
from hpcxrf.config.store import wants_packing
from hpcxrf.errors import ConfigError, HpcxrfError, OutputError
from hpcxrf.formats.registry import open_scan
from hpcxrf.formats.scan import RawScan
from hpcxrf.methods import METHODS
from hpcxrf.pipeline.joined import may_join
from hpcxrf.pipeline.memory import memory_fault, stage_memory
from hpcxrf.pipeline.normalise.choice import require_normalisable
from hpcxrf.pipeline.normalise.reference import read_reference, reference_stamps
from hpcxrf.pipeline.prepare.inputs import archive_root, detector_names, input_stamps, read_options, renew_stamps
from hpcxrf.pipeline.quantify.certificates import standard_stamps
from hpcxrf.pipeline.records import ORIGINAL, DatasetJob, I0Reference, Stage, Stamps
from hpcxrf.pipeline.regions.given import region_stamps, require_given
from hpcxrf.runner.records import Kept, Refusal
from hpcxrf.runner.workload import PlanRequest
from hpcxrf.store.catalog import dataset_id
from hpcxrf.store.packed import read_root
from hpcxrf.store.rundir import RunDir

_OPENERS: Final = 8
_OPENED_AHEAD: Final = 64

One = TypeVar("One")
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedInputs:
    """What the datasets of one configuration share, read once."""

    region_stamps: Stamps
    reference: I0Reference | None
    reference_stamps: Stamps
    standard_stamps: Stamps


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A dataset that a run is to have."""

    path: Path
    dataset_id: str
    config: RunConfig
    """Its own configuration."""
    shared: SharedInputs
    number: int
    """Its place in the plan."""
    settings: tuple[tuple[str, Stamps], ...] = ()
    """Stamps of its configuration by kind, where a run goes on with another one."""
    datasets: int
    """How many the run has, about."""


def read_shared(config: RunConfig) -> SharedInputs:
    """Read what all datasets of a configuration share.

    Raises:
        ConfigError: the scan that gives the reference of I0 is not there, or lacks it.
        InputFileError: a label image of `regions`, or the scan that gives the reference of I0, cannot be read.
    """
    return SharedInputs(
        region_stamps=region_stamps(config.regions),
        reference=read_reference(config),
        reference_stamps=reference_stamps(config.normalise),
        standard_stamps=standard_stamps(config.quantify),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What the opening of every file shares, where files or folders are named."""

    request: PlanRequest
    root: Path
    """The folder that names the datasets relative to itself."""
    shared: SharedInputs
    datasets: int
    """How many the run has, about."""

    def name_dataset(self, path: Path) -> str:
        """Name of the dataset that a file is."""
        return dataset_id(path.absolute(), self.root)

    def want(self, path: Path, number: int = 0) -> Wanted:
        """The dataset that a file is to be, with its place in the plan."""
        return Wanted(
            path=path,
            dataset_id=self.name_dataset(path),
            config=self.request.config,
            shared=self.shared,
            number=number,
            datasets=self.datasets,
        )


def begin_opening(request: PlanRequest, *, datasets: int) -> Opening:
    """Read once what the opening of every file shares.

    Args:
        request: what is to be planned.
        datasets: how many the run has, about.

    Raises:
        ConfigError: the scan that gives the reference of I0 is not there, or lacks it.
        InputFileError: a label image of `regions`, or the scan that gives the reference of I0, cannot be read.
    """
    config = request.config
    root = archive_root(config.input.files)
    return Opening(request=request, root=root, shared=read_shared(config), datasets=datasets)


def look_ahead(wanted: Iterable[One], look: Callable[[One], Found]) -> Iterator[tuple[One, Found]]:
    """Look at things in a few threads, a bounded number ahead of whoever takes them, in their order."""
    waiting: deque[tuple[One, Future[Found]]] = deque()
    pool = ThreadPoolExecutor(_OPENERS, thread_name_prefix="open")
    try:
        for one in wanted:
            waiting.append((one, pool.submit(look, one)))
            if len(waiting) > _OPENED_AHEAD:
                first, found = waiting.popleft()
                yield first, found.result()
        while waiting:
            first, found = waiting.popleft()
            yield first, found.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def find_kept(wanted: Wanted, request: PlanRequest) -> Kept | None:
    """The record of a dataset that is done and whose files are as they were: they are not opened again.

    A file of another time and the same size is read: what it was copied or touched to is the same where its checksum
    is that of the spectra.
    """
    record = request.kept.get(wanted.dataset_id)
    if record is None:
        return None
    now = {
        "region_stamps": wanted.shared.region_stamps,
        "reference_stamps": wanted.shared.reference_stamps,
        "standard_stamps": wanted.shared.standard_stamps,
        **dict(wanted.settings),
    }
    stamps = record.made_from.get("stamps", {})
    same = str(wanted.path.absolute()) in stamps
    if not same or any(record.made_from.get(kind, {}) != dict(one) for kind, one in now.items()):
        return None

    def read_checksums() -> dict[str, str]:
        try:
            attributes = read_root(RunDir(path=request.run_dir).spectra_store(wanted.dataset_id))["attributes"]
            return {one["path"]: one["sha256"] for one in attributes["sources"]}
        except (OutputError, KeyError, TypeError):
            return {}

    renewed = renew_stamps(wanted.config, wanted.path, stamps, read_checksums)
    if renewed is None:
        return None
    if renewed == stamps:
        return Kept(record=record)
    made_from = {**record.made_from, "stamps": renewed, ORIGINAL: record.made_from.get(ORIGINAL, stamps)}
    return Kept(record=replace(record, made_from=made_from), renewed=True)


def open_dataset(wanted: Wanted, request: PlanRequest) -> DatasetJob | Refusal:
    """The item of a file, or why it cannot be run."""
    path, config, shared = wanted.path, wanted.config, wanted.shared

    def refuse(reason: str) -> Refusal:
        text = reason if str(path) in reason else f"{path}: {reason}"
        return Refusal(dataset_id=wanted.dataset_id, source=path, reason=text, number=wanted.number)

    try:
        scan = open_scan(path, read_options(config))
        require_given(config.regions, scan.shape[1:3])
        require_few(config, scan.shape, path)
        names = detector_names(config, scan.shape[0])
        if config.normalise.wanted:
            require_normalisable(config.normalise, scan.read_scalars(), path)
    except HpcxrfError as error:
        return refuse(str(error))
    stamps = input_stamps(config, scan, path)
    job = DatasetJob(
        number=wanted.number,
        dataset_id=wanted.dataset_id,
        source=path.absolute(),
        run_dir=request.run_dir.absolute(),
        config=config,
        detectors=names,
        shape=scan.shape,
        stamps=stamps,
        region_stamps=shared.region_stamps,
        reference_stamps=shared.reference_stamps,
        standard_stamps=shared.standard_stamps,
        settings=wanted.settings,
        original_stamps=_find_original(wanted, request, stamps),
        i0_reference=shared.reference,
        pack=wants_packing(config.store, wanted.datasets),
    )
    fault = None
    # What does not fit into a worker in one task may in tasks of its own.
    for join in (True, False) if may_join(job) else (False,):
        job = replace(job, join=join)
        memory = _memory(job, scan)
        fault = None if request.worker_bytes is None else memory_fault(memory, request.worker_bytes)
        if fault is None:
            return replace(job, memory_bytes=tuple(memory.items()))
    return refuse(f"{path}: {fault}")


def _find_original(wanted: Wanted, request: PlanRequest, stamps: Stamps) -> Stamps:
    """Stamps that a dataset was fitted with, where its record says that its files have others and hold the same."""
    record = request.kept.get(wanted.dataset_id)
    if record is None or record.made_from.get("stamps") != dict(stamps):
        return ()
    return tuple(record.made_from.get(ORIGINAL, {}).items())


def _memory(job: DatasetJob, scan: RawScan) -> dict[Stage, int]:
    return stage_memory(
        job,
        rows_per_read=scan.rows_per_read,
        source_itemsize=scan.dtype.itemsize,
        threads=job.config.execution.threads or 1,
    )


def require_few(config: RunConfig, shape: tuple[int, int, int, int], source: Path) -> None:
    """Refuse more pixels than the method fits in a sensible time.

    Raises:
        ConfigError: both numbers and the remedies.
    """
    number, method = shape[0] * shape[1] * shape[2], config.pixels.method
    most = METHODS[method].most_pixels
    if most is not None and number > most:
        raise ConfigError(
            f"{source}: pixels.method {method} fits at most {most} pixels times detectors, and the scan has {number}; "
            f"use another method, and regions.remap: {method} for the regions of interest"
        )
