"""Results for other programs: what a spreadsheet and a NeXus viewer get."""

import csv

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from results_sample import COMPONENTS, EXPOSURE, PARAMETERS, make_store

from hpcxrf.errors import OutputError
from hpcxrf.results.export import amplitudes_to_csv, escape_cell, maps_to_hdf5, parameters_to_csv
from hpcxrf.results.store.maps import create_results


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "scan.zarr"
    return path, make_store(path, shape_yx=(70, 20))


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_the_amplitude_table_has_a_row_a_detector_and_component(store, tmp_path):
    amplitudes_to_csv(store[0], tmp_path / "a.csv")
    rows = read_csv(tmp_path / "a.csv")
    assert len(rows) == 2 * len(COMPONENTS)
    found = {row["component"]: float(row["amplitude_counts"]) for row in rows[: len(COMPONENTS)]}
    assert found == pytest.approx(dict(zip(COMPONENTS, store[1].sum((1, 2)) / EXPOSURE, strict=True)))
    assert not list(tmp_path.glob(".*"))


def test_the_parameter_table_leaves_unknown_numbers_empty(store, tmp_path):
    parameters_to_csv(store[0], tmp_path / "p.csv")
    rows = {row["parameter"]: row for row in read_csv(tmp_path / "p.csv") if row["detector"] == "0"}
    assert set(rows) == set(PARAMETERS)
    assert rows["step_offset"]["sigma"] == ""
    assert rows["energy_slope"]["unit"] == "keV/channel"
    assert (rows["fwhm_fanoprime"]["at_bound"], rows["fwhm_offset"]["at_bound"]) == ("1", "0")


@given(st.text(max_size=8))
def test_no_text_starts_a_formula_in_a_spreadsheet(text):
    cell = escape_cell(text)
    assert not str(cell).startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert str(cell).removeprefix("'") == text.removeprefix("'")


def test_numbers_stay_numbers():
    assert escape_cell(-1.5) == -1.5
    assert escape_cell("-1.5") == "'-1.5"


def test_a_component_named_like_a_formula_is_escaped_in_the_file(tmp_path):
    name = '=HYPERLINK("x")'
    create_results(
        tmp_path / "s.zarr", detectors=("0",), components=(name,), shape_yx=(2, 2), n_channels=4, attributes={}
    )
    amplitudes_to_csv(tmp_path / "s.zarr", tmp_path / "a.csv")
    assert read_csv(tmp_path / "a.csv")[0]["component"] == f"'{name}"
    parameters_to_csv(tmp_path / "s.zarr", tmp_path / "p.csv")
    assert read_csv(tmp_path / "p.csv") == []


def test_a_nexus_viewer_finds_the_maps_by_the_default_attributes(store, tmp_path):
    maps_to_hdf5(store[0], tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5") as file:
        node = file
        while "default" in node.attrs:
            node = node[node.attrs["default"]]
        assert node.attrs["NX_class"] == "NXdata"
        signals = [node.attrs["signal"], *node.attrs["auxiliary_signals"]]
        assert signals == list(COMPONENTS)
        assert [node[name].shape[0] for name in node.attrs["axes"]] == [70, 20]
        assert node["x_um"][3] == 1.5
        expected = store[1][6].astype("f4")
        expected[[0, 64], 0] = 0  # the empty pixels
        np.testing.assert_array_equal(node["Fe"][()], expected)
        assert file["entry/detector_1/status/status"][0, 0] == 3
        assert file["entry/process"].attrs["source"] == "simulated"


def test_unknown_positions_leave_the_axes_to_the_viewer(tmp_path):
    make_store(tmp_path / "s.zarr", shape_yx=(5, 4), step_um=None, detectors=("sum",))
    maps_to_hdf5(tmp_path / "s.zarr", tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5") as file:
        assert list(file["entry/detector_sum/sigma"].attrs["axes"]) == [".", "."]


def test_a_file_that_cannot_be_written_is_named(store, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"file/a\.csv: .*another folder"):
        amplitudes_to_csv(store[0], tmp_path / "file" / "a.csv")
