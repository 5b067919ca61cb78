"""The writers: what h5py reads back, and what is refused without a trace on disk."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from hpcxrf.errors import OutputError
from hpcxrf.formats.maps_writer import write_array_hdf5, write_maps_v10
from hpcxrf.formats.scan import EnergyCalibration, ReadOptions

SHAPE = (3, 5, 4, 64)


def scan_arguments(shape=SHAPE):
    rng = np.random.default_rng(5)
    image = shape[:3]
    icr = rng.uniform(1e4, 2e5, image)
    return {
        "live_time_s": rng.uniform(0.1, 0.2, image),
        "real_time_s": np.full(image, 0.25),
        "icr_hz": icr,
        "ocr_hz": icr * rng.uniform(0.8, 1.0, image),
        "energy_calibration": [
            EnergyCalibration(offset_kev=0.1 * d, slope_kev=0.01 + 0.001 * d, quadratic_kev=1e-8)
            for d in range(shape[0])
        ],
        "scaler_names": ("SR_Current", "US_IC"),
        "scaler_units": ("mA", "cts"),
        "scaler_values": rng.uniform(1, 100, (2, *image[1:])),
        "x_um": np.tile(np.arange(shape[2]) * 2.5, (shape[1], 1)),
        "y_um": np.tile(np.arange(shape[1])[:, None] * 1.5, (1, shape[2])),
        "incident_energy_kev": 10.5,
    }


def random_counts(shape=SHAPE, dtype=np.uint32):
    counts = np.random.default_rng(6).poisson(3.0, shape).astype(dtype)
    counts[0, 1, 2, 3] = 2**24
    return counts


@pytest.mark.parametrize("rows_per_block", [1, 2, 16])
@pytest.mark.parametrize("lazy", [True, False])
def test_counts_come_back_exactly_from_one_file_per_detector(tmp_path, rows_per_block, lazy):
    counts = random_counts()
    source = (lambda rows: counts[:, rows]) if lazy else counts
    files = write_maps_v10(tmp_path / "scan.h5", source, **scan_arguments(), rows_per_block=rows_per_block)
    assert [f.name for f in files] == ["scan.h50", "scan.h51", "scan.h52"]
    for detector, path in enumerate(files):
        with h5py.File(path) as file:
            stored = file["MAPS/Spectra/mca_arr"]
            assert stored.shape == (64, 5, 4)
            assert stored.chunks == (64, 1, 1)
            assert (stored.dtype, stored.compression) == (np.float32, "gzip")
            np.testing.assert_array_equal(np.moveaxis(stored[()], 0, 2), counts[detector])
            total = file["MAPS/Spectra/Integrated_Spectra/Spectra"][()]
            np.testing.assert_array_equal(total, counts[detector].sum(axis=(0, 1)).astype("f4"))


def test_everything_beside_the_counts_is_where_the_layout_has_it(tmp_path):
    given = scan_arguments()
    files = write_maps_v10(tmp_path / "scan.h5", random_counts(), **given)
    with h5py.File(files[1]) as file:
        maps = file["MAPS"]
        assert maps["version"][()].tolist() == [10.0]
        spectra = maps["Spectra"]
        for name, key in (
            ("Elapsed_Livetime", "live_time_s"),
            ("Elapsed_Realtime", "real_time_s"),
            ("Input_Counts", "icr_hz"),
            ("Output_Counts", "ocr_hz"),
        ):
            np.testing.assert_array_equal(spectra[name][()], given[key][1].astype("f4"))
            summed = spectra[f"Integrated_Spectra/{name}"][0]
            assert summed == pytest.approx(given[key][1].sum(), rel=1e-6)
        np.testing.assert_allclose(spectra["Energy_Calibration"], [0.1, 0.011, 1e-8], rtol=1e-6)
        hand = [0.1, 0.1 + 0.011 + 1e-8, 0.1 + 63 * 0.011 + 63**2 * 1e-8]
        np.testing.assert_allclose(spectra["Energy"][[0, 1, 63]], hand, rtol=1e-6)
        assert maps["Scalers/Names"][()].tolist() == [b"SR_Current", b"US_IC"]
        assert maps["Scalers/Names"].dtype == "S256"
        assert maps["Scalers/Units"][()].tolist() == [b"mA", b"cts"]
        values = maps["Scalers/Values"]
        assert values.chunks == (1, 5, 4)
        np.testing.assert_array_equal(values[()], given["scaler_values"].astype("f4"))
        np.testing.assert_array_equal(maps["Scan/x_axis"][()], given["x_um"].astype("f4"))
        np.testing.assert_array_equal(maps["Scan/y_axis"][()], given["y_um"].astype("f4"))
        override = maps["Fit_Parameters_Override"]
        assert override["Fit_Parameters_Names"][()].tolist() == [b"COHERENT_SCT_ENERGY"]
        assert override["Fit_Parameters_Values"][0, 0] == pytest.approx(10.5)


def test_a_scan_without_scalers_and_positions_gets_row_and_column_numbers(tmp_path):
    given = scan_arguments()
    for name in ("scaler_names", "scaler_units", "scaler_values", "x_um", "y_um"):
        del given[name]
    files = write_maps_v10(tmp_path / "plain", random_counts(), **given)
    with h5py.File(files[0]) as file:
        assert "Scalers" not in file["MAPS"]
        assert file["MAPS/Scan/x_axis"][2].tolist() == [0, 1, 2, 3]
        assert file["MAPS/Scan/y_axis"][:, 1].tolist() == [0, 1, 2, 3, 4]


def test_an_array_file_holds_the_counts_exactly_and_says_how_to_read_them(tmp_path):
    counts = random_counts()
    counts[1, 2, 3, 4] = 2**32 - 1
    given = scan_arguments()
    (path,) = write_array_hdf5(tmp_path / "scan.h5", counts, **given, rows_per_block=2)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["counts"][()], counts)
        assert file.attrs["dims"] == "detector,y,x,channel"
        assert file.attrs["energy_slope_kev"] == 0.01
        assert file.attrs["incident_energy_kev"] == 10.5
        np.testing.assert_array_equal(file["live_time_s"][()], given["live_time_s"])
        np.testing.assert_allclose(file["energy_calibration"][2], [0.2, 0.012, 1e-8])
        assert file["scaler_names"].asstr()[()].tolist() == ["SR_Current", "US_IC"]


@pytest.mark.parametrize("value", [-1.0, np.nan, 0.5, 2.0**24 + 2, np.inf])
def test_a_count_that_the_layout_cannot_hold_leaves_nothing_behind(tmp_path, value):
    counts = random_counts(dtype=np.float64)
    counts[2, 4, 0, 0] = value
    with pytest.raises(OutputError, match=r"scan\.h5.*rows 4 to 4.*whole numbers"):
        write_maps_v10(tmp_path / "scan.h5", counts, **scan_arguments(), rows_per_block=2)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_earlier_scan_untouched(tmp_path):
    files = write_maps_v10(tmp_path / "scan.h5", random_counts(), **scan_arguments())
    before = [f.read_bytes() for f in files]
    bad = random_counts(dtype=np.float64)
    bad[0, 4] = -1
    with pytest.raises(OutputError):
        write_maps_v10(tmp_path / "scan.h5", bad, **scan_arguments())
    assert [f.read_bytes() for f in files] == before


def test_arrays_that_do_not_fit_are_all_named_at_once(tmp_path):
    given = scan_arguments()
    given["live_time_s"] = given["live_time_s"][:, :4]
    given["x_um"] = given["x_um"][:3]
    given["energy_calibration"] = given["energy_calibration"][:1]
    given["scaler_units"] = ("mA",)
    with pytest.raises(OutputError) as caught:
        write_maps_v10(tmp_path / "scan.h5", random_counts(), **given)
    for part in ("live_time_s", "x_um", "1 calibrations", "1 scaler units"):
        assert part in str(caught.value)


def test_a_block_of_another_shape_is_refused(tmp_path):
    counts = random_counts()
    with pytest.raises(OutputError, match="rows 2 on"):
        write_maps_v10(
            tmp_path / "scan.h5",
            lambda rows: counts[:, rows] if rows.start == 0 else counts[:, :1],
            **scan_arguments(),
            rows_per_block=2,
        )


def test_more_than_eight_detectors_are_refused(tmp_path):
    shape = (9, 1, 1, 8)
    with pytest.raises(OutputError, match="9 detectors"):
        write_maps_v10(tmp_path / "s.h5", np.zeros(shape, np.uint32), **scan_arguments(shape))


def test_a_further_detector_of_another_scan_is_not_mixed_in(tmp_path):
    write_maps_v10(tmp_path / "scan.h5", random_counts(), **scan_arguments())
    shape = (2, *SHAPE[1:])
    with pytest.raises(OutputError, match=r"scan\.h52"):
        write_maps_v10(tmp_path / "scan.h5", np.zeros(shape, np.uint32), **scan_arguments(shape))


def test_a_folder_that_is_not_there_is_an_error_that_names_the_file():
    missing = Path("no") / "such" / "folder" / "scan.h5"
    with pytest.raises(OutputError, match=r"scan\.h50.*choose another folder"):
        write_maps_v10(missing, random_counts(), **scan_arguments())


def test_what_was_written_opens_through_the_reader(tmp_path):
    registry = pytest.importorskip("hpcxrf.formats.registry")
    counts, given = random_counts(), scan_arguments()
    files = write_maps_v10(tmp_path / "scan.h5", counts, **given)
    scan = registry.open_scan(files[0], ReadOptions())
    assert scan.shape == SHAPE
    np.testing.assert_array_equal(scan.read_counts(slice(0, 5)), counts)
    expected = given["real_time_s"] * given["ocr_hz"] / given["icr_hz"]
    np.testing.assert_allclose(scan.read_scalars().live_time_s, expected, rtol=1e-6)
    assert scan.calibration[2].slope_kev == pytest.approx(0.012, rel=1e-6)
