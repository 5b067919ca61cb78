"""Spectra as plain arrays: npy, npz, HDF5, Zarr."""

import threading
import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hpcxrf.errors import InputFileError
from hpcxrf.formats.arrays import open_file, sniff
from hpcxrf.formats.axis_rules import Hints, guess_axes
from hpcxrf.formats.hdf5_files import MAX_BLOCK_BYTES
from hpcxrf.formats.maps_writer import write_array_hdf5
from hpcxrf.formats.scan import EnergyCalibration, ReadOptions
from hpcxrf.notes import Note
from tests.samples.array_files import (
    NO_OPTIONS,
    SAVERS,
    SHAPE,
    Saver,
    make_counts,
    read_all,
    read_head,
    save_npy,
    write_hdf5,
)


def test_the_salt_flat_map_opens_with_its_totals(shared_data: Path) -> None:
    path = shared_data / "pixl-laguna" / "laguna.h5"
    scan = open_file(path, NO_OPTIONS)
    assert (scan.format, scan.shape) == ("hdf5-array", (2, 25, 25, 4096))
    total = sum(scan.read_counts(slice(y, y + 5)).sum(axis=(1, 2, 3), dtype=int) for y in range(0, 25, 5))
    assert np.asarray(total).tolist() == [60369725, 54923501]
    one = EnergyCalibration(offset_kev=0.0, slope_kev=0.01)
    assert scan.calibration == (one, one)
    assert scan.incident_energy_kev is None
    assert any("Rh, 28 kV" in note.text for note in scan.notes)
    scalars = scan.read_scalars()
    with h5py.File(path, "r", locking=False) as file:
        np.testing.assert_array_equal(scalars.live_time_s, file["live_time_s"][()])
        np.testing.assert_array_equal(scalars.icr_hz, file["icr_hz"][()])
        np.testing.assert_array_equal(scalars.x_um, file["x_mm"][()].astype(float) * 1000.0)


@pytest.mark.parametrize("save", SAVERS)
@pytest.mark.parametrize("shape", [SHAPE, SHAPE[1:]])
def test_every_container_gives_the_same_counts(tmp_path: Path, save: Saver, shape: tuple[int, ...]) -> None:
    counts = make_counts(shape)
    path = save(tmp_path, counts)
    assert sniff(path, read_head(path))
    scan = open_file(path, NO_OPTIONS)
    expected = counts.reshape(-1, 5, 4, 64)
    assert scan.shape == expected.shape
    assert scan.dtype == np.dtype("u2")
    np.testing.assert_array_equal(read_all(scan), expected)
    np.testing.assert_array_equal(scan.read_counts(slice(2, 4)), expected[:, 2:4])


@pytest.mark.parametrize("save", SAVERS)
def test_a_zarr_or_file_that_is_read_stays_as_it_is(tmp_path: Path, save: Saver) -> None:
    path = save(tmp_path, make_counts())
    before = {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in tmp_path.rglob("*")}
    read_all(open_file(path, NO_OPTIONS))
    assert {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("fortran", [False, True])
@pytest.mark.parametrize("kind", ["<u2", ">u2", ">f4", "<i8"])
def test_npy_in_any_order_and_byte_order(tmp_path: Path, kind: str, fortran: bool) -> None:
    counts = make_counts(dtype=kind)
    path = save_npy(tmp_path, np.asfortranarray(counts) if fortran else counts)
    scan = open_file(path, NO_OPTIONS)
    block = scan.read_counts(slice(1, 4))
    assert block.dtype == scan.dtype
    assert block.dtype.isnative
    np.testing.assert_array_equal(block, counts[:, 1:4])


@given(st.permutations(["detector", "y", "x", "channel"]), st.integers(0, 4), st.integers(1, 5))
def test_named_axes_may_come_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, dims: list[str], start: int, length: int
) -> None:
    folder = tmp_path_factory.mktemp("axes")
    # No axis is the longest by its meaning here.
    counts = make_counts((2, 5, 7, 3))
    places = [["detector", "y", "x", "channel"].index(d) for d in dims]
    with h5py.File(folder / "a.h5", "w") as file:
        file["counts"] = counts.transpose(places)
        file.attrs["dims"] = ",".join(dims)
    scan = open_file(folder / "a.h5", NO_OPTIONS)
    assert scan.shape == (2, 5, 7, 3)
    rows = slice(start, min(start + length, 5))
    np.testing.assert_array_equal(scan.read_counts(rows), counts[:, rows])


@given(st.permutations([2, 5, 7, 64]), st.integers(0, 3), st.booleans())
def test_a_region_of_a_npy_is_that_of_numpy(
    tmp_path_factory: pytest.TempPathFactory, shape: list[int], axis: int, fortran: bool
) -> None:
    counts = make_counts(tuple(shape))
    path = save_npy(tmp_path_factory.mktemp("npy"), np.asfortranarray(counts) if fortran else counts)
    scan = open_file(path, ReadOptions(energy_axis=axis, detector_axis=int(axis == 0)))
    expected = np.moveaxis(counts, axis, -1)
    half = slice(expected.shape[1] // 2, expected.shape[1])
    np.testing.assert_array_equal(read_all(scan), expected)
    np.testing.assert_array_equal(scan.read_counts(half), expected[:, half])


def test_the_longest_axis_is_the_energy_and_this_is_said(tmp_path: Path) -> None:
    counts = make_counts((64, 5, 4))
    scan = open_file(save_npy(tmp_path, counts), NO_OPTIONS)
    np.testing.assert_array_equal(read_all(scan)[0], np.moveaxis(counts, 0, -1))
    assert any("axis 0" in n.text and "--energy-axis" in n.text for n in scan.notes)
    asked = open_file(save_npy(tmp_path, counts), ReadOptions(energy_axis=-1))
    assert (asked.shape, asked.notes) == ((1, 64, 5, 4), ())


def test_of_equally_long_axes_the_last_is_the_energy() -> None:
    assert guess_axes("a", (8, 8, 8), Hints(), NO_OPTIONS).energy == 2


def test_axes_named_by_hdf5_labels_and_by_nexus(tmp_path: Path) -> None:
    counts = make_counts((3, 5, 40))
    path = write_hdf5(tmp_path, counts=counts)
    with h5py.File(path, "a") as file:
        for dim, label in zip(file["counts"].dims, ("energy", "x", "y"), strict=True):
            dim.label = label
    np.testing.assert_array_equal(read_all(open_file(path, NO_OPTIONS))[0], counts.transpose(2, 1, 0))
    with h5py.File(path, "w") as file:
        group = file.create_group("entry/data")
        group.attrs["signal"] = "spectra"
        group.attrs["axes"] = ["energy", "y", "x"]
        group["spectra"] = counts
        file["entry/larger"] = make_counts((9, 9, 90))
    scan = open_file(path, NO_OPTIONS)
    np.testing.assert_array_equal(read_all(scan)[0], counts.transpose(1, 2, 0))


def test_pixels_by_channels_are_one_column(tmp_path: Path) -> None:
    counts = make_counts((6, 64))
    scan = open_file(save_npy(tmp_path, counts), NO_OPTIONS)
    assert scan.shape == (1, 6, 1, 64)
    np.testing.assert_array_equal(scan.read_counts(slice(2, 6))[0, :, 0], counts[2:6])
    assert any("rank 2: 6 pixels" in note.text for note in scan.notes)


def test_detectors_by_channels_are_one_point(tmp_path: Path) -> None:
    counts = make_counts((6, 64))
    path = write_hdf5(tmp_path, counts=counts)
    with h5py.File(path, "a") as file:
        file.attrs["dims"] = "detector,channel"
    scan = open_file(path, NO_OPTIONS)
    assert scan.shape == (6, 1, 1, 64)
    np.testing.assert_array_equal(scan.read_counts(slice(0, 1))[:, 0, 0], counts)


@pytest.mark.parametrize("save", SAVERS)
def test_one_spectrum_is_a_scan_of_one_pixel(tmp_path: Path, save: Saver) -> None:
    scan = open_file(save(tmp_path, make_counts((64,))), NO_OPTIONS)
    assert scan.shape == (1, 1, 1, 64)
    np.testing.assert_array_equal(read_all(scan)[0, 0, 0], make_counts((64,)))
    assert scan.read_counts(slice(0, 0)).shape == (1, 0, 1, 64)
    assert any("rank 1" in note.text for note in scan.notes)


def test_several_candidates_are_listed_and_one_can_be_named(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path, one=make_counts(), two=make_counts() + 1)
    with pytest.raises(InputFileError, match=r"--dataset-path: one \(2, 5.*two \(2, 5"):
        open_file(path, NO_OPTIONS)
    scan = open_file(path, ReadOptions(dataset_path="/two"))
    np.testing.assert_array_equal(read_all(scan), make_counts() + 1)
    with pytest.raises(InputFileError, match=r"no array 'three'; --dataset-path may be one"):
        open_file(path, ReadOptions(dataset_path="three"))


def test_the_clearly_largest_array_is_taken_and_this_is_said(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path, counts=make_counts(), maps=make_counts((3, 5, 4)), table=make_counts((9, 9)))
    scan = open_file(path, NO_OPTIONS)
    assert scan.shape == SHAPE
    assert any("counts (2, 5, 4, 64)" in n.text and "--dataset-path" in n.text for n in scan.notes)


def test_the_energy_comes_from_attributes_or_the_user(tmp_path: Path) -> None:
    path = write_hdf5(tmp_path, counts=make_counts())
    assert open_file(path, NO_OPTIONS).calibration is None
    asked = open_file(path, ReadOptions(energy_slope_kev=0.02, energy_offset_kev=0.1))
    assert asked.calibration == (EnergyCalibration(offset_kev=0.1, slope_kev=0.02),) * 2
    assert Note("fact", "energy slope set to 0.02 keV by --energy-slope") in asked.notes
    with h5py.File(path, "a") as file:
        file["counts"].attrs["energy_slope_kev"] = 0.01
        file.attrs["energy_offset_kev"] = -0.3
        file.attrs["incident_energy_kev"] = 12.5
    scan = open_file(path, NO_OPTIONS)
    assert scan.calibration == (EnergyCalibration(offset_kev=-0.3, slope_kev=0.01),) * 2
    assert scan.incident_energy_kev == 12.5


def test_an_energy_axis_in_the_file_is_used_and_must_rise(tmp_path: Path) -> None:
    channel = np.arange(64.0)
    path = write_hdf5(tmp_path, counts=make_counts(), energy=1e3 * (0.1 + 0.01 * channel + 1e-5 * channel**2))
    scan = open_file(path, NO_OPTIONS)
    assert scan.calibration is not None
    found = scan.calibration[1]
    assert found.offset_kev == pytest.approx(0.1, abs=1e-9)
    assert found.slope_kev == pytest.approx(0.01, abs=1e-10)
    assert found.quadratic_kev == pytest.approx(1e-5, abs=1e-12)
    assert any("guessed to be in eV" in note.text for note in scan.notes)
    falling = write_hdf5(tmp_path, counts=make_counts(), energy=1.0 - 0.01 * channel)
    with pytest.raises(InputFileError, match="rise from channel to channel"):
        open_file(falling, NO_OPTIONS)
    open_file(falling, ReadOptions(energy_slope_kev=0.01, energy_offset_kev=0.0))


def test_what_the_writer_writes_is_read_back_exactly(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    counts = rng.integers(0, 2**32 - 1, SHAPE, dtype="u4")
    times = {n: rng.random(SHAPE[:3]) for n in ("live_time_s", "real_time_s", "icr_hz", "ocr_hz")}
    calibration = (
        EnergyCalibration(offset_kev=-0.0041840752, slope_kev=0.0095216077, quadratic_kev=1e-9),
        EnergyCalibration(offset_kev=0.1, slope_kev=0.01),
    )
    scalers, positions = rng.random((2, *SHAPE[1:3])), rng.random((2, *SHAPE[1:3]))
    (path,) = write_array_hdf5(
        tmp_path / "a.h5",
        counts,
        **times,
        energy_calibration=calibration,
        scaler_names=("US_IC", "µ"),
        scaler_units=("V", ""),
        scaler_values=scalers,
        x_um=positions[0],
        y_um=positions[1],
        incident_energy_kev=12.5,
    )
    scan = open_file(path, NO_OPTIONS)
    assert (scan.calibration, scan.incident_energy_kev) == (calibration, 12.5)
    np.testing.assert_array_equal(read_all(scan), counts)
    back = scan.read_scalars()
    for name, values in times.items():
        np.testing.assert_array_equal(getattr(back, name), values)
    assert (back.scaler_names, back.scaler_units) == (("US_IC", "µ"), ("V", ""))
    np.testing.assert_array_equal(back.scaler_values, scalers)
    np.testing.assert_array_equal(back.x_um, positions[0])
    np.testing.assert_array_equal(back.y_um, positions[1])


def test_neighbours_of_npz_and_zarr_are_used_and_misfits_are_said(tmp_path: Path) -> None:
    live = np.random.default_rng(1).random((2, 5, 4))
    np.savez(tmp_path / "a.npz", counts=make_counts(), live_time_s=live, x_um=np.zeros((3, 3)))
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("counts", data=make_counts(), dimension_names=("detector", "y", "x", "channel"))
    group.create_array("live_time_s", data=live)
    group.attrs["energy_slope_kev"] = 0.01
    for name in ("a.npz", "a.zarr"):
        scan = open_file(tmp_path / name, NO_OPTIONS)
        np.testing.assert_array_equal(scan.read_scalars().live_time_s, live)
        assert scan.read_scalars().x_um is None
        assert (scan.calibration is None) == (name == "a.npz")
        assert any("x_um is not used" in note.text for note in scan.notes) == (name == "a.npz")


@pytest.mark.parametrize("form", ["npy", "hdf5"])
def test_a_file_of_20_gb_opens_without_memory(tmp_path: Path, form: str) -> None:
    shape = (4, 1024, 1220, 2048)
    if form == "npy":
        path = tmp_path / "a.npy"
        np.lib.format.open_memmap(path, "w+", "u2", shape)
        assert path.stat().st_size > 20e9
    else:
        path = tmp_path / "a.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("counts", shape, "u2", chunks=(1, 1, 64, 2048))
    tracemalloc.start()
    scan = open_file(path, NO_OPTIONS)
    opened = tracemalloc.get_traced_memory()[1]
    block = scan.read_counts(slice(1023 - scan.rows_per_read, 1023))
    read = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert opened < 2e6
    assert block.shape == (4, scan.rows_per_read, *shape[2:])
    assert block.nbytes <= max(MAX_BLOCK_BYTES, block[:, :1].nbytes)
    assert read < 1.5 * MAX_BLOCK_BYTES


@pytest.mark.parametrize("save", SAVERS)
def test_several_threads_read_at_once(tmp_path: Path, save: Saver) -> None:
    counts = make_counts((2, 32, 8, 64))
    scan = open_file(save(tmp_path, counts), NO_OPTIONS)
    got: dict[int, NDArray[Any]] = {}

    def work(row: int) -> None:
        got[row] = scan.read_counts(slice(row, row + 1))

    threads = [threading.Thread(target=work, args=(row,)) for row in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(np.concatenate([got[r] for r in range(32)], axis=1), counts)
