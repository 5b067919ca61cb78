"""The columns of the design matrix: lines, edges, pile-up, escape, steps and tails, each computed another way."""

import numpy as np
import pytest
import torch
from fit_samples import channels, one_line, table, theta_of
from scipy.stats import norm

from hpcxrf.physics.constants import PHYSICS
from hpcxrf.physics.lines import build_table_from_arrays
from hpcxrf.physics.model import COMPTON, ELASTIC, SpectrumModel, design_matrix, evaluate
from hpcxrf.physics.parameters import PARAMETERS, replace_values
from hpcxrf.physics.scatter import compton_shape, line_sigma_kev
from tests.samples.columns import NO_LOSS, TABLE, column, f64


def test_the_switch_passes_lines_above_their_edge_and_stops_the_others():
    lines = one_line(6.4, edge_kev=7.112)
    channel = channels(400, 800)
    below, at, above = (float(column(lines, channel, coherent_sct_energy=e).sum()) for e in (7.0, 7.112, 7.3))
    assert below < 1e-9
    assert at == pytest.approx(0.5, abs=1e-6)
    assert above == pytest.approx(1.0, abs=1e-6)


def test_ten_ev_above_the_edge_seven_eighths_of_a_line_are_on():
    # The switch is 5 eV wide: 1 / (1 + exp(-2)) = 0.880797
    found = column(one_line(6.4, edge_kev=7.112), channels(300, 900), coherent_sct_energy=7.122)
    assert float(found.sum()) == pytest.approx(0.880797, abs=1e-6)


def test_a_line_without_an_edge_is_never_switched_off():
    found = column(one_line(15.0, edge_kev=0.0), channels(1200, 1800), coherent_sct_energy=4.0)
    assert float(found.sum()) == pytest.approx(1.0, abs=1e-6)


def test_a_component_without_any_line_is_a_column_of_zeros_in_its_place():
    lines = build_table_from_arrays(
        component_names=["A", "none", "B"], component=[0, 2], energy_kev=[4.0, 8.0], ratio=1.0, incident_energy_kev=12.0
    )
    phi = design_matrix(theta_of(coherent_sct_energy=12.0), lines, channels(0, 1400), constants=PHYSICS)
    assert phi.shape[-1] == 5
    assert float(phi[:, 1].abs().max()) == 0.0
    assert [int(phi[:, i].argmax()) for i in (0, 2, 3)] == [400, 800, 1200]


def test_a_table_without_components_leaves_the_two_scatter_columns():
    phi = design_matrix(theta_of(coherent_sct_energy=12.0), table(()), channels(0, 1500), constants=PHYSICS)
    assert phi.shape[-1] == 2
    assert int(phi[:, 0].argmax()) == 1200


def test_a_tube_has_no_elastic_column_and_the_others_stay():
    theta, channel = theta_of(coherent_sct_energy=12.0), channels(100, 1400)
    beam = design_matrix(theta, TABLE, channel, constants=PHYSICS)
    tube = design_matrix(theta, TABLE, channel, constants=PHYSICS, elastic=False)
    torch.testing.assert_close(tube, torch.cat([beam[:, :-2], beam[:, -1:]], dim=1))
    model = SpectrumModel(table=TABLE, channel=channel, constants=PHYSICS, elastic=False)
    assert model.component_names == (*TABLE.component_names, COMPTON)


def test_a_tube_without_components_leaves_the_compton_column_alone():
    theta, channel = theta_of(coherent_sct_energy=12.0), channels(100, 1400)
    beam = design_matrix(theta, TABLE, channel, constants=PHYSICS)
    tube = design_matrix(theta, table(()), channel, constants=PHYSICS, elastic=False)
    torch.testing.assert_close(tube, beam[:, -1:])


def test_the_columns_are_named_in_their_order():
    model = SpectrumModel(table=TABLE, channel=channels(0, 9), constants=PHYSICS)
    assert model.component_names == ("Ca", "Fe", "Ba_L", "Au_M", "Ca_Ca", ELASTIC, COMPTON)


def test_pile_up_columns_are_sums_of_gaussians_without_a_tail():
    channel, values = channels(0, 1300), {"coherent_sct_energy": 12.0, "energy_slope": 0.01}
    theta = theta_of(f_tail_offset=0.15, kb_f_tail_offset=0.25, **values)
    for name in ("Ca_Ca", "Si_Fe"):
        lines = table((name,), 12.0, escape=False)
        found = design_matrix(theta, lines, channel, constants=PHYSICS)[:, 0].numpy()
        sigma = line_sigma_kev(theta, lines.energy_kev, PHYSICS).numpy()
        by_hand = sum(
            0.01 * r * norm.pdf(0.01 * channel.numpy(), e, s)
            for e, r, s in zip(lines.energy_kev.tolist(), lines.ratio.tolist(), sigma, strict=True)
        )
        np.testing.assert_allclose(found, by_hand, atol=1e-15)
        assert found.sum() == pytest.approx(1.0, abs=1e-6)


def test_calcium_pile_up_peaks_at_twice_kalpha():
    channel = channels(0, 1300)
    found = column(table(("Ca_Ca",), 12.0), channel, coherent_sct_energy=12.0, energy_slope=0.01)
    # 2 * 3.6905 keV (mean of Ka1 3.6917 and Ka2 3.6881 by 2:1)
    assert 0.01 * int(found.argmax()) == pytest.approx(7.38, abs=0.011)


def test_kbeta_takes_its_own_tail_and_the_other_lines_do_not():
    lines = build_table_from_arrays(
        component_names=["A", "B"],
        component=[0, 1],
        energy_kev=[5.0, 9.0],
        ratio=1.0,
        is_kbeta=[False, True],
        incident_energy_kev=12.0,
    )
    channel = channels(0, 1400)
    base = {"coherent_sct_energy": 12.0, "energy_offset": 0.0}
    plain, kbeta, kalpha = (
        design_matrix(theta_of(**base, f_tail_offset=a, kb_f_tail_offset=b), lines, channel, constants=PHYSICS)
        for a, b in ((0.0, 0.0), (0.0, 0.2), (0.1, 0.0))
    )
    torch.testing.assert_close(kbeta[:, 0], plain[:, 0])
    torch.testing.assert_close(kalpha[:, 1], plain[:, 1])
    assert float((kbeta[:, 1] - plain[:, 1]).abs().max()) > 1e-3
    assert float((kalpha[:, 0] - plain[:, 0]).abs().max()) > 1e-3


def test_step_and_linear_tail_grow_with_the_absorption_at_the_line():
    """Shelf height 1 / (2 E) per count of step fraction, on both sides of the folded edge."""
    mu, energy = 0.04, 6.0
    found = column(
        one_line(energy, mu_per_um=mu),
        channels(0, 999),
        step_offset=0.05,
        step_linear=0.01,
        f_tail_offset=0.0,
        energy_offset=0.0,
    )
    share = mu * (0.05 + 0.01 * energy)
    assert float(found[200]) == pytest.approx(0.01 * share / (1 + share) / energy, rel=1e-9)
    assert float(found[900]) == pytest.approx(0.0, abs=1e-30)
    tailed = column(one_line(energy, mu_per_um=mu), channels(0, 999), f_tail_offset=0.0, f_tail_linear=0.1)
    same = column(one_line(energy), channels(0, 999), f_tail_offset=0.1 * mu)
    torch.testing.assert_close(tailed, same)


def test_the_decay_length_grows_with_the_energy_of_the_line():
    steep = column(one_line(6.0), channels(0, 999), gamma_offset=1.5, gamma_linear=0.25)
    flat = column(one_line(6.0), channels(0, 999), gamma_offset=3.0)
    torch.testing.assert_close(steep, flat)


def test_the_escape_factor_scales_the_escape_peak_and_leaves_its_parent():
    lines = build_table_from_arrays(
        component_names=["A", "A"],
        component=[0, 1],
        energy_kev=[6.4, 4.66],
        ratio=[1.0, 0.01],
        escape_parent=[-1, 0],
        incident_energy_kev=12.0,
    )
    channel = channels(0, 1400)
    off, one, two = (
        design_matrix(theta_of(coherent_sct_energy=12.0, escape_factor=f), lines, channel, constants=PHYSICS)
        for f in (0.0, 1.0, 2.0)
    )
    torch.testing.assert_close(off[:, 0], one[:, 0])
    assert float(off[:, 1].abs().max()) == 0.0
    assert float(one[:, 1].sum()) == pytest.approx(0.01, rel=1e-6)
    torch.testing.assert_close(two[:, 1], 2.0 * one[:, 1])


def test_without_step_the_columns_are_those_of_a_step_of_zero():
    theta, channel = theta_of(coherent_sct_energy=12.0), channels(100, 1300)
    full = SpectrumModel(table=TABLE, channel=channel, constants=PHYSICS)
    lean = SpectrumModel(table=TABLE, channel=channel, constants=PHYSICS, with_step=False)
    torch.testing.assert_close(evaluate(theta, lean).phi, evaluate(theta, full).phi)


def test_the_compton_step_is_a_shelf_below_its_peak():
    theta = theta_of(coherent_sct_energy=12.0, compton_f_step=0.1, energy_offset=0.0, **NO_LOSS)
    shape = compton_shape(theta, f64([5.0, 14.0]), PHYSICS)
    centre = 12.0 / (1.0 + 12.0 / 510.99895)
    assert float(shape.density[0]) == pytest.approx(0.1 / 1.1 / centre, rel=1e-9)
    assert float(shape.density[1]) == pytest.approx(0.0, abs=1e-20)


def test_starting_values_outside_the_bounds_widen_them_and_wrong_names_are_refused():
    wide = {p.name: p for p in replace_values(PARAMETERS, {"energy_slope": 0.07})}
    # Ten steps beyond it: at a bound it could not move.
    assert wide["energy_slope"].upper == pytest.approx(0.07 + 10 * 1e-5)
    assert wide["energy_slope"].lower == 0.002
    with pytest.raises(KeyError, match="no_such"):
        replace_values(PARAMETERS, {"no_such": 1.0})
