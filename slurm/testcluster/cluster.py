"""Starting, using and stopping the private Slurm of one folder."""

import getpass
import json
import os
import re
import secrets
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from slurm.testcluster.configuration import ClusterSpec, Where, gres_conf, node_names, slurm_conf
from slurm.testcluster.processes import Identity, end, is_alive, kill, spawn, with_environment

PROGRAMS: Final = ("slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "sinfo", "munged")
INSTALL: Final = "apt-get install --no-install-recommends slurmctld slurmd slurm-client munge"
_SYSTEM_FOLDERS: Final = ("/usr/sbin", "/sbin", "/usr/local/sbin")
_STATE_FILE: Final = "cluster.json"
_FOREIGN: Final = ("SLURM_", "SBATCH_", "SRUN_", "SQUEUE_")
_NODE_MARK: Final = "TESTCLUSTER_NODE"
_READY_S: Final = 30.0
_COMMAND_S: Final = 30.0
# As whoever may not make device nodes; all of them are always there.
_COMMON_DEVICES: Final = tuple(map(Path, ("/dev/null", "/dev/zero", "/dev/full", "/dev/random")))
_SAFE_PATH: Final = re.compile(r"[A-Za-z0-9._/+@=-]+")


class PrivateSlurmError(RuntimeError):
    """The test cluster cannot be started, found or stopped; the message says why and what helps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateSlurm:
    """A cluster that runs."""

    folder: Path
    spec: ClusterSpec

    @property
    def conf(self) -> Path:
        """What SLURM_CONF must name."""
        return self.folder / "slurm.conf"

    def env(self, base: Mapping[str, str] = os.environ) -> dict[str, str]:
        """`base` for this cluster: another Slurm's variables are dropped."""
        kept = {k: v for k, v in base.items() if not k.startswith(_FOREIGN)}
        return {**kept, "SLURM_CONF": str(self.conf)}

    @staticmethod
    def foreign_variables() -> list[str]:
        """Variables of this process that speak of another Slurm."""
        return [name for name in os.environ if name.startswith(_FOREIGN)]

    def run(self, *argv: str, check: bool = True) -> str:
        """Standard output of a Slurm command, `run("squeue", "--json")`.

        Raises:
            PrivateSlurmError: it failed, with what it said, unless not `check`.
        """
        done = subprocess.run(argv, env=self.env(), capture_output=True, text=True, check=False, timeout=_COMMAND_S)
        if check and done.returncode != 0:
            raise PrivateSlurmError(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def processes(self) -> list[Identity]:
        """Daemons, job steps and whatever jobs have started, as far as they live."""
        daemons = [p for p in _daemons(self.folder).values() if is_alive(p)]
        return list(dict.fromkeys(daemons + _of_jobs(self.conf)))

    def kill_node(self, name: str) -> None:
        """The node is lost: its daemon, its job steps and their processes end at once, unasked."""
        daemon = _daemons(self.folder)[f"slurmd-{name}"]
        kill([daemon])
        conf = {"SLURM_CONF": str(self.conf)}
        kill(with_environment({**conf, _NODE_MARK: name}, having=_NODE_MARK))
        kill(with_environment({**conf, "SLURMD_NODENAME": name}, having="SLURM_JOB_ID"))

    def start_node(self, name: str) -> None:
        """Bring a lost node back.

        Raises:
            PrivateSlurmError: it is not idle after half a minute.
        """
        _start_node(self.folder, name)
        self.run("scontrol", "update", f"nodename={name}", "state=resume", check=False)
        _wait_until_ready(self)

    def cancel_all(self, *, patience_s: float = 10.0) -> None:
        """Cancel every job and wait until none is left in the queue."""
        deadline = time.monotonic() + patience_s
        while jobs := self.run("squeue", "-h", "-o", "%A", check=False).split():
            self.run("scancel", *jobs, check=False)
            if time.monotonic() > deadline:
                self.run("scancel", "--signal=KILL", "--full", *jobs, check=False)
                return
            time.sleep(0.05)


def missing_programs() -> list[str]:
    """Programs that the test cluster needs and this machine lacks."""
    return [name for name in PROGRAMS if _program(name) is None]


@contextmanager
def running(spec: ClusterSpec | None = None) -> Iterator[PrivateSlurm]:
    """A cluster in a temporary folder while the block runs."""
    with tempfile.TemporaryDirectory(prefix="testcluster-") as folder:
        cluster = start(Path(folder), spec)
        try:
            yield cluster
        finally:
            stop(Path(folder))


def start(folder: Path, spec: ClusterSpec | None = None) -> PrivateSlurm:
    """Start a cluster whose configuration, state and logs are in `folder`.

    Args:
        folder: made where it does not exist; what an earlier cluster left there is removed.
        spec: pretend hardware.

    Raises:
        PrivateSlurmError: programs are missing, one runs there already, or it does not become ready; then
            nothing is left running.
    """
    spec = spec or ClusterSpec()
    folder = folder.absolute()
    _refuse(folder)
    cluster = PrivateSlurm(folder=folder, spec=spec)
    _write_files(cluster)
    try:
        _start_munge(folder)
        _start_daemon(folder, "slurmctld", ["slurmctld", "-D", "-f", str(cluster.conf)])
        for name in node_names(spec):
            _start_node(folder, name)
        _wait_until_ready(cluster)
    except BaseException:
        stop(folder)
        raise
    return cluster


def attach(folder: Path) -> PrivateSlurm:
    """The cluster that was started in `folder`.

    Raises:
        PrivateSlurmError: there is none.
    """
    folder = folder.absolute()
    return PrivateSlurm(folder=folder, spec=ClusterSpec(**_state(folder)["spec"]))


def stop(folder: Path) -> None:
    """End the cluster of `folder`: jobs first, then its daemons; logs stay.

    Raises:
        PrivateSlurmError: there is none.
    """
    cluster = attach(folder)
    daemons = _daemons(cluster.folder)
    controller = daemons.get("slurmctld")
    if controller is not None and is_alive(controller):
        with suppress(subprocess.TimeoutExpired):
            cluster.cancel_all(patience_s=1.0)
    munge = daemons.pop("munged", None)
    end(daemons.values(), patience_s=3.0)
    kill(_of_jobs(cluster.conf))
    if munge is not None:
        end([munge], patience_s=2.0)
    shutil.rmtree(_state(cluster.folder)["munge_folder"], ignore_errors=True)
    (cluster.folder / _STATE_FILE).unlink()


def _refuse(folder: Path) -> None:
    missing = missing_programs()
    if missing:
        raise PrivateSlurmError(f"not installed: {', '.join(missing)}; on Debian: {INSTALL}")
    if not _SAFE_PATH.fullmatch(str(folder)):
        raise PrivateSlurmError(
            f"{folder}: slurm.conf cannot hold this path; choose one of letters, digits and ._/+@=-"
        )
    if (folder / _STATE_FILE).exists():
        if any(is_alive(p) for p in _daemons(folder).values()):
            raise PrivateSlurmError(f"{folder}: a test cluster runs there; stop it first")
        stop(folder)
    elif folder.exists() and any(folder.iterdir()) and not (folder / "slurm.conf").exists():
        raise PrivateSlurmError(f"{folder}: holds other files; name an empty or a new folder")


def _write_files(cluster: PrivateSlurm) -> None:
    folder, spec = cluster.folder, cluster.spec
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in ("state", "spool", "run", "log", "dev"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(mode=0o700)
    # A socket's path may have 107 bytes; the caller's folder may be deeper.
    munge_folder = Path(tempfile.mkdtemp(prefix="munge-", dir="/tmp"))
    _write_state(folder, {"spec": asdict(spec), "munge_folder": str(munge_folder), "daemons": {}})
    key = munge_folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(1024))
    ports = _free_ports(spec.nodes + 1)
    where = Where(
        folder=folder,
        host=socket.gethostname().split(".")[0],
        user=getpass.getuser(),
        munge_socket=munge_folder / "socket",
        controller_port=ports[0],
        node_ports=ports[1:],
    )
    cluster.conf.write_text(slurm_conf(spec, where), encoding="ascii")
    devices = {name: _devices(folder, name, spec.gpus) for name in node_names(spec)}
    (folder / "gres.conf").write_text(gres_conf(devices), encoding="ascii")


def _devices(folder: Path, node: str, number: int) -> Sequence[Path]:
    """Character devices that stand for the GPUs of a node."""
    made = [folder / "dev" / f"{node}-nvidia{index}" for index in range(number)]
    try:
        for path in made:
            os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        made = list(_COMMON_DEVICES[:number])
        if len(made) < number:
            raise PrivateSlurmError(
                f"{number} pretend GPUs a node: without root at most {len(_COMMON_DEVICES)}"
            ) from None
    return made


def _free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


def _start_munge(folder: Path) -> None:
    place = _state(folder)["munge_folder"]
    options = {"key-file": "munge.key", "socket": "socket", "pid-file": "pid", "seed-file": "seed"}
    _start_daemon(
        folder,
        "munged",
        # --force: the checks are for a system's daemon, this one is private to its folder.
        ["munged", "--foreground", "--force", "--num-threads=2", "--group-update-time=-1"]
        + [f"--{option}={place}/{name}" for option, name in options.items()]
        + [f"--log-file={folder}/log/munged.log"],
    )
    deadline = time.monotonic() + _READY_S
    while not Path(place, "socket").exists():
        if time.monotonic() > deadline or not is_alive(_daemons(folder)["munged"]):
            raise PrivateSlurmError(_why_not(folder))
        time.sleep(0.01)


def _start_node(folder: Path, name: str) -> None:
    argv = ["slurmd", "-D", "-N", name, "-f", str(folder / "slurm.conf")]
    _start_daemon(folder, f"slurmd-{name}", argv, {_NODE_MARK: name})


def _start_daemon(folder: Path, name: str, argv: Sequence[str], more: Mapping[str, str] | None = None) -> None:
    program = _program(argv[0])
    if program is None:
        raise PrivateSlurmError(f"not installed: {argv[0]}; on Debian: {INSTALL}")
    env = PrivateSlurm(folder=folder, spec=ClusterSpec()).env()
    log = folder / "log" / f"{name}.output"
    process = spawn([program, *argv[1:]], log, {**env, **(more or {})})
    state = _state(folder)
    state["daemons"][name] = asdict(process)
    _write_state(folder, state)


def _wait_until_ready(cluster: PrivateSlurm) -> None:
    wanted = sorted(node_names(cluster.spec))
    deadline = time.monotonic() + _READY_S
    while True:
        lines = cluster.run("sinfo", "-h", "-N", "-p", "main", "-o", "%N %t", check=False)
        ready = [line.split()[0] for line in lines.splitlines() if _usable(line.split()[-1])]
        if sorted(ready) == wanted:
            return
        dead = [n for n, p in _daemons(cluster.folder).items() if not is_alive(p)]
        if dead or time.monotonic() > deadline:
            raise PrivateSlurmError(_why_not(cluster.folder))
        time.sleep(0.03)


def _usable(state: str) -> bool:
    return state in {"idle", "mix", "alloc"}


def _why_not(folder: Path) -> str:
    """The ends of all logs."""
    texts = [f"{folder}: the test cluster does not become ready"]
    for log in sorted((folder / "log").iterdir()):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:]
        texts += [f"{log.name}:", *[f"  {line}" for line in lines]] if lines else []
    return "\n".join(texts)


def _of_jobs(conf: Path) -> list[Identity]:
    ours = {"SLURM_CONF": str(conf)}
    return [*with_environment(ours, having="SLURM_JOB_ID"), *with_environment(ours, having=_NODE_MARK)]


def _program(name: str) -> str | None:
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_SYSTEM_FOLDERS))
    return shutil.which(name, path=path)


def _daemons(folder: Path) -> dict[str, Identity]:
    return {name: Identity(**p) for name, p in _state(folder)["daemons"].items()}


def _state(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / _STATE_FILE).read_bytes()))
    except FileNotFoundError:
        raise PrivateSlurmError(f"{folder}: no test cluster was started there") from None


def _write_state(folder: Path, state: Mapping[str, object]) -> None:
    temporary = folder / f"{_STATE_FILE}.partial"
    temporary.write_text(json.dumps(state, indent=1), encoding="utf-8")
    temporary.replace(folder / _STATE_FILE)
