"""The explorer of a run as a job of one core: its script, its place in the queue, and where it listens.

Its jobs are none of the run's: they have a name and a comment of their own, by which they are found, so that neither
`hpcxrf status` nor `hpcxrf cancel` takes one for the work on the run.
"""

import shlex
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from hpcxrf.cluster import slurm
from hpcxrf.cluster.explorer_address import ExplorerAddress, read_address, remove_stale_addresses
from hpcxrf.cluster.job_files import read_request, run_comment, was_submitted
from hpcxrf.cluster.login.checks import partition_faults
from hpcxrf.cluster.login.logs import tail
from hpcxrf.cluster.login.sbatch import job_request, job_size, place_options, refuse_folder, render_one_core
from hpcxrf.cluster.login.sites import find_site
from hpcxrf.cluster.login.status import AskSlurm, ask_seldom, describe_job
from hpcxrf.cluster.login.tunnel import ssh_to_socket
from hpcxrf.cluster.security import private_folder
from hpcxrf.cluster.slurm import JobState
from hpcxrf.config.site import SiteProfile
from hpcxrf.config.untrusted import show_lines
from hpcxrf.errors import ConfigError, OutputError, SlurmError
from hpcxrf.store.rundir import RunDir, open_run, require_own_folder

JOB_NAME: Final = "hpcxrf-explore"
MEMORY_MB: Final = 2000
"""Half a GB with a scan of 1e6 pixels open, as much for the process that fits, and room for pages of files."""
_MARK: Final = "hpcxrf-explore:"
_FOLDER: Final = "explore"
_LOG: Final = f"{_FOLDER}/job-%j.log"
_SHORTEST_S: Final = 180
_ASK_SLURM_S: Final = 5.0
_LOOK_S: Final = 0.5
_SHOWN_LINES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplorerJob:
    """A checked job, of which nothing is written yet."""

    run: RunDir
    site: SiteProfile
    script: str
    options: tuple[str, ...]
    """Options of sbatch."""
    time_limit_s: int

    @property
    def command(self) -> str:
        """The command that takes the script."""
        return shlex.join(["sbatch", *self.options])


def choose_site(run: RunDir, name: str | None) -> SiteProfile:
    """Find the profile that is named, or the one that the run was submitted with.

    Raises:
        ConfigError: none is named and the run was never submitted, or there is no such profile.
        OutputError: the request of the run is damaged.
    """
    if name is not None:
        return find_site(name)
    if not was_submitted(run):
        raise ConfigError(f"{run.path}: was never submitted; name a profile with --site (`hpcxrf site list`)")
    return find_site(read_request(run).site)


def prepare_explorer_job(
    folder: Path, site_name: str | None, arguments: Sequence[str], time_limit_s: int | None
) -> ExplorerJob:
    """Check the job of an explorer and render its script; nothing is written.

    Args:
        folder: the run directory.
        site_name: name or file of a site profile; None: that of the run.
        arguments: of `hpcxrf.explore.job` after the run directory.
        time_limit_s: time limit of the job in seconds; None: that of the profile.

    Raises:
        ConfigError: no profile, or less time than the explorer needs to end by itself.
        OutputError: no run of this user there.
    """
    run = open_run(folder.absolute())
    require_own_folder(run.path)
    site = choose_site(run, site_name)
    limit_s = site.time_limit_s if time_limit_s is None else time_limit_s
    if limit_s < _SHORTEST_S:
        raise ConfigError(
            f"a time limit of {limit_s} s: the explorer is told to end a minute or two before it; give {_SHORTEST_S} s "
            "or more"
        )
    refuse_folder(run.path)
    scratch = () if site.scratch is None else ("--scratch", site.scratch)
    module = [site.interpreter or sys.executable, "-P", "-m", "hpcxrf.explore.job"]
    return ExplorerJob(
        run=run,
        site=site,
        script=render_one_core(
            site,
            name=JOB_NAME,
            comment=_mark_of(run),
            time_limit_s=limit_s,
            memory_mb=MEMORY_MB,
            words=[*site.driver_launcher, *module, str(run.path), *arguments, *scratch],
        ),
        options=place_options(run.path, _LOG),
        time_limit_s=limit_s,
    )


def find_explorer_job(run: RunDir) -> JobState | None:
    """Find the job of this user that explores a run, or will; None: there is none.

    Raises:
        SlurmError: Slurm does not answer.
    """
    mine = [job for job in slurm.own_jobs() if _mark_of(run) in job.comment.split(",") and not job.ended]
    return mine[-1] if mine else None


def submit_explorer_job(job: ExplorerJob) -> str:
    """Submit the explorer of a run, and remove what killed ones left; returns the job's id.

    Raises:
        ConfigError: the partition has less than is requested.
        OutputError: the run directory cannot be written.
        SlurmError: refused, or no answer.
    """
    faults = _list_faults(job)
    if faults:
        raise ConfigError(
            f"site {job.site.name}: such a job would never start:\n" + "\n".join(f"  {one}" for one in faults)
        )
    private_folder(job.run.path / _FOLDER)
    remove_stale_addresses(job.run, ())
    return slurm.submit(job.script, job.options)


def find_log(run: RunDir, job_id: str) -> Path:
    """The log of a job."""
    return run.path / _LOG.replace("%j", job_id)


def write_tunnel(address: ExplorerAddress, site: SiteProfile, port: int) -> str:
    """Command that leads from the user's own machine to the socket of a job.

    Args:
        address: where it listens.
        site: profile with the name of the login node; without one it is that of this host.
        port: at the near end.
    """
    return ssh_to_socket(site.login_host or socket.getfqdn(), address.host, address.socket, port)


def wait_for_address(
    run: RunDir, job_id: str, *, patience_s: float, tell: Callable[[str], None], ask: AskSlurm | None = None
) -> ExplorerAddress | None:
    """Wait until a job says where it listens.

    Args:
        run: the run directory.
        job_id: of the job.
        patience_s: how long, s.
        tell: called with a sentence whenever there is something else to say of the job.
        ask: `slurm.job_state`, asked seldom.

    Returns:
        None: it does not yet.

    Raises:
        OutputError: the job ended, with the end of its log.
    """
    ask = ask or ask_seldom(slurm.job_state, _ASK_SLURM_S)
    ends, told = time.monotonic() + patience_s, ""
    while True:
        state, sentence = _look(job_id, ask)
        if state is not None and state.ended:
            raise OutputError(_explain_end(run, job_id, state))
        address = read_address(run, job_id)
        if address is not None:
            return address
        if sentence != told:
            told = sentence
            tell(sentence)
        if time.monotonic() > ends:
            return None
        time.sleep(_LOOK_S)


def _look(job_id: str, ask: AskSlurm) -> tuple[JobState | None, str]:
    """State of a job, and a sentence on it."""
    try:
        state = ask(job_id)
    except SlurmError as error:
        return None, f"Slurm does not answer about job {job_id} now ({error})"
    if state is None:
        return None, f"Slurm has no record of job {job_id} (any more)"
    if state.state == "PENDING":
        return state, describe_job(state)
    return state, f"job {job_id} is {state.state} on {state.nodes or 'its node'}: the explorer starts"


def _explain_end(run: RunDir, job_id: str, state: JobState) -> str:
    why = "" if state.reason in {"None", ""} else f" ({state.reason})"
    log = find_log(run, job_id)
    try:
        said = show_lines(tail(log, _SHOWN_LINES)).rstrip()
    except OSError:
        said = ""
    shown = f":\n{said}" if said else " has nothing"
    return f"job {job_id} ended before anybody could look: {state.state}{why}; submit it again. Its log {log}{shown}"


def _mark_of(run: RunDir) -> str:
    return _MARK + run_comment(run.path).rpartition(":")[2]


def _list_faults(job: ExplorerJob) -> list[str]:
    """What the partition cannot give, by the rules of a run with one worker of one core."""
    site = replace(
        job.site,
        partition=job.site.driver_partition or job.site.partition,
        cores_per_node=1,
        gpus_per_node=0,
        workers_per_node=1,
        memory_per_worker_mb=MEMORY_MB,
        drain_s=1,
    )
    size = job_size(site, workers=1, nodes=1)
    request = job_request(site, size, mode="elastic", time_limit_s=job.time_limit_s, gpus=False)
    return partition_faults(site, request, size, slurm.partitions())
