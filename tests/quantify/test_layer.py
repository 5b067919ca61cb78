"""Layers: limits that optics knows, integrals by brute force, and another program."""

import math

import numpy as np
import pytest
import torch
import xraylib
from fisx_oracle import compute_layer, load_elements
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import dblquad, quad
from scipy.special import exp1

from hpcxrf.errors import FitError
from hpcxrf.physics.detector import Detector
from hpcxrf.quantify.layer import LayerModel, build_layer_model, compute_layer_factors, parse_composition

# Weighs the lines of a family as they leave the layer.
OPEN = Detector(be_window_um=0.0, air_path_mm=0.0, dead_layer_um=0.0, chip_thickness_um=1e6)


def factors(composition, areal_density_ug_cm2, families, incident_kev=10.0, **options):
    model = build_layer_model(tuple(composition), families, incident_kev, detector=OPEN, **options)
    shares = torch.tensor(list(composition.values()), dtype=torch.float64)
    found = compute_layer_factors(model, shares, torch.tensor(areal_density_ug_cm2, dtype=torch.float64))
    return dict(zip(families, found.tolist(), strict=True))


def chi(composition, line_kev, incident_kev, incidence_deg, takeoff_deg):
    """cm2/g, one line, of the definition."""

    def mu(energy):
        return sum(w * xraylib.CS_Total(xraylib.SymbolToAtomicNumber(s), energy) for s, w in composition.items())

    return mu(incident_kev) / math.sin(math.radians(incidence_deg)) + mu(line_kev) / math.sin(math.radians(takeoff_deg))


def test_formulas_are_mass_fractions():
    found = parse_composition("CaCO3")
    assert sum(found.values()) == pytest.approx(1.0)
    assert found["Ca"] == pytest.approx(40.078 / 100.086, rel=1e-4)
    assert parse_composition("Water, Liquid")["O"] == pytest.approx(0.888, abs=1e-3)
    with pytest.raises(FitError, match="'chalk' is not a chemical formula; write"):
        parse_composition("chalk")


@given(st.sampled_from([("Ca", "Fe"), ("Fe", "Ni"), ("S", "Zn")]), st.floats(5.0, 90.0), st.floats(5.0, 90.0))
def test_a_thin_layer_loses_nothing_and_a_thick_one_all_but_its_surface(elements, incidence_deg, takeoff_deg):
    composition = dict(zip(elements, (0.3, 0.7), strict=True))
    family = elements[0]
    angles = {"incidence_deg": incidence_deg, "takeoff_deg": takeoff_deg}
    assert factors(composition, 1e-4, [family], **angles)[family] == pytest.approx(1.0, abs=1e-5)
    line_kev = xraylib.LineEnergy(xraylib.SymbolToAtomicNumber(family), xraylib.KA1_LINE)
    expected = 1.0 / (chi(composition, line_kev, 10.0, incidence_deg, takeoff_deg) * 1e3)
    # K-beta leaves somewhat more easily, unless an edge lies between.
    assert factors(composition, 1e9, [family], **angles)[family] == pytest.approx(expected, rel=0.06)


def test_absorption_is_the_mean_over_the_lines_of_a_family():
    composition = {"Ca": 0.4, "C": 0.12, "O": 0.48}
    model = build_layer_model(tuple(composition), ["Ca"], 10.0, detector=OPEN, incidence_deg=30.0, takeoff_deg=60.0)
    mean = 0.0
    for name, share in (("KL3", 0.5895), ("KL2", 0.2985), ("KM3", 0.1120)):
        energy = xraylib.LineEnergy(20, getattr(xraylib, f"{name}_LINE"))
        depth = chi(composition, energy, 10.0, 30.0, 60.0) * 1e-3
        mean += share * -math.expm1(-depth) / depth
    found = compute_layer_factors(
        model, torch.tensor([0.4, 0.12, 0.48], dtype=torch.float64), torch.tensor(1000.0, dtype=torch.float64)
    )
    assert float(found) == pytest.approx(mean, rel=1e-3)


def integrate(a, b, mu, m):
    """J of the module: a layer of one element with one line, enhanced by one line of unit strength and gain."""

    def tensor(*values, shape):
        return torch.tensor(values, dtype=torch.float64).reshape(shape)

    model = LayerModel(
        elements=("Fe",),
        families=("Fe",),
        incident_absorption=tensor(a, shape=(1,)),
        exit_absorption=tensor(b, shape=(1, 1)),
        line_family=torch.tensor([0]),
        line_share=tensor(1.0, shape=(1,)),
        source_absorption=tensor(mu, shape=(1, 1)),
        source_element=torch.tensor([0]),
        source_strength=tensor(1.0, shape=(1,)),
        gain=tensor(1.0, shape=(1, 1)),
    )
    found = float(compute_layer_factors(model, tensor(1.0, shape=(1,)), tensor(1e6 * m, shape=())))
    absorbed = -math.expm1(-(a + b) * m) / ((a + b) * m)
    return 2.0 * m * (found - absorbed)


@pytest.mark.parametrize(
    ("a", "b", "mu", "m"), [(200.0, 90.0, 150.0, 0.002), (50.0, 400.0, 30.0, 0.05), (9.0, 9.0, 9.0, 1e-4)]
)
def test_the_integral_over_both_depths_is_that_of_brute_force(a, b, mu, m):
    def integrate_pairs(u):
        """Both photons within the layer, u apart, by numbers and not by the formula."""
        pairs = quad(lambda z: math.exp(-a * z - b * (z + u)) + math.exp(-a * (z + u) - b * z), 0.0, m - u)[0]
        return exp1(mu * u) * pairs

    assert integrate(a, b, mu, m) == pytest.approx(quad(integrate_pairs, 0.0, m, limit=200)[0], rel=3e-4)


def test_the_distance_of_two_depths_counts_both_ways():
    """The double integral as it stands, on a coarse scale."""
    a, b, mu, m = 20.0, 8.0, 15.0, 0.1
    expected = dblquad(
        lambda x, z: math.exp(-a * z - b * x) * exp1(max(mu * abs(x - z), 1e-12)), 0.0, m, 0.0, m, epsabs=1e-7
    )[0]
    assert integrate(a, b, mu, m) == pytest.approx(expected, rel=1e-3)


def test_enhancement_of_a_thick_layer_is_the_formula_of_sherman():
    """Iron by the lines of nickel alone: logarithms in the place of the integrals."""
    composition = {"Fe": 0.5, "Ni": 0.5}
    plain, enhanced = (factors(composition, 1e9, ["Fe"], enhancement=e)["Fe"] for e in (False, True))

    def mu(energy):
        return sum(w * xraylib.CS_Total(z, energy) for z, w in ((26, 0.5), (28, 0.5)))

    sine = math.sin(math.radians(45.0))
    a, b = mu(10.0) / sine, mu(6.404) / sine
    expected = 0.0
    for line in (xraylib.KL3_LINE, xraylib.KL2_LINE, xraylib.KM3_LINE, xraylib.KM2_LINE):
        energy = xraylib.LineEnergy(28, line)
        gain = xraylib.CS_Photo_Partial(26, 0, energy) / xraylib.CS_Photo_Partial(26, 0, 10.0)
        depth = math.log(1.0 + a / mu(energy)) / a + math.log(1.0 + b / mu(energy)) / b
        expected += 0.5 * 0.5 * xraylib.CS_FluorLine_Kissel(28, line, 10.0) * gain * depth
    # The iron K-beta line leaves more easily than K-alpha, by which b was taken.
    assert enhanced / plain - 1.0 == pytest.approx(expected, rel=0.02)


@pytest.mark.parity
@pytest.mark.parametrize("areal_density_ug_cm2", [100.0, 1000.0, 5000.0, 1e5])
@pytest.mark.parametrize(
    ("composition", "incident_kev", "families", "within"),
    [
        ({"Fe": 0.5, "Ni": 0.5}, 10.0, ("Fe", "Ni"), 0.007),
        # Above the edge of chromium the two tables of absorption differ by up to 12 %.
        ({"Cr": 0.18, "Fe": 0.70, "Ni": 0.12}, 16.0, ("Cr", "Ni"), 0.025),
        ({"Ca": 0.3, "Fe": 0.2, "O": 0.4, "Pb": 0.1}, 20.0, ("Ca", "Fe", "Pb_M"), 0.013),
    ],
)
def test_layers_agree_with_another_program(composition, incident_kev, families, within, areal_density_ug_cm2):
    load_elements()
    thin = compute_layer(composition, 1e-3, incident_kev, families)
    layer = compute_layer(composition, areal_density_ug_cm2, incident_kev, families)
    absorbed = factors(composition, areal_density_ug_cm2, families, incident_kev)
    whole = factors(composition, areal_density_ug_cm2, families, incident_kev, enhancement=True)
    for family in families:
        unit = thin[family][0] / 1e-3 * areal_density_ug_cm2
        primary, secondary = layer[family][0] / unit, layer[family][1] / unit
        assert absorbed[family] == pytest.approx(primary, rel=0.012), family
        # Theirs has scattered radiation too, .6 % where nothing else enhances.
        assert whole[family] == pytest.approx(primary + secondary, rel=within), family


@pytest.mark.parity
def test_the_enhancement_itself_is_within_a_few_percent_of_another_program():
    load_elements()
    composition = {"Fe": 0.5, "Ni": 0.5}
    for areal_density_ug_cm2 in (100.0, 1000.0, 1e5):
        primary, secondary = compute_layer(composition, areal_density_ug_cm2, 10.0, ("Fe",))["Fe"]
        plain = factors(composition, areal_density_ug_cm2, ["Fe"])["Fe"]
        enhanced = factors(composition, areal_density_ug_cm2, ["Fe"], enhancement=True)["Fe"]
        assert enhanced / plain - 1.0 == pytest.approx(secondary / primary, rel=0.03)


def test_factors_have_derivatives_by_composition_and_areal_density():
    model = build_layer_model(("Fe", "Ni", "O"), ("Fe", "Ni"), 10.0, detector=OPEN, enhancement=True)
    shares = torch.tensor([[0.3, 0.3, 0.4], [0.5, 0.1, 0.4]], dtype=torch.float64, requires_grad=True)
    for density in (1e-3, 300.0, 1e5):
        amount = torch.tensor([density, 2 * density], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(
            lambda w, m: compute_layer_factors(model, w, m), (shares, amount), eps=1e-7 * density, atol=1e-5
        )


def test_a_batch_is_its_members_one_by_one():
    model = build_layer_model(("Fe", "Ni"), ("Ni", "Fe"), 10.0, detector=OPEN, enhancement=True)
    shares = torch.rand(2, 3, 2, dtype=torch.float64)
    amounts = 1000.0 * torch.rand(2, 3, dtype=torch.float64)
    found = compute_layer_factors(model, shares, amounts)
    assert found.shape == (2, 3, 2)
    for i, j in np.ndindex(2, 3):
        torch.testing.assert_close(found[i, j], compute_layer_factors(model, shares[i, j], amounts[i, j]))


def test_faults_of_a_layer_come_at_once():
    with pytest.raises(FitError) as caught:
        build_layer_model(("Fe", "Fe", "Xx"), ("Pb_L",), 10.0, detector=OPEN, incidence_deg=0.0, takeoff_deg=135.0)
    for said in ("incidence_deg is 0", "takeoff_deg is 135", "Fe is listed twice", "Xx: no such", "Pb_L: L edge"):
        assert said in str(caught.value)
    with pytest.raises(FitError, match="no element; give a formula"):
        build_layer_model((), ("Fe",), 10.0, detector=OPEN)
