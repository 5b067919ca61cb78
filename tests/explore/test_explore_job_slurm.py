"""`hpcxrf explore RUN --submit` on a real Slurm: waited for, reached through a tunnel, and ended in every way."""

import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from explore_samples import NAME
from forwarder import forwarded
from playwright.sync_api import expect

from hpcxrf.cluster.explorer_address import read_address
from hpcxrf.cluster.login.explorer_jobs import find_explorer_job
from hpcxrf.cluster.login.run_jobs import list_run_jobs
from hpcxrf.store.rundir import RunDir

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(290)]
ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120.0


@pytest.fixture
def run(made, tmp_path, slurm_cluster, monkeypatch):
    """A run of this test alone; its jobs import what is tested."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return RunDir(path=Path(shutil.copytree(made.folder, tmp_path / "out")))


def command(run, *arguments):
    return [sys.executable, "-m", "hpcxrf", "explore", str(run.path), "--submit", "--site", "testcluster", *arguments]


def submit(run, *arguments):
    """What the command prints: tunnel and address, and what it says beside them."""
    ran = subprocess.run(command(run, *arguments), capture_output=True, text=True, check=False, timeout=200)
    assert ran.returncode == 0, ran.stderr
    tunnel, address = ran.stdout.splitlines()
    return tunnel, address, ran.stderr


@contextmanager
def ended_soon(run):
    """Whatever happens, and afterwards nothing of the job is left."""
    until(lambda: find_explorer_job(run) is not None, "a job")
    job = find_explorer_job(run)
    yield job.job_id
    until(lambda: find_explorer_job(run) is None, "its end")
    until(lambda: read_address(run, job.job_id) is None, "the end of its address")


def until(condition, what):
    ends = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends, f"waited in vain for {what}"
        time.sleep(0.2)


def log_of(run, job_id):
    return (run.path / "explore" / f"job-{job_id}.log").read_text()


@pytest.mark.browser
def test_it_is_submitted_reached_through_a_tunnel_found_again_and_cancelled(run, slurm_cluster, browser, hpcxrf):
    tunnel, address, said = submit(run)
    assert re.search(r"^job \d+ is in the queue$", said, re.MULTILINE), said
    path = re.fullmatch(r"ssh -N -L 8000:(\S+/explore\.sock) .*\S+@\S+", tunnel)[1]
    secret = re.fullmatch(r"http://localhost:8000/#([\w-]{22})", address)[1]
    with ended_soon(run) as job_id:
        assert f"scancel {job_id}" in said
        with forwarded(path) as port:
            page = browser.new_page()
            page.set_default_timeout(60_000)
            page.goto(f"http://localhost:{port}/#{secret}")
            page.locator("html[data-ready=all]").wait_for(state="attached")
            with page.expect_response(lambda one: one.url.endswith("/api/spectrum")) as got:
                page.locator(".stage").click()
            assert got.value.json()["n_pixels"] == 1
            expect(page.locator("#dataset")).to_have_value(NAME)
            # Another browser has nothing without the secret.
            other = browser.new_context().new_page()
            other.goto(f"http://localhost:{port}/")
            assert other.evaluate("fetch('/api/scan').then((one) => one.status)") == 403
            other.context.close()
            page.context.close()
        again = submit(run)
        assert again[:2] == (tunnel, address)
        assert f"job {job_id} explores this run already" in again[2]
        # It is no work on the run: neither is it seen as such, nor ended as such.
        assert list_run_jobs(run) == []
        assert hpcxrf("status", run.path, "--json").json["job_id"] is None
        assert hpcxrf("cancel", run.path).code == 4
        assert find_explorer_job(run).job_id == job_id
        for look in (slurm_cluster.run("scontrol", "show", "job", job_id), said, log_of(run, job_id)):
            assert secret not in look
        script = slurm_cluster.run("scontrol", "write", "batch_script", job_id, "-")
        assert "hpcxrf.explore.job" in script
        assert secret not in script
        slurm_cluster.run("scancel", job_id)
    assert not Path(path).parent.exists()
    assert "ended: it was told to" in log_of(run, job_id)


def test_whoever_waits_sees_why_and_leaves_the_job_by_ctrl_c(run, slurm_cluster):
    slurm_cluster.run("sbatch", "-N3", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 600")
    with subprocess.Popen(command(run), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waiting:
        lines = []
        while not any(re.search(r"job \d+ waits: (Resources|Priority|None)", line) for line in lines):
            line = waiting.stderr.readline()
            assert line, lines
            lines.append(line)
        waiting.send_signal(signal.SIGINT)
        out, err = waiting.communicate(timeout=60)
    job_id = find_explorer_job(run).job_id
    assert waiting.returncode == 130
    assert out == ""
    assert f"job {job_id} stays where it is" in err
    assert f"look again with:  hpcxrf explore {run.path} --submit" in err
    assert f"cancel it with:   scancel {job_id}" in err
    # The wait has an end, too.
    ran = subprocess.run(command(run, "--wait-min", "0"), capture_output=True, text=True, check=False, timeout=100)
    assert (ran.returncode, ran.stdout) == (75, "")
    assert f"job {job_id} does not listen yet, after 0 min" in ran.stderr
    slurm_cluster.run("scancel", job_id)
    until(lambda: find_explorer_job(run) is None, "its end")


def test_it_ends_by_itself_when_nobody_asks(run, slurm_cluster):
    tunnel, _, _ = submit(run, "--idle-h", "0.01")
    path = Path(tunnel.split()[3].partition(":")[2])
    with ended_soon(run) as job_id:
        assert path.exists()
    assert not path.parent.exists()
    assert "ended: nothing was asked for 0.01 h" in log_of(run, job_id)


@pytest.mark.timeout(500)
def test_it_ends_before_its_time_limit(run, slurm_cluster, monkeypatch):
    tunnel, _, _ = submit(run, "--time", "0:03:00")
    path = Path(tunnel.split()[3].partition(":")[2])
    monkeypatch.setitem(globals(), "PATIENCE_S", 300.0)
    with ended_soon(run) as job_id:
        pass
    assert not path.parent.exists()
    assert "ended: it was told to, or its time limit is near" in log_of(run, job_id)
    assert "TIMEOUT" not in slurm_cluster.run("squeue", "-h", "-t", "all", "-o", "%T", "-j", job_id)


def test_a_job_that_cannot_begin_is_said_to_have_ended_with_its_log(run, slurm_cluster, tmp_path, monkeypatch):
    (tmp_path / "sites").mkdir()
    profile = (ROOT / "slurm" / "testcluster.yaml").read_text() + "scratch: /nowhere/at/all\n"
    (tmp_path / "sites" / "broken.yaml").write_text(profile)
    monkeypatch.setenv("HPCXRF_SITES", str(tmp_path / "sites"))
    argv = [one if one != "testcluster" else "broken" for one in command(run)]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=200)
    assert (ran.returncode, ran.stdout) == (4, ""), ran.stderr
    assert "ended before anybody could look: FAILED" in ran.stderr
    assert "a socket needs a folder of a local disk" in ran.stderr
