"""A scan that was not fitted: read into a store of its own, and shown by counts around lines."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from store_scans import tree_content

from hpcxrf.errors import ConfigError, InputFileError
from hpcxrf.explore.describe import describe_scan, describe_spectrum
from hpcxrf.explore.files import read_file
from hpcxrf.explore.opening import open_session
from hpcxrf.explore.windows import Window, channel_energies_kev, choose_windows
from hpcxrf.formats.mda import open_file
from hpcxrf.formats.scan import EnergyCalibration, ReadOptions

AXIS = EnergyCalibration(offset_kev=0.0, slope_kev=0.01)


def peaks(**counts_at_kev):
    """A flat spectrum with peaks of 0.15 keV at these energies, in tenths of an electronvolt."""
    energy = channel_energies_kev(AXIS, 2000)
    total = np.full(2000, 20.0)
    for at, counts in counts_at_kev.items():
        line_kev = float(at[1:]) / 10_000
        total += counts * 0.01 / 0.16 * np.exp(-2.77 * ((energy - line_kev) / 0.15) ** 2)
    return total[None]


def test_the_families_whose_line_stands_out_are_chosen():
    # K-alpha 1 of Ca 3.692, Fe 6.404, Zn 8.639 keV; L-alpha 1 of W 8.398 keV.
    spectrum = peaks(e36917=5e3, e64038=9e3, e86389=4e3)
    assert [one.name for one in choose_windows(spectrum, (AXIS,), None)] == ["Ca", "Fe", "Zn"]
    assert [one.name for one in choose_windows(spectrum, (AXIS,), 8.0)] == ["Ca", "Fe"]
    assert choose_windows(peaks(), (AXIS,), None) == ()
    # L-alpha 1 of Pb, 10.552 keV, lies on K-alpha 1 of As, 10.544 keV; that of U, 13.615 keV, on none.
    assert [one.name for one in choose_windows(peaks(e105515=5e3), (AXIS,), None)] == ["As"]
    assert "U_L" in [one.name for one in choose_windows(peaks(e136150=5e3), (AXIS,), None)]


def test_a_window_has_the_channels_within_it():
    window = Window(name="Fe", low_kev=6.3, high_kev=6.5)
    assert window.channels(EnergyCalibration(offset_kev=0.005, slope_kev=0.01), 2000) == slice(630, 650)
    assert window.channels(AXIS, 100) == slice(0, 0)


@pytest.fixture(scope="module")
def folder():
    return Path(tempfile.gettempdir())


def test_a_measured_scan_is_shown_before_any_fit_and_leaves_nothing(shared_data, folder):
    file = shared_data / "aps-2ide" / "mda" / "2xfm_0010.mda"
    before, beside = set(folder.glob("hpcxrf-explore-*")), tree_content(file.parent)
    counts = open_file(file, ReadOptions()).read_counts(slice(0, 11)).astype(np.uint64)
    with read_file(file, lambda *_: None) as target:
        session = open_session(target, target.dataset(None))
        told = describe_scan(session)
        assert told["shape_full"] == [4, 11, 11, 2000]
        assert not told["fitted"]
        assert told["detectors"] == ["sum", "0", "1", "2", "3"]
        assert {"Si", "Ar", "Ca", "Fe", "Cu"} <= {one["name"] for one in told["components"]}
        assert told["incident_energy_kev"] == pytest.approx(10.0)
        assert any("override" in note["text"] for note in told["notes"])
        # All counts of a pixel, and of a window: those of the file.
        whole = session.map("sum", "counts", None).values
        np.testing.assert_array_equal(whole, counts.sum(axis=(0, 3)))
        iron = next(window for window in session.windows if window.name == "Fe")
        part = iron.channels(session.calibration[1], 2000)
        np.testing.assert_array_equal(session.map("1", "window", "Fe").values, counts[1, ..., part].sum(axis=-1))
        assert session.thumbnails("0", "window", 6).values.shape == (len(session.windows), 6, 6)
        mask = session.select(
            {"kind": "threshold", "detector": "sum", "layer": "window", "component": "Fe", "low": 80, "high": None}
        )
        selected = session.sum_counts("sum", mask)
        np.testing.assert_array_equal(selected.counts, counts[:, mask].sum(axis=(0, 1)))
        drawn = describe_spectrum(session, selected, 0.0)
        assert drawn["spectrum_first_channel"] == 0
        assert drawn["spectrum"]["model"] is None
    assert set(folder.glob("hpcxrf-explore-*")) == before
    assert tree_content(file.parent) == beside


def test_a_scan_of_one_pixel_and_one_of_a_tube_are_shown(shared_data):
    for name, shape in (("larch-srm1832/srm1832.mca", [1, 1]), ("pixl-laguna/laguna.h5", [25, 25])):
        with read_file(shared_data / name, lambda *_: None) as target:
            session = open_session(target, target.dataset(None))
            told = describe_scan(session)
            assert told["shape"] == shape
            assert "Ca" in [one["name"] for one in told["components"]]
            assert session.thumbnails("sum", "window", 64).values.shape[1:] == tuple(shape)


def test_maps_of_fits_are_not_there_before_a_fit(shared_data):
    with read_file(shared_data / "larch-srm1832/srm1832.mca", lambda *_: None) as target:
        session = open_session(target, target.dataset(None))
        with pytest.raises(ConfigError, match="not one of window, counts"):
            session.map("0", "amplitude", "Ca")
        with pytest.raises(ConfigError, match="has no map of it"):
            session.map("0", "window", "Xx")


def test_a_file_that_is_not_a_scan_leaves_nothing_either(tmp_path, folder):
    before = set(folder.glob("hpcxrf-explore-*"))
    text = tmp_path / "notes.txt"
    text.write_text("nothing")
    with pytest.raises(InputFileError), read_file(text, lambda *_: None):
        pass
    assert set(folder.glob("hpcxrf-explore-*")) == before
