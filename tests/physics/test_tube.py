"""Spectra of X-ray tubes against numbers of others: Kramers, Duane and Hunt, published radiation qualities, by hand."""

import math

import numpy as np
import pytest
import xraylib

from hpcxrf.errors import ConfigError
from hpcxrf.physics.tube import (
    Layer,
    Tube,
    continuum,
    find_anode_lines,
    subshell_excitation,
    transmission,
    tube_spectrum,
)

BARE = {"layers": ()}


def by_hand(energy, z, mass, kv, electron_deg, take_off_deg):
    """Ebel's equations 1 to 4, written as the paper has them."""
    eta = (0.1904 - 0.2236 * math.log(z) + 0.1292 * math.log(z) ** 2 - 0.0149 * math.log(z) ** 3) * kv ** (
        0.1382 - 0.9211 * z**-0.5
    )
    u = kv / energy
    deepest = mass / z * (0.787e-5 * (0.0135 * z) ** 0.5 * kv**1.5 + 0.735e-6 * kv**2)
    mean = (
        deepest
        * (0.49269 - 1.0987 * eta + 0.78557 * eta**2)
        / (0.70256 - 1.09865 * eta + 1.0046 * eta**2 + math.log(u))
    )
    x = xraylib.CS_Photo(z, energy) * 2 * mean * math.log(u)
    x *= math.sin(math.radians(electron_deg)) / math.sin(math.radians(take_off_deg))
    return 1.35e9 * z * (u - 1) ** (1.109 - 0.00435 * z + 0.00175 * kv) * (1 - math.exp(-x)) / x


def half_value_layer_mm(spectrum):
    """Millimetres of aluminium that halve the air kerma."""
    energy = spectrum.energy_kev
    kerma = spectrum.photons * energy * [xraylib.CS_Energy_CP("Air, Dry (near sea level)", e) for e in energy]
    mu = 2.699 * np.array([xraylib.CS_Total(13, e) for e in energy])
    low, high = 0.0, 10.0
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if (kerma * np.exp(-mu * middle / 10)).sum() > 0.5 * kerma.sum() else (low, middle)
    return low


def mean_energy(spectrum):
    return (spectrum.photons @ spectrum.energy_kev) / spectrum.photons.sum()


# --- the continuum ------------------------------------------------------------------------------


@pytest.mark.parametrize(("anode", "z", "mass"), [("Cu", 29, 63.546), ("Rh", 45, 102.9055), ("W", 74, 183.84)])
def test_the_continuum_is_that_of_the_paper(anode, z, mass):
    for kv, energy in ((20.0, 5.0), (40.0, 12.0), (50.0, 49.0)):
        tube = Tube(anode=anode, kv=kv, electron_angle_deg=65.0, take_off_angle_deg=25.0, **BARE)
        assert continuum(energy, tube) == pytest.approx(by_hand(energy, z, mass, kv, 65.0, 25.0), rel=5e-4)


def test_no_photon_has_more_energy_than_an_electron_and_the_end_is_reached_as_duane_and_hunt_say():
    tube = Tube(anode="W", kv=30.0, **BARE)
    assert continuum([30.0, 30.001, 45.0], tube).tolist() == [0.0, 0.0, 0.0]
    ends = continuum([29.9, 29.99, 29.999], tube)
    assert (np.diff(ends) < 0).all()
    assert ends[2] > 0
    # (E0/E - 1)^x goes to 0 as a power of what is left.
    exponent = 1.109 - 0.00435 * 74 + 0.00175 * 30
    assert math.log(ends[0] / ends[1]) / math.log(10) == pytest.approx(exponent, rel=0.01)
    assert tube_spectrum(tube).energy_kev[: tube_spectrum(tube).n_bins].max() < 30.0


def test_without_absorption_the_shape_is_nearly_that_of_kramers():
    """Light anode, high energies, electrons that enter shallowly and photons that leave steeply: f is near 1."""
    tube = Tube(anode="Al", kv=40.0, electron_angle_deg=50.0, take_off_angle_deg=90.0, **BARE)
    energy = np.array([15.0, 20.0, 30.0])
    exponent = 1.109 - 0.00435 * 13 + 0.00175 * 40
    found = continuum(energy, tube) / (1.35e9 * 13)
    np.testing.assert_allclose(found, (40.0 / energy - 1.0) ** exponent, rtol=0.01)
    kramers = 40.0 / energy - 1.0
    np.testing.assert_allclose(found / kramers, found[0] / kramers[0], rtol=0.3)


def test_the_anode_absorbs_more_at_a_flat_take_off_and_just_above_its_edge():
    steep, flat = (Tube(anode="Rh", kv=40.0, take_off_angle_deg=angle, **BARE) for angle in (60.0, 6.0))
    ratio = continuum([4.0, 30.0], flat) / continuum([4.0, 30.0], steep)
    assert ratio[0] < 0.5 < ratio[1] < 1.0
    edge = xraylib.EdgeEnergy(45, xraylib.K_SHELL)
    below, above = continuum([edge - 0.01, edge + 0.01], flat)
    assert above < 0.99 * below


def test_windows_and_filters_take_what_their_attenuation_says():
    layers = (Layer(material="Be", thickness_um=125.0), Layer(material="Al", thickness_um=100.0))
    bare, behind = (Tube(anode="Mo", kv=35.0, layers=one) for one in ((), layers))
    energy = np.array([5.0, 12.0, 30.0])
    expected = [
        math.exp(-0.0125 * 1.848 * xraylib.CS_Total(4, e) - 0.01 * 2.6989 * xraylib.CS_Total(13, e)) for e in energy
    ]
    np.testing.assert_allclose(continuum(energy, behind) / continuum(energy, bare), expected, rtol=1e-3)
    np.testing.assert_allclose(transmission(energy, layers), expected, rtol=1e-3)
    ratio = {line.name: line.photons for line in find_anode_lines(behind)}["KL3"]
    ratio /= {line.name: line.photons for line in find_anode_lines(bare)}["KL3"]
    assert ratio == pytest.approx(float(transmission(17.479, layers)), rel=1e-4)
    film = Layer(material="Kapton Polyimide Film", thickness_um=50.0)
    assert 0.4 < float(transmission(3.0, (film,))) < 0.5


# --- published radiation qualities --------------------------------------------------------------


def test_the_narrow_spectrum_at_30_kv_has_its_published_mean_energy_and_half_value_layer():
    """ISO 4037-1 quality N-30: W anode, 4 mm Al; mean energy 24.6 keV, first half-value layer 1.15 mm Al."""
    inherent = (Layer(material="Be", thickness_um=7000.0), Layer(material="Al", thickness_um=4000.0))
    spectrum = tube_spectrum(
        Tube(anode="W", kv=30.0, electron_angle_deg=72.0, take_off_angle_deg=18.0, layers=inherent)
    )
    assert mean_energy(spectrum) == pytest.approx(24.6, abs=0.3)
    assert half_value_layer_mm(spectrum) == pytest.approx(1.15, rel=0.04)


def test_a_mammography_beam_of_w_and_rh_has_its_published_mean_energy():
    """Boone, Fewell and Jennings, Med. Phys. 24 (1997) 1863: W 30 kV, 50 um Rh, 1 mm Be: 19.3 keV, 0.50 mm Al."""
    layers = (Layer(material="Be", thickness_um=1000.0), Layer(material="Rh", thickness_um=50.0))
    spectrum = tube_spectrum(Tube(anode="W", kv=30.0, electron_angle_deg=74.0, take_off_angle_deg=16.0, layers=layers))
    assert mean_energy(spectrum) == pytest.approx(19.3, abs=0.4)
    assert half_value_layer_mm(spectrum) == pytest.approx(0.503, rel=0.12)


# --- the anode's lines --------------------------------------------------------------------------


def test_k_lines_follow_the_paper_by_hand():
    z, kv, edge = 42, 45.0, xraylib.EdgeEnergy(42, xraylib.K_SHELL)
    u = kv / edge
    first = u * math.log(u) + 1 - u
    bracket = 1 + 16.05 * math.sqrt(0.0135 * z / edge) * (u**0.5 * math.log(u) + 2 * (1 - u**0.5)) / first
    backscatter = 1 - 0.0081517 * z + 3.613e-5 * z**2 + 0.009583 * z * math.exp(-u) + 0.001141 * kv
    yield_ = xraylib.FluorYield(z, xraylib.K_SHELL) * xraylib.RadRate(z, xraylib.KL3_LINE)
    # The absorption is that of the continuum, with the overvoltage of the edge.
    absorbed = by_hand(edge, z, 95.95, kv, 70.0, 20.0) / (1.35e9 * z * (u - 1) ** (1.109 - 0.00435 * z + 0.00175 * kv))
    tau = xraylib.CS_Photo(z, 17.479) / xraylib.CS_Photo(z, edge)
    depth = brent(lambda x: (1 - math.exp(-x)) / x - absorbed)
    escaping = (1 - math.exp(-depth * tau)) / (depth * tau)
    expected = 5e13 * 2 * 0.35 / z * first * bracket * backscatter * yield_ * escaping
    found = {line.name: line.photons for line in find_anode_lines(Tube(anode="Mo", kv=kv, **BARE))}
    assert found["KL3"] == pytest.approx(expected, rel=2e-3)


def brent(function):
    """Root between 1e-6 and 10 of a falling function."""
    low, high = 1e-6, 10.0
    for _ in range(80):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if function(middle) > 0 else (low, middle)
    return low


def test_lines_appear_with_their_own_edge_and_grow_with_the_voltage():
    def photons(kv, series):
        return sum(line.photons for line in find_anode_lines(Tube(anode="Rh", kv=kv)) if line.series == series)

    assert photons(23.0, "K") == 0.0
    assert photons(23.0, "L") > 0.0
    grown = [photons(kv, "K") for kv in (23.5, 30.0, 40.0, 50.0)]
    assert (np.diff(grown) > 0).all()
    assert grown[0] < 0.01 * grown[-1]
    names = {line.name[:2] for line in find_anode_lines(Tube(anode="W", kv=11.0)) if line.series == "L"}
    assert names == {"L3"}


def test_ratios_within_a_subshell_are_those_of_the_rates_where_nothing_absorbs():
    lines = {line.name: line for line in find_anode_lines(Tube(anode="Ag", kv=50.0, take_off_angle_deg=90.0, **BARE))}
    rate = xraylib.RadRate(47, xraylib.KL2_LINE) / xraylib.RadRate(47, xraylib.KL3_LINE)
    assert lines["KL2"].photons / lines["KL3"].photons == pytest.approx(rate, rel=5e-3)
    assert all(first.energy_kev <= second.energy_kev for first, second in zip(*pairs(lines), strict=True))


def pairs(lines):
    every = list(lines.values())
    return every[:-1], every[1:]


# --- excitation ---------------------------------------------------------------------------------


def test_the_excitation_of_a_subshell_is_the_integral_over_the_spectrum():
    tube = Tube(anode="Rh", kv=40.0)
    spectrum = tube_spectrum(tube)
    for z, shell, code in ((26, "K", xraylib.K_SHELL), (20, "K", xraylib.K_SHELL)):
        edge = xraylib.EdgeEnergy(z, code)
        used = spectrum.energy_kev > edge
        cross = np.array([xraylib.CS_Photo_Partial(z, code, e) for e in spectrum.energy_kev[used]])
        expected = cross @ spectrum.photons[used] / xraylib.CS_Photo_Partial(z, code, 40.0)
        assert subshell_excitation(tube, z, shell) == pytest.approx(expected, rel=1e-3)


def test_a_subshell_above_the_voltage_is_not_excited_and_deep_subshells_less_than_by_the_mean_photon():
    tube = Tube(anode="W", kv=30.0)
    assert subshell_excitation(tube, 51, "K") == 0.0
    factors = [subshell_excitation(tube, 51, shell) for shell in ("L1", "L3")]
    # L1 falls more slowly with the energy than L3: soft photons excite it less.
    assert factors[0] < factors[1]
    assert subshell_excitation(Tube(anode="W", kv=30.0), 80, "L1") > 0.0


# --- what cannot be -----------------------------------------------------------------------------


def test_a_tube_outside_of_the_formulas_is_refused_with_all_faults():
    with pytest.raises(ConfigError) as caught:
        Tube(anode="U", kv=120.0, electron_angle_deg=10.0, take_off_angle_deg=1.0)
    for part in (
        "anode is U",
        "kv is 120, must lie between 5 and 60",
        "electron_angle_deg is 10",
        "take_off_angle_deg",
    ):
        assert part in str(caught.value)
    with pytest.raises(ConfigError, match="anode is 'Xx'"):
        Tube(anode="Xx", kv=30.0)
    with pytest.raises(ConfigError, match="kv is nan"):
        Tube(anode="Rh", kv=math.nan)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"material": "unobtainium", "thickness_um": 1.0}, "material is 'unobtainium'"),
        ({"material": "SiO2", "thickness_um": 1.0}, "density of SiO2 is not known"),
        ({"material": "Al", "thickness_um": -1.0}, "thickness_um is -1"),
        ({"material": "Al", "thickness_um": 1.0, "density_g_cm3": 0.0}, "density_g_cm3 is 0"),
    ],
)
def test_a_layer_that_cannot_be_is_refused(fields, said):
    with pytest.raises(ConfigError, match=said):
        Layer(**fields)
    assert Layer(material="SiO2", thickness_um=1.0, density_g_cm3=2.2).density_g_cm3 == 2.2
