"""NeXus and PyMca files read back by silx, nexusformat and PyMca: bit for bit, with units, axes and orientation."""

import json

import h5py
import numpy as np
import pytest
from export_sample import COMPONENTS, CORNER, SHAPE, made_maps, make_run, points_um, raster_um
from results_sample import PARAMETERS, make_store

import hpcxrf
from hpcxrf.results.export.source import read_source
from hpcxrf.results.export.write import export_source
from hpcxrf.results.store.maps import open_results

NAMES = [name.replace("/", "_") for name in COMPONENTS]
IRON = COMPONENTS.index("Fe")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, make_run(folder)


@pytest.fixture(scope="module")
def nexus(run, tmp_path_factory):
    source = read_source(run[1])
    [path] = export_source(source, "nexus", tmp_path_factory.mktemp("nexus") / "scan.nxs")
    return path


@pytest.fixture(scope="module")
def maps(run):
    return open_results(run[1])["maps"].to_dataset().load()


def same(stored, expected):
    """Bit for bit, also where there is no number."""
    assert stored.dtype == expected.dtype
    assert np.asarray(stored[()]).tobytes() == np.ascontiguousarray(expected).tobytes()


def test_every_map_is_there_bit_for_bit_with_unit_and_meaning(nexus, maps):
    with h5py.File(nexus) as file:
        for place, detector in enumerate(("0", "1", "sum")):
            for quantity in ("amplitude", "sigma", "detection_limit"):
                group = file[f"entry/detector_{detector}/{quantity}"]
                assert [group.attrs["signal"], *group.attrs["auxiliary_signals"]] == NAMES
                for number, name in enumerate(NAMES):
                    same(group[name], maps[quantity].values[place, number])
                    assert group[name].attrs["units"] == "count"
            same(file[f"entry/detector_{detector}/status/status"], maps["status"].values[place])


def test_derived_layers_are_there_with_their_own_units_and_constants(nexus, run):
    tree = open_results(run[1])
    with h5py.File(nexus) as file:
        for group, keys in {
            "normalised": ("normalised_rate", "normalised_sigma", "normalised_detection_limit"),
            "areal_density": ("areal_density", "areal_density_sigma", "areal_density_detection_limit"),
        }.items():
            layer = tree[group].to_dataset()
            for key in keys:
                name = key if key == group else key.removeprefix(f"{group}_")
                data = file[f"entry/detector_1/{key}"]
                same(data["Fe"], layer[name].values[1, IRON])
                assert data["Fe"].attrs["units"] == ("s-1" if group == "normalised" else "ug/cm2")
            constants = json.loads(file[f"entry/process/{group}/data"][()])
            assert constants["reference"] == {"value": 2.5e4, "unit": "cts/s"}


def test_provenance_is_json_and_the_run_file_is_as_it_was_given(nexus, run):
    with h5py.File(nexus) as file:
        process = file["entry/process"]
        assert process["program"][()] == b"hpcxrf"
        assert process["configuration/type"][()] == b"application/json"
        configuration = json.loads(process["configuration/data"][()])
        assert configuration["configuration"] == {"sample": {"elements": ["Fe"]}, "notes": [None, True]}
        assert configuration["title"] == "leaf µ"
        assert process["run_file/data"][()] == b"sample:\n  elements: [Fe]\n"


def test_spectrum_fit_parameters_and_regions_are_there(nexus, run):
    tree = open_results(run[1])
    with h5py.File(nexus) as file:
        spectrum = tree["spectrum"].to_dataset().isel(detector=1)
        data = file["entry/detector_1/spectrum"]
        assert data.attrs["signal"] == "counts"
        assert list(data.attrs["axes"]) == ["energy_kev"]
        for name in ("counts", "model", "background", "energy_kev"):
            same(data[name], spectrum[name].values)
        same(data["component_Fe"], spectrum["component_counts"].values[IRON])
        fit = file["entry/detector_1/fit"]
        same(fit["amplitude"], spectrum["amplitude"].values)
        assert [name.decode() for name in fit["component"][()]] == list(COMPONENTS)
        parameters = file["entry/detector_1/parameters"]
        assert [name.decode() for name in parameters["name"][()]] == list(PARAMETERS)
        same(parameters["value"], tree["parameters"]["value"].values[1])
        regions = file["entry/regions"]
        same(regions["label"], tree["regions"]["label"].values)
        same(regions["amplitude"], tree["regions"]["amplitude"].values)
        assert regions["region"][0] == b"=grain"


def test_silx_draws_the_image_by_default_with_errors_and_axes(nexus, maps):
    nxdata = pytest.importorskip("silx.io.nxdata", reason="silx is missing: pip install 'hpcxrf[test]'")
    with h5py.File(nexus) as file:
        default = nxdata.get_default(file)
        assert default.is_valid, default.issues
        assert default.signal.ndim == 2
        assert default.signal_name == "Zn (count)"
        assert default.axes_names == ["stage y (um)", "stage x (um)"]
        assert default.errors is not None
        assert default.auxiliary_signals_names is not None
        x_um, y_um = raster_um()
        np.testing.assert_array_equal(default.axes[0][()], y_um.mean(axis=1))
        np.testing.assert_array_equal(default.axes[1][()], x_um.mean(axis=0))
        images = [default.signal, *default.auxiliary_signals]
        same(images[IRON], maps["amplitude"].values[0, IRON])
        assert np.unravel_index(np.nanargmax(images[IRON][()]), SHAPE) == CORNER
        spectrum = nxdata.NXdata(file["entry/detector_0/spectrum"])
        assert spectrum.is_valid, spectrum.issues
        assert [axis.name.rpartition("/")[2] for axis in spectrum.axes] == ["energy_kev"]
        invalid = []

        def check(name, node):
            if isinstance(node, h5py.Group) and node.attrs.get("NX_class") == "NXdata":
                data = nxdata.NXdata(node)
                if not data.is_valid:
                    invalid.append((name, data.issues))

        file.visititems(check)
        assert invalid == []


def test_points_that_are_no_raster_have_x_and_y_each(tmp_path, maps):
    nxdata = pytest.importorskip("silx.io.nxdata", reason="silx is missing: pip install 'hpcxrf[test]'")
    store = make_run(tmp_path, positions_um=points_um(), spectra=False)
    [path] = export_source(read_source(store), "nexus", tmp_path / "spiral.nxs")
    x_um, y_um = points_um()
    with h5py.File(path) as file:
        default = nxdata.get_default(file)
        assert default.is_valid, default.issues
        assert default.is_x_y_value_scatter
        np.testing.assert_array_equal(default.axes[0][()], x_um.ravel())
        np.testing.assert_array_equal(default.axes[1][()], y_um.ravel())
        same(file["entry/detector_0/amplitude/Fe"], maps["amplitude"].values[0, IRON].ravel())
        same(file["entry/detector_0/status/status"], maps["status"].values[0].ravel())
        same(file["entry/positions/x_um"], x_um)


def test_unknown_positions_leave_the_axes_to_the_viewer(tmp_path):
    make_store(tmp_path / "s.zarr", shape_yx=(5, 4), step_um=None, detectors=("sum",))
    [path] = export_source(read_source(tmp_path / "s.zarr"), "nexus", tmp_path / "m.nxs")
    with h5py.File(path) as file:
        assert list(file["entry/detector_sum/sigma"].attrs["axes"]) == [".", "."]


def test_a_single_component_and_a_detector_without_a_fit_are_drawn_as_well(run, tmp_path, maps):
    nxdata = pytest.importorskip("silx.io.nxdata", reason="silx is missing: pip install 'hpcxrf[test]'")
    hpcxrf.register_accessor()
    [path] = maps.isel(component=[IRON]).xrf.to("nexus", tmp_path / "iron.nxs")
    with h5py.File(path) as file:
        default = nxdata.get_default(file)
        assert default.is_valid, default.issues
        same(default.signal, maps["amplitude"].values[0, IRON])
    source = read_source(run[1])
    source.groups["spectrum"].load()["energy_kev"][0] = np.nan
    [path] = export_source(source, "nexus", tmp_path / "unfitted.nxs")
    with h5py.File(path) as file:
        spectrum = nxdata.NXdata(file["entry/detector_0/spectrum"])
        assert spectrum.is_valid, spectrum.issues
        assert list(file["entry/detector_0/spectrum"].attrs["axes"]) == ["."]
        assert list(file["entry/detector_1/spectrum"].attrs["axes"]) == ["energy_kev"]


def test_bands_of_a_large_map_are_put_together(tmp_path):
    make_store(tmp_path / "s.zarr", shape_yx=(150, 20))
    amplitude = open_results(tmp_path / "s.zarr")["maps"]["amplitude"].values
    [path] = export_source(read_source(tmp_path / "s.zarr"), "nexus", tmp_path / "m.nxs")
    with h5py.File(path) as file:
        same(file["entry/detector_1/amplitude/Fe"], amplitude[1, 6])


def test_nexusformat_reads_the_tree(nexus, maps):
    nx = pytest.importorskip("nexusformat.nexus", reason="nexusformat is missing: pip install 'hpcxrf[test]'")
    root = nx.nxload(nexus)
    data = root["entry/detector_0/amplitude"]
    assert data.nxsignal.nxname == "Zn"
    assert [axis.nxname for axis in data.nxaxes] == ["y_um", "x_um"]
    assert data["Fe"].attrs["units"] == "count"
    assert np.asarray(data["Fe"].nxvalue).tobytes() == maps["amplitude"].values[0, IRON].tobytes()
    assert root["entry/process"].nxclass == "NXprocess"


def test_the_reader_of_hyperspy_has_every_map_as_a_signal(nexus, maps):
    rsciio = pytest.importorskip("rsciio.nexus", reason="rosettasciio is missing: pip install 'hpcxrf[test]'")
    signals = rsciio.file_reader(str(nexus))
    images = [one["data"] for one in signals if one["data"].shape == maps["amplitude"].shape[2:]]
    for wanted in maps["amplitude"].values.reshape(-1, *maps["amplitude"].shape[2:]):
        assert any(np.array_equal(image, wanted, equal_nan=True) for image in images)


def test_the_rgb_correlator_of_pymca_finds_its_images(run, maps, tmp_path):
    utils = pytest.importorskip("PyMca5.PyMcaIO.NexusUtils", reason="PyMca5 is missing: pip install 'hpcxrf[bench]'")
    [path] = export_source(read_source(run[1]), "pymca", tmp_path / "scan.h5")
    with h5py.File(path) as file:
        # As RGBCorrelatorWidget loads what the user selects: every signal with one or two axes.
        found = utils.selectDatasets(file["det1/xrf_fit/results/parameters"], match=lambda one: one.ndim in {1, 2})
        labels = ["/".join(one.name.split("/")[-2:]) for one in found]
        assert labels[:5] == [
            "parameters/Zn_K",
            "parameters/Si_K",
            "parameters/S_K",
            "parameters/Ca_K",
            "parameters/Pt_L",
        ]
        assert labels[7:9] == ["parameters/Ti_Cr", "parameters/Au_M"]
        for number, one in enumerate(found):
            same(one, maps["amplitude"].values[1, number])
        sigma = utils.selectDatasets(file["det1/xrf_fit/results/uncertainties"])
        same(sigma[IRON], maps["sigma"].values[1, IRON])
        assert sigma[IRON].attrs["units"] == "count"
        assert "areal_density" in file["sum/xrf_fit/results"]


def test_pymca_finds_the_title_and_all_nxdata(run, tmp_path):
    tools = pytest.importorskip("PyMca5.PyMcaCore.NexusTools", reason="PyMca5 is missing: pip install 'hpcxrf[bench]'")
    [path] = export_source(read_source(run[1]), "pymca", tmp_path / "scan.h5")
    with h5py.File(path) as file:
        assert tools.getTitle(file, "/det0") == "leaf µ, detector 0"
        assert "/det0/xrf_fit/results/parameters" in [
            "/" + one.strip("/") for one in tools.getNXdataList(file, "/det0")
        ]


def test_maps_in_memory_are_exported_by_their_accessor(run, tmp_path, maps):
    hpcxrf.register_accessor()
    one = maps.isel(detector=1)
    [path] = one.xrf.to("nexus", tmp_path / "one.nxs")
    with h5py.File(path) as file:
        assert file["entry/title"][()].decode() == "leaf µ"
        same(file["entry/detector_0/amplitude/Fe"], maps["amplitude"].values[1, IRON])
    assert made_maps()[IRON][CORNER] == pytest.approx(1e6 / 3)
