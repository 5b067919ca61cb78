"""A run asked for areal densities after its end: what is fitted is kept, nothing is fitted again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hpcxrf.cluster.job_files import append_event, read_events, was_submitted
from hpcxrf.cluster.login.run_jobs import list_run_jobs, require_no_job
from hpcxrf.cluster.login.status import latest_job
from hpcxrf.cluster.slurm import job_ended
from hpcxrf.config.run import RunConfig, effective
from hpcxrf.config.settings import Setting
from hpcxrf.errors import ConfigError
from hpcxrf.pipeline.request import check_request, config_of_run, keep_configuration
from hpcxrf.runner.datasets import forget_dataset, read_datasets
from hpcxrf.runner.done import last_lines
from hpcxrf.runner.ending import forget_end
from hpcxrf.store.files import atomic_write_text
from hpcxrf.store.lock import run_lock
from hpcxrf.store.rundir import FINISHED, RETRY, RunDir, open_run, require_own_folder

_DERIVED: Final = ("normalise", "quantify")
"""Sections of the run file, and tasks, that rest on finished maps and on which no fit does."""


def ask_for_densities(folder: Path, settings: Sequence[Setting]) -> int:
    """Write into a run directory that its maps are to be normalised and quantified, by whoever resumes it.

    Args:
        folder: the run directory, on which no driver works.
        settings: values of the sections `normalise` and `quantify`.

    Returns:
        Datasets that are to be looked at again.

    Raises:
        ConfigError: values of other sections, or values that are not valid; all faults at once.
        OutputError: no run there, or a driver works on it, or a job of it is in the queue.
        SlurmError: Slurm does not answer.
    """
    if strange := [one.origin for one in settings if one.place[0] not in _DERIVED]:
        raise ConfigError(
            f"{', '.join(strange)}: quantify sets values of the sections {' and '.join(_DERIVED)} only; a run with "
            "another value of any other section is a new run"
        )
    require_own_folder(folder)
    run = open_run(folder)
    if run.workload_name() != "scan":
        raise ConfigError(f"{folder}: a {run.workload_name()} has no maps; name the run directory of scans")
    if was_submitted(run):
        require_no_job(run, list_run_jobs(run))
    with run_lock(run, job_ended=job_ended):
        before, _ = config_of_run(run)
        config, _ = config_of_run(run, _complete(before, settings))
        if not config.quantify.wanted:
            raise ConfigError(f"{folder}: no standard is named; give --standard with the scan of one")
        check_request(config)
        changed = (before.normalise, before.quantify) != (config.normalise, config.quantify)
        done = [record.dataset_id for record in read_datasets(run) if record.state == "done"]
        for dataset_id in done:
            _undo(run, dataset_id, changed=changed)
        forget_end(run)
        if (job_id := latest_job(read_events(run))) is not None:
            # Else the good end of its last job would say that nothing is missing.
            append_event(run, "asked", job_id=job_id)
        keep_configuration(run, config)
        text = json.dumps(effective(config), indent=2, sort_keys=True)
        atomic_write_text(run.effective_file, text + "\n")
    return len(done)


def _complete(before: RunConfig, settings: Sequence[Setting]) -> list[Setting]:
    """The first standard's own I0 is the reference of a run that has none: it is fixed, and measured as the samples."""
    places = {one.place for one in settings}
    standards = next(
        (one.value for one in settings if one.place == ("quantify", "standards")), before.quantify.standards
    )
    has_i0 = before.normalise.i0 is not None or any(one.place == ("normalise", "i0") and one.value for one in settings)
    if not has_i0 or before.normalise.reference is not None or ("normalise", "reference") in places or not standards:
        return list(settings)
    added = Setting(place=("normalise", "reference"), value=standards[0], origin="the first standard")
    return [*settings, added]


def _undo(run: RunDir, dataset_id: str, *, changed: bool) -> None:
    """Let the next driver look at a dataset again; what was derived by other values is derived again."""
    last = last_lines(run.read_journal(dataset_id))
    done = [task for task in _DERIVED if last.get(task, {}).get("event") == FINISHED]
    if changed:
        run.append_all(dataset_id, [{"event": RETRY, "task": task, "reason": "quantify"} for task in done])
    forget_dataset(run, dataset_id, "areal densities were asked for")
