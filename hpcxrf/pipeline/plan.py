"""What will run: the datasets of a run file, found, opened and named before any work starts."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from hpcxrf.config.run import RunConfig
from hpcxrf.config.store import wants_packing
from hpcxrf.errors import ConfigError, HpcxrfError, InputFileError
from hpcxrf.formats.candidates import Candidates, list_candidates, notes_on_left_out, why_left_out
from hpcxrf.formats.registry import open_scan
from hpcxrf.formats.scan import RawScan
from hpcxrf.methods import METHODS
from hpcxrf.notes import Note
from hpcxrf.pipeline.memory import IDLE_WORKER_BYTES, memory_fault, stage_memory
from hpcxrf.pipeline.normalise.choice import require_normalisable
from hpcxrf.pipeline.normalise.reference import read_reference, reference_stamps
from hpcxrf.pipeline.prepare.inputs import archive_root, detector_names, input_stamps, read_options, stamps_hold
from hpcxrf.pipeline.quantify.certificates import standard_stamps
from hpcxrf.pipeline.records import DatasetJob, I0Reference, Stage
from hpcxrf.pipeline.regions.given import region_stamps, require_given
from hpcxrf.runner.records import Kept, Refusal
from hpcxrf.runner.workload import PlanRequest
from hpcxrf.store.catalog import dataset_id

_OPENERS: Final = 8
_OPENED_AHEAD: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All datasets of a run."""

    jobs: tuple[DatasetJob, ...]
    refusals: tuple[Refusal, ...]
    notes: tuple[Note, ...]


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


def make_plan(
    config: RunConfig,
    run_dir: Path,
    *,
    opened: Callable[[int, int], None] = lambda _opened, _total: None,
    worker_bytes: int | None = None,
) -> Plan:
    """Find all scans and read their headers, as `plan_scans` does while a run goes on.

    Args:
        config: a checked run file, with absolute or working-directory paths.
        run_dir: where the results go.
        opened: called with (files opened, files) as it goes.
        worker_bytes: memory of one worker; a dataset that needs more is refused. None: it is not checked.

    Raises:
        InputFileError: nothing was found at all, every name that was tried is listed; or a label image of
            `regions` cannot be read.
    """
    notes: list[Note] = []
    request = PlanRequest(
        config=config, run_dir=run_dir, worker_bytes=worker_bytes, kept={}, note=notes.append, opened=opened
    )
    found = list(plan_scans(request))
    return Plan(
        jobs=tuple(one for one in found if isinstance(one, DatasetJob)),
        refusals=tuple(one for one in found if isinstance(one, Refusal)),
        notes=tuple(notes),
    )


def plan_scans(request: PlanRequest) -> Iterator[DatasetJob | Refusal | Kept]:
    """Find the scans and read their headers, several files at a time and each as it is asked for.

    Yields:
        What was found, in the order of the inputs, while later files are still unopened.

    Raises:
        ConfigError: the scan that gives the reference of I0 is not there, or lacks it.
        InputFileError: nothing was found at all, every name that was tried is listed; or a label image of
            `regions`, or the scan that gives the reference of I0, cannot be read.
    """
    config = request.config
    candidates = list_candidates([Path(name) for name in config.input.files])
    for note in candidates.notes:
        request.note(note)
    archive = open_archive(request, candidates)
    left: dict[Path, str] = {}
    number = 0
    for opened, (path, found) in enumerate(_look_ahead(archive), start=1):
        request.opened(opened, len(candidates.paths))
        if isinstance(found, str):
            left[path] = found
            continue
        yield found if isinstance(found, Kept) else replace(found, number=number)
        number += 1
    if number == 0:
        # What was named one by one is reported as what it is, where there is nothing else.
        for path in candidates.paths:
            if path in candidates.explicit:
                del left[path]
                yield replace(plan_scan(path, archive), number=number)
                number += 1
    for note in notes_on_left_out(left):
        request.note(note)
    if number == 0:
        names = "\n".join(f"  {name}" for name in config.input.files)
        notes = [note.text for note in (*candidates.notes, *notes_on_left_out(left))]
        raise InputFileError("\n".join([f"no scan found in:\n{names}", *notes, "give files, folders or patterns"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """What the opening of every file shares."""

    request: PlanRequest
    candidates: Candidates
    """The files that the scan is found among."""
    root: Path
    """The folder that names the datasets relative to itself."""
    region_stamps: tuple[tuple[str, str], ...]
    """Stamps of the label images that give regions."""
    reference: I0Reference | None
    """I0 that maps are brought to."""
    reference_stamps: tuple[tuple[str, str], ...]
    """Stamps of the scan that gives it."""
    standard_stamps: tuple[tuple[str, str], ...]
    """Stamps of the standards and their table."""

    def name_dataset(self, path: Path) -> str:
        """Name of the dataset that a file is."""
        return dataset_id(path.absolute(), self.root)


def open_archive(request: PlanRequest, candidates: Candidates) -> Archive:
    """Read once what the opening of every file shares.

    Raises:
        ConfigError: the scan that gives the reference of I0 lacks it.
        InputFileError: a label image of `regions`, or the scan that gives the reference of I0, cannot be read.
    """
    config = request.config
    return Archive(
        request=request,
        candidates=candidates,
        root=archive_root(config.input.files),
        region_stamps=region_stamps(config.regions),
        reference=read_reference(config),
        reference_stamps=reference_stamps(config.normalise),
        standard_stamps=standard_stamps(config.quantify),
    )


def _look_ahead(archive: Archive) -> Iterator[tuple[Path, DatasetJob | Refusal | Kept | str]]:
    """Every candidate in order, with what it is or why it is left out; files are opened by a few threads ahead."""
    waiting: deque[tuple[Path, Future[DatasetJob | Refusal | Kept | str]]] = deque()
    pool = ThreadPoolExecutor(_OPENERS, thread_name_prefix="open")
    try:
        for path in archive.candidates.paths:
            waiting.append((path, pool.submit(_look, path, archive)))
            if len(waiting) > _OPENED_AHEAD:
                first, found = waiting.popleft()
                yield first, found.result()
        while waiting:
            first, found = waiting.popleft()
            yield first, found.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _look(path: Path, archive: Archive) -> DatasetJob | Refusal | Kept | str:
    kept = find_kept(path, archive)
    if kept is not None:
        return kept
    reason = why_left_out(path, archive.candidates)
    return plan_scan(path, archive) if reason is None else reason


def find_kept(path: Path, archive: Archive) -> Kept | None:
    """The record of a scan that is done and whose files are as they were: they are not opened again."""
    if not archive.request.kept:
        return None
    record = archive.request.kept.get(archive.name_dataset(path))
    if record is None:
        return None
    stamps = record.made_from.get("stamps", {})
    regions = record.made_from.get("region_stamps", {})
    reference = record.made_from.get("reference_stamps", {})
    standards = record.made_from.get("standard_stamps", {})
    others = (
        dict(archive.region_stamps) == regions
        and dict(archive.reference_stamps) == reference
        and dict(archive.standard_stamps) == standards
    )
    same = str(path.absolute()) in stamps and others
    return Kept(record=record) if same and stamps_hold(archive.request.config, path, stamps) else None


def plan_scan(path: Path, archive: Archive) -> DatasetJob | Refusal:
    """The item of a file, its number not yet known, or why it cannot be run."""
    request, config = archive.request, archive.request.config
    name = archive.name_dataset(path)
    try:
        scan = open_scan(path, read_options(config))
        require_given(config.regions, scan.shape[1:3])
        require_few(config, scan.shape, path)
        names = detector_names(config, scan.shape[0])
        if config.normalise.wanted:
            require_normalisable(config.normalise, scan.read_scalars(), path)
    except HpcxrfError as error:
        text = str(error)
        reason = text if str(path) in text else f"{path}: {text}"
        return Refusal(dataset_id=name, source=path, reason=reason)
    job = DatasetJob(
        number=0,
        dataset_id=name,
        source=path.absolute(),
        run_dir=request.run_dir.absolute(),
        config=config,
        detectors=names,
        shape=scan.shape,
        stamps=input_stamps(config, scan, path),
        region_stamps=archive.region_stamps,
        reference_stamps=archive.reference_stamps,
        standard_stamps=archive.standard_stamps,
        i0_reference=archive.reference,
        pack=wants_packing(config.store, len(archive.candidates.paths)),
    )
    memory = _memory(job, scan)
    fault = None if request.worker_bytes is None else memory_fault(memory, request.worker_bytes)
    if fault is not None:
        return Refusal(dataset_id=name, source=path, reason=f"{path}: {fault}")
    return replace(job, memory_bytes=tuple(memory.items()))


def _memory(job: DatasetJob, scan: RawScan) -> dict[Stage, int]:
    return stage_memory(
        job,
        rows_per_read=scan.rows_per_read,
        source_itemsize=scan.dtype.itemsize,
        threads=job.config.execution.threads or 1,
    )


def memory_by_stage(plan: Plan) -> dict[Stage, int]:
    """Most bytes that any dataset needs in a worker, by stage, above what an idle one holds."""
    most: dict[Stage, int] = {}
    for job in plan.jobs:
        for stage, needed in job.memory_bytes:
            most[stage] = max(most.get(stage, 0), needed)
    return most


def memory_text(plan: Plan) -> str:
    """Peak memory of a worker by stage, for people."""
    parts = (f"{stage} {needed / 2**20:.0f}" for stage, needed in memory_by_stage(plan).items())
    idle = IDLE_WORKER_BYTES / 2**20
    return f"of a worker at most {idle:.0f} MB idle, and above that in MB: {', '.join(parts)}"
