"""An ingest keeps what it mended: after a kill as well, and with the same bytes."""

from dataclasses import replace

import numpy as np
import pytest

from hpcxrf.errors import InputFileError
from hpcxrf.store import schema
from hpcxrf.store.ingest import ingest_scan
from hpcxrf.store.spectra import open_spectra
from tests.samples.store_scans import SMALL_BAND_BYTES, made_scan, tree_content, whole, write_source


@pytest.fixture
def scan(tmp_path, monkeypatch):
    """A scan of many bands with spectra of NaN, negative counts and a spike."""
    monkeypatch.setattr(schema, "BAND_BYTES_MIN", SMALL_BAND_BYTES)
    monkeypatch.setattr(schema, "BAND_BYTES_MAX", SMALL_BAND_BYTES)
    made = made_scan(write_source(tmp_path))
    counts = whole(made)
    counts[:, 2, 3] = np.nan
    counts[1, 30, 4] = np.nan
    counts[0, 1, 1, 5:9] = -7.0
    counts[1, 20, 2, 50] = 900.0
    return replace(made, read_counts=lambda rows: counts[:, rows].copy())


def test_what_was_mended_is_in_the_store(tmp_path, scan):
    ingest_scan(scan, tmp_path / "s.zarr")
    store = open_spectra(tmp_path / "s.zarr")
    assert not store.measured()[2, 3]
    assert np.argwhere(store.missing(1)).tolist() == [[2, 3], [30, 4]]
    assert np.argwhere(store.missing(0)).tolist() == [[2, 3]]
    assert store.spikes(1).tolist() == [[20, 2, 50]]
    assert not len(store.spikes(0))
    texts = [note.text for note in store.notes]
    assert any(text.startswith("4 of ") and "down to -7" in text for text in texts)
    assert any(text.startswith("3 spectra are not a number") for text in texts)


def test_a_killed_ingest_remembers_what_it_mended(tmp_path, scan):
    ingest_scan(scan, tmp_path / "a" / "s.zarr")

    def fail_late(rows):
        if rows.start >= 20:
            raise InputFileError("killed")
        return scan.read_counts(rows)

    with pytest.raises(InputFileError, match="killed"):
        ingest_scan(replace(scan, read_counts=fail_late), tmp_path / "b" / "s.zarr")
    record = ingest_scan(scan, tmp_path / "b" / "s.zarr")
    assert record.resumed_bands > 0
    assert tree_content(tmp_path / "a") == tree_content(tmp_path / "b")
