"""Sensitivities: the numbers of the fit's own tables, their parts by hand, and another program's."""

import math

import numpy as np
import pytest
import xraylib
from fisx_oracle import compute_cross_section, load_elements
from hypothesis import given
from hypothesis import strategies as st

from hpcxrf.errors import FitError
from hpcxrf.physics.detector import Detector, efficiency
from hpcxrf.physics.lines import build_line_table
from hpcxrf.quantify.sensitivity import (
    ESTIMATED_MODEL_ERROR,
    MODEL_ERROR,
    compute_mean_line_kev,
    compute_sensitivity,
    find_model_error,
    parse_family,
)

# Almost all photons above 1 keV: what is left is the cross-section.
OPEN = Detector(be_window_um=0.0, air_path_mm=0.0, dead_layer_um=0.0, chip_thickness_um=1e6)


def test_iron_is_vacancies_times_yield():
    """One shell, no cascade: photoelectric cross-section of K, times its yield, times what the detector records."""
    cross_section = xraylib.CS_Photo_Partial(26, xraylib.K_SHELL, 10.0) * xraylib.FluorYield(26, xraylib.K_SHELL)
    assert compute_sensitivity("Fe", 10.0, OPEN) == pytest.approx(1e-6 * cross_section, rel=2e-3)


def test_each_line_is_weighted_by_the_detector():
    detector = Detector(air_path_mm=30.0)
    table = build_line_table(["Ca"], 10.0, efficiency=OPEN, escape=False, minimum_ratio=0.0)
    recorded = float(np.dot(table.ratio.numpy(), efficiency(table.energy_kev.numpy(), detector)))
    expected = compute_sensitivity("Ca", 10.0, OPEN) * recorded
    assert compute_sensitivity("Ca", 10.0, detector) == pytest.approx(expected, rel=1e-5)
    mean_kev = compute_mean_line_kev("Ca", 10.0, detector)
    assert 3.69 < mean_kev < 3.74


@given(st.sampled_from(["Ca", "Fe", "Cu", "La_L", "Pb_M"]), st.floats(1.0, 60.0), st.floats(1.0, 60.0))
def test_more_air_records_less(family, first_mm, more_mm):
    near = compute_sensitivity(family, 10.0, Detector(air_path_mm=first_mm))
    far = compute_sensitivity(family, 10.0, Detector(air_path_mm=first_mm + more_mm))
    assert far < near


@pytest.mark.parity
@pytest.mark.parametrize("incident_kev", [10.0, 18.0, 30.0])
def test_k_lines_are_within_half_a_percent_of_another_program(incident_kev):
    load_elements()
    for symbol in ("Si", "S", "Ca", "Ti", "Cr", "Fe", "Ni", "Cu", "As", "Br", "Sr", "Zr"):
        if xraylib.EdgeEnergy(xraylib.SymbolToAtomicNumber(symbol), xraylib.K_SHELL) < incident_kev:
            theirs = compute_cross_section(symbol, "K", incident_kev, efficiency=lambda e: float(efficiency(e, OPEN)))
            assert compute_sensitivity(symbol, incident_kev, OPEN) == pytest.approx(1e-6 * theirs, rel=0.0045), symbol


@pytest.mark.parity
def test_the_model_errors_are_what_two_programs_differ_by():
    """Both ways: no family is further off than 1.2 model errors, and the largest of a shell uses most of it."""
    load_elements()
    cases = {
        ("L", 10.0): ("Mo", "Pd", "Ag", "Sn", "I", "Ba", "La", "Nd", "Gd"),
        ("L", 18.0): ("Pd", "La", "W", "Pt", "Au", "Pb", "Bi"),
        ("M", 10.0): ("W", "Pt", "Au", "Pb", "Bi", "Th", "U"),
        ("M", 18.0): ("W", "Pt", "Au", "Pb", "Bi", "Th", "U"),
    }
    largest = {"L": 0.0, "M": 0.0}
    for (shell, incident_kev), symbols in cases.items():
        for symbol in symbols:
            theirs = compute_cross_section(symbol, shell, incident_kev, efficiency=lambda e: float(efficiency(e, OPEN)))
            off = abs(math.log(compute_sensitivity(f"{symbol}_{shell}", incident_kev, OPEN) / (1e-6 * theirs)))
            assert off < 1.2 * MODEL_ERROR[shell], (symbol, shell, incident_kev)
            largest[shell] = max(largest[shell], off)
    assert largest["L"] > MODEL_ERROR["L"]
    assert largest["M"] > MODEL_ERROR["M"]


def test_names_of_families_are_those_of_the_fit():
    assert parse_family("Fe") == ("Fe", "K")
    assert parse_family("Pt_L") == ("Pt", "L")
    assert find_model_error("Pt_L") == MODEL_ERROR["L"]
    assert find_model_error("Nd_M") == ESTIMATED_MODEL_ERROR
    with pytest.raises(FitError, match="Ca_Ca: a pile-up has no areal density"):
        parse_family("Ca_Ca")


def test_a_family_that_is_not_excited_names_another():
    with pytest.raises(FitError, match=r"Pb_L: L edge 13\.04 keV is above the incident energy 10 keV; use Pb_M"):
        compute_sensitivity("Pb_L", 10.0, OPEN)
    with pytest.raises(FitError, match=r"incident energy is 300 keV"):
        compute_sensitivity("Fe", 300.0, OPEN)
