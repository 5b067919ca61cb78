"""Line ratios behind air and in a sample: counts of a family stay, derivatives agree, limits are those of optics."""

import math
from collections import defaultdict
from dataclasses import replace

import pytest
import torch
import xraylib
from fit_samples import TRUTH, channels, theta_of
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcxrf.physics.constants import PHYSICS
from hpcxrf.physics.detector import Detector, efficiency
from hpcxrf.physics.jacobian import automatic_jacobian, counts_jacobian
from hpcxrf.physics.lines import build_line_table
from hpcxrf.physics.model import SpectrumModel, evaluate, find_tailed_lines
from hpcxrf.physics.ratios import (
    AIR_PER_MM,
    RatioGroup,
    adjust_ratios,
    adjust_table,
    build_ratio_model,
    find_parents,
    ratio_slopes,
)
from hpcxrf.physics.sample import find_sample_elements, light_sample, mass_shares, own_sample

NAMES = ("Si", "Ca", "Fe", "Sn_L", "Au_M", "Ca_Ca")
INCIDENT_KEV = 10.0


def table(air_mm=10.0, names=NAMES):
    return build_line_table(names, INCIDENT_KEV, efficiency=Detector(air_path_mm=air_mm))


def iron_kbeta(lines):
    return RatioGroup(name="Fe K-beta", member=lines.is_kbeta & (lines.component == 2), sd=0.05)


def light_model(lines):
    parent = lines.energy_kev[find_parents(lines)]
    return build_ratio_model(lines, (iron_kbeta(lines),), light_sample(parent, INCIDENT_KEV))


def own_model(lines, shares=(0.0, 0.3, 0.6, 0.1, 0.0)):
    elements = find_sample_elements(lines, Detector())
    parent = lines.energy_kev[find_parents(lines)]
    sample = own_sample(elements, torch.tensor(shares, dtype=torch.float64), parent, INCIDENT_KEV)
    return replace(light_model(lines), sample=sample)


def q_of(transmission=1.0, light=0.3, air=0.0, kbeta=0.0, kappa=0.0):
    return torch.tensor([transmission, light, air, kbeta, kappa], dtype=torch.float64)


def totals(lines, ratio):
    zero = torch.zeros(len(lines.component_names), dtype=torch.float64)
    return zero.index_add(0, lines.component, ratio)


def by_energy(lines):
    """Ratios of whole lines by component and energy, those within 50 eV together."""
    own = (lines.escape_parent < 0) & (lines.edge_kev > 0.0)
    found = defaultdict(float)
    for i in torch.nonzero(own)[:, 0].tolist():
        found[int(lines.component[i]), round(20.0 * float(lines.energy_kev[i]))] += float(lines.ratio[i])
    return found


@settings(deadline=None, max_examples=30)
@given(st.floats(1e-3, 1.0), st.floats(0.0, 0.98), st.floats(-0.6, 15.0), st.floats(-0.5, 0.5), st.floats(-1.0, 1.0))
def test_an_amplitude_is_still_all_that_was_recorded(transmission, light, air, kbeta, kappa):
    lines = table()
    ratio = adjust_ratios(q_of(transmission, light, air, kbeta, kappa), lines, own_model(lines))
    torch.testing.assert_close(totals(lines, ratio), totals(lines, lines.ratio), rtol=1e-12, atol=0)
    pileup = lines.component == NAMES.index("Ca_Ca")
    torch.testing.assert_close(ratio[pileup], lines.ratio[pileup], rtol=1e-12, atol=0)


def test_where_nothing_is_different_the_ratios_are_those_of_the_table():
    lines = table()
    torch.testing.assert_close(adjust_ratios(q_of(), lines, own_model(lines)), lines.ratio, rtol=1e-6, atol=0)


@pytest.mark.parametrize("more_mm", [-8.0, 20.0])
def test_ratios_are_those_of_that_much_air(more_mm):
    """Of a table that was made with the other air path; argon's edge at 3.2 keV is no power law."""
    lines = table()
    found = by_energy(adjust_table(q_of(air=more_mm * AIR_PER_MM), lines, light_model(lines)))
    before, wanted = by_energy(lines), by_energy(table(10.0 + more_mm))
    assert len(wanted) > 15
    assert max(abs(found[k] - wanted[k]) for k in wanted) < 0.012
    assert max(abs(before[k] - wanted[k]) for k in wanted) > 0.02


def test_the_depth_of_a_millimetre_of_air_is_the_library_s():
    thin, thick = (efficiency(2.0, Detector(air_path_mm=mm)) for mm in (0.0, 10.0))
    assert float(thick / thin) == pytest.approx(2.718281828 ** (-10 * AIR_PER_MM), rel=5e-3)


def test_an_escape_line_is_weakened_as_its_parent():
    lines = table(names=("Ar", "K", "Ca"))
    model = build_ratio_model(lines, (), light_sample(lines.energy_kev[find_parents(lines)], INCIDENT_KEV))
    found = adjust_ratios(q_of(0.5, air=1.0, kbeta=0.1)[:4], lines, model)
    escape = torch.nonzero(lines.escape_parent >= 0)[:, 0]
    parent = lines.escape_parent[escape]
    assert escape.numel() > 0
    torch.testing.assert_close(found[escape] / found[parent], lines.ratio[escape] / lines.ratio[parent])


def test_the_sample_weakens_lines_as_a_layer_integrated_over_its_depth():
    """Against the sum over a thousand slices, each of which weakens beam and line by what lies above."""
    lines = table(names=("Ca", "Fe"))
    shares, light, depth = {20: 0.4, 26: 0.6}, 0.25, 1.7
    elements = find_sample_elements(lines, Detector())
    assert elements.z == (20, 26)
    parent = lines.energy_kev[find_parents(lines)]
    sample = own_sample(elements, torch.tensor([0.4, 0.6], dtype=torch.float64), parent, INCIDENT_KEV)
    found = adjust_ratios(q_of(math.exp(-depth), light)[:4], lines, build_ratio_model(lines, (), sample))

    def absorb(energy_kev):
        return (1 - light) * sum(w * xraylib.CS_Total(z, energy_kev) for z, w in shares.items()) + light * (
            xraylib.CS_Total(8, energy_kev)
        )

    mass = depth / (2.0 * absorb(INCIDENT_KEV))
    above = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000.0 * mass
    leaving = torch.stack([torch.exp(-above * (absorb(INCIDENT_KEV) + absorb(float(e)))).mean() for e in parent])
    wanted = lines.ratio * leaving
    wanted = wanted / totals(lines, wanted)[lines.component]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=0)


def test_a_thick_sample_weakens_lines_by_their_absorption_alone():
    lines = table(names=("Fe",))
    parent = lines.energy_kev[find_parents(lines)]
    model = build_ratio_model(lines, (), light_sample(parent, INCIDENT_KEV))
    found = adjust_ratios(q_of(1e-3)[:4], lines, model)
    wanted = lines.ratio / (1.0 + (INCIDENT_KEV / parent) ** 2.8)
    torch.testing.assert_close(found, wanted / wanted.sum(), rtol=2e-4, atol=0)


@pytest.mark.parametrize("transmission", [1.0, 1.0 - 1e-5, 0.9, 0.3, 2e-3])
def test_the_slopes_are_those_of_finite_differences(transmission):
    lines = table()
    model = own_model(lines)
    q = q_of(transmission, 0.4, 1.2, 0.05, -0.03)
    ratio = adjust_ratios(q, lines, model)
    slopes = ratio_slopes(q, ratio, lines, model)
    for i, step in enumerate((1e-4 * transmission, 1e-5, 1e-5, 1e-5, 1e-5)):
        low, high = q.clone(), q.clone()
        high[i] = min(float(q[i]) + step, 1.0) if i == 0 else q[i] + step
        low[i] -= step
        change = adjust_ratios(high, lines, model).log() - adjust_ratios(low, lines, model).log()
        wanted = torch.where(ratio > 0, change / (high[i] - low[i]), 0.0)
        torch.testing.assert_close(slopes[:, i], wanted, rtol=5e-3, atol=2e-5)


def test_a_thin_sample_still_has_a_derivative():
    """In the logarithm of the depth it had none, and no step found a thick sample from a thin one."""
    lines = table(names=("Ca", "Fe"))
    model = own_model(lines, (0.5, 0.5))
    model = replace(model, linear=model.linear[:, :4])
    slopes = ratio_slopes(q_of()[:4], lines.ratio, lines, model)[:, 0]
    assert float((slopes[lines.is_kbeta]).abs().min()) > 0.01


def spectrum_model(lines, ratios, **options):
    return SpectrumModel(table=lines, channel=channels(60, 1100), constants=PHYSICS, ratios=ratios, **options)


@pytest.mark.parametrize("with_tails", [True, False])
def test_the_analytic_jacobian_agrees_with_forward_differentiation(with_tails):
    lines = table()
    tailed = None if with_tails else find_tailed_lines(lines, elastic=True, constants=PHYSICS)
    model = spectrum_model(lines, own_model(lines), tailed=tailed)
    truth = TRUTH | {"step_offset": 0.01, "escape_factor": 1.2}
    theta = torch.cat([theta_of(**truth), q_of(0.4, 0.3, 0.8, 0.06, 0.02)])
    amplitude = torch.tensor([2e5, 1e5, 2e5, 3e5, 9e5, 1e3, 6e4, 1.6e5], dtype=torch.float64)
    found = counts_jacobian(theta, amplitude, evaluate(theta, model), model)
    wanted = automatic_jacobian(theta, amplitude, model)
    assert found.shape[-1] == theta.shape[0]
    error = (found - wanted).abs().amax(dim=0) / wanted.abs().amax(dim=0).clamp(min=1e-3)
    assert float(error.max()) < 1e-7


def test_an_element_with_k_and_l_lines_counts_by_its_k_lines():
    lines = build_line_table(("Sn_L", "Fe", "Sn", "Fe_Fe"), 35.0, efficiency=Detector())
    elements = find_sample_elements(lines, Detector())
    assert dict(zip(elements.z, elements.component.tolist(), strict=True)) == {26: 1, 50: 2}


def test_mass_shares_are_counts_over_cross_sections():
    lines = table(names=("Ca", "Fe"))
    elements = find_sample_elements(lines, Detector())
    strength = []
    for z in (20, 26):
        emitted = [
            (e, xraylib.CS_FluorLine_Kissel(z, code, INCIDENT_KEV))
            for code in (xraylib.KL2_LINE, xraylib.KL3_LINE, xraylib.KM2_LINE, xraylib.KM3_LINE)
            for e in [xraylib.LineEnergy(z, code)]
        ]
        strength.append(sum(s * float(efficiency(e, Detector())) for e, s in emitted))
    counts, leaving = torch.tensor([3e4, 1e5], dtype=torch.float64), torch.tensor([0.2, 0.5], dtype=torch.float64)
    mass = counts / leaving / torch.tensor(strength, dtype=torch.float64)
    found = mass_shares(elements, counts, leaving)
    torch.testing.assert_close(found, mass / mass.sum(), rtol=2e-3, atol=0)
