"""Site profiles: what a cluster is like and how jobs are requested there, checked at once and whole.

Field docstrings are the reference of a profile; `slurm/*.yaml` are commented examples.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from hpcxrf.config.scalers import ScalerConfig
from hpcxrf.config.untrusted import read_yaml, report_faults
from hpcxrf.errors import ConfigError

_CHECKED: Final = ConfigDict(extra="forbid", allow_inf_nan=False)
_MAX_CPU_WORKERS: Final = 16
# A batch script may run for a minute after the signal, which comes early or late by as much.
_SHORTEST_LIMIT_S: Final = 120
# What Slurm, a shell and an #SBATCH line all take for one plain word.
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.,:@/+=&|*()\[\]-]*")
_OPTION: Final = re.compile(r"--[a-z][a-z-]*(=[A-Za-z0-9_.,:@/+=&|*()\[\]%-]+)?")
# Options that hpcxrf sets itself; a second value would be a contradiction that nobody sees.
_OWN_OPTIONS: Final = frozenset(
    {
        "--job-name",
        "--output",
        "--error",
        "--open-mode",
        "--requeue",
        "--no-requeue",
        "--signal",
        "--no-kill",
        "--nodes",
        "--ntasks",
        "--ntasks-per-node",
        "--cpus-per-task",
        "--mem",
        "--time",
        "--gpus-per-task",
        "--gpus-per-node",
        "--gpus",
        "--partition",
        "--account",
        "--constraint",
        "--qos",
        "--dependency",
        "--export",
        "--chdir",
        "--array",
        "--wrap",
        "--parsable",
        "--wait",
        "--exclusive",
    }
)

GpuForm = Literal["gpus-per-task", "gres", "gpus-per-node", "whole-node"]
Positive = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuRequest:
    """How GPUs are requested on a cluster."""

    __pydantic_config__: ClassVar[ConfigDict] = _CHECKED

    type: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] | None = None
    """Type of the GPUs as `sinfo -o %G` shows it, `a100`; None: any."""
    request: GpuForm = "gpus-per-task"
    """Form of the request. `gpus-per-task`, `gres` and `gpus-per-node` are the options of sbatch of that name.
    `whole-node`: GPUs are not resources of this Slurm; nodes are taken whole, and each worker takes one GPU of its
    node's own list."""

    def amount(self, number: int) -> str:
        """Number of GPUs with their type, as Slurm writes it: `a100:4`."""
        return f"{number}" if self.type is None else f"{self.type}:{number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteProfile:
    """A cluster, or one partition of it."""

    __pydantic_config__: ClassVar[ConfigDict] = _CHECKED

    name: str = ""
    """Name of the profile, which is that of its file."""
    description: str = ""
    """Sentence that `hpcxrf site list` shows."""
    partition: str | None = None
    """Partition of the jobs; None: SBATCH_PARTITION where it is set, else the cluster's default."""
    driver_partition: str | None = None
    """Partition of small jobs of one core, the driver's in elastic mode and an explorer's; None: the same as
    `partition`."""
    account: str | None = None
    """Account that is charged; None: SBATCH_ACCOUNT where it is set, else the user's default."""
    constraint: str | None = None
    """Features that the nodes must have, as `--constraint` of sbatch takes them."""
    qos: str | None = None
    """Quality of service of the jobs."""
    nodes: Positive = 1
    """Number of nodes of a job; `--nodes` and `--workers` go before it."""
    cores_per_node: Positive
    """Number of cores that are used on each node."""
    gpus_per_node: Annotated[int, Field(ge=0)] = 0
    """Number of GPUs that are used on each node, one worker each; 0: CPU workers."""
    gpus: GpuRequest = GpuRequest()
    """Type of the GPUs, and the form in which this cluster takes a request for them."""
    gpu_memory_mb: Positive | None = None
    """Memory of each GPU in MB; None: `hpcxrf plan` does not compare it with what the pixels need."""
    memory_per_node_mb: Positive | None = None
    """Memory in MB that a job may request on a node; None: not checked before submission."""
    workers_per_node: Positive | None = None
    """Number of workers on a node; None: one per GPU, else one per core up to 16, above it 16 groups of cores."""
    memory_per_worker_mb: Positive
    """Memory of each worker in MB."""
    driver_memory_mb: Positive = 2000
    """Memory in MB of the process that holds the scheduler, on the first node."""
    exclusive: bool = False
    """Whether nodes are taken whole, with all their memory."""
    time_limit_h: Annotated[float, Field(gt=0)]
    """Time limit of a job in hours."""
    drain_s: Annotated[int, Field(ge=1)] = 300
    """Seconds that running tasks may still take when the time limit is near."""
    worker_start_s: Annotated[int, Field(ge=10)] = 300
    """Seconds that a worker may take from its start until the scheduler knows it; a slow file system needs more."""
    requeue: bool = True
    """Whether this Slurm lets a job ask for another start of itself."""
    fail_job_on_failed_dataset: bool = False
    """Whether the job ends with exit code 6 when some datasets failed; false: it ends with 0 and a note in its log, so
    that chains of jobs (`afterok`) go on."""
    interface: str | None = None
    """Network interface of scheduler and workers, `ib0`; None: the interface of the node's name."""
    scratch: str | None = None
    """Folder on each node's own disk; None: its temporary folder."""
    modules: tuple[str, ...] = ()
    """Names for `module load`, in this order."""
    setup: tuple[str, ...] = ()
    """Shell lines before Python, `source /path/venv/bin/activate`; taken as they are."""
    python: str | None = None
    """Interpreter of the job; None: the one that submits, or `python` where modules, setup or driver_launcher bring
    one."""
    launcher: tuple[str, ...] = ()
    """Words before the command of each worker, `[apptainer, exec, --nv, /project/hpcxrf.sif]`; taken literally."""
    driver_launcher: tuple[str, ...] = ()
    """Words before the command of the driver. Empty: the driver runs outside of any container, where srun, scontrol
    and munge are; otherwise the words must make those available inside."""
    worker_python: str | None = None
    """Interpreter of the workers; None: `python` where there is a launcher, else that of the driver."""
    options: tuple[str, ...] = ()
    """Further options of sbatch, `--reservation=beamtime`."""
    login_host: str | None = None
    """Host name of the login node for ssh from outside, for the tunnel to the dashboard; None: the name of the
    submitting host."""
    scalers: dict[str, ScalerConfig] = field(default_factory=dict)
    """Scalers of the beamline by the name that `normalise.i0` of a run file gives: names of their PVs, their clocks."""

    @property
    def workers_on_a_node(self) -> int:
        """Largest number of workers on a node."""
        if self.workers_per_node is not None:
            return self.workers_per_node
        return self.gpus_per_node or min(self.cores_per_node, _MAX_CPU_WORKERS)

    @property
    def threads_per_worker(self) -> int:
        """Number of cores of each worker."""
        return max(1, self.cores_per_node // self.workers_on_a_node)

    @property
    def time_limit_s(self) -> int:
        """Time limit of a job in seconds."""
        return round(self.time_limit_h * 3600)

    @property
    def interpreter(self) -> str | None:
        """Interpreter of the job; None: the one that submits."""
        return self.python or ("python" if self.modules or self.setup or self.driver_launcher else None)

    @property
    def takes_whole_nodes(self) -> bool:
        """Whether no other job runs on the nodes of a job."""
        return self.exclusive or bool(self.gpus_per_node and self.gpus.request == "whole-node")


def load_site(path: Path) -> SiteProfile:
    """Read and check a profile.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or has faults: all of them at once.
    """
    raw, _ = read_yaml(path, ConfigError)
    return check_site(raw, str(path), name=path.stem)


def check_site(raw: object, where: str, *, name: str) -> SiteProfile:
    """Check a mapping against the schema of a profile.

    Args:
        raw: content of the file as `yaml.safe_load` returns it.
        where: name of the file, for the message.
        name: name of the profile.

    Raises:
        ConfigError: all faults at once, each with its place.
    """
    named = {**raw, "name": name} if isinstance(raw, dict) else raw
    with report_faults(where, ConfigError, "correct the profile"):
        return _check_profile(named, where)


def _check_profile(named: object, where: str) -> SiteProfile:
    try:
        site = TypeAdapter(SiteProfile).validate_python(named)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in error.errors()]
        raise ConfigError(_list_faults(where, faults)) from error
    faults = [*_find_number_faults(site), *_find_word_faults(site), *_find_line_faults(site)]
    if faults:
        raise ConfigError(_list_faults(where, faults))
    return site


def _list_faults(where: str, faults: list[str]) -> str:
    return "\n".join([f"{where}: not a valid site profile:", *[f"  {fault}" for fault in faults]])


def _find_number_faults(site: SiteProfile) -> list[str]:
    faults = []
    workers = site.workers_on_a_node
    if workers > site.cores_per_node:
        faults.append(f"{workers} workers on a node of cores_per_node {site.cores_per_node}")
    if site.gpus_per_node and workers > site.gpus_per_node:
        faults.append(f"workers_per_node {workers}, gpus_per_node {site.gpus_per_node}: each worker has a GPU")
    if not site.gpus_per_node and site.gpus != GpuRequest():
        faults.append("gpus: gpus_per_node is 0; write how many GPUs a node has")
    if site.gpus.type is not None and site.gpus.request == "whole-node":
        faults.append("gpus.type: a request for whole nodes cannot name a type; choose the nodes with constraint")
    memory_mb = workers * site.memory_per_worker_mb + site.driver_memory_mb
    if site.memory_per_node_mb is not None and memory_mb > site.memory_per_node_mb:
        faults.append(
            f"{workers} workers of memory_per_worker_mb {site.memory_per_worker_mb} and the driver "
            f"({site.driver_memory_mb}) need {memory_mb}, memory_per_node_mb is {site.memory_per_node_mb}"
        )
    if site.time_limit_s < site.drain_s + _SHORTEST_LIMIT_S:
        faults.append(
            f"time_limit_h {site.time_limit_h:g} is {site.time_limit_s} s, drain_s {site.drain_s} and "
            f"{_SHORTEST_LIMIT_S} s of margin must fit in it"
        )
    return faults


def _find_word_faults(site: SiteProfile) -> list[str]:
    """Words that end up in a script must be plain."""
    names = ("partition", "driver_partition", "account", "constraint", "qos", "interface", "login_host")
    words = {name: getattr(site, name) for name in names}
    words |= {f"modules[{i}]": word for i, word in enumerate(site.modules)}
    faults = [
        f"{name}: {value!r} is not a plain word (letters, digits, _.,:@/+=&|*()[]-)"
        for name, value in words.items()
        if value is not None and not is_plain_word(value)
    ]
    for option in site.options:
        name = option.split("=")[0]
        if not _OPTION.fullmatch(option):
            faults.append(f"options: {option!r} is not a long sbatch option; write --name or --name=value")
        elif name in _OWN_OPTIONS:
            faults.append(f"options: {option}: hpcxrf sets {name} itself")
        elif name == "--gres" and site.gpus_per_node and (site.gpus.request == "gres" or "gpu" in option):
            faults.append(f"options: {option}: hpcxrf requests the GPUs itself; choose another form with gpus.request")
    return faults


def _find_line_faults(site: SiteProfile) -> list[str]:
    """Words and lines of shell must be one line each, without control characters."""
    lines = {"python": site.python, "worker_python": site.worker_python, "scratch": site.scratch}
    for name in ("setup", "launcher", "driver_launcher"):
        lines |= {f"{name}[{i}]": line for i, line in enumerate(getattr(site, name))}
    faults = [
        f"{name}: {line!r} must be one line without control characters"
        for name, line in lines.items()
        if line is not None and not line.isprintable()
    ]
    for name in ("launcher", "driver_launcher"):
        words = getattr(site, name)
        if words and (not words[0] or words[0].startswith("-")):
            faults.append(f"{name}: {words[0]!r} is not a program; write [program, option, ...]")
    return faults


def is_plain_word(text: str) -> bool:
    """Whether Slurm, a shell and an #SBATCH line all take a text as one word without a meaning of its own."""
    return _WORD.fullmatch(text) is not None
