"""The results store: created once, written by blocks, read by anyone."""

import json
import os
import shutil
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from results_sample import COMPONENTS, EXPOSURE, FIRST, LAST, N_CHANNELS, make_store, pixel_fit, spectrum_fit, true_maps

from hpcxrf.errors import OutputError
from hpcxrf.fitting.result import FitStatus
from hpcxrf.results.store.maps import (
    block_checksums,
    create_results,
    finalise,
    is_complete,
    open_results,
    write_block,
    write_spectrum_fits,
)

GROUPS = ("maps", "spectrum", "parameters")


def files_of(path: Path) -> dict[str, bytes]:
    return {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def create(path: Path, **changes) -> None:
    settings_ = {
        "detectors": ("0", "1"),
        "components": ("Fe", "Ca"),
        "shape_yx": (130, 300),
        "n_channels": 64,
        "attributes": {"source": "scan.h5"},
        **changes,
    }
    create_results(path, **settings_)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("results") / "scan-0123abcd.zarr"
    return path, make_store(path)


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_of_a_finished_store_opens_without_a_warning(store, group):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = xr.open_zarr(store[0], group=group).load()
    for name, variable in dataset.data_vars.items():
        assert variable.attrs["units"], name
        assert variable.attrs["long_name"], name


def test_the_metadata_are_consolidated_as_zarr_does_it(store, tmp_path):
    other = tmp_path / "other.zarr"
    shutil.copytree(store[0], other)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(other)
    ours, theirs = (json.loads((one / "zarr.json").read_bytes()) for one in (store[0], other))
    assert len(ours["consolidated_metadata"]["metadata"]) > 30
    assert ours == theirs


def test_the_maps_read_back_as_written(store):
    path, maps = store
    dataset = xr.open_zarr(path, group="maps").load()
    assert dataset["amplitude"].dims == ("detector", "component", "y", "x")
    assert dataset["amplitude"].dtype == np.float32
    found = dataset["amplitude"].sel(detector="1", component="Fe").values
    expected = maps[COMPONENTS.index("Fe")].astype(np.float32)
    expected[::64, ::256] = 0.0  # the first pixel of every block was empty
    np.testing.assert_array_equal(found, expected)
    assert dataset["x_um"].sel(y=0, x=299).item() == pytest.approx(149.5)
    assert set(dataset.coords) >= {"detector", "component", "x_um", "y_um"}


def test_a_chunk_is_one_map_block_of_all_components_of_one_detector(store):
    chunks = xr.open_zarr(store[0], group="maps")["amplitude"].encoding["chunks"]
    assert chunks == (1, len(COMPONENTS), 64, 256)


def test_the_status_explains_itself(store):
    status = xr.open_zarr(store[0], group="maps")["status"]
    meanings = status.attrs["flag_meanings"].split()
    assert dict(zip(status.attrs["flag_values"], meanings, strict=True)) == {
        0: "not_run",
        1: "converged",
        2: "max_iterations",
        3: "empty",
        4: "nonfinite",
        5: "singular",
        6: "beyond_tangent",
        7: "saturated",
        8: "not_measured",
        9: "outlier",
        10: "theta_kept",
    }
    assert status.dtype == np.uint8
    assert status.sel(detector="0")[0, 0] == FitStatus.EMPTY


def test_what_was_not_written_reads_as_not_run_and_nan(tmp_path):
    create(tmp_path / "s.zarr")
    write_block(tmp_path / "s.zarr", 1, slice(64, 128), slice(256, 300), pixel_fit(np.ones((2, 64, 44))))
    maps = open_results(tmp_path / "s.zarr")["maps"]
    assert (maps["status"].values[1, 64:128, 256:300] > 0).all()
    assert maps["status"].values.astype(bool).sum() == 64 * 44
    assert np.isfinite(maps["amplitude"].values).sum() == 2 * 64 * 44
    assert np.isnan(open_results(tmp_path / "s.zarr")["spectrum"]["model"].values).all()


def test_the_spectrum_has_all_channels_and_nan_outside_the_fit_range(store):
    path, maps = store
    spectrum = xr.open_zarr(path, group="spectrum").sel(detector="0")
    model = spectrum["model"].values
    assert model.shape == (N_CHANNELS,)
    assert np.isnan(model[:FIRST]).all()
    assert np.isnan(model[LAST:]).all()
    parts = spectrum["component_counts"].sum("component").values + spectrum["background"].values
    np.testing.assert_allclose(model[FIRST:LAST], parts[FIRST:LAST], rtol=1e-5)
    np.testing.assert_allclose(spectrum["amplitude"].values, maps.sum((1, 2)) / EXPOSURE)
    assert spectrum["energy_kev"].values[500] == pytest.approx(0.0021 + 5.0)
    assert spectrum.attrs["line_markers"][0] == [2.308, "S Ka"]
    assert spectrum["status"] == FitStatus.CONVERGED


def test_the_parameters_keep_start_bounds_and_unit(store):
    table = xr.open_zarr(store[0], group="parameters").load().sel(detector="1", name="fwhm_fanoprime")
    assert table["unit"].item() == "keV"
    assert table["initial"].item() == 2.3e-4
    assert (table["free"].item(), table["at_bound"].item()) == (1, 1)


def test_whole_integrated_counts_are_kept_where_they_are_given(tmp_path):
    path = tmp_path / "s.zarr"
    create(path, components=COMPONENTS, n_channels=N_CHANNELS)
    fit = spectrum_fit(np.full(len(COMPONENTS), 1e4))
    counts = np.arange(N_CHANNELS, dtype=float)
    write_spectrum_fits(path, {"1": fit}, N_CHANNELS, integrated_counts={"1": counts})
    found = open_results(path)["spectrum"]["counts"].values
    np.testing.assert_array_equal(found[1], counts)
    assert np.isnan(found[0]).all()


def test_creating_writing_and_fitting_twice_equals_once(tmp_path):
    path = tmp_path / "s.zarr"
    make_store(path, shape_yx=(70, 30), complete=False)
    before = files_of(path)
    make_store(path, shape_yx=(70, 30), complete=False)
    assert files_of(path) == before


def test_blocks_may_be_written_by_several_processes_in_any_order(tmp_path):
    """Spawned processes, one block each, against one process that writes everything at once."""
    amplitude = np.arange(2 * 130 * 300, dtype=float).reshape(2, 130, 300)
    together, apart = tmp_path / "a.zarr", tmp_path / "b.zarr"
    create(together)
    create(apart)
    tiles = [(slice(y, min(y + 64, 130)), slice(x, min(x + 256, 300))) for x in (256, 0) for y in (128, 64, 0)]
    for y, x in tiles:
        write_block(together, 0, y, x, pixel_fit(amplitude[:, y, x]))
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(write_block, apart, 0, y, x, pixel_fit(amplitude[:, y, x])) for y, x in tiles]
        for job in jobs:
            job.result()
    assert files_of(apart) == files_of(together)


@settings(max_examples=50, deadline=None)
@given(start=st.integers(-70, 200), stop=st.integers(-70, 200))
def test_only_whole_blocks_are_accepted(tmp_path_factory, start, stop):
    path = tmp_path_factory.getbasetemp() / "aligned.zarr"
    create(path)
    whole = (start, stop) in {(0, 64), (0, 128), (64, 128), (0, 130), (64, 130), (128, 130)}
    fit = pixel_fit(np.ones((2, max(stop - start, 1), 256)))
    if whole:
        write_block(path, 0, slice(start, stop), slice(0, 256), fit)
    else:
        with pytest.raises(ValueError, match="whole map blocks"):
            write_block(path, 0, slice(start, stop), slice(0, 256), fit)


def test_a_fit_of_another_shape_is_refused(tmp_path):
    create(tmp_path / "s.zarr")
    with pytest.raises(ValueError, match=r"amplitude: shape \(16384, 3\), must be \(16384, 2\)"):
        write_block(tmp_path / "s.zarr", 0, slice(0, 64), slice(0, 256), pixel_fit(np.ones((3, 64, 256))))


def test_a_run_that_an_earlier_version_began_goes_on_without_the_arrays_it_lacks(tmp_path):
    path = tmp_path / "s.zarr"
    create(path)
    shutil.rmtree(path / "maps" / "deviance_z")
    fit = pixel_fit(np.ones((2, 64, 256)))
    write_block(path, 1, slice(0, 64), slice(0, 256), replace(fit, deviance_z=torch.zeros(64 * 256)))
    maps = open_results(path)["maps"]
    assert "deviance_z" not in maps
    assert float(maps["amplitude"][1, 0, 0, 1]) == 1.0


def test_a_map_that_every_version_has_may_not_be_missing(tmp_path):
    path = tmp_path / "s.zarr"
    create(path)
    shutil.rmtree(path / "maps" / "sigma")
    with pytest.raises(OutputError, match="sigma: missing from the store"):
        write_block(path, 1, slice(0, 64), slice(0, 256), pixel_fit(np.ones((2, 64, 256))))


def test_checksums_change_with_the_block_and_only_with_it(tmp_path):
    path = tmp_path / "s.zarr"
    create(path)
    y, x = slice(64, 128), slice(0, 256)
    empty = block_checksums(path, 1, y, x)
    assert set(empty.values()) == {"absent"}
    assert len(empty) == 6
    write_block(path, 1, slice(0, 64), slice(256, 300), pixel_fit(np.ones((2, 64, 44))))
    assert block_checksums(path, 1, y, x) == empty
    write_block(path, 1, y, x, pixel_fit(np.ones((2, 64, 256))))
    ones = block_checksums(path, 1, y, x)
    # Their deviance_z is not known.
    assert ones.pop("maps/deviance_z/c/1/1/0") == "absent"
    assert len(set(ones.values())) == 5
    assert all(len(value) == 64 for value in ones.values())
    write_block(path, 1, y, x, pixel_fit(np.full((2, 64, 256), 2.0)))
    assert block_checksums(path, 1, y, x)["maps/amplitude/c/1/0/1/0"] != (ones["maps/amplitude/c/1/0/1/0"])


def test_complete_is_the_last_thing_written_and_goes_when_a_fit_is_rewritten(tmp_path):
    path = tmp_path / "s.zarr"
    assert not is_complete(path)
    make_store(path, shape_yx=(8, 9), complete=False)
    assert not is_complete(path)
    (path / "maps" / "c.123.partial").write_bytes(b"left by a killed writer")
    for left in (path / ".parameters.123.partial", path.parent / ".s.zarr.123.partial"):
        shutil.copytree(path / "spectrum", left)
    finalise(path, {"seconds": 3.5})
    assert is_complete(path)
    assert open_results(path).attrs["seconds"] == 3.5
    assert not list(tmp_path.rglob("*.partial"))
    assert sorted(open_results(path).children) == sorted(GROUPS)
    fit = spectrum_fit(np.full(len(COMPONENTS), 10.0))
    write_spectrum_fits(path, {"0": fit}, N_CHANNELS)
    assert not is_complete(path)
    assert "consolidated_metadata" not in json.loads((path / "zarr.json").read_text())
    finalise(path, {})
    assert xr.open_zarr(path, group="spectrum")["amplitude"].values[0, 0] == 10.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"detectors": ("0", "sum")}, "detectors is"),
        ({"components": ("Ca", "Fe")}, "components is"),
        ({"components": ("Ca",)}, "size of component is 2, not 1"),
        ({"n_channels": 65}, "size of channel is 64, not 65"),
        ({"attributes": {"source": "other.h5"}}, "source is 'scan.h5', not 'other.h5'"),
    ],
)
def test_another_store_of_the_same_name_is_refused_with_the_difference(tmp_path, change, message):
    create(tmp_path / "s.zarr")
    with pytest.raises(OutputError, match=message):
        create(tmp_path / "s.zarr", **change)


def test_another_schema_version_is_refused_by_everything(tmp_path):
    path = tmp_path / "s.zarr"
    create(path)
    file = path / "zarr.json"
    file.write_text(file.read_text().replace('"hpcxrf_schema_version": 2', '"hpcxrf_schema_version": 99'))
    fit = pixel_fit(np.ones((2, 64, 256)))
    for action in (
        lambda: create(path),
        lambda: open_results(path),
        lambda: finalise(path, {}),
        lambda: write_block(path, 0, slice(0, 64), slice(0, 256), fit),
        lambda: write_spectrum_fits(path, {}, 64),
    ):
        with pytest.raises(OutputError, match="schema version 99"):
            action()


def test_a_store_of_version_1_is_read_and_keeps_its_files(tmp_path):
    path = tmp_path / "s.zarr"
    create(path)
    write_block(path, 0, slice(0, 64), slice(0, 256), pixel_fit(np.ones((2, 64, 256))))
    file = path / "zarr.json"
    file.write_text(file.read_text().replace('"hpcxrf_schema_version": 2', '"hpcxrf_schema_version": 1'))
    finalise(path, {})
    assert (path / "maps" / "amplitude" / "c" / "0" / "0" / "0" / "0").is_file()
    assert is_complete(path)
    assert np.isfinite(open_results(path)["maps"]["amplitude"][0, :, :64, :256]).all()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"file/s\.zarr: .*another folder"):
        create(tmp_path / "file" / "s.zarr")


def test_a_missing_or_damaged_store_is_named(tmp_path):
    with pytest.raises(OutputError, match="no results store here"):
        open_results(tmp_path / "none.zarr")
    create(tmp_path / "s.zarr")
    (tmp_path / "s.zarr" / "zarr.json").write_text('{"attributes": ')
    with pytest.raises(OutputError, match=r"zarr\.json: is damaged"):
        open_results(tmp_path / "s.zarr")


def test_unknown_detectors_and_components_are_refused_together(tmp_path):
    path = tmp_path / "s.zarr"
    create(path, n_channels=N_CHANNELS, components=("Fe", "Ca"))
    fit = spectrum_fit(np.full(len(COMPONENTS), 1e4))
    with pytest.raises(ValueError, match="detector '7', component 'S', component 'K'"):
        write_spectrum_fits(path, {"7": fit}, N_CHANNELS)


def test_attributes_that_are_no_json_are_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON without NaN"):
        create(tmp_path / "s.zarr", attributes={"seconds": float("nan")})
    assert not (tmp_path / "s.zarr").exists()


def test_nothing_of_an_interrupted_creation_is_left(tmp_path):
    with pytest.raises(ValueError, match="x_um: shape"):
        create(tmp_path / "s.zarr", positions_um=(np.zeros((2, 2)), np.zeros((2, 2))))
    assert os.listdir(tmp_path) == []  # noqa: PTH208  hidden names count as well


def test_the_pixels_of_a_tile_are_row_major():
    maps = true_maps((4, 6))
    fit = pixel_fit(maps)
    assert fit.amplitude[1 * 6 + 2, 3] == torch.tensor(maps[3, 1, 2], dtype=torch.float32)


def test_a_copy_of_the_maps_alone_says_where_they_come_from(tmp_path):
    path = tmp_path / "s.zarr"
    origin = {"title": "leaf", "source": "leaf.mda", "hpcxrf_version": "0.1.0"}
    create(path, attributes={**origin, "configuration": {"pixels": {}}})
    shutil.copytree(path / "maps", tmp_path / "copy.zarr")
    with xr.open_zarr(tmp_path / "copy.zarr", consolidated=False) as maps:
        assert maps.attrs == {**origin, "units": "count"}
        assert {name: maps[name].attrs["units"] for name in ("amplitude", "status")} == {
            "amplitude": "count",
            "status": "1",
        }
