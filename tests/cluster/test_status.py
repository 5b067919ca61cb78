"""How a run is: the run directory speaks first, Slurm second, and what neither says is not made up."""

import json
import os
import socket

import pytest

from hpcxrf.cluster.failures import ask_again, failures, tally
from hpcxrf.cluster.job_files import append_event, run_comment, write_progress
from hpcxrf.cluster.login.logs import follow_log, latest_log, runs_in, tail
from hpcxrf.cluster.login.status import ask_seldom, run_status
from hpcxrf.cluster.login.tunnel import ssh_command, way_to_dashboard
from hpcxrf.cluster.slurm import JobState
from hpcxrf.errors import OutputError, SlurmError
from hpcxrf.runner.datasets import append_dataset
from hpcxrf.runner.ending import RunEnd, forget_end, keep_end
from hpcxrf.runner.records import DatasetRecord
from hpcxrf.store.lock import run_lock
from hpcxrf.store.rundir import create_or_resume, left_alone, read_or_set_aside, set_damaged_aside
from tests.samples.job_samples import make_progress


@pytest.fixture
def run(tmp_path):
    return create_or_resume(tmp_path / "run", "input: {files: [a]}\n", {"input": {"files": ["a"]}})


def says(run, state: str, reason: str = "None", start: str = "N/A", comment: str | None = None):
    def ask(job_id: str) -> JobState:
        mark = run_comment(run.path) if comment is None else comment
        return JobState(
            job_id=job_id, state=state, reason=reason, start=start, nodes="n1", elapsed="0:05", comment=mark
        )

    return ask


def unknown(job_id: str) -> None:
    return None


def silent(job_id: str) -> None:
    raise SlurmError("squeue: no answer in 30 s")


def never(job_id: str) -> None:
    raise AssertionError("Slurm was asked although the run directory knows")


def verdict(run, ask) -> str:
    return run_status(run.path, ask).verdict


FINISHED = {"task": "finalise", "event": "finished", "checksums": {}}


def failed(task: str = "ingest", reason: str = "it broke") -> dict[str, str]:
    return {"task": task, "event": "failed", "reason": reason, "traceback": ""}


# Verdicts --------------------------------------------------------------------------------------


def test_a_pending_job_shows_the_reason_of_slurm(run):
    append_event(run, "submitted", job_id="7")
    status = run_status(run.path, says(run, "PENDING", "PartitionNodeLimit"))
    assert (status.verdict, status.reason) == ("pending", "job 7 waits: PartitionNodeLimit")


def test_what_slurm_does_not_know_is_unknown_and_never_failed(run):
    append_event(run, "submitted", job_id="7")
    append_event(run, "started", job_id="7")
    status = run_status(run.path, unknown)
    assert status.verdict == "unknown"
    assert "has no record of job 7" in status.reason


def test_a_slurm_that_does_not_answer_is_a_note_and_no_verdict(run):
    append_event(run, "submitted", job_id="7")
    assert verdict(run, silent) == "pending"
    append_event(run, "started", job_id="7")
    write_progress(run, make_progress())
    status = run_status(run.path, silent)
    assert status.verdict == "running"
    assert "no answer in 30 s" in status.notes[0].text
    assert (status.tally.done, status.tally.failed, status.tally.running) == (4, 1, 2)


@pytest.mark.parametrize(("code", "expected"), [(0, "done"), (6, "done with failures")])
def test_an_end_that_the_job_wrote_down_needs_no_slurm(run, code, expected):
    for event in ("submitted", "started"):
        append_event(run, event, job_id="7")
    append_event(run, "ended", job_id="7", exit_code=code)
    assert verdict(run, never) == expected


@pytest.mark.parametrize(("code", "expected"), [(75, "stopped"), (1, "failed"), (4, "failed")])
def test_an_early_end_may_be_followed_by_a_requeue(run, code, expected):
    append_event(run, "submitted", job_id="7")
    append_event(run, "started", job_id="7")
    append_event(run, "ended", job_id="7", exit_code=code, reason="time limit")
    for ask in (unknown, silent, says(run, "FAILED")):
        status = run_status(run.path, ask)
        assert status.verdict == expected
        assert "time limit" in status.reason
    assert verdict(run, says(run, "PENDING", "BeginTime")) == "pending"
    append_event(run, "started", job_id="7")
    assert verdict(run, says(run, "RUNNING")) == "running"


@pytest.mark.parametrize("state", ["TIMEOUT", "FAILED", "NODE_FAIL", "COMPLETED"])
def test_an_end_that_only_slurm_saw_is_resumable(run, state):
    append_event(run, "submitted", job_id="7")
    status = run_status(run.path, says(run, state, "NonZeroExitCode"))
    assert status.verdict == "stopped"
    assert f"Slurm reports {state} (NonZeroExitCode) for job 7" in status.reason


@pytest.mark.parametrize("comment", ["(null)", "hpcxrf:0123456789abcdef", "of,somebody", ""])
def test_an_id_that_slurm_gave_to_another_job_tells_nothing_of_this_run(run, comment):
    append_event(run, "submitted", job_id="7")
    status = run_status(run.path, says(run, "RUNNING", comment=comment))
    assert (status.verdict, status.slurm) == ("unknown", None)


def test_a_cancelled_job_stays_cancelled_when_slurm_has_forgotten_it(run):
    append_event(run, "submitted", job_id="7")
    append_event(run, "cancelled", job_id="7")
    assert verdict(run, unknown) == "cancelled"
    assert verdict(run, says(run, "CANCELLED")) == "cancelled"
    # Still going down.
    assert verdict(run, says(run, "COMPLETING")) == "running"


def test_a_cancelled_job_that_wrote_down_its_own_end_was_cancelled(run):
    for event in ("submitted", "started", "cancelled"):
        append_event(run, event, job_id="7")
    append_event(run, "ended", job_id="7", exit_code=75, reason="TERM")
    assert verdict(run, unknown) == "cancelled"
    assert verdict(run, says(run, "CANCELLED")) == "cancelled"


def test_a_run_that_was_done_before_its_cancelling_arrived_is_done(run):
    for event in ("submitted", "started", "cancelled"):
        append_event(run, event, job_id="7")
    append_event(run, "ended", job_id="7", exit_code=0)
    assert verdict(run, never) == "done"


def test_the_job_that_began_last_counts_even_if_its_submission_was_written_late(run):
    append_event(run, "submitted", job_id="7")
    append_event(run, "ended", job_id="7", exit_code=75)
    append_event(run, "started", job_id="10")
    append_event(run, "submitted", job_id="10")
    asked = []
    run_status(run.path, asked.append)
    assert asked == ["10"]


def test_a_run_without_a_job_is_read_from_its_lock_and_journals(run):
    assert verdict(run, never) == "new"
    run.append("a-00000000", failed())
    assert verdict(run, never) == "stopped"
    with run_lock(run):
        status = run_status(run.path, never)
        assert status.verdict == "running"
        assert status.reason == f"on host {socket.gethostname()}, pid {os.getpid()}"
    run.report_file.touch()
    assert verdict(run, never) == "done with failures"
    run.append("a-00000000", FINISHED)
    assert verdict(run, never) == "done"


def test_a_run_that_was_killed_after_an_earlier_end_is_not_done(run):
    record = DatasetRecord(dataset_id="a-00000000", name="a.h5", state="done")
    end = RunEnd(run=run, wall_s=1.0, device="CPU", command="hpcxrf run", started="now", notes=())
    run.append("a-00000000", FINISHED)
    append_dataset(run, record, 0)
    # Pages are no end: `hpcxrf report` writes them of a run that goes on, too.
    run.report_file.touch()
    assert verdict(run, never) == "stopped"
    keep_end(end)
    assert verdict(run, never) == "done"
    forget_end(run)
    assert verdict(run, never) == "stopped"


def test_a_benchmark_is_told_from_a_run(tmp_path):
    bench = create_or_resume(tmp_path / "bench", "", {"benchmark": {"seed": 0}})
    assert verdict(bench, never) == "new"
    bench.append("a-00000000", {"task": "sum", "event": "finished", "stage": "sum", "wall_s": 1.0})
    bench.report_file.touch()
    assert verdict(bench, never) == "stopped"
    # Its page is another than that of a scan.
    (bench.path / "benchmark.html").touch()
    assert verdict(bench, never) == "done"


def test_slurm_is_ask_seldom():
    asked = []
    ask = ask_seldom(asked.append, 60.0)
    assert [ask("1"), ask("1"), ask("2"), ask("1")] == [None] * 4
    assert asked == ["1", "2"]
    asked.clear()
    ask = ask_seldom(asked.append, 0.0)
    assert [ask("1"), ask("1")] == [None, None]
    assert asked == ["1", "1"]


# Failures --------------------------------------------------------------------------------------


def test_failures_are_counted_by_reason_whatever_the_file(run):
    for number in range(3):
        run.append(f"scan{number}-0000000{number}", failed("open", f"/data/x y/scan{number}.h5: is cut short"))
    run.append("other-00000003", failed("integrated", "no element is excited"))
    run.append("good-00000004", FINISHED)
    counts = tally(run, None, live=False)
    assert (counts.datasets, counts.done, counts.failed) == (5, 1, 4)
    assert sum(n for _, n in counts.reasons) == 4
    assert dict(counts.reasons)["no element is excited"] == 1


def test_reasons_of_plain_paths_fall_together(run):
    for number in range(3):
        run.append(f"scan{number}-0000000{number}", failed("open", f"/data/scan{number}.h5: is cut short"))
    assert tally(run, None, live=False).reasons == (("<file>: is cut short", 3),)


def test_what_was_done_after_it_failed_has_not_failed(run):
    run.append("a-00000000", failed("open"))
    run.append("a-00000000", FINISHED)
    assert list(failures(run)) == []


def test_retry_marks_what_failed_for_the_reason_that_is_given(run):
    run.append("a-00000000", failed("pixels-0-00000-00001", "CUDA Out Of Memory"))
    run.append("b-00000000", failed("ingest", "is cut short"))
    assert [f.dataset_id for f in ask_again(run, "out of memory")] == ["a-00000000"]
    assert [f.dataset_id for f in failures(run)] == ["b-00000000"]
    last = run.read_journal("a-00000000")[-1]
    assert last == {"task": "pixels-0-00000-00001", "event": "retry"}
    assert left_alone(run) == {"b-00000000": "is cut short"}
    assert ask_again(run, "no such reason") == []
    assert left_alone(run) == {"b-00000000": "is cut short"}
    assert len(ask_again(run, None)) == 1
    assert left_alone(run) == {}
    assert ask_again(run, None) == []


def test_a_damaged_journal_is_a_failure_of_its_own_dataset_until_a_driver_sets_it_aside(run):
    run.append("a-00000000", FINISHED)
    run.append("b-00000000", FINISHED)
    run.journal_file("b-00000000").write_bytes(b'{"event":\n{}\n')
    counts = tally(run, None, live=False)
    assert (counts.done, counts.failed) == (1, 1)
    [failure] = failures(run)
    assert (failure.dataset_id, "line 1 is not a JSON object" in failure.reason) == ("b-00000000", True)
    [aside] = set_damaged_aside(run)
    assert aside.read_bytes() == b'{"event":\n{}\n'
    assert run.dataset_ids() == ["a-00000000"]
    assert set_damaged_aside(run) == []


def test_of_a_finished_dataset_the_journal_is_read_only_when_it_is_worked_on_again(run):
    run.append("a-00000000", FINISHED)
    run.journal_file("a-00000000").write_bytes(b"no journal\n")
    assert set_damaged_aside(run, {"a-00000000"}) == []
    assert run.dataset_ids() == ["a-00000000"]
    assert read_or_set_aside(run, "a-00000000") == []
    assert run.dataset_ids() == []
    run.append("a-00000000", FINISHED)
    assert len(read_or_set_aside(run, "a-00000000")) == 1


def test_retry_is_refused_while_a_driver_works(run):
    run.append("a-00000000", failed())
    with run_lock(run), pytest.raises(OutputError, match="another hpcxrf works on this run: host"):
        ask_again(run, None)
    assert len(list(failures(run))) == 1


# Logs and lists --------------------------------------------------------------------------------


def test_the_log_is_that_of_the_latest_job(run):
    for job in ("9", "10"):
        append_event(run, "submitted", job_id=job)
        (run.logs / f"job-{job}.log").write_text(f"of {job}\n")
    (run.logs / "worker-1.log").touch()
    log, others = latest_log(run)
    assert log.name == "job-10.log"
    assert [p.name for p in others] == ["job-9.log", "worker-1.log"]


def test_of_a_job_that_has_not_begun_there_is_no_log(run):
    append_event(run, "submitted", job_id="9")
    with pytest.raises(OutputError, match="there is no log; job 9 has not begun"):
        latest_log(run)


def test_the_tail_of_a_log_is_its_last_lines(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"".join(b"line %d\n" % i for i in range(10)) + b"\xff torn")
    assert tail(log, 2) == "line 9\n\ufffd torn"


def test_following_gives_what_is_added_until_the_end_and_nothing_twice(tmp_path, monkeypatch):
    monkeypatch.setattr("hpcxrf.cluster.login.logs._POLL_S", 0.0)
    log = tmp_path / "log"
    log.write_text("old\n")
    left = ["a\n", "b\n"]

    def goes_on() -> bool:
        with log.open("a") as file:
            file.write(left.pop(0) if left else "last\n")
        return len(left) > 0 or log.read_text().count("b") == 0

    assert "".join(follow_log(log, 5, goes_on)).startswith("old\na\n")
    assert "".join(follow_log(log, 100, lambda: False)) == log.read_text()


def test_runs_are_found_two_levels_deep_and_hidden_ones_are_not(tmp_path):
    for name in ("one", "a/two", "a/b/three", ".hidden"):
        create_or_resume(tmp_path / name, "", {})
    assert runs_in(tmp_path) == [tmp_path / "a/two", tmp_path / "one"]
    assert runs_in(tmp_path / "one") == [tmp_path / "one"]
    with pytest.raises(OutputError, match="is not a folder"):
        runs_in(tmp_path / "none")


# Dashboard -------------------------------------------------------------------------------------


def test_the_tunnel_goes_through_the_login_node(monkeypatch):
    monkeypatch.setenv("LOGNAME", "maria")
    assert ssh_command("login.lab.org", "node7", 41234) == (
        "ssh -N -L 41234:127.0.0.1:41234 -J maria@login.lab.org maria@node7"
    )
    assert ssh_command(None, "node7", 41234) == "ssh -N -L 41234:127.0.0.1:41234 maria@node7"


def test_a_dashboard_that_is_gone_does_not_answer(run):
    content = {"url": "http://127.0.0.1:1/token/status", "host": socket.gethostname(), "port": 1, "token": "token"}
    (run.secrets / "dashboard.json").write_text(json.dumps(content))
    way = way_to_dashboard(run.path)
    assert (way.ssh, way.answers) == (None, False)
    assert way.url == content["url"]


def test_without_a_dashboard_the_reason_is_told(run):
    with pytest.raises(OutputError, match="has no dashboard now"):
        way_to_dashboard(run.path)
    (run.secrets / "dashboard.json").write_text("{")
    with pytest.raises(OutputError, match="is damaged"):
        way_to_dashboard(run.path)
