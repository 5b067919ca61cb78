"""How workers get their GPU and are wrapped, on a real Slurm with pretended GPUs."""

import sys

import psutil
import pytest

from hpcxrf.cluster.job.worker_terms import read_facts
from tests.cluster.drills import kill

pytestmark = [pytest.mark.slurm, pytest.mark.more]

PATIENCE_S = 240.0

WRAPPED = {"launcher": ["env", "HPCXRF_WRAPPED=it's $(here)"], "worker_python": sys.executable}


def devices(drill, workers: int) -> dict[str, list[str]]:
    """GPUs of the workers, by node, once all of them have begun."""
    facts = drill.wait(lambda: len(found := read_facts(drill.run)) == workers and found, PATIENCE_S)
    seen: dict[str, list[str]] = {}
    for fact in facts.values():
        assert fact.fault is None
        seen.setdefault(fact.node, []).append(fact.cuda_visible_devices)
    return {node: sorted(gpus) for node, gpus in sorted(seen.items())}


def hold_gpus(drill, *options: str) -> str:
    """A job of somebody else that keeps GPUs."""
    fixed = ("--parsable", "-o", "/dev/null", "--mem=100", "--wrap", "sleep 600")
    return drill.slurm.run("sbatch", *options, *fixed).strip()


def wrapped(drill) -> set[str | None]:
    return {psutil.Process(f.pid).environ().get("HPCXRF_WRAPPED") for f in read_facts(drill.run).values()}


@pytest.mark.parametrize(
    "site",
    [
        pytest.param({**WRAPPED, "gpus": {"request": "gres"}}, id="gres"),
        pytest.param({**WRAPPED, "gpus": {"request": "whole-node"}}, id="whole-node", marks=pytest.mark.slow),
        pytest.param({"gpus": {"request": "gpus-per-node"}}, id="gpus-per-node", marks=pytest.mark.slow),
    ],
)
def test_every_worker_has_a_gpu_of_its_own_in_each_form_of_the_request(drill, site):
    drill.prepare(1, gpus=2, site=site, faults={"slow_s": 0.5})
    drill.submit()
    assert devices(drill, 2) == {"node1": ["0", "1"]}
    assert wrapped(drill) == ({"it's $(here)"} if "launcher" in site else {None})
    assert drill.wait_for_end(PATIENCE_S) == "COMPLETED", drill.logs()
    drill.require_all_equal()


@pytest.mark.slow
def test_workers_of_whole_nodes_are_on_both_nodes_and_keep_their_gpu_when_they_start_again(drill):
    drill.prepare(3, workers=4, nodes=2, gpus=2, site={"gpus": {"request": "whole-node"}}, faults={"slow_s": 1.0})
    drill.submit()
    both = {"node1": ["0", "1"], "node2": ["0", "1"]}
    assert devices(drill, 4) == both
    before = read_facts(drill.run)["worker-3"]
    kill(before.pid)
    # A worker that was killed has no facts until it is there again.
    drill.wait(lambda: (again := read_facts(drill.run).get("worker-3")) is not None and again.pid != before.pid)
    after = read_facts(drill.run)["worker-3"]
    assert (after.node, after.cuda_visible_devices) == (before.node, before.cuda_visible_devices)
    assert devices(drill, 4) == both
    assert drill.wait_for_end(PATIENCE_S) == "COMPLETED", drill.logs()
    drill.require_all_equal()


@pytest.mark.slow
def test_worker_jobs_are_started_through_the_launcher_and_cancelled_when_their_driver_was_killed(drill, hpcxrf):
    drill.prepare(2, gpus=2, mode="elastic", site={**WRAPPED, "gpus": {"request": "gres"}}, faults={"slow_s": 2.0})
    # Room for the driver and one worker: the other one stays in the queue.
    blockers = {hold_gpus(drill, "-N3", "--gres=gpu:3"), hold_gpus(drill, "-N2", "--gres=gpu:1")}
    drill.submit()
    drill.wait(lambda: drill.pixel_tasks_done() >= 1, PATIENCE_S)
    assert wrapped(drill) == {"it's $(here)"}
    assert all("," not in facts.cuda_visible_devices for facts in read_facts(drill.run).values())
    own = set(drill.slurm.run("squeue", "-h", "-o", "%A").split()) - {*blockers, drill.job_id}
    assert len(own) == 2
    kill(drill.driver())
    assert drill.wait_for_end(PATIENCE_S) == "FAILED"
    pending = drill.slurm.run("squeue", "-h", "-t", "PENDING", "-o", "%A").split()
    assert set(pending) <= own
    assert pending
    ran = hpcxrf("cancel", drill.run.path, "--json")
    assert set(pending) <= set(ran.json["cancelled"]) <= own
    drill.wait(lambda: set(drill.slurm.run("squeue", "-h", "-o", "%A").split()) == blockers)
