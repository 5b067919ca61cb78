"""The programs of Slurm: the one module that starts them.

Answers are read from `squeue -o` and `sinfo -o`: a few columns of one job. `squeue --json` of Slurm 22.05 takes no
notice of `-j` and sends the whole queue, and its fields changed from release to release.
"""

import os
import re
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hpcxrf.errors import ConfigError, SlurmError

_TIMEOUT_S: Final = 30.0
# As many ids as a command line holds on every system.
_JOBS_AT_ONCE: Final = 1000
JOB_ID: Final = re.compile(r"[0-9]+")
# Without these no Slurm is found; all other SLURM_ variables are of the job that this process is part of.
_KEPT: Final = frozenset({"SLURM_CONF", "SLURM_CLUSTERS", "SLURM_CONF_SERVER"})
_SUBMITTED: Final = re.compile(r"Submitted batch job ([0-9]+)( on cluster \S+)?")
_PARSABLE: Final = re.compile(r"([0-9]+)(;\S+)?")
_GPU_GRES: Final = re.compile(r"gpu:(?:([^:,()]+):)?([0-9]+)")
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
"""States of a job that will not go on by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """What Slurm reports about a job."""

    job_id: str
    """Its number."""
    state: str
    """State: `PENDING`, `RUNNING`, `COMPLETED`, `TIMEOUT` ..."""
    reason: str
    """Reason why it pends, or why it ended; `None` where Slurm has none."""
    start: str
    """Time at which it began or is expected to, as Slurm writes it; `N/A`: unknown."""
    nodes: str
    """Names of its nodes; empty while it pends."""
    elapsed: str
    """Time since its start, as Slurm writes it."""
    name: str = ""
    """Name of the job; names of all hpcxrf jobs are equal."""
    comment: str = ""
    """Comment on the job, by which the jobs of a run are found; `(null)`: none."""
    folder: str = ""
    """Working directory of the job."""

    @property
    def ended(self) -> bool:
        """It will not go on by itself."""
        return self.state in ENDED_STATES


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """Nodes of one kind in one partition."""

    name: str
    """Name of the partition."""
    default: bool
    """Whether jobs go there that name no partition."""
    up: bool
    """Whether it takes and starts jobs."""
    time_limit_s: int | None
    """Longest time of a job in seconds; None: unlimited."""
    nodes: int
    """Number of nodes."""
    cores: int
    """Number of cores of a node."""
    memory_mb: int
    """Memory of a node in MB."""
    gpus: int
    """Number of GPUs of a node that are resources of Slurm."""
    gpu_types: tuple[str, ...] = ()
    """Types of these GPUs; empty: Slurm does not tell types apart."""


def clean_environment(base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Make an environment for a command that must not take itself for a part of the job it is called in.

    Inherited SLURM_ variables are about that job (`SLURM_MEM_PER_CPU` makes srun fail beside another memory
    option), SBATCH_ ones go before the options of a script.
    """
    ours = ("SLURM_", "SBATCH_", "SRUN_", "SQUEUE_", "SINFO_", "SCANCEL_")
    return {k: v for k, v in base.items() if k in _KEPT or not k.startswith(ours)}


def submit(script: str, options: Sequence[str]) -> str:
    """Submit a script with sbatch.

    Args:
        script: its text, which goes through standard input: no shell reads a file's name.
        options: options of sbatch, which go before those of the script.

    Returns:
        The job's id.

    Raises:
        SlurmError: refused, with the message of sbatch, or Slurm does not answer.
    """
    output = _run_checked(["sbatch", "--parsable", *options], stdin=script).stdout
    job_id = find_job_id(output)
    if job_id is None:
        raise SlurmError(f"sbatch: printed {output.strip()!r}, which has no line with a job id; look at `squeue --me`")
    return job_id


def find_job_id(output: str) -> str | None:
    """Id of a job in what sbatch printed, wherever its line stands: wrappers of a site print lines of their own.

    Args:
        output: lines, of which one is `ID`, `ID;CLUSTER` (`--parsable`) or `Submitted batch job ID`.

    Returns:
        The id; None: no line has one, or lines of one kind have several.
    """
    for pattern in (_SUBMITTED, _PARSABLE):
        ids = {found[1] for line in output.splitlines() if (found := pattern.fullmatch(line.strip()))}
        if ids:
            return ids.pop() if len(ids) == 1 else None
    return None


def try_submission(script: str, options: Sequence[str]) -> str:
    """Find out when and where sbatch would start a script; nothing is submitted.

    Raises:
        SlurmError: refused, with the message of sbatch, or Slurm does not answer.
    """
    done = _run_checked(["sbatch", "--test-only", *options], stdin=script)
    return done.stderr.strip().removeprefix("sbatch: ")


def job_state(job_id: str) -> JobState | None:
    """A job as the controller knows it; None: it does not know the id, which says nothing of how it ended.

    Raises:
        SlurmError: Slurm does not answer.
    """
    return job_states([job_id]).get(job_id)


def job_states(job_ids: Collection[str]) -> dict[str, JobState]:
    """Jobs as the controller knows them, by one call of squeue for all of them.

    Args:
        job_ids: ids of jobs of this user (of anybody's for root, or where it is only one).

    Returns:
        State by id; an id that Slurm does not know is left out, which says nothing of how that job ended.

    Raises:
        SlurmError: Slurm does not answer.
    """
    if not job_ids:
        return {}
    # Without the user squeue fetches the whole queue of the cluster where several ids are given.
    mine = [f"--user={os.geteuid()}"] if len(job_ids) > 1 and os.geteuid() else []
    return {
        state.job_id: state for state in _list_jobs([f"--jobs={','.join(job_ids)}", *mine]) if state.job_id in job_ids
    }


def own_jobs() -> list[JobState]:
    """All jobs of this user that the controller knows, ended ones included.

    Raises:
        SlurmError: Slurm does not answer.
    """
    return _list_jobs([f"--user={os.geteuid()}"])


def _list_jobs(selection: Sequence[str]) -> list[JobState]:
    # Whatever a folder's name holds is in the last column.
    columns = "%i|%T|%r|%S|%N|%M|%j|%k|%Z"
    done = _run(["squeue", "--noheader", "--states=all", *selection, f"--format={columns}"])
    if done.returncode != 0:
        if any(text in done.stderr.lower() for text in _UNKNOWN_JOB):
            return []
        raise _describe_refusal(["squeue"], done)
    rows = [line.strip().split("|", maxsplit=8) for line in done.stdout.splitlines()]
    names = ("job_id", "state", "reason", "start", "nodes", "elapsed", "name", "comment", "folder")
    return [JobState(**dict(zip(names, row, strict=True))) for row in rows if len(row) == len(names)]


def job_ended(job_id: str) -> bool | None:
    """Whether a job will not go on by itself; None: Slurm does not know it, or does not answer."""
    try:
        state = job_state(job_id)
    except SlurmError:
        return None
    return None if state is None else state.ended


def cancel_jobs(job_ids: Sequence[str]) -> None:
    """End jobs, pending or running; ids that Slurm does not know are passed over.

    Raises:
        SlurmError: refused, or Slurm does not answer.
    """
    for start in range(0, len(job_ids), _JOBS_AT_ONCE):
        argv = ["scancel", *job_ids[start : start + _JOBS_AT_ONCE]]
        done = _run(argv)
        if done.returncode != 0 and not any(text in done.stderr.lower() for text in _UNKNOWN_JOB):
            raise _describe_refusal(argv, done)


def cancel(job_id: str) -> bool:
    """End a job, pending or running; False: Slurm does not know it (any more).

    Raises:
        SlurmError: refused, or Slurm does not answer.
    """
    done = _run(["scancel", job_id])
    # It complains about an id that it does not know, and yet ends with 0.
    if any(text in done.stderr.lower() for text in _UNKNOWN_JOB):
        return False
    if done.returncode != 0:
        raise _describe_refusal(["scancel", job_id], done)
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
    raise _describe_refusal(["scontrol", "requeue", job_id], done)


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
        raise _describe_refusal(["scontrol", "show", "job", job_id], done)
    fields: dict[str, str] = {}
    for key, value in re.findall(r"(?:^|\s)([A-Za-z:/]+)=(\S*)", done.stdout):
        fields.setdefault(key, value)
    return fields


def ask_in_job(job_id: str, node: str, port: int) -> bool:
    """Find out by a step of a job whether a program listens on a port of the loopback of its node.

    Raises:
        SlurmError: the step cannot be started.
    """
    # bash opens the port: Python of a login node may not be there. Nothing secret goes through.
    look = f"exec 3<>/dev/tcp/127.0.0.1/{port} && echo listens || echo silent"
    beside = ["--overlap", "--gpus=0", "--gres=none", "--nodes=1", "--ntasks=1", "--mem=0"]
    argv = ["srun", f"--jobid={job_id}", *beside, f"--nodelist={node}", "bash", "-c", look]
    return "listens" in _run_checked(argv).stdout


def node_is_lost(node: str) -> bool:
    """Whether Slurm has marked a node as down, or has lost contact with it.

    Raises:
        SlurmError: Slurm does not answer.
    """
    states = _run_checked(["sinfo", "--noheader", f"--nodes={node}", "--format=%T"]).stdout.split()
    return any(state.endswith("*") or state.startswith(("down", "fail")) for state in states)


def node_names(node_list: str) -> list[str]:
    """Names of nodes that Slurm writes in short, `gpu[1-3,7]`, as it does in SLURM_JOB_NODELIST.

    Raises:
        SlurmError: the list cannot be read.
    """
    return _run_checked(["scontrol", "show", "hostnames", node_list]).stdout.split()


def partitions() -> list[Partition]:
    """List the partitions that `sinfo` shows, one entry for every kind of node in every partition.

    Raises:
        SlurmError: Slurm does not answer, or with lines that cannot be read.
    """
    columns = "%P|%a|%l|%D|%c|%m|%G"
    output = _run_checked(["sinfo", "--noheader", "--exact", f"--format={columns}"]).stdout
    return [_parse_partition(line) for line in output.splitlines() if line.strip()]


def _parse_partition(line: str) -> Partition:
    try:
        name, up, limit, nodes, cores, memory, gres = line.strip().split("|")
        gpus = _GPU_GRES.findall(gres)
        return Partition(
            name=name.removesuffix("*"),
            default=name.endswith("*"),
            up=up == "up",
            time_limit_s=None if limit == "infinite" else seconds_of(limit),
            nodes=int(nodes),
            cores=int(cores),
            memory_mb=int(memory),
            gpus=sum(int(number) for _, number in gpus),
            gpu_types=tuple(dict.fromkeys(kind for kind, _ in gpus if kind)),
        )
    except (ValueError, ConfigError) as error:
        raise SlurmError(f"sinfo: printed {line!r}, which cannot be read ({error})") from error


def seconds_of(text: str) -> int:
    """Seconds of a time as Slurm writes it: `90` (minutes), `30:00`, `12:00:00`, `2-00`, `1-12:00:00`.

    Raises:
        ConfigError: another form.
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
    """A time in seconds as sbatch takes it: `HH:MM:SS`."""
    minutes, rest = divmod(seconds, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest:02}"


def _run_checked(argv: Sequence[str], *, stdin: str = "") -> subprocess.CompletedProcess[str]:
    done = _run(argv, stdin=stdin)
    if done.returncode != 0:
        raise _describe_refusal(argv, done)
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


def _describe_refusal(argv: Sequence[str], done: subprocess.CompletedProcess[str]) -> SlurmError:
    message = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
    return SlurmError(f"{' '.join(argv[:2])}: {message}")
