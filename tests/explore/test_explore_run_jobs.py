"""Beginning and stopping runs from the explorer: nothing before exactly what was shown is confirmed."""

import json
import os
import signal
import time

import pytest
import yaml
from run_folders import Asked, bare_run, ended_run

from hpcxrf.explore import run_jobs
from hpcxrf.explore.run_plans import read_answer
from hpcxrf.explore.runs import find_run
from hpcxrf.store.lock import run_lock
from tests.samples.stand_in_jobs import GOOD, site

NEW = {"name": "leaf-1", "site": ""}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder for runs with a scan beside it, a site profile, and sbatch that only writes down how it is called."""
    monkeypatch.setenv("HPCXRF_SITES", str(tmp_path / "sites"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("sites", "runs", "bin"):
        (tmp_path / name).mkdir()
    site(tmp_path, GOOD)
    (tmp_path / "runs" / "leaf.h50").touch()
    ended_run(tmp_path / "runs" / "old", "done", "failed")
    programs = {
        "sbatch": f"cat > {tmp_path}/script; printf '%s\\n' \"$@\" > {tmp_path}/options; echo 17",
        "squeue": "exit 0",
        "sinfo": "echo 'main*|up|1:00:00|3|8|6000|gpu:4|idle'; exit 0",
        "scancel": f"echo $@ >> {tmp_path}/cancelled",
    }
    for name, body in programs.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.defpath}")
    monkeypatch.setattr(run_jobs, "submit_run", lambda submission: submitted.append(submission) or "17")
    monkeypatch.setattr(run_jobs, "submit_again", lambda run: submitted.append(run) or "18")
    submitted.clear()
    return tmp_path / "runs"


submitted = []


@pytest.fixture
def asked(folder):
    return Asked(folder)


def run_file(**sections):
    raw = {"input": {"files": ["leaf.h50"]}, "sample": {"elements": ["Fe"], "incident_energy_kev": 12}, **sections}
    return yaml.safe_dump(raw)


def entries(folder):
    return sorted(path.name for path in folder.rglob("*"))


def test_a_run_is_prepared_without_writing_and_begun_by_the_code_of_what_was_shown(asked, folder, monkeypatch):
    begun = []
    monkeypatch.setattr(run_jobs, "_RUNNER", ("/bin/sh", "-c", 'echo "$0 $@"; exec sleep 30'))
    monkeypatch.setattr(run_jobs.subprocess, "Popen", spy(run_jobs.subprocess.Popen, begun))
    before = entries(folder)
    request = {**NEW, "text": run_file()}
    told = asked.post("/api/runs/prepare", request)
    assert entries(folder) == before
    assert told["script"].endswith(f">> {folder}/leaf-1/logs/run-here.log 2>&1 &\n")
    assert f"run {folder}/leaf-1.yaml -o {folder}/leaf-1" in told["command"]
    for code in (None, "", told["code"][:-1], "0" * 64):
        assert asked.post("/api/runs/begin", request | ({} if code is None else {"code": code}), 400)
    assert entries(folder) == before
    process = asked.post("/api/runs/begin", request | {"code": told["code"]})["process"]
    try:
        assert (folder / "leaf-1.yaml").read_text() == request["text"]
        assert os.getsid(process) == process
        argv, options = begun[0]
        assert argv == [*run_jobs._RUNNER, "run", f"{folder}/leaf-1.yaml", "-o", f"{folder}/leaf-1"]
        assert "shell" not in options
        until(lambda: f"run {folder}/leaf-1.yaml" in (folder / "leaf-1" / "logs" / "run-here.log").read_text())
    finally:
        os.kill(process, signal.SIGKILL)
    until(lambda: asked.get("/api/runs")["refused"])
    # It was killed before it had made a run, and what it said is told.
    [refused] = asked.get("/api/runs")["refused"]
    assert (refused["name"], refused["code"]) == ("leaf-1", -signal.SIGKILL)
    assert "leaf-1.yaml" in refused["log"]
    assert asked.post("/api/runs/prepare", request)["code"] == told["code"]


def spy(real, calls):
    def popen(argv, **options):
        calls.append((argv, options))
        return real(argv, **options)

    return popen


def until(condition, patience_s=20.0):
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    "change", [{"text": run_file(fit={"suggest": False})}, {"name": "leaf-2"}, {"workers": 1}, {"time": "0:30:00"}]
)
def test_a_script_that_changed_since_it_was_shown_is_refused(asked, folder, change):
    request = {**NEW, "site": "lab", "text": run_file()}
    told = asked.post("/api/runs/prepare", request)
    assert "#SBATCH --partition=main" in told["script"]
    assert told["command"].startswith(f"sbatch --chdir={folder}/leaf-1 ")
    answer = asked.post("/api/runs/begin", request | change | {"code": told["code"]}, 400)
    assert "not what was shown" in answer["error"]
    assert submitted == []
    assert not (folder / "leaf-1.yaml").exists()


def test_a_site_profile_that_changed_since_is_refused_and_the_same_is_submitted(asked, folder, tmp_path):
    request = {**NEW, "site": "lab", "text": run_file()}
    told = asked.post("/api/runs/prepare", request)
    # The worker's interpreter is not in the script, but what the driver is told.
    site(tmp_path, GOOD, worker_python="/home/evil/python")
    assert "not what was shown" in asked.post("/api/runs/begin", request | {"code": told["code"]}, 400)["error"]
    site(tmp_path, GOOD)
    assert asked.post("/api/runs/begin", request | {"code": told["code"]})["job_id"] == "17"
    assert submitted[0].script == told["script"]
    assert submitted[0].folder == folder / "leaf-1"
    assert submitted[0].run_text == request["text"]
    assert (folder / "leaf-1.yaml").is_file()


@pytest.mark.parametrize(
    ("change", "status", "told"),
    [
        ({"name": "../leaf"}, 400, "letters, digits"),
        ({"name": ""}, 400, "letters, digits"),
        ({"name": ".hidden"}, 400, "letters, digits"),
        ({"name": 3}, 400, "must be a text"),
        ({"text": 3}, 400, "must be a text"),
        ({"text": "input: {files: []}"}, 400, "input.files: is empty"),
        ({"site": "nowhere"}, 400, "no profile of that name"),
        ({"site": "../sites/lab.yaml"}, 400, "no profile of that name"),
        ({"site": "{sites}/lab.yaml"}, 400, "no profile of that name"),
        ({"site": "lab", "workers": 0}, 400, "whole number"),
        ({"site": "lab", "workers": True}, 400, "whole number"),
        ({"site": "lab", "nodes": "2"}, 400, "whole number"),
        ({"site": "lab", "time": "soon"}, 400, "must be minutes"),
        ({"site": "lab", "time": "90; rm"}, 400, "must be minutes"),
        ({"site": "lab", "text": run_file(input={"files": ["gone.h5"]})}, 400, "input not found"),
        ({"text": run_file(sample={"elements": ["Qq"]})}, 422, "Qq"),
        ({"name": "old", "text": run_file()}, 409, "says something else"),
        ({"name": "taken"}, 409, "is not a run directory"),
        ({"name": "link"}, 409, "is a link"),
        ({"run": "../old"}, 400, "no such run"),
    ],
)
def test_what_cannot_be_begun_is_refused_before_anything_is_written(asked, folder, tmp_path, change, status, told):
    (folder / "old.yaml").write_text("input: {files: [other]}\n")
    (folder / "taken").mkdir()
    (folder / "taken" / "notes.txt").touch()
    (folder / "link").symlink_to(tmp_path)
    change = {k: v.format(sites=tmp_path / "sites") if k == "site" else v for k, v in change.items()}
    before = entries(folder)
    request = {**NEW, "text": run_file(), **change}
    assert told in asked.post("/api/runs/prepare", request, status)["error"]
    assert asked.post("/api/runs/begin", request | {"code": "0" * 64}, status)
    assert entries(folder) == before
    assert submitted == []


def test_a_run_goes_on_by_the_script_that_it_keeps_or_by_resume(asked, folder):
    told = asked.post("/api/runs/prepare", {"run": "old"})
    assert told["command"].endswith(f"resume {folder}/old")
    assert told["run_file"] is None
    kept = find_run(asked.runs, "old").path / "jobs" / "job.sh"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("#!/bin/bash\necho kept\n")
    told = asked.post("/api/runs/prepare", {"run": "old"})
    assert told["script"] == "#!/bin/bash\necho kept\n"
    kept.write_text("#!/bin/bash\necho other\n")
    assert asked.post("/api/runs/begin", {"run": "old", "code": told["code"]}, 400)
    kept.write_text("#!/bin/bash\necho kept\n")
    assert asked.post("/api/runs/begin", {"run": "old", "code": told["code"]})["job_id"] == "18"
    assert [one.path for one in submitted] == [folder / "old"]
    with run_lock(find_run(asked.runs, "old")):
        assert "stop it first" in asked.post("/api/runs/prepare", {"run": "old"}, 409)["error"]


def test_a_name_of_a_run_goes_on_with_it_and_says_so(asked, folder):
    told = asked.post("/api/runs/prepare", {**NEW, "name": "old", "text": run_file()})
    assert "goes on if its configuration is the same" in told["notes"][0]


def test_an_explorer_that_only_reads_begins_and_stops_nothing_and_plans(folder):
    asked = Asked(folder, read_only=True)
    assert asked.get("/api/runs")["read_only"]
    for name, body in (("prepare", {**NEW, "text": run_file()}), ("begin", {"run": "old"}), ("stop", {"run": "old"})):
        assert "--read-only" in asked.post(f"/api/runs/{name}", body, 400)["error"]
    assert asked.post("/api/runs/plan", {"text": run_file(), "name": "leaf-1", "site": ""})["id"]


def test_beside_a_run_that_was_given_itself_none_is_begun(folder):
    asked = Asked(folder / "old")
    assert "one run was opened" in asked.post("/api/runs/prepare", {**NEW, "text": run_file()}, 400)["error"]
    assert asked.post("/api/runs/prepare", {"run": "old"})["code"]


def test_what_works_on_a_run_is_stopped(asked, folder):
    import subprocess
    import sys

    run = bare_run(folder / "here")
    holder = (
        "import sys, time; from pathlib import Path\n"
        "from hpcxrf.store.lock import run_lock; from hpcxrf.store.rundir import RunDir\n"
        "with run_lock(RunDir(path=Path(sys.argv[1]))): print('held', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", holder, str(run.path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        assert asked.row("here")["verdict"] == "running"
        assert asked.post("/api/runs/stop", {"run": "here"})["process"] == process.pid
        assert process.wait(20) == -signal.SIGTERM
    assert "no process and no job" in asked.post("/api/runs/stop", {"run": "here"}, 409)["error"]


def test_a_plan_is_what_the_command_says_and_its_own_files_go(asked, folder, hpcxrf, monkeypatch, tmp_path):
    from tests.cluster.drills import make_scans

    make_scans(folder / "scans", 2)
    text = yaml.safe_dump({"input": {"files": ["scans"]}, "fit": {"suggest": False}})
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    before = entries(folder)
    name = asked.post("/api/runs/plan", {"text": text, "name": "leaf-1", "site": ""})["id"]
    until(lambda: asked.get(f"/api/runs/plan?id={name}")["state"] == "done", 60)
    told = asked.get(f"/api/runs/plan?id={name}")
    assert told["faults"] == []
    (tmp_path / "run.yaml").write_text(text.replace("scans", str(folder / "scans")))
    by_command = hpcxrf("plan", tmp_path / "run.yaml", "-o", folder / "leaf-1", "--json").json
    assert told["plan"] == by_command
    assert told["plan"]["datasets"] == 2
    assert list(place.iterdir()) == []
    assert entries(folder) == before


def test_a_newer_plan_ends_an_older_one_and_faults_are_those_of_the_command(asked):
    text = run_file(sample={"elements": ["Qq"], "incident_energy_kev": 12})
    ask = {"text": text, "name": "leaf-1", "site": ""}
    first = asked.post("/api/runs/plan", ask)["id"]
    second = asked.post("/api/runs/plan", ask)["id"]
    until(lambda: asked.get(f"/api/runs/plan?id={first}")["state"] == "given up")
    until(lambda: asked.get(f"/api/runs/plan?id={second}")["state"] == "done", 60)
    told = asked.get(f"/api/runs/plan?id={second}")
    assert told["code"] == 5
    assert "Qq" in told["faults"][0]["text"]
    assert asked.get("/api/runs/plan?id=99", 400)
    assert "faults" in asked.post("/api/runs/plan", ask | {"text": "input: 3"}, 400)["error"]
    for change in ({"name": "../x"}, {"site": "../sites/lab.yaml"}, {"text": 3}):
        assert asked.post("/api/runs/plan", ask | change, 400)


def test_faults_of_a_plan_are_at_their_options():
    told = "open files 3\nerror: /x/run.yaml: cannot run:\n  fit.start: no such parameter\n  disk is full\n"
    answer = read_answer(2, json.dumps({"datasets": 3}), told, "/x/run.yaml")
    assert answer["faults"] == [
        {"places": ["fit.start"], "text": "fit.start: no such parameter"},
        {"places": [], "text": "disk is full"},
    ]
    assert answer["plan"] == {"datasets": 3}
    assert read_answer(-9, "", "", "/x/run.yaml") == {"state": "given up"}
    assert read_answer(1, "no json", "error: it broke", "x")["plan"] is None
    # Where there is no plan, there must be a fault: else the page says that nothing speaks against it.
    (fault,) = read_answer(0, "no json", "", "x")["faults"]
    assert "printed no JSON object but 'no json'" in fault["text"]
