"""Results as tables: what a spreadsheet gets."""

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st
from results_sample import COMPONENTS, EXPOSURE, PARAMETERS, make_store

from hpcxrf.errors import OutputError
from hpcxrf.results.export.cells import escape_cell
from hpcxrf.results.export.csv_tables import amplitudes_to_csv, parameters_to_csv
from hpcxrf.results.export.source import read_source
from hpcxrf.results.store.maps import create_results


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "scan.zarr"
    return path, make_store(path, shape_yx=(70, 20))


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_the_amplitude_table_has_a_row_a_detector_and_component(store, tmp_path):
    amplitudes_to_csv(read_source(store[0]), tmp_path / "a.csv")
    rows = read_csv(tmp_path / "a.csv")
    assert len(rows) == 2 * len(COMPONENTS)
    found = {row["component"]: float(row["amplitude_counts"]) for row in rows[: len(COMPONENTS)]}
    assert found == pytest.approx(dict(zip(COMPONENTS, store[1].sum((1, 2)) / EXPOSURE, strict=True)))
    assert not list(tmp_path.glob(".*"))


def test_the_parameter_table_leaves_unknown_numbers_empty(store, tmp_path):
    parameters_to_csv(read_source(store[0]), tmp_path / "p.csv")
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
    amplitudes_to_csv(read_source(tmp_path / "s.zarr"), tmp_path / "a.csv")
    assert read_csv(tmp_path / "a.csv")[0]["component"] == f"'{name}"
    parameters_to_csv(read_source(tmp_path / "s.zarr"), tmp_path / "p.csv")
    assert read_csv(tmp_path / "p.csv") == []


def test_a_file_that_cannot_be_written_is_named(store, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"file/a\.csv: .*another folder"):
        amplitudes_to_csv(read_source(store[0]), tmp_path / "file" / "a.csv")
