"""Trying again what failed, from the list of runs: shown first, confirmed by its code, marked as the command does."""

import json

import pytest
from playwright.sync_api import expect
from run_folders import Asked, ended_run, served

from hpcxrf.cluster.failures import failures
from hpcxrf.cluster.job_files import append_event, write_request
from hpcxrf.cluster.login.sbatch import job_request, job_size
from hpcxrf.config.site import check_site
from hpcxrf.explore import run_jobs
from hpcxrf.explore.runs import find_run
from hpcxrf.runner.datasets import append_dataset
from hpcxrf.runner.records import DatasetRecord
from hpcxrf.store.lock import run_lock

SCRIPT = "#!/bin/bash\necho kept\n"


def run_with_failures(folder):
    """Of three datasets two failed, of one cause each."""
    run = ended_run(folder, "done")
    for number, reason in ((1, "is cut short"), (2, "has <b>no</b> counts")):
        name = f"leaf_{number}-{number:08x}"
        run.append(name, {"task": "ingest", "event": "failed", "reason": reason})
        append_dataset(run, DatasetRecord(dataset_id=name, name=f"leaf_{number}.mda", state="failed", reason=reason), 1)
    return run


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "runs").mkdir()
    run_with_failures(tmp_path / "runs" / "old")
    ended_run(tmp_path / "runs" / "good", "done")
    return tmp_path / "runs"


@pytest.fixture
def asked(folder):
    return Asked(folder)


def journals(folder):
    return {path.name: path.read_text() for path in sorted((folder / "old" / "state").glob("*.jsonl"))}


def submitted(folder):
    """The run as if it had been begun on Slurm."""
    (folder / "old" / "jobs").mkdir(exist_ok=True)
    (folder / "old" / "jobs" / "job.sh").write_text(SCRIPT)
    run = find_run(Asked(folder).runs, "old")
    site = check_site({"cores_per_node": 8, "memory_per_worker_mb": 900, "time_limit_h": 1}, "test", name="lab")
    size = job_size(site, workers=1, nodes=1)
    write_request(run, job_request(site, size, mode="allocation"))
    append_event(run, "submitted", job_id="16", host="here")
    append_event(run, "ended", job_id="16", exit_code=6)
    return run


def test_on_this_machine_the_command_is_shown_and_only_its_code_begins_it(asked, folder, monkeypatch):
    begun = []
    monkeypatch.setattr(run_jobs, "_begin_here", lambda _, prepared: begun.append(prepared.command) or 4711)
    before = journals(folder)
    told = asked.post("/api/runs/prepare", {"run": "old", "retry": True})
    assert told["command"].endswith(f"-m hpcxrf retry {folder}/old --failed")
    assert told["script"].endswith(f">> {folder}/old/logs/run-here.log 2>&1 &\n")
    assert told["notes"][0].endswith("--failed`: 2 failed tasks of 2 datasets are tried again")
    assert sorted(told["notes"][1:]) == ["1 × has <b>no</b> counts", "1 × is cut short"]
    # What goes on without a second try is something else, and has another code.
    plain = asked.post("/api/runs/prepare", {"run": "old"})
    assert plain["code"] != told["code"]
    for wrong in ({"retry": True, "code": plain["code"]}, {"retry": True}, {"code": told["code"]}):
        assert "not what was shown" in asked.post("/api/runs/begin", {"run": "old", **wrong}, 400)["error"]
    assert begun == []
    confirmed = {"run": "old", "retry": True, "code": told["code"]}
    assert asked.post("/api/runs/begin", confirmed) == {"job_id": None, "process": 4711}
    assert begun == [told["command"]]
    # The command itself marks them.
    assert journals(folder) == before


def test_on_slurm_what_was_shown_is_marked_and_the_kept_script_submitted(asked, folder, monkeypatch):
    run, again = submitted(folder), []
    monkeypatch.setattr(run_jobs, "submit_again", lambda one: again.append(list(failures(one))) or "17")
    monkeypatch.setattr("hpcxrf.cluster.slurm.own_jobs", list)
    told = asked.post("/api/runs/prepare", {"run": "old", "retry": True})
    assert told["script"] == SCRIPT
    assert told["command"].startswith(f"sbatch --chdir={folder}/old ")
    # One that failed since then was not shown.
    run.append("leaf_0-00000000", {"task": "pixels", "event": "failed", "reason": "late"})
    append_dataset(
        run, DatasetRecord(dataset_id="leaf_0-00000000", name="leaf_0.mda", state="failed", reason="late"), 1
    )
    request = {"run": "old", "retry": True}
    assert "not what was shown" in asked.post("/api/runs/begin", request | {"code": told["code"]}, 400)["error"]
    assert again == []
    code = asked.post("/api/runs/prepare", request)["code"]
    assert asked.post("/api/runs/begin", request | {"code": code})["job_id"] == "17"
    # They were marked before the job was submitted.
    assert again == [[]]
    assert [json.loads(text.splitlines()[-1])["event"] for text in journals(folder).values()] == ["retry"] * 3
    assert "nothing has failed" in asked.post("/api/runs/prepare", request, 409)["error"]


def test_what_has_not_failed_or_is_at_work_or_only_read_is_not_tried_again(asked, folder):
    assert "nothing has failed" in asked.post("/api/runs/prepare", {"run": "good", "retry": True}, 409)["error"]
    with run_lock(find_run(asked.runs, "old")):
        assert "stop it first" in asked.post("/api/runs/prepare", {"run": "old", "retry": True}, 409)["error"]
    reading = Asked(folder, read_only=True)
    assert "--read-only" in reading.post("/api/runs/prepare", {"run": "old", "retry": True}, 400)["error"]
    for wrong in ("yes", 1, "true"):
        # Only `true` asks for it.
        assert asked.post("/api/runs/prepare", {"run": "old", "retry": wrong})["notes"] == []
    outside = {"Origin": "http://evil.example"}
    assert asked.ask("POST", "/api/runs/begin", {"run": "old", "retry": True}, **outside).status == 403


# The last one: a browser's event loop runs to the end of the module.
@pytest.mark.browser
def test_the_button_shows_the_command_and_nothing_happens_before_it_is_confirmed(folder, open_page):
    before = journals(folder)
    with served(folder) as (_, address):
        page = open_page(address)
        page.wait_for_selector("html[data-runs=ready]", state="attached")
        good = page.locator("table.runs tr", has=page.get_by_role("button", name="good", exact=True))
        expect(good.get_by_role("button", name="Retry…")).to_have_count(0)
        row = page.locator("table.runs tr", has=page.get_by_role("button", name="old", exact=True))
        row.get_by_role("button", name="Retry…").click()
        dialog = page.get_by_role("dialog")
        expect(dialog.locator("h2")).to_have_text("Try again what failed?")
        expect(dialog).to_contain_text("2 failed tasks of 2 datasets")
        expect(dialog).to_contain_text("has <b>no</b> counts")
        expect(dialog.get_by_label("script")).to_contain_text(f"retry {folder}/old --failed")
        dialog.get_by_role("button", name="Not now").click()
        page.get_by_role("button", name="old", exact=True).click()
        page.get_by_role("button", name="Retry failed…").click()
        expect(dialog.get_by_label("script")).to_contain_text("--failed")
        page.keyboard.press("Escape")
        page.close()
    assert journals(folder) == before
