"""The correction of a sample: truth comes back from its own signal, and what cannot converge says so."""

import pytest
import torch

from hpcxrf.errors import FitError
from hpcxrf.physics.detector import Detector
from hpcxrf.quantify.layer import build_layer_model, compute_layer_factors, parse_composition
from hpcxrf.quantify.matrix import Layer, correct_layer

DETECTOR = Detector()
INCIDENT_KEV = 12.0


def signal(amounts, rest, rest_ug_cm2, *, enhancement=False):
    """Areal densities as of a thin sample that a layer of these elements shows, by family."""
    masses = {symbol: rest_ug_cm2 * share for symbol, share in rest.items()}
    for family, amount in amounts.items():
        symbol = family.split("_")[0]
        masses[symbol] = masses.get(symbol, 0.0) + amount
    total = sum(masses.values())
    model = build_layer_model(tuple(masses), tuple(amounts), INCIDENT_KEV, detector=DETECTOR, enhancement=enhancement)
    shares = torch.tensor([m / total for m in masses.values()], dtype=torch.float64)
    found = compute_layer_factors(model, shares, torch.tensor(total, dtype=torch.float64))
    return {family: amount * float(f) for (family, amount), f in zip(amounts.items(), found, strict=True)}, total


def test_a_given_layer_needs_no_iteration():
    layer = Layer(formula="CaCO3", areal_density_ug_cm2=1000.0)
    found = correct_layer({"Fe": 1.0, "Zn": 2.0}, layer, INCIDENT_KEV, DETECTOR)
    assert found.changes == ()
    assert 0.8 < found.factors["Fe"] < found.factors["Zn"] < 1.0
    assert found.areal_density_ug_cm2 == 1000.0
    assert "absorption in a layer of 1000 ug/cm2 of CaCO3, beam at 45 and detector at 45 degrees" in found.description


@pytest.mark.parametrize("enhancement", [False, True])
def test_a_fitted_matrix_gives_the_amounts_that_made_the_signal(enhancement):
    amounts = {"Ca": 150.0, "Fe": 400.0, "Ni": 300.0, "La_L": 20.0}
    seen, total = signal(amounts, parse_composition("C5H7O2N"), 800.0, enhancement=enhancement)
    assert seen["Ca"] < 0.9 * amounts["Ca"]
    layer = Layer(formula="C5H7O2N", areal_density_ug_cm2=total, matrix="fitted", enhancement=enhancement)
    found = correct_layer(seen, layer, INCIDENT_KEV, DETECTOR)
    for family, amount in amounts.items():
        assert seen[family] / found.factors[family] == pytest.approx(amount, rel=1e-4)
    assert found.mass_fractions["Fe"] == pytest.approx(400.0 / total, rel=1e-4)
    assert sum(found.mass_fractions.values()) == pytest.approx(1.0)
    assert list(found.changes) == sorted(found.changes, reverse=True)
    assert found.changes[-1] < 1e-6
    assert f"converged in {len(found.changes)} iterations" in found.description


def test_a_foil_is_all_that_is_fitted():
    seen, total = signal({"Fe": 900.0, "Cu": 300.0}, {}, 0.0)
    found = correct_layer(seen, Layer(matrix="fitted"), INCIDENT_KEV, DETECTOR)
    assert found.areal_density_ug_cm2 == pytest.approx(total, rel=1e-4)
    assert seen["Cu"] / found.factors["Cu"] == pytest.approx(300.0, rel=1e-4)


def test_an_element_with_two_families_absorbs_once():
    seen, _ = signal({"As": 200.0, "Fe": 100.0}, {}, 0.0)
    both = correct_layer(seen | {"As_L": 1e-3}, Layer(matrix="fitted"), INCIDENT_KEV, DETECTOR)
    assert both.areal_density_ug_cm2 == pytest.approx(300.0, rel=1e-4)
    assert both.factors["As_L"] < 0.7 < both.factors["As"]


def test_what_a_foil_cannot_tell_does_not_converge():
    """Above 1/chi no foil has that much signal."""
    with pytest.raises(
        FitError, match=r"does not converge \(change .* after 200 iterations\).*; give its areal_density"
    ):
        correct_layer({"Fe": 2e4}, Layer(matrix="fitted"), INCIDENT_KEV, DETECTOR)


def test_fitted_elements_do_not_weigh_more_than_the_layer():
    layer = Layer(formula="CaCO3", areal_density_ug_cm2=100.0, matrix="fitted")
    with pytest.raises(FitError, match=r"weigh .* ug/cm2, more than the layer with 100; correct"):
        correct_layer({"Fe": 300.0}, layer, INCIDENT_KEV, DETECTOR)


def test_nothing_fitted_absorbs_nothing():
    with pytest.raises(FitError, match="nothing was fitted that could absorb; give"):
        correct_layer({"Fe": -1.0}, Layer(matrix="fitted"), INCIDENT_KEV, DETECTOR)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "needs formula and areal_density_ug_cm2; or set matrix: fitted"),
        ({"formula": "C"}, "needs formula and areal_density_ug_cm2"),
        ({"formula": "C", "matrix": "fitted"}, "C is the rest of the layer: give"),
        ({"formula": "C", "areal_density_ug_cm2": -1.0}, "is -1, must be above 0"),
        ({"formula": "C", "areal_density_ug_cm2": float("inf")}, "is inf, must be above 0; a thick sample has 1e6"),
    ],
)
def test_half_a_layer_is_refused(options, said):
    with pytest.raises(FitError, match=said.replace("(", r"\(")):
        Layer(**options)
