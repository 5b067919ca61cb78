"""The README's way to try a cluster on one machine, line by line, with the real driver; and a run here, steered."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from hpcxrf.simulate import demo_spec, simulate_scan, write_scan

pytestmark = pytest.mark.more

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture
def shell(tmp_path):
    """Run a line in bash; `hpcxrf` and `python` are those of this environment and this checkout."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, words in (("hpcxrf", "-m hpcxrf"), ("python", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
        (programs / name).chmod(0o700)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))}
    env |= {"PATH": f"{programs}:{env['PATH']}", "PYTHONPATH": str(ROOT), "XDG_CONFIG_HOME": str(tmp_path / "c")}

    def run(line: str, *, code: int = 0) -> subprocess.CompletedProcess[str]:
        # What a line exports, the next one has.
        script = f"{line}\necho $? >&3; declare -p SLURM_CONF 2>/dev/null | sed 's/.*=\"//; s/\"$//' >&3"
        read, write = os.pipe()
        done = subprocess.run(
            ["bash", "-c", f"exec 3>&{write}\n{script}"],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            pass_fds=(write,),
        )
        os.close(write)
        with os.fdopen(read) as told:
            status, *exported = told.read().splitlines()
        assert int(status) == code, f"{line}: {done.stderr}"
        if exported:
            env["SLURM_CONF"] = exported[0]
        return done

    return run


def answered(shell) -> dict[str, object]:
    """What `hpcxrf dashboard` says once there is one."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        told = shell("hpcxrf dashboard out --json || true").stdout
        if told and json.loads(told)["answers"]:
            return json.loads(told)
        time.sleep(0.1)
    pytest.fail("the dashboard of the run never answered")


@pytest.mark.slow
@pytest.mark.slurm
def test_the_readme_s_cluster_on_one_machine_works_line_by_line(slurm_programs, shell, tmp_path):
    (block,) = [b for b in BLOCKS if "testcluster" in b]
    folder = Path(tempfile.mkdtemp(prefix="my-slurm-"))
    lines = re.sub(r"/tmp/my-slurm\b", str(folder), block).splitlines()  # noqa: S108 (the README's)
    start, simulate, submit, watch, stop = lines
    (tmp_path / "workflows").mkdir()
    shutil.copy(ROOT / "workflows" / "demo.yaml", tmp_path / "workflows")
    try:
        shell(start)
        shell(simulate)
        assert "is in the queue" in shell(submit).stderr
        way = answered(shell)
        port = int(re.search(r"127\.0\.0\.1:(\d+)/", str(way["url"])).group(1))
        assert str(way["ssh"]).startswith(f"ssh -N -L {port}:127.0.0.1:{port} ")
        assert "finished" in " ".join(shell(watch).stdout.split())
        status = json.loads(shell("hpcxrf status out --json").stdout)
        assert (status["verdict"], status["done"], status["failed"]) == ("done", 1, 0)
        assert (tmp_path / "out" / "report.html").is_file()
        assert "datasets: 1 done, 0 failed" in shell("hpcxrf logs out").stdout
        shell("hpcxrf dashboard out", code=4)
        shell(stop)
    finally:
        if (folder / "cluster.json").exists():
            shell(stop)
        shutil.rmtree(folder)


def test_a_run_on_this_machine_is_cancelled_and_goes_on(hpcxrf, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_scan(simulate_scan(demo_spec(seed=1, shape=(1, 24, 24, 2048), name="scan")), tmp_path)
    driver = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "hpcxrf",
            "run",
            "scan.h50",
            "--elements",
            "Si,P,S,Cl,K,Ca,Ti,Mn,Fe,Cu,Zn,Pb_L",
            "--energy",
            "13.5",
            "--workers",
            "1",
            "-o",
            "out",
        ],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with driver:
        deadline = time.monotonic() + 60
        # The lock comes first, and a folder is a run with its configuration.
        while not all((tmp_path / "out" / name).exists() for name in ("lock", "effective.json")):
            assert driver.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        status = hpcxrf("status", "out", "--json").json
        assert (status["verdict"], status["job_id"]) == ("running", None)
        assert f"pid {driver.pid}" in status["said"]
        assert hpcxrf("cancel", "out").code == 0
        assert driver.wait(timeout=60) == 75
    assert hpcxrf("status", "out", "--json").json["verdict"] in {"new", "stopped"}
    assert "no process and no job works on this run" in hpcxrf("cancel", "out").err
    ran = hpcxrf("resume", "out")
    assert ran.code == 0, ran.err
    assert hpcxrf("status", "out", "--json").json["verdict"] == "done"
