import os
import sqlite3
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcxrf.archive.catalogue.write import write_catalogue
from hpcxrf.catalogue import where as conditions
from hpcxrf.catalogue.read import read_catalogue
from hpcxrf.catalogue.rows import COLUMNS, ScanRow, from_record, to_record
from hpcxrf.catalogue.schema import APPLICATION_ID, VERSION, create_tables
from hpcxrf.errors import ConfigError, InputFileError, OutputError

ROW = ScanRow(
    scan_id=1,
    root="/archive",
    path="2023/a.mda",
    member=None,
    format="mda",
    shape_y=11,
    shape_x=12,
    n_channels=2000,
    n_detectors=4,
    incident_energy_kev=10.0,
    date="2023-05-06T07:08:09",
    live_time_s=60.5,
    counts=None,
    i0_names=("US_IC",),
    sample=None,
    companions=(),
    elements=("Si", "Fe", "Pt_L"),
    elements_from="override file",
    override_path="/archive/2023/maps_fit_parameters_override.txt",
    instrument="2xfm",
    size_bytes=4000,
    mtime_ns=1_700_000_000_000_000_000,
    sha256=None,
    state="ok",
    fault=None,
)
ROWS = (
    ROW,
    replace(ROW, scan_id=2, path="2024/b.mda", date="2024-02-03T00:00:00", shape_y=200, sample="it's 100%"),
    replace(ROW, scan_id=3, path="2024/\udcff.mda", date="2100-01-01T00:00:00Z", state="refused", fault="cut off"),
    replace(ROW, scan_id=4, path="old.mda", date="1970-01-01T00:00:00", shape_y=300, incident_energy_kev=None),
    replace(ROW, scan_id=5, path="z\n<b>.mda", date=None, format=None, state="ignored", counts=2**40),
)


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    path = tmp_path / "archive.sqlite"
    with sqlite3.connect(path) as connection:
        create_tables(connection)
        marks = ", ".join("?" * len(COLUMNS))
        connection.executemany(f"INSERT INTO scan VALUES ({marks})", map(to_record, ROWS))  # noqa: S608
    connection.close()
    return path


def found(path: Path, where: str | None) -> list[int]:
    return [row.scan_id for row in read_catalogue(path, where)]


def test_rows_come_back_as_they_were_written(catalogue):
    back = sorted(read_catalogue(catalogue), key=lambda row: row.scan_id)
    assert tuple(back) == ROWS


def test_rows_come_in_the_order_of_their_places(catalogue):
    # a name that is not UTF-8 is kept as bytes, which SQLite puts after all texts
    assert found(catalogue, None) == [1, 2, 4, 5, 3]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("date > '2024-01-01' and shape_y > 100", [2]),
        ("DATE >= '2024-01-01' OR (Shape_Y = 300)", [2, 3, 4]),
        ("incident_energy_kev is null", [4]),
        ("incident_energy_kev IS NOT NULL and date not null", [1, 2, 3]),
        ("path like '2024/%' and not state = 'refused'", [2]),
        ("sample like '%''s 100!%' escape '!'", [2]),
        ("scan_id in (1, 3, 99) and scan_id not in (3)", [1]),
        ("shape_y between 100 and 250", [2]),
        ("shape_y * shape_x >= 2400 and -shape_y < -250.5e0", [4]),
        ("elements like '%\"Pt_L\"%' and scan_id <> 5 and scan_id != 4", [1, 2, 3]),
        ('"format" isnull', [5]),
        ("counts > 1e12", [5]),
    ],
)
def test_conditions_choose_rows_as_sql_does(catalogue, where, expected):
    assert sorted(found(catalogue, where)) == expected


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("shapey > 1", "shapey is not a column"),
        ("date > date('now')", "date(...) is a function"),
        ("abs(shape_y) > 1", "abs is not a column"),
        ("load_extension('x')", "load_extension is not a column"),
        ("shape_y > (select 1)", "select is not a column"),
        ("scan_id in scan", "scan is not a column"),
        ("1) union select * from scan where (1", "union is not a column"),
        ("1) group by (path", "group is not a column"),
        ("1) or (1)) or ((1", "closes nothing"),
        ("1; drop table scan", "not understood"),
        ("1 -- and more", "comment"),
        ("1 /* and more", "comment"),
        ('path = "a.mda"', "single quotes"),
        ("path = 'a", "not understood"),
        ("((1)", "not closed"),
        ("", "empty"),
        ("  ", "empty"),
        ("1 and", "syntax error"),
        ("shape_y > 12abc", "not understood"),
        ("rowid = 1", "rowid is not a column"),
        ("path = 'a\0'", "not understood"),
        ("(" * 40 + "1" + ")" * 40, "40 parentheses"),
        ("1 or " * 2000 + "1", "at most 10000"),
        ("path like " + "'" + "%a" * 600 + "'", "too complex"),
        ("pragma_table_info", "not a column"),
        ("1 collate nocase", "collate is not a column"),
        ("path is 'a' || path", "not understood"),
    ],
)
def test_all_else_is_refused_with_the_columns(catalogue, where, words):
    with pytest.raises(ConfigError) as caught:
        list(read_catalogue(catalogue, where))
    text = str(caught.value)
    assert words in text
    if "at most 10000" not in words:
        assert "columns: scan_id, root, path" in text


@pytest.mark.parametrize(
    "where",
    [
        "shape_y > (SELECT 1)",
        "abs(shape_y)",
        "shape_y IN (SELECT shape_x FROM scan WHERE shape_x > 1)",
        "EXISTS (SELECT 1 FROM sqlite_schema)",
        "1) UNION SELECT * FROM scan WHERE (1",
        "sqlite_version() > '3'",
        "randomblob(1000000000) IS NULL",
        "secret > 1",
    ],
)
def test_the_authorizer_alone_refuses_too(catalogue, where, monkeypatch):
    monkeypatch.setattr("hpcxrf.catalogue.read.check_where", lambda _where: None)
    with sqlite3.connect(catalogue) as connection:
        connection.execute("ALTER TABLE scan ADD COLUMN secret INTEGER")
    connection.close()
    with pytest.raises(ConfigError):
        list(read_catalogue(catalogue, where))


@settings(deadline=None, max_examples=300)
@given(st.text(alphabet=st.sampled_from("ab(),'\"-*/=<>1 \n;%|"), max_size=30))
def test_any_text_is_taken_or_refused(text):
    with suppress(ConfigError):
        conditions.check_where(text)


def test_a_condition_is_stopped_at_its_limit_of_time(catalogue, monkeypatch):
    clock = conditions.Clock(0.01)
    clock.start()
    time.sleep(0.02)
    assert clock.is_late()
    clock.stop()
    assert not clock.is_late()
    monkeypatch.setattr("hpcxrf.catalogue.read.LIMIT_S", -1.0)
    monkeypatch.setattr(conditions, "_PROGRESS_STEPS", 1)
    with pytest.raises(ConfigError, match="simpler condition"):
        found(catalogue, "shape_y > 1")


def test_reading_writes_nothing_beside_the_catalogue(catalogue):
    before = catalogue.stat()
    catalogue.parent.chmod(0o555)
    try:
        assert len(found(catalogue, "shape_y > 0")) == 5
    finally:
        catalogue.parent.chmod(0o755)
    assert [one.name for one in catalogue.parent.iterdir()] == ["archive.sqlite"]
    assert catalogue.stat().st_mtime_ns == before.st_mtime_ns


def damage(path: Path, place: int, content: bytes) -> None:
    with path.open("r+b") as stream:
        stream.seek(place)
        stream.write(content)


@pytest.mark.parametrize(
    ("place", "content", "words"),
    [
        (60, (VERSION + 1).to_bytes(4, "big"), "made by a newer hpcxrf"),
        (68, b"abcd", "another program"),
        (0, b"CSV,", "not a catalogue"),
        (110, b"\xff" * 2000, "damaged"),
        (5000, b"\xff" * 12000, "damaged"),
    ],
)
def test_damaged_and_newer_catalogues_are_refused(catalogue, place, content, words):
    damage(catalogue, place, content)
    with pytest.raises(InputFileError, match=words):
        list(read_catalogue(catalogue))


def test_a_catalogue_cut_off_is_refused(catalogue):
    content = catalogue.read_bytes()
    for size in (0, 50, 100, 4096, len(content) - 1):
        catalogue.write_bytes(content[:size])
        with pytest.raises(InputFileError, match="catalogue"):
            list(read_catalogue(catalogue))


def test_a_value_that_no_catalogue_has_is_named(catalogue):
    with sqlite3.connect(catalogue) as connection:
        connection.execute("UPDATE scan SET elements = '[1]', state = 'good', shape_y = 'many' WHERE scan_id = 2")
    connection.close()
    with pytest.raises(InputFileError, match=r"scan 2: shape_y is 'many'; elements is .*; state is 'good'"):
        list(read_catalogue(catalogue))


def test_a_missing_file_and_a_pipe_are_refused(tmp_path):
    with pytest.raises(InputFileError, match="no such file"):
        read_catalogue(tmp_path / "none.sqlite")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputFileError, match="a pipe"):
        read_catalogue(tmp_path / "pipe")


def test_a_view_in_place_of_the_table_is_refused(tmp_path):
    path = tmp_path / "view.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("CREATE TABLE other (x)")
        columns = ", ".join(f"x AS {name}" for name in COLUMNS)
        connection.execute(f"CREATE VIEW scan AS SELECT {columns} FROM other")  # noqa: S608
    connection.close()
    with pytest.raises(InputFileError, match="damaged"):
        list(read_catalogue(path))


@given(st.integers(-(2**70), 2**70), st.text(st.characters(codec="utf-8")), st.lists(st.text(max_size=5), max_size=3))
def test_any_row_survives_the_table(counts, text, names):
    row = replace(ROW, counts=counts, sample=text, i0_names=tuple(names))
    back = from_record(to_record(row), "here")
    assert back == (row if abs(counts) < 2**63 else replace(row, counts=None))


def test_rows_that_are_known_are_written_whole_or_not_at_all(catalogue):
    write_catalogue(catalogue, ROWS[:2])
    assert tuple(read_catalogue(catalogue)) == ROWS[:2]
    before = catalogue.read_bytes()
    with pytest.raises(OutputError, match="UNIQUE constraint failed"):
        write_catalogue(catalogue, (ROW, ROW))
    assert catalogue.read_bytes() == before
    assert [one.name for one in catalogue.parent.iterdir()] == ["archive.sqlite"]
