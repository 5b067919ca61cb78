"""`hpcxrf catalog`: walks and reads, prints for people and scripts, writes only where it is told to."""

import csv
import io
import json
import os

import pytest

from tests.samples.catalogue_archives import hash_tree, write_text_spectrum


@pytest.fixture
def archive(tmp_path):
    folder = tmp_path / "archive"
    write_text_spectrum(folder / "a.mca", first=1)
    write_text_spectrum(folder / "=2+5.mca", first=2, date="Mar 01, 2024 00:00:00")
    write_text_spectrum(folder / os.fsdecode(b"\xff.mca"), first=3)
    (folder / "new\nline [bold].mda").touch()
    (folder / "copy.mca").write_bytes((folder / "a.mca").read_bytes())
    return folder


def test_a_walk_prints_what_it_found_and_a_second_one_what_changed(hpcxrf, archive, tmp_path):
    before = hash_tree(archive)
    ran = hpcxrf("catalog", archive, "-o", tmp_path / "a.sqlite", "--jobs", 1)
    assert ran.code == 0, ran.err
    for words in ("new            5", "refused        1", "duplicate      1", "epics-mca      3", "has 0 bytes"):
        assert " ".join(words.split()) in " ".join(ran.out.split())
    assert hash_tree(archive) == before
    (archive / "a.mca").rename(archive / "b.mca")
    again = hpcxrf("catalog", archive, "-o", tmp_path / "a.sqlite", "--jobs", 1, "--json").json
    changes = {name: count for name, count in again["walk"]["changes"].items() if count}
    assert changes == {"moved": 1, "unchanged": 4, "duplicate": 1}
    assert again["states"] == {"ok": 3, "refused": 1, "duplicate": 1}
    assert again["formats"] == {"epics-mca": 3}
    assert [one["count"] for one in again["reasons"]] == [1, 1]
    assert {row["path"] for row in again["scans"]} == {
        "=2+5.mca",
        "b.mca",
        "copy.mca",
        "new\nline [bold].mda",
        os.fsdecode(b"\xff.mca"),
    }


def test_reading_chooses_scans_and_escapes_what_a_spreadsheet_or_terminal_would_take(hpcxrf, archive, tmp_path):
    out = tmp_path / "a.sqlite"
    assert hpcxrf("catalog", archive, "-o", out, "--jobs", 1).code == 0
    chosen = hpcxrf("catalog", out, "--where", "date > '2024-01-01' or state = 'refused'", "--json").json
    assert [row["path"] for row in chosen["scans"]] == ["=2+5.mca", "new\nline [bold].mda"]
    assert (chosen["walk"], chosen["states"]) == (None, {"ok": 1, "refused": 1})
    table = hpcxrf("catalog", out, "--csv", "-")
    rows = list(csv.DictReader(io.StringIO(table.out)))
    assert [row["path"] for row in rows] == ["'=2+5.mca", "a.mca", "copy.mca", "new\\nline [bold].mda", "\\xff.mca"]
    assert "states" not in table.out
    assert hpcxrf("catalog", out, "--where", "counts > 0", "--csv", tmp_path / "t.csv").code == 0
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 5
    shown = hpcxrf("catalog", out)
    assert "new\\nline [bold].mda" in shown.out
    assert "\\xff.mca" in shown.out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["ARCHIVE"], 2, "name the catalogue with -o"),
        (["ARCHIVE", "-o", "ARCHIVE/a.sqlite"], 2, "nothing is written"),
        (["ARCHIVE", "-o", "new.sqlite", "--csv", "ARCHIVE/t.csv"], 2, "nothing is written"),
        (["ARCHIVE/none", "-o", "new.sqlite"], 3, "no such folder"),
        (["ARCHIVE/a.mca", "-o", "new.sqlite"], 3, "not a folder"),
        (["ARCHIVE/a.mca"], 3, "not a catalogue"),
        (["none.sqlite"], 3, "no such file"),
        (["ARCHIVE", "-o", "new.sqlite", "--where", "abs(shape_y) > 1"], 2, "columns: scan_id"),
        (["ARCHIVE/a.mca", "--sha256"], 2, "--sha256"),
        (["ARCHIVE", "-o", "new.sqlite", "--json", "--csv", "-"], 2, "standard output"),
        (["ARCHIVE", "-o", "new.sqlite", "--site", "nowhere"], 2, "nowhere"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_written(
    hpcxrf, archive, tmp_path, monkeypatch, arguments, code, words
):
    monkeypatch.chdir(tmp_path)
    before = hash_tree(archive)
    ran = hpcxrf("catalog", *(one.replace("ARCHIVE", "archive") for one in arguments))
    assert (ran.code, words in ran.err) == (code, True), ran.err
    assert not (tmp_path / "new.sqlite").exists()
    assert hash_tree(archive) == before


def test_parquet_holds_the_rows_or_is_refused_with_the_remedy(hpcxrf, archive, tmp_path):
    out = tmp_path / "a.sqlite"
    try:
        from pyarrow import parquet
    except ImportError:
        ran = hpcxrf("catalog", archive, "-o", out, "--parquet", tmp_path / "a.parquet")
        assert (ran.code, out.exists()) == (2, False)
        assert "pip install 'hpcxrf[parquet]'" in ran.err
        return
    ran = hpcxrf("catalog", archive, "-o", out, "--parquet", tmp_path / "a.parquet", "--jobs", 1)
    assert ran.code == 0, ran.err
    table = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert [row["path"] for row in table] == ["=2+5.mca", "a.mca", "copy.mca", "new\nline [bold].mda", "\\xff.mca"]
    assert table[1]["counts"] == 2016 + 64
    assert table[1]["companions"] == []


def test_the_json_of_a_whole_catalogue_is_one_object(hpcxrf, archive, tmp_path):
    out = tmp_path / "a.sqlite"
    ran = hpcxrf("catalog", archive, "-o", out, "--jobs", 1, "--json", "--where", "state = 'none'")
    assert json.loads(ran.out)["scans"] == []
