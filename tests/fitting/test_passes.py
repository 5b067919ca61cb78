"""The passes of a fit: dead peaks come alive, each objective is lowest in what it minimises, K-beta is freed."""

from dataclasses import replace

import pytest
import torch
from fit_samples import TRUTH, amplitudes, drawn, expected_counts, setup, table, theta_of

from hpcxrf.fitting.objective import poisson_deviance, r_squared
from hpcxrf.fitting.result import FitStatus
from hpcxrf.fitting.spectrum.integrated import build_least_squares, fit_spectrum
from hpcxrf.fitting.spectrum.passes import solve_separable
from hpcxrf.fitting.spectrum.problem import fit_range
from hpcxrf.fitting.spectrum.scatter_pair import scatter_is_dead
from hpcxrf.fitting.spectrum.separable import minimise, start
from hpcxrf.physics.model import SpectrumModel, find_tailed_lines
from hpcxrf.physics.parameters import INDEX

LINES = table(("Si", "Ca", "Fe", "Zn"))

# --- dead scatter peaks -------------------------------------------------------------------------

HIGH_KEV = 20.0
HIGH_TRUTH = TRUTH | {"coherent_sct_energy": 20.03}
HIGH_LINES = table(("Si", "Ca", "Fe", "Zn"), HIGH_KEV)


def scattered(dead, *free):
    """A fit that starts dead, and of which only these are free, all else being true: no detour leads out."""
    given = setup(HIGH_LINES, energy_max_kev=21.0, objective="mse")
    rows = tuple(
        replace(p, value=(HIGH_TRUTH | dead).get(p.name, p.value), free=p.name in free) for p in given.parameters
    )
    rows = tuple(replace(p, lower=19.55, upper=20.45) if p.name == "coherent_sct_energy" else p for p in rows)
    return replace(given, parameters=rows)


def problem_of(given, seed):
    peaks, continuum = expected_counts(1e6, lines=HIGH_LINES, truth=HIGH_TRUTH, n_channels=2200)
    low, high = fit_range(given.parameters, given.energy_min_kev, given.energy_max_kev, 2200)
    model = SpectrumModel(
        table=HIGH_LINES,
        channel=torch.arange(low, high + 1, dtype=torch.float64),
        constants=given.constants,
        with_step=False,
        tailed=find_tailed_lines(HIGH_LINES, elastic=True, constants=given.constants),
    )
    return build_least_squares(drawn(peaks + continuum, seed), low, high, model, given)


@pytest.mark.parametrize("seed", [0, 2])
@pytest.mark.parametrize(
    ("dead", "free"),
    [
        ({"compton_angle": 165.0, "compton_fwhm_corr": 1.0}, ("compton_angle", "compton_fwhm_corr")),
        ({"compton_angle": 41.0, "compton_fwhm_corr": 1.0}, ("compton_angle", "compton_fwhm_corr")),
        ({"coherent_sct_energy": 20.43}, ("coherent_sct_energy", "compton_angle")),
        ({"coherent_sct_energy": 19.63, "compton_angle": 165.0}, ("coherent_sct_energy", "compton_angle")),
    ],
    ids=["compton-too-low", "compton-too-high", "elastic-too-high", "both"],
)
def test_a_dead_scatter_peak_comes_alive_and_the_fit_is_better(dead, free, seed):
    given = scattered(dead, *free)
    problem, fixed = problem_of(given, seed)
    begin = theta_of(**HIGH_TRUTH | dead)
    stuck = minimise(start(begin, problem), problem, iterations=60)
    assert scatter_is_dead(stuck.linear, problem)
    found = solve_separable(begin[None], problem, fixed, given)
    truth = amplitudes(1e6, HIGH_LINES)[-2:]
    assert found.linear[4:6].tolist() == pytest.approx(truth.tolist(), rel=0.03)
    left = float((problem.counts - found.expected).square().sum())
    assert left < 0.01 * float(stuck.misfit)
    for name in free:
        near = {"coherent_sct_energy": 0.01, "compton_angle": 1.0, "compton_fwhm_corr": 0.1}[name]
        assert float(found.theta[INDEX[name]]) == pytest.approx(HIGH_TRUTH[name], abs=near)
    assert found.status is FitStatus.CONVERGED


def test_a_peak_that_is_not_there_stays_dead_and_hurts_nothing():
    """Without scatter in the spectrum every pair is dead: the fit keeps what it has."""
    counts = drawn(expected_counts(1e6, lines=HIGH_LINES, truth=HIGH_TRUTH, n_channels=2200)[0], 1)
    axis = HIGH_TRUTH["energy_offset"] + HIGH_TRUTH["energy_slope"] * torch.arange(2200.0)
    counts[axis > 15.0] = 0.0
    fit = fit_spectrum(counts, setup(HIGH_LINES, energy_max_kev=21.0, background="none"))
    truth = amplitudes(1e6, HIGH_LINES)
    assert fit.amplitude[2:4].tolist() == pytest.approx(truth[2:4].tolist(), rel=0.02)
    assert float(fit.amplitude[-2:].max()) < 1e-3 * float(truth[-1])


# --- objectives ---------------------------------------------------------------------------------

BAD = (500, 640, 850, 1100)
"""Channels that hold too much."""


@pytest.fixture(scope="module")
def counts():
    return drawn(sum(expected_counts(2e5, lines=LINES)), 5)


@pytest.fixture(scope="module")
def hot(counts):
    counts = counts.clone()
    counts[list(BAD)] += 3000.0
    return counts


def by_objective(counts):
    return {o: fit_spectrum(counts, setup(LINES, objective=o)) for o in ("mse", "poisson", "l1")}


@pytest.fixture(scope="module")
def fits(counts):
    return by_objective(counts)


@pytest.fixture(scope="module")
def hot_fits(hot):
    return by_objective(hot)


def test_poisson_has_the_lowest_deviance_and_mse_the_highest_r2(fits):
    deviance = {o: float(poisson_deviance(f.counts, f.model)) for o, f in fits.items()}
    assert min(deviance, key=deviance.get) == "poisson"
    assert deviance["mse"] - deviance["poisson"] > 1.0
    r2 = {o: float(r_squared(f.counts, f.model)) for o, f in fits.items()}
    assert max(r2, key=r2.get) == "mse"


def test_l1_has_the_smallest_sum_of_moduli(fits, hot_fits):
    for some in (fits, hot_fits):
        moduli = {o: float((f.counts - f.model).abs().sum()) for o, f in some.items()}
        assert min(moduli, key=moduli.get) == "l1"


def test_a_few_bad_channels_hardly_move_l1(hot_fits, fits):
    truth = amplitudes(2e5, LINES)

    def moved(objective):
        change = (hot_fits[objective].amplitude - fits[objective].amplitude).abs()
        return float((change / truth).max())

    assert moved("l1") < 0.5 * moved("mse")
    assert moved("l1") < 0.5 * moved("poisson")
    assert moved("mse") > 0.02


def test_r2_is_that_of_the_mean_square_optimum_whatever_the_objective(fits):
    r2 = [f.r2 for f in fits.values()]
    assert r2 == pytest.approx([fits["mse"].r2] * 3, abs=1e-6)
    assert fits["mse"].r2 == pytest.approx(float(r_squared(fits["mse"].counts, fits["mse"].model)), abs=1e-6)


def test_every_objective_gives_back_the_amplitudes(fits):
    truth = amplitudes(2e5, LINES)
    strong = truth > 0.05 * truth.sum()
    for fit in fits.values():
        torch.testing.assert_close(fit.amplitude[strong], truth[strong], rtol=0.06, atol=0.0)


# --- K-beta -------------------------------------------------------------------------------------


def kbeta_ratio(lines, name):
    """Counts of the K-beta to those of the K-alpha lines of a family, escape lines left out."""
    mine = (lines.component == lines.component_names.index(name)) & (lines.escape_parent < 0)
    return float(lines.ratio[mine & lines.is_kbeta].sum() / lines.ratio[mine & ~lines.is_kbeta].sum())


def with_kbeta(factors):
    """The table with K-beta lines (and their escape lines) so many times as strong, ratios adding up to 1."""
    ratio = LINES.ratio.clone()
    for name, factor in factors.items():
        mine = LINES.component == LINES.component_names.index(name)
        ratio[mine & LINES.is_kbeta] *= factor
        ratio[mine] /= ratio[mine].sum()
    return replace(LINES, ratio=ratio)


OFF = {"Ca": 0.85, "Fe": 1.15, "Zn": 1.0}


@pytest.fixture(scope="module")
def off_counts():
    return drawn(sum(expected_counts(3e6, lines=with_kbeta(OFF))), 2)


@pytest.mark.parametrize("objective", ["poisson", "mse"])
def test_free_kbeta_lines_find_a_ratio_that_is_15_percent_off(off_counts, objective):
    fit = fit_spectrum(off_counts, setup(LINES, kbeta_sd=0.2, objective=objective))
    for name, factor in OFF.items():
        found = kbeta_ratio(fit.table, name) / kbeta_ratio(LINES, name)
        assert found == pytest.approx(factor, abs=0.03)
    assert fit.component_names[:4] == LINES.component_names
    truth = amplitudes(3e6, LINES)
    assert fit.amplitude[1:4].tolist() == pytest.approx(truth[1:4].tolist(), rel=0.01)


def test_kbeta_lines_that_nobody_freed_move_by_as_much_as_tables_differ(off_counts):
    tied = fit_spectrum(off_counts, setup(LINES, kbeta_sd=1e-4))
    usual = fit_spectrum(off_counts, setup(LINES))
    free = fit_spectrum(off_counts, setup(LINES, kbeta_sd=0.2))
    assert tied.r2 < usual.r2 <= free.r2 + 1e-6
    for name, factor in OFF.items():
        assert kbeta_ratio(usual.table, name) / kbeta_ratio(LINES, name) == pytest.approx(factor, abs=0.05)
    assert free.reduced_chi2 < 1.3 < tied.reduced_chi2


def test_a_narrow_prior_holds_families_together_and_a_wide_one_lets_each_go(off_counts):
    """What all families have in common is free of this prior."""

    def spread(sd):
        fitted = fit_spectrum(off_counts, setup(LINES, kbeta_sd=sd)).table
        return kbeta_ratio(fitted, "Fe") / kbeta_ratio(LINES, "Fe") - kbeta_ratio(fitted, "Ca") / kbeta_ratio(
            LINES, "Ca"
        )

    found = [spread(sd) for sd in (1e-4, 0.02, 0.2)]
    assert found == sorted(found)
    assert found[0] < 0.15
    assert found[2] == pytest.approx(0.30, abs=0.05)
