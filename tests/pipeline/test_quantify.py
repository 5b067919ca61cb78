"""Areal densities of whole runs: a known sample comes out right, and what speaks against a standard is refused."""

import json
import warnings

import numpy as np
import pytest
import xarray as xr
from normalise_samples import FLUX, RATES, TABLE, run_timed, write_timed_scan
from pages import browse, parsed

import hpcxrf
from hpcxrf.cluster.login.densities import ask_for_densities
from hpcxrf.config.run import check_config, effective
from hpcxrf.config.settings import Setting
from hpcxrf.errors import ConfigError
from hpcxrf.pipeline.quantify.measure import FOLDER
from hpcxrf.pipeline.request import check_request, config_of_run, keep_configuration
from hpcxrf.quantify.calibration_json import calibration_from_json
from hpcxrf.results.store.opening import open_results
from hpcxrf.runner.verify import find_damage
from hpcxrf.store.rundir import RunDir

US_IC = {"i0": "us_ic", "reference": FLUX}
CERTIFIED = {"Ca": 2.0, "Fe": 0.5}
PARTS = {"Ca": 0.5, "Fe": 2.0, "Cu": 1.0}
"""Rates of the sample over those of the standard."""


def write_standard(folder, *, table=CERTIFIED, error=0.03, **scan):
    """A standard's scan with a table of its certificate."""
    path = write_timed_scan(folder / "standard", shape=(5, 7), seed=11, **scan)
    rows = "\n".join(f"      {element}: {density}" for element, density in table.items())
    (folder / "table.yaml").write_text(
        f"standards:\n  - name: film 7\n    source: made\n    unit: ug/cm2\n    file: scan.npz\n"
        f"    relative_error: {error}\n    elements:\n{rows}\n"
    )
    return {"standards": [str(path)], "table": str(folder / "table.yaml")}


@pytest.fixture(scope="module")
def standard(tmp_path_factory):
    return write_standard(tmp_path_factory.mktemp("standard"))


@pytest.fixture(scope="module")
def run(tmp_path_factory, standard):
    folder = tmp_path_factory.mktemp("quantify")
    rates = {name: part * RATES[name] for name, part in PARTS.items()}
    write_timed_scan(folder / "scan", rates={0: rates, 1: rates})
    sections = {"pixels": {"detectors": "both"}, "quantify": standard}
    store, records = run_timed(folder / "scan", folder / "run", US_IC, **sections)
    return folder / "run", store, records


def group(store):
    return open_results(store)["areal_density"].to_dataset().load()


def test_elements_of_the_standard_have_the_densities_of_the_sample(run):
    _, store, _ = run
    maps = group(store)
    assert maps.detector.values.tolist() == ["sum", "0", "1", "combined"]
    assert maps.component.values.tolist() == ["Ca", "Fe", "Cu"]
    for detector in maps.detector.values:
        for element, density in CERTIFIED.items():
            one = maps.sel(detector=detector, component=element)
            error = float(one.counting_sigma.mean()) / np.sqrt(one.areal_density.size)
            expected = PARTS[element] * density
            assert float(one.areal_density.mean()) == pytest.approx(expected, rel=0.02, abs=3 * error)
            assert str(one.origin.values) == "own point"


def test_an_element_without_a_standard_goes_by_the_curve_with_its_error(run):
    _, store, _ = run
    one = group(store).sel(detector="combined", component="Cu")
    terms = dict(zip(one.term.values.tolist(), one.relative_error.values.tolist(), strict=True))
    assert str(one.origin.values) == "curve"
    assert terms["curve"] > 0.05
    assert terms["standard"] == pytest.approx(0.03 / np.sqrt(2), rel=0.1)
    common = np.sqrt(sum(value**2 for value in terms.values()))
    expected = np.hypot(one.counting_sigma, common * one.areal_density)
    np.testing.assert_allclose(one.sigma, np.hypot(expected, float(one.theta_floor)), rtol=1e-5)


def test_own_points_have_the_error_of_their_certificate(run):
    _, store, _ = run
    one = group(store).sel(detector="0", component="Fe")
    terms = dict(zip(one.term.values.tolist(), one.relative_error.values.tolist(), strict=True))
    assert terms["standard"] == pytest.approx(0.03)
    assert (terms["curve"], terms["model"]) == (0.0, 0.0)
    assert terms["counting"] < 0.02


def test_the_group_opens_by_itself_with_the_maps_of_the_entry_that_stands_for_all(run):
    _, store, _ = run
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alone = xr.open_zarr(store, group="areal_density", chunks=None).load()
    assert alone.attrs["stored_detectors"] == [alone.attrs["primary"]] == ["combined"]
    xr.testing.assert_identical(alone.sel(detector="combined"), group(store).sel(detector="combined"))
    for name in ("areal_density", "sigma", "counting_sigma", "detection_limit"):
        known = np.isfinite(alone[name]).all(("component", "y", "x")).values.tolist()
        assert known == [False, False, False, True]


def test_the_group_says_what_it_is_and_its_calibration_can_be_used_elsewhere(run):
    path, store, records = run
    maps = group(store)
    for name in ("areal_density", "sigma", "counting_sigma", "detection_limit", "response", "relative_error"):
        assert maps[name].attrs["units"]
        assert maps[name].attrs["long_name"]
    about = maps.attrs
    assert about["standards"][0]["name"] == "film 7"
    assert about["standards"][0]["error_assumed"] == []
    calibration = calibration_from_json(about["calibration"]["sum"])
    assert {p.family for p in calibration.points} == {"Ca", "Fe"}
    results = hpcxrf.open_results(path)
    again = results.normalised().xrf.quantify(about["calibration"])
    np.testing.assert_allclose(again.areal_density, maps.areal_density, rtol=1e-5)
    np.testing.assert_allclose(again.detection_limit, maps.detection_limit, rtol=1e-5)
    assert results.areal_density().xrf.map("Fe").attrs["units"] == "ug cm-2"
    assert "Ca, Fe by their own points" in " ".join(note.text for note in records["quantify"].notes)
    assert list(find_damage(RunDir(path=path))) == []


def test_the_page_shows_the_curve_and_what_it_says_of_its_own_points(run):
    path, _, _ = run
    (file,) = (path / "pages").glob("*.html")
    page = parsed(file.read_text(encoding="utf-8"))
    assert len(page.attributes("polyline")) == 3
    assert len(page.attributes("circle")) == 2
    text = " ".join(page.texts)
    assert "film 7" in text
    assert "What the curve says of the standards' own elements" in text


@pytest.mark.browser
def test_the_browser_takes_the_page_without_a_complaint(run, chromium, tmp_path):
    path, _, _ = run
    (file,) = (path / "pages").glob("*.html")
    done = browse(chromium, tmp_path, "--dump-dom", file.as_uri())
    assert "CONSOLE" not in done.stderr


def test_what_was_measured_of_a_standard_is_kept_for_other_datasets(run):
    path, _, _ = run
    (kept,) = (path / FOLDER).glob("*.json")
    content = json.loads(kept.read_text())
    assert content["detectors"]["0"]["rates"]["Fe"]["rate_hz"] == pytest.approx(0.6 * RATES["Fe"], rel=0.02)
    assert not [one for one in (path / FOLDER).iterdir() if one.name != "0.json"]


@pytest.mark.more
@pytest.mark.parametrize(
    ("standard_scan", "table", "sections", "message"),
    [
        ({}, {"Zn": 1.0, "Pb": 0.5}, {}, r"Zn does not show in its scan"),
        ({"shares": (0.6,)}, CERTIFIED, {}, r"no fit of detector 1, which the sample has"),
        ({}, CERTIFIED, {"detector": {"air_path_mm": 30.0}}, None),
    ],
)
def test_what_speaks_against_a_standard_is_a_failure_with_a_remedy(tmp_path, standard_scan, table, sections, message):
    write_timed_scan(tmp_path / "scan")
    asked = {"quantify": write_standard(tmp_path, table=table, **standard_scan), **sections}
    if message is None:
        store, _ = run_timed(tmp_path / "scan", tmp_path / "run", US_IC, **asked)
        assert np.isfinite(group(store).areal_density).all()
        return
    with pytest.raises(ConfigError, match=message):
        run_timed(tmp_path / "scan", tmp_path / "run", US_IC, **asked)


@pytest.mark.more
def test_a_standard_at_another_energy_is_refused_unless_it_is_said(tmp_path):
    write_timed_scan(tmp_path / "scan")
    asked = write_standard(tmp_path)
    override = tmp_path / "standard" / "maps_fit_parameters_override.txt"
    override.write_text(override.read_text().replace("COHERENT_SCT_ENERGY: 10.0", "COHERENT_SCT_ENERGY: 10.3"))
    with pytest.raises(ConfigError, match=r"measured at 10.* keV, the sample at 10.* keV"):
        run_timed(tmp_path / "scan", tmp_path / "run", US_IC, quantify=asked)
    asked |= {"allow": ["energy"]}
    store, _ = run_timed(tmp_path / "scan", tmp_path / "run-2", US_IC, quantify=asked)
    assert np.isfinite(group(store).areal_density).all()


@pytest.mark.parametrize(
    ("normalise", "quantify", "message"),
    [
        ({}, {"standards": ["scan.npz"]}, "areal densities are made of normalised maps"),
        ({"live_time": "auto"}, {"standards": ["scan.npz"]}, r"quantify.allow: \[no_i0\]"),
        ({}, {"table": "t.yaml"}, "given without quantify.standards"),
        (US_IC, {"standards": ["scan.npz"], "layer": {}}, "formula and quantify.layer.areal_density_ug_cm2: needed"),
    ],
)
def test_contradictions_of_the_section_are_refused_before_anything_is_read(normalise, quantify, message):
    raw = {"input": {"files": ["scan.npz"]}, "normalise": normalise, "quantify": quantify}
    with pytest.raises(ConfigError, match=message):
        check_config(raw, "test")


def test_a_standard_without_a_scan_or_a_certificate_is_refused_before_the_run(tmp_path):
    write_timed_scan(tmp_path / "scan")

    def check(**quantify):
        raw = {"input": {"files": [str(tmp_path / "scan")]}, "normalise": US_IC, "quantify": quantify}
        check_request(check_config(raw, "test"))

    with pytest.raises(ConfigError, match=r"nothing.npz is not there"):
        check(standards=[str(tmp_path / "nothing.npz")])
    with pytest.raises(ConfigError, match=r"no standard has the file scan.npz; there are AXO 2-ID-E"):
        check(standards=[str(tmp_path / "scan" / "scan.npz")])
    (tmp_path / "maps_standardinfo.txt").write_text(
        "FILENAME: scan.npz\nELEMENTS_IN_STANDARD: Ca, Fe, Cu\nWEIGHT: 19.31, 5.04, 2.84\n"
    )
    with pytest.raises(ConfigError, match=r"in ng/mm2"):
        check(standards=[str(tmp_path / "scan" / "scan.npz")])
    check(standards=[str(tmp_path / "scan" / "scan.npz")], unit="ng/mm2")


@pytest.mark.more
def test_a_layer_divides_by_its_signal_and_is_stated(tmp_path, standard):
    write_timed_scan(tmp_path / "scan")
    layer = {"matrix": "given", "formula": "SiO2", "areal_density_ug_cm2": 5000.0}
    thin, _ = run_timed(tmp_path / "scan", tmp_path / "thin", US_IC, quantify=standard)
    thick, records = run_timed(tmp_path / "scan", tmp_path / "thick", US_IC, quantify=standard | {"layer": layer})
    factor = group(thick).layer_factor.sel(detector="0")
    assert (factor < 1.0).all()
    assert float(factor.sel(component="Ca")) < float(factor.sel(component="Cu"))
    ratio = group(thin).areal_density / group(thick).areal_density
    np.testing.assert_allclose(ratio.sel(detector="0").mean(("y", "x")), factor, rtol=1e-4)
    assert "SiO2" in " ".join(note.text for note in records["quantify"].notes)
    assert "SiO2" in group(thick).attrs["layer"]["description"]


@pytest.mark.more
def test_the_curve_of_xrf_maps_divides_every_element(tmp_path, standard):
    write_timed_scan(tmp_path / "scan")
    store, _ = run_timed(
        tmp_path / "scan", tmp_path / "run", US_IC, quantify=standard, fit={"suggest": False, "constants": "maps-3.58"}
    )
    maps = group(store)
    assert set(maps.origin.values.ravel().tolist()) == {"curve of XRF-Maps"}
    assert maps.attrs["curve_of"] == "XRF-Maps"
    # Its factor makes the mean of the standard's own densities about right, and each of them some per cent wrong.
    own = maps.areal_density.sel(detector="0").mean(("y", "x"))
    ratio = [float(own.sel(component=e)) / CERTIFIED[e] for e in CERTIFIED]
    assert 0.5 < min(ratio) < 1.0 < max(ratio) < 2.0


def test_a_run_is_asked_for_nothing_but_what_rests_on_its_maps(tmp_path, standard):
    write_timed_scan(tmp_path / "scan")
    run_timed(tmp_path / "scan", tmp_path / "run", {})
    path = RunDir(path=tmp_path / "run")
    path.run_file.write_text("")
    config = check_config({"input": {"files": [str(tmp_path / "scan" / "scan.npz")]}}, "test")
    keep_configuration(path, config)
    path.effective_file.write_text(json.dumps(effective(config)))
    other = Setting(place=("fit", "kbeta_sd"), value=0.2, origin="--set fit.kbeta_sd")
    with pytest.raises(ConfigError, match=r"--set fit.kbeta_sd: quantify sets values of .* only"):
        ask_for_densities(path.path, [other])
    i0 = Setting(place=("normalise", "i0"), value="us_ic", origin="--i0")
    table = Setting(place=("normalise", "scalers"), value=TABLE, origin="--set")
    with pytest.raises(ConfigError, match="no standard is named"):
        ask_for_densities(path.path, [Setting(place=("normalise", "live_time"), value="auto", origin="--set")])
    named = [Setting(place=("quantify", key), value=value, origin=f"--{key}") for key, value in standard.items()]
    assert ask_for_densities(path.path, [i0, table, *named]) == 1
    kept, _ = config_of_run(path)
    assert kept.normalise.reference == standard["standards"][0]
    assert path.effective()["quantify"]["standards"] == standard["standards"]
