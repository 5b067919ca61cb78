"""Progress: lines where there is no terminal, bars where there is one."""

import io
import re
import time
from dataclasses import dataclass

import pytest
from rich.console import Console

from hpcxrf.cli.progress import show_run, show_step

TITLES = {"ingest": "ingest into Zarr", "pixels": "pixels", "finalise": "close stores"}


@dataclass(frozen=True)
class End:
    stage: str
    ok: bool = True
    pixels: int = 0
    found: bool = False
    tried: bool = True


def console(*, terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=120, highlight=False)


def lines_of(out: Console) -> list[str]:
    return out.file.getvalue().splitlines()


def test_every_stage_has_a_line_at_its_start_and_one_at_its_end():
    out = console()
    with show_run(out, TITLES) as display:
        display.opened(1, 2)
        display.opened(2, 2)
        for _scan in range(2):
            display.begin({"ingest": 1, "finalise": 1} if _scan else {"ingest": 1, "pixels": 1})
        for stage in ("ingest", "ingest", "pixels", "finalise"):
            display.advance(End(stage))
    seconds = [re.sub(r"[\d.]+ s$", "T", line) for line in lines_of(out)]
    assert seconds == [
        "open files: started",
        "open files: 2 of 2 ended after T",
        "ingest into Zarr: started",
        "pixels: started",
        "close stores: started",
        # While the plan is made no stage is known to have ended.
        "ingest into Zarr: 2 of 2 ended after T",
        "pixels: 1 of 1 ended after T",
        "close stores: 1 of 1 ended after T",
    ]


def test_once_all_datasets_have_begun_a_stage_says_at_once_that_it_has_ended():
    out = console()
    with show_run(out, TITLES) as display:
        for _scan in range(2):
            display.begin({"ingest": 1, "pixels": 1})
        display.advance(End("ingest"))
        display.all_begun()
        display.advance(End("ingest"))
        assert re.fullmatch(r"ingest into Zarr: 2 of 2 ended after [\d.]+ s", lines_of(out)[-1])
        display.advance(End("pixels"))
        display.say("writing the report")
    # It was stopped: what has not ended is said last.
    assert [line.split(" ended")[0] for line in lines_of(out)[-2:]] == ["writing the report", "pixels: 1 of 2"]


def test_failures_and_what_an_earlier_run_did_are_counted():
    out = console()
    with show_run(out, {}) as display:
        display.begin({"fit": 3})
        display.advance(End("fit", found=True))
        display.advance(End("fit", ok=False))
        display.advance(End("fit"))
    assert re.fullmatch(r"fit: 3 of 3, 1 failed ended after [\d.]+ s, 1 of them in an earlier run", lines_of(out)[-1])


def test_a_long_stage_is_reported_every_so_often_even_while_no_task_ends():
    out = console()
    with show_run(out, TITLES, every_s=0.02) as display:
        display.begin({"ingest": 1, "pixels": 4})
        display.advance(End("ingest"))
        display.advance(End("pixels"))
        deadline = time.monotonic() + 20.0
        while len([line for line in lines_of(out) if line.startswith("after")]) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    reports = [line for line in lines_of(out) if line.startswith("after")]
    assert all(re.fullmatch(r"after \d+ s: pixels: 1 of 4", line) for line in reports)


def test_the_first_stage_is_reported_before_any_of_its_tasks_ends():
    out = console()
    with show_run(out, TITLES, every_s=0.02) as display:
        display.begin({"ingest": 1})
        deadline = time.monotonic() + 20.0
        while not [line for line in lines_of(out) if line.endswith("ingest into Zarr: 0 of 1")]:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_step_is_silent_unless_it_is_long():
    out = console()
    with show_step(out, "read", "rows") as advance:
        advance(1, 2)
        advance(2, 2)
    assert lines_of(out) == []
    with show_step(out, "read", "rows", every_s=0.02) as advance:
        advance(1, 2)
        deadline = time.monotonic() + 20.0
        while not lines_of(out):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert lines_of(out)[0] == "after 0 s: read: 1 of 2"


@pytest.mark.parametrize("stage", ["pixels", "fit"])
def test_a_terminal_has_a_bar_for_every_stage(stage):
    out = console(terminal=True)
    with show_run(out, TITLES) as display:
        display.begin({stage: 2})
        display.say("a [sentence]")
        display.advance(End(stage, pixels=10))
        display.advance(End(stage, ok=False))
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", out.file.getvalue())
    assert "a [sentence]" in text
    assert re.search(rf"{stage} .*2/2 .*1 failed", text)


def test_the_progress_of_a_stage_stops_with_an_error_and_leaves_no_thread():
    import threading

    def fail():
        with show_run(console(), TITLES) as display:
            display.begin({"pixels": 2})
            raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        fail()
    assert not [t for t in threading.enumerate() if t.name == "hpcxrf-progress"]
