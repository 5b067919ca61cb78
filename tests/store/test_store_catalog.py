"""Names of datasets are safe everywhere, different for different files, and the same wherever an archive lies."""

import re
import shlex
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcxrf.errors import InputFileError
from hpcxrf.store.catalog import dataset_id, is_dataset_id

HOSTILE = [
    "with space.h5",
    "quote'and\"quote.h5",
    "new\nline.h5",
    "-rf.h5",
    "$(reboot);`x`.h5",
    "..h5",
    "Probe Nº5 – Übersicht.mda",
    "试样.h5",
    "=cmd|' /C calc'!A0.h5",
    "a" * 255,
    "\udcff.h5",
]

names = st.text(min_size=1, max_size=30).filter(
    lambda name: "/" not in name and "\0" not in name and name not in {".", ".."}
)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_gives_a_safe_one(name):
    made = dataset_id(Path("/archive") / name, Path("/archive"))
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,55}-[0-9a-f]{8}", made)
    assert shlex.quote(made) == made
    assert is_dataset_id(made)


@settings(deadline=None)
@given(names)
def test_any_name_gives_a_safe_one(name):
    assert is_dataset_id(dataset_id(Path("/archive") / name, Path("/archive")))


def test_people_recognise_the_file():
    # printf 2024/2xfm_0010.mda | sha256sum
    made = dataset_id(Path("/a/2024/2xfm_0010.mda"), Path("/a"))
    assert made == "2xfm_0010-" + "3030388e"


@settings(deadline=None)
@given(names, names)
def test_two_files_have_two_names(one, other):
    root = Path("/archive")
    same = dataset_id(root / one, root) == dataset_id(root / other, root)
    assert same == (one == other)


def test_an_archive_mounted_elsewhere_keeps_its_names(monkeypatch, tmp_path):
    here = dataset_id(Path("/mnt/a/day1/scan.h5"), Path("/mnt/a"))
    assert dataset_id(Path("/data/b/day1/./x/../scan.h5"), Path("/data/b/")) == here
    monkeypatch.chdir(tmp_path)
    assert dataset_id(Path("day1/scan.h5"), Path()) == here
    assert dataset_id(Path("/mnt/a/day2/scan.h5"), Path("/mnt/a")) != here


def test_a_file_outside_the_archive_is_refused():
    with pytest.raises(InputFileError, match="lies outside the archive"):
        dataset_id(Path("/elsewhere/scan.h5"), Path("/archive"))
