"""An earlier fit gives the starting values."""

import json

import pytest

from hpcxrf.errors import ConfigError
from hpcxrf.physics.constants import PHYSICS
from hpcxrf.physics.parameters import PARAMETERS
from hpcxrf.pipeline.prepare.from_config import prepare
from hpcxrf.pipeline.request import check_request
from hpcxrf.results.store.maps import create_results, finalise
from tests.samples.prepare_samples import config_of, facts_of, override_of, rows_of

THETA = {p.name: p.value for p in PARAMETERS} | {
    "energy_offset": -0.02,
    "energy_slope": 0.0097,
    "coherent_sct_energy": 10.08,
    "fwhm_fanoprime": 1.5e-4,
    "compton_angle": 97.0,
}


def store_of(path, *, complete=True, constants="physics", theta=None):
    create_results(
        path,
        detectors=("sum",),
        components=("Fe",),
        shape_yx=(2, 2),
        n_channels=8,
        attributes={
            "constants": constants,
            "theta_by_detector": theta or {"0": THETA, "1": THETA | {"energy_slope": 0.0096}},
        },
    )
    if complete:
        finalise(path, {})
    return path


def previous(path, **more):
    return {"calibration": "previous", "previous": str(path), "override": "none", **more}


def test_an_earlier_fit_gives_each_detector_its_theta(tmp_path):
    store = store_of(tmp_path / "scan-1.zarr")
    config = config_of(fit=previous(store))
    check_request(config)
    rows, notes = rows_of(config)
    assert {n: p.value for n, p in rows.items()} == THETA
    assert rows_of(config, detector=1)[0]["energy_slope"].value == 0.0096
    assert "starting values from scan-1.zarr, detector 0" in notes


def test_an_earlier_fit_goes_over_the_override_file_and_below_the_users_word(tmp_path):
    store = store_of(tmp_path / "scan-1.zarr")
    text = "CAL_OFFSET: 0\nCAL_SLOPE: 0.0095\nCOMPTON_ANGLE: 80\n"
    fit = previous(store, override=override_of(tmp_path, text), start={"energy_offset": 0.05})
    rows, _ = rows_of(config_of(fit=fit))
    assert rows["energy_slope"].value == 0.0097
    assert rows["compton_angle"].value == 97.0
    assert rows["energy_offset"].value == 0.05


def test_the_width_of_other_constants_is_restated(tmp_path):
    store = store_of(tmp_path / "scan-1.zarr")
    fit = previous(store, constants="maps-3.58")
    fanoprime = rows_of(config_of(fit=fit))[0]["fwhm_fanoprime"].value
    own = rows_of(config_of(fit=previous(store)))[0]["fwhm_fanoprime"].value
    assert own == 1.5e-4
    # Width squared is factor x energy x fanoprime, and must stay.
    assert fanoprime * 3.58 == pytest.approx(own * PHYSICS.width_factor)


def test_another_incident_energy_starts_at_its_nominal_value(tmp_path):
    store = store_of(tmp_path / "scan-1.zarr")
    sample = {"elements": ["Fe"], "incident_energy_kev": 11.0}
    rows, notes = rows_of(config_of(sample=sample, fit=previous(store)))
    assert rows["coherent_sct_energy"].value == 11.0
    assert "it was 10.08 keV there" in notes


def test_what_is_no_finished_store_is_refused(tmp_path):
    unfinished = store_of(tmp_path / "unfinished.zarr", complete=False)
    bare = store_of(tmp_path / "bare.zarr", theta={"0": {"energy_slope": 0.01}})
    newer = store_of(tmp_path / "newer.zarr")
    file = newer / "zarr.json"
    text = json.loads(file.read_text())
    text["attributes"]["hpcxrf_schema_version"] = 999
    file.write_text(json.dumps(text))
    for path, said in (
        (tmp_path / "nowhere.zarr", "no results store"),
        (unfinished, "is not finished"),
        (bare, "no fitted theta"),
        (newer, "schema version 999"),
    ):
        with pytest.raises(ConfigError, match=said) as error:
            check_request(config_of(fit=previous(path)))
        assert str(path) in str(error.value)
        assert "fit.previous" in str(error.value)


def test_a_store_without_this_detector_is_refused(tmp_path):
    store = store_of(tmp_path / "scan-1.zarr", theta={"0": THETA})
    with pytest.raises(ConfigError, match="has no detector 1, it has 0"):
        prepare(config_of(fit=previous(store)), facts_of(), 1)


def test_a_detector_whose_fit_failed_starts_no_other(tmp_path):
    store = store_of(tmp_path / "scan-1.zarr", theta={"0": THETA, "1": None})
    config = config_of(fit=previous(store))
    check_request(config)
    assert rows_of(config)[0]["energy_slope"].value == THETA["energy_slope"]
    with pytest.raises(ConfigError, match=r"scan-1\.zarr the fit of detector 1 has no solution"):
        prepare(config, facts_of(), 1)
