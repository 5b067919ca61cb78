"""The verdict on a fit: good where it describes its spectrum, and never good where the axis or the list is wrong."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fit_samples import TRUTH, channels, drawn, setup, table, theta_of

from hpcxrf.fitting.count_scale import carry_count_factor
from hpcxrf.fitting.result import FitStatus
from hpcxrf.fitting.spectrum.judge import Binned, bin_spectrum, compute_misfit, find_unexplained_peaks, judge_fit
from hpcxrf.fitting.spectrum.solve import refit, solve_problem
from hpcxrf.fitting.verdict import Verdict
from hpcxrf.physics.constants import PHYSICS
from hpcxrf.physics.model import model_spectrum
from hpcxrf.physics.parameters import PARAMETERS, replace_values

COUNTS = {"Si": 2e4, "S": 1e4, "Ca": 8e4, "Fe": 3e5, "Zn": 9e4, "Ba_L": 2e4}
SCATTER = (6e4, 1.6e5)
CHANNEL = channels(0, 1499)


def _expected(scale=1.0, counts=COUNTS, theta=None):
    amplitude = torch.tensor([*counts.values(), *SCATTER], dtype=torch.float64)
    truth = theta_of(**TRUTH) if theta is None else theta
    peaks = model_spectrum(truth, amplitude, table(tuple(counts)), CHANNEL, constants=PHYSICS)
    return scale * (peaks + 60.0 * (1.6 - 1.2 * CHANNEL / 1500))


def _solve(counts, listed=tuple(COUNTS), **options):
    return solve_problem(counts, setup(table(listed), **options))


@pytest.fixture(scope="module")
def fit():
    return _solve(drawn(_expected(), 1))


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e2])
def test_a_spectrum_that_the_model_describes_is_good_at_any_counts(scale):
    found = _solve(drawn(_expected(scale), 3))
    assert found.verdict is Verdict.GOOD
    assert found.verdict_reasons == ()
    assert compute_misfit(bin_spectrum(found)) == 0.0


def test_noise_alone_is_hardly_ever_doubtful(fit):
    rounds = [replace(fit, counts=drawn(fit.model, seed)) for seed in range(200)]
    n, free = fit.counts.shape[0], 30
    judged = []
    for one in rounds:
        chi2 = float(((one.counts - one.model) ** 2 / one.model.clamp(min=1.0)).sum()) / (n - free)
        judged.append(judge_fit(replace(one, reduced_chi2=chi2)).verdict)
    assert judged.count(Verdict.GOOD) >= 198


@pytest.mark.parametrize("counts_per_bin", [1e4, 1e5, 1e7])
def test_the_misfit_is_the_relative_error_of_the_model_whatever_the_counts(counts_per_bin):
    # Every bin 5 % off, in one direction or the other, and without noise: chi2 is 0.05^2 times the counts.
    n, error = 600, 0.05
    sign = torch.where(torch.arange(n) % 2 == 0, 1.0, -1.0).double()
    made = Binned(
        energy_kev=torch.linspace(2.0, 12.0, n, dtype=torch.float64),
        sigma_kev=torch.full((n,), 0.05, dtype=torch.float64),
        counts=torch.full((n,), counts_per_bin, dtype=torch.float64),
        model=counts_per_bin * (1.0 + error * sign),
    )
    # Less the noise that is expected of the counts.
    expected = (error**2 - (1.0 + 3.0 * (2.0 / n) ** 0.5) / counts_per_bin) ** 0.5
    assert compute_misfit(made) == pytest.approx(expected, rel=0.03)


def test_a_missing_peak_counts_by_its_share_of_all_counts():
    n, share = 600, 0.06
    energy = torch.linspace(2.0, 12.0, n, dtype=torch.float64)
    model = torch.full((n,), 1e4, dtype=torch.float64)
    peak = torch.exp(-0.5 * ((energy - 8.0) / 0.05) ** 2)
    peak = peak / peak.sum() * share / (1.0 - share) * model.sum()
    made = Binned(energy_kev=energy, sigma_kev=torch.full_like(energy, 0.05), counts=model + peak, model=model)
    # sum r^2 / max(smoothed counts): the share itself, but for the background under the peak and the smoothing.
    assert 0.6 * share**0.5 < compute_misfit(made) < 1.2 * share**0.5


def test_a_missing_strong_element_is_named_by_the_energy_of_its_peak(fit):
    found = _solve(drawn(_expected(), 1), listed=("Si", "S", "Ca", "Fe", "Ba_L"))
    assert found.verdict >= Verdict.DOUBTFUL
    peak = next(reason for reason in found.verdict_reasons if "unexplained peak" in reason)
    assert "8.6" in peak  # Zn K-alpha, 8.637 keV
    assert "Fe" in peak
    assert fit.verdict is Verdict.GOOD


def test_an_axis_that_is_given_six_per_cent_wrong_is_a_wrong_fit():
    start = replace_values(PARAMETERS, {"coherent_sct_energy": 12.0, "energy_slope": 0.01065, "energy_offset": 0.15})
    held = tuple(replace(p, free=p.free and p.name not in {"energy_slope", "energy_offset"}) for p in start)
    found = _solve(drawn(_expected(), 1), parameters=held)
    assert found.verdict is Verdict.WRONG
    assert "beyond counting noise" in " ".join(found.verdict_reasons)


def test_a_spectrum_without_counts_is_not_judged_and_one_of_nonsense_is_wrong():
    found = _solve(torch.zeros(1500))
    assert found.status is FitStatus.EMPTY
    assert found.verdict is Verdict.NOT_JUDGED
    assert found.verdict_reasons == ("no counts in the fit range",)
    nonsense = _solve(torch.full((1500,), torch.nan))
    assert nonsense.verdict is Verdict.WRONG
    assert nonsense.verdict_reasons == ("the fit has no solution: nonfinite",)


def test_a_list_of_which_most_is_not_there_is_doubtful_where_the_axis_was_found_with_it(fit):
    absent = torch.ones(len(fit.component_names), dtype=torch.bool)
    absent[[fit.component_names.index("Fe"), -1, -2]] = False
    made = replace(fit, amplitude=torch.where(absent, 0.0, fit.amplitude))
    found = replace(made, problem=replace(fit.problem, find_axis=True))
    judged = judge_fit(found)
    assert judged.verdict is Verdict.DOUBTFUL
    assert judged.verdict_reasons == ("5 of 6 listed families are not found",)
    # Beside a calibration that holds, a list of more than the sample has says nothing.
    given = replace(made, problem=replace(fit.problem, find_axis=False))
    assert judge_fit(given).verdict is Verdict.GOOD


def test_flags_of_the_axis_carry_over_with_the_sentence_of_their_note(fit):
    flagged = replace(fit, flags=("ambiguous_calibration",))
    assert judge_fit(flagged).verdict is Verdict.DOUBTFUL
    lost = judge_fit(replace(fit, flags=("ambiguous_calibration", "energy_axis_not_found")))
    assert lost.verdict is Verdict.WRONG
    assert lost.verdict_reasons[0] == "energy_axis_not_found"  # the gravest comes first


def test_a_fit_that_did_not_converge_is_doubtful(fit):
    stopped = judge_fit(replace(fit, status=FitStatus.MAX_ITERATIONS, iterations=60))
    assert stopped.verdict is Verdict.DOUBTFUL
    assert "60 steps" in stopped.verdict_reasons[0]


def test_scaled_counts_are_judged_by_their_own_noise(fit):
    factor = 4.0
    scaled = fit.model + (drawn(fit.model / factor, 5) * factor - fit.model)
    chi2 = float(((scaled - fit.model) ** 2 / fit.model.clamp(min=1.0)).mean())
    raw = replace(fit, counts=scaled, reduced_chi2=chi2)
    assert compute_misfit(bin_spectrum(raw)) > 0.0
    assert carry_count_factor(raw, factor).verdict is Verdict.GOOD


def test_a_region_is_judged_as_the_scan_is(fit):
    assert refit(drawn(_expected(0.1), 7), fit.problem).verdict is Verdict.GOOD


def test_the_verdict_does_not_depend_on_an_earlier_one(fit):
    wrong = replace(fit, verdict=Verdict.WRONG, verdict_reasons=("stale",))
    assert judge_fit(wrong).verdict is Verdict.GOOD
    assert judge_fit(wrong).verdict_reasons == ()


def test_the_filter_of_unexplained_peaks_is_the_whole_one_on_bins_of_any_width():
    """Written out over all pairs of bins: residual and noise averaged over Gaussians of the width at each bin."""
    energy = np.cumsum(np.linspace(0.02, 0.05, 300)) + 1.0
    sigma = 0.04 + 0.006 * energy
    model = 400.0 * np.exp(-0.1 * energy)
    counts = model + 90.0 * np.exp(-0.5 * ((energy - energy[150]) / sigma[150]) ** 2)
    kernel = np.exp(-0.5 * ((energy[:, None] - energy) / sigma) ** 2)
    kernel /= kernel.sum(axis=0)
    noise = (kernel**2).T @ model + (0.02 * (kernel.T @ model)) ** 2
    expected = kernel.T @ (counts - model) / noise**0.5
    parts = {"energy_kev": energy, "sigma_kev": sigma, "counts": counts, "model": model}
    one = Binned(**{name: torch.from_numpy(x) for name, x in parts.items()})
    (found,) = find_unexplained_peaks(one)
    assert found[0] == energy[150]
    assert found[1] == pytest.approx(expected[150], rel=1e-9)
    assert found[2] == pytest.approx((kernel.T @ (counts - model) / (kernel**2).sum(axis=0))[150], rel=1e-9)
