"""Spectra without counts and without live time were not measured; those with counts were."""

from dataclasses import replace

import numpy as np
import pytest

from hpcxrf.store.exposure import describe_unexposed, find_unexposed
from hpcxrf.store.ingest import ingest_scan
from hpcxrf.store.spectra import open_spectra
from tests.samples.store_scans import made_scan, whole, write_source

SHAPE = (2, 5, 4, 16)


def reader(counts, read=None):
    def read_rows(rows):
        if read is not None:
            read.append(rows)
        return counts[:, rows]

    return read_rows


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_row_without_counts_and_live_time_is_unexposed(value):
    live, counts = np.ones(SHAPE[:3]), np.ones(SHAPE, dtype=np.uint16)
    live[:, 2], counts[:, 2] = value, 0
    found = find_unexposed(live, reader(counts))
    assert found[:, 2].all()
    assert found.sum() == 2 * 4


def test_counts_without_live_time_and_live_time_without_counts_are_measured():
    live, counts = np.ones(SHAPE[:3]), np.ones(SHAPE, dtype=np.uint16)
    live[0, 1, 1] = 0.0
    counts[1, 3, 2] = 0
    assert find_unexposed(live, reader(counts)) is None


def test_a_detector_that_has_no_live_time_anywhere_says_nothing_of_its_pixels():
    live, counts = np.ones(SHAPE[:3]), np.zeros(SHAPE, dtype=np.uint16)
    live[1] = 0.0
    assert find_unexposed(live, reader(counts)) is None
    assert find_unexposed(None, reader(counts)) is None


def test_only_rows_with_such_live_times_are_read_and_none_that_are_known_not_to_be_measured():
    live, counts, read = np.ones(SHAPE[:3]), np.zeros(SHAPE, dtype=np.uint16), []
    live[:, 1], live[:, 4] = 0.0, np.nan
    measured = np.ones(SHAPE[1:3], dtype=bool)
    measured[4] = False
    found = find_unexposed(live, reader(counts, read), rows_per_read=2, measured=measured)
    assert read == [slice(0, 2)]
    assert np.argwhere(found)[:, 1].tolist() == [1] * 8


def test_the_note_counts_spectra():
    one = np.zeros(SHAPE[:3], dtype=bool)
    assert describe_unexposed(None) == ()
    one[0, 0, 0] = True
    (note,) = describe_unexposed(one)
    assert note.kind == "warning"
    assert note.text.startswith("1 spectrum has neither counts nor a live time")
    one[:, 1] = True
    assert describe_unexposed(one)[0].text.startswith("9 spectra have neither")


def test_an_ingest_keeps_an_unexposed_row_of_one_detector_and_of_all(tmp_path):
    made = made_scan(write_source(tmp_path))
    counts, scalars = whole(made), made.read_scalars()
    live = np.ones(made.shape[:3])
    live[:, 1] = 0.0
    live[1, 3] = np.nan
    live[0, 4, 2] = 0.0
    counts[:, 1] = 0
    counts[1, 3] = 0
    made = replace(
        made, read_counts=lambda rows: counts[:, rows].copy(), read_scalars=lambda: replace(scalars, live_time_s=live)
    )
    ingest_scan(made, tmp_path / "s.zarr")
    store = open_spectra(tmp_path / "s.zarr")
    assert not store.measured()[1].any()
    assert store.measured()[3].all()
    assert store.missing(1)[3].all()
    assert not store.missing(0)[3].any()
    assert not store.missing(0)[4, 2] or not counts[0, 4, 2].any()
    assert any("neither counts nor a live time" in note.text for note in store.notes)
