"""The K-beta split: its columns, its prior, and the way back to one component a family."""

from dataclasses import fields

import pytest
import torch
from fit_samples import TRUTH, channels, table, theta_of
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcxrf.physics.constants import PHYSICS
from hpcxrf.physics.kbeta import merge_amplitude, merge_table, prior_gram, split_kbeta
from hpcxrf.physics.lines import LineTable
from hpcxrf.physics.model import design_matrix

ORIGINAL = table()
K_FAMILIES = ("Si", "Ca", "Fe", "Zn")


def total_of(lines, name):
    return float(lines.ratio[lines.component == lines.component_names.index(name)].sum())


def test_only_k_families_are_split_and_the_original_components_keep_their_places():
    split, pairs = split_kbeta(ORIGINAL)
    n = len(ORIGINAL.component_names)
    assert split.component_names == (*ORIGINAL.component_names, *(f"{s}_Kb" for s in K_FAMILIES))
    assert [ORIGINAL.component_names[i] for i in pairs.alpha.tolist()] == list(K_FAMILIES)
    assert pairs.beta.tolist() == [n, n + 1, n + 2, n + 3]
    assert len(ORIGINAL.energy_kev) == len(split.energy_kev)


def test_both_parts_sum_to_one_and_rho_is_that_of_the_table():
    split, pairs = split_kbeta(ORIGINAL)
    for name in split.component_names:
        assert total_of(split, name) == pytest.approx(1.0, abs=1e-12)
    iron = K_FAMILIES.index("Fe")
    # K-beta to all of K-alpha, as measured: 0.1353
    assert float(pairs.rho[iron]) == pytest.approx(0.1353, rel=0.01)


def test_escape_lines_go_with_their_parents():
    split, pairs = split_kbeta(ORIGINAL)
    escaped = torch.nonzero(split.escape_parent >= 0)[:, 0]
    parents = split.escape_parent[escaped]
    assert torch.equal(split.component[escaped], split.component[parents])
    assert set(split.component[escaped].tolist()) & set(pairs.beta.tolist())
    original = ORIGINAL.ratio[escaped] / ORIGINAL.ratio[parents]
    torch.testing.assert_close(split.ratio[escaped] / split.ratio[parents], original)


def test_a_family_with_one_part_outside_of_the_range_stays_whole():
    split, pairs = split_kbeta(ORIGINAL, energy_min_kev=1.0, energy_max_kev=7.0)
    assert [ORIGINAL.component_names[i] for i in pairs.alpha.tolist()] == ["Si", "Ca"]
    iron = ORIGINAL.component_names.index("Fe")
    kept = ORIGINAL.component == iron
    assert torch.equal(split.ratio[kept], ORIGINAL.ratio[kept])
    assert "Fe_Kb" not in split.component_names


def test_a_table_without_k_lines_is_as_it_was():
    plain = table(("Ba_L", "Au_M", "Ca_Ca"))
    split, pairs = split_kbeta(plain)
    assert pairs.alpha.numel() == pairs.beta.numel() == 0
    assert same(split, plain)
    assert not prior_gram(pairs, torch.ones(3, dtype=torch.float64), 0.1).any()


def same(one: LineTable, other: LineTable) -> bool:
    for f in fields(one):
        a, b = getattr(one, f.name), getattr(other, f.name)
        equal = torch.allclose(a, b, rtol=1e-14, atol=0) if isinstance(a, torch.Tensor) else a == b
        if not equal:
            return False
    return True


def test_amplitudes_in_the_ratio_of_the_table_merge_to_the_original():
    split, pairs = split_kbeta(ORIGINAL)
    amplitude = torch.rand(len(split.component_names), dtype=torch.float64) + 0.5
    amplitude[pairs.beta] = pairs.rho * amplitude[pairs.alpha]
    assert same(merge_table(ORIGINAL, pairs, amplitude), ORIGINAL)


def test_a_family_without_kalpha_counts_keeps_the_ratio_of_the_table():
    _, pairs = split_kbeta(ORIGINAL)
    amplitude = torch.zeros(len(ORIGINAL.component_names) + 4, dtype=torch.float64)
    amplitude[pairs.beta[0]] = 5.0
    assert same(merge_table(ORIGINAL, pairs, amplitude), ORIGINAL)


@given(st.lists(st.floats(1e-3, 1e7), min_size=4, max_size=4), st.lists(st.floats(0.0, 1e7), min_size=4, max_size=4))
@settings(max_examples=15)
def test_the_two_columns_and_the_merged_one_are_the_same_counts(alphas, betas):
    split, pairs = split_kbeta(ORIGINAL)
    amplitude = torch.ones(len(split.component_names), dtype=torch.float64)
    amplitude[pairs.alpha] = torch.tensor(alphas, dtype=torch.float64)
    amplitude[pairs.beta] = torch.tensor(betas, dtype=torch.float64)
    merged = merge_table(ORIGINAL, pairs, amplitude)
    theta, channel = theta_of(**TRUTH), channels(100, 1300)
    two = design_matrix(theta, split, channel, constants=PHYSICS, elastic=False)
    one = design_matrix(theta, merged, channel, constants=PHYSICS, elastic=False)
    for name in K_FAMILIES:
        i = ORIGINAL.component_names.index(name)
        k = K_FAMILIES.index(name)
        a, b = amplitude[pairs.alpha[k]], amplitude[pairs.beta[k]]
        parts = a * two[:, pairs.alpha[k]] + b * two[:, pairs.beta[k]]
        whole = (a + b) * one[:, i]
        assert float((parts - whole).abs().max()) <= 1e-12 * float(whole.max())
        assert total_of(merged, name) == pytest.approx(1.0, abs=1e-12)


def test_whole_families_have_the_counts_of_both_parts_and_scatter_follows():
    _, pairs = split_kbeta(table(("Fe", "Au_M", "Zn")))
    # Fe, Au_M, Zn, Fe_Kb, Zn_Kb, elastic
    amplitude = torch.tensor([100.0, 7.0, 50.0, 13.0, 8.0, 3.0], dtype=torch.float64)
    assert merge_amplitude(pairs, amplitude).tolist() == [113.0, 7.0, 58.0, 3.0]
    assert amplitude[0] == 100.0


@given(
    st.lists(st.floats(0.0, 1e6), min_size=6, max_size=6),
    st.lists(st.floats(0.0, 1e6), min_size=6, max_size=6),
    st.floats(0.02, 0.5),
)
@settings(max_examples=30)
def test_the_prior_is_the_sum_of_squares_that_it_says(at, tried, sd):
    _, pairs = split_kbeta(table(("Fe", "Au_M", "Zn")))
    width_at, a = (torch.tensor(v, dtype=torch.float64) for v in (at, tried))
    form = float(a @ prior_gram(pairs, width_at, sd) @ a)
    by_hand = 0.0
    for i, j, rho in ((0, 3, float(pairs.rho[0])), (2, 4, float(pairs.rho[1]))):
        by_hand += ((tried[j] - rho * tried[i]) / (sd * rho * max(at[i], 1.0))) ** 2
    assert form == pytest.approx(by_hand, rel=1e-9, abs=1e-6 * (1.0 + by_hand))


def test_the_prior_of_a_batch_is_that_of_its_members():
    _, pairs = split_kbeta(ORIGINAL)
    amplitude = 1e3 * torch.rand((3, 2, len(ORIGINAL.component_names) + 5), dtype=torch.float64)
    batch = prior_gram(pairs, amplitude, 0.15)
    assert batch.shape == (3, 2, 12, 12)
    assert torch.equal(batch[1, 1], prior_gram(pairs, amplitude[1, 1], 0.15))
