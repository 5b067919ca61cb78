import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from catalogue_archives import hash_tree, rows_of, some_changes, walk, write_large_array, write_text_spectrum

from hpcxrf.archive.catalogue.fingerprint import WHOLE, make_fingerprint
from hpcxrf.errors import ConfigError, InputFileError
from hpcxrf.store.files import file_sha256


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    for number in range(4):
        write_text_spectrum(folder / f"day{number % 2}" / f"s{number}.mca", first=number)
    write_large_array(folder / "maps" / "large.h5", seed=1)
    (folder / "README.md").write_text("scans of a beamline")
    return folder


def test_a_second_walk_tells_new_changed_moved_and_vanished_apart_and_keeps_the_numbers(archive, tmp_path):
    out = tmp_path / "a.sqlite"
    assert some_changes(walk(out, archive)) == {"new": 6}
    first = rows_of(out)
    write_text_spectrum(archive / "new.mca", first=50)
    write_text_spectrum(archive / "day0" / "s0.mca", first=60, live=2.5)
    (archive / "day1" / "s1.mca").rename(archive / "day0" / "renamed.mca")
    (archive / "maps").rename(archive / "moved maps")
    (archive / "day0" / "s2.mca").unlink()
    report = walk(out, archive)
    assert some_changes(report) == {"new": 1, "changed": 1, "moved": 2, "unchanged": 2, "vanished": 1}
    assert report.read == 4
    second = rows_of(out)
    assert second["day0/s0.mca"].scan_id == first["day0/s0.mca"].scan_id
    assert (first["day0/s0.mca"].counts, second["day0/s0.mca"].counts) == (2016, 2016 + 64 * 60)
    assert second["day0/s0.mca"].live_time_s == 2.5
    assert second["day0/renamed.mca"].scan_id == first["day1/s1.mca"].scan_id
    assert second["moved maps/large.h5"].scan_id == first["maps/large.h5"].scan_id
    assert second["new.mca"].scan_id > max(row.scan_id for row in first.values())
    assert "day1/s1.mca" not in second
    gone = second["day0/s2.mca"]
    assert (gone.state, gone.scan_id) == ("vanished", first["day0/s2.mca"].scan_id)
    assert "it was ok" in gone.fault
    assert some_changes(walk(out, archive)) == {"unchanged": 6}


def test_what_vanished_is_back_without_being_read_and_what_left_for_good_keeps_its_row(archive, tmp_path):
    out = tmp_path / "a.sqlite"
    walk(out, archive)
    shutil.move(archive / "day0", tmp_path / "away")
    assert some_changes(walk(out, archive)) == {"unchanged": 4, "vanished": 2}
    assert some_changes(walk(out, archive)) == {"unchanged": 4}
    shutil.move(tmp_path / "away", archive / "day0")
    report = walk(out, archive)
    assert some_changes(report) == {"back": 2, "unchanged": 4}
    assert report.read == 0
    assert rows_of(out)["day0/s0.mca"].state == "ok"


def test_one_content_under_several_names_is_a_duplicate_by_size_and_hash_alone(archive, tmp_path):
    out = tmp_path / "a.sqlite"
    large = archive / "maps" / "large.h5"
    shutil.copyfile(large, archive / "zcopy.h5")
    os.link(large, archive / "zhard.h5")
    (archive / "zlink.h5").symlink_to(large)
    shutil.copyfile(archive / "day1" / "s1.mca", archive / "zsmall.mca")
    # of the same size, beginning, middle and end
    near = bytearray(large.read_bytes())
    near[20_000] ^= 1
    (archive / "znear.h5").write_bytes(near)
    assert make_fingerprint(archive / "znear.h5") == make_fingerprint(large)
    report = walk(out, archive)
    assert report.changes["duplicate"] == 4
    found = rows_of(out, "state = 'duplicate'")
    assert {name: row.fault for name, row in found.items()} == {
        "zcopy.h5": f"same content as {large}",
        "zhard.h5": f"same content as {large}",
        "zlink.h5": f"same content as {large}",
        "zsmall.mca": f"same content as {archive / 'day1' / 's1.mca'}",
    }
    assert rows_of(out)["znear.h5"].state == "ok"
    assert rows_of(out)["znear.h5"].sha256 == file_sha256(archive / "znear.h5")
    assert rows_of(out)["day0/s0.mca"].sha256 is None
    # The first of them leaves: another one takes its place.
    large.unlink()
    report = walk(out, archive)
    # the link leads nowhere now
    assert some_changes(report) == {"vanished": 1, "changed": 1, "unchanged": 9, "duplicate": 2}
    assert rows_of(out)["zcopy.h5"].state == "ok"
    assert rows_of(out)["zhard.h5"].fault == f"same content as {archive / 'zcopy.h5'}"


def test_a_large_file_with_another_time_is_not_taken_for_the_one_that_vanished_unless_its_checksum_says_so(tmp_path):
    for sha256, expected in ((False, {"new": 1, "vanished": 1}), (True, {"moved": 1})):
        folder, out = tmp_path / f"archive {sha256}", tmp_path / f"{sha256}.sqlite"
        large = write_large_array(folder / "large.h5", seed=2)
        walk(out, folder, sha256=sha256)
        shutil.copyfile(large, folder / "copied.h5")
        os.utime(folder / "copied.h5", (1, 1))
        large.unlink()
        assert some_changes(walk(out, folder, sha256=sha256)) == expected


def test_checksums_are_computed_when_they_are_asked_for_of_what_lacks_them(archive, tmp_path):
    out = tmp_path / "a.sqlite"
    walk(out, archive)
    report = walk(out, archive, sha256=True)
    assert (some_changes(report), report.read) == ({"unchanged": 6}, 5)
    for name, row in rows_of(out, "state = 'ok'").items():
        assert row.sha256 == file_sha256(archive / name)
    assert walk(out, archive, sha256=True).read == 0


def test_nothing_is_written_into_the_archive_and_no_catalogue_into_it_either(archive, tmp_path):
    before = hash_tree(archive)
    walk(tmp_path / "a.sqlite", archive, sha256=True)
    assert hash_tree(archive) == before
    for inside in (archive / "a.sqlite", archive / "day0" / "a.sqlite"):
        with pytest.raises(ConfigError, match="nothing is written"):
            walk(inside, archive)
    (tmp_path / "door").symlink_to(archive)
    with pytest.raises(ConfigError, match="nothing is written"):
        walk(tmp_path / "door" / "a.sqlite", archive)
    assert hash_tree(archive) == before
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.sqlite", "archive", "door"]


def test_another_folder_is_added_and_one_that_overlaps_is_refused(archive, tmp_path):
    out, other = tmp_path / "a.sqlite", tmp_path / "other"
    write_text_spectrum(other / "o.mca", first=9)
    walk(out, archive / "day0", archive / "day0" / ".")
    assert some_changes(walk(out, other)) == {"new": 1}
    assert {row.root for row in rows_of(out).values()} == {str(archive / "day0"), str(other)}
    assert all(row.state == "ok" for row in rows_of(out).values())
    with pytest.raises(ConfigError, match="lie in each other"):
        walk(out, archive)
    shutil.move(other / "o.mca", archive / "day0" / "o.mca")
    assert some_changes(walk(out, archive / "day0")) == {"moved": 1, "unchanged": 2}


def test_an_override_file_that_appears_changes_the_scans_beside_and_below_it(archive, tmp_path):
    out = tmp_path / "a.sqlite"
    walk(out, archive)
    assert rows_of(out)["day0/s0.mca"].elements == ()
    place = archive / "day0" / "maps_fit_parameters_override.txt"
    place.write_text("ELEMENTS_TO_FIT: Si, Fe, Pt_L\nCOHERENT_SCT_ENERGY: 12.5\n")
    assert some_changes(walk(out, archive)) == {"new": 1, "changed": 2, "unchanged": 4}
    row = rows_of(out)["day0/s0.mca"]
    assert (row.elements, row.elements_from) == (("Si", "Fe", "Pt_L"), "override file")
    assert (row.override_path, row.incident_energy_kev) == (str(place), 12.5)
    place.write_text("ELEMENTS_TO_FIT: Ca\nCOHERENT_SCT_ENERGY: much\n")
    walk(out, archive)
    row = rows_of(out)["day0/s0.mca"]
    assert (row.state, row.format, row.counts) == ("refused", "epics-mca", 2016)
    assert "COHERENT_SCT_ENERGY" in row.fault


def test_an_older_file_in_the_place_of_the_catalogue_is_never_overwritten(archive, tmp_path):
    out = tmp_path / "a.sqlite"
    out.write_text("my notes")
    with pytest.raises(InputFileError, match="not a catalogue"):
        walk(out, archive)
    assert out.read_text() == "my notes"
    with sqlite3.connect(tmp_path / "b.sqlite") as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    with pytest.raises(InputFileError, match="another program"):
        walk(tmp_path / "b.sqlite", archive)


def test_the_fingerprint_of_a_small_file_holds_all_of_it(tmp_path):
    (tmp_path / "a").write_bytes(bytes(49_152))
    (tmp_path / "b").write_bytes(bytes(30_000) + b"1" + bytes(19_151))
    a, b = make_fingerprint(tmp_path / "a"), make_fingerprint(tmp_path / "b")
    assert a.startswith(WHOLE)
    assert b.startswith(WHOLE)
    assert a != b
    (tmp_path / "c").write_bytes(bytes(49_153))
    assert not make_fingerprint(tmp_path / "c").startswith(WHOLE)
