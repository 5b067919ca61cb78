"""What the drills share: tiny scans, jobs on the private Slurm, and the results of an undisturbed run."""

import hashlib
import json
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from scan_units import run_unit, units_of

from hpcxrf.cluster.job.worker_terms import read_facts
from hpcxrf.cluster.job_files import read_events, read_progress
from hpcxrf.cluster.login.submission import SubmitOptions, prepare_submission, submit_again, submit_run
from hpcxrf.config.run import check_config, effective
from hpcxrf.config.site import check_site
from hpcxrf.pipeline.plan import make_plan
from hpcxrf.pipeline.provenance import ENVIRONMENT
from hpcxrf.runner.done import last_lines
from hpcxrf.store.files import tree_files, tree_sha256
from hpcxrf.store.rundir import FINISHED, RunDir, create_or_resume

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OVERRIDE = "CAL_OFFSET: 0.0\nCAL_SLOPE: 0.025\nCOHERENT_SCT_ENERGY: 10.0\nELEMENTS_TO_FIT: Si, Ca, Fe\n"
N_PIXEL_TASKS = 3
"""Of each scan."""


def make_scans(folder: Path, number: int) -> None:
    """Scans of 192 x 4 pixels, three pixel tasks each, with an override file beside them."""
    folder.mkdir()
    energy_kev = np.arange(420) * 0.025
    mean = 0.2 + sum(
        height * np.exp(-0.5 * ((energy_kev - line_kev) / 0.075) ** 2)
        for line_kev, height in ((1.74, 3), (3.69, 5), (6.4, 8), (9.75, 3), (10.0, 4))
    )
    for index in range(number):
        counts = np.random.default_rng(index).poisson(np.broadcast_to(mean, (1, 192, 4, 420)))
        np.save(folder / f"s{index:02}.npy", counts.astype(np.uint16))
    (folder / "maps_fit_parameters_override.txt").write_text(OVERRIDE)


def raw_config(folder: Path, **execution) -> dict:
    return {
        "input": {"files": [str(folder)]},
        "fit": {"suggest": False},
        "pixels": {"blocks_per_task": 1},
        "regions": {"find": []},
        "execution": {"device": "auto", **execution},
    }


def undisturbed(config, run_text: str, folder: Path) -> dict[str, dict[str, str]]:
    """Checksums of each dataset's results, every task run once, one after the other, in this process."""
    plan = make_plan(config, folder)
    run = create_or_resume(folder, run_text, effective(config))
    for job in plan.jobs:
        done = []
        for unit in units_of(job):
            done.append(run_unit(job, unit, done))
    return {job.dataset_id: sums_of(run, job.dataset_id) for job in plan.jobs}


def sums_of(run: RunDir, dataset_id: str) -> dict[str, str]:
    """Checksums of every file of a dataset's results, except the CPU seconds that a fit took, and where it was made."""
    store = run.results_store(dataset_id)
    files = [f for f in tree_files(store) if not f.match("spectrum/cpu_s/c.*")]
    sums = {str(f.relative_to(store)): tree_sha256(f) for f in files}
    root = json.loads((store / "zarr.json").read_text(encoding="utf-8"))
    made = root["attributes"]["provenance"]
    # Threads of a job are others than those of this process.
    for name in (ENVIRONMENT, "other_environments", "gpus"):
        made.pop(name, None)
    return sums | {"zarr.json": hashlib.sha256(json.dumps(root).encode()).hexdigest()}


def is_finished(run: RunDir, dataset_id: str, task: str) -> bool:
    """What the last journal line of a task says of it."""
    return last_lines(run.read_journal(dataset_id)).get(task, {}).get("event") == FINISHED


@dataclass
class Drill:
    """A run directory and its job."""

    slurm: object
    tmp_path: Path
    monkeypatch: object
    run: RunDir | None = None
    job_id: str = ""
    expected: dict[str, dict[str, str]] | None = None

    def prepare(
        self,
        scans: int,
        *,
        workers=2,
        gpus=0,
        mode="allocation",
        nodes=1,
        site=None,
        faults=None,
        insecure=False,
        **execution,
    ) -> None:
        """Make scans, the results of an undisturbed run, and a submission."""
        make_scans(self.tmp_path / "in", scans)
        raw = raw_config(self.tmp_path / "in", **execution)
        config, text = check_config(raw, "test"), json.dumps(raw)
        on_cpu = check_config(raw_config(self.tmp_path / "in", **(execution | {"device": "cpu"})), "test")
        self.expected = undisturbed(on_cpu, text, self.tmp_path / "undisturbed")
        per_node = -(-workers // nodes)
        profile = check_site(
            {
                "cores_per_node": 8,
                "workers_per_node": per_node,
                "gpus_per_node": gpus,
                "nodes": nodes,
                "memory_per_worker_mb": 900,
                "driver_memory_mb": 500,
                "time_limit_h": 0.5,
                "drain_s": 30,
                "interface": "lo",
                "partition": "main",
                **(site or {}),
            },
            "test",
            name="drill",
        )
        self.monkeypatch.setenv("PYTHONPATH", str(ROOT))
        self.monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__PRELOAD", json.dumps([str(HERE / "drill_faults.py")]))
        self.monkeypatch.setenv("DRILL_FAULTS", json.dumps(faults or {}))
        self.monkeypatch.setenv("HPCXRF_PRETEND_GPUS", "1")
        self.prepared = prepare_submission(
            config,
            text,
            self.tmp_path / "run",
            profile,
            SubmitOptions(workers=workers, nodes=nodes, mode=mode, insecure=insecure),
        )

    def submit(self) -> None:
        self.job_id = submit_run(self.prepared)
        self.run = RunDir(path=self.tmp_path / "run")

    def resume(self) -> None:
        self.job_id = submit_again(self.run)

    def events(self, name: str) -> list[dict]:
        return [e for e in read_events(self.run) if e["event"] == name]

    def state(self) -> str:
        return self.slurm.run("squeue", "-t", "all", "-h", "-o", "%T", "-j", self.job_id).strip()

    def wait(self, condition, patience_s=240.0):
        deadline = time.monotonic() + patience_s
        while not (value := condition()):
            assert time.monotonic() < deadline, f"waited in vain\n{self.logs()}"
            time.sleep(0.05)
        return value

    def wait_for_end(self, patience_s=400.0) -> str:
        ended = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED"}
        return self.wait(lambda: (s := self.state()) in ended and s, patience_s)

    def wait_for_work(self, start: int) -> None:
        """Until a driver's `start`-th start has a pixel task done."""
        before = self.pixel_tasks_done() if self.run.dataset_ids() else 0
        self.wait(lambda: len(self.events("started")) == start and self.pixel_tasks_done() > before)

    def wait_for_event(self, name: str, number: int) -> None:
        self.wait(lambda: len(self.events(name)) == number)

    def start_again_now(self) -> None:
        """A job that was put back would wait for two minutes."""
        self.wait(lambda: self.state() == "PENDING")
        # In the second in which the job ended its node takes the new start for the old one.
        time.sleep(1.5)
        self.slurm.run("scontrol", "update", f"jobid={self.job_id}", "StartTime=now")

    def pixel_tasks_done(self) -> int:
        return sum(
            is_finished(self.run, d, f"pixels-0-{i:05}-{i + 1:05}")
            for d in self.run.dataset_ids()
            for i in range(N_PIXEL_TASKS)
        )

    def times_finished(self) -> dict[tuple[str, str], int]:
        """How often the journal says that a task was finished."""
        counts: dict[tuple[str, str], int] = {}
        for d in self.run.dataset_ids():
            for line in self.run.read_journal(d):
                if line["event"] == "finished":
                    counts[d, line["task"]] = counts.get((d, line["task"]), 0) + 1
        return counts

    def workers(self):
        """Supervisor and worker process of each worker that lives."""
        found = {}
        for name, facts in read_facts(self.run).items():
            with suppress(psutil.NoSuchProcess):
                nanny = psutil.Process(facts.pid)
                found[name] = (nanny, [c for c in nanny.children() if "resource_tracker" not in " ".join(c.cmdline())])
        return found

    def driver(self) -> int:
        return self.events("started")[-1]["pid"]

    def progress(self):
        return read_progress(self.run)

    def logs(self) -> str:
        if self.run is None:
            return ""
        files = [*sorted(self.run.logs.glob("*")), *sorted((self.slurm.folder / "log").glob("slurm*.log"))]
        return "\n".join(f"== {f.name}\n{f.read_text(errors='replace')[-1500:]}" for f in files)

    def results(self) -> dict[str, dict[str, str]]:
        done = [d for d in self.run.dataset_ids() if is_finished(self.run, d, "finalise")]
        return {d: sums_of(self.run, d) for d in done}

    def require_all_equal(self, *, but: Sequence[str] = ()) -> None:
        """Every dataset is done and equal, except those of the scans named."""
        expected = {d: sums for d, sums in self.expected.items() if not d.startswith(tuple(but) or "-")}
        found = self.results()
        assert sorted(found) == sorted(expected), self.logs()
        for dataset_id, sums in expected.items():
            different = [f for f in sums if found[dataset_id].get(f) != sums[f]]
            assert not different, (dataset_id, different)
            assert set(found[dataset_id]) == set(sums)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
