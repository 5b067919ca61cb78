"""Beginning a run from the explorer: prepared and shown first, begun when exactly that is confirmed.

What is written: the run file and the run directory, in the folder that was given, and nothing before it is confirmed.
"""

import hashlib
import hmac
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hpcxrf.cluster.failures import failures
from hpcxrf.cluster.login.sbatch import place_options
from hpcxrf.cluster.login.sites import find_site
from hpcxrf.cluster.login.status import GOING_ON, run_status
from hpcxrf.cluster.login.steering import cancel_run, retry_failed
from hpcxrf.cluster.login.submission import Submission, SubmitOptions, prepare_submission, submit_again, submit_run
from hpcxrf.cluster.slurm import seconds_of
from hpcxrf.config.run import RunConfig
from hpcxrf.config.site_files import site_folders
from hpcxrf.config.untrusted import read_regular, show_lines, show_name
from hpcxrf.errors import ConfigError, OutputError
from hpcxrf.explore.run_text import check_text
from hpcxrf.explore.runs import Begun, Runs, find_run
from hpcxrf.store.catalog import is_dataset_id
from hpcxrf.store.files import atomic_write_text
from hpcxrf.store.rundir import RunDir, prepare_folder, refuse_foreign_content, require_own_folder
from hpcxrf.workloads import choose_workload

Json = dict[str, Any]

HERE: Final = ""
"""In the place of a site: this machine."""
_LOG: Final = "run-here.log"
_MOST: Final = 100_000
_SHOWN_REASONS: Final = 5
_RUNNER: Final = (sys.executable, "-P", "-m", "hpcxrf")
"""`-P`: nothing is imported from the folder in which it starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A run that can be begun as it stands here."""

    run: RunDir
    run_file: Path | None
    """Written when it is begun; None: the run directory is there already, and goes on."""
    text: str
    """Of the run file."""
    script: str
    """What is run, as it is shown."""
    command: str
    """What takes the script; on this machine the command itself."""
    submission: Submission | None
    """None: on this machine, or again."""
    site: str
    failed: tuple[tuple[str, str], ...] = ()
    """Dataset and task of what failed and is tried again; none where that was not asked for."""
    notes: tuple[str, ...] = ()

    @property
    def code(self) -> str:
        """Code of all of it: another run file, folder, script or command has another one."""
        # What the driver is told of the site is not in the script, and is confirmed with it.
        told = "" if self.submission is None else repr(self.submission.request)
        shown = [str(self.run.path), self.text, self.script, self.command, self.site, told, self.failed]
        return hashlib.sha256(json.dumps(shown).encode("utf-8", "replace")).hexdigest()


def list_sites() -> list[str]:
    """List the names of the site profiles that there are."""
    return sorted({file.stem for folder in site_folders() for file in folder.glob("*.yaml")})


def prepare(runs: Runs, asked: Mapping[str, Any]) -> Prepared:
    """Prepare a run, of which nothing is written: a new one (`text`, `name`), or one that goes on (`run`).

    Args:
        runs: where.
        asked: JSON of the page: `site` (a name; empty: this machine), `workers`, `nodes`, `time`, and either of these;
            `retry` with `run`: what failed is tried again, too.

    Raises:
        ConfigError: the explorer only reads, faults of the run file, a name that is none, a site that is not there.
        OutputError: the folder holds something else.
        SlurmError: Slurm does not answer.
    """
    if runs.read_only:
        raise ConfigError("this explorer only reads (--read-only); start it without, or use `hpcxrf submit`")
    if asked.get("run"):
        return _prepare_again(runs, _text(asked, "run"), retry=asked.get("retry") is True)
    return _prepare_new(runs, asked)


def describe_prepared(prepared: Prepared) -> Json:
    """Describe what would be begun, in JSON values."""
    return {
        "code": prepared.code,
        "script": prepared.script,
        "command": prepared.command,
        "folder": show_name(str(prepared.run.path)),
        "run_file": None if prepared.run_file is None else show_name(str(prepared.run_file)),
        "notes": list(prepared.notes),
    }


def begin(runs: Runs, asked: Mapping[str, Any]) -> Json:
    """Begin what was prepared and shown; the code that was shown with it confirms it.

    Raises:
        ConfigError: no code, or that of something else, besides what `prepare` raises.
        OutputError: the run directory cannot be used, or is at work.
        SlurmError: refused, or no answer.
    """
    prepared = prepare(runs, asked)
    if not hmac.compare_digest(_text(asked, "code").encode("utf-8", "replace"), prepared.code.encode()):
        raise ConfigError(
            "this is not what was shown: something changed since; look at the script again and confirm it"
        )
    if prepared.site == HERE:
        _write_run_file(prepared)
        return {"job_id": None, "process": _begin_here(runs, prepared)}
    if prepared.failed:
        retry_failed(prepared.run.path, None)
    job_id = submit_again(prepared.run) if prepared.submission is None else submit_run(prepared.submission)
    # The run directory has the text already: a submission that is refused leaves no run file behind.
    _write_run_file(prepared)
    return {"job_id": job_id, "process": None}


def stop(runs: Runs, key: str) -> Json:
    """End whatever works on a run, as `hpcxrf cancel` does.

    Raises:
        ConfigError: the explorer only reads, or there is no such run.
        OutputError: nothing works on it, or on another host.
        SlurmError: refused, or no answer.
    """
    if runs.read_only:
        raise ConfigError("this explorer only reads (--read-only); start it without, or use `hpcxrf cancel`")
    ended = cancel_run(find_run(runs, key).path)
    return {"job_ids": list(ended.job_ids), "unknown": list(ended.unknown), "process": ended.process}


def _prepare_new(runs: Runs, asked: Mapping[str, Any]) -> Prepared:
    if runs.alone:
        raise ConfigError(
            "one run was opened; open the folder that it lies in to begin another (`hpcxrf explore FOLDER`)"
        )
    text, name, site = _text(asked, "text"), _text(asked, "name"), _text(asked, "site")
    if not is_dataset_id(name):
        raise ConfigError(f"name {show_name(name)[:80]!r}: letters, digits, _ and inner - only")
    checked = check_text(text, runs.folder)
    if checked.config is None:
        faults = "\n".join(f"  {fault.text}" for fault in checked.faults)
        raise ConfigError(f"the run file has faults:\n{faults}")
    run, run_file = RunDir(path=runs.folder / name), runs.folder / f"{name}.yaml"
    notes = _look_at_place(run, run_file, text)
    if site == HERE:
        choose_workload(checked.config).check(checked.config)
        argv = [*_RUNNER, "run", str(run_file), "-o", str(run.path)]
        script, command, submission = _show_here(run, argv), shlex.join(argv), None
    else:
        submission = _prepare_submission(checked.config, text, run.path, site, asked)
        script, command = submission.script, submission.command
    return Prepared(
        run=run,
        run_file=run_file,
        text=text,
        script=script,
        command=command,
        submission=submission,
        site=site,
        notes=notes,
    )


def _look_at_place(run: RunDir, run_file: Path, text: str) -> tuple[str, ...]:
    """Refuse a place that holds something else; say where a run goes on.

    Raises:
        OutputError: it does.
    """
    if run_file.is_symlink() or run.path.is_symlink():
        raise OutputError(f"{run.path}: is a link, or its run file is; choose another name")
    if run_file.exists() and read_regular(run_file, OutputError) != text.encode("utf-8", "replace"):
        raise OutputError(f"{run_file}: is there already and says something else; choose another name")
    if run.effective_file.is_file():
        return (
            f"{run.path.name} is a run already: it goes on if its configuration is the same, and is refused if not",
        )
    refuse_foreign_content(run.path)
    return ()


def _prepare_submission(config: RunConfig, text: str, folder: Path, site: str, asked: Mapping[str, Any]) -> Submission:
    # A path would read a profile, whose lines are run, from anywhere.
    if site not in list_sites():
        raise ConfigError(f"site {show_name(site)[:80]!r}: there is no profile of that name; `hpcxrf site list`")
    time = _text(asked, "time")
    options = SubmitOptions(
        workers=_number(asked, "workers"),
        nodes=_number(asked, "nodes"),
        time_limit_s=seconds_of(time) if time else None,
    )
    return prepare_submission(config, text, folder, find_site(site), options)


def _prepare_again(runs: Runs, key: str, *, retry: bool) -> Prepared:
    run = find_run(runs, key)
    require_own_folder(run.path)
    status = run_status(run.path, runs.ask)
    if status.verdict in GOING_ON:
        raise OutputError(f"{run.path}: is {status.verdict}; stop it first, or wait for it")
    failed = tuple((one.dataset_id, one.task) for one in failures(run)) if retry else ()
    if retry and not failed:
        raise OutputError(f"{run.path}: nothing has failed that was not asked for again already; look at the list anew")
    kept = run.path / "jobs" / "job.sh"
    if kept.is_file():
        script = read_regular(kept, OutputError).decode("utf-8", "replace")
        command, site = shlex.join(["sbatch", *place_options(run.path.absolute())]), "as before"
    elif runs.in_job:
        raise ConfigError(
            f"this explorer is a job of one core, and what it begins ends with it; give `hpcxrf resume {run.path}` on "
            "the machine where the run was begun"
        )
    else:
        argv = [*_RUNNER, *(["retry", str(run.path), "--failed"] if retry else ["resume", str(run.path)])]
        script, command, site = _show_here(run, argv), shlex.join(argv), HERE
    notes = _describe_retry(run, failed, status.tally.reasons) if retry else ()
    return Prepared(
        run=run,
        run_file=None,
        text="",
        script=script,
        command=command,
        submission=None,
        site=site,
        failed=failed,
        notes=notes,
    )


def _describe_retry(
    run: RunDir, failed: Sequence[tuple[str, str]], reasons: Sequence[tuple[str, int]]
) -> tuple[str, ...]:
    """Sentences on what is tried again, as `hpcxrf retry` does it, with the most frequent reasons of the failures."""
    number = len({dataset for dataset, _ in failed})
    said = f"`hpcxrf retry {shlex.quote(str(run.path))} --failed`: {len(failed)} failed tasks of {number} datasets"
    return (f"{said} are tried again", *(show_lines(f"{n} × {text}") for text, n in reasons[:_SHOWN_REASONS]))


def _show_here(run: RunDir, argv: list[str]) -> str:
    return f"{shlex.join(argv)} \\\n    >> {shlex.quote(str(run.logs / _LOG))} 2>&1 &\n"


def _write_run_file(prepared: Prepared) -> None:
    if prepared.run_file is not None and not prepared.run_file.exists():
        atomic_write_text(prepared.run_file, prepared.text)


def _begin_here(runs: Runs, prepared: Prepared) -> int:
    """Begin a run on this machine, which goes on when the explorer ends; gives the number of its process."""
    run = prepare_folder(prepared.run.path)
    path = run.logs / _LOG
    with path.open("ab") as log:
        process = subprocess.Popen(
            shlex.split(prepared.command),
            cwd=run.path,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    runs.begun.append(Begun(run=run, process=process, log=path))
    return process.pid


def _text(asked: Mapping[str, Any], name: str) -> str:
    value = asked.get(name, "")
    if not isinstance(value, str):
        raise ConfigError(f"{name}: must be a text; reload the page")
    return value


def _number(asked: Mapping[str, Any], name: str) -> int | None:
    value = asked.get(name)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST):
        return value
    raise ConfigError(f"{name}: must be a whole number from 1 to {_MOST}")
