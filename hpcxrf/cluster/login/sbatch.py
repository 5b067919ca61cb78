"""The batch script of a run: rendered from values to text, nothing else."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcxrf.cluster.job_files import JobRequest, Mode
from hpcxrf.cluster.slurm import JOB_ID, time_text
from hpcxrf.config.site import SiteProfile
from hpcxrf.errors import ConfigError

JOB_NAME: Final = "hpcxrf"
"""Of every job: everybody on a cluster reads the names in its queue, and a run's folder may name a sample."""
_LOG: Final = "logs/job-%j.log"
# The signal comes up to a minute late.
_SIGNAL_MARGIN_S: Final = 60
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSize:
    """How much of the cluster a job takes."""

    nodes: int
    workers: int
    """In all."""
    workers_per_node: int


def job_size(site: SiteProfile, *, workers: int | None, nodes: int | None) -> JobSize:
    """From what was asked for, if anything, and what a node holds.

    Args:
        site: the profile.
        workers: in all; None: as many as the nodes hold.
        nodes: None: as many as the workers need, else those of the profile.

    Raises:
        ConfigError: more workers than the nodes hold, with both numbers.
    """
    most = site.workers_on_a_node
    if nodes is None:
        nodes = site.nodes if workers is None else -(-workers // most)
    if workers is None:
        workers = nodes * most
    if workers > nodes * most:
        raise ConfigError(
            f"{workers} workers on {nodes} nodes: site {site.name} has room for {most} on a node, {nodes * most} in "
            f"all; ask for {-(-workers // most)} nodes or fewer workers"
        )
    if workers < nodes:
        raise ConfigError(f"{workers} workers on {nodes} nodes: a node would have none; ask for fewer nodes")
    return JobSize(nodes=nodes, workers=workers, workers_per_node=-(-workers // nodes))


def job_request(
    site: SiteProfile,
    size: JobSize,
    *,
    mode: Mode,
    time_limit_s: int | None = None,
    gpus: bool = True,
    dashboard: bool = True,
    insecure: bool = False,
) -> JobRequest:
    """What the driver needs to know of the site.

    Raises:
        ConfigError: a time limit that leaves no time to work.
    """
    limit_s = site.time_limit_s if time_limit_s is None else time_limit_s
    if limit_s < site.drain_s + 2 * _SIGNAL_MARGIN_S:
        raise ConfigError(
            f"a time limit of {limit_s} s: drain_s of site {site.name} ({site.drain_s} s) and "
            f"{2 * _SIGNAL_MARGIN_S} s of margin must fit in it"
        )
    return JobRequest(
        site=site.name,
        mode=mode,
        workers=size.workers,
        threads_per_worker=site.threads_per_worker,
        gpus_per_worker=1 if gpus and site.gpus_per_node else 0,
        memory_per_worker_mb=site.memory_per_worker_mb,
        interface=site.interface,
        scratch=site.scratch,
        setup=setup_lines(site),
        worker_options=tuple(_place(site, site.partition, limit_s)),
        time_limit_s=limit_s,
        drain_s=site.drain_s,
        requeue=site.requeue,
        dashboard=dashboard,
        insecure=insecure,
    )


def setup_lines(site: SiteProfile) -> tuple[str, ...]:
    """Shell lines before Python can run."""
    return (*(f"module load {shlex.quote(name)}" for name in site.modules), *site.setup)


def render(site: SiteProfile, request: JobRequest, size: JobSize, *, run_dir: Path, python: str) -> str:
    """The batch script of a run.

    The folder appears in its last line only, quoted: sbatch is told the working directory and the log's place by
    arguments (`place_options`).

    Args:
        site: the profile.
        request: of `job_request`.
        size: of `job_size`.
        run_dir: absolute.
        python: interpreter that submits; the site may name another.

    Raises:
        ConfigError: a control character or a backslash in a name.
    """
    interpreter = site.interpreter or python
    refuse_control_characters(str(run_dir), "the run directory")
    if "\\" in str(run_dir):
        raise ConfigError(f"the run directory {run_dir}: Slurm cannot write a log below a backslash; rename it")
    refuse_control_characters(interpreter, "the interpreter")
    options = [*_fixed(request), *_amount(site, request, size), *_where(site, request)]
    words = ["exec", interpreter, "-m", "hpcxrf.cluster.job", str(run_dir)]
    lines = [
        # Only a login shell knows `module` everywhere.
        "#!/bin/bash -l" if site.modules else "#!/bin/bash",
        *(f"#SBATCH {option}" for option in options),
        "",
        "umask 077",
        "ulimit -c 0",
        *request.setup,
        # exec: signals reach Python itself; a shell would die of USR1.
        shlex.join(words),
    ]
    return "\n".join(lines) + "\n"


def place_options(run_dir: Path) -> tuple[str, ...]:
    """Options of sbatch: where the job works and logs.

    Slurm expands `%j` and its like in the log's whole path, in a relative one in the folder that it starts from.
    """
    return (f"--chdir={run_dir}", f"--output={str(run_dir).replace('%', '%%')}/{_LOG}")


def after_options(job_id: str | None) -> tuple[str, ...]:
    """Options of sbatch that let a job begin when another has ended, however that ended.

    Raises:
        ConfigError: no job id.
    """
    if job_id is None:
        return ()
    if not JOB_ID.fullmatch(job_id):
        raise ConfigError(f"--after {job_id!r}: must be the number of a job")
    return (f"--dependency=afterany:{job_id}",)


def refuse_control_characters(text: str, what: str) -> None:
    """Line ends and other control characters have no place in a script.

    Raises:
        ConfigError: there is one.
    """
    if _CONTROL.search(text):
        raise ConfigError(f"{what} {text!r}: has a control character in it; rename it")


def _fixed(request: JobRequest) -> list[str]:
    signal_s = request.drain_s + _SIGNAL_MARGIN_S
    return [
        f"--job-name={JOB_NAME}",
        f"--output={_LOG}",
        "--open-mode=append",
        "--requeue" if request.requeue else "--no-requeue",
        "--no-kill",
        f"--signal=B:USR1@{signal_s}",
    ]


def _amount(site: SiteProfile, request: JobRequest, size: JobSize) -> list[str]:
    if request.mode == "elastic":
        return ["--nodes=1", "--ntasks=1", "--cpus-per-task=1", f"--mem={site.driver_memory_mb}M"]
    memory_mb = size.workers_per_node * request.memory_per_worker_mb + site.driver_memory_mb
    return [
        f"--nodes={size.nodes}",
        f"--ntasks={size.workers}",
        f"--ntasks-per-node={size.workers_per_node}",
        f"--cpus-per-task={request.threads_per_worker}",
        # Not --gpus-per-node: steps would inherit it and take all GPUs of a node, one step after the other.
        *(["--gpus-per-task=1"] if request.gpus_per_worker else []),
        *(["--exclusive", "--mem=0"] if site.exclusive else [f"--mem={memory_mb}M"]),
    ]


def _where(site: SiteProfile, request: JobRequest) -> list[str]:
    elastic = request.mode == "elastic" and site.driver_partition is not None
    partition = site.driver_partition if elastic else site.partition
    return _place(site, partition, request.time_limit_s)


def _place(site: SiteProfile, partition: str | None, limit_s: int) -> list[str]:
    named = {"partition": partition, "account": site.account, "constraint": site.constraint, "qos": site.qos}
    given = [f"--{name}={_word(value)}" for name, value in named.items() if value is not None]
    return [f"--time={time_text(limit_s)}", *given, *site.options]


def _word(value: str) -> str:
    """Slurm splits an #SBATCH line as a shell would: `a|b` and `(a)` of a constraint need quotes."""
    return shlex.quote(value)
