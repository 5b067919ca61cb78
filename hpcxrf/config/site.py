"""Site profiles: what a cluster is like and how jobs are asked for there, checked at once and whole.

Field docstrings are the reference of a profile; `slurm/*.yaml` are commented examples.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Final

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from hpcxrf.errors import ConfigError

_CHECKED: Final = ConfigDict(extra="forbid", allow_inf_nan=False)
_MAX_CPU_WORKERS: Final = 16
# A batch script may go on for a minute after the signal that comes early or late by as much.
_SHORTEST_LIMIT_S: Final = 120
# What Slurm, a shell and an #SBATCH line all take for one plain word.
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.,:@/+=&|*()\[\]-]*")
_OPTION: Final = re.compile(r"--[a-z][a-z-]*(=[A-Za-z0-9_.,:@/+=&|*()\[\]%-]+)?")
# What hpcxrf itself says of a job; a second word on it would be a contradiction nobody sees.
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

Positive = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteProfile:
    """A cluster, or one partition of it."""

    __pydantic_config__: ClassVar[ConfigDict] = _CHECKED

    name: str = ""
    """Of the file, not of its content."""
    description: str = ""
    partition: str | None = None
    """None: the cluster's default one."""
    driver_partition: str | None = None
    """Of the driver's own small job in elastic mode; None: the same."""
    account: str | None = None
    constraint: str | None = None
    qos: str | None = None
    nodes: Positive = 1
    """Of a job, unless `--nodes` or `--workers` say otherwise."""
    cores_per_node: Positive
    """To be used on each node."""
    gpus_per_node: Annotated[int, Field(ge=0)] = 0
    """One worker each, pinned by Slurm; 0: CPU workers."""
    gpu_memory_mb: Positive | None = None
    """Of each GPU; None: `hpcxrf plan` does not compare it with what the pixels need."""
    memory_per_node_mb: Positive | None = None
    """What a job may ask of a node; None: not checked before submission."""
    workers_per_node: Positive | None = None
    """None: one per GPU; else one per core up to 16, above 16 groups of cores."""
    memory_per_worker_mb: Positive
    driver_memory_mb: Positive = 2000
    """Of the process that holds the scheduler, on the first node."""
    exclusive: bool = False
    """Whole nodes, with all their memory."""
    time_limit_h: Annotated[float, Field(gt=0)]
    drain_s: Annotated[int, Field(ge=1)] = 300
    """Seconds that running tasks may still take when the time limit is near."""
    requeue: bool = True
    """Whether Slurm lets a job ask to be run again."""
    interface: str | None = None
    """Network interface of scheduler and workers, `ib0`; None: that of the node's name."""
    scratch: str | None = None
    """Folder on each node's own disk; None: its temporary folder."""
    modules: tuple[str, ...] = ()
    """For `module load`, in this order."""
    setup: tuple[str, ...] = ()
    """Shell lines before Python, `source /path/venv/bin/activate`; taken as they are."""
    python: str | None = None
    """Interpreter in the job; None: the one that submits, or `python` where modules or setup bring one."""
    options: tuple[str, ...] = ()
    """Further options of sbatch, `--reservation=beamtime`."""
    login_host: str | None = None
    """As given to ssh from outside, for the tunnel to the dashboard; None: the name of the submitting host."""

    @property
    def workers_on_a_node(self) -> int:
        """At most so many."""
        if self.workers_per_node is not None:
            return self.workers_per_node
        return self.gpus_per_node or min(self.cores_per_node, _MAX_CPU_WORKERS)

    @property
    def threads_per_worker(self) -> int:
        """Cores of each."""
        return max(1, self.cores_per_node // self.workers_on_a_node)

    @property
    def time_limit_s(self) -> int:
        """Of a job."""
        return round(self.time_limit_h * 3600)

    @property
    def interpreter(self) -> str | None:
        """In the job; None: the one that submits."""
        return self.python or ("python" if self.modules or self.setup else None)


def load_site(path: Path) -> SiteProfile:
    """Read and check a profile.

    Raises:
        ConfigError: the file cannot be read, is no YAML, or has faults: all of them at once.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no YAML: {error}") from error
    return check_site(raw, str(path), name=path.stem)


def check_site(raw: object, where: str, *, name: str) -> SiteProfile:
    """Check a mapping against the schema of a profile.

    Args:
        raw: what `yaml.safe_load` gave.
        where: for the message.
        name: of the profile.

    Raises:
        ConfigError: all faults at once, each with its place.
    """
    named = {**raw, "name": name} if isinstance(raw, dict) else raw
    try:
        site = TypeAdapter(SiteProfile).validate_python(named)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in error.errors()]
        raise ConfigError(_told(where, faults)) from error
    faults = [*_number_faults(site), *_word_faults(site)]
    if faults:
        raise ConfigError(_told(where, faults))
    return site


def _told(where: str, faults: list[str]) -> str:
    return "\n".join([f"{where} is no site profile:", *[f"  {fault}" for fault in faults]])


def _number_faults(site: SiteProfile) -> list[str]:
    faults = []
    workers = site.workers_on_a_node
    if workers > site.cores_per_node:
        faults.append(f"{workers} workers on a node of cores_per_node {site.cores_per_node}")
    if site.gpus_per_node and workers > site.gpus_per_node:
        faults.append(f"workers_per_node {workers}, gpus_per_node {site.gpus_per_node}: each worker has a GPU")
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


def _word_faults(site: SiteProfile) -> list[str]:
    """Words that end up in a script must be plain; lines of shell must be one line each."""
    names = ("partition", "driver_partition", "account", "constraint", "qos", "interface", "login_host")
    given = {name: getattr(site, name) for name in names}
    given |= {f"modules[{i}]": word for i, word in enumerate(site.modules)}
    faults = [
        f"{name}: {value!r} is no plain word (letters, digits, _.,:@/+=&|*()[]-)"
        for name, value in given.items()
        if value is not None and not _WORD.fullmatch(value)
    ]
    for option in site.options:
        if not _OPTION.fullmatch(option):
            faults.append(f"options: {option!r} is none; write --name or --name=value")
        elif option.split("=")[0] in _OWN_OPTIONS:
            faults.append(f"options: {option}: hpcxrf sets {option.split('=')[0]} itself")
    lines = {"python": site.python, "scratch": site.scratch, "description": site.description}
    lines |= {f"setup[{i}]": line for i, line in enumerate(site.setup)}
    for name, line in lines.items():
        if line is not None and not (name == "description" or line.isprintable()):
            faults.append(f"{name}: {line!r} must be one line without control characters")
    return faults
