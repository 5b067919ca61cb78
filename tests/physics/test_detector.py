"""Detector efficiency, escape and the constant sets, against hand-computed numbers."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcxrf.errors import ConfigError
from hpcxrf.physics.constants import CONSTANT_SETS, constant_set, convert_fanoprime
from hpcxrf.physics.detector import Detector, absorption_per_um, efficiency, escape_photons, escape_probability

BARE = Detector(be_window_um=0, air_path_mm=0, dead_layer_um=0, chip_thickness_um=1e6)
ENERGIES = np.linspace(0.5, 30.0, 60)


def test_a_bare_and_thick_chip_records_everything():
    np.testing.assert_allclose(efficiency(ENERGIES, BARE), 1.0, rtol=0, atol=1e-9)


def test_eight_micrometres_of_beryllium_pass_41_percent_at_1_kev():
    # NIST: 604.1 cm2/g at 1 keV; exp(-604.1 * 1.848 g/cm3 * 8e-4 cm) = 0.4094
    setup = Detector(be_window_um=8, air_path_mm=0, dead_layer_um=0, chip_thickness_um=1e6)
    assert efficiency([1.0], setup)[0] == pytest.approx(0.4094, rel=0.01)


def test_ten_millimetres_of_air_pass_66_percent_at_2_3_kev():
    # NIST dry air: about 342 cm2/g at 2.3 keV; exp(-342 * 1.205e-3 g/cm3 * 1 cm) = 0.662
    setup = Detector(be_window_um=0, air_path_mm=10, dead_layer_um=0, chip_thickness_um=1e6)
    assert efficiency([2.3], setup)[0] == pytest.approx(0.662, rel=0.02)


def test_450_micrometres_of_silicon_stop_35_percent_at_20_kev():
    # NIST photoelectric Si at 20 keV: 4.08 cm2/g; 1 - exp(-4.08 * 2.33 * 0.045) = 0.348
    setup = Detector(be_window_um=0, air_path_mm=0, dead_layer_um=0)
    assert efficiency([20.0], setup)[0] == pytest.approx(0.348, rel=0.02)


def test_silicon_absorbs_a_35th_of_a_6_kev_beam_per_micrometre():
    # NIST: 147 cm2/g, of which 144 photoelectric: 144 * 2.33e-4 = 0.0336 per um
    assert absorption_per_um(6.0, Detector()) == pytest.approx(0.0336, rel=0.03)


@given(st.floats(0.1, 800.0), st.sampled_from(["be_window_um", "air_path_mm", "dead_layer_um"]), st.floats(0.01, 100.0))
@settings(max_examples=40, deadline=None)
def test_any_layer_lowers_the_efficiency_and_it_stays_a_share(energy_kev, layer, length):
    thin = Detector(be_window_um=0, air_path_mm=0, dead_layer_um=0)
    lengths = {"be_window_um": 0, "air_path_mm": 0, "dead_layer_um": 0, layer: length}
    covered = efficiency([energy_kev], Detector(**lengths))[0]
    assert 0.0 <= covered <= efficiency([energy_kev], thin)[0] <= 1.0


def test_efficiency_keeps_the_shape_of_the_energies():
    assert efficiency(np.full((2, 3), 5.0), Detector()).shape == (2, 3)
    assert efficiency(5.0, Detector()).shape == ()
    assert efficiency([], Detector()).shape == (0,)


def test_the_escape_photon_of_silicon_is_1740_ev_and_of_germanium_9876_ev():
    silicon, germanium = (escape_photons(Detector(material=m)) for m in ("Si", "Ge"))
    assert silicon[0][0] == pytest.approx(1.73998, abs=5e-4)
    assert germanium[0][0] == pytest.approx(9.876, abs=2e-3)
    assert germanium[1][0] == pytest.approx(10.98, abs=5e-3)
    assert sum(share for _, share in silicon) == pytest.approx(1.0, abs=1e-3)


def test_the_silicon_escape_peak_of_manganese_is_four_thousandths_of_it():
    # By hand: 1/2 * 0.0504 * (1 - 1/10.4) = 0.0228; mu(5.9) = 154, mu(1.74) = 354 cm2/g, ratio 0.435:
    # 1 - ln(1.435)/0.435 = 0.170; 0.0228 * 0.170 = 0.0039
    total = escape_probability([5.9], Detector()).sum()
    assert total == pytest.approx(0.0039, rel=0.05)


def test_escape_falls_with_energy_and_vanishes_below_the_k_edge():
    probability = escape_probability([1.0, 1.838, 1.85, 2.5, 4.0, 8.0, 15.0], Detector()).sum(0)
    assert probability[:2].tolist() == [0.0, 0.0]
    assert np.all(np.diff(probability[2:]) < 0)
    # As much leaves as can: half of the K photons, at the edge where the beam stops at the surface.
    assert probability[2] < 0.0228


def test_a_germanium_detector_lets_a_tenth_escape_just_above_its_edge_and_none_below():
    probability = escape_probability([10.0, 11.2, 20.0], Detector(material="Ge")).sum(0)
    assert probability[0] == 0.0
    assert 0.1 < probability[1] < 0.25
    assert probability[2] < probability[1]


def test_escape_peaks_are_counts_per_count_left_in_the_parent():
    # Germanium by hand: mu 198 (11.2 keV), 38.8 (Ka), 28.4 cm2/g (Kb); 1 - ln(1 + x)/x = 0.645 and 0.702;
    # eta = 1/2 * 0.5464 * (1 - 1/7.39) * (0.872 * 0.645 + 0.125 * 0.702) = 0.1536; eta/(1 - eta) = 0.1815
    probability = escape_probability([11.2], Detector(material="Ge")).sum()
    assert probability == pytest.approx(0.1815, rel=0.03)


def test_energies_outside_the_cross_sections_are_refused_with_their_value():
    for energy in (0.05, math.nan, 900.0):
        with pytest.raises(ConfigError, match=f"{energy:g} keV"):
            efficiency([5.0, energy], Detector())


def test_a_detector_that_cannot_be_is_refused_with_every_fault():
    with pytest.raises(ConfigError, match=r"be_window_um is -1.*chip_thickness_um is 0.*'CdTe'"):
        Detector(material="CdTe", be_window_um=-1, chip_thickness_um=0)
    with pytest.raises(ConfigError, match="air_path_mm is nan"):
        Detector(air_path_mm=math.nan)


def test_the_constant_sets_are_those_of_the_design():
    legacy, current, physics = (constant_set(n) for n in ("maps-legacy-2.96", "maps-3.58", "physics"))
    assert (legacy.width_factor, current.width_factor) == (2.96, 3.58)
    assert (legacy.fwhm_per_sigma, legacy.electron_rest_energy_kev) == (2.3548, 511.0)
    assert physics.fwhm_per_sigma == pytest.approx(2.354820045, abs=1e-9)
    assert physics.electron_rest_energy_kev == 510.99895
    assert [s.maps_line_shape for s in (legacy, current, physics)] == [True, True, False]


def test_an_unknown_constant_set_is_refused_with_the_known_names():
    with pytest.raises(ConfigError, match=r"'maps'.*physics, maps-legacy-2\.96, maps-3\.58"):
        constant_set("maps")


def test_a_converted_fano_term_keeps_the_width():
    legacy, current = constant_set("maps-legacy-2.96"), constant_set("maps-3.58")
    # XRF-Maps's own optimiser finds 1.850e-4 where the old file has 2.244e-4
    converted = convert_fanoprime(2.2440446e-4, source=legacy, target=current)
    assert converted == pytest.approx(1.855e-4, abs=5e-8)
    for source in CONSTANT_SETS.values():
        for target in CONSTANT_SETS.values():
            there = convert_fanoprime(1e-4, source=source, target=target)
            assert there * target.width_factor == pytest.approx(1e-4 * source.width_factor)
