"""Size of the flaws of a model, from residuals that are drawn with a known one."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from fit_samples import amplitudes, drawn, expected_counts, setup, table

from hpcxrf.fitting.model_error import Flaws, VisibleFlaws, estimate_model_error, multiply_flaws, project_flaws
from hpcxrf.fitting.spectrum.integrated import fit_spectrum
from hpcxrf.fitting.spectrum.mismatch import evaluate_fit, find_flaws

TABLE = table(("Si", "Ca", "Fe", "Zn", "Ba_L"))


def visible_of(k, count, seed):
    """Directions of one to 1e6 variances of noise, with squares that a model with flaws of size k has."""
    rng = np.random.default_rng(seed)
    variance = 10.0 ** rng.uniform(0.7, 6.0, count)
    amount = rng.normal(size=count) * np.sqrt(1.0 + k**2 * variance)
    return VisibleFlaws(variance=torch.from_numpy(variance), square=torch.from_numpy(amount**2))


@pytest.mark.parametrize("k", [0.1, 0.5, 2.0])
def test_the_size_of_the_flaws_is_found_from_many_directions(k):
    found = [estimate_model_error(visible_of(k, 400, seed)) for seed in range(5)]
    assert np.mean(found) == pytest.approx(k, rel=0.1)


def test_few_directions_are_drawn_to_the_usual_size_as_by_three_more():
    # Squares of exactly the median of chi2 at k = 2: 4 directions and 3 of .5.
    variance = torch.full((4,), 100.0).double()
    visible = VisibleFlaws(variance=variance, square=0.4549364 * (1.0 + 4.0 * variance))
    expected = math.exp((4 * math.log(2.0) + 3 * math.log(0.5)) / 7)
    assert estimate_model_error(visible) == pytest.approx(expected, rel=1e-3)
    three = VisibleFlaws(variance=variance[:3], square=visible.square[:3])
    assert estimate_model_error(three) == 0.5


def test_an_element_that_is_missing_does_not_make_the_flaws_large():
    clean = visible_of(0.5, 100, 1)
    square = clean.square.clone()
    square[:15] *= 1e4
    spoilt = VisibleFlaws(variance=clean.variance, square=square)
    assert estimate_model_error(spoilt) < 1.6 * estimate_model_error(clean)


def test_directions_are_those_of_a_singular_value_decomposition():
    rng = np.random.default_rng(3)
    explained, flaws, residual = rng.normal(size=(60, 4)), rng.normal(size=(60, 7)) * 3.0, rng.normal(size=60)
    explained = np.column_stack([explained, explained[:, 0] * 2.0])
    got = project_flaws(
        multiply_flaws(
            torch.from_numpy(explained),
            torch.from_numpy(residual),
            Flaws(columns=torch.from_numpy(flaws), owner=torch.full((7,), -1)),
        )
    )
    basis, _ = np.linalg.qr(explained[:, :4])
    project = np.eye(60) - basis @ basis.T
    left, size, _ = np.linalg.svd(project @ flaws, full_matrices=False)
    np.testing.assert_allclose(got.variance.numpy()[::-1], size**2, rtol=1e-9)
    np.testing.assert_allclose(got.square.numpy()[::-1], (left.T @ project @ residual) ** 2, rtol=1e-8)


def flaws_of(total=1e6):
    fit = fit_spectrum(drawn(sum(expected_counts(total, lines=TABLE)), 1), setup(TABLE))
    point = evaluate_fit(fit, setup(TABLE)).at
    return point, find_flaws(point, setup(TABLE).detector)


def test_flaws_of_the_ratios_leave_the_counts_of_a_family_as_they_are():
    """Columns that are owned by a family add up to nothing over the channels, but for a lost escape and the ends."""
    point, flaws = flaws_of()
    counts = flaws.columns / point.weights.sqrt()[:, None]
    share = (counts.sum(dim=0).abs() / counts.abs().sum(dim=0))[flaws.owner == 2]
    # Iron: ratio, absorption, position, widths, tails; its faint escapes add counts.
    assert int((share < 0.02).sum()) >= 6
    assert int((share > 0.5).sum()) <= 1


def test_a_model_of_the_truth_has_small_flaws_and_a_wrong_ratio_larger_ones():
    mean = sum(expected_counts(1e7, lines=TABLE))
    # Lines without an edge are a user's own: their ratios are not fitted.
    held = replace(TABLE, edge_kev=torch.zeros_like(TABLE.edge_kev))
    right = fit_spectrum(drawn(mean, 5), setup(held))
    bent = TABLE.ratio * torch.where(TABLE.is_kbeta, 1.15, 1.0)
    sums = torch.zeros(5).double().index_add_(0, TABLE.component, bent)
    wrong = fit_spectrum(drawn(mean, 5), setup(replace(held, ratio=bent / sums[TABLE.component])))
    assert right.model_error < 0.1
    assert wrong.model_error > 2.0 * right.model_error
    pull = ((wrong.amplitude - amplitudes(1e7, TABLE)) / wrong.amplitude_sigma).abs()
    noise = ((wrong.amplitude - amplitudes(1e7, TABLE)) / wrong.errors.variances.amplitude.sqrt()).abs()
    assert float(pull.max()) < float(noise.max())


def test_the_fit_of_a_part_takes_the_size_of_the_flaws_that_the_whole_has_shown():
    counts = drawn(sum(expected_counts(1e5, lines=TABLE)), 1)
    assert fit_spectrum(counts, setup(TABLE, model_error=0.9)).model_error == 0.9


def test_air_before_the_detector_moves_no_more_of_a_family_than_its_lines_differ():
    """An escape line lies where air absorbs all, but what was absorbed is its parent."""
    lines = table(("P", "Fe", "Zn"))
    fit = fit_spectrum(drawn(sum(expected_counts(1e6, lines=lines)), 1), setup(lines))
    point = evaluate_fit(fit, setup(lines)).at
    flaws = find_flaws(point, setup(lines).detector)
    mine = flaws.columns[:, flaws.owner == 0] / point.weights.sqrt()[:, None]
    moved = mine.abs().sum(dim=0) / point.amplitude[0]
    # Alpha and beta lines of phosphorus are 6 % apart, and a tenth of its counts may lie in the tail.
    assert float(moved.max()) < 0.1
