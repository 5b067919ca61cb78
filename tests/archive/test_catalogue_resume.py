import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
from catalogue_archives import rows_of, some_changes, walk, write_text_spectrum

from hpcxrf.archive.catalogue import update
from hpcxrf.errors import EXIT_INTERRUPTED

SLOW = (
    "import sys, time; from hpcxrf.archive.catalogue import update; ask = update.ask\n"
    "update.COMMIT_S = 0.0\n"
    "def slow(pool, question):\n    time.sleep(0.1); return ask(pool, question)\n"
    "update.ask = slow\n"
    "sys.argv = ['hpcxrf', 'catalog', *sys.argv[1:]]\n"
    "from hpcxrf.cli import main; main()"
)
N = 60


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    for number in range(N):
        write_text_spectrum(tmp_path / "archive" / f"d{number % 7}" / f"s{number}.mca", first=number)
    return tmp_path / "archive"


def start(archive: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SLOW, str(archive), "-o", str(out), "--jobs", "1"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for_rows(out: Path, process: subprocess.Popen[str]) -> None:
    """Wait until some rows are committed aside."""
    aside, until = out.with_name(f".{out.name}.walk"), time.monotonic() + 200
    while time.monotonic() < until and process.poll() is None:
        if aside.exists() and count_rows(aside) >= 3:
            return
        time.sleep(0.02)
    pytest.fail(f"nothing was written: {process.poll()}")


def count_rows(aside: Path) -> int:
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{aside}?mode=ro&immutable=1", uri=True)) as connection:
        return connection.execute("SELECT count(*) FROM scan").fetchone()[0]
    return 0


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_walk_that_is_stopped_goes_on_and_reads_nothing_twice(archive, tmp_path, sign):
    out, whole = tmp_path / "a.sqlite", tmp_path / "whole.sqlite"
    process = start(archive, out)
    wait_for_rows(out, process)
    process.send_signal(sign)
    _, err = process.communicate(timeout=60)
    expected = {signal.SIGKILL: -9, signal.SIGINT: EXIT_INTERRUPTED, signal.SIGTERM: 75}
    assert process.returncode == expected[sign], err
    assert "Traceback" not in err
    if sign != signal.SIGKILL:
        assert "goes on where it stopped" in err
    assert not out.exists()
    report = walk(out, archive)
    assert report.resumed
    assert 0 < report.read < N
    assert some_changes(report) == {"new": N}
    walk(whole, archive)
    assert rows_of(out) == rows_of(whole)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.sqlite", "archive", "whole.sqlite"]


def test_what_an_earlier_start_left_is_not_gone_on_with_where_the_catalogue_is_another(archive, tmp_path, monkeypatch):
    out, other = tmp_path / "a.sqlite", tmp_path / "b.sqlite"

    def stop(_pool, _question):
        raise KeyboardInterrupt

    walk(other, archive)
    monkeypatch.setattr(update, "ask", stop)
    with pytest.raises(KeyboardInterrupt):
        walk(out, archive)
    monkeypatch.undo()
    other.rename(out)
    report = walk(out, archive)
    assert (report.resumed, report.read, some_changes(report)) == (False, 0, {"unchanged": N})


@pytest.mark.parametrize("content", [b"", b"torn", b"SQLite format 3\0" + bytes(5000)])
def test_what_an_earlier_start_left_damaged_is_begun_anew(archive, tmp_path, content):
    out = tmp_path / "a.sqlite"
    (tmp_path / ".a.sqlite.walk").write_bytes(content)
    report = walk(out, archive / "d0")
    assert (report.resumed, report.changes["new"]) == (False, report.read)
    assert not (tmp_path / ".a.sqlite.walk").exists()


def test_an_interrupted_second_walk_leaves_the_first_catalogue_and_counts_once(archive, tmp_path, monkeypatch):
    out = tmp_path / "a.sqlite"
    walk(out, archive)
    before = out.read_bytes()
    for number in range(5):
        write_text_spectrum(archive / "late" / f"n{number}.mca", first=1000 + number)
    (archive / "d0" / "s0.mca").rename(archive / "late" / "a-moved.mca")
    ask = update.ask
    asked = []

    def stop(pool, question):
        asked.append(question["path"])
        if len(asked) == 4:
            raise KeyboardInterrupt
        return ask(pool, question)

    monkeypatch.setattr(update, "COMMIT_S", -1.0)
    monkeypatch.setattr(update, "_AHEAD", 0)
    monkeypatch.setattr(update, "ask", stop)
    with pytest.raises(KeyboardInterrupt):
        walk(out, archive)
    assert out.read_bytes() == before
    monkeypatch.undo()
    report = walk(out, archive)
    assert report.resumed
    assert report.read < 6
    assert some_changes(report) == {"new": 5, "moved": 1, "unchanged": N - 1}
