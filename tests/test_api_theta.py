"""The library with theta by hand: values, what is held, bounds; amplitudes alone, against scipy."""

import math

import numpy as np
import pytest
import torch
from fit_samples import COMPONENTS, INCIDENT_KEV, drawn, expected_counts
from scipy.optimize import nnls

import hpcxrf
from hpcxrf.errors import ConfigError, FitError
from hpcxrf.fitting.result import FitStatus
from hpcxrf.fitting.spectrum.detector_sum import evaluate_columns
from hpcxrf.fitting.spectrum.overlaps import find_overlaps
from hpcxrf.physics.parameters import INDEX

AXIS = {"energy_offset_kev": 0.0, "energy_slope_kev": 0.01}
TOTAL = 1e5


@pytest.fixture(scope="module")
def counts():
    return drawn(sum(expected_counts(TOTAL)), seed=11)


@pytest.fixture(scope="module")
def fit(counts):
    return hpcxrf.fit_spectrum(counts, COMPONENTS, INCIDENT_KEV, **AXIS)


@pytest.fixture(scope="module")
def bare():
    """Counts without any background, and their fit."""
    counts = drawn(expected_counts(TOTAL)[0], seed=12)
    return counts, hpcxrf.fit_spectrum(counts, COMPONENTS, INCIDENT_KEV, background="none", **AXIS)


def columns_of(fit):
    channel = torch.arange(fit.first_channel, fit.first_channel + len(fit.counts), dtype=torch.float64)
    return evaluate_columns(fit, fit.problem, channel).numpy()


def solve(counts, columns, rest=0.0, passes=3):
    """Non-negative least squares with Poisson weights by scipy: unit weights first, as the fit."""
    x = nnls(columns, counts - rest)[0]
    for _ in range(passes - 1):
        root = 1.0 / np.sqrt(np.maximum(columns @ x + rest, 0.1))
        x = nnls(columns * root[:, None], (counts - rest) * root)[0]
    return x


def theta(fit):
    return {name: one.value for name, one in hpcxrf.parameters(fit).items()}


def test_amplitudes_at_the_theta_of_a_fit_are_those_of_the_fit(counts, fit):
    again = hpcxrf.fit_amplitudes(counts, fit)
    assert torch.equal(again.theta, fit.theta)
    assert again.status is FitStatus.CONVERGED
    assert float(((again.amplitude - fit.amplitude).abs() / fit.amplitude_sigma).max()) < 0.02
    assert not bool(again.free.any())
    assert torch.isnan(again.theta_sigma).all()
    # Line ratios are held, not fitted anew.
    assert again.ratios is fit.ratios
    assert torch.equal(again.table.ratio, fit.table.ratio)


@pytest.mark.parametrize("moved", [{}, {"fwhm_offset": 0.13, "energy_offset": 0.02}])
def test_amplitudes_alone_are_the_non_negative_least_squares_of_scipy(bare, moved):
    counts, fit = bare
    found = hpcxrf.fit_amplitudes(counts, fit, theta=moved)
    expected = solve(found.counts.numpy(), columns_of(found))
    assert found.amplitude.numpy() == pytest.approx(expected, rel=1e-6, abs=1e-6 * TOTAL)
    assert theta(found) == {**theta(fit), **moved}


def test_sigma_of_amplitudes_alone_is_that_of_the_noise_with_theta_known(bare):
    counts, fit = bare
    found, columns = hpcxrf.fit_amplitudes(counts, fit), columns_of(fit)
    information = columns.T @ (columns / np.maximum(columns @ found.amplitude.numpy(), 0.1)[:, None])
    noise = np.sqrt(np.diag(np.linalg.inv(information)))
    own = found.errors.variances.amplitude.sqrt().numpy()
    assert own == pytest.approx(noise, rel=1e-3)
    # Flaws of the model are added, as the earlier fit showed them; theta that is known adds none.
    assert (found.amplitude_sigma.numpy() >= noise * (1.0 - 1e-3)).all()
    assert found.model_error == fit.model_error
    assert (found.amplitude_sigma <= 1.05 * fit.amplitude_sigma).all()


@pytest.mark.parametrize("moved", [{}, {"fwhm_offset": 0.17}])
def test_components_alone_are_fitted_in_their_window_and_the_rest_is_held(counts, fit, moved):
    # Also where what is held fits so badly that its weights are not those of the end.
    fit = hpcxrf.fit_amplitudes(counts, fit, theta=moved) if moved else fit
    found = hpcxrf.fit_amplitudes(counts, fit, only=["Fe", "Ca"])
    places = [fit.component_names.index(name) for name in ("Fe", "Ca")]
    others = [i for i in range(len(fit.component_names)) if i not in places]
    assert torch.equal(found.amplitude[others], fit.amplitude[others])
    assert torch.equal(found.amplitude_sigma[others], fit.amplitude_sigma[others])
    assert torch.equal(found.component_counts[others], fit.component_counts[others])
    assert torch.equal(found.background, fit.background)
    assert torch.equal(found.theta, fit.theta)
    # The same by scipy in the channels that show them.
    columns = columns_of(fit)[:, places]
    inside = (columns >= 0.02 * columns.max(axis=0)).any(axis=1)
    rest = (fit.model - fit.component_counts[places].sum(dim=0)).numpy()
    expected = solve(fit.counts.numpy()[inside], columns[inside], rest[inside], passes=9)
    assert found.amplitude[places].numpy() == pytest.approx(expected, rel=1e-6)
    assert 0.0 < float(found.amplitude_sigma[places[0]]) <= 1.01 * float(fit.amplitude_sigma[places[0]])
    outside = (found.model - fit.model).abs()[~torch.from_numpy(inside)]
    assert float(outside.max()) < 0.02 * float((found.model - fit.model).abs().max())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"only": []}, "only: is empty; name components of the fit, or leave it out for all"),
        ({"only": ["Cu"]}, "only: Cu is not a component of the fit; it has Si, Ca"),
        ({"only": ["Fe", "Fe"]}, "only: names a component twice"),
        ({"only": ["Fe"], "theta": {"fwhm_offset": 0.2}}, "only: theta is held with the rest; leave fwhm_offset out"),
        ({"theta": {"fwhm": 0.2, "fwhm_offset": math.nan}}, "no parameter is called fwhm;.*fwhm_offset: value nan is"),
        ({"theta": {"energy_slope": 3.0}}, "energy_slope: value 3 keV/channel is beyond what a detector has"),
    ],
)
def test_what_amplitudes_alone_cannot_mean_is_refused(counts, fit, given, said):
    with pytest.raises(ConfigError, match=f"fit_amplitudes: .*{said}"):
        hpcxrf.fit_amplitudes(counts, fit, **given)


def test_the_rest_cannot_be_held_at_a_fit_of_other_counts(counts, fit):
    with pytest.raises(ConfigError, match="the rest is held at the fit, which is of other counts"):
        hpcxrf.fit_amplitudes(counts + 1.0, fit, only=["Fe"])


def test_what_is_held_is_held_and_the_others_follow(counts, fit):
    held = hpcxrf.refine(counts, fit, same_counts=True, theta={"fwhm_offset": 0.12}, fixed=["fwhm_offset"])
    assert hpcxrf.parameters(held)["fwhm_offset"].value == 0.12
    assert math.isnan(hpcxrf.parameters(held)["fwhm_offset"].sigma)
    assert theta(held)["fwhm_fanoprime"] < theta(fit)["fwhm_fanoprime"]
    assert held.deviance > fit.deviance
    # Freed again, it comes back to where it was.
    back = hpcxrf.refine(counts, held, same_counts=True, free=["fwhm_offset"])
    place = INDEX["fwhm_offset"]
    assert abs(float(back.theta[place] - fit.theta[place])) < 0.2 * float(fit.theta_sigma[place])


def test_a_step_that_is_held_above_nothing_is_in_the_model(counts, fit):
    iron, far_below = fit.component_names.index("Fe"), 300 - fit.first_channel
    assert float(fit.component_counts[iron, far_below]) < 1e-6
    step = {"step_offset": 0.08}
    held = hpcxrf.refine(counts, fit, same_counts=True, theta=step, fixed=list(step))
    assert hpcxrf.parameters(held)["step_offset"].value == 0.08
    for found in (held, hpcxrf.fit_amplitudes(counts, fit, theta=step)):
        # What the background explains without it; at 3 keV there is nothing else of iron.
        assert float(found.component_counts[iron, far_below]) > 0.1


def test_bounds_are_kept_and_a_start_outside_of_the_old_ones_is_not_moved_in_silence(counts, fit):
    found = hpcxrf.refine(
        counts, fit, same_counts=True, bounds={"fwhm_offset": (0.115, None)}, theta={"fwhm_offset": 0.12}
    )
    assert hpcxrf.parameters(found)["fwhm_offset"].value == pytest.approx(0.115, abs=1e-6)
    place = INDEX["fwhm_offset"]
    assert bool(found.at_bound[place])
    assert float(found.theta_upper[place]) == float(fit.theta_upper[place])
    step = hpcxrf.refine(counts, fit, same_counts=True, free=["step_offset"], theta={"step_offset": 0.01})
    assert bool(step.free[INDEX["step_offset"]])


def test_the_same_counts_are_not_used_twice(counts, fit):
    """A prior about the theta of a fit of these counts would narrow their errors and pull towards it."""
    again = hpcxrf.refine(counts, fit, same_counts=True)
    assert torch.equal(again.theta_initial, fit.theta_initial)
    assert float(((again.theta - fit.theta).abs() / fit.theta_sigma).nan_to_num().max()) < 0.2
    other = hpcxrf.refine(counts, fit)
    assert torch.equal(other.theta_initial, fit.theta)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"fixed": ["gain"]}, "no parameter is called gain; there are energy_offset"),
        ({"fixed": ["fwhm_offset"], "free": ["fwhm_offset"]}, "fwhm_offset is both held and fitted; choose one"),
        ({"bounds": {"fwhm_offset": (0.2, 0.1)}}, "lower bound 0.2 is not below upper bound 0.1; exchange or widen"),
        ({"bounds": {"fwhm_offset": (0.2, math.inf)}}, "upper bound inf is not a number"),
        (
            {"bounds": {"fwhm_offset": (0.05, 0.1)}, "theta": {"fwhm_offset": 0.2}},
            "value 0.2 lies outside of its bounds 0.05 to 0.1; move one of them",
        ),
    ],
)
def test_theta_that_cannot_be_fitted_is_refused(counts, fit, given, said):
    with pytest.raises(ConfigError, match=f"refine: .*{said}"):
        hpcxrf.refine(counts, fit, **given)


def test_a_fit_without_solution_holds_nothing():
    empty = hpcxrf.fit_spectrum(np.zeros(1500), ["Fe"], INCIDENT_KEV)
    for call in (hpcxrf.refine, hpcxrf.fit_amplitudes):
        with pytest.raises(FitError, match="the fit ended as EMPTY and has no solution"):
            call(np.ones(1500), empty)


def test_amplitudes_of_a_map_are_those_of_its_sum(counts, fit):
    cube = drawn(sum(expected_counts(1e3)).expand(6, -1), seed=3).reshape(2, 3, -1)
    mask = np.array([[True, False, True], [False, True, False]])
    region = hpcxrf.fit_amplitudes(cube, fit, mask)
    summed = hpcxrf.fit_amplitudes(cube[torch.from_numpy(mask)].sum(dim=0), fit)
    assert torch.equal(region.amplitude, summed.amplitude)


def test_overlaps_are_the_correlations_that_simulated_spectra_show():
    names = ["Ca", "Ti", "Ba_L", "Fe", "Co", "Zn"]
    table = hpcxrf.line_table(names, 12.0)
    amplitude = torch.tensor([2e4, 9e3, 9e3, 2e4, 2e3, 2e4, 1e3, 1e3], dtype=torch.float64)
    mean = hpcxrf.model_spectrum(hpcxrf.default_theta(12.0, fwhm_offset=0.2), amplitude, table, 1400)
    fit = hpcxrf.fit_spectrum(drawn(mean, seed=1), names, 12.0, background="none", **AXIS)
    columns = columns_of(fit)
    rng = np.random.default_rng(2)
    expected = columns @ fit.amplitude.numpy()
    root = 1.0 / np.sqrt(np.maximum(expected, 0.1))
    draws = [np.linalg.lstsq(columns * root[:, None], rng.poisson(expected) * root, rcond=None)[0] for _ in range(1500)]
    correlation = np.corrcoef(np.array(draws).T)
    found = find_overlaps(fit)
    for i, one in enumerate(fit.component_names):
        for j, other in enumerate(fit.component_names):
            # Beyond what 1500 draws leave open.
            if i != j and abs(abs(correlation[i, j]) - 0.3) > 0.08:
                assert (other in found[one]) == (abs(correlation[i, j]) > 0.3), (one, other, correlation[i, j])
    # Ti K-alpha 4.51 keV, Ba L-alpha 4.47 keV.
    assert found["Ti"] == ["Ba_L"]
    assert "Zn" not in found["Ca"]
