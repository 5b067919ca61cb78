"""MAPS and PyXRF files against the documented layouts, and override files: names, units, shapes, order, bit for bit."""

import h5py
import numpy as np
import pytest
from export_sample import COMPONENTS, CORNER, MAPS_ORDER, SHAPE, make_run, raster_um
from results_sample import N_CHANNELS, PARAMETERS

from hpcxrf.errors import OutputError
from hpcxrf.formats.override import read_override, theta_values, width_law
from hpcxrf.formats.override_text import THETA
from hpcxrf.formats.registry import open_scan
from hpcxrf.results.export.maps_v10 import order_components
from hpcxrf.results.export.source import read_source
from hpcxrf.results.export.write import export_source
from hpcxrf.results.store.maps import open_results
from hpcxrf.store.spectra import open_spectra

IRON = COMPONENTS.index("Fe")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return make_run(folder)


@pytest.fixture(scope="module")
def spectra(run):
    return open_spectra(run.parents[1] / "spectra" / run.name)


@pytest.fixture(scope="module")
def amplitude(run):
    return open_results(run)["maps"]["amplitude"].values


@pytest.fixture(scope="module")
def maps_files(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    return export_source(read_source(run, spectra=True), "maps", folder / "leaf.h5")


@pytest.fixture(scope="module")
def pyxrf_file(run, tmp_path_factory):
    return export_source(read_source(run, spectra=True), "pyxrf", tmp_path_factory.mktemp("pyxrf") / "leaf.h5")[0]


def texts(dataset):
    return [text.decode() for text in dataset[()]]


def test_components_are_ordered_as_in_xrf_maps():
    assert [COMPONENTS[place] for place in order_components(COMPONENTS)] == list(MAPS_ORDER)


def test_there_is_a_file_a_detector_and_one_of_the_sum(maps_files):
    assert [path.name for path in maps_files] == ["leaf.h5", "leaf.h50", "leaf.h51"]


@pytest.mark.parametrize(("suffix", "place"), [("h50", 0), ("h51", 1)])
def test_maps_are_counts_per_second_in_the_order_of_xrf_maps(maps_files, amplitude, spectra, suffix, place):
    live_s = spectra.times().live_time_s[place].astype(float)
    with h5py.File(maps_files[0].with_suffix(f".{suffix}")) as file:
        group = file["MAPS/XRF_Analyzed/Fitted"]
        names = texts(group["Channel_Names"])
        assert names == [*MAPS_ORDER, "Total_Fluorescence_Yield", "Sum_Elastic_Inelastic"]
        assert group["Channel_Names"].dtype == "S256"
        assert set(texts(group["Channel_Units"])) == {"cts/s"}
        stored = group["Counts_Per_Sec"]
        assert stored.dtype == np.float32
        assert stored.shape == (len(names), *SHAPE)
        assert stored.maxshape == (None,) * 3
        for number, name in enumerate(MAPS_ORDER):
            expected = (amplitude[place, COMPONENTS.index(name)].astype(float) / live_s).astype(np.float32)
            assert stored[number].tobytes() == expected.tobytes()
        total = spectra.read_rows([place], slice(0, SHAPE[0]))[0].sum(-1, dtype=float)
        np.testing.assert_array_equal(stored[-2], (total / live_s).astype(np.float32))
        scatter = amplitude[place, -2:].astype(float).sum(0) / live_s
        np.testing.assert_allclose(stored[-1], scatter, rtol=1e-6)
        assert np.unravel_index(np.nanargmax(stored[names.index("Fe")]), SHAPE) == CORNER
        assert "K-alpha-1" in stored.attrs["meaning"]


def test_datasets_have_the_names_types_and_shapes_of_the_layout(maps_files):
    wanted = {
        "version": ((1,), "f4"),
        "Spectra/mca_arr": ((N_CHANNELS, *SHAPE), "f4"),
        **{
            f"Spectra/{name}": (SHAPE, "f4")
            for name in ("Elapsed_Livetime", "Elapsed_Realtime", "Input_Counts", "Output_Counts")
        },
        "Spectra/Energy": ((N_CHANNELS,), "f4"),
        "Spectra/Energy_Calibration": ((3,), "f4"),
        "Spectra/Integrated_Spectra/Spectra": ((N_CHANNELS,), "f4"),
        "Spectra/Integrated_Spectra/Elapsed_Livetime": ((1,), "f4"),
        "XRF_Analyzed/Fitted/Fitted_Integrated_Spectra": ((N_CHANNELS,), "f4"),
        "XRF_Analyzed/Fitted/FIT_Integrated_Background": ((N_CHANNELS,), "f4"),
        "Scalers/Names": ((2,), "S256"),
        "Scalers/Units": ((2,), "S256"),
        "Scalers/Values": ((2, *SHAPE), "f4"),
        "Scan/x_axis": (SHAPE, "f4"),
        "Scan/y_axis": (SHAPE, "f4"),
        "Scan/requested_rows": ((1,), "i4"),
        "Scan/requested_cols": ((1,), "i4"),
        "Scan/name": ((1,), "S256"),
        "Fit_Parameters_Override/Fit_Parameters_Names": ((len(PARAMETERS),), "S50"),
        "Fit_Parameters_Override/Fit_Parameters_Values": ((len(PARAMETERS), 4), "f4"),
        "channel_units": ((4, len(MAPS_ORDER) + 2), "S256"),
    }
    with h5py.File(maps_files[1]) as file:
        found = {name: (file[f"MAPS/{name}"].shape, file[f"MAPS/{name}"].dtype) for name in wanted}
        assert found == {name: (shape, np.dtype(dtype)) for name, (shape, dtype) in wanted.items()}
        assert file["MAPS/version"][0] == 10.0
        assert file["MAPS/Spectra/mca_arr"].chunks == (N_CHANNELS, 1, 1)
        assert texts(file["MAPS/Scan/name"]) == ["leaf u"]
        assert np.isfinite(file["MAPS/XRF_Analyzed/Fitted/Fitted_Integrated_Spectra"][()]).all()
        row = texts(file["MAPS/Fit_Parameters_Override/Fit_Parameters_Names"]).index("F_STEP_OFFSET")
        assert file["MAPS/Fit_Parameters_Override/Fit_Parameters_Values"][row, 2] == np.float32(0.1)


def test_names_of_version_9_are_hard_links(maps_files):
    links = {
        "mca_arr": "Spectra/mca_arr",
        "XRF_fits": "XRF_Analyzed/Fitted/Counts_Per_Sec",
        "channel_names": "XRF_Analyzed/Fitted/Channel_Names",
        "energy": "Spectra/Energy",
        "energy_calib": "Spectra/Energy_Calibration",
        "int_spec": "Spectra/Integrated_Spectra/Spectra",
        "scalers": "Scalers/Values",
        "scaler_names": "Scalers/Names",
        "scaler_units": "Scalers/Units",
        "x_axis": "Scan/x_axis",
        "y_axis": "Scan/y_axis",
    }
    with h5py.File(maps_files[1]) as file:
        for name, target in links.items():
            assert isinstance(file["MAPS"].get(name, getlink=True), h5py.HardLink)
            assert file[f"MAPS/{name}"] == file[f"MAPS/{target}"]


def test_our_own_reader_opens_the_files_as_one_scan(maps_files, spectra):
    scan = open_scan(maps_files[1])
    assert (scan.format, scan.shape) == ("maps-v10", spectra.shape)
    whole = slice(0, SHAPE[0])
    np.testing.assert_array_equal(scan.read_counts(whole), spectra.read_rows([0, 1], whole))
    scalars = scan.read_scalars()
    np.testing.assert_allclose(scalars.live_time_s, spectra.times().live_time_s, rtol=1e-6)
    np.testing.assert_allclose(scalars.x_um, raster_um()[0], rtol=1e-6)
    np.testing.assert_allclose(scalars.y_um, raster_um()[1], rtol=1e-6)
    assert scalars.scaler_names == ("US_IC", "caf? current")
    assert scan.calibration[0].slope_kev == np.float32(PARAMETERS["energy_slope"][1])


def test_the_sum_has_the_summed_counts_and_the_mean_times(maps_files, amplitude, spectra):
    with h5py.File(maps_files[0]) as file:
        counts = spectra.read_rows([0, 1], slice(0, SHAPE[0])).sum(axis=0)
        np.testing.assert_array_equal(np.moveaxis(file["MAPS/Spectra/mca_arr"][()], 0, 2), counts)
        live_s = spectra.times().live_time_s.astype(float).mean(axis=0)
        expected = (amplitude[2, IRON].astype(float) / live_s).astype(np.float32)
        assert file["MAPS/XRF_fits"][MAPS_ORDER.index("Fe")].tobytes() == expected.tobytes()


def test_without_live_times_maps_stay_counts_and_say_so(tmp_path, amplitude):
    store = make_run(tmp_path, live_s=np.nan)
    source = read_source(store, spectra=True)
    files = export_source(source, "maps", tmp_path / "leaf")
    with h5py.File(files[1]) as file:
        assert set(texts(file["MAPS/XRF_Analyzed/Fitted/Channel_Units"])) == {"counts"}
        assert file["MAPS/XRF_fits"][MAPS_ORDER.index("Fe")].tobytes() == amplitude[0, IRON].tobytes()
    assert sum("no live times" in note for note in source.notes) == 3


def test_without_the_spectra_of_the_run_a_note_says_what_is_missing(tmp_path):
    store = make_run(tmp_path, spectra=False)
    for form in ("maps", "pyxrf"):
        source = read_source(store, spectra=True)
        [file, *_] = export_source(source, form, tmp_path / form)
        assert any("run directory" in note for note in source.notes)
        with h5py.File(file) as opened:
            assert "MAPS/Spectra/mca_arr" not in opened
            assert "xrfmap/detsum/counts" not in opened


def test_pyxrf_has_counts_maps_errors_scalers_and_positions(pyxrf_file, run, amplitude, spectra):
    sigma = open_results(run)["maps"]["sigma"].values
    with h5py.File(pyxrf_file) as file:
        root = file["xrfmap"]
        whole = slice(0, SHAPE[0])
        np.testing.assert_array_equal(root["det2/counts"], spectra.read_rows([1], whole)[0])
        np.testing.assert_array_equal(root["detsum/counts"], spectra.read_rows([0, 1], whole).sum(0))
        for place, name in enumerate(("det1", "det2", "detsum")):
            assert root[f"{name}/xrf_fit"][()].tobytes() == amplitude[place].tobytes()
            assert root[f"{name}/xrf_fit_error"][()].tobytes() == sigma[place].tobytes()
            names = texts(root[f"{name}/xrf_fit_name"])
            assert texts(root[f"{name}/xrf_fit_error_name"]) == names
            assert names[IRON] == "Fe_K"
            assert (names[4], names[8], names[-2:]) == ("Pt_L", "Au_M", ["elastic", "compton"])
        assert np.unravel_index(np.nanargmax(root["detsum/xrf_fit"][IRON]), SHAPE) == CORNER
        assert root["scalers/val"].shape == (*SHAPE, 2)
        assert texts(root["scalers/name"]) == ["US_IC", "café current"]
        assert texts(root["positions/name"]) == ["x_pos", "y_pos"]
        np.testing.assert_array_equal(root["positions/pos"], np.stack(raster_um()))
        assert root["scan_metadata"].attrs["instrument_mono_incident_energy"] == 10.0


def test_our_own_reader_opens_the_pyxrf_file(pyxrf_file, spectra):
    scan = open_scan(pyxrf_file)
    assert (scan.format, scan.shape, scan.incident_energy_kev) == ("pyxrf", spectra.shape, 10.0)
    np.testing.assert_array_equal(scan.read_scalars().x_um, raster_um()[0])


def test_the_only_detector_is_also_the_sum_of_pyxrf(tmp_path):
    store = make_run(tmp_path, detectors=("0",))
    [file] = export_source(read_source(store, spectra=True), "pyxrf", tmp_path / "one")
    with h5py.File(file) as opened:
        assert opened["xrfmap/detsum/xrf_fit"] == opened["xrfmap/det1/xrf_fit"]


def test_pyxrf_finds_the_groups_that_it_opens_without_looking(tmp_path):
    store = make_run(tmp_path, detectors=("1",), spectra=False)
    [file] = export_source(read_source(store, spectra=True), "pyxrf", tmp_path / "one")
    with h5py.File(file) as opened:
        assert {name for name in opened["xrfmap"] if "det" in name} == {"det1", "det2", "detsum"}
        assert opened["xrfmap/detsum/xrf_fit"] == opened["xrfmap/det2/xrf_fit"]


def test_an_override_file_of_each_detector_reads_back_bit_for_bit(run, tmp_path):
    [folder] = export_source(read_source(run), "override", tmp_path / "leaf")
    name = "maps_fit_parameters_override.txt"
    assert sorted(path.name for path in folder.iterdir()) == [name, f"{name}0", f"{name}1"]
    table = open_results(run)["parameters"].to_dataset()
    found = read_override(folder / f"{name}1")
    law, _ = width_law(found, "auto")
    theta = theta_values(found, law=law, target=3.58)
    expected = dict(zip(map(str, table["name"].values), table["value"].values[1].tolist(), strict=True))
    assert theta == {name: value for name, value in expected.items() if name in set(THETA.values())}
    assert len(theta) == len(PARAMETERS)
    assert found.elements == ("Zn", "Si", "S", "Ca", "Pt_L", "Ti", "Fe", "Ti/Cr", "Au_M")
    assert found.pileup == ("Si_Cl",)


def test_a_detector_without_a_solution_has_no_override_file(run, tmp_path):
    source = read_source(run)
    table = source.groups["parameters"].load()
    table["value"][1, 0] = np.nan
    [folder] = export_source(source, "override", tmp_path / "leaf")
    assert not (folder / "maps_fit_parameters_override.txt1").exists()
    assert any("detector 1 has no file" in note for note in source.notes)
    table["value"][:] = np.nan
    with pytest.raises(OutputError, match="no detector has a fitted theta"):
        export_source(source, "override", tmp_path / "again")
    assert not (tmp_path / "again").exists()
