"""Which of two humps is the elastic peak: the scan of all pairs at a fixed energy axis."""

import itertools
from dataclasses import replace

import pytest
import torch
from fit_samples import TRUTH, drawn, expected_counts, setup, table, theta_of

from hpcxrf.fitting.spectrum.integrated import build_least_squares
from hpcxrf.fitting.spectrum.least_squares import build_space
from hpcxrf.fitting.spectrum.problem import fit_range
from hpcxrf.fitting.spectrum.scatter_pair import SCANNED, scan_pairs, scatter_is_dead
from hpcxrf.fitting.spectrum.separable import start
from hpcxrf.physics.model import SpectrumModel, find_tailed_lines
from hpcxrf.physics.parameters import INDEX
from hpcxrf.physics.scatter import compton_energy_kev

INCIDENT_KEV = 20.0
SCATTERED = TRUTH | {"coherent_sct_energy": 20.03, "compton_angle": 118.0}
LINES = table(("Si", "Ca", "Fe", "Zn"), INCIDENT_KEV)
E0, ANGLE, WIDTH = (INDEX[name] for name in SCANNED)


def asked(*, elastic=True, fixed=()):
    given = setup(LINES, energy_max_kev=21.5, elastic=elastic)
    bounded = tuple(
        replace(p, value=20.0, lower=18.9, upper=20.45) if p.name == SCANNED[0] else p for p in given.parameters
    )
    held = tuple(replace(p, free=p.free and p.name not in fixed) for p in bounded)
    return replace(given, parameters=held)


def problem_of(given, *, total=1e6, seed=1, elastic=True):
    peaks, continuum = expected_counts(total, lines=LINES, truth=SCATTERED, elastic=elastic, n_channels=2200)
    counts = drawn(peaks + continuum, seed)
    low, high = fit_range(given.parameters, given.energy_min_kev, given.energy_max_kev, 2200)
    model = SpectrumModel(
        table=LINES,
        channel=torch.arange(low, high + 1, dtype=torch.float64),
        constants=given.constants,
        elastic=elastic,
        with_step=False,
        tailed=find_tailed_lines(LINES, elastic=elastic, constants=given.constants),
    )
    return build_least_squares(counts, low, high, model, given)[0]


def scan(theta, *, keep=3, **options):
    given = asked(**options)
    elastic = options.get("elastic", True)
    problem = problem_of(given, elastic=elastic)
    pairs, cost = scan_pairs(theta, problem, build_space(given.parameters), keep)
    return pairs, cost, problem


def confused():
    """Theta whose elastic peak stands on the Compton peak, and whose Compton peak stands where nothing is."""
    compton = compton_energy_kev(
        torch.tensor(20.03, dtype=torch.float64), torch.tensor(118.0, dtype=torch.float64), 511.0
    )
    return theta_of(**SCATTERED | {"coherent_sct_energy": float(compton), "compton_angle": 90.0})


def test_the_first_pair_is_near_the_truth_though_compton_was_taken_for_elastic():
    theta = confused()
    assert float(theta[E0]) < 19.2  # 0.9 keV off, and no small step leads out
    pairs, cost, problem = scan(theta)
    # Neighbours on the grid are 0.13 keV, 15 or 20 degrees and 1.1 apart.
    assert float(pairs[0, E0]) == pytest.approx(20.03, abs=0.07)
    assert float(pairs[0, ANGLE]) in {105.0, 120.0}
    assert float(pairs[0, WIDTH]) == pytest.approx(1.3)
    assert float(cost[0]) < 0.5 * float(start(theta, problem).misfit)


def test_pairs_come_best_first_and_with_the_square_that_they_leave():
    pairs, cost, problem = scan(confused(), keep=5)
    assert pairs.shape[0] == cost.shape[0] == 5
    assert bool((cost.diff() >= 0.0).all())
    # The scan's elastic peak has no tail, so that it can only leave about as much.
    left = torch.stack([start(theta, problem).misfit for theta in pairs])
    torch.testing.assert_close(left, cost, rtol=0.1, atol=0.0)


def test_all_but_the_scatter_peaks_stays():
    theta = confused()
    pairs, _, _ = scan(theta, keep=5)
    others = [i for i in range(theta.shape[0]) if i not in {E0, ANGLE, WIDTH}]
    assert torch.equal(pairs[:, others], theta[others].expand(5, -1))
    assert float(theta[ANGLE]) == 90.0


def test_pairs_are_in_places_of_their_own():
    pairs, _, _ = scan(confused(), keep=8)
    places = pairs[:, [E0, ANGLE, WIDTH]]
    assert pairs.shape[0] == 8
    for one, other in itertools.combinations(places, 2):
        apart = (one - other).abs() > torch.tensor([0.1, 16.0, 0.8])
        assert bool(apart.any())


@pytest.mark.parametrize("name", SCANNED)
def test_what_is_fixed_is_not_scanned(name):
    theta = theta_of(**SCATTERED)
    pairs, _, _ = scan(theta, fixed=(name,), keep=4)
    kept = pairs[:, INDEX[name]]
    assert torch.equal(kept, theta[INDEX[name]].expand_as(kept))
    for other in set(SCANNED) - {name}:
        assert pairs[:, INDEX[other]].unique().shape[0] > 1


def test_where_all_is_fixed_there_is_one_pair():
    theta = theta_of(**SCATTERED)
    pairs, _, _ = scan(theta, fixed=SCANNED)
    assert torch.equal(pairs, theta[None])


def test_pairs_stay_inside_their_bounds():
    given = asked()
    narrow = tuple(replace(p, lower=80.0, upper=100.0) if p.name == "compton_angle" else p for p in given.parameters)
    pairs, _ = scan_pairs(confused(), problem_of(given), build_space(narrow), 6)
    assert bool(((pairs[:, ANGLE] >= 80.0) & (pairs[:, ANGLE] <= 100.0)).all())
    assert bool(((pairs[:, E0] >= 18.9) & (pairs[:, E0] <= 20.45)).all())


def test_a_tube_has_a_compton_peak_alone():
    pairs, cost, _ = scan(confused(), elastic=False, fixed=(SCANNED[0],))
    assert torch.equal(pairs[:, E0], confused()[E0].expand(pairs.shape[0]))
    assert bool(torch.isfinite(cost).all())


@pytest.mark.parametrize(
    ("elastic", "last", "dead"),
    [
        (True, [5.0, 7.0], False),
        (True, [0.0, 7.0], True),
        (True, [5.0, 0.0], True),
        (True, [0.0, 0.0], True),
        (False, [7.0], False),
        (False, [0.0], True),
    ],
)
@pytest.mark.parametrize("iron", [0.0, 3.0])
@pytest.mark.parametrize("hat", [0.0, 2.0])
def test_a_scatter_peak_without_a_count_is_dead_whatever_the_others_have(elastic, last, dead, iron, hat):
    problem = problem_of(asked(elastic=elastic), elastic=elastic)
    hats = [hat] * problem.hats.shape[1]
    linear = torch.tensor([1.0, 1.0, iron, 1.0, *last, *hats], dtype=torch.float64)
    assert scatter_is_dead(linear, problem) is dead
