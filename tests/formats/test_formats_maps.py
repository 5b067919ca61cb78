"""MAPS HDF5: several detectors' files as one scan, round trips, large and damaged files."""

import fcntl
import tracemalloc

import h5py
import numpy as np
import pytest

from hpcxrf.errors import InputFileError
from hpcxrf.formats import hdf5_chunks, hdf5_files, maps_hdf5
from hpcxrf.formats.maps_writer import write_maps_v10
from hpcxrf.formats.registry import open_scan
from hpcxrf.formats.scan import EnergyCalibration, ReadOptions
from hpcxrf.simulate import demo_spec, raw_scan, simulate_scan, write_scan

SHAPE = (3, 5, 7, 64)
LINE = EnergyCalibration(offset_kev=0.03125, slope_kev=0.0078125, quadratic_kev=0.0)


def some_counts(shape=SHAPE):
    return np.random.default_rng(2).poisson(3.0, shape).astype(np.uint32)


def write(folder, counts, *, slope=0.0078125, name="scan"):
    """The detectors' files of a scan in the layout of version 10, with times in 32-bit exact numbers."""
    size = counts.shape[:3]
    line = EnergyCalibration(offset_kev=0.03125, slope_kev=slope)
    return write_maps_v10(
        folder / f"{name}.h5",
        counts,
        live_time_s=np.full(size, 0.25),
        real_time_s=np.full(size, 0.5),
        icr_hz=np.full(size, 800.0),
        ocr_hz=np.full(size, 600.0),
        energy_calibration=(line,) * size[0],
        incident_energy_kev=12.5,
    )


def write_one(path, counts, **extra):
    """One detector's counts (channel, y, x) and whatever else, as XRF-Maps would."""
    with h5py.File(path, "w") as file:
        file["MAPS/Spectra/mca_arr"] = counts
        for name, value in extra.items():
            file[name.replace("__", "/")] = value
    return path


def test_a_simulated_scan_written_and_read_is_exact(tmp_path):
    scan = simulate_scan(demo_spec(shape=(2, 6, 9, 1536)))
    expected = raw_scan(scan)
    opened = open_scan(write_scan(scan, tmp_path)[0])
    assert opened.format == "maps-v10"
    assert opened.shape == expected.shape
    rows = slice(0, 6)
    np.testing.assert_array_equal(opened.read_counts(rows), expected.read_counts(rows))
    got, want = opened.read_scalars(), expected.read_scalars()
    assert got.scaler_names == want.scaler_names
    assert got.scaler_units == want.scaler_units
    for name in ("real_time_s", "icr_hz", "ocr_hz", "scaler_values", "x_um", "y_um"):
        exact = getattr(want, name).astype(np.float32)  # the layout has 32-bit numbers
        np.testing.assert_array_equal(getattr(got, name), exact.astype(float), err_msg=name)
    np.testing.assert_allclose(got.live_time_s, want.live_time_s, rtol=3e-7)
    assert opened.incident_energy_kev == pytest.approx(expected.incident_energy_kev, rel=1e-7)
    for line, given in zip(opened.calibration, expected.calibration, strict=True):
        assert line.offset_kev == pytest.approx(given.offset_kev, rel=1e-6, abs=1e-9)
        assert line.slope_kev == pytest.approx(given.slope_kev, rel=1e-6)


def test_live_time_is_recomputed_from_the_rates(tmp_path):
    scalars = open_scan(write(tmp_path, some_counts())[0]).read_scalars()
    np.testing.assert_array_equal(scalars.live_time_s, 0.5 * 600 / 800)  # the stored 0.25 is not used


def test_ten_detectors_come_in_the_order_of_their_numbers_whichever_is_named(tmp_path):
    counts = some_counts((11, 2, 3, 8))
    for detector, spectra in enumerate(counts):
        write_one(tmp_path / f"scan.h5{detector}", np.moveaxis(spectra, -1, 0).astype("f4"))
    for named in ("scan.h50", "scan.h510"):
        scan = open_scan(tmp_path / named)
        assert scan.shape == counts.shape
        assert scan.files[0].name == named
        assert len(set(scan.files)) == 11
        np.testing.assert_array_equal(scan.read_counts(slice(0, 2)), counts)


def test_the_derived_file_beside_is_reported_and_not_read(tmp_path):
    counts = some_counts()
    write(tmp_path, counts)
    write_one(tmp_path / "scan.h5", np.full((64, 5, 7), 9, "f4"))
    scan = open_scan(tmp_path / "scan.h50")
    assert scan.shape == SHAPE
    assert any("scan.h5 ignored" in note.text for note in scan.notes)
    derived = open_scan(tmp_path / "scan.h5")
    assert derived.shape[0] == 1
    assert any("open" in note.text and "scan.h50" in note.text for note in derived.notes)


def test_a_missing_detector_is_reported(tmp_path):
    write(tmp_path, some_counts())[1].unlink()
    assert any("scan.h51 missing" in note.text for note in open_scan(tmp_path / "scan.h50").notes)


def test_detectors_of_different_shape_are_refused_by_name(tmp_path):
    write(tmp_path, some_counts())
    write_one(tmp_path / "scan.h53", np.zeros((64, 5, 6), "f4"))
    with pytest.raises(InputFileError, match=r"scan\.h53 has \(5, 6, 64\)"):
        open_scan(tmp_path / "scan.h50")


def version_9(path, counts):
    height, width = counts.shape[1:]
    with h5py.File(path, "w") as file:
        file["version"] = np.float32(9)
        file["MAPS/mca_arr"] = counts.astype("f4")
        file["MAPS/int_spec"] = counts.sum(axis=(1, 2)).astype("f4")
        file["MAPS/energy_calib"] = np.array([0.0, 0.01, 0.0], "f4")
        file["MAPS/scaler_names"] = np.array([b"ELT1", b"ERT1", b"ICR1", b"OCR1", b"us_ic"], "S256")
        out = counts.sum(axis=0)
        values = np.stack([np.full_like(out, v, dtype="f4") for v in (9.0, 2.0, 0.0, 0.0, 7.0)])
        values[3] = out / 2.0
        values[2] = out / 2.0 * 1.25
        file["MAPS/scalers"] = values
        file["MAPS/x_axis"] = np.arange(width, dtype="f4")
        file["MAPS/y_axis"] = 10 + np.arange(height, dtype="f4")
    return path


def test_version_9_has_its_times_among_the_scalers_and_axes_in_millimetres(tmp_path):
    counts = some_counts((64, 3, 4, 1))[..., 0].astype(float) + 1
    scan = open_scan(version_9(tmp_path / "old.h5", counts))
    assert (scan.format, scan.shape) == ("maps-v9", (1, 3, 4, 64))
    np.testing.assert_array_equal(scan.read_counts(slice(0, 3))[0], np.moveaxis(counts, 0, 2))
    scalars = scan.read_scalars()
    np.testing.assert_allclose(scalars.live_time_s, 2.0 / 1.25, rtol=1e-6)
    np.testing.assert_allclose(scalars.ocr_hz[0], counts.sum(axis=0) / 2.0, rtol=1e-6)
    np.testing.assert_array_equal(scalars.x_um[2], [0, 1000, 2000, 3000])
    np.testing.assert_array_equal(scalars.y_um[:, 1], [10_000, 11_000, 12_000])


@pytest.mark.parametrize("stored", ["rates", "counts"])
def test_output_counts_and_output_rates_are_told_apart_by_the_spectra(tmp_path, stored):
    counts = np.full((8, 2, 3), 50.0, "f4")  # 400 a pixel in 0.1 s: 4000 Hz
    out = np.full((2, 3), 400.0 if stored == "counts" else 4000.0)
    path = write_one(
        tmp_path / "a.h50",
        counts,
        MAPS__Spectra__Elapsed_Realtime=np.full((2, 3), 0.1, "f4"),
        MAPS__Spectra__Input_Counts=2 * out,
        MAPS__Spectra__Output_Counts=out,
        MAPS__Spectra__Integrated_Spectra__Spectra=counts.sum(axis=(1, 2)),
    )
    scalars = open_scan(path).read_scalars()
    np.testing.assert_allclose(scalars.ocr_hz, 4000.0, rtol=1e-6)
    np.testing.assert_allclose(scalars.icr_hz, 8000.0, rtol=1e-6)
    np.testing.assert_allclose(scalars.live_time_s, 0.05, rtol=1e-6)


def test_axes_of_xrf_maps_are_millimetres_unless_an_attribute_says_otherwise(tmp_path):
    x = np.tile(np.arange(3, dtype="f4"), (2, 1))
    path = write_one(tmp_path / "a.h50", np.zeros((8, 2, 3), "f4"), MAPS__Scan__x_axis=x, MAPS__Scan__y_axis=x)
    np.testing.assert_array_equal(open_scan(path).read_scalars().x_um, 1000 * x)
    with h5py.File(path, "a") as file:
        file["MAPS/Scan/x_axis"].attrs["units"] = "um"
    np.testing.assert_array_equal(open_scan(path).read_scalars().x_um, x)


def test_a_20_gb_file_opens_without_memory(tmp_path):
    path = tmp_path / "large.h50"
    with h5py.File(path, "w") as file:
        file.create_dataset("MAPS/Spectra/mca_arr", (2048, 1600, 1600), dtype="f4", chunks=(2048, 1, 1))
    tracemalloc.start()
    scan = open_scan(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.prod(scan.shape) * scan.dtype.itemsize > 20e9
    assert peak < 8e6
    one_read = scan.rows_per_read * 1600 * 2048 * 4
    assert one_read <= hdf5_files.MAX_BLOCK_BYTES
    assert scan.rows_per_read == 1


@pytest.mark.parametrize(
    ("row_bytes", "chunk_rows", "rows"), [(2**20, 1, 16), (2**20, 10, 10), (2**40, 4, 1), (1, 1, 100)]
)
def test_a_block_is_bounded_and_of_whole_chunks(row_bytes, chunk_rows, rows):
    got = hdf5_files.rows_per_block(row_bytes=row_bytes, chunk_rows=chunk_rows, height=100)
    assert got == rows


@pytest.mark.parametrize("bad", [-2.0, np.nan, np.inf])
def test_a_count_that_is_none_is_refused_with_its_place(tmp_path, bad):
    counts = np.zeros((8, 4, 3), "f4")
    counts[6, 2, 1] = bad
    scan = open_scan(write_one(tmp_path / "a.h50", counts))
    with pytest.raises(InputFileError, match=r"a\.h50: detector 0, row 2, column 1, channel 6"):
        scan.read_counts(slice(1, 4))


@pytest.mark.parametrize("keep", [0.3, 0.7, 0.97])
def test_a_truncated_file_is_refused(tmp_path, keep):
    path = write(tmp_path, some_counts())[1]
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(InputFileError, match=r"scan\.h51.*truncated"):
        open_scan(tmp_path / "scan.h50")


@pytest.mark.parametrize("shape", [(8, 4), (8, 4, 3, 2), (8, 0, 3)])
def test_another_rank_is_refused(tmp_path, shape):
    path = write_one(tmp_path / "a.h50", np.zeros(shape, "f4"))
    with pytest.raises(InputFileError, match=r"mca_arr .*must be numbers"):
        open_scan(path)


def test_times_of_another_shape_are_refused_by_name(tmp_path):
    path = write_one(tmp_path / "a.h50", np.zeros((8, 2, 3), "f4"), MAPS__Spectra__Elapsed_Realtime=np.zeros((3, 2)))
    with pytest.raises(InputFileError, match=r"Elapsed_Realtime.*\(3, 2\).*\(2, 3\)"):
        open_scan(path).read_scalars()


def test_a_falling_energy_axis_is_refused_and_an_option_replaces_it(tmp_path):
    path = write(tmp_path, some_counts(), slope=-0.01)[0]
    with pytest.raises(InputFileError, match=r"-0\.01 keV per channel.*--energy-slope"):
        open_scan(path)
    options = ReadOptions(energy_slope_kev=0.01, energy_offset_kev=0.1)
    line = EnergyCalibration(offset_kev=0.1, slope_kev=0.01)
    assert open_scan(path, options).calibration == (line,) * 3


def test_an_energy_that_a_quadratic_term_bends_down_is_refused(tmp_path):
    bent = np.array([0.0, 0.01, -1e-3])
    counts = np.zeros((64, 2, 3), "f4")
    path = write_one(tmp_path / "a.h50", counts, MAPS__Spectra__Energy_Calibration=bent)
    with pytest.raises(InputFileError, match=r"a\.h50.*does not rise.*quadratic -0\.001"):
        open_scan(path)


def test_the_offset_of_a_falling_axis_is_not_kept_with_a_slope_that_is_given(tmp_path):
    falling = np.array([20.0, -0.01, 0.0])
    counts = np.zeros((64, 2, 3), "f4")
    path = write_one(tmp_path / "a.h50", counts, MAPS__Spectra__Energy_Calibration=falling)
    scan = open_scan(path, ReadOptions(energy_slope_kev=0.01))
    assert scan.calibration == (EnergyCalibration(offset_kev=0.0, slope_kev=0.01),)


def test_zeros_are_no_calibration(tmp_path):
    path = write_one(tmp_path / "a.h50", np.zeros((8, 2, 3), "f4"), MAPS__Spectra__Energy_Calibration=np.zeros(3))
    scan = open_scan(path)
    assert scan.calibration is None
    assert any("calibration" in note.text for note in scan.notes)


@pytest.mark.parametrize("way", ["link", "group", "soft", "virtual"])
def test_data_outside_the_file_is_refused_unless_allowed(tmp_path, way):
    counts = np.arange(48, dtype="f4").reshape(8, 2, 3)
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["Spectra/mca_arr"] = counts
    with h5py.File(tmp_path / "a.h50", "w") as file:
        if way == "link":
            file["MAPS/Spectra/mca_arr"] = h5py.ExternalLink("other.hdf5", "Spectra/mca_arr")
        elif way == "group":
            file["MAPS/Spectra"] = h5py.ExternalLink("other.hdf5", "Spectra")
        elif way == "soft":
            file["outside"] = h5py.ExternalLink("other.hdf5", "Spectra")
            file["MAPS/Spectra"] = h5py.SoftLink("/outside")
        else:
            layout = h5py.VirtualLayout((8, 2, 3), "f4")
            layout[:] = h5py.VirtualSource(tmp_path / "other.hdf5", "Spectra/mca_arr", (8, 2, 3))
            file.create_virtual_dataset("MAPS/Spectra/mca_arr", layout)
    refused = maps_hdf5.open_file
    with pytest.raises(InputFileError, match=r"a\.h50: .*(external link|virtual).*allow"):
        refused(tmp_path / "a.h50", ReadOptions())
    scan = maps_hdf5.open_file(tmp_path / "a.h50", ReadOptions(allow_external=True))
    np.testing.assert_array_equal(scan.read_counts(slice(0, 2))[0], np.moveaxis(counts, 0, 2))


def test_a_row_that_no_memory_holds_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "a.h50"
    with h5py.File(path, "w") as file:
        file.create_dataset("MAPS/Spectra/mca_arr", (2048, 2, 2**30), dtype="f4", chunks=(2048, 1, 1))
    with pytest.raises(InputFileError, match="takes 8796093022208 bytes"):
        open_scan(path)


def test_one_read_holds_little_more_than_its_block(tmp_path):
    counts = some_counts((4, 16, 32, 256))
    scan = open_scan(write(tmp_path, counts)[0])
    tracemalloc.start()
    block = scan.read_counts(slice(0, 16))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.6 * block.nbytes


@pytest.mark.parametrize("chunks", [(4, 1, 1), (4, 3, 2), None])
@pytest.mark.parametrize("rows", [slice(0, 10), slice(2, 9), slice(4, 5), slice(7, 7)])
def test_pieces_of_a_read_join_to_the_rows_asked_for(tmp_path, monkeypatch, chunks, rows):
    counts = np.arange(4 * 10 * 5, dtype="f4").reshape(4, 10, 5)
    with h5py.File(tmp_path / "a.h50", "w") as file:
        file.create_dataset("MAPS/Spectra/mca_arr", data=counts, chunks=chunks)
    monkeypatch.setattr(hdf5_chunks, "PIECE_BYTES", 2 * 4 * 5 * 4)
    block = open_scan(tmp_path / "a.h50").read_counts(rows)
    np.testing.assert_array_equal(block[0], np.moveaxis(counts, 0, 2)[rows])


def test_one_detector_is_not_held_twice(tmp_path):
    path = write_one(tmp_path / "a.h50", np.ones((1024, 64, 128), "f4"))
    scan = open_scan(path)
    tracemalloc.start()
    block = scan.read_counts(slice(0, 64))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < block.nbytes + 2 * hdf5_chunks.PIECE_BYTES


def test_a_file_that_another_program_has_locked_is_read(tmp_path):
    counts = some_counts()
    path = write(tmp_path, counts)[0]
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        np.testing.assert_array_equal(open_scan(path).read_counts(slice(0, 5)), counts)


@pytest.mark.parametrize("kept", ["Spectra", "Scan", "Scalers"])
def test_a_file_without_its_spectra_is_refused_and_its_scalers_are_not_taken_for_some(tmp_path, kept):
    (path,) = write(tmp_path, some_counts()[:1])
    with h5py.File(path, "r+") as file:
        del file["MAPS"]
        file[f"MAPS/{kept}/Values"] = np.ones((3, 8, 600), np.float32)
    with pytest.raises(InputFileError, match=r"a MAPS file without spectra: neither /MAPS/Spectra/mca_arr nor"):
        open_scan(path)
    asked = ReadOptions(dataset_path=f"/MAPS/{kept}/Values", energy_axis=2)
    assert open_scan(path, asked).shape == (1, 3, 8, 600)
