"""What will run: the datasets of a run file, found, opened and named before any work starts."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from hpcxrf.config.pixels import FULL_PIXELS_MAX
from hpcxrf.config.run import RunConfig
from hpcxrf.errors import ConfigError, HpcxrfError, InputFileError
from hpcxrf.formats.registry import find_scans, open_scan
from hpcxrf.formats.scan import RawScan
from hpcxrf.pipeline.memory import IDLE_WORKER_BYTES, memory_fault, stage_memory
from hpcxrf.pipeline.prepare.inputs import archive_root, detector_names, input_stamps, read_options
from hpcxrf.pipeline.records import DatasetJob, Stage
from hpcxrf.pipeline.regions.given import region_stamps, require_given
from hpcxrf.store.catalog import dataset_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A file that cannot be run, known before the run starts; it stops no other."""

    dataset_id: str
    source: Path
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All datasets of a run."""

    jobs: tuple[DatasetJob, ...]
    refusals: tuple[Refusal, ...]
    notes: tuple[str, ...]


def require_few(config: RunConfig, shape: tuple[int, int, int, int], source: Path) -> None:
    """Refuse more pixels than `full` fits in a sensible time.

    Raises:
        ConfigError: both numbers and the remedies.
    """
    number = shape[0] * shape[1] * shape[2]
    if config.pixels.method == "full" and number > FULL_PIXELS_MAX:
        raise ConfigError(
            f"{source}: pixels.method full fits at most {FULL_PIXELS_MAX} pixels times detectors, and here are "
            f"{number}; give nonlinear, or regions.remap: full for the regions of interest"
        )


def make_plan(
    config: RunConfig,
    run_dir: Path,
    *,
    opened: Callable[[int, int], None] | None = None,
    worker_bytes: int | None = None,
) -> Plan:
    """Find the scans and read their headers.

    Args:
        config: a checked run file, with absolute or working-directory paths.
        run_dir: where the results go.
        opened: called with (files opened, files) as it goes.
        worker_bytes: memory of one worker; a dataset that needs more is refused. None: not looked at.

    Raises:
        InputFileError: nothing was found at all, every name that was tried is listed; or a label image of
            `regions` cannot be read.
    """
    found, notes = find_scans([Path(name) for name in config.input.files])
    if not found:
        names = "\n".join(f"  {name}" for name in config.input.files)
        raise InputFileError("\n".join([f"no scan found in:\n{names}", *notes, "give files, folders or patterns"]))
    root = archive_root(config.input.files)
    labels = region_stamps(config.regions)
    jobs: list[DatasetJob] = []
    refusals: list[Refusal] = []
    for number, path in enumerate(found):
        name = dataset_id(path.absolute(), root)
        try:
            scan = open_scan(path, read_options(config))
            require_given(config.regions, scan.shape[1:3])
            require_few(config, scan.shape, path)
        except HpcxrfError as error:
            refusals.append(Refusal(dataset_id=name, source=path, reason=str(error)))
        else:
            job = DatasetJob(
                number=number,
                dataset_id=name,
                source=path.absolute(),
                run_dir=run_dir.absolute(),
                config=config,
                detectors=detector_names(config, scan.shape[0]),
                shape=scan.shape,
                stamps=input_stamps(config, scan, path),
                region_stamps=labels,
            )
            job = replace(job, memory_bytes=tuple(_memory(job, scan).items()))
            fault = None if worker_bytes is None else memory_fault(_memory(job, scan), worker_bytes)
            if fault is None:
                jobs.append(job)
            else:
                refusals.append(Refusal(dataset_id=name, source=path, reason=f"{path}: {fault}"))
        if opened is not None:
            opened(number + 1, len(found))
    return Plan(jobs=tuple(jobs), refusals=tuple(refusals), notes=tuple(notes))


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
