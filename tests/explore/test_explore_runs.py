"""Runs of a folder as the explorer tells them: all states, nothing outside the folder, no damage that hides others."""

import hashlib
import json
import shutil

import pytest
from explore_samples import NAME
from job_samples import make_progress
from run_folders import Asked, bare_run, end_dataset, ended_run, submitted_run

from hpcxrf.cluster.job_files import run_comment, write_progress
from hpcxrf.cluster.slurm import JobState
from hpcxrf.errors import ConfigError, OutputError, SlurmError
from hpcxrf.explore.access import new_access
from hpcxrf.explore.runs import choose_dataset, find_run, find_runs, list_keys
from hpcxrf.explore.targets import find_finished, find_target
from hpcxrf.runner.ending import forget_end
from hpcxrf.store.lock import run_lock

POINT = {"detector": "sum", "selection": {"kind": "pixel", "y": 2, "x": 3}}


def hash_tree(folder):
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def job_of(folder, job_id, state, reason="None"):
    comment = run_comment(folder)
    return JobState(job_id=job_id, state=state, reason=reason, start="N/A", nodes="n1", elapsed="0:05", comment=comment)


@pytest.fixture
def folder(tmp_path):
    """Runs in all states, and what is none."""
    place = tmp_path / "runs"
    place.mkdir()
    ended_run(place / "done", "done", "done")
    ended_run(place / "torn", "done", "failed", "not tried")
    end_dataset(bare_run(place / "stopped"), 1, "done")
    bare_run(place / "new")
    submitted_run(place / "pending", "21", "submitted")
    write_progress(submitted_run(place / "running", "22", "submitted", "started"), make_progress())
    submitted_run(place / "cancelled", "7", "submitted", "started", "cancelled")
    submitted_run(place / "failed", "7", "submitted", "started", "ended", exit_code=1, reason="no <script> left")
    submitted_run(place / "lost", "7", "submitted", "started")
    (place / "group").mkdir()
    ended_run(place / "group" / "within it", "done", benchmark={})
    (place / "damaged").mkdir()
    (place / "damaged" / "effective.json").write_text("{")
    (place / "notes").mkdir()
    bare_run(place / ".hidden")
    bare_run(tmp_path / "outside")
    (place / "way-out").symlink_to(tmp_path / "outside")
    return place


@pytest.fixture
def asked(folder):
    found = Asked(folder)
    known = {
        "21": job_of(folder / "pending", "21", "PENDING", "Priority"),
        "22": job_of(folder / "running", "22", "RUNNING"),
    }
    found.runs.ask = known.get
    return found


def test_the_list_has_every_run_of_the_folder_as_hpcxrf_status_tells_it(asked, folder, hpcxrf):
    before = hash_tree(folder)
    told = asked.get("/api/runs")
    found = {row["name"]: row for row in told["runs"]}
    assert {name: row["verdict"] for name, row in found.items()} == {
        "done": "done",
        "torn": "done with failures",
        "stopped": "stopped",
        "new": "new",
        "pending": "pending",
        "running": "running",
        "cancelled": "cancelled",
        "failed": "failed",
        "lost": "unknown",
        "group/within it": "done",
        "damaged": "unreadable",
    }
    assert (found["torn"]["done"], found["torn"]["failed"], found["torn"]["not_tried"]) == (1, 1, 1)
    assert (found["done"]["begun"], found["done"]["wall_s"]) == ("2026-11-20T10:00:00+00:00", 100.0)
    assert (found["running"]["known"], found["running"]["wall_s"]) == (10, 65.0)
    assert [found["group/within it"][key] for key in ("key", "workload")] == ["group/within%20it", "benchmark"]
    assert {name for name, row in found.items() if row["going_on"]} == {"pending", "running"}
    assert told["left_out"] == 1
    for name in ("done", "torn", "stopped", "new"):
        by_command = hpcxrf("status", folder / name, "--json").json
        assert by_command["verdict"] == found[name]["verdict"]
        assert by_command["reason"] == found[name]["reason"]
        assert by_command["datasets"] == found[name]["known"]
    assert hash_tree(folder) == before


def test_a_run_is_followed_with_stages_log_and_datasets(asked, folder):
    (folder / "running" / "logs" / "job-22.log").write_text("one\n" * 300 + "at 10 %\rat 20 %\nbye \x1b[31m<b>\n")
    told = asked.get("/api/runs/one?run=running")
    assert told["progress"]["stages"]["ingest"] == {"total": 10, "done": 5, "failed": 1, "not_tried": 0, "pixels": 0}
    assert told["log_name"] == "job-22.log"
    assert told["log"].splitlines()[-2:] == ["at 20 %", "bye \\x1b[31m<b>"]
    assert 190 < len(told["log"].splitlines()) <= 200
    torn = asked.get("/api/runs/one?run=torn")
    assert [(one["state"], one["reason"]) for one in torn["datasets"]] == [
        ("failed", "is cut short"),
        ("not tried", ""),
        ("done", ""),
    ]
    end_dataset(find_run(asked.runs, "torn"), 1, "done")
    assert [one["state"] for one in asked.get("/api/runs/one?run=torn")["datasets"]] == ["not tried", "done", "done"]
    assert torn["reasons"] == [{"text": "is cut short", "number": 1}]
    assert "not submitted" in torn["log"]
    assert asked.get("/api/runs/one?run=damaged")["datasets"] == []


def test_a_run_at_work_here_is_running(asked, folder):
    run = bare_run(folder / "here")
    with run_lock(run):
        assert asked.row("here")["verdict"] == "running"
    assert asked.row("here")["verdict"] == "new"


def test_a_run_that_was_done_is_read_again_when_it_goes_on(asked, folder, monkeypatch):
    from hpcxrf.explore import runs

    read = []
    real = runs.run_status
    monkeypatch.setattr(runs, "run_status", lambda path, ask: read.append(path.name) or real(path, ask))
    assert asked.row("done")["done"] == 2
    assert asked.row("done")["done"] == 2
    assert read.count("done") == 1
    assert read.count("stopped") == 2
    run = find_run(asked.runs, "done")
    end_dataset(run, 3, "done")
    assert asked.row("done")["done"] == 3
    with run_lock(run):
        assert asked.row("done")["verdict"] == "running"
    forget_end(run)
    assert asked.row("done")["verdict"] == "stopped"


def test_a_slurm_that_does_not_answer_is_a_note(asked):
    def silent(_job_id):
        raise SlurmError("squeue: no answer in 30 s")

    asked.runs.ask = silent
    row = asked.row("pending")
    assert (row["verdict"], len(row["notes"])) == ("pending", 1)


@pytest.mark.parametrize(
    "key",
    ["", "way-out", "../outside", "..", ".", "/etc", ".hidden", "notes", "done/", "done/../done", "no%00ne", "%2e"],
)
def test_no_run_is_found_by_a_path(asked, folder, key):
    for target in (f"/api/runs/one?run={key}", f"/api/runs/start?run={key}" if key else "/api/runs/one?run="):
        assert "no such run" in asked.get(target, 400)["error"]
    assert asked.post("/api/runs/stop", {"run": key}, 400)["error"]


def test_everything_needs_the_cookie_and_what_changes_something_its_own_page(asked):
    gets = ("/api/runs", "/api/runs/one?run=done", "/api/runs/form", "/api/runs/start", "/api/runs/plan?id=1")
    posts = ("text", "plan", "prepare", "begin", "stop")
    for target in gets:
        assert asked.ask("GET", target, Cookie="").status == 403
        assert asked.ask("GET", target, Host="evil.example").status == 403
        assert asked.ask("GET", target, **{"Sec-Fetch-Site": "cross-site"}).status == 403
    for name in posts:
        target = f"/api/runs/{name}"
        assert asked.ask("POST", target, {}, Cookie="").status == 403
        for foreign in ("null", "http://evil.example", "http://127.0.0.1:9"):
            assert asked.ask("POST", target, {}, Origin=foreign).status == 403
        assert asked.ask("POST", target, {}, **{"Content-Type": "text/plain"}).status == 415
        assert asked.ask("GET", target).status in {400, 404}
        assert asked.ask("POST", target, {"text": "x" * (1 << 20)}).status == 413


def test_a_folder_is_one_of_runs_if_it_holds_some_or_run_files_or_nothing(folder, tmp_path, made):
    def find(place):
        return find_runs(place, b"key", read_only=False)

    assert not find(folder).alone
    assert find(folder / "done").alone
    assert list_keys(find(folder / "done")) == {"done": folder / "done"}
    empty = tmp_path / "empty"
    empty.mkdir()
    assert find(empty) is not None
    (empty / "scan.mda").touch()
    assert find(empty) is None
    (empty / "run.yaml").touch()
    assert find(empty) is not None
    assert find(tmp_path / "nothing") is None
    assert find(made.results) is None


def test_the_scans_of_a_run_of_the_folder_are_opened_by_its_name(folder, made):
    shutil.copytree(made.folder, folder / "group" / "leaf")
    asked = Asked(folder)
    assert b'data-begin="runs"' in asked.ask("GET", "/").body
    assert "no run is open" in asked.get("/api/scan", 400)["error"]
    whole = f"group/leaf/{NAME}"
    told = asked.get("/api/scan?dataset=group/leaf/")
    assert (told["dataset_id"], told["datasets"]) == (whole, [whole])
    counts = asked.post("/api/spectrum", {"dataset": whole, **POINT})["counts"]
    assert counts == made.counts[:, 2, 3].sum(axis=0).tolist()
    assert list(asked.explorer.opened) == [whole]
    assert "no such run" in asked.get(f"/api/scan?dataset=way-out/{NAME}", 400)["error"]
    assert "not a dataset" in asked.get("/api/scan?dataset=group/leaf/other", 400)["error"]
    assert "has no results yet" in asked.get("/api/scan?dataset=new/", 409)["error"]


def test_of_a_run_that_was_given_itself_a_scan_has_one_name(made):
    target, runs = find_target(made.folder), find_runs(made.folder, b"key", read_only=False)
    for name in ("", NAME, "out/", f"out/{NAME}"):
        assert choose_dataset(target, runs, name)[2] == NAME
    with pytest.raises(ConfigError):
        choose_dataset(target, runs, "other/")
    assert choose_dataset(None, runs, "")[2] == f"out/{NAME}"
    with pytest.raises(ConfigError, match="no run is open"):
        choose_dataset(None, None, NAME)


def test_a_run_without_results_is_no_reason_not_to_look_at_it(folder):
    assert find_finished(folder / "new") is None
    asked = Asked(folder / "new")
    assert asked.get("/api/runs")["alone"]
    assert asked.row("new")["verdict"] == "new"
    with pytest.raises(OutputError):
        choose_dataset(None, asked.runs, "")


def test_names_with_markup_and_damaged_bytes_are_texts(tmp_path):
    place = tmp_path / "runs"
    place.mkdir()
    for name in ("<script>alert(1)<", "über 50%", b"bad\xff".decode("utf-8", "surrogateescape")):
        bare_run(place / name)
    asked = Asked(place)
    rows = asked.get("/api/runs")["runs"]
    assert {row["name"] for row in rows} == {"<script>alert(1)<", "über 50%", "bad\\xff"}
    for row in rows:
        assert row["key"].isascii()
        key = row["key"]
        assert json.loads(asked.ask("GET", f"/api/runs/one?run={key}").body)["name"] == row["name"]


def test_stores_alone_have_no_runs(made):
    from hpcxrf.explore.explorer import make_explorer

    asked = object.__new__(Asked)
    asked.explorer = make_explorer(find_target(made.results), None, new_access())
    assert b'data-begin="results"' in asked.ask("GET", "/").body
    for target in ("/api/runs", "/report/a/b/report.html"):
        assert "without their run" in asked.get(target, 400)["error"]


def test_the_command_takes_a_folder_of_runs_and_says_what_it_is_if_not(hpcxrf, tmp_path):
    (tmp_path / "scan.txt").touch()
    ran = hpcxrf("explore", tmp_path, "--no-browser")
    assert ran.code == 3
    assert "holds none" in " ".join(ran.err.split())
    ran = hpcxrf("explore", tmp_path / "nothing", "--no-browser")
    assert ran.code == 3
