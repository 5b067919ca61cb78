"""Site profiles against a real Slurm: proposed, planned for, and tried by the doctor."""

import pytest
import yaml

from hpcxrf.simulate import demo_spec, simulate_scan, write_scan
from tests.samples.stand_in_jobs import GOOD, site

pytestmark = pytest.mark.slurm


def test_a_profile_is_proposed_from_what_sinfo_says(hpcxrf, lab):
    text = hpcxrf("site", "init").out
    proposed = yaml.safe_load(text)
    assert (proposed["partition"], proposed["gpus_per_node"], proposed["memory_per_node_mb"]) == ("main", 4, 6000)
    assert hpcxrf("site", "init", "--name", "mine").code == 0
    ran = hpcxrf("submit", "run.yaml", "--site", "mine", "--dry-run", "--workers", "2")
    assert ran.code == 0, ran.err
    assert "#SBATCH --gpus-per-task=1" in ran.out
    assert "exists already" in hpcxrf("site", "init", "--name", "mine").err
    assert hpcxrf("site", "list", "--json").json["sites"]["mine"].startswith(str(lab / "config"))


def test_plan_refuses_what_the_partition_cannot_give(hpcxrf, lab):
    write_scan(simulate_scan(demo_spec(seed=1, shape=(1, 4, 4, 2048), name="scan")), lab)
    assert hpcxrf("plan", "run.yaml", "--site", "lab").code == 0
    site(lab, GOOD, nodes=5)
    ran = hpcxrf("plan", "run.yaml", "--site", "lab", "--json")
    assert ran.code == 2
    assert ran.json["faults"] == ["5 nodes are requested, partition main has 3"]
    site(lab, GOOD, gpu_memory_mb=80_000)
    ran = hpcxrf("plan", "run.yaml", "--site", "lab", "--json")
    assert ran.code == 0, ran.err
    least = ran.json["device_bytes"]["least"]
    assert 1e9 < least < ran.json["device_bytes"]["most"] < 80e9
    site(lab, GOOD, gpu_memory_mb=1000)
    ran = hpcxrf("plan", "run.yaml", "--site", "lab")
    assert ran.code == 2
    assert f"gpu_memory_mb: pixels need {least / 1e9:.2f} GB of a GPU" in ran.err


def test_the_doctor_lets_slurm_try_the_job_of_a_site_and_submits_nothing(lab, slurm_cluster):
    from hpcxrf.cluster.login.doctor import _slurm, _try_check
    from hpcxrf.cluster.login.sites import find_site

    assert "to start at" in _slurm(None)
    assert "site lab: Job" in _slurm(find_site("lab"))
    site(lab, GOOD, partition="nope")
    found = _try_check("Slurm", lambda: _slurm(find_site("lab")))
    assert not found["ok"]
    assert "Invalid partition" in found["found"]
    assert slurm_cluster.run("squeue", "-h", "-t", "all", "-n", "hpcxrf", "-o", "%T").count("PENDING") == 0
