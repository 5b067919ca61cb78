"""`hpcxrf.process` and the recipes of the page on workflows, copied out of it and run."""

import concurrent.futures
import dataclasses
import importlib.util
import json
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from mda_files import write_step_scan
from run_samples import spectrum, write_scan

import hpcxrf
from hpcxrf.errors import ConfigError, OutputError
from hpcxrf.store.rundir import FINISHED, RunDir

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "how-to" / "run-in-a-workflow.md").read_text("utf-8")
RECIPES = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def recipe(word):
    (found,) = [text for text in RECIPES if word in text]
    return found


@pytest.fixture
def scans(tmp_path):
    mean = np.broadcast_to(spectrum({"Si": 300.0, "Fe": 900.0, "Zn": 200.0}), (1, 4, 4, 1200))
    write_scan(tmp_path / "scans", mean, elements=("Si", "Fe", "Zn"))
    return tmp_path / "scans"


@pytest.fixture
def run_file(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("input: {files: [none]}\nregions: {find: []}\nfit: {suggest: false}\nexecution: {workers: 1}\n")
    return file


def finished_tasks(output):
    run = RunDir(path=output)
    return [line["task"] for name in run.dataset_ids() for line in run.read_journal(name) if line["event"] == FINISHED]


def test_arguments_and_outcome_are_plain_values_and_nothing_is_asked_without_files(tmp_path):
    outcome = hpcxrf.Outcome(
        state="done",
        output="/out",
        datasets=("a-00000000",),
        results={"a-00000000": "/out/results/a-00000000.zarr"},
        verdicts={"a-00000000": "good"},
        reasons={},
        report="/out/report.html",
        tasks=4,
        seconds=1.5,
        versions={"hpcxrf": hpcxrf.__version__},
    )
    assert pickle.loads(pickle.dumps(outcome)) == outcome  # noqa: S301 (made here)
    assert json.loads(json.dumps(dataclasses.asdict(outcome)))["state"] == "done"
    with pytest.raises(dataclasses.FrozenInstanceError):
        outcome.state = "failed"
    with pytest.raises(ConfigError, match="files is empty"):
        hpcxrf.process([], None, tmp_path / "out")


@pytest.mark.more
@pytest.mark.timeout(1800)
def test_the_function_that_is_sent_as_its_source_gives_an_outcome_and_a_second_call_does_nothing(
    scans, run_file, tmp_path
):
    whole = write_step_scan(tmp_path / "whole.mda", np.ones((1, 2, 2, 64), np.float32))
    (scans / "broken.mda").write_bytes(whole.read_bytes()[:-2])
    program = (
        "import json, sys\nquestion = json.load(sys.stdin)\nplace = {}\nexec(question['source'], place)\n"
        "print(json.dumps(place['fit_scans'](*question['arguments'])))"
    )
    output = tmp_path / "out"
    arguments = [[str(scans / "scan.npy"), str(scans / "broken.mda")], str(run_file), str(output)]

    def send():
        done = subprocess.run(
            [sys.executable, "-c", program],
            input=json.dumps({"source": recipe("def fit_scans"), "arguments": arguments}),
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    first = send()
    assert first["state"] == "partly done"
    (name,) = first["results"]
    assert name.startswith("scan-")
    assert Path(first["results"][name]).is_dir()
    assert first["verdicts"][name] in {"good", "doubtful", "wrong"}
    ((broken, reason),) = first["reasons"].items()
    assert broken.startswith("broken-")
    assert "truncated" in reason
    assert Path(first["report"]).is_file()
    assert first["tasks"] == len(finished_tasks(output)) > 0
    assert first["versions"]["hpcxrf"] == hpcxrf.__version__
    before = finished_tasks(output)
    second = send()
    assert (second["state"], second["tasks"]) == ("partly done", 0)
    assert finished_tasks(output) == before
    # Other files in the same output are refused.
    with pytest.raises(OutputError, match="another configuration"):
        hpcxrf.process(scans / "scan.npy", run_file, output)


def call(arguments):
    return hpcxrf.process(*arguments)


@pytest.mark.more
@pytest.mark.timeout(1800)
def test_it_works_in_workers_of_pools_that_may_start_no_processes_of_their_own_and_in_threads(
    scans, run_file, tmp_path
):
    arguments = (scans / "scan.npy", run_file, tmp_path / "pool")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        outcome = pool.apply(call, (arguments,))
    assert outcome.state == "done"
    assert outcome.tasks > 0
    broken = tmp_path / "broken.npy"
    broken.write_bytes(b"\x93NUMPY\x01\0")
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        again = threads.submit(hpcxrf.process, *arguments)
        failed = threads.submit(hpcxrf.process, broken, run_file, tmp_path / "failed")
        assert (again.result().state, again.result().tasks) == ("done", 0)
        assert (failed.result().state, failed.result().report) == ("failed", None)
        assert list(failed.result().reasons) == [str(broken)]


@pytest.mark.more
@pytest.mark.timeout(1800)
def test_what_a_call_started_ends_with_a_caller_that_is_killed_and_the_next_call_goes_on(scans, run_file, tmp_path):
    output = tmp_path / "out"
    program = f"import hpcxrf; hpcxrf.process({str(scans / 'scan.npy')!r}, {str(run_file)!r}, {str(output)!r})"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", program], env=environment) as caller:
        deadline = time.monotonic() + 600
        while not (output / "lock").exists():
            assert caller.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        started = psutil.Process(caller.pid).children(recursive=True)
        assert started
        os.kill(caller.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(started, timeout=120)
    assert alive == []
    outcome = hpcxrf.process(scans / "scan.npy", run_file, output)
    assert outcome.state == "done"
    assert len(finished_tasks(output)) == len(set(finished_tasks(output)))


@pytest.mark.more
@pytest.mark.timeout(1800)
def test_the_ewoks_task_of_the_page_runs_in_a_graph(scans, run_file, tmp_path, monkeypatch):
    if importlib.util.find_spec("ewokscore") is None:
        pytest.skip("ewokscore is not installed; pip install 'hpcxrf[bench]', or pip install ewokscore")
    (tmp_path / "my_tasks.py").write_text(recipe("class FitScans"))
    monkeypatch.syspath_prepend(tmp_path)
    from ewokscore import execute_graph

    values = {"files": [str(scans / "scan.npy")], "runfile": str(run_file), "output": str(tmp_path / "out")}
    node = {
        "id": "fit",
        "task_type": "class",
        "task_identifier": "my_tasks.FitScans",
        "default_inputs": [{"name": name, "value": value} for name, value in values.items()],
    }
    outputs = execute_graph({"graph": {"id": "xrf", "schema_version": "1.2"}, "nodes": [node], "links": []})
    assert outputs["state"] == "done"
    assert [Path(path).is_dir() for path in outputs["results"].values()] == [True]


def test_a_step_with_retries_is_tried_again_and_gives_up_in_the_end():
    place = {}
    exec(recipe("def retry"), place)  # noqa: S102 (of the page)
    tried = []

    def step(name):
        tried.append(name)
        if len(tried) < 3:
            raise OutputError("out: another hpcxrf works on this run")
        return "done"

    assert place["retry"](step, "leaf", pause_s=0.0) == "done"
    assert tried == ["leaf"] * 3
    tried.clear()
    with pytest.raises(OutputError):
        place["retry"](step, "leaf", attempts=2, pause_s=0.0)
