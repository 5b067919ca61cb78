"""What speaks against a standard: one sentence with its remedy each, all at once."""

from dataclasses import replace
from types import MappingProxyType

import pytest

from hpcxrf.physics.detector import Detector
from hpcxrf.quantify.checks import Conditions, MeasuredStandard, build_points, check_standard, find_standard_families
from hpcxrf.quantify.standards import CertifiedDensity, CertifiedStandard


def certified(**densities):
    rows = {
        s: CertifiedDensity(areal_density_ug_cm2=v, relative_error=0.03, is_error_assumed=False, source="certificate")
        for s, v in densities.items()
    }
    return CertifiedStandard(name="axo", densities=MappingProxyType(rows))


STANDARD = certified(Ca=1.931, Fe=0.504, Pb=0.761)
MEASURED = MeasuredStandard(
    rates_hz={"Ca": 4000.0, "Fe": 3000.0, "Pb_M": 200.0, "Ca_Ca": 3.0, "COMPTON_AMPLITUDE": 900.0},
    sigma_hz={"Ca": 20.0, "Fe": 10.0, "Pb_M": 8.0, "Ca_Ca": 1.0, "COMPTON_AMPLITUDE": 5.0},
)
CONDITIONS = Conditions(
    incident_energy_kev=10.0, detector=Detector(), detectors=("0", "1"), i0_name="us_ic", i0_reference=1e5
)


def check(standard=STANDARD, measured=MEASURED, of_standard=CONDITIONS, of_sample=CONDITIONS, **more):
    return check_standard(standard, measured, of_standard, of_sample, **more)


def test_nothing_speaks_against_a_good_standard():
    assert check() == ()
    assert find_standard_families(STANDARD, MEASURED.rates_hz) == ("Ca", "Fe", "Pb_M")


def test_a_fitted_standard_becomes_points():
    theta = replace(MEASURED, theta_sigma_hz={"Ca": 40.0}, i0=0.002)
    calcium, _, lead = build_points(STANDARD, theta)
    assert (calcium.family, calcium.areal_density_ug_cm2, calcium.rate_hz) == ("Ca", 1.931, 4000.0)
    assert (calcium.counting, calcium.theta, calcium.i0, calcium.certificate) == (0.005, 0.01, 0.002, 0.03)
    assert (lead.family, lead.theta) == ("Pb_M", 0.0)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"families": ("Ca", "Zn")}, "Zn is not certified; choose among Ca, Fe, Pb"),
        ({"families": ("Pb_L",)}, "Pb_L: L edge 13.04 keV is above the incident energy 10 keV; use Pb_M"),
        ({"families": ("Fe_Fe",)}, "Fe_Fe is not a family of one element; write"),
        ({"families": ("Ca_L",)}, "Ca_L was not fitted; add it"),
        ({"measured": replace(MEASURED, rates_hz={"Si": 1.0})}, "none of its elements Ca, Fe, Pb was fitted; add"),
        (
            {"measured": replace(MEASURED, rates_hz=MEASURED.rates_hz | {"Fe": 20.0})},
            "Fe does not show in its scan (20 +- 10 counts/s); leave it out",
        ),
        ({"measured": replace(MEASURED, rates_hz=MEASURED.rates_hz | {"Fe": float("nan")})}, "fit the standard again"),
        ({"standard": certified(Ca=1.931, Fe=0.0)}, "Fe has an areal density of 0 ug/cm2; give one above 0"),
        ({"measured": replace(MEASURED, saturated_pixels=3)}, "3 pixels are saturated"),
        ({"measured": replace(MEASURED, at_bound=("fwhm_offset",))}, "ended at a bound of fwhm_offset; correct"),
        ({"of_sample": replace(CONDITIONS, incident_energy_kev=12.0)}, "10 keV, the sample at 12 keV; measure it"),
        (
            {"of_sample": replace(CONDITIONS, detector=Detector(air_path_mm=30.0))},
            "air_path_mm 10.0 and 30.0; describe",
        ),
        ({"of_sample": replace(CONDITIONS, detectors=("0",))}, "detectors 0, 1 and 0; describe"),
        ({"of_sample": replace(CONDITIONS, i0_name=None)}, "the sample has no I0, the standard is normalised by us_ic"),
        (
            {"of_standard": replace(CONDITIONS, i0_name=None)},
            "the standard has no I0, the sample is normalised by us_ic",
        ),
        ({"of_sample": replace(CONDITIONS, i0_name="ds_ic")}, "normalised by us_ic, the sample by ds_ic; normalise"),
        ({"of_sample": replace(CONDITIONS, i0_reference=2e5)}, "refer to an I0 of 100000.0, the sample's to 200000.0"),
    ],
)
def test_a_fault_is_one_sentence_with_its_remedy(changed, said):
    (fault,) = check(**changed)
    assert said in fault
    assert fault.startswith("axo: ")
    assert ";" in fault or " or " in fault


def test_what_the_user_allows_is_no_fault():
    other = replace(CONDITIONS, incident_energy_kev=10.4, detector=Detector(be_window_um=24.0))
    assert len(check(of_sample=other)) == 2
    assert check(of_sample=other, allow=("energy", "detector")) == ()
    bare = replace(CONDITIONS, i0_name=None)
    assert len(check(of_standard=bare, of_sample=bare)) == 1
    assert check(of_standard=bare, of_sample=bare, allow=("no_i0",)) == ()
    assert len(check(of_standard=bare, allow=("no_i0",))) == 1


def test_all_faults_come_at_once():
    broken = replace(MEASURED, rates_hz=MEASURED.rates_hz | {"Fe": 0.0}, saturated_pixels=1, at_bound=("energy_slope",))
    sample = Conditions(incident_energy_kev=12.0, detector=Detector(be_window_um=24.0))
    assert len(check(measured=broken, of_sample=sample)) == 6
