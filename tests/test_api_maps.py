"""Maps in one call: of arrays, of scans, the same as a run's; regions, runs and their results, the accessor."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
from fit_samples import COMPONENTS, INCIDENT_KEV, drawn, expected_counts
from pixel_scans import run_stage

import hpcxrf
from hpcxrf.config.run import check_config, effective
from hpcxrf.errors import ConfigError, DatasetsFailedError, FitError, OutputError
from hpcxrf.fitting.result import FitStatus
from hpcxrf.pipeline.records import DatasetJob
from hpcxrf.simulate import demo_spec, simulate_scan, write_scan
from hpcxrf.store.rundir import create_or_resume

SHAPE = (2, 66, 8, 1536)
AXIS = {"energy_offset_kev": 0.0, "energy_slope_kev": 0.01}
MAPS = ("amplitude", "sigma", "detection_limit", "status", "deviance")


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A file of two detectors and two map blocks."""
    folder = tmp_path_factory.mktemp("scan")
    write_scan(simulate_scan(demo_spec(seed=3, shape=SHAPE, name="small")), folder)
    return hpcxrf.open_scan(folder / "small.h50")


@pytest.fixture(scope="module")
def elements():
    return demo_spec(seed=3).listed_elements


@pytest.fixture(scope="module")
def run_dir(scan, elements, tmp_path_factory):
    """The tasks of a run of that file, one after the other in this process."""
    config = check_config(
        {
            "input": {"files": [str(scan.files[0])]},
            "sample": {"elements": elements},
            "fit": {"suggest": False},
            "pixels": {"detectors": "both"},
            "regions": {"find": []},
            "execution": {"device": "cpu"},
        },
        "test",
    )
    run = create_or_resume(tmp_path_factory.mktemp("run") / "out", "input: {}\n", effective(config))
    job = DatasetJob(
        number=0,
        dataset_id="small",
        source=scan.files[0],
        run_dir=run.path,
        config=config,
        detectors=("sum", "0", "1"),
        shape=SHAPE,
    )
    for stage in ("ingest", "integrated", "pixels", "finalise"):
        run_stage(job, stage)
    return run.path


@pytest.fixture(scope="module")
def fits(scan, elements):
    """Fits of the summed spectra of both detectors, at the calibration of the file."""
    spectra = scan.read_counts(slice(0, SHAPE[1])).sum(axis=(1, 2), dtype=np.float64)
    return [
        hpcxrf.fit_spectrum(
            spectrum,
            elements,
            scan.incident_energy_kev,
            energy_offset_kev=axis.offset_kev,
            energy_slope_kev=axis.slope_kev,
        )
        for spectrum, axis in zip(spectra, scan.calibration, strict=True)
    ]


@pytest.fixture(scope="module")
def cube():
    """(y, x, channel): 48 pixels of the sample, some of them twice as bright."""
    peaks, continuum = expected_counts(2e4)
    share = torch.linspace(0.5, 1.5, 48, dtype=torch.float64)[:, None]
    return drawn(share * (peaks + continuum), seed=8).reshape(6, 8, -1).numpy().astype(np.uint16)


@pytest.fixture(scope="module")
def fit(cube):
    return hpcxrf.fit_spectrum(cube.sum((0, 1)), COMPONENTS, INCIDENT_KEV, **AXIS)


@pytest.fixture(scope="module")
def maps(cube, fit):
    return hpcxrf.fit_map(cube, fit)


def test_the_maps_of_a_scan_are_those_of_a_run_to_the_last_bit(scan, fits, run_dir):
    of_run = hpcxrf.open_results(run_dir).maps()
    here = hpcxrf.fit_map(scan, fits, device="cpu")
    assert list(of_run["detector"].values) == ["sum", "0", "1"]
    for name in MAPS:
        np.testing.assert_array_equal(here[name].values, of_run[name].sel(detector=["0", "1"]).values, strict=True)
    total = hpcxrf.fit_map(scan, fits, detector="sum", device="cpu")
    for name in MAPS:
        np.testing.assert_array_equal(total[name].values, of_run[name].sel(detector="sum").values, strict=True)
    assert here["amplitude"].attrs["units"] == of_run["amplitude"].attrs["units"] == "count"
    np.testing.assert_array_equal(here["x_um"].values, of_run["x_um"].values)


def test_the_same_counts_in_memory_give_the_maps_of_their_file(scan, fits):
    counts = scan.read_counts(slice(0, SHAPE[1]))
    of_file, here = hpcxrf.fit_map(scan, fits[1], detector=1), hpcxrf.fit_map(counts[1].astype(float), fits[1])
    assert here["amplitude"].dims == ("component", "y", "x")
    for name in MAPS:
        np.testing.assert_array_equal(here[name].values, of_file[name].values)


def test_the_maps_add_up_to_the_summed_spectrum(cube, fit, maps):
    for name in ("Ca", "Fe", "Zn"):
        value, sigma, _ = hpcxrf.amplitudes(fit)[name]
        assert float(maps.xrf.map(name).sum()) == pytest.approx(value, abs=0.2 * sigma)
    assert (maps["status"] == FitStatus.CONVERGED).all()
    assert maps["status"].attrs["flag_meanings"].split()[1] == "converged"


@pytest.mark.parametrize("method", ["nnls", "poisson", "nonlinear"])
def test_every_method_finds_the_same_iron(cube, fit, maps, method):
    found = hpcxrf.fit_map(cube, fit, method=method)
    apart = np.abs(found.xrf.map("Fe") - maps.xrf.map("Fe")) / maps.xrf.map("Fe", "sigma")
    assert float(apart.max()) < 1.0
    assert ("theta_shift" in found) is (method == "nonlinear")


def test_pixels_in_any_order_are_fitted_as_those_of_a_map(cube, fit, maps):
    order = np.random.default_rng(0).permutation(48)
    found = hpcxrf.fit_map(cube.reshape(48, -1)[order], fit)
    assert found["amplitude"].dims == ("component", "spectrum")
    expected = maps["amplitude"].values.reshape(-1, 48)[:, order]
    np.testing.assert_allclose(found["amplitude"].values, expected, rtol=1e-5, atol=1e-3)


def test_a_detector_without_counts_has_empty_maps_beside_the_others(cube, fit):
    dead = hpcxrf.fit_spectrum(np.zeros(cube.shape[-1]), COMPONENTS, INCIDENT_KEV, **AXIS)
    both = hpcxrf.fit_map(np.stack([cube, np.zeros_like(cube)]), [fit, dead])
    assert (both["status"].sel(detector="0") == FitStatus.CONVERGED).all()
    assert (both["status"].sel(detector="1") == FitStatus.EMPTY).all()
    assert both["amplitude"].sel(detector="1").isnull().all()
    with pytest.raises(FitError, match="fit_map: fit: the fit ended as EMPTY"):
        hpcxrf.fit_map(cube, dead)


def test_a_saturated_pixel_has_no_amplitudes(cube, fit):
    full = cube.copy()
    full[2, 3, 500] = 65535
    found = hpcxrf.fit_map(full, fit)
    assert found["status"].values[2, 3] == FitStatus.SATURATED
    assert found["amplitude"].isnull().all(dim="component").values.nonzero() == ([2], [3])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"counts": np.ones(1500)}, r"fit_map: counts has shape \(1500,\).*fit_spectrum"),
        ({"counts": np.ones((2, 2, 300))}, "fit_map: counts has 300 channels, the fit range ends at channel 1"),
        ({"counts": -np.ones((2, 2, 1500))}, "fit_map: counts: 6000 of the scan's 6000 counts are negative"),
        ({"counts": np.ones((3, 2, 2, 1500))}, "fit: 1 for counts of 3 detectors"),
        ({"detector": 4}, "detector is 4, must lie between 0 and 0"),
        ({"method": "newton", "background_columns": 20}, "method is 'newton', must be 'linear'.*background_columns"),
        ({"method": "poisson", "background": "snip"}, "'snip' is not available with method 'poisson'; use linear"),
        ({"device": "tpu"}, "device is 'tpu', must be"),
    ],
)
def test_what_is_not_valid_is_refused_with_its_name_and_value(cube, fit, change, said):
    with pytest.raises(ConfigError, match=said):
        hpcxrf.fit_map(**({"counts": cube, "fit": fit} | change))


def test_a_region_is_refined_from_the_theta_of_the_scan(cube, fit):
    mask = np.zeros((6, 8), dtype=bool)
    mask[:3] = True
    region = hpcxrf.refine(cube, fit, mask)
    summed = hpcxrf.refine(cube[mask].sum(axis=0), fit)
    assert torch.equal(region.theta, summed.theta)
    assert torch.equal(region.theta_initial, fit.theta)
    assert region.status is FitStatus.CONVERGED
    assert float(region.counts.sum()) == cube[mask].sum(axis=0)[region.first_channel :][: len(region.counts)].sum()
    with pytest.raises(ConfigError, match=r"refine: mask has shape \(2, 2\) and 0 pixels"):
        hpcxrf.refine(cube, fit, np.zeros((2, 2), dtype=bool))


def test_results_are_a_mapping_by_dataset_which_is_opened_when_asked_for(run_dir):
    results = hpcxrf.open_results(run_dir)
    (name,) = results
    assert name == "small"
    assert f"<Results of 1 datasets: {name}>" == repr(results)
    assert {"maps", "spectrum", "parameters"} <= set(results[name].children)
    xr.testing.assert_identical(results.maps(), hpcxrf.open_results(run_dir / "results" / f"{name}.zarr").maps(name))
    assert results.spectrum()["counts"].dims == ("detector", "channel")
    with pytest.raises(KeyError, match="nothing: not a finished dataset of this run; there are small"):
        results["nothing"]


def test_a_dataset_that_is_not_finished_is_named_and_not_given(run_dir, tmp_path):
    (name,) = hpcxrf.open_results(run_dir)
    half = tmp_path / "results" / "half.zarr"
    half.mkdir(parents=True)
    root = json.loads((run_dir / "results" / f"{name}.zarr" / "zarr.json").read_text())
    root["attributes"]["complete"] = False
    (half / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(OutputError, match="no dataset is finished"):
        hpcxrf.open_results(tmp_path)
    (tmp_path / "results" / f"{name}.zarr").symlink_to(run_dir / "results" / f"{name}.zarr")
    results = hpcxrf.open_results(tmp_path)
    assert (list(results), results.unfinished) == ([name], ("half",))
    with pytest.raises(KeyError, match="half: not a finished dataset of this run; its results are not complete"):
        results["half"]
    with pytest.raises(OutputError, match="no results here"):
        hpcxrf.open_results(tmp_path / "nowhere")


def test_a_run_gives_its_results_and_names_what_failed_when_the_others_are_done(cube, fit, tmp_path):
    np.savez(tmp_path / "leaf.npz", counts=cube)
    (tmp_path / "broken.npz").write_bytes(b"no scan at all")
    wanted = {
        "elements": COMPONENTS,
        "incident_energy_kev": INCIDENT_KEV,
        "input": {"energy_offset_kev": 0.0, "energy_slope_kev": 0.01},
        "fit": {"suggest": False},
        "regions": {"find": []},
        "execution": {"workers": 1, "device": "cpu"},
    }
    with pytest.raises(DatasetsFailedError, match=r"(?s)1 of the datasets failed.*broken"):
        hpcxrf.run([tmp_path / "leaf.npz", tmp_path / "broken.npz"], tmp_path / "out", **wanted)
    maps = hpcxrf.open_results(tmp_path / "out").maps()
    # A run file states its calibration; that of the call is trusted less.
    here = hpcxrf.fit_map(cube, fit)
    np.testing.assert_allclose(
        maps["amplitude"].values[0], here["amplitude"].values, atol=0.1 * here["sigma"].values.max()
    )


def test_a_run_file_is_read_with_values_over_its_own(tmp_path):
    from hpcxrf.pipeline.map_arguments import read_run_config

    file = tmp_path / "run.yaml"
    file.write_text("input: {files: [scan.h5]}\nfit: {kbeta_sd: 0.1, suggest: false}\n")
    config, _ = read_run_config(file, {"fit": {"kbeta_sd": 0.2}, "sample": {"elements": ["Fe"]}})
    assert config.input.files == (str(tmp_path / "scan.h5"),)
    assert (config.fit.kbeta_sd, config.fit.suggest, config.sample.elements) == (0.2, False, ("Fe",))
    with pytest.raises(ConfigError, match=r"(?s)fit\.kbeta_sd.*pixels\.methd"):
        hpcxrf.run(file, tmp_path / "out", fit={"kbeta_sd": -1.0}, pixels={"methd": "nnls"})


def test_the_accessor_gives_a_map_by_name_and_colours_from_0_to_1(maps):
    np.testing.assert_array_equal(maps.xrf.map("Fe"), maps["amplitude"].sel(component="Fe"))
    np.testing.assert_array_equal(maps.xrf.map("Fe", "sigma"), maps["sigma"].sel(component="Fe"))
    picture = maps.xrf.rgb("Fe", "Ca", "Zn")
    assert picture.dims == ("y", "x", "colour")
    assert (float(picture.min()), float(picture.max())) == (0.0, 1.0) or float(picture.min()) > 0.0
    iron = maps.xrf.map("Fe").values
    np.testing.assert_allclose(picture.sel(colour="red"), (iron / np.percentile(iron, 99.0)).clip(0.0, 1.0))
    with pytest.raises(ConfigError, match="map: 'Cu' is not a component; there are Si, Ca"):
        maps.xrf.map("Cu")
    with pytest.raises(ConfigError, match=r"map: .*'weight' is not a variable; there are amplitude"):
        maps.xrf.map("Fe", "weight")
    with pytest.raises(ConfigError, match="not a Dataset of maps"):
        _ = xr.Dataset({"a": 1}).xrf.components


def test_the_picture_has_a_panel_for_every_map_that_is_wanted(maps, run_dir, tmp_path):
    def titles(figure):
        return [axes.get_title() for axes in figure.axes if axes.get_title()]

    assert titles(hpcxrf.plot_maps(maps, ["Fe", "Ca"])) == ["Fe", "Ca"]
    assert titles(maps.xrf.plot(["Zn"])) == ["Zn"]
    assert len(titles(hpcxrf.plot_maps(maps))) == len(COMPONENTS) + 2
    figure = hpcxrf.plot_maps(hpcxrf.open_results(run_dir), ["Fe"], detector="sum")
    figure.savefig(tmp_path / "maps.png")
    assert (tmp_path / "maps.png").stat().st_size > 1000
    with pytest.raises(ConfigError, match="plot_maps: 'Cu' is not a component"):
        hpcxrf.plot_maps(maps, ["Cu"])
    with pytest.raises(ConfigError, match="plot_maps: '7' is not a detector; there are sum, 0, 1"):
        hpcxrf.plot_maps(hpcxrf.open_results(run_dir), detector="7")
