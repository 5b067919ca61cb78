"""The programs of Slurm: the one module that starts them.

Answers are read from `squeue -o` and `sinfo -o`: a few columns of one job. `squeue --json` of Slurm 22.05 takes no
notice of `-j` and sends the whole queue, and its fields changed from release to release.
"""

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hpcxrf.errors import ConfigError, SlurmError

_TIMEOUT_S: Final = 30.0
JOB_ID: Final = re.compile(r"[0-9]+")
# Without these no Slurm is found; all other SLURM_ variables are of the job that this process is part of.
_KEPT: Final = frozenset({"SLURM_CONF", "SLURM_CLUSTERS", "SLURM_CONF_SERVER"})
_UNKNOWN_JOB: Final = ("invalid job id", "invalid_job_id")
_NO_REQUEUE: Final = ("disabled", "not permitted", "permission denied")

ENDED_STATES: Final = frozenset(
    {
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    }
)
"""Of a job that will not go on by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """What Slurm says of a job."""

    job_id: str
    state: str
    """`PENDING`, `RUNNING`, `COMPLETED`, `TIMEOUT` ..."""
    reason: str
    """Why it pends, or why it ended; `None` where there is nothing to say."""
    start: str
    """Time at which it began or is expected to, as Slurm writes it; `N/A`: unknown."""
    nodes: str
    elapsed: str

    @property
    def ended(self) -> bool:
        """It will not go on by itself."""
        return self.state in ENDED_STATES


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """Nodes of one kind in one partition."""

    name: str
    default: bool
    up: bool
    time_limit_s: int | None
    """None: unlimited."""
    nodes: int
    cores: int
    memory_mb: int
    gpus: int


def clean_environment(base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Environment for a command that must not take itself for a part of the job it is called in.

    Inherited SLURM_ variables speak of that job (`SLURM_MEM_PER_CPU` makes srun fail beside another memory
    option), SBATCH_ ones go before the options of a script.
    """
    ours = ("SLURM_", "SBATCH_", "SRUN_", "SQUEUE_", "SINFO_", "SCANCEL_")
    return {k: v for k, v in base.items() if k in _KEPT or not k.startswith(ours)}


def submit(script: str, options: Sequence[str]) -> str:
    """Give a script to sbatch.

    Args:
        script: its text, through standard input: no name of a file is read by any shell.
        options: of sbatch, over those of the script.

    Returns:
        The job's id.

    Raises:
        SlurmError: refused, with what sbatch said, or Slurm does not answer.
    """
    said = _asked(["sbatch", "--parsable", *options], stdin=script).stdout.strip()
    job_id = said.splitlines()[-1].split(";")[0] if said else ""
    if not JOB_ID.fullmatch(job_id):
        raise SlurmError(f"sbatch: answered {said!r}, must be a job id; look at `squeue --me`")
    return job_id


def try_submission(script: str, options: Sequence[str]) -> str:
    """What sbatch would do with a script: when and where it would start; nothing is submitted.

    Raises:
        SlurmError: refused, with what sbatch said, or Slurm does not answer.
    """
    done = _asked(["sbatch", "--test-only", *options], stdin=script)
    return done.stderr.strip().removeprefix("sbatch: ")


def job_state(job_id: str) -> JobState | None:
    """A job as the controller knows it; None: it does not know the id, which says nothing of how it ended.

    Raises:
        SlurmError: Slurm does not answer.
    """
    columns = "%i|%T|%r|%S|%N|%M"
    done = _run(["squeue", "--noheader", "--states=all", f"--jobs={job_id}", f"--format={columns}"])
    if done.returncode != 0:
        if any(text in done.stderr.lower() for text in _UNKNOWN_JOB):
            return None
        raise _refused(["squeue"], done)
    for line in done.stdout.splitlines():
        fields = line.strip().split("|")
        if len(fields) == 6 and fields[0] == job_id:
            names = ("job_id", "state", "reason", "start", "nodes", "elapsed")
            return JobState(**dict(zip(names, fields, strict=True)))
    return None


def job_ended(job_id: str) -> bool | None:
    """Whether a job will not go on by itself; None: Slurm does not know it, or does not answer."""
    try:
        state = job_state(job_id)
    except SlurmError:
        return None
    return None if state is None else state.ended


def cancel(job_id: str) -> bool:
    """End a job, pending or running; False: Slurm does not know it (any more).

    Raises:
        SlurmError: refused, or Slurm does not answer.
    """
    done = _run(["scancel", job_id])
    # Of an id that it does not know it complains, and yet ends with 0.
    if any(text in done.stderr.lower() for text in _UNKNOWN_JOB):
        return False
    if done.returncode != 0:
        raise _refused(["scancel", job_id], done)
    return True


def requeue(job_id: str) -> bool:
    """Ask for a job to be run again after this time; False: Slurm does not allow it.

    The job gets TERM at once, and the caller, if it runs in the job, as well.

    Raises:
        SlurmError: Slurm does not answer.
    """
    done = _run(["scontrol", "requeue", job_id])
    if done.returncode == 0:
        return True
    if any(text in done.stderr.lower() for text in _NO_REQUEUE):
        return False
    raise _refused(["scontrol", "requeue", job_id], done)


def job_record(job_id: str) -> dict[str, str] | None:
    """Fields of `scontrol show job`: JobState, Reason, Restarts, ExitCode ...; None: unknown id.

    Of a field whose value may hold anything (a folder) nothing is to be believed.

    Raises:
        SlurmError: Slurm does not answer.
    """
    done = _run(["scontrol", "--oneliner", "show", "job", job_id])
    if done.returncode != 0:
        if any(text in done.stderr.lower() for text in _UNKNOWN_JOB):
            return None
        raise _refused(["scontrol", "show", "job", job_id], done)
    fields: dict[str, str] = {}
    for key, value in re.findall(r"(?:^|\s)([A-Za-z:/]+)=(\S*)", done.stdout):
        fields.setdefault(key, value)
    return fields


def ask_in_job(job_id: str, node: str, port: int) -> bool:
    """Whether somebody listens on a port of the loopback of a job's node, by a step beside those that run.

    Raises:
        SlurmError: the step cannot be started.
    """
    # bash opens the port: Python of a login node may not be there. Nothing secret goes through.
    look = f"exec 3<>/dev/tcp/127.0.0.1/{port} && echo listens || echo silent"
    beside = ["--overlap", "--gpus=0", "--gres=none", "--nodes=1", "--ntasks=1", "--mem=0"]
    argv = ["srun", f"--jobid={job_id}", *beside, f"--nodelist={node}", "bash", "-c", look]
    return "listens" in _asked(argv).stdout


def node_is_lost(node: str) -> bool:
    """Whether Slurm holds a node for down or hears nothing of it.

    Raises:
        SlurmError: Slurm does not answer.
    """
    states = _asked(["sinfo", "--noheader", f"--nodes={node}", "--format=%T"]).stdout.split()
    return any(state.endswith("*") or state.startswith(("down", "fail")) for state in states)


def partitions() -> list[Partition]:
    """What `sinfo` says, a line for every kind of node in every partition.

    Raises:
        SlurmError: Slurm does not answer, or with lines that cannot be read.
    """
    columns = "%P|%a|%l|%D|%c|%m|%G"
    said = _asked(["sinfo", "--noheader", "--exact", f"--format={columns}"]).stdout
    return [_partition(line) for line in said.splitlines() if line.strip()]


def _partition(line: str) -> Partition:
    try:
        name, up, limit, nodes, cores, memory, gres = line.strip().split("|")
        return Partition(
            name=name.removesuffix("*"),
            default=name.endswith("*"),
            up=up == "up",
            time_limit_s=None if limit == "infinite" else seconds_of(limit),
            nodes=int(nodes),
            cores=int(cores),
            memory_mb=int(memory),
            gpus=sum(int(n) for n in re.findall(r"gpu:(?:[^:,()]+:)?([0-9]+)", gres)),
        )
    except (ValueError, ConfigError) as error:
        raise SlurmError(f"sinfo: answered {line!r}, which cannot be read ({error})") from error


def seconds_of(text: str) -> int:
    """A time as Slurm writes it: `90` (minutes), `30:00`, `12:00:00`, `2-00`, `1-12:00:00`.

    Raises:
        ConfigError: none of these.
    """
    days, _, rest = text.strip().rpartition("-")
    parts = rest.split(":")
    if not re.fullmatch(r"([0-9]+-)?[0-9]+(:[0-9]{1,2}){0,2}", text.strip()):
        raise ConfigError(f"time {text!r}: must be minutes, or [days-]hours:minutes[:seconds] as Slurm takes them")
    numbers = [int(part) for part in parts]
    if days:
        hours, minutes, seconds = (*numbers, 0, 0)[:3]
        return ((int(days) * 24 + hours) * 60 + minutes) * 60 + seconds
    hours, minutes, seconds = (0, *numbers, 0)[:3] if len(numbers) < 3 else numbers
    return (hours * 60 + minutes) * 60 + seconds


def time_text(seconds: int) -> str:
    """`HH:MM:SS`, as sbatch takes it."""
    minutes, rest = divmod(seconds, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest:02}"


def _asked(argv: Sequence[str], *, stdin: str = "") -> subprocess.CompletedProcess[str]:
    done = _run(argv, stdin=stdin)
    if done.returncode != 0:
        raise _refused(argv, done)
    return done


def _run(argv: Sequence[str], *, stdin: str = "") -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_TIMEOUT_S,
            env=clean_environment(),
        )
    except FileNotFoundError as error:
        raise SlurmError(
            f"{argv[0]}: not found; submit from a login node of the cluster, or run here with `hpcxrf run`"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SlurmError(
            f"{argv[0]}: no answer in {_TIMEOUT_S:.0f} s; Slurm's controller is busy or down, try again later"
        ) from error


def _refused(argv: Sequence[str], done: subprocess.CompletedProcess[str]) -> SlurmError:
    said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
    return SlurmError(f"{' '.join(argv[:2])}: {said}")
