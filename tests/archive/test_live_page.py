"""The page of a run that is watched: it renews itself, shows the latest first, and no name becomes markup."""

import json

import pytest

from hpcxrf.archive.live.board import PAGE, Board
from hpcxrf.archive.live.events import LiveEvent
from hpcxrf.store.rundir import create_or_resume

VALUES = {"shape": [4, 100, 100, 2048], "seconds": 8.25, "cpu_s": 9.0, "late_s": 4.0}


@pytest.fixture
def board(tmp_path):
    board = Board(run=create_or_resume(tmp_path / "run", "", {}), folder="/data/<tonight>")
    board.write_page()
    board.write()
    return board


def done(number, **values):
    found = {"verdict": "good", "r2": 0.99912, "elements": ["Fe", "Zn", "Pb_L"], **VALUES, **values}
    return LiveEvent(kind="done", name=f"scan_{number}.mda", dataset_id=f"scan_{number}-00000000", values=found)


def test_what_the_page_asks_for_is_the_same_for_programs(board):
    board.take(
        LiveEvent(kind="growing", name="s.mda", path="/d/s.mda", text="2 of 6 rows", values={"rows_done": 2, "rows": 6})
    )
    board.take(
        LiveEvent(
            kind="view",
            name="s.mda",
            path="/d/s.mda",
            values={"rows": 2, "r2": float("nan"), "elements": ["Fe"], "verdict": "good"},
        )
    )
    board.take(done(1))
    board.write()
    status = json.loads((board.run.path / "live" / "status.json").read_text())
    assert status["counts"] == {"done": 1, "failed": 0, "before": 0, "at_work": 0, "growing": 1}
    assert status["growing"][0]["view"]["r2"] is None
    script = (board.run.path / "live" / "data.js").read_text()
    assert json.loads(script.removeprefix('hpcxrf.live.receive("data", ').removesuffix(");\n")) == status


def test_a_further_call_shows_what_the_first_one_showed_and_a_damaged_file_of_it_is_as_good_as_none(board):
    for number in range(3):
        board.take(done(number))
    board.write()
    again = Board(run=board.run, folder="/data")
    again.restore()
    assert [row["name"] for row in again.rows] == ["scan_2.mda", "scan_1.mda", "scan_0.mda"]
    (board.run.path / "live" / "status.json").write_text('{"scans": [1, {"dataset_id": 3}], "x": ')
    damaged = Board(run=board.run, folder="/data")
    damaged.restore()
    assert damaged.rows == []


def test_nothing_is_written_where_nothing_changed_but_that_it_goes_on(board):
    folder = board.run.path / "live"
    before = (folder / "data.js").stat().st_ino, (folder / "tick.js").read_text()
    board.write()
    assert ((folder / "data.js").stat().st_ino, (folder / "tick.js").read_text()) == before
    board.beat_s -= 60
    board.write()
    assert (folder / "data.js").stat().st_ino == before[0]
    assert (folder / "tick.js").read_text() != before[1]


@pytest.mark.browser
def test_the_page_renews_itself_from_a_file_with_the_latest_first_and_names_as_text(board, open_page):
    evil = "<img src=x onerror=alert(1)>.mda"
    board.take(
        LiveEvent(
            kind="growing", name=evil, path="/d/x", text="2 of 6 rows are finished", values={"rows_done": 2, "rows": 6}
        )
    )
    board.take(done(1))
    board.write()
    page = open_page((board.run.path / PAGE).as_uri())
    page.wait_for_selector('tr[data-dataset="scan_1-00000000"]')
    assert page.locator("#growing tbody td.name").inner_text() == evil
    assert page.locator("#growing tbody td.n").inner_text() == "2 of 6"
    assert "Watching /data/<tonight>." in page.locator("#state").inner_text()
    row = page.locator("#datasets tbody tr").first.inner_text().split("\t")
    assert row[:7] == ["scan_1.mda", "done", "good", "4", "10,000", "0.99912", "8.3 s"]
    assert row[-1] == "Fe Zn Pb_L"
    # It is not loaded again: what lands appears.
    page.evaluate("window.mark = 1")
    board.take(
        LiveEvent(kind="failed", name="scan_2.mda", dataset_id="scan_2-00000000", text="truncated", values=VALUES)
    )
    board.take(done(3, verdict="wrong"))
    board.take(LiveEvent(kind="ended"))
    board.write()
    page.wait_for_selector('tr[data-dataset="scan_3-00000000"]')
    names = page.locator("#datasets tbody td.name").all_inner_texts()
    assert names == ["scan_3.mda", "scan_2.mda", "scan_1.mda"]
    counts = page.locator("#counts").inner_text().split("\n")
    assert [one.strip() for one in counts if one.strip()] == ["2 done", "1 failed", "0 at work", "1 growing"]
    assert page.evaluate("window.mark") == 1
    assert "has ended" in page.locator("#state").inner_text()


@pytest.mark.browser
def test_the_page_says_when_the_process_that_watches_says_nothing_any_more(board, open_page):
    page = open_page("about:blank")
    page.clock.install()
    page.goto((board.run.path / PAGE).as_uri())
    page.wait_for_function("document.documentElement.dataset.version")
    assert page.locator("#fault").is_hidden()
    for _ in range(30):
        page.clock.run_for(2000)
        page.wait_for_timeout(20)
    page.wait_for_selector("#fault:not([hidden])")
    assert "has said nothing for some time" in page.locator("#fault").inner_text()
