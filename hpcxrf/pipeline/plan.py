"""What will run: the datasets of a run file, found, opened and named before any work starts."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hpcxrf.config.run import RunConfig
from hpcxrf.errors import InputFileError
from hpcxrf.formats.candidates import Candidates, list_candidates, notes_on_left_out, why_left_out
from hpcxrf.notes import Note
from hpcxrf.pipeline.catalogued.plan import plan_catalogue
from hpcxrf.pipeline.memory import IDLE_WORKER_BYTES
from hpcxrf.pipeline.opening import begin_opening, find_kept, look_ahead, open_dataset
from hpcxrf.pipeline.records import DatasetJob, Stage
from hpcxrf.runner.records import Kept, Refusal
from hpcxrf.runner.workload import PlanRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All datasets of a run."""

    jobs: tuple[DatasetJob, ...]
    refusals: tuple[Refusal, ...]
    notes: tuple[Note, ...]


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
    if request.config.input.catalogue is not None:
        yield from plan_catalogue(request)
    else:
        yield from _plan_files(request)


def _plan_files(request: PlanRequest) -> Iterator[DatasetJob | Refusal | Kept]:
    config = request.config
    candidates = list_candidates([Path(name) for name in config.input.files])
    for note in candidates.notes:
        request.note(note)
    opening = begin_opening(request, datasets=len(candidates.paths))

    def look(path: Path) -> DatasetJob | Refusal | Kept | str:
        wanted = opening.want(path)
        kept = find_kept(wanted, request)
        if kept is not None:
            return kept
        reason = why_left_out(path, candidates)
        return open_dataset(wanted, request) if reason is None else reason

    left: dict[Path, str] = {}
    number = 0
    for opened, (path, found) in enumerate(look_ahead(candidates.paths, look), start=1):
        request.opened(opened, len(candidates.paths))
        if isinstance(found, str):
            left[path] = found
            continue
        yield replace(found, number=number)
        number += 1
    # What was named one by one is reported as what it is, where there is nothing else.
    named = [path for path in candidates.paths if path in candidates.explicit] if number == 0 else []
    for path in named:
        del left[path]
        yield open_dataset(opening.want(path, number), request)
        number += 1
    _note_left_out(request, candidates, left, found=number)


def _note_left_out(request: PlanRequest, candidates: Candidates, left: Mapping[Path, str], *, found: int) -> None:
    """Say what is not a scan, and refuse to run without any."""
    notes = notes_on_left_out(left)
    for note in notes:
        request.note(note)
    if not found:
        names = "\n".join(f"  {name}" for name in request.config.input.files)
        texts = [note.text for note in (*candidates.notes, *notes)]
        raise InputFileError("\n".join([f"no scan found in:\n{names}", *texts, "give files, folders or patterns"]))


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
