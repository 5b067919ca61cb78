"""Small arrays of a spectra store: read once, and nobody who asks for one can change what the next one gets."""

import numpy as np
import pytest

from hpcxrf.store.ingest import ingest_scan
from hpcxrf.store.spectra import SpectraStore, open_spectra
from tests.samples.store_scans import made_scan, whole, write_source

READ = {
    "integrated": lambda store: store.integrated(1),
    "highest": lambda store: store.max_channel_spectrum(1),
    "measured": lambda store: store.measured(slice(1, 4), slice(0, 2)),
    "missing": lambda store: store.missing(1, slice(1, 4), slice(0, 2)),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    scan = made_scan(write_source(folder))
    ingest_scan(scan, folder / "s.zarr")
    return open_spectra(folder / "s.zarr"), whole(scan)


def test_they_are_those_of_the_counts(store):
    opened, counts = store
    np.testing.assert_array_equal(opened.integrated(1), counts[1].sum((0, 1)))
    np.testing.assert_array_equal(opened.max_channel_spectrum(1), counts[1].max((0, 1)))
    assert opened.measured().shape == counts.shape[1:3]
    assert opened.missing(0, slice(2, 5), slice(1, 3)).shape == (3, 2)


@pytest.mark.parametrize("name", READ)
def test_what_was_read_is_the_callers_own(store, name):
    before = READ[name](store[0]).copy()
    changed = READ[name](store[0])
    changed[...] = ~changed if changed.dtype == np.bool_ else changed + 1
    np.testing.assert_array_equal(READ[name](store[0]), before)


def test_the_store_is_asked_once_for_each(store, monkeypatch):
    fresh, asked = open_spectra(store[0].path), []
    array_of = SpectraStore._array
    monkeypatch.setattr(SpectraStore, "_array", lambda self, name: asked.append(name) or array_of(self, name))
    for _ in range(3):
        for read in READ.values():
            read(fresh)
    assert len(asked) == len(set(asked))
    assert {"integrated", "max_channel_spectrum", "measured"} <= set(asked)


def test_there_is_no_detector_beyond_the_last(store):
    for read in (store[0].integrated, store[0].missing, store[0].max_channel_spectrum):
        with pytest.raises(IndexError, match="no detector 2"):
            read(2)
