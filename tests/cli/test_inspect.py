"""`hpcxrf inspect`: JSON for scripts, a table for people, and nothing loaded that is not needed."""

import h5py
import numpy as np
import pytest

from tests.samples.commands import APS, loaded_modules

FACTS = {
    f"{APS}/2xfm_0010.mda": ((4, 11, 11, 2000), [107119, 103092, 52321, 54638], 10.0),
    f"{APS}/2xfm_0011.mda": ((4, 11, 9, 2048), [100311, 96080, 48479, 50482], 10.0),
    "aps-2ide/flyXRF.h5/2xfm_0011_2xfm3__0.h5": ((4, 11, 9, 2048), [100311, 96080, 48479, 50482], 10.0),
    f"{APS}/axo_std.mda": ((4, 11, 11, 2000), [895788, 844397, 593359, 696070], 10.0),
    "pixl-laguna/laguna.h5": ((2, 25, 25, 4096), [60369725, 54923501], None),
}


@pytest.mark.parametrize("name", FACTS)
def test_inspect_gives_the_totals_of_the_readme_of_the_data(hpcxrf, shared_data, name):
    shape, totals, energy = FACTS[name]
    ran = hpcxrf("inspect", shared_data / name, "--json")
    assert ran.code == 0, ran.err
    facts = ran.json
    assert tuple(facts["shape"]) == shape
    assert facts["total_counts"] == totals
    assert facts["incident_energy_kev"] == energy
    assert isinstance(facts["format"], str)
    assert 0.005 < facts["energy_slope_kev"] < 0.03
    assert abs(facts["energy_offset_kev"]) < 0.1


def test_inspect_of_mca_text_gives_four_detectors_and_no_energy(hpcxrf, shared_data):
    facts = hpcxrf("inspect", shared_data / "larch-srm1832" / "srm1832.mca", "--json").json
    assert facts["shape"] == [4, 1, 1, 2048]
    assert all(4.48e6 < total < 7.5e6 for total in facts["total_counts"])
    assert facts["incident_energy_kev"] is None
    assert facts["calibration"][0]["slope_kev"] == facts["energy_slope_kev"]


def test_inspect_says_the_same_to_people_on_standard_output(hpcxrf, shared_data):
    ran = hpcxrf("inspect", shared_data / "pixl-laguna" / "laguna.h5")
    assert ran.code == 0
    assert ran.err == ""
    for fact in ("60,369,725", "54,923,501", "25 x 25", "4096 channels", "unknown", "tube"):
        assert fact in ran.out


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (("inspect",), {"torch", "dask", "distributed", "zarr", "xarray", "pandas", "matplotlib", "scipy"}),
        # numba, which the kernels of a fit are loaded by, looks at the version of scipy.
        (("fit", "--elements", "Fe"), {"dask", "distributed", "zarr", "xarray", "pandas", "matplotlib"}),
    ],
)
def test_a_command_on_one_file_loads_only_what_it_needs(shared_data, arguments, absent):
    loaded, done = loaded_modules(*arguments, str(shared_data / APS / "2xfm_0010.mda"), "--json")
    assert done.returncode == 0, done.stderr
    assert "numpy" in loaded
    assert not loaded & absent


def test_inspect_takes_what_an_array_file_does_not_say(hpcxrf, tmp_path):
    path = tmp_path / "cube.npy"
    np.save(path, np.arange(4 * 5 * 6, dtype=np.uint16).reshape(4, 5, 6))
    ran = hpcxrf("inspect", path, "--energy-axis", 0, "--energy-offset", "-0.02", "--energy-slope", 0.1, "--json")
    assert ran.json["shape"] == [1, 5, 6, 4]
    assert ran.json["total_counts"] == [119 * 120 / 2]
    assert ran.json["energy_offset_kev"] == -0.02
    assert ran.json["energy_slope_kev"] == 0.1


def test_inspect_lays_points_out_and_takes_several_arrays_as_detectors(hpcxrf, tmp_path):
    counts = np.random.default_rng(0).poisson(2.0, (2, 60, 512)).astype("u2")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for number, one in enumerate(counts):
            file[f"det{number}/counts"] = one
    arguments = ("inspect", tmp_path / "a.h5", "--dataset-path", "det*/counts", "--json")
    assert hpcxrf(*arguments).json["shape"] == [2, 60, 1, 512]
    facts = hpcxrf(*arguments, "--set", "input.map_shape=[6, 10]").json
    assert facts["shape"] == [2, 6, 10, 512]
    assert facts["total_counts"] == counts.sum(axis=(1, 2)).tolist()
    listed = ("--set", "input.dataset_path=[det1/counts, det0/counts]")
    assert hpcxrf("inspect", tmp_path / "a.h5", *listed, "--json").json["total_counts"] == facts["total_counts"][::-1]


@pytest.mark.parametrize(
    ("setting", "fault"),
    [
        ("sample.elements=[Fe]", "`hpcxrf inspect` uses the sections input only"),
        ("input.map_shape=[0, 10]", "input.map_shape"),
        ("input.positions=[x]", "input.positions"),
    ],
)
def test_settings_that_inspect_cannot_use_are_refused(hpcxrf, tmp_path, setting, fault):
    np.save(tmp_path / "a.npy", np.ones((60, 512), "u2"))
    ran = hpcxrf("inspect", tmp_path / "a.npy", "--set", setting)
    assert ran.code == 2
    assert fault in ran.err
