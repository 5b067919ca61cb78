"""The batch script of a run: rendered from values to text, nothing else."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from hpcxrf.cluster.job_files import WORKER_MARK, JobRequest, Mode
from hpcxrf.cluster.slurm import JOB_ID, time_text
from hpcxrf.config.site import SiteProfile
from hpcxrf.errors import ConfigError

JOB_NAME: Final = "hpcxrf"
"""Name of every job: everybody on a cluster reads the names in its queue, and a run's folder may name a sample."""
_LOG: Final = "logs/job-%j.log"
_COMMENT: Final = "--comment="
# The signal comes up to a minute late.
_SIGNAL_MARGIN_S: Final = 60
# An idle worker holds 0.3 GB; a fit of a summed spectrum, or the sums of a scan, need as much again.
_ONE_CORE_MB: Final = 1500
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSize:
    """How much of the cluster a job takes."""

    nodes: int
    """Number of nodes."""
    workers: int
    """Total number of workers."""
    workers_per_node: int
    """Largest number of workers on a node."""


def one_core_site(site: SiteProfile) -> SiteProfile:
    """The profile for a workload whose CPU seconds are compared: no GPU, and as many workers of one core as have room.

    They share the memory that the profile's own workers would have on a node.
    """
    node_mb = site.memory_per_worker_mb * site.workers_on_a_node
    workers = max(1, min(site.cores_per_node, node_mb // _ONE_CORE_MB))
    memory_mb = min(site.memory_per_worker_mb, node_mb // workers)
    return replace(site, gpus_per_node=0, workers_per_node=workers, memory_per_worker_mb=memory_mb)


def job_size(site: SiteProfile, *, workers: int | None, nodes: int | None) -> JobSize:
    """Size of a job from the options of a submission, if any, and from what a node holds.

    Args:
        site: the profile.
        workers: total number; None: as many as the nodes hold.
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
            f"all; request {-(-workers // most)} nodes or fewer workers"
        )
    if workers < nodes:
        raise ConfigError(f"{workers} workers on {nodes} nodes: a node would have none; request fewer nodes")
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
    comment: str = "",
) -> JobRequest:
    """All that the driver needs to know of the site.

    Args:
        site: the profile.
        size: result of `job_size`.
        mode: whether workers are steps of the driver's job, or jobs.
        time_limit_s: time limit of the job; None: that of the profile.
        gpus: whether GPUs of the site are used.
        dashboard: whether the scheduler offers its dashboard.
        insecure: whether scheduler and workers speak plain TCP.
        comment: comment on all jobs of the run (`run_comment`).

    Raises:
        ConfigError: a time limit that leaves no time to work, or a mode that the site's GPUs do not allow.
    """
    limit_s = site.time_limit_s if time_limit_s is None else time_limit_s
    if limit_s < site.drain_s + 2 * _SIGNAL_MARGIN_S:
        raise ConfigError(
            f"a time limit of {limit_s} s: drain_s of site {site.name} ({site.drain_s} s) and "
            f"{2 * _SIGNAL_MARGIN_S} s of margin must fit in it"
        )
    with_gpus = gpus and site.gpus_per_node > 0
    node_gpus = site.gpus_per_node if with_gpus and site.gpus.request == "whole-node" else 0
    if mode == "elastic" and node_gpus > 1:
        raise ConfigError(
            f"--mode elastic: a worker would take a whole node with {node_gpus} GPUs, since site {site.name} has "
            "gpus.request whole-node; use --mode allocation"
        )
    return JobRequest(
        site=site.name,
        mode=mode,
        workers=size.workers,
        threads_per_worker=site.threads_per_worker,
        gpus_per_worker=1 if with_gpus else 0,
        memory_per_worker_mb=site.memory_per_worker_mb,
        interface=site.interface,
        scratch=site.scratch,
        setup=setup_lines(site),
        worker_options=(
            *_place(site, site.partition, limit_s),
            *_comment(site, f"{comment}{WORKER_MARK}" if comment else ""),
            *(["--exclusive"] if node_gpus else []),
        ),
        time_limit_s=limit_s,
        drain_s=site.drain_s,
        requeue=site.requeue,
        dashboard=dashboard,
        insecure=insecure,
        gpu_options=_gpu_options(site, 1) if with_gpus else (),
        node_gpus=node_gpus,
        launcher=site.launcher,
        worker_python=site.worker_python or ("python" if site.launcher else None),
        worker_start_s=site.worker_start_s,
        fail_job_on_failed_dataset=site.fail_job_on_failed_dataset,
        comment=comment,
    )


def setup_lines(site: SiteProfile) -> tuple[str, ...]:
    """Shell lines before Python can run."""
    return (*(f"module load {shlex.quote(name)}" for name in site.modules), *site.setup)


def render(site: SiteProfile, request: JobRequest, size: JobSize, *, run_dir: Path, python: str) -> str:
    """The batch script of a run.

    The folder appears in its last line only, quoted: sbatch takes the working directory and the log's place from
    arguments (`place_options`).

    Args:
        site: the profile.
        request: result of `job_request`.
        size: result of `job_size`.
        run_dir: the run directory, absolute.
        python: interpreter that submits; the site may name another.

    Raises:
        ConfigError: a control character or a backslash in a name.
    """
    words = [*site.driver_launcher, site.interpreter or python, "-m", "hpcxrf.cluster.job", str(run_dir)]
    refuse_folder(run_dir)
    for word in words[:-1]:
        refuse_control_characters(word, "the command of the driver")
    options = [*_run_options(site, request), *_amount(site, request, size), *_where(site, request)]
    return _write_script(site, options, request.setup, words)


def render_one_core(
    site: SiteProfile, *, name: str, comment: str, time_limit_s: int, memory_mb: int, words: Sequence[str]
) -> str:
    """The batch script of a small job beside those of runs: one core, no GPU, told to end before its time.

    Args:
        site: the profile; the job goes where the driver of an elastic run would.
        name: of the job.
        comment: by which it is found.
        time_limit_s: time limit in seconds.
        memory_mb: memory in MiB.
        words: command and arguments.

    Raises:
        ConfigError: a control character in a word.
    """
    for word in words:
        refuse_control_characters(word, "a word of the command")
    options = [
        f"--job-name={name}",
        *_comment(site, comment),
        "--open-mode=append",
        "--no-requeue",
        f"--signal=B:TERM@{_SIGNAL_MARGIN_S}",
        "--nodes=1",
        "--ntasks=1",
        "--cpus-per-task=1",
        f"--mem={memory_mb}M",
        *_place(site, site.driver_partition or site.partition, time_limit_s),
    ]
    return _write_script(site, options, setup_lines(site), words)


def _write_script(site: SiteProfile, options: Sequence[str], setup: Sequence[str], words: Sequence[str]) -> str:
    lines = [
        # Only a login shell knows `module` everywhere.
        "#!/bin/bash -l" if site.modules else "#!/bin/bash",
        *(f"#SBATCH {option}" for option in options),
        "",
        "umask 077",
        "ulimit -c 0",
        *setup,
        # exec: signals reach Python itself; a shell would die of USR1.
        shlex.join(["exec", *words]),
    ]
    return "\n".join(lines) + "\n"


def place_options(run_dir: Path, log: str = _LOG) -> tuple[str, ...]:
    """Options of sbatch: where the job works and logs.

    Slurm expands `%j` and its like in the log's whole path, in a relative one in the folder that it starts from.
    """
    return (f"--chdir={run_dir}", f"--output={str(run_dir).replace('%', '%%')}/{log}")


def after_options(job_id: str | None) -> tuple[str, ...]:
    """Options of sbatch that let a job begin when another has ended, however that ended.

    Raises:
        ConfigError: not a job id.
    """
    if job_id is None:
        return ()
    if not JOB_ID.fullmatch(job_id):
        raise ConfigError(f"--after {job_id!r}: must be the number of a job")
    return (f"--dependency=afterany:{job_id}",)


def refuse_folder(run_dir: Path) -> None:
    """Refuse a run directory in whose name a job could not work.

    Raises:
        ConfigError: a control character or a backslash in it.
    """
    refuse_control_characters(str(run_dir), "the run directory")
    if "\\" in str(run_dir):
        raise ConfigError(f"the run directory {run_dir}: Slurm cannot write a log below a backslash; rename it")


def refuse_control_characters(text: str, what: str) -> None:
    """Refuse line ends and other control characters, which have no place in a script.

    Raises:
        ConfigError: there is one.
    """
    if _CONTROL.search(text):
        raise ConfigError(f"{what} {text!r}: has a control character in it; rename it")


def _run_options(site: SiteProfile, request: JobRequest) -> list[str]:
    signal_s = request.drain_s + _SIGNAL_MARGIN_S
    return [
        f"--job-name={JOB_NAME}",
        *_comment(site, request.comment),
        f"--output={_LOG}",
        "--open-mode=append",
        "--requeue" if request.requeue else "--no-requeue",
        "--no-kill",
        f"--signal=B:USR1@{signal_s}",
    ]


def _comment(site: SiteProfile, mark: str) -> list[str]:
    """One comment of the site's own, if any, and of the run: the last option of a name hides those before it."""
    theirs = [option.removeprefix(_COMMENT) for option in site.options if option.startswith(_COMMENT)]
    comment = ",".join([*theirs, *([mark] if mark else [])])
    return [f"{_COMMENT}{shlex.quote(comment)}"] if comment else []


def _amount(site: SiteProfile, request: JobRequest, size: JobSize) -> list[str]:
    if request.mode == "elastic":
        return ["--nodes=1", "--ntasks=1", "--cpus-per-task=1", f"--mem={site.driver_memory_mb}M"]
    memory_mb = size.workers_per_node * request.memory_per_worker_mb + site.driver_memory_mb
    whole = site.exclusive or request.node_gpus
    return [
        f"--nodes={size.nodes}",
        f"--ntasks={size.workers}",
        f"--ntasks-per-node={size.workers_per_node}",
        f"--cpus-per-task={request.threads_per_worker}",
        *(_gpu_options(site, size.workers_per_node) if request.gpus_per_worker else []),
        *(["--exclusive", "--mem=0"] if whole else [f"--mem={memory_mb}M"]),
    ]


def _gpu_options(site: SiteProfile, number: int) -> tuple[str, ...]:
    """Options for the GPUs of a node, or for the one of a worker; none where nodes are taken whole."""
    form = site.gpus.request
    if form == "whole-node":
        return ()
    if form == "gpus-per-task":
        return (f"--gpus-per-task={site.gpus.amount(1)}",)
    return (
        f"--gres=gpu:{site.gpus.amount(number)}" if form == "gres" else f"--gpus-per-node={site.gpus.amount(number)}",
    )


def _where(site: SiteProfile, request: JobRequest) -> list[str]:
    elastic = request.mode == "elastic" and site.driver_partition is not None
    return _place(site, site.driver_partition if elastic else site.partition, request.time_limit_s)


def _place(site: SiteProfile, partition: str | None, limit_s: int) -> list[str]:
    words = {"partition": partition, "account": site.account, "constraint": site.constraint, "qos": site.qos}
    # Slurm splits an #SBATCH line as a shell would: `a|b` and `(a)` of a constraint need quotes.
    places = [f"--{name}={shlex.quote(value)}" for name, value in words.items() if value is not None]
    others = [option for option in site.options if not option.startswith(_COMMENT)]
    return [f"--time={time_text(limit_s)}", *places, *others]
