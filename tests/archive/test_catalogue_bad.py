import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
from catalogue_archives import hash_tree, rows_of, some_changes, walk, write_large_array, write_text_spectrum

from hpcxrf.archive.catalogue import update
from hpcxrf.catalogue.read import read_catalogue
from hpcxrf.errors import InputFileError, OutputError

HOSTILE = Path(__file__).parents[3] / "shared" / "cases" / "hostile"


def test_names_pipes_links_and_broken_files_have_a_row_and_a_reason_each(tmp_path):
    archive, out = tmp_path / "archive", tmp_path / "a.sqlite"
    write_text_spectrum(archive / "new\nline.mca", first=1)
    write_text_spectrum(archive / "<script>alert(1)</script>.mca", first=2)
    write_text_spectrum(archive / "=cmd|'!A1.mca", first=3)
    write_text_spectrum(archive / os.fsdecode(b"\xff\xfe.mca"), first=4)
    write_text_spectrum(archive / os.fsdecode(b"folder \xe9") / "x.mca", first=5)
    write_text_spectrum(archive / ".hidden.mca", first=6)
    write_text_spectrum(archive / "seventy.mca", first=7)
    os.utime(archive / "seventy.mca", (0, 0))
    write_text_spectrum(archive / "hundred.mca", first=8, date="Dec 31, 2100 23:59:59")
    os.utime(archive / "hundred.mca", (4_133_980_799, 4_133_980_799))
    write_text_spectrum(archive / "before.mca", first=9, date="Jan 01, 1970 00:00:00")
    os.utime(archive / "before.mca", (-1_000_000, -1_000_000))
    os.mkfifo(archive / "pipe.h5")
    (archive / "empty.mda").touch()
    (archive / "loop").symlink_to(archive)
    (archive / "self.h5").symlink_to(archive / "self.h5")
    (archive / "nowhere.h5").symlink_to(archive / "none.h5")
    write_large_array(archive / "whole.h5", seed=1)
    content = (archive / "whole.h5").read_bytes()
    (archive / "half.h5").write_bytes(content[: len(content) // 2])
    (archive / "text.h5").write_text("ten notes")
    (archive / "store.zarr").mkdir()
    (archive / "store.zarr" / "zarr.json").write_text("{}")
    with h5py.File(archive / "open.h5", "w", libver="latest") as file:
        file["counts"] = np.ones((3, 4, 256), np.uint16)
        file.flush()
        before = hash_tree(archive)
        report = walk(out, archive, jobs=2)
    found = rows_of(out)
    good = {row.path for row in found.values() if row.state == "ok"}
    assert good == {
        "new\nline.mca",
        "<script>alert(1)</script>.mca",
        "=cmd|'!A1.mca",
        os.fsdecode(b"\xff\xfe.mca"),
        os.fsdecode(b"folder \xe9/x.mca"),
        "seventy.mca",
        "hundred.mca",
        "before.mca",
        "whole.h5",
    }
    assert found["seventy.mca"].mtime_ns == 0
    assert found["before.mca"].mtime_ns == -(10**15)
    assert (found["hundred.mca"].date, found["before.mca"].date) == ("2100-12-31T23:59:59", "1970-01-01T00:00:00")
    bad = {name: (row.state, row.fault) for name, row in found.items() if row.state != "ok"}
    words = {
        "pipe.h5": ("ignored", "it is a pipe"),
        "empty.mda": ("refused", "has 0 bytes"),
        "loop": ("ignored", "a link to a folder"),
        "self.h5": ("ignored", "leads back to itself"),
        "nowhere.h5": ("ignored", "a file that is not there"),
        "half.h5": ("refused", "truncated"),
        "text.h5": ("refused", "named .h5, but begins with b'ten notes'"),
        "store.zarr": ("ignored", "Zarr store"),
        "open.h5": ("refused", "another program writes"),
    }
    assert bad.keys() == words.keys()
    for name, (state, text) in words.items():
        assert bad[name][0] == state, name
        assert text in bad[name][1], (name, bad[name])
        assert "\n" not in bad[name][1]
    assert some_changes(report) == {"new": len(found)}
    assert hash_tree(archive) != before  # the file that was open is closed now
    again = walk(out, archive)
    assert some_changes(again) == {"unchanged": len(found) - 1, "changed": 1}
    assert rows_of(out)["open.h5"].state == "ok"


@pytest.mark.skipif(not HOSTILE.is_dir(), reason="no shared/cases beside the project")
def test_a_file_that_crashes_or_hangs_its_reader_is_refused_and_the_next_ones_are_read(tmp_path):
    archive, out = tmp_path / "archive", tmp_path / "a.sqlite"
    for name in ("attribute_loop.h5", "huge_times.h50"):
        archive.mkdir(exist_ok=True)
        shutil.copyfile(HOSTILE / name, archive / name)
    write_text_spectrum(archive / "after.mca")
    report = walk(out, archive)
    found = rows_of(out)
    assert found["after.mca"].state == "ok"
    assert (found["attribute_loop.h5"].state, found["huge_times.h50"].state) == ("refused", "refused")
    assert "busy without an end" in found["attribute_loop.h5"].fault
    assert "more memory" in found["huge_times.h50"].fault
    # What was found once is not tried again.
    assert walk(out, archive).read == 0
    assert report.read == 3


def test_ten_thousand_files_in_one_folder_are_listed_in_parts(tmp_path, monkeypatch):
    archive, out = tmp_path / "archive", tmp_path / "a.sqlite"
    first = write_text_spectrum(archive / "0.mca")
    for number in range(1, 10_000):
        os.link(first, archive / f"{number}.mca")
    asked = []
    answer = {"state": "ok", "fault": "", "fingerprint": "whole:1", "format": "epics-mca"}
    monkeypatch.setattr(update, "ask", lambda _pool, question: asked.append(question["path"]) or answer)
    report = walk(out, archive)
    assert len(asked) == 10_000
    assert report.changes["duplicate"] == 9_999
    assert [row.path for row in read_catalogue(out, "state = 'ok'")] == ["0.mca"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_or_file_without_permission_has_its_reason_and_is_tried_again(tmp_path):
    archive, out = tmp_path / "archive", tmp_path / "a.sqlite"
    write_text_spectrum(archive / "in" / "x.mca")
    write_text_spectrum(archive / "y.mca", first=2)
    walk(out, archive)
    (archive / "in").chmod(0)
    (archive / "y.mca").chmod(0)
    try:
        walk(out, archive, reread=True)
        found = rows_of(out)
        assert "cannot be listed" in found["in"].fault
        assert "Permission denied" in found["y.mca"].fault
        assert found["in/x.mca"].state == "ok"
    finally:
        (archive / "in").chmod(0o755)
        (archive / "y.mca").chmod(0o644)
    walk(out, archive)
    assert rows_of(out)["y.mca"].state == "ok"


def test_what_lies_in_a_folder_that_cannot_be_listed_today_has_not_vanished(tmp_path, monkeypatch):
    archive, out = tmp_path / "archive", tmp_path / "a.sqlite"
    write_text_spectrum(archive / "in" / "x.mca")
    write_text_spectrum(archive / "y.mca", first=2)
    walk(out, archive)
    scandir = os.scandir

    def deny(place):
        if os.fsencode(place).endswith(b"/in"):
            raise PermissionError(13, "Permission denied", place)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", deny)
    walk(out, archive)
    found = rows_of(out)
    assert (found["in"].state, found["in/x.mca"].state) == ("refused", "ok")
    assert "a folder that cannot be listed: Permission denied" in found["in"].fault
    monkeypatch.undo()
    assert some_changes(walk(out, archive)) == {"unchanged": 2, "vanished": 1}


def test_an_archive_that_vanishes_during_the_walk_leaves_the_catalogue_as_it_was(tmp_path, monkeypatch):
    archive, out = tmp_path / "archive", tmp_path / "a.sqlite"
    for number in range(3):
        write_text_spectrum(archive / f"s{number}.mca", first=number)
    walk(out, archive)
    before = out.read_bytes()
    write_text_spectrum(archive / "s3.mca", first=3)
    ask = update.ask

    def vanish(pool, question):
        if archive.exists():
            archive.rename(tmp_path / "unmounted")
            archive.mkdir()
        return ask(pool, question)

    monkeypatch.setattr(update, "ask", vanish)
    with pytest.raises(InputFileError, match="vanished during the walk"):
        walk(out, archive)
    assert out.read_bytes() == before
    archive.rmdir()
    with pytest.raises(InputFileError, match="no such folder"):
        walk(out, archive)
    (tmp_path / "unmounted").rename(archive)
    monkeypatch.undo()
    assert some_changes(walk(out, archive)) == {"new": 1, "unchanged": 3}


def test_files_that_vanish_between_listing_and_reading_are_counted_and_have_no_row(tmp_path, monkeypatch):
    archive, out = tmp_path / "archive", tmp_path / "a.sqlite"
    for number in range(3):
        write_text_spectrum(archive / f"s{number}.mca", first=number)
    ask = update.ask

    def remove(pool, question):
        if question["path"].endswith("s1.mca"):
            Path(question["path"]).unlink()
        return ask(pool, question)

    monkeypatch.setattr(update, "ask", remove)
    report = walk(out, archive)
    assert (report.gone, some_changes(report), set(rows_of(out))) == (1, {"new": 2}, {"s0.mca", "s2.mca"})


@pytest.mark.parametrize(
    ("place", "content", "words"),
    [(60, (99).to_bytes(4, "big"), "made by a newer hpcxrf"), (4096, b"\xff" * 8192, "damaged")],
)
def test_a_newer_or_damaged_catalogue_is_not_written_over(tmp_path, place, content, words):
    archive, out = tmp_path / "archive", tmp_path / "a.sqlite"
    write_text_spectrum(archive / "x.mca")
    walk(out, archive)
    with out.open("r+b") as stream:
        stream.seek(place)
        stream.write(content)
    before = out.read_bytes()
    with pytest.raises(InputFileError, match=words):
        walk(out, archive)
    assert out.read_bytes() == before


def test_two_walks_of_one_catalogue_wait_for_each_other(tmp_path, monkeypatch):
    archive, out = tmp_path / "archive", tmp_path / "a.sqlite"
    write_text_spectrum(archive / "x.mca")
    inside, go_on = threading.Event(), threading.Event()
    ask = update.ask

    def wait(pool, question):
        inside.set()
        go_on.wait(60)
        return ask(pool, question)

    monkeypatch.setattr(update, "ask", wait)
    monkeypatch.setattr("hpcxrf.store.files.WRITER_PATIENCE_S", 0.0)
    first = threading.Thread(target=walk, args=(out, archive), daemon=True)
    first.start()
    try:
        assert inside.wait(60)
        with pytest.raises(OutputError, match="another hpcxrf writes it"):
            walk(out, archive)
    finally:
        go_on.set()
        first.join(60)
    assert set(rows_of(out)) == {"x.mca"}


def test_a_catalogue_where_nothing_can_be_written_is_refused_at_once(tmp_path):
    archive = write_text_spectrum(tmp_path / "archive" / "x.mca").parent
    with pytest.raises(OutputError, match="cannot be written"):
        walk(Path("/proc/none/a.sqlite"), archive)


def test_the_layer_answers_on_a_login_node():
    code = (
        "import sys, hpcxrf.cli.catalog, hpcxrf.archive.catalogue.update, hpcxrf.archive.catalogue.export;"
        "print([m for m in ('torch', 'dask', 'distributed', 'xarray', 'zarr', 'h5py') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_catalogue_is_readable_by_others_as_the_umask_says(tmp_path):
    archive, out = tmp_path / "archive", tmp_path / "a.sqlite"
    write_text_spectrum(archive / "x.mca")
    walk(out, archive)
    assert stat.S_IMODE(out.stat().st_mode) & 0o600 == 0o600
    with sqlite3.connect(f"file:{out}?mode=ro", uri=True) as connection:
        assert connection.execute("SELECT count(*) FROM scan").fetchone() == (1,)
    connection.close()
