"""The calibration: own points exact, the curve elsewhere, each error by hand, the real AXO left out in turn."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from scipy.stats import t as student

import hpcxrf
from hpcxrf.errors import ConfigError, FitError
from hpcxrf.physics.detector import Detector
from hpcxrf.quantify.calibration import calibrate, leave_one_out
from hpcxrf.quantify.calibration_json import calibration_from_json, calibration_to_json
from hpcxrf.quantify.curve import (
    GEOMETRY_SD,
    PRIOR_FREEDOM,
    PRIOR_SCATTER,
    RelativeErrors,
    StandardPoint,
    find_one_sigma_quantile,
)
from hpcxrf.quantify.sensitivity import MODEL_ERROR, compute_sensitivity

DETECTOR = Detector()
AXO = {"Ca": 1.931, "Fe": 0.504, "Cu": 0.284}


def point(family, *, off=0.0, density=1.0, standard="film", **errors):
    """A point that lies `off` in the logarithm above a curve of factor 1e9."""
    rate = 1e9 * compute_sensitivity(family, 12.0, DETECTOR) * density * math.exp(off)
    given = {"counting": 0.001, "certificate": 0.03} | errors
    return StandardPoint(standard=standard, family=family, areal_density_ug_cm2=density, rate_hz=rate, **given)


def calibration(*points):
    return calibrate(points, 12.0, DETECTOR)


def test_an_element_of_the_standard_is_exact():
    found = calibration(point("Ca", off=0.4, density=1.931), point("Fe", density=0.504))
    maps = found.convert("Ca", np.array([found.points[0].rate_hz, 0.0, np.nan]), np.array([1.0, 1.0, np.nan]))
    np.testing.assert_allclose(maps.areal_density_ug_cm2, [1.931, 0.0, np.nan], rtol=1e-14)
    assert maps.response.origin == "own point"
    assert maps.errors == RelativeErrors(counting=0.001, standard=0.03)


def test_another_element_is_on_the_curve():
    found = calibration(*(point(f, density=0.3) for f in ("Ca", "Fe", "Cu")))
    response = found.find_response("Mn")
    assert response.origin == "curve"
    assert response.rate_hz_per_ug_cm2 == pytest.approx(1e9 * compute_sensitivity("Mn", 12.0, DETECTOR), rel=1e-12)


def test_the_factor_is_the_mean_in_the_logarithm_and_its_errors_those_written():
    offs, n = (0.3, -0.1, -0.05), 3
    found = calibration(*(point(f, off=o) for f, o in zip(("Ca", "Fe", "Cu"), offs, strict=True)))
    factor = found.factors["K"]
    assert factor.factor == pytest.approx(1e9 * math.exp(np.mean(offs)), rel=1e-12)
    known = 0.001**2 + 0.03**2
    excess = np.var(offs) * n - (n - 1) * known
    tau = math.sqrt((PRIOR_FREEDOM * PRIOR_SCATTER**2 + excess) / (PRIOR_FREEDOM + n - 1))
    assert factor.scatter == pytest.approx(tau, rel=1e-9)
    quantile = student.ppf(norm.cdf(1.0), PRIOR_FREEDOM + n - 1)
    assert factor.errors.curve == pytest.approx(quantile * tau * math.sqrt(1 + 1 / n), rel=1e-5)
    assert factor.errors.standard == pytest.approx(0.03 / math.sqrt(n), rel=1e-9)
    assert factor.errors.counting == pytest.approx(0.001 / math.sqrt(n), rel=1e-9)
    assert factor.errors.model == 0.0


def test_the_geometry_counts_where_lines_lie_elsewhere():
    """By hand: what a thicker air path takes from silicon, less what the factor has taken up."""
    found = calibration(point("Ca"), point("Fe"), point("Cu"))
    parts = []
    for part, sd in GEOMETRY_SD.items():
        other = replace(DETECTOR, **{part: getattr(DETECTOR, part) + sd})
        lost = {
            f: math.log(compute_sensitivity(f, 12.0, other) / compute_sensitivity(f, 12.0, DETECTOR))
            for f in ("Si", "Ca", "Fe", "Cu")
        }
        parts.append(lost["Si"] - (lost["Ca"] + lost["Fe"] + lost["Cu"]) / 3)
    assert found.find_response("Si").errors.geometry == pytest.approx(math.hypot(*parts), rel=1e-6)
    assert found.find_response("Si").errors.geometry > 0.3
    assert found.find_response("Mn").errors.geometry < 0.05
    assert found.find_response("Fe").errors.geometry == 0.0


@pytest.mark.parametrize("freedom", [4, 8, 9, 20])
def test_the_quantile_is_that_of_student(freedom):
    assert find_one_sigma_quantile(freedom) == pytest.approx(student.ppf(norm.cdf(1.0), freedom), abs=5e-5)


def test_a_shell_without_a_standard_is_scaled_by_k_with_the_error_of_its_model():
    found = calibration(point("Fe"), point("Cu"))
    gold = found.find_response("Au_M")
    assert gold.origin == "curve of K"
    assert gold.rate_hz_per_ug_cm2 == pytest.approx(1e9 * compute_sensitivity("Au_M", 12.0, DETECTOR), rel=1e-9)
    assert gold.errors.model == MODEL_ERROR["M"]
    assert found.find_response("La_L").errors.model == MODEL_ERROR["L"]
    assert found.find_response("Nd_M").errors.model == 0.5


def test_a_shell_with_a_standard_has_a_factor_of_its_own():
    found = calibration(point("Fe"), point("Cu"), point("La_L", off=0.2))
    assert found.factors["L"].factor == pytest.approx(1e9 * math.exp(0.2), rel=1e-9)
    assert found.find_response("Ba_L").origin == "curve"
    assert found.find_response("Ba_L").errors.model == 0.0
    assert found.factors["K"].families == ("Fe", "Cu")


def test_without_a_k_line_the_others_are_scaled_by_l():
    found = calibration(point("La_L"))
    assert found.find_response("Fe").origin == "curve of L"
    assert found.find_response("Fe").errors.model == MODEL_ERROR["L"]
    assert found.find_response("Au_M").errors.model == pytest.approx(math.hypot(MODEL_ERROR["L"], MODEL_ERROR["M"]))


def test_a_repeated_element_is_the_weighted_mean():
    found = calibration(point("Fe", off=0.02, certificate=0.02), point("Fe", off=-0.04, certificate=0.04, standard="b"))
    variance = np.array([0.02**2, 0.04**2]) + 0.001**2
    mean = np.average([0.02, -0.04], weights=1 / variance)
    own = found.find_response("Fe")
    assert own.rate_hz_per_ug_cm2 == pytest.approx(1e9 * compute_sensitivity("Fe", 12.0, DETECTOR) * math.exp(mean))
    assert own.errors.combined == pytest.approx(
        math.sqrt(1 / (1 / variance).sum() * 0.06**2 / variance.sum()), rel=1e-3
    )


def test_a_certificate_is_not_better_for_being_measured_twice():
    once = calibration(point("Fe")).find_response("Fe")
    twice = calibration(point("Fe"), point("Fe")).find_response("Fe")
    assert twice.errors.standard == pytest.approx(once.errors.standard)
    assert twice.errors.counting == pytest.approx(once.errors.counting / math.sqrt(2))


def test_the_flux_is_common_to_all_points():
    found = calibration(*(point(f, i0=0.02) for f in ("Ca", "Fe", "Cu")))
    assert found.find_response("Mn").errors.i0 == pytest.approx(0.02)


def test_terms_of_the_sample_are_added_and_pixels_keep_their_own():
    found = calibration(point("Fe", theta=0.003, i0=0.01))
    rate, sigma, limit = np.full((2, 3), 50.0), np.full((2, 3), 5.0), np.full((2, 3), 12.0)
    maps = found.convert("Fe", rate, sigma, limit, theta=0.004, i0=0.02)
    assert (maps.errors.theta, maps.errors.i0) == (pytest.approx(0.005), pytest.approx(math.hypot(0.01, 0.02)))
    relative = math.hypot(0.1, 0.001, 0.005, 0.03, math.hypot(0.01, 0.02))
    np.testing.assert_allclose(maps.sigma_ug_cm2 / maps.areal_density_ug_cm2, relative, rtol=1e-12)
    np.testing.assert_allclose(maps.counting_sigma_ug_cm2 / maps.areal_density_ug_cm2, 0.1, rtol=1e-12)
    np.testing.assert_allclose(maps.detection_limit_ug_cm2, 12.0 / 50.0 * maps.areal_density_ug_cm2, rtol=1e-12)


@given(st.floats(0.01, 2.0))
def test_a_layer_divides_all_maps(factor):
    found = calibration(point("Fe"))
    thin = found.convert("Fe", np.ones(3), np.ones(3), np.ones(3))
    layer = found.convert("Fe", np.ones(3), np.ones(3), np.ones(3), layer_factor=factor)
    for name in ("areal_density_ug_cm2", "sigma_ug_cm2", "counting_sigma_ug_cm2", "detection_limit_ug_cm2"):
        np.testing.assert_allclose(getattr(layer, name) * factor, getattr(thin, name), rtol=1e-12)


def test_what_cannot_be_converted_says_so():
    found = calibration(point("Fe"))
    with pytest.raises(FitError, match="must be one shape"):
        found.convert("Fe", np.ones(3), np.ones(2))
    with pytest.raises(FitError, match="layer factor is 0"):
        found.convert("Fe", np.ones(3), np.ones(3), layer_factor=0.0)
    with pytest.raises(FitError, match=r"Pb_L: L edge 13\.04 keV is above the incident energy 12 keV; use Pb_M"):
        found.find_response("Pb_L")


def test_all_faults_of_the_points_come_at_once():
    bad = (replace(point("Fe"), areal_density_ug_cm2=0.0, counting=-1.0), replace(point("Cu"), family="Pb_L"))
    with pytest.raises(FitError, match=r"(?s)areal density is 0.*counting is -1.*film: Pb_L: L edge"):
        calibrate(bad, 12.0, DETECTOR)
    with pytest.raises(FitError, match="no family of a standard was measured; add"):
        calibrate((), 12.0, DETECTOR)


def test_the_result_says_what_is_assumed():
    found = calibration(point("Fe", certificate=0.1, is_error_assumed=True), point("La_L"))
    assert found.notes == (
        "film: no stated error of Fe; 10 % is assumed",
        "no standard has M lines: their responses are scaled by K lines",
    )
    assert calibration(point("Fe"), point("La_L"), point("Au_M")).notes == ()


def test_json_brings_the_calibration_back_to_the_last_bit():
    found = calibration(point("Ca", off=1 / 3), point("Fe", theta=0.1), point("La_L", is_error_assumed=True))
    text = json.dumps(calibration_to_json(found))
    assert calibration_from_json(json.loads(text)) == found
    whole = calibrate([replace(found.points[0], areal_density_ug_cm2=2)], 12, DETECTOR)
    assert calibration_from_json(json.loads(json.dumps(calibration_to_json(whole)))) == whole


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"version": 2}, "version 2"),
        ({"kind": "curve"}, "kind 'curve'"),
        ({"line_table": "xraylib 1"}, "calibrate again"),
        ({"points": []}, "no family"),
        ({"points": [{"family": "Fe"}]}, "missing"),
        ({"detector": {"material": "C"}}, "must be Si or Ge"),
        ({"incident_energy_kev": "much"}, "could not convert"),
    ],
)
def test_json_of_something_else_is_refused(changed, said):
    content = calibration_to_json(calibration(point("Fe"))) | changed
    with pytest.raises(ConfigError, match=said):
        calibration_from_json(content)


def test_leaving_out_uses_nothing_of_the_left_out_family():
    points = (point("Ca", off=0.3), point("Fe"), point("Fe", off=0.01, standard="b"), point("La_L"))
    rows = {row.family: row for row in leave_one_out(calibration(*points))}
    assert list(rows) == ["Ca", "Fe", "La_L"]
    assert rows["Ca"].predicted_ug_cm2 == pytest.approx(math.exp(0.3 - 0.005), rel=2e-3)
    assert rows["Ca"].deviation == pytest.approx(0.343, abs=0.003)
    assert rows["La_L"].origin == "curve of K"
    assert rows["Ca"].pull == pytest.approx((math.exp(0.295) - 1) / (rows["Ca"].sigma * math.exp(0.295)), rel=2e-3)
    assert leave_one_out(calibration(point("Fe"))) == ()


@pytest.fixture(scope="module")
def axo(shared_data):
    """Rates of the real standard, sum of four detectors: (rate, sigma) in counts/s by family."""
    scan = hpcxrf.open_scan(shared_data / "aps-2ide" / "mda" / "axo_std.mda")
    counts = np.asarray(scan.read_counts(slice(0, 11)), dtype=np.float64).sum(axis=(1, 2))
    live_s = scan.read_scalars().live_time_s.sum(axis=(1, 2))
    names = ["Si", "S", "Cl", "Ar", "K", "Ca", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "La_L", "Pd_L", "Mo_L", "Pb_M"]
    rates = dict.fromkeys(AXO, 0.0)
    variances = dict.fromkeys(AXO, 0.0)
    for detector in (2, 3):
        fit = hpcxrf.fit_spectrum(counts[detector], names, 10.0)
        for family in AXO:
            i = fit.component_names.index(family)
            rates[family] += float(fit.amplitude[i]) / live_s[detector]
            variances[family] += (float(fit.amplitude_sigma[i]) / live_s[detector]) ** 2
    return {family: (rates[family], math.sqrt(variances[family])) for family in AXO}


def test_the_real_standard_left_out_in_turn_is_covered_by_its_stated_errors(axo):
    """Certificates without stated errors, default geometry: deviations of 10 to 42 % within errors below 25 %."""
    points = [
        StandardPoint(
            standard="axo",
            family=family,
            areal_density_ug_cm2=density,
            rate_hz=axo[family][0],
            counting=axo[family][1] / axo[family][0],
            certificate=0.10,
            is_error_assumed=True,
        )
        for family, density in AXO.items()
    ]
    rows = {row.family: row for row in leave_one_out(calibrate(points, 10.0, DETECTOR))}
    assert {f: round(row.deviation, 2) for f, row in rows.items()} == {
        "Ca": pytest.approx(0.42, abs=0.05),
        "Fe": pytest.approx(-0.21, abs=0.03),
        "Cu": pytest.approx(-0.11, abs=0.03),
    }
    for row in rows.values():
        assert row.sigma <= 0.25
        assert abs(row.pull) <= 2.0
        assert abs(row.deviation) / row.sigma <= 2.0


@pytest.mark.parity
def test_the_curve_of_maps_leaves_what_it_left_in_xrf_maps(axo):
    """Ratios of what it finds on its own standard; rates are of whole families here, of K-alpha-1 there."""
    from hpcxrf.quantify.maps_curve import MapsGeometry, MapsPoint, fit_maps_curve

    curve = fit_maps_curve(
        [
            MapsPoint(family=f, counts_per_second=axo[f][0], areal_density_ug_cm2=density, scaler=1.0)
            for f, density in AXO.items()
        ],
        10.0,
        MapsGeometry(),
    )
    found = {f: axo[f][0] / curve.find_value(f) for f in AXO}
    assert found == {
        "Ca": pytest.approx(2.276, rel=0.06),
        "Fe": pytest.approx(0.429, rel=0.06),
        "Cu": pytest.approx(0.258, rel=0.06),
    }
