"""What a tube problem is fitted with: subshells as the tube excites them, and copies of the anode's lines."""

import math
from dataclasses import replace

import pytest
import torch
import xraylib

from hpcxrf.errors import FitError
from hpcxrf.physics.anode_scatter import adjust_copies, keep_main_series, list_strong_copies
from hpcxrf.physics.constants import PHYSICS
from hpcxrf.physics.detector import Detector, efficiency
from hpcxrf.physics.jacobian import automatic_jacobian, counts_jacobian
from hpcxrf.physics.lines import build_line_table
from hpcxrf.physics.model import COMPTON, ELASTIC, SpectrumModel, bin_width_kev, energy_kev, evaluate
from hpcxrf.physics.parameters import INDEX, PARAMETERS, pack, replace_values
from hpcxrf.physics.ratios import RatioGroup, build_ratio_model
from hpcxrf.physics.sample import light_sample
from hpcxrf.physics.scatter import compton_shape
from hpcxrf.physics.tube import Tube, find_anode_lines, subshell_excitation
from hpcxrf.physics.tube_table import build_tube_table, find_scatter_copies

RH = Tube(anode="Rh", kv=40.0)
W = Tube(anode="W", kv=35.0)
DETECTOR = Detector()


def theta_of(**values):
    start = {"coherent_sct_energy": 20.2, "energy_slope": 0.02, "energy_offset": 0.0, "compton_angle": 120.0}
    return pack(replace_values(PARAMETERS, start | values))


# --- copies -------------------------------------------------------------------------------------


def test_the_main_series_is_k_where_its_lines_are_in_the_range_else_l():
    assert find_scatter_copies(RH, DETECTOR).main == "K"
    assert find_scatter_copies(RH, DETECTOR, highest_kev=15.0).main == "L"
    assert find_scatter_copies(W, DETECTOR).main == "L"
    with pytest.raises(FitError, match=r"Rh tube at 40 kV has no line from 5 to 15 keV"):
        find_scatter_copies(RH, DETECTOR, lowest_kev=5.0, highest_kev=15.0)


def test_shares_of_a_series_sum_to_one_and_lines_keep_the_ratios_of_tube_detector_and_cross_section():
    copies = find_scatter_copies(RH, DETECTOR)
    for values in (copies.elastic, copies.compton):
        for chosen in (copies.is_main, ~copies.is_main):
            assert float(values[chosen].sum()) == pytest.approx(1.0, abs=1e-3)
    lines = {line.name: line for line in find_anode_lines(RH)}
    expected = {
        name: lines[name].photons
        * float(efficiency(lines[name].energy_kev, DETECTOR))
        * xraylib.CS_Rayl_CP("SiO2", lines[name].energy_kev)
        for name in ("KL3", "KL2")
    }
    place = {name: int((copies.energy_kev - lines[name].energy_kev).abs().argmin()) for name in expected}
    ratio = float(copies.elastic[place["KL2"]] / copies.elastic[place["KL3"]])
    assert ratio == pytest.approx(expected["KL2"] / expected["KL3"], rel=1e-9)
    assert copies.subshell[place["KL3"]] == "K"


def test_a_subshell_that_stands_higher_does_so_in_both_columns_and_shares_still_sum_to_one():
    copies = find_scatter_copies(W, DETECTOR)
    is_l2 = torch.tensor([one == "L2" for one in copies.subshell])
    raised = adjust_copies(copies, is_l2.double() * math.log(1.5))
    for before, after in ((copies.elastic, raised.elastic), (copies.compton, raised.compton)):
        assert float(after.sum()) == pytest.approx(1.0, abs=1e-12)
        odds = (after[is_l2].sum() / after[~is_l2].sum()) / (before[is_l2].sum() / before[~is_l2].sum())
        assert float(odds) == pytest.approx(1.5, rel=1e-9)


# --- the table ----------------------------------------------------------------------------------


def test_families_have_the_subshells_that_the_tube_excites():
    table = build_tube_table(["Ca", "Sb_L"], RH, detector=DETECTOR)
    assert table.component_names == ("Ca", "Sb_L")
    for i in range(2):
        assert float(table.ratio[table.component == i].sum()) == pytest.approx(1.0)
    plain = build_line_table(["Ca", "Sb_L"], RH.kv, efficiency=DETECTOR)
    mine = plain.component == 1
    found = table.ratio[: len(plain.ratio)][mine]
    edges = {shell: xraylib.EdgeEnergy(51, getattr(xraylib, f"{shell}_SHELL")) for shell in ("L1", "L3")}
    share = {s: float(found[plain.edge_kev[mine] == e].sum()) for s, e in edges.items()}
    before = {s: float(plain.ratio[mine][plain.edge_kev[mine] == e].sum()) for s, e in edges.items()}
    excitation = {s: subshell_excitation(RH, 51, s) for s in edges}
    odds = (share["L1"] / share["L3"]) / (before["L1"] / before["L3"])
    assert odds == pytest.approx(excitation["L1"] / excitation["L3"], rel=1e-9)
    assert abs(odds - 1.0) > 0.02
    torch.testing.assert_close(table.ratio[: len(plain.ratio)][~mine], plain.ratio[~mine])


def test_a_family_that_photons_of_the_effective_energy_would_not_excite_is_not_refused():
    table = build_tube_table(["Ag"], RH, detector=DETECTOR)
    assert float(table.energy_kev[table.component == 0].max()) > 24.0
    with pytest.raises(FitError, match="La: K edge"):
        build_tube_table(["La"], Tube(anode="Rh", kv=30.0), detector=DETECTOR)


def model_of(tube, channel, **options):
    table = build_tube_table(["Fe"], tube, detector=DETECTOR)
    copies = find_scatter_copies(tube, DETECTOR)
    return SpectrumModel(table=table, channel=channel, constants=PHYSICS, elastic=False, copies=copies, **options)


def test_the_model_draws_an_elastic_peak_at_every_line_and_none_at_the_incident_energy():
    channel = torch.arange(1, 1500, dtype=torch.float64)
    theta = theta_of(coherent_sct_energy=35.0)
    model = model_of(W, channel)
    assert model.component_names == ("Fe", ELASTIC, COMPTON)
    column = evaluate(theta, model).phi[:, 1]
    energy = energy_kev(theta, channel)
    assert float(column.sum()) == pytest.approx(1.0, abs=0.02)
    la, lb = (float(column[(energy - e).abs() < 0.05].sum()) for e in (8.398, 9.672))
    assert min(la, lb) > 0.02
    assert float(column[(energy - 25.0).abs() < 0.5].sum()) < 1e-6


def test_the_other_series_of_the_anode_has_an_elastic_column_of_its_own():
    channel = torch.arange(1, 1500, dtype=torch.float64)
    model = model_of(RH, channel)
    assert model.component_names == ("Fe", ELASTIC, "ANODE_L_SCT", COMPTON)
    phi, energy = evaluate(theta_of(), model).phi, energy_kev(theta_of(), channel)
    assert float(phi[(energy - 2.7).abs() < 0.4, 2].sum()) > 0.9
    assert float(phi[(energy - 20.2).abs() < 0.4, 2].sum()) < 1e-6
    kept = keep_main_series(model.copies)
    assert kept.other_names == ()
    assert set(kept.subshell) == {"K"}


def test_strong_copies_are_the_lines_that_people_know_a_tube_by():
    strong = [energy for energy, _ in list_strong_copies(find_scatter_copies(W, DETECTOR))]
    assert strong[0] == pytest.approx(8.398, abs=0.01)
    assert any(abs(energy - 9.67) < 0.02 for energy in strong)


# --- Compton ------------------------------------------------------------------------------------


def compton_of(theta, model):
    return evaluate(theta, model).phi[..., -1] / bin_width_kev(theta, model.channel, PHYSICS)


def test_the_compton_column_is_the_weighted_sum_of_the_profiles_of_the_lines():
    theta, channel = theta_of(), torch.arange(600, 1200, dtype=torch.float64)
    model = model_of(RH, channel)
    copies, energy = model.copies, energy_kev(theta, channel)
    expected = torch.zeros_like(energy)
    chosen = copies.is_main
    share = copies.compton[chosen] / copies.compton[chosen].sum()
    for line, weight in zip(copies.energy_kev[chosen], share, strict=True):
        moved = theta.clone()
        moved[INDEX["coherent_sct_energy"]] = line
        expected += weight * compton_shape(moved, energy, PHYSICS).density
    torch.testing.assert_close(compton_of(theta, model), expected)
    # The peak of K-alpha stands where Compton's formula has it.
    peak = float(energy[expected.argmax()])
    assert peak == pytest.approx(20.19 / (1 + 20.19 / 511.0 * (1 - math.cos(math.radians(120.0)))), abs=0.1)
    counts = expected * bin_width_kev(theta, channel, PHYSICS)
    assert float(counts.sum()) == pytest.approx(1.0, abs=0.03)


def test_the_incident_energy_moves_no_copy_and_batches_are_the_single_ones():
    model = model_of(RH, torch.arange(800, 1100, dtype=torch.float64))
    thetas = torch.stack([theta_of(), theta_of(coherent_sct_energy=33.0), theta_of(compton_angle=100.0)])
    found = evaluate(thetas, model).phi
    assert torch.equal(found[0, :, 1:], found[1, :, 1:])
    assert not torch.allclose(found[0], found[2])
    for i in range(3):
        torch.testing.assert_close(found[i], evaluate(thetas[i], model).phi)


@pytest.mark.parametrize("tube", [RH, W], ids=["Rh", "W"])
def test_derivatives_by_theta_and_by_the_heights_of_subshells_are_the_automatic_ones(tube):
    channel = torch.arange(100, 1150, 3, dtype=torch.float64)
    plain = model_of(tube, channel)
    table, copies = plain.table, plain.copies
    none = torch.zeros_like(table.is_kbeta)
    groups = tuple(
        RatioGroup(name=one, member=none, sd=0.3, copies=torch.tensor([s == one for s in copies.subshell]))
        for one in ("L1", "L2")
    )
    ratios = build_ratio_model(table, groups, light_sample(table.energy_kev, table.incident_energy_kev))
    model = replace(plain, ratios=ratios)
    q = torch.tensor([0.5, 0.3, 0.2, 0.05, 0.3, -0.2], dtype=torch.float64)
    theta = torch.cat([theta_of(compton_f_tail=0.2, compton_hi_f_tail=0.1, coherent_sct_energy=tube.kv), q])
    amplitude = torch.linspace(1e5, 3e5, len(model.component_names), dtype=torch.float64)
    found = counts_jacobian(theta, amplitude, evaluate(theta, model), model)
    expected = automatic_jacobian(theta, amplitude, model)
    scale = expected.abs().amax(dim=0).clamp(min=1.0)
    assert float(((found - expected) / scale).abs().max()) < 1e-6
    assert float(expected[:, -2:].abs().max()) > 10.0
