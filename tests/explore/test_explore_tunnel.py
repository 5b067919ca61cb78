"""The printed ssh line leads through a login node to the explorer in a job of a real Slurm."""

import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ssh_server import INSTALL, missing_programs, ssh_server, wait_until_open

from hpcxrf.cluster.login.explorer_jobs import find_explorer_job
from hpcxrf.store.rundir import RunDir
from tests.conftest import skip_or_fail

pytestmark = [pytest.mark.slurm, pytest.mark.browser, pytest.mark.more, pytest.mark.timeout(290)]
ROOT = Path(__file__).resolve().parents[2]
SECRET_LENGTH = 22


@pytest.fixture
def ssh_settings(tmp_path):
    if missing := missing_programs():
        skip_or_fail(f"{', '.join(missing)} not found; {INSTALL}")
    with ssh_server(tmp_path / "ssh") as settings:
        yield settings


def test_the_printed_line_opens_a_tunnel_and_the_page_works_through_it(
    made, tmp_path, slurm_cluster, ssh_settings, browser, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "sites").mkdir()
    profile = yaml.safe_load((ROOT / "slurm" / "testcluster.yaml").read_text())
    (tmp_path / "sites" / "lab.yaml").write_text(yaml.safe_dump({**profile, "login_host": "login.lab.org"}))
    monkeypatch.setenv("HPCXRF_SITES", str(tmp_path / "sites"))
    run = RunDir(path=Path(shutil.copytree(made.folder, tmp_path / "out")))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "hpcxrf", "explore", str(run.path), "--submit", "--site", "lab"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert ran.returncode == 0, ran.stderr
    line, address = ran.stdout.splitlines()
    # The near end may be any port; 8000 may be taken where tests run.
    line, address = line.replace("-L 8000:", f"-L {port}:"), address.replace(":8000/", f":{port}/")
    assert f"-L {port}:" in line
    assert "@login.lab.org " in line
    job = find_explorer_job(run)
    # The settings say where the hosts of the line are; both ends of the jump are real sessions of ssh.
    program, *rest = shlex.split(line)
    tunnel = subprocess.Popen([program, "-F", str(ssh_settings), *rest], stderr=subprocess.PIPE, text=True)
    try:
        wait_until_open(int(port), tunnel, tunnel.stderr.read)
        page = browser.new_page()
        page.set_default_timeout(60_000)
        page.goto(address)
        page.locator("html[data-ready=all]").wait_for(state="attached")
        with page.expect_response(lambda one: one.url.endswith("/api/spectrum")) as got:
            page.locator(".stage").click()
        assert got.value.json()["n_pixels"] == 1
        # The secret is in the fragment: neither ssh nor the command line of any process has it.
        secret = address.partition("#")[2]
        assert len(secret) == SECRET_LENGTH
        assert secret not in line
        page.close()
    finally:
        tunnel.terminate()
        said = tunnel.communicate(timeout=30)[1]
        slurm_cluster.run("scancel", job.job_id)
    assert "refused" not in said
    sessions = (ssh_settings.parent / "sshd.log").read_text()
    # One to the login node, one through it to the node of the job.
    assert sessions.count("Accepted publickey") == 2
