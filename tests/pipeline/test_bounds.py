"""Bounds between the run file and the solver: of override files, of a site's table, and the built-in ones."""

import dataclasses

import pytest

from hpcxrf.errors import ConfigError
from hpcxrf.pipeline.prepare.checks import refuse_start
from tests.samples.prepare_samples import DEFAULTS, config_of, override_of, rows_of


def test_bounds_of_an_override_file_hold_within_what_a_detector_can_be(tmp_path):
    text = (
        "CAL_OFFSET: 0.0\nCAL_OFFSET_MIN: -0.9\nCAL_OFFSET_MAX: 0.9\n"
        "CAL_SLOPE: 0.0095\nCAL_SLOPE_MIN: 0.008\nCAL_SLOPE_MAX: 0.015\n"
        "CAL_QUAD_MIN: -1e-4\nCAL_QUAD_MAX: 1e-4\nCOMPTON_ANGLE_MIN: 70\n"
        "FWHM_OFFSET_MAX: 0.01\n"
    )
    rows, notes = rows_of(config_of(fit={"override": override_of(tmp_path, text)}))
    assert (rows["energy_slope"].lower, rows["energy_slope"].upper) == (0.008, 0.015)
    assert (rows["energy_offset"].lower, rows["energy_offset"].upper) == (-0.9, 0.9)
    assert (rows["compton_angle"].lower, rows["compton_angle"].upper) == (70.0, 170.0)
    for name in ("energy_quadratic", "fwhm_offset"):
        assert rows[name].lower == DEFAULTS[name].lower
        assert rows[name].upper == DEFAULTS[name].upper
    assert "bounds from o.txt: energy_offset -0.9 to 0.9, energy_slope 0.008 to 0.015" in notes
    assert "not used of o.txt: bounds of fwhm_offset" in notes


def test_one_bound_for_both_ends_holds_a_parameter(tmp_path):
    text = "CAL_OFFSET: 0\nCAL_SLOPE: 0.0095\nGAMMA_OFFSET_MIN: 2\nGAMMA_OFFSET_MAX: 2\n"
    rows, notes = rows_of(config_of(fit={"override": override_of(tmp_path, text)}))
    assert (rows["gamma_offset"].free, rows["gamma_offset"].value) == (False, 2.0)
    assert "fixed, as o.txt gives them one bound for both: gamma_offset" in notes


def test_bounds_of_the_axis_mean_nothing_where_it_is_to_be_found(tmp_path):
    text = "CAL_SLOPE_MIN: 0.008\nCAL_SLOPE_MAX: 0.015\nCOMPTON_ANGLE_MIN: 70\n"
    fit = {"override": override_of(tmp_path, text), "calibration": "none"}
    rows, _ = rows_of(config_of(fit=fit))
    assert rows["energy_slope"].lower == DEFAULTS["energy_slope"].lower
    assert rows["compton_angle"].lower == 70.0


def test_a_start_outside_of_its_bounds_widens_them_and_is_said(tmp_path):
    text = "CAL_OFFSET: 0\nCAL_SLOPE: 0.0075\nCAL_SLOPE_MIN: 0.008\nMAX_ENERGY_TO_FIT: 11\nMIN_ENERGY_TO_FIT: 1\n"
    rows, notes = rows_of(config_of(fit={"override": override_of(tmp_path, text)}))
    assert rows["energy_slope"].value == 0.0075
    assert rows["energy_slope"].lower < 0.0075
    assert "bounds widened to hold the start of energy_slope" in notes


@pytest.mark.parametrize(("sd", "reach"), [(None, 0.45), (0.3, 0.45), (1.0, 1.5), (0.02, 0.03)])
def test_the_incident_energy_may_end_one_and_a_half_deviations_away(sd, reach):
    fit = {} if sd is None else {"incident_energy_sd_kev": sd}
    row = rows_of(config_of(fit=fit))[0]["coherent_sct_energy"]
    assert (row.lower, row.upper) == pytest.approx((10.0 - reach, 10.0 + reach))
    assert row.prior_sd == (0.3 if sd is None else sd)
    assert row.value == 10.0


def test_bounds_of_the_incident_energy_hold_for_the_energy_of_the_file_alone(tmp_path):
    text = "COHERENT_SCT_ENERGY: 10\nCOHERENT_SCT_ENERGY_MIN: 9.7\nCOHERENT_SCT_ENERGY_MAX: 10.6\n"
    override = override_of(tmp_path, text)

    def reach(energy_kev, **fit):
        sample = {"elements": ["Ca"], "incident_energy_kev": energy_kev}
        config = config_of(sample=sample, fit={"override": override, **fit})
        row = rows_of(config)[0]["coherent_sct_energy"]
        return row.lower, row.upper

    assert reach(None) == (9.7, 10.6)
    assert reach(12.0) == pytest.approx((11.55, 12.45))
    assert reach(None, incident_energy_sd_kev=1.0) == pytest.approx((8.5, 11.5))


def test_the_table_of_a_site_goes_over_file_and_built_in(tmp_path):
    text = "CAL_OFFSET: 0\nCAL_SLOPE: 0.0095\nCAL_SLOPE_MIN: 0.008\nCAL_SLOPE_MAX: 0.015\n"
    site = {
        "energy_slope": {"lower": 0.009},
        "energy_offset": {"lower": -1.0, "upper": 1.0, "prior_sd": 0.2, "scale": 0.02},
        "coherent_sct_energy": {"prior_sd": 0.05},
    }
    fit = {"override": override_of(tmp_path, text), "parameters": site}
    rows, notes = rows_of(config_of(fit=fit))
    assert (rows["energy_slope"].lower, rows["energy_slope"].upper) == (0.009, 0.015)
    offset = rows["energy_offset"]
    assert (offset.lower, offset.upper, offset.prior_sd, offset.scale) == (-1.0, 1.0, 0.2, 0.02)
    energy = rows["coherent_sct_energy"]
    assert (energy.lower, energy.prior_sd) == (pytest.approx(9.55), 0.05)
    assert "from fit.parameters: coherent_sct_energy, energy_offset, energy_slope" in notes


def test_all_that_is_wrong_with_a_sites_table_is_said_at_once():
    site = {
        "enery_offset": {"lower": -1.0},
        "gamma_offset": {"lower": 7.0},
        "fwhm_offset": {"lower": -0.1},
        "compton_gamma": {"lower": 0.0},
        "energy_slope": {"upper": 5.0},
        "compton_angle": {"lower": 80.0, "upper": 100.0},
    }
    fit = {"parameters": site, "start": {"compton_angle": 120.0}}
    with pytest.raises(ConfigError) as error:
        refuse_start(config_of(fit=fit).fit)
    for said in (
        "no parameter is called enery_offset",
        "gamma_offset: lower 7 must be below upper 6",
        "fwhm_offset: lower -0.1 must lie between 0 and inf",
        "compton_gamma: lower 0 must be above 0",
        "energy_slope: upper 5 must lie between 0.0001 and 0.2",
        "compton_angle is 120, must lie between 80 and 100",
    ):
        assert said in str(error.value)


def test_the_setup_of_a_plain_request_has_the_built_in_table():
    rows, _ = rows_of(config_of(fit={"override": "none"}))
    for name, p in DEFAULTS.items():
        if name not in {"energy_offset", "energy_slope", "coherent_sct_energy"}:
            assert dataclasses.replace(rows[name], value=p.value) == p
