"""The private Slurm itself: it starts, runs, pins, loses nodes, and leaves nothing behind."""

import json
import os
import pwd
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from slurm.testcluster import ClusterSpec, PrivateSlurmError, attach, running, start, stop
from slurm.testcluster.configuration import gres_conf

pytestmark = pytest.mark.slurm

ROOT = Path(__file__).resolve().parents[2]


def wait_for(condition, patience_s=20.0):
    deadline = time.monotonic() + patience_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return value


def state(cluster, job):
    return cluster.run("squeue", "-t", "all", "-h", "-o", "%T", "-j", job).strip()


def test_a_job_runs_and_its_output_is_there(slurm_cluster, tmp_path):
    out = tmp_path / "out"
    job = slurm_cluster.run("sbatch", "--parsable", "-o", str(out), "--wrap", "echo ran $SLURM_JOB_ID").strip()
    wait_for(lambda: state(slurm_cluster, job) == "COMPLETED")
    assert out.read_text() == f"ran {job}\n"


def test_every_task_of_a_step_sees_a_gpu_of_its_own(slurm_cluster):
    said = slurm_cluster.run(
        "srun",
        "-N2",
        "-n4",
        "--ntasks-per-node=2",
        "--gpus-per-task=1",
        "sh",
        "-c",
        "echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES",
    )
    assert sorted(said.splitlines()) == ["node1 0", "node1 1", "node2 0", "node2 1"]


def test_a_step_without_a_gpu_sees_none(slurm_cluster):
    assert slurm_cluster.run("srun", "-n1", "sh", "-c", "echo [$CUDA_VISIBLE_DEVICES]") == "[]\n"


def test_a_lost_node_takes_its_step_along_and_comes_back(slurm_cluster, tmp_path):
    job = slurm_cluster.run(
        "sbatch",
        "--parsable",
        "-w",
        "node3",
        "--no-requeue",
        "-o",
        str(tmp_path / "out"),
        "--wrap",
        f"touch {tmp_path}/running; exec sleep 600",
    ).strip()
    wait_for((tmp_path / "running").exists)
    before = len(slurm_cluster.processes())
    slurm_cluster.kill_node("node3")
    # slurmd, slurmstepd and the sleep are gone, the other nodes live.
    assert len(slurm_cluster.processes()) == before - 3
    slurm_cluster.run("scancel", job)
    slurm_cluster.start_node("node3")
    assert slurm_cluster.run("srun", "-w", "node3", "echo", "back") == "back\n"


def test_stopping_leaves_no_process_even_of_a_job_that_resists(tmp_path):
    with running(ClusterSpec(nodes=1, gpus=0, kill_wait_s=60)) as cluster:
        script = f"trap '' TERM; touch {tmp_path}/running; (setsid sleep 600 &) ; while :; do sleep 1; done"
        cluster.run("sbatch", "-o", "/dev/null", "--wrap", script)
        wait_for((tmp_path / "running").exists)
        wait_for(lambda: len(cluster.processes()) >= 6)
        folder = cluster.folder
        munge = Path(json.loads((folder / "cluster.json").read_bytes())["munge_folder"])
    assert cluster_is_gone(str(folder))
    assert not folder.exists()
    assert not munge.exists()


def cluster_is_gone(folder: str) -> bool:
    """No process on this machine has the cluster's configuration in its environment."""
    needle = f"SLURM_CONF={folder}/slurm.conf".encode()
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if needle in entry.read_bytes().split(b"\0"):
                return False
        except OSError:
            continue
    return True


def test_it_starts_and_stops_by_hand(tmp_path):
    folder = Path(tempfile.mkdtemp(prefix="testcluster-"))
    try:
        command = [sys.executable, "-m", "slurm.testcluster"]
        began = subprocess.run(
            [*command, "start", "--nodes", "1", str(folder)], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert began.stdout == f"export SLURM_CONF={folder}/slurm.conf\n"
        again = subprocess.run([*command, "start", str(folder)], cwd=ROOT, capture_output=True, text=True, check=False)
        assert again.returncode == 1
        assert "a test cluster runs there; stop it first" in again.stderr
        assert attach(folder).run("srun", "echo", "works") == "works\n"
        subprocess.run([*command, "stop", str(folder)], cwd=ROOT, check=True)
        assert cluster_is_gone(str(folder))
        with pytest.raises(PrivateSlurmError, match="no test cluster was started there"):
            stop(folder)
    finally:
        shutil.rmtree(folder)


def test_daemons_hold_no_pipe_of_whoever_started_them():
    folder = Path(tempfile.mkdtemp(prefix="testcluster-"))
    read, write = os.pipe()
    os.set_inheritable(write, True)
    try:
        start(folder, ClusterSpec(nodes=1))
        os.close(write)
        # The end of the pipe, at once: nobody else has it open.
        assert select.select([read], [], [], 5.0)[0] == [read]
        assert os.read(read, 1) == b""
    finally:
        stop(folder)
        os.close(read)
        shutil.rmtree(folder)


AS_NOBODY = """
import os, sys
os.setgroups([]); os.setgid({gid}); os.setuid({uid})
from pathlib import Path
from slurm.testcluster import ClusterSpec, start, stop
cluster = start(Path(sys.argv[1]), ClusterSpec(nodes=1))
try:
    print(cluster.run("srun", "-n2", "--gpus-per-task=1", "sh", "-c", "echo $(id -u) $CUDA_VISIBLE_DEVICES"))
finally:
    stop(Path(sys.argv[1]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_it_works_without_root():
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory(prefix="testcluster-", dir="/tmp") as parent:
        # The checkout may lie where nobody else may read.
        shutil.copytree(ROOT / "slurm", Path(parent, "slurm"), ignore=shutil.ignore_patterns("__pycache__"))
        os.chown(parent, nobody.pw_uid, nobody.pw_gid)
        ran = subprocess.run(
            [
                "/usr/bin/env",
                "python3",
                "-I",
                "-c",
                f"import sys; sys.path.insert(0, {parent!r})\n"
                + AS_NOBODY.format(uid=nobody.pw_uid, gid=nobody.pw_gid),
                f"{parent}/cluster",
            ],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": os.defpath, "USER": "nobody"},
        )
        assert ran.returncode == 0, ran.stderr
        assert sorted(ran.stdout.split("\n")) == ["", "", f"{nobody.pw_uid} 0", f"{nobody.pw_uid} 1"]


def test_a_folder_that_slurm_cannot_name_is_refused(tmp_path):
    with pytest.raises(PrivateSlurmError, match=r"slurm\.conf cannot hold this path"):
        start(tmp_path / "with space")


def test_a_folder_of_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(PrivateSlurmError, match="holds other files"):
        start(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_missing_programs_are_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr("slurm.testcluster.cluster.shutil.which", lambda name, path: None)
    with pytest.raises(PrivateSlurmError, match=r"not installed: slurmctld.*apt-get install"):
        start(tmp_path / "new")


def test_each_node_has_its_devices():
    text = gres_conf({"node1": [Path("/dev/a"), Path("/dev/b")], "node2": [Path("/dev/a")]})
    assert text.splitlines() == [
        "NodeName=node1 Name=gpu File=/dev/a",
        "NodeName=node1 Name=gpu File=/dev/b",
        "NodeName=node2 Name=gpu File=/dev/a",
    ]


def test_the_environment_of_another_slurm_is_dropped(slurm_cluster):
    env = slurm_cluster.env({"SLURM_JOB_ID": "7", "SBATCH_PARTITION": "theirs", "HOME": "/x"})
    assert env == {"HOME": "/x", "SLURM_CONF": str(slurm_cluster.conf)}
