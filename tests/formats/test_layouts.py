"""HDF5 files with one array a detector, each written in its layout: every number that the layout has comes back."""

import h5py
import numpy as np
import pytest

from hpcxrf.errors import InputFileError
from hpcxrf.formats.registry import open_scan
from hpcxrf.formats.scan import EnergyCalibration, ReadOptions
from hpcxrf.store.ingest import ingest_scan
from hpcxrf.store.spectra import open_spectra
from tests.samples.beamline_files import (
    CHANNELS,
    COLUMNS,
    DETECTORS,
    POINTS,
    ROWS,
    make_counts,
    write_bliss,
    write_larch,
    write_oxford,
    write_pyxrf,
    write_soleil,
)

SHAPE = (DETECTORS, ROWS, COLUMNS, CHANNELS)
TITLE = "amesh samy 0 5 5 samz 10 13 3 0.5"


def read_all(scan):
    return scan.read_counts(slice(0, scan.shape[1]))


def kev(offset, slope):
    return EnergyCalibration(offset_kev=offset, slope_kev=slope)


@pytest.mark.parametrize("under", ["", "detectors/"])
def test_a_pyxrf_file_has_its_detectors_scalers_positions_and_energy(tmp_path, under):
    counts = make_counts()
    scan = open_scan(write_pyxrf(tmp_path / "a.h5", counts, under=under))
    assert (scan.format, scan.shape, scan.incident_energy_kev) == ("pyxrf", SHAPE, 12.0)
    assert scan.calibration == (kev(0.0, 0.01),) * DETECTORS
    np.testing.assert_array_equal(read_all(scan), counts)
    np.testing.assert_array_equal(scan.read_counts(slice(1, 3)), counts[:, 1:3])
    scalars = scan.read_scalars()
    assert scalars.scaler_names == ("i0", "sclr1_ch4")
    np.testing.assert_array_equal(scalars.scaler_values[1], np.arange(1.0, 2 * POINTS, 2).reshape(ROWS, COLUMNS))
    assert scalars.x_um[0].tolist() == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert scalars.y_um[:, 0].tolist() == [0.0, 2.0, 4.0, 6.0]
    assert any("detsum/counts is not used" in note.text for note in scan.notes)


def test_det10_comes_after_det9(tmp_path):
    counts = make_counts((11, 2, 3, 300))
    scan = open_scan(write_pyxrf(tmp_path / "a.h5", counts))
    np.testing.assert_array_equal(read_all(scan), counts)


def test_a_pyxrf_file_with_the_sum_alone_is_one_detector_and_this_is_said(tmp_path):
    path = write_pyxrf(tmp_path / "a.h5", make_counts())
    with h5py.File(path, "a") as file:
        for number in range(1, DETECTORS + 1):
            del file[f"xrfmap/det{number}"]
    scan = open_scan(path)
    assert scan.shape == (1, *SHAPE[1:])
    assert any("only the sum" in note.text for note in scan.notes)


def test_fitted_maps_of_pyxrf_are_refused_as_such(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["xrfmap/detsum/xrf_fit"] = np.ones((5, ROWS, COLUMNS))
    with pytest.raises(InputFileError, match=r"holds fitted maps \(ROIs\) and no spectra"):
        open_scan(tmp_path / "a.h5")


@pytest.mark.parametrize("version", [1, 2])
def test_a_larch_map_has_its_detectors_up_to_the_last_written_row(tmp_path, version):
    counts = make_counts()
    scan = open_scan(write_larch(tmp_path / "a.h5", counts, version=version))
    assert (scan.format, scan.shape) == ("larch-map", SHAPE)
    assert scan.calibration == (kev(0.001, 0.01), kev(0.002, 0.01), kev(0.003, 0.01))
    np.testing.assert_array_equal(read_all(scan), counts)
    scalars = scan.read_scalars()
    np.testing.assert_allclose(scalars.real_time_s, 0.2)
    np.testing.assert_allclose(scalars.live_time_s, 0.2 / 1.25)
    assert scalars.live_time_s.shape == SHAPE[:3]
    assert scalars.scaler_names == ("I0",)
    np.testing.assert_array_equal(scalars.scaler_values, np.full((1, ROWS, COLUMNS), 7.0))
    np.testing.assert_allclose(scalars.x_um[0], [0, 1, 2, 3, 4, 5])
    np.testing.assert_allclose(scalars.y_um[:, 0], [0, 2, 4, 6])
    assert any("4 of 6 rows are written" in note.text for note in scan.notes)


def test_rois_of_larch_without_spectra_are_refused_as_such(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["xrmmap/roimap/mca1/Fe Ka/raw"] = np.ones((ROWS, COLUMNS), "u4")
    with pytest.raises(InputFileError, match="holds ROIs only and no spectra"):
        open_scan(tmp_path / "a.h5")


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("told", ["title", "parameters", "positions"])
def test_a_bliss_scan_is_a_map_by_its_title_parameters_or_positions(tmp_path, told, turned):
    counts = make_counts()
    path = write_bliss(
        tmp_path / "a.h5",
        counts,
        title=TITLE if told == "title" else "a scan",
        parameters=told == "parameters",
        turned=turned,
    )
    scan = open_scan(path)
    assert (scan.format, scan.shape, scan.incident_energy_kev) == ("bliss", SHAPE, 12.5)
    np.testing.assert_array_equal(read_all(scan), counts)
    np.testing.assert_array_equal(scan.read_counts(slice(1, 2)), counts[:, 1:2])
    np.testing.assert_array_equal(scan.read_counts(slice(2, 4)), counts[:, 2:4])
    scalars = scan.read_scalars()
    np.testing.assert_allclose(scalars.live_time_s, 0.5 * 1.5e4 / 2e4)
    np.testing.assert_allclose(scalars.icr_hz, 2e4)
    assert scalars.scaler_names == ("I0",)
    np.testing.assert_allclose(scalars.x_um, np.broadcast_to(1e3 * np.arange(COLUMNS), (ROWS, COLUMNS)))
    np.testing.assert_allclose(scalars.y_um[:, 0], 1e3 * (10.0 + np.arange(ROWS)))
    assert scalars.measured is None


def test_42_points_of_512_channels_are_6_by_7_and_not_one_column(tmp_path):
    counts = make_counts((2, 6, 7, 512))
    scan = open_scan(write_bliss(tmp_path / "a.h5", counts, title="fscan2d samz 0 1 6 samy 0 1 7 0.1", positions=False))
    assert scan.shape == (2, 6, 7, 512)
    np.testing.assert_array_equal(read_all(scan), counts)


def test_points_without_rows_are_one_column_and_the_option_is_named(tmp_path):
    path = write_bliss(tmp_path / "a.h5", make_counts(), title="loopscan", positions=False)
    scan = open_scan(path)
    assert scan.shape == (DETECTORS, POINTS, 1, CHANNELS)
    assert any("input.map_shape" in note.text for note in scan.notes)
    assert open_scan(path, ReadOptions(map_shape=(ROWS, COLUMNS))).shape == SHAPE
    with pytest.raises(InputFileError, match=r"24 points do not fit into a map of 3 x 3"):
        open_scan(path, ReadOptions(map_shape=(3, 3)))


def test_a_bliss_scan_that_was_stopped_has_pixels_that_were_not_measured(tmp_path):
    counts = make_counts()
    scan = open_scan(write_bliss(tmp_path / "a.h5", counts, title=TITLE, turned=True, n_points=POINTS - 4))
    assert scan.shape == SHAPE
    measured = np.ones((ROWS, COLUMNS), bool)
    measured[3, :4] = False  # the last row ran backwards
    np.testing.assert_array_equal(scan.read_scalars().measured, measured)
    np.testing.assert_array_equal(read_all(scan), counts * measured[:, :, np.newaxis])
    assert np.isnan(scan.read_scalars().live_time_s[0][~measured]).all()
    ingest_scan(scan, tmp_path / "a.zarr")
    np.testing.assert_array_equal(open_spectra(tmp_path / "a.zarr").measured(), measured)


def test_of_several_bliss_scans_one_is_named(tmp_path):
    first, second = make_counts(), make_counts((1, 2, 5, CHANNELS)) + 1
    path = write_bliss(tmp_path / "a.h5", first, title=TITLE)
    write_bliss(path, second, scan="2.1", title="amesh samy 0 4 4 samz 0 1 1 0.5")
    with pytest.raises(InputFileError, match=r"2 scans have spectra: 1\.1 \(amesh samy.*--dataset-path 1\.1"):
        open_scan(path)
    np.testing.assert_array_equal(read_all(open_scan(path, ReadOptions(dataset_path="2.1"))), second)
    named = open_scan(path, ReadOptions(dataset_path="1.1/instrument/fx_det[02]/data"))
    np.testing.assert_array_equal(read_all(named), first[[0, 2]])


@pytest.mark.parametrize(
    ("content", "title", "holds"),
    [
        ({"instrument/I0/data": np.ones(9)}, "ascan energy 7 7.2 100", r"\(XANES\)"),
        ({"instrument/eiger/data": np.ones((2, 40, 50))}, "loopscan", "images"),
        ({"instrument/fx_det0_roi1/data": np.ones(9)}, "loopscan", "ROIs and counters"),
    ],
)
def test_a_bliss_file_without_spectra_is_refused_with_what_it_holds(tmp_path, content, title, holds):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["1.1/title"] = title
        for name, values in content.items():
            file[f"1.1/{name}"] = values
    with pytest.raises(InputFileError, match=f"holds .*{holds} and no spectra"):
        open_scan(tmp_path / "a.h5")


def test_detectors_of_a_bliss_scan_with_different_numbers_of_points_keep_what_all_have(tmp_path):
    path = write_bliss(tmp_path / "a.h5", make_counts(), title="loopscan", positions=False)
    with h5py.File(path, "a") as file:
        whole = file["1.1/instrument/fx_det1/data"][()]
        del file["1.1/instrument/fx_det1/data"]
        file["1.1/instrument/fx_det1/data"] = whole[:20]
    scan = open_scan(path)
    assert scan.shape == (DETECTORS, 20, 1, CHANNELS)
    assert any("the first 20 are read" in note.text for note in scan.notes)
    np.testing.assert_array_equal(read_all(scan)[1, :, 0], whole[:20])


@pytest.mark.parametrize("as_points", [False, True])
def test_a_soleil_scan_has_its_channels_as_detectors(tmp_path, as_points):
    counts = make_counts()
    scan = open_scan(write_soleil(tmp_path / "a.nxs", counts, as_points=as_points))
    assert (scan.format, scan.shape) == ("soleil", SHAPE)
    np.testing.assert_array_equal(read_all(scan), counts)
    scalars = scan.read_scalars()
    np.testing.assert_allclose(scalars.live_time_s, 0.25 * 3 / 4)
    assert scalars.scaler_names == ("data_01",)
    np.testing.assert_array_equal(scalars.scaler_values, np.full((1, ROWS, COLUMNS), 5.0))


def test_images_of_soleil_are_refused_as_such(tmp_path):
    with h5py.File(tmp_path / "a.nxs", "w") as file:
        file["flyscan_00001/scan_data/orca_image"] = np.ones((3, 40, 50), "u2")
    with pytest.raises(InputFileError, match="holds images and no spectra"):
        open_scan(tmp_path / "a.nxs")


@pytest.mark.parametrize("n_detectors", [1, 2])
def test_an_h5oina_file_has_its_map_axis_times_and_positions(tmp_path, n_detectors):
    counts = make_counts()[:n_detectors]
    scan = open_scan(write_oxford(tmp_path / "a.h5oina", counts))
    assert (scan.format, scan.shape) == ("h5oina", (n_detectors, *SHAPE[1:]))
    assert scan.calibration == (kev(-0.2, 0.01),) * n_detectors
    np.testing.assert_array_equal(read_all(scan), counts)
    scalars = scan.read_scalars()
    np.testing.assert_allclose(scalars.live_time_s, 0.1, rtol=1e-6)
    np.testing.assert_allclose(scalars.x_um[0], 0.5 * np.arange(COLUMNS))
    np.testing.assert_allclose(scalars.y_um[:, 0], 0.5 * np.arange(ROWS))


def test_an_h5oina_file_of_element_maps_is_refused_as_such(tmp_path):
    with h5py.File(tmp_path / "a.h5oina", "w") as file:
        file["1/EDS/Data/Window Integral/Fe Ka1"] = np.ones((POINTS, 1), "f4")
        file["1/EDS/Header/X Cells"] = [COLUMNS]
    with pytest.raises(InputFileError, match=r"holds element maps .* and no spectra"):
        open_scan(tmp_path / "a.h5oina")


@pytest.mark.parametrize("write", [write_pyxrf, write_larch, write_oxford])
def test_detectors_of_different_shapes_are_refused_with_both(tmp_path, write):
    path = write(tmp_path / "a.h5", make_counts())
    name = {write_pyxrf: "xrfmap/det2/counts", write_larch: "xrmmap/mca2/counts", write_oxford: "1/EDS2/Data/Spectrum"}
    with h5py.File(path, "a") as file:
        shape = file[name[write]].shape
        del file[name[write]]
        file[name[write]] = np.zeros((*shape[:-1], shape[-1] + 1), "u4")
    with pytest.raises(InputFileError, match="must have one shape"):
        open_scan(path)
