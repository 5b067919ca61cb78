"""What `hpcxrf live` prints, and what it refuses before anything is started."""

import json

import pytest

from hpcxrf.archive.live.events import LiveEvent
from hpcxrf.cli import live

VALUES = {
    "verdict": "good",
    "r2": 0.99912,
    "elements": ["Fe", "Zn", "Pb_L"],
    "shape": [4, 100, 120, 2048],
    "seconds": 8.25,
    "cpu_s": 9.0,
    "late_s": 4.4,
}


@pytest.fixture
def printed(capsys):
    def show(*events, as_json=False, ticks=()):
        with live._show(as_json=as_json) as lines:
            for event in events:
                lines.event(event)
            for content in ticks:
                lines.tick(content)
        return capsys.readouterr()

    return show


def test_a_scan_is_one_line_on_standard_output_with_elements_time_and_verdict(printed):
    name = "scan [red]1[/].mda\x1b[2J"
    out = printed(LiveEvent(kind="done", name=name, values=VALUES)).out
    assert out.count("\n") == 1
    assert out[8:] == (
        "  scan [red]1[/].mda\\x1b[2J  100 x 120 x 4  good  R2 0.99912  8.2 s (4 s after its last change)  Fe Zn Pb_L\n"
    )
    failed = printed(LiveEvent(kind="failed", name="b.mda", text="b.mda: truncated", values=VALUES))
    assert "failed  b.mda: b.mda: truncated" in failed.out


def test_what_else_happens_is_a_line_on_standard_error_and_growth_is_told_once(printed):
    grows = [
        LiveEvent(
            kind="growing", name="a.mda", path="/a", text=f"{rows} of 9 rows are finished", values={"rows_done": rows}
        )
        for rows in (2, 3, 4)
    ]
    view = LiveEvent(kind="view", name="a.mda", values={"rows": 4, "verdict": "good", "elements": ["Fe"], "r2": 0.9})
    moved = LiveEvent(kind="moved", name="c.mda", text="was /d/b.mda before")
    seen = printed(*grows, view, moved, LiveEvent(kind="taken", name="a.mda"))
    assert seen.out == ""
    lines = [line[10:] for line in seen.err.splitlines()]
    assert lines == [
        "a.mda: growing, 2 of 9 rows are finished",
        "a.mda: first view over 4 rows: good, Fe",
        "c.mda: moved: was /d/b.mda before",
    ]


def test_for_scripts_everything_is_one_json_object_a_line(printed):
    seen = printed(
        LiveEvent(kind="growing", name="a.mda", path="/a", text="2 of 9", values={"rows_done": 2, "rows": 9}),
        LiveEvent(kind="done", name="a.mda", path="/a", dataset_id="a-0", values={**VALUES, "r2": float("nan")}),
        as_json=True,
    )
    first, second = map(json.loads, seen.out.splitlines())
    assert (first["event"], first["rows_done"], first["path"]) == ("growing", 2, "/a")
    assert (second["event"], second["dataset_id"], second["r2"], second["verdict"]) == ("done", "a-0", None, "good")


def test_scans_that_were_done_before_are_counted_in_one_line(printed):
    ticks = [
        {"folder": "/d", "counts": {"done": 0, "failed": 0, "before": before, "at_work": 0, "growing": 0}}
        for before in (0, 500, 812, 812, 812)
    ]
    seen = printed(ticks=ticks)
    assert [line[10:] for line in seen.err.splitlines()] == ["812 scans done before"]


def test_what_is_not_a_folder_and_what_makes_no_maps_is_refused(hpcxrf, tmp_path):
    refused = hpcxrf("live", tmp_path / "missing", "-o", tmp_path / "out", "--elements", "Fe", "--energy", 12)
    assert refused.code == 3
    assert "is not a folder" in refused.err
    (tmp_path / "benchmark.yaml").write_text("input: {files: [x]}\nbenchmark: {}\n")
    refused = hpcxrf("live", tmp_path, "--run", tmp_path / "benchmark.yaml", "-o", tmp_path / "out")
    assert refused.code == 2
    assert "describes a benchmark" in refused.err
    assert not (tmp_path / "out").exists()
