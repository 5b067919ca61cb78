"""What will run: the datasets of a run file, found, opened and named before any work starts."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpcxrf.config import RunConfig
from hpcxrf.errors import HpcxrfError, InputFileError
from hpcxrf.formats.registry import find_scans, open_scan
from hpcxrf.pipeline.inputs import archive_root, detector_names, input_stamps, read_options
from hpcxrf.pipeline.records import DatasetJob
from hpcxrf.pipeline.regions_given import region_stamps, require_given
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


def make_plan(
    config: RunConfig, run_dir: Path, *, opened: Callable[[int, int], None] | None = None
) -> Plan:
    """Find the scans and read their headers.

    Args:
        config: a checked run file, with absolute or working-directory paths.
        run_dir: where the results go.
        opened: called with (files opened, files) as it goes.

    Raises:
        InputFileError: nothing was found at all, every name that was tried is listed; or a label image of
            `regions` cannot be read.
    """
    found, notes = find_scans([Path(name) for name in config.input.files])
    if not found:
        names = "\n".join(f"  {name}" for name in config.input.files)
        raise InputFileError(
            "\n".join([f"no scan found in:\n{names}", *notes, "give files, folders or patterns"])
        )
    root = archive_root(config.input.files)
    labels = region_stamps(config.regions)
    jobs: list[DatasetJob] = []
    refusals: list[Refusal] = []
    for number, path in enumerate(found):
        name = dataset_id(path.absolute(), root)
        try:
            scan = open_scan(path, read_options(config))
            require_given(config.regions, scan.shape[1:3])
        except HpcxrfError as error:
            refusals.append(Refusal(dataset_id=name, source=path, reason=str(error)))
        else:
            jobs.append(
                DatasetJob(
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
            )
        if opened is not None:
            opened(number + 1, len(found))
    return Plan(jobs=tuple(jobs), refusals=tuple(refusals), notes=tuple(notes))
