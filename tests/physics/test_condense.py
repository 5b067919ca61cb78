"""A condensed line table against the whole one: what is conserved, what must stay apart, what it costs."""

from dataclasses import replace

import pytest
import torch
from fit_samples import table
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcxrf.physics.condense import TAILED_RATIO, condense
from hpcxrf.physics.detector import Detector
from hpcxrf.physics.lines import build_line_table, build_table_from_arrays

K_FAMILIES = ("Si", "S", "Ca", "Fe", "Zn", "As", "Br", "Sr", "Mo")
L_FAMILIES = ("Mo_L", "Cd_L", "Ba_L", "La_L", "Gd_L", "W_L", "Pt_L", "Pb_L", "U_L")
M_FAMILIES = ("W_M", "Pt_M", "Au_M", "Pb_M", "Bi_M", "U_M")
HIGH_KEV = 22.5
FEW = st.lists(st.sampled_from(K_FAMILIES + L_FAMILIES + M_FAMILIES), min_size=1, max_size=3, unique=True)
SIGMA_130_EV = 0.130 / 2.354820045


def sums(lines, values=None, mask=None):
    """By component: the sum of ratio times values."""
    weight = lines.ratio if values is None else lines.ratio * values
    weight = weight if mask is None else torch.where(mask, weight, 0.0)
    return torch.zeros(len(lines.component_names), dtype=torch.float64).index_add(0, lines.component, weight)


def spectrum(lines, sigma_kev, component):
    """Gaussians at the lines of one component, computed here, (energy,)."""
    mine = lines.component == component
    energy, ratio = lines.energy_kev[mine], lines.ratio[mine]
    grid = torch.arange(0.0, HIGH_KEV, 0.005, dtype=torch.float64)
    shape = torch.exp(-0.5 * ((grid[:, None] - energy) / sigma_kev) ** 2)
    return shape @ ratio


@given(FEW, st.sampled_from([0.0, 1e-3]))
@settings(max_examples=30)
def test_counts_and_mean_energy_of_every_component_are_conserved(names, faint):
    whole = table(tuple(names), HIGH_KEV, minimum_ratio=faint)
    short = condense(whole)
    assert short.component_names == whole.component_names
    assert short.ratio.shape[0] <= whole.ratio.shape[0]
    for values in ("energy_kev", "mu_per_um"):
        torch.testing.assert_close(
            sums(short, getattr(short, values)), sums(whole, getattr(whole, values)), rtol=1e-12, atol=0.0
        )
    torch.testing.assert_close(sums(short), torch.ones(len(names)).double())


@given(FEW)
@settings(max_examples=30)
def test_kalpha_kbeta_and_escape_lines_keep_their_own_counts(names):
    whole = table(tuple(names), HIGH_KEV)
    short = condense(whole)
    for of in (lambda t: t.is_kbeta, lambda t: t.escape_parent >= 0, lambda t: t.is_kbeta & (t.escape_parent < 0)):
        torch.testing.assert_close(sums(short, mask=of(short)), sums(whole, mask=of(whole)))


@given(st.floats(0.02, 0.5), st.floats(0.0, 0.03))
def test_no_detector_of_130_ev_tells_two_lines_from_their_mean(share, distance_kev):
    whole = _pair(distance_kev, ratio=[1.0 - share, share])
    full = spectrum(whole, SIGMA_130_EV, 0)
    change = (spectrum(condense(whole), SIGMA_130_EV, 0) - full).abs().max()
    assert float(change) < 1e-3 * float(full.max())


@pytest.mark.parametrize("name", K_FAMILIES + L_FAMILIES + M_FAMILIES)
def test_a_detector_of_130_ev_hardly_tells_the_tables_apart(name):
    """Where many lines become one, each adds its own widening: up to 2e-3 of the peak (lead, gadolinium)."""
    whole = table((name,), HIGH_KEV, minimum_ratio=1e-3)
    full = spectrum(whole, SIGMA_130_EV, 0)
    change = (spectrum(condense(whole), SIGMA_130_EV, 0) - full).abs().max()
    assert float(change) < (1e-3 if name in K_FAMILIES else 2.5e-3) * float(full.max())


def test_an_l_family_becomes_shorter():
    assert condense(table(("Pb_L",), HIGH_KEV)).ratio.shape[0] <= 22  # of 30


def _pair(distance_kev=0.004, **columns):
    """Two lines 4 eV apart that differ in one thing: .6 x .4 x .004^2 = 3.8e-6 keV^2 of widening."""
    given = {"ratio": [0.6, 0.4], "edge_kev": 0.0, "has_tail": True} | columns
    return build_table_from_arrays(
        component_names=["X"], component=[0, 0], energy_kev=[6.4, 6.4 + distance_kev], incident_energy_kev=12.0, **given
    )


def test_two_lines_that_differ_in_nothing_become_one_at_their_mean():
    short = condense(_pair())
    assert short.ratio.tolist() == pytest.approx([1.0])
    assert short.energy_kev.tolist() == pytest.approx([6.4016])


@pytest.mark.parametrize(
    "columns",
    [{"is_kbeta": [False, True]}, {"has_tail": [True, False]}, {"edge_kev": [11.5, 11.7]}, {"edge_kev": [7.1, 11.7]}],
    ids=["kbeta", "tail", "edges-near", "one-edge-near"],
)
def test_lines_that_differ_in_what_matters_stay_apart(columns):
    lines = _pair(**columns)
    short = condense(lines)
    assert short.ratio.tolist() == [0.6, 0.4]
    assert short.energy_kev.tolist() == pytest.approx(lines.energy_kev.tolist(), rel=1e-14)
    assert short.edge_kev.tolist() == lines.edge_kev.tolist()


def test_an_escape_line_stays_apart_from_the_line_it_lies_on():
    lines = replace(_pair(), escape_parent=torch.tensor([-1, 0]))
    short = condense(lines)
    assert short.ratio.tolist() == [0.6, 0.4]
    assert short.escape_parent.tolist() == [-1, 0]
    assert short.has_tail.tolist() == [True, False]


def test_edges_far_below_the_incident_energy_are_all_the_same():
    short = condense(_pair(edge_kev=[7.1, 7.3]))
    assert short.ratio.tolist() == pytest.approx([1.0])
    assert short.edge_kev.tolist() == [7.1]  # of the stronger one


def test_lines_of_two_components_never_become_one():
    both = replace(_pair(), component_names=("X", "Y"), component=torch.tensor([0, 1]))
    assert condense(both).component.tolist() == [0, 1]


def test_lines_are_merged_up_to_the_widening_and_the_distance_asked_for():
    # .6 x .4 / 1 x .01^2 = 2.4e-5 keV^2 of widening at 10 eV.
    assert condense(_pair(0.01), widening_kev2=2.5e-5).ratio.shape == (1,)
    assert condense(_pair(0.01), widening_kev2=2.3e-5).ratio.shape == (2,)
    assert condense(_pair(0.01), widening_kev2=1.0, within_kev=0.009).ratio.shape == (2,)


def test_the_lines_of_an_edge_near_the_incident_energy_can_still_be_switched_off():
    incident_kev = 13.2  # the L3 and L2 edges of lead lie at 13.04 and 15.20 keV
    whole = table(("Pb_L", "Pt_L"), incident_kev)
    short = condense(whole)
    near = whole.edge_kev >= incident_kev - 0.6
    assert bool(near.any())
    for edge in whole.edge_kev[near].unique().tolist():
        torch.testing.assert_close(sums(short, mask=short.edge_kev == edge), sums(whole, mask=whole.edge_kev == edge))


@given(FEW, st.sampled_from([1e-3, 0.02, 0.05]))
@settings(max_examples=20)
def test_faint_lines_go_and_the_others_make_up_for_them(names, least):
    short = condense(table(tuple(names), HIGH_KEV), minimum_ratio=least)
    torch.testing.assert_close(sums(short), torch.ones(len(names)).double())
    assert float(short.ratio.min()) >= least
    merged = condense(table(tuple(names), HIGH_KEV))
    kept = merged.ratio >= least
    assert short.energy_kev.tolist() == merged.energy_kev[kept].tolist()
    raised = sums(merged)[short.component] / sums(merged, mask=kept)[short.component]
    torch.testing.assert_close(short.ratio, merged.ratio[kept] * raised)


@given(FEW)
@settings(max_examples=20)
def test_strong_lines_alone_have_a_tail_and_escape_lines_name_a_parent_of_their_own(names):
    for short in (condense(table(tuple(names), HIGH_KEV)), condense(table(tuple(names), HIGH_KEV), minimum_ratio=0.01)):
        escape = short.escape_parent >= 0
        parent = short.escape_parent[escape]
        assert torch.equal(short.component[parent], short.component[escape])
        assert not bool((short.escape_parent[parent] >= 0).any())
        assert not bool((short.has_tail & escape).any())
    short = condense(table(tuple(names), HIGH_KEV))
    assert torch.equal(short.has_tail, (short.ratio >= TAILED_RATIO) & (short.escape_parent < 0))


def test_the_table_that_is_condensed_is_not_changed():
    whole = table(("Fe", "Pb_L"), HIGH_KEV)
    before = whole.ratio.clone(), whole.energy_kev.clone()
    condense(whole, minimum_ratio=0.05)
    assert torch.equal(whole.ratio, before[0])
    assert torch.equal(whole.energy_kev, before[1])


def test_a_component_of_faint_lines_alone_is_left_without_any():
    """A user's component of 60 equal lines: none holds a fiftieth."""
    lines = {"X": [(2.0 + 0.1 * i, 1.0) for i in range(60)]}
    table = build_line_table(("X",), 12.0, efficiency=Detector(), user_lines=lines)
    short = condense(table, minimum_ratio=0.02)
    assert short.component_names == ("X",)
    assert [len(one) for one in (short.energy_kev, short.ratio, short.escape_parent)] == [0, 0, 0]
    assert float(condense(table).ratio.sum()) == pytest.approx(1.0)
