"""A simulated archive, 2 % of it broken, in one command: here or on a private Slurm, undisturbed or killed. Printed.

    python -m tests.figures.whole_archive make  FOLDER --scans 1200 --seed 90
    python -m tests.figures.whole_archive here  FOLDER
    python -m tests.figures.whole_archive slurm FOLDER --kills 5

`here` runs it on two local workers, `slurm` as a job of four; what is killed is drawn: a worker, or the driver with all
that it started, after which the same command is given again. Every results store of `slurm` is compared bit for bit
with that of `here`, and every broken file must have failed for its own reason.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "samples"))

from broken_archive import REASONS, make_broken_archive

from hpcxrf.archive.same import compare_stores
from hpcxrf.runner.datasets import read_datasets
from hpcxrf.store.packed import locate_store
from hpcxrf.store.rundir import FINISHED, RunDir
from slurm.testcluster.cluster import running
from slurm.testcluster.configuration import ClusterSpec

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "hpcxrf"]
RUN_FILE = "input: {catalogue: archive.sqlite}\nexecution: {dashboard: false}\n"
PROFILE = {
    "cores_per_node": 8,
    "nodes": 2,
    "workers_per_node": 2,
    "memory_per_worker_mb": 1500,
    "driver_memory_mb": 900,
    "time_limit_h": 6,
    "drain_s": 60,
    "interface": "lo",
    "partition": "main",
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["make", "here", "slurm"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scans", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=90)
    parser.add_argument("--side", type=int, default=16)
    parser.add_argument("--detectors", type=int)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--share", type=float, default=0.02)
    parser.add_argument("--pack", choices=["auto", "zip", "folder"], default="auto")
    given = parser.parse_args()
    folder = given.folder.absolute()
    if given.what == "make":
        make(folder, given)
    else:
        run_here(folder) if given.what == "here" else run_on_slurm(folder, given.kills, given.seed)


def make(folder: Path, given: argparse.Namespace) -> None:
    """Scans, which of them are broken, and the run file."""
    folder.mkdir(parents=True)
    sizes = {"shape_yx": (given.side, given.side), "detectors": given.detectors}
    broken = make_broken_archive(folder / "in", given.scans, given.seed, share=given.share, **sizes)
    (folder / "broken.json").write_text(json.dumps(broken, indent=1))
    (folder / "run.yaml").write_text(f"{RUN_FILE}store: {{pack: {given.pack}}}\n")


def run_here(folder: Path) -> None:
    """Catalogue and run on this machine, and what they cost."""
    say("catalogue", measured([*COMMAND, "catalog", str(folder / "in"), "-o", str(folder / "archive.sqlite")], {0, 1}))
    arguments = [*COMMAND, "run", str(folder / "run.yaml"), "-o", str(folder / "here"), "--workers", "2"]
    say("run", measured(arguments, {6}))
    describe_run(RunDir(path=folder / "here"))
    require_reasons(folder, RunDir(path=folder / "here"))


def run_on_slurm(folder: Path, kills: int, seed: int) -> None:
    """The same by `submit`, with `kills` of its processes; then the results beside those of `here`."""
    (folder / "sites").mkdir(exist_ok=True)
    (folder / "sites" / "drill.yaml").write_text(json.dumps(PROFILE))
    with running(ClusterSpec()) as cluster:
        env = {**cluster.env(), "HPCXRF_SITES": str(folder / "sites"), "PYTHONPATH": str(ROOT)}
        submit = [*COMMAND, "submit", str(folder / "run.yaml"), "--site", "drill", "-o", str(folder / "slurm")]
        begun = time.monotonic()
        subprocess.run(submit, env=env, check=True, stdin=subprocess.DEVNULL)
        run, generator = RunDir(path=folder / "slurm"), np.random.default_rng(seed)
        sound = len(json.loads((folder / "broken.json").read_text()))
        total = len(list((folder / "in").glob("sim-*")))
        places = sorted(generator.uniform(0.03, 0.95, kills) * (total - sound))
        peaks, stop = watch_memory(lambda: job_processes(folder))
        for place in places:
            wait_until(lambda place=place: ended(run) >= place, 3 * 3600)
            kill_something(folder, run, generator, env)
        wait_until(lambda: run.report_file.is_file() and not queued(cluster), 3 * 3600)
        stop.set()
        say("slurm", {"wall_s": round(time.monotonic() - begun), "peak_mb": dict(peaks)})
    describe_run(run)
    require_reasons(folder, run)
    require_same(RunDir(path=folder / "here"), run)


def kill_something(folder: Path, run: RunDir, generator: np.random.Generator, env: dict[str, str]) -> None:
    """SIGKILL to a worker, or to the driver and all of the job; then what a user would do: resume."""
    processes = job_processes(folder)
    if generator.random() < 0.5 and processes["worker"]:
        victim = processes["worker"][int(generator.integers(len(processes["worker"])))]
        victim.kill()
        say("killed", {"worker": victim.pid, "ended": ended(run)})
        return
    for one in processes["driver"]:
        one.kill()
    say("killed", {"driver": [one.pid for one in processes["driver"]], "ended": ended(run)})
    wait_until(lambda: not any(job_processes(folder).values()), 300)
    for _ in range(60):
        done = subprocess.run([*COMMAND, "resume", str(run.path)], env=env, check=False, stdin=subprocess.DEVNULL)
        if done.returncode == 0:
            return
        time.sleep(2)
    raise SystemExit("the killed run could not be submitted again")


def job_processes(folder: Path) -> dict[str, list[psutil.Process]]:
    """Processes of the job by what they are."""
    found: dict[str, list[psutil.Process]] = {"driver": [], "worker": []}
    for process in psutil.process_iter():
        try:
            # srun carries the command that it starts as its own.
            line = " ".join(process.cmdline()) if process.name().startswith("python") else ""
        except psutil.Error:
            continue
        if "hpcxrf.cluster.job" not in line or str(folder) not in line or process.pid == os.getpid():
            continue
        found["worker" if "worker" in line else "driver"].append(process)
    return found


def watch_memory(processes) -> tuple[dict[str, int], threading.Event]:
    """Largest resident memory of one process of each kind, MB, looked at every two seconds."""
    peaks: dict[str, int] = defaultdict(int)
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(2.0):
            for kind, members in processes().items():
                for one in members:
                    try:
                        family = [one, *one.children(recursive=True)] if kind == "worker" else [one]
                        peaks[kind] = max(peaks[kind], *(part.memory_info().rss >> 20 for part in family))
                    except psutil.Error:
                        continue

    threading.Thread(target=look, daemon=True).start()
    return peaks, stop


def measured(arguments: list[str], codes: set[int]) -> dict[str, object]:
    """Run a command; wall and CPU seconds of all its processes, and the most that one of them held."""
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        own = psutil.Process(process.pid)
        peaks, stop = watch_memory(lambda: {"driver": [own], "worker": own.children(recursive=True)})
        _, told = process.communicate()
        stop.set()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode not in codes:
        raise SystemExit(f"{arguments}: exit code {process.returncode}\n{told[-3000:]}")
    cpu_s = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": round(time.monotonic() - begun, 1), "cpu_s": round(cpu_s, 1), "peak_mb": dict(peaks)}


def describe_run(run: RunDir) -> None:
    """Datasets, CPU seconds a dataset by stage, files, and tasks that were finished more than once."""
    cpu_s, times, attempts = Counter(), Counter(), Counter()
    for name in run.dataset_ids():
        for line in run.read_journal(name):
            attempts[line["event"]] += 1
            if line["event"] == FINISHED:
                times[name, line["task"]] += 1
                cpu_s[line["stage"]] += line["cpu_s"]
    states = Counter(record.state for record in read_datasets(run))
    n = max(1, states["done"])
    inodes = sum(1 for _ in run.path.rglob("*"))
    say("states", dict(states))
    say("cpu_s a dataset by stage", {stage: round(seconds / n, 3) for stage, seconds in cpu_s.most_common()})
    say("cpu_s a dataset in tasks", round(sum(cpu_s.values()) / n, 3))
    say("inodes", {"all": inodes, "a dataset": round(inodes / max(1, sum(states.values())), 2)})
    say("journal", dict(attempts) | {"tasks finished more than once": sum(count > 1 for count in times.values())})


def require_reasons(folder: Path, run: RunDir) -> None:
    """Every broken file, and no other, has failed, for what was done to it."""
    broken = json.loads((folder / "broken.json").read_text())
    failed = {record.name: record.reason for record in read_datasets(run) if record.state != "done"}
    wrong = {name: failed.get(name) for name, way in broken.items() if REASONS[way] not in failed.get(name, "")}
    wrong |= {name: reason for name, reason in failed.items() if name not in broken}
    if wrong:
        raise SystemExit(f"wrong reasons: {json.dumps(wrong, indent=1)}")
    say("broken files", f"all {len(broken)} failed for their own reasons")


def require_same(first: RunDir, second: RunDir) -> None:
    """Every results store has the same bits."""
    names = [record.dataset_id for record in read_datasets(first) if record.state == "done"]
    different = [
        name
        for name in names
        if not compare_stores(
            locate_store(first.results_store(name)), locate_store(second.results_store(name))
        ).is_identical
    ]
    if different:
        raise SystemExit(f"{len(different)} of {len(names)} stores differ: {different[:10]}")
    say("stores", f"all {len(names)} bit-identical")


def ended(run: RunDir) -> int:
    """Datasets that have ended."""
    return sum(1 for _ in read_datasets(run))


def queued(cluster) -> bool:
    """Whether a job is in the queue."""
    return bool(cluster.run("squeue", "-h").strip())


def wait_until(condition, patience_s: float) -> None:
    """Look once a second."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("waited in vain")
        time.sleep(1.0)


def say(what: str, value: object) -> None:
    """One line."""
    sys.stdout.write(f"{what}: {value if isinstance(value, str) else json.dumps(value)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
