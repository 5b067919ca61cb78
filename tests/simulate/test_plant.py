"""The scan of the case study and its trials: what is in it, and that its sum is the sum of its pixels."""

import dataclasses

import numpy as np
import pytest

from hpcxrf.simulate import (
    PLANT_ELEMENTS,
    PLANT_TRACES,
    draw_counts,
    draw_region,
    expected_amplitudes,
    expected_counts,
    plant_spec,
    simulate_scan,
    sum_scan,
    trial_spec,
)
from hpcxrf.simulate.scan import phase_density

SIZE = (24, 30)
EVERY = slice(None)


@pytest.fixture(scope="module")
def plant():
    return simulate_scan(plant_spec(seed=8, size=SIZE))


def test_traces_have_a_few_counts_a_pixel_and_every_family_is_listed(plant):
    amplitude = expected_amplitudes(plant, EVERY)[0]
    leaf = amplitude[plant.components.index("K")] > 20.0
    assert 0.2 < leaf.mean() < 0.98
    for trace in PLANT_TRACES:
        mean = amplitude[plant.components.index(trace)][leaf].mean()
        assert 0.5 < mean < 15.0, trace
    assert set(plant.components[:-3]) == set(PLANT_ELEMENTS)


def test_the_drawn_sum_is_of_the_same_expectation_as_the_sum_of_drawn_pixels(plant):
    expected = expected_counts(plant, EVERY)[0].sum(axis=(0, 1))
    many = np.mean([sum_scan(plant, noise).counts for noise in range(30)], axis=0)
    drawn = draw_counts(plant, EVERY)[0].sum(axis=(0, 1))
    used = expected > 5.0
    for counts, samples in ((many, 30), (drawn, 1)):
        z = (counts[used] - expected[used]) / np.sqrt(expected[used] / samples)
        assert (z**2).mean() == pytest.approx(1.0, abs=0.25)
        assert abs(z.mean()) < 0.2
    truth = expected_amplitudes(plant, EVERY)[0].sum(axis=(1, 2))
    assert list(sum_scan(plant, 0).amplitude.values()) == pytest.approx(truth.tolist())


def test_draws_of_a_region_are_of_its_expectation_and_a_few_are_part_of_many(plant):
    box = (slice(3, 9), slice(10, 15))
    expected = expected_counts(plant, box[0])[0][:, box[1]].sum(axis=(0, 1))
    many = draw_region(plant, box, 40)
    assert many.shape == (40, plant.spec.shape[3])
    used = expected > 5.0
    z = (many.mean(axis=0)[used] - expected[used]) / np.sqrt(expected[used] / 40)
    assert (z**2).mean() == pytest.approx(1.0, abs=0.25)
    assert (many.var(axis=0, ddof=1)[used] / expected[used]).mean() == pytest.approx(1.0, abs=0.1)
    assert (draw_region(plant, box, 7) == many[:7]).all()
    beside = draw_region(plant, (box[0], slice(11, 16)), 7)
    assert (beside != many[:7]).any()


def test_noise_depends_on_its_number_alone(plant):
    first, again, other = (sum_scan(plant, n).counts for n in (3, 3, 4))
    assert (first == again).all()
    assert (first != other).any()


def test_trials_differ_in_detector_energies_and_claim_but_not_in_the_sample():
    plant = plant_spec(seed=8, size=SIZE)
    trials = [trial_spec(plant, i) for i in range(20)]
    assert trials == [trial_spec(plant, i) for i in range(20)]
    slopes = {t.detectors[0].calibration.slope_kev for t in trials}
    energies = {t.incident_energy_kev for t in trials}
    claims = [t.file_energy_kev - t.incident_energy_kev for t in trials]
    assert len(slopes) == len(energies) == len(set(claims)) == 20
    assert all(0.0 < abs(claim) <= 0.3 for claim in claims)
    assert all(12.0 <= e <= 12.8 for e in energies)
    where = phase_density(plant)
    assert all((phase_density(t) == where).all() for t in trials[:2])


def test_what_the_file_claims_is_a_few_ev_off():
    for seed in range(10):
        spec = plant_spec(seed=seed, size=SIZE)
        true, claimed = spec.detectors[0].calibration, spec.file_calibration[0]
        difference = np.array(dataclasses.astuple(claimed)) - dataclasses.astuple(true)
        assert 0.0 < abs(difference[0]) <= 0.01
        assert 0.0 < abs(difference[1]) <= 5e-4 * true.slope_kev
