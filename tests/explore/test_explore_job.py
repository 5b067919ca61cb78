"""The explorer as a job, without Slurm: its script, the file with its secret, and how it is waited for."""

import json
import os
import re
import stat
import subprocess
from dataclasses import replace

import pytest
from test_serving import hash_tree

from hpcxrf.cluster.explorer_address import (
    ExplorerAddress,
    read_address,
    remove_address,
    remove_stale_addresses,
    write_address,
)
from hpcxrf.cluster.login import explorer_jobs
from hpcxrf.cluster.login.explorer_jobs import prepare_explorer_job, wait_for_address, write_tunnel
from hpcxrf.cluster.login.run_jobs import is_job_of
from hpcxrf.cluster.slurm import JobState
from hpcxrf.errors import ConfigError, OutputError, SlurmError
from hpcxrf.store.rundir import RunDir

KNOWN = "s3cret-of-this-start-00"
WAITS = JobState(job_id="17", state="PENDING", reason="Priority", start="2026-12-01T08:00:00", nodes="", elapsed="0:00")
RUNS = JobState(job_id="17", state="RUNNING", reason="None", start="N/A", nodes="node1", elapsed="0:10")


@pytest.fixture
def run(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "effective.json").write_text("{}")
    return RunDir(path=tmp_path / "out")


@pytest.fixture
def sites(tmp_path, monkeypatch):
    monkeypatch.setenv("HPCXRF_SITES", str(tmp_path / "sites"))
    (tmp_path / "sites").mkdir()

    def write(**fields):
        usual = {"cores_per_node": 8, "memory_per_worker_mb": 1000, "time_limit_h": 2}
        (tmp_path / "sites" / "lab.yaml").write_text(json.dumps({**usual, **fields}))

    write()
    return write


def address_of(run, job_id="17"):
    address = ExplorerAddress(job_id=job_id, host="node1", socket="/node/x/explore.sock", secret=KNOWN)
    write_address(run, address)
    return address


def test_the_script_is_of_one_core_ends_before_its_time_and_is_none_of_the_run(run, sites):
    sites(partition="gpu", driver_partition="small", gpus_per_node=4, account="xrf", scratch="/s", modules=["python"])
    job = prepare_explorer_job(run.path, "lab", ("--idle-h", "4", "--dataset", "leaf-1a2b3c4d"), 7200)
    lines = job.script.splitlines()
    assert lines[0] == "#!/bin/bash -l"
    given = {line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")}
    assert given >= {"--nodes=1", "--ntasks=1", "--cpus-per-task=1", "--time=02:00:00", "--partition=small"}
    assert given >= {"--account=xrf", "--signal=B:TERM@60", "--no-requeue", "--job-name=hpcxrf-explore"}
    assert not [one for one in given if "gpu" in one]
    module = "exec python -P -m hpcxrf.explore.job"
    assert lines[-1] == f"{module} {run.path} --idle-h 4 --dataset leaf-1a2b3c4d --scratch /s"
    assert "umask 077" in lines
    assert job.command == f"sbatch --chdir={run.path} --output={run.path}/explore/job-%j.log"
    [comment] = [one.partition("=")[2] for one in given if one.startswith("--comment=")]
    state = replace(RUNS, comment=comment, name="hpcxrf-explore", folder=str(run.path))
    # Even where Slurm gave it the number of a job that the run had once.
    assert not is_job_of(state, run.path, ["17"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--site", "lab"), "give --submit"),
        (("--dry-run",), "give --submit"),
        (("--wait-min", "1"), "give --submit"),
        (("--submit", "--port", "8000"), "--submit and --port"),
        (("--submit",), "was never submitted; name a profile with --site"),
        (("--submit", "--site", "nowhere"), "nowhere"),
        (("--submit", "--site", "lab", "--time", "1"), "a time limit of 60 s"),
        (("--submit", "--site", "lab", "--time", "soon"), "must be minutes"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_written(hpcxrf, run, sites, arguments, told):
    before = hash_tree(run.path)
    ran = hpcxrf("explore", run.path, *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert told in " ".join(ran.err.split())
    assert hash_tree(run.path) == before


def test_only_a_run_directory_is_explored_by_a_job(hpcxrf, sites, tmp_path):
    ran = hpcxrf("explore", tmp_path, "--submit", "--site", "lab")
    assert ran.code == 2
    assert "--submit explores a run directory" in ran.err


def test_a_dry_run_shows_the_script_and_writes_nothing(hpcxrf, run, sites, monkeypatch):
    monkeypatch.setattr(explorer_jobs.slurm, "own_jobs", lambda: pytest.fail("Slurm was asked"))
    before = sorted(run.path.rglob("*"))
    ran = hpcxrf("explore", run.path, "--submit", "--site", "lab", "--dry-run", "--idle-h", "2", "--read-only")
    assert ran.code == 0
    assert ran.out == prepare_explorer_job(run.path, "lab", ("--idle-h", "2", "--read-only"), None).script
    assert "to be submitted with: sbatch" in ran.err
    assert sorted(run.path.rglob("*")) == before


def test_the_address_is_a_file_of_the_user_alone_and_what_killed_jobs_left_is_removed(run):
    old = os.umask(0)
    try:
        address = address_of(run)
        address_of(run, "16")
    finally:
        os.umask(old)
    folder = run.secrets / "explorer"
    assert read_address(run, "17") == address
    for path in (run.secrets, folder):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    (folder / ".job-16.json.4711").touch()
    remove_stale_addresses(run, {"17"})
    assert [path.name for path in folder.iterdir()] == ["job-17.json"]
    remove_address(run, "17")
    remove_address(run, "17")
    assert read_address(run, "17") is None


def test_a_folder_of_secrets_that_is_a_link_is_refused(run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    run.secrets.mkdir()
    (run.secrets / "explorer").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="secrets need a"):
        address_of(run)
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"job_id": 17, "host": "a", "socket": "b", "secret": "c"}'])
def test_an_address_that_is_damaged_is_refused(run, text):
    address_of(run)
    (run.secrets / "explorer" / "job-17.json").write_text(text)
    with pytest.raises(OutputError, match=r"job-17\.json"):
        read_address(run, "17")


def test_whoever_waits_is_told_why_once_and_gets_the_address(run, monkeypatch):
    monkeypatch.setattr(explorer_jobs, "_LOOK_S", 0.0)
    states, told = [WAITS, WAITS, SlurmError("silent"), RUNS, RUNS], []

    def look(_job_id):
        state = states.pop(0)
        if not states:
            address_of(run)
        if isinstance(state, Exception):
            raise state
        return state

    assert wait_for_address(run, "17", patience_s=60, tell=told.append, ask=look).secret == KNOWN
    assert told == [
        "job 17 waits: Priority, expected to start 2026-12-01T08:00:00",
        "Slurm does not answer about job 17 now (silent)",
        "job 17 is RUNNING on node1: the explorer starts",
    ]


def test_the_wait_has_an_end_and_a_job_that_ended_is_said_to_have_with_its_log(run, monkeypatch):
    monkeypatch.setattr(explorer_jobs, "_LOOK_S", 0.0)
    assert wait_for_address(run, "17", patience_s=0.0, tell=lambda _: None, ask=lambda _: WAITS) is None
    ended = replace(RUNS, state="FAILED", reason="NonZeroExitCode")
    # What it left is not believed any more.
    address_of(run)
    with pytest.raises(OutputError, match=r"ended before anybody could look: FAILED \(NonZeroExitCode\).*has nothing"):
        wait_for_address(run, "17", patience_s=9.0, tell=lambda _: None, ask=lambda _: ended)
    (run.path / "explore").mkdir()
    (run.path / "explore" / "job-17.log").write_text("error: no \x1b[2J folder\n")
    with pytest.raises(OutputError, match=r"job-17\.log:\nerror: no [^\x1b]*folder"):
        wait_for_address(run, "17", patience_s=9.0, tell=lambda _: None, ask=lambda _: ended)


def test_the_tunnel_goes_through_the_login_node_and_ssh_can_read_it(run, sites):
    sites(login_host="login.lab.org")
    site = prepare_explorer_job(run.path, "lab", (), None).site
    line = write_tunnel(address_of(run), site, 8000)
    assert re.fullmatch(r"ssh -N -L 8000:/node/x/explore\.sock -J \S+@login\.lab\.org \S+@node1", line)
    read = subprocess.run(["ssh", "-G", *line.split()[1:]], capture_output=True, text=True, check=True)
    assert "localforward 8000 /node/x/explore.sock" in read.stdout


def test_a_folder_in_whose_name_a_job_cannot_work_is_refused(run, sites):
    folder = run.path.with_name("a\\b")
    run.path.rename(folder)
    with pytest.raises(ConfigError, match="backslash"):
        prepare_explorer_job(folder, "lab", (), None)
