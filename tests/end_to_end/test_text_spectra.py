"""Spectra in text go the way of every scan: the same counts give the same fit, and readings are ingested as points."""

from pathlib import Path

import numpy as np
import pytest

from hpcxrf.store.spectra import open_spectra
from tests.samples.text_scans import emsa, handheld_csv, make_counts

CHANNELS = 1024


@pytest.fixture(scope="module")
def counts() -> np.ndarray:
    """Fe and Cu K lines on a background, 10 eV a channel."""
    energy = 0.01 * np.arange(CHANNELS)
    lines = {6.399: 9e4, 7.058: 1.2e4, 8.041: 4e4, 8.905: 5e3}
    sigma = 0.065
    peaks = sum(
        area * 0.01 / (sigma * np.sqrt(2 * np.pi)) * np.exp(-(((energy - e) / sigma) ** 2) / 2)
        for e, area in lines.items()
    )
    return np.random.default_rng(3).poisson(peaks + 20.0 + 60.0 * np.exp(-energy / 4.0))


def test_a_spectrum_in_text_is_fitted_as_the_same_counts_in_an_array(hpcxrf, tmp_path, counts):
    array, text = tmp_path / "a.npy", tmp_path / "a.msa"
    np.save(array, counts)
    text.write_text(emsa(counts.tolist(), XPERCHAN="10", OFFSET="0", columns=4))
    options = ("--elements", "Fe,Cu", "--energy", 10, "--no-suggest", "--json")
    expected = hpcxrf("fit", array, *options, "--energy-slope", 0.01, "--energy-offset", 0).json
    axis = ("--energy-slope", 0.01, "--energy-offset", 0)
    ran = hpcxrf("fit", text, *options, *axis)
    assert ran.code == 0, ran.err
    for key in ("amplitudes", "sigma", "r2", "theta"):
        assert ran.json[key] == expected[key], key
    # Its own axis is trusted a little less than one that was written down.
    own = hpcxrf("fit", text, *options).json
    assert own["theta"]["energy_slope"] == pytest.approx(0.01, rel=0.01)
    for found in (ran.json, own):
        assert found["amplitudes"]["Fe"] == pytest.approx(1.02e5, rel=0.02)


def test_the_readings_of_a_handheld_file_are_ingested_as_points_with_their_times(hpcxrf, tmp_path):
    readings = [make_counts(seed=i) for i in range(3)]
    path = tmp_path / "readings.csv"
    path.write_text(handheld_csv(readings))
    ran = hpcxrf("ingest", path, "-o", tmp_path / "stores", "--json")
    assert ran.code == 0, ran.err
    (store,) = ran.json["stores"].values()
    spectra = open_spectra(Path(store))
    np.testing.assert_array_equal(spectra.read_rows([0], slice(0, 3))[0, :, 0], readings)
    assert spectra.tube == "15 kV, 40 kV"
    assert spectra.calibration[0].slope_kev == 0.020052
