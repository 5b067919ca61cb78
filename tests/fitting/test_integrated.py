"""The fit of an integrated spectrum: what comes back, what is reported, and the figures on measured data."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fit_samples import TRUTH, amplitudes, drawn, expected_counts, one_line, setup, table, theta_of

import hpcxrf.fitting.spectrum.gradient
import hpcxrf.fitting.spectrum.integrated
from hpcxrf.errors import FitError
from hpcxrf.fitting.objective import poisson_deviance, poisson_weights, r_squared, r_squared_expected
from hpcxrf.fitting.result import FitStatus
from hpcxrf.fitting.spectrum.integrated import fit_amplitudes, fit_range, fit_spectrum
from hpcxrf.formats.registry import open_scan
from hpcxrf.physics.constants import PHYSICS, constant_set, convert_fanoprime
from hpcxrf.physics.model import COMPTON, ELASTIC
from hpcxrf.physics.parameters import INDEX, PARAMETERS, replace_values

TABLE = table(("Si", "Ca", "Fe", "Zn", "Ba_L"))
SCALE = torch.tensor([p.scale for p in PARAMETERS], dtype=torch.float64)


def peaks(total=1e6):
    return expected_counts(total, lines=TABLE)[0]


def noisy(total=1e6, seed=1):
    return drawn(sum(expected_counts(total, lines=TABLE)), seed)


# --- recovery -----------------------------------------------------------------------------------


def test_a_spectrum_without_noise_gives_back_theta_and_the_amplitudes():
    fit = fit_spectrum(peaks(), setup(TABLE, background="none"))
    assert fit.status is FitStatus.CONVERGED
    wrong = ((fit.theta - theta_of(**TRUTH)) / SCALE)[fit.free]
    assert float(wrong.abs().max()) < 1e-5
    torch.testing.assert_close(fit.amplitude, amplitudes(1e6, TABLE), rtol=1e-6, atol=1e-2)
    assert fit.r2 == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_counts_with_noise_give_back_the_amplitudes_within_their_uncertainty(seed):
    fit = fit_spectrum(noisy(seed=seed), setup(TABLE))
    pull = (fit.amplitude - amplitudes(1e6, TABLE)) / fit.amplitude_sigma
    assert float(pull.abs().max()) < 4.0
    assert float(pull.square().mean().sqrt()) < 2.0
    assert fit.reduced_chi2 == pytest.approx(1.0, abs=0.15)
    assert fit.deviance == pytest.approx(1.0, abs=0.15)
    assert fit.r2 == pytest.approx(fit.r2_expected, abs=5e-4)


def test_a_tube_spectrum_is_fitted_without_an_elastic_column():
    counts = drawn(expected_counts(1e6, lines=TABLE, elastic=False)[0], 4)
    fit = fit_spectrum(counts, setup(TABLE, elastic=False, background="none"))
    assert ELASTIC not in fit.component_names
    assert fit.component_names[-1] == COMPTON
    pull = (fit.amplitude - amplitudes(1e6, TABLE, elastic=False)) / fit.amplitude_sigma
    assert float(pull.abs().max()) < 4.0


def test_doubling_the_counts_doubles_the_amplitudes():
    counts = peaks(1e5)
    one, two = (fit_spectrum(k * counts, setup(TABLE, background="none")) for k in (1.0, 2.0))
    torch.testing.assert_close(two.amplitude, 2.0 * one.amplitude, rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint16, torch.float32])
def test_the_type_of_the_counts_does_not_matter_and_they_are_not_changed(dtype):
    counts = noisy(2e5)
    given = counts.to(dtype)
    before = given.clone()
    assert torch.equal(fit_spectrum(given, setup(TABLE)).theta, fit_spectrum(counts, setup(TABLE)).theta)
    assert torch.equal(given, before)


def test_two_runs_are_bit_identical():
    first, second = (fit_spectrum(noisy(), setup(TABLE)) for _ in range(2))
    for name in ("theta", "theta_sigma", "amplitude", "amplitude_sigma", "model", "background"):
        assert torch.equal(torch.nan_to_num(getattr(first, name)), torch.nan_to_num(getattr(second, name)))
    assert (first.r2, first.deviance, first.iterations) == (second.r2, second.deviance, second.iterations)


# --- backgrounds --------------------------------------------------------------------------------


@pytest.mark.parametrize("background", ["hats", "snip", "none"])
def test_model_background_and_components_add_up(background):
    fit = fit_spectrum(noisy(), setup(TABLE, background=background))
    torch.testing.assert_close(fit.component_counts.sum(dim=0) + fit.background, fit.model)
    torch.testing.assert_close(fit.background_parts.sum(dim=0), fit.background)
    assert bool((fit.background >= 0.0).all())
    assert float(r_squared(fit.counts, fit.model)) == pytest.approx(fit.r2, abs=2e-3)


def test_hats_follow_the_continuum():
    peaked, continuum = expected_counts(1e6, lines=TABLE)
    fit = fit_spectrum(drawn(peaked + continuum, 1), setup(TABLE))
    inside = continuum[fit.first_channel : fit.first_channel + fit.counts.shape[0]]
    assert float(fit.background.sum()) == pytest.approx(float(inside.sum()), rel=0.02)
    assert fit.background_parts.shape[0] > 10


def test_snip_takes_the_continuum_and_leaves_the_peaks():
    peaked, continuum = expected_counts(1e6, lines=TABLE)
    fit = fit_spectrum(drawn(peaked + continuum, 1), setup(TABLE, background="snip"))
    truth = amplitudes(1e6, TABLE)
    strong = truth > 0.1 * truth.max()
    np.testing.assert_allclose(fit.amplitude[strong], truth[strong], rtol=0.08)


def test_without_a_background_there_is_none():
    fit = fit_spectrum(peaks(), setup(TABLE, background="none"))
    assert fit.background_parts.shape == (0, fit.counts.shape[0])
    assert float(fit.background.abs().max()) == 0.0


# --- reports ------------------------------------------------------------------------------------


def test_a_parameter_at_its_bound_is_named_and_has_no_uncertainty():
    tight = tuple(
        replace(p, upper=0.005, value=0.002) if p.name == "f_tail_offset" else p for p in setup(TABLE).parameters
    )
    fit = fit_spectrum(peaks(), setup(TABLE, parameters=tight, background="none"))
    i = INDEX["f_tail_offset"]
    assert bool(fit.at_bound[i])
    assert int(fit.at_bound.sum()) == 1
    assert fit.messages == ("parameters at a bound: f_tail_offset",)
    assert bool(fit.theta_sigma[i].isnan())
    assert float(fit.theta[i]) == 0.005


def test_free_parameters_have_an_uncertainty_and_fixed_ones_do_not():
    fit = fit_spectrum(noisy(), setup(TABLE))
    moving = fit.free & ~fit.at_bound
    assert bool((fit.theta_sigma[moving] > 0.0).all())
    assert bool(fit.theta_sigma[~moving].isnan().all())
    assert not bool(fit.at_bound[~fit.free].any())


def test_a_tight_prior_holds_theta_at_its_start():
    held = tuple(replace(p, prior_sd=1e-5) if p.name == "compton_angle" else p for p in setup(TABLE).parameters)
    counts = drawn(peaks(), 1)
    tight = fit_spectrum(counts, setup(TABLE, parameters=held, background="none"))
    loose = fit_spectrum(counts, setup(TABLE, background="none"))
    i = INDEX["compton_angle"]
    assert float(tight.theta[i]) == pytest.approx(90.0, abs=1e-3)
    assert float(loose.theta[i]) == pytest.approx(93.0, abs=5.0 * float(loose.theta_sigma[i]))


def test_the_r2_that_is_reported_is_that_of_the_unit_weight_pass():
    """It is at least as high as that of any other theta and amplitudes, the Poisson ones among them."""
    fit = fit_spectrum(noisy(2e4), setup(TABLE))
    assert fit.r2 > float(r_squared(fit.counts, fit.model))


@pytest.mark.parametrize("count", [0.0, -1.0])
def test_a_spectrum_without_counts_is_empty_and_nothing_is_made_up(count):
    fit = fit_spectrum(torch.full((1500,), count), setup(TABLE))
    assert fit.status is FitStatus.EMPTY
    assert bool(fit.amplitude.isnan().all() & fit.amplitude_sigma.isnan().all() & fit.theta_sigma.isnan().all())
    assert np.isnan(fit.r2)
    assert "no counts" in fit.messages[0]


def test_counts_outside_the_fit_range_alone_leave_it_empty():
    counts = torch.zeros(1500)
    counts[:50] = 1000.0
    assert fit_spectrum(counts, setup(TABLE)).status is FitStatus.EMPTY


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_counts_that_are_not_finite_are_reported_and_not_fitted(value):
    counts = noisy()
    counts[700] = value
    fit = fit_spectrum(counts, setup(TABLE))
    assert fit.status is FitStatus.NONFINITE
    assert bool(fit.amplitude.isnan().all())
    assert "not finite" in fit.messages[0]


def test_a_handful_of_counts_gives_finite_numbers():
    counts = torch.zeros(1500)
    counts[[645, 371, 1170]] = torch.tensor([1.0, 2.0, 1.0])
    fit = fit_spectrum(counts, setup(TABLE))
    assert fit.status in {FitStatus.CONVERGED, FitStatus.MAX_ITERATIONS}
    for tensor in (fit.theta, fit.amplitude, fit.amplitude_sigma, fit.detection_limit, fit.model):
        assert bool(torch.isfinite(tensor).all())
    assert float(fit.model.sum()) == pytest.approx(4.0, abs=4.0)


def test_a_component_without_a_line_in_the_range_is_nan_or_zero_and_hurts_no_other():
    lines = table(("Na", "Ca", "Fe", "Zn"))
    fit = fit_spectrum(noisy(), setup(lines, energy_min_kev=2.0))
    iron = float(fit.amplitude[fit.component_names.index("Fe")])
    assert iron == pytest.approx(float(amplitudes(1e6, TABLE)[2]), rel=0.05)
    assert bool(torch.isfinite(fit.theta).all())


# --- fit range ----------------------------------------------------------------------------------


def test_the_fit_range_is_rounded_to_channels_and_cut_at_the_ends_of_the_spectrum():
    parameters = replace_values(PARAMETERS, {"energy_offset": -0.05, "energy_slope": 0.01})
    assert fit_range(parameters, 1.0, 11.0, 2048) == (105, 1105)
    assert fit_range(parameters, 1.004, 10.996, 2048) == (105, 1105)
    assert fit_range(parameters, -3.0, 40.0, 2048) == (0, 2047)


@pytest.mark.parametrize(("low", "high"), [(25.0, 30.0), (11.0, 1.0), (5.0, 5.0), (5.0, 5.2), (-9.0, -1.0)])
def test_a_fit_range_outside_the_spectrum_is_refused_with_its_numbers(low, high):
    with pytest.raises(FitError, match=rf"{low:g} to {high:g} keV.*0 to 2047.*50 channels"):
        fit_range(setup().parameters, low, high, 2048)


# --- amplitudes at fixed columns ----------------------------------------------------------------


def test_amplitudes_at_fixed_columns_are_recovered_and_never_negative():
    generator = torch.Generator().manual_seed(3)
    columns = torch.rand(200, 5, generator=generator, dtype=torch.float64)
    truth = torch.tensor([4.0, 0.0, 9.0, 2.0, 1.0], dtype=torch.float64)
    x, positive = fit_amplitudes(columns @ truth, columns)
    torch.testing.assert_close(x, truth, rtol=1e-6, atol=1e-6)
    counts = torch.poisson(columns @ (40.0 * truth), generator=generator)
    for poisson in (False, True):
        x, positive = fit_amplitudes(counts, columns, poisson=poisson)
        assert bool((x >= 0.0).all())
        assert bool((x[~positive] == 0.0).all())
    near = poisson_weights(columns @ x)
    gradient = columns.T @ (near * (counts - columns @ x))
    assert float(gradient[positive].abs().max()) < 1e-2 * float((columns.T @ (near * counts)).max())


# --- adam ---------------------------------------------------------------------------------------


def test_adam_is_a_method_of_the_same_fit(monkeypatch):
    short = hpcxrf.fitting.spectrum.gradient.minimise_adam
    monkeypatch.setattr(
        hpcxrf.fitting.spectrum.integrated, "minimise_adam", lambda theta, problem: short(theta, problem, steps=60)
    )
    fit = fit_spectrum(noisy(), setup(TABLE, method="adam"))
    assert fit.status is FitStatus.MAX_ITERATIONS
    assert bool((fit.amplitude > 0.0).all())
    assert 0.5 < fit.r2 < fit_spectrum(noisy(), setup(TABLE)).r2
    torch.testing.assert_close(fit.component_counts.sum(dim=0) + fit.background, fit.model)


@pytest.mark.slow
def test_adam_with_all_its_steps_comes_near_the_separable_fit():
    fit = fit_spectrum(noisy(), setup(TABLE, method="adam"))
    assert fit.r2 == pytest.approx(fit_spectrum(noisy(), setup(TABLE)).r2, abs=0.05)


# --- figures of merit ---------------------------------------------------------------------------


def test_the_figures_of_merit_are_hand_computed_numbers():
    counts, model = torch.tensor([1.0, 2.0, 6.0]).double(), torch.tensor([2.0, 2.0, 5.0]).double()
    # Mean 3, SS_tot 4 + 1 + 9 = 14, SS_res 2; sum of counts 9.
    assert float(r_squared(counts, model)) == pytest.approx(1.0 - 2.0 / 14.0, rel=1e-14)
    assert float(r_squared_expected(counts)) == pytest.approx(1.0 - 9.0 / 14.0, rel=1e-14)
    # 2 ((1 + ln 1/2) + 0 + (-1 + 6 ln 6/5)) = 2 (0.3068528 + 0.0939293) = 0.8015643
    assert float(poisson_deviance(counts, model)) == pytest.approx(0.8015643, abs=1e-7)
    assert float(poisson_deviance(torch.zeros(1), torch.ones(1))) == 2.0
    assert poisson_weights(torch.tensor([4.0, 0.0, -3.0])).tolist() == [0.25, 10.0, 10.0]
    assert bool(r_squared(torch.ones(4), torch.ones(4)).isnan())


def test_the_deviance_of_poisson_counts_is_one_per_channel():
    mean = torch.full((40000,), 25.0, dtype=torch.float64)
    # Its expectation is 1 + 1 / (6 mu) + ..., 1.007 here; the scatter of the mean 0.007.
    assert float(poisson_deviance(drawn(mean, 0), mean)) / 40000 == pytest.approx(1.007, abs=0.03)


# --- measured data ------------------------------------------------------------------------------

# What the override file beside the scans holds (CAL_OFFSET ... GAMMA_OFFSET); its Fano term is for k = 2.96.
OVERRIDE = {
    "energy_offset": -0.0041840752,
    "energy_slope": 0.0095216077,
    "fwhm_offset": 0.09721764,
    "fwhm_fanoprime": convert_fanoprime(0.00022440446, source=constant_set("maps-legacy-2.96"), target=PHYSICS),
    "coherent_sct_energy": 10.0,
    "compton_angle": 87.274598,
    "compton_fwhm_corr": 1.5730172,
    "compton_f_tail": 0.13308163,
    "compton_hi_f_tail": 0.0039171793,
    "gamma_offset": 2.2101209,
    "f_tail_offset": 0.003,
    "kb_f_tail_offset": 0.05,
}
COMMON = "Si P S Cl Ar K Ca Ti Cr Mn Fe Co Ni Cu Zn La_L"


def detector_spectrum(path, detector=0):
    scan = open_scan(path)
    return torch.from_numpy(
        np.asarray(scan.read_counts(slice(0, scan.shape[1]))[detector], dtype=float).sum(axis=(0, 1))
    )


def fit_of_measured(counts, names, incident_kev, values, last_kev):
    lines = table(names.split(), incident_kev, minimum_ratio=1e-3)
    return fit_spectrum(counts, setup(lines, parameters=replace_values(PARAMETERS, values), energy_max_kev=last_kev))


def test_the_axo_standard_reaches_its_figure(shared_data):
    counts = detector_spectrum(shared_data / "aps-2ide/mda/axo_std.mda")
    assert int(counts.sum()) == 895788
    fit = fit_of_measured(counts, f"{COMMON} Pd_L Mo_L Pb_M Ca_Ca", 10.0, OVERRIDE, 11.0)
    assert fit.r2 >= 0.999
    assert fit.status is FitStatus.CONVERGED
    assert float(fit.theta[INDEX["coherent_sct_energy"]]) == pytest.approx(10.0, abs=0.1)


def test_the_step_scan_reaches_its_figure(shared_data):
    counts = detector_spectrum(shared_data / "aps-2ide/mda/2xfm_0010.mda")
    assert int(counts.sum()) == 107119
    fit = fit_of_measured(counts, f"{COMMON} Mg", 10.0, OVERRIDE, 11.0)
    assert fit.r2 >= 0.9975
    assert fit.reduced_chi2 < 1.5


def srm_spectra(path):
    """Read afresh here: `KEY: four values`, then DATA with four columns."""
    head, _, data = path.read_text().partition("DATA:")
    lines = dict(line.split(":", 1) for line in head.splitlines() if ":" in line)
    offset, slope = (np.array(lines[k].split(), dtype=float) for k in ("CAL_OFFSET", "CAL_SLOPE"))
    return np.loadtxt(data.splitlines()[1:]).T, offset, slope


def test_the_thin_glass_standard_reaches_its_figure_on_every_detector(shared_data):
    spectra, offset, slope = srm_spectra(shared_data / "larch-srm1832/srm1832.mca")
    assert spectra.shape == (4, 2048)
    for d in range(4):
        values = {"energy_offset": offset[d], "energy_slope": slope[d], "coherent_sct_energy": 12.5}
        fit = fit_of_measured(torch.from_numpy(spectra[d]), "Si Cl Ar Ca V Cr Mn Fe Co Ni Cu Zn", 12.5, values, 13.5)
        assert fit.r2 >= 0.9995
        assert float(fit.theta[INDEX["coherent_sct_energy"]]) == pytest.approx(12.49, abs=0.03)


def test_a_table_of_one_line_is_enough():
    counts = drawn(1e4 * torch.exp(-0.5 * ((torch.arange(1500.0) - 640.0) / 7.0) ** 2), 1)
    fit = fit_spectrum(counts, setup(one_line(6.4)))
    assert float(fit.amplitude[0]) == pytest.approx(float(counts.sum()), rel=0.02)


def test_snip_with_maps_constants_is_the_snip_of_maps():
    from hpcxrf.fitting.spectrum.integrated import MAPS_SNIP_WIDTH
    from hpcxrf.physics.background import snip_maps

    constants = constant_set("maps-3.58")
    peaks, continuum = expected_counts(1e5)
    counts = drawn(peaks + continuum, 4)
    given = setup(background="snip", constants=constants)
    given = replace(given, parameters=tuple(replace(p, free=p.name == "energy_offset") for p in given.parameters))
    fit = fit_spectrum(counts, given)
    start = {p.name: p.value for p in given.parameters}
    last = fit.first_channel + fit.counts.shape[0] - 1
    expected = snip_maps(
        counts.numpy(),
        energy_offset=start["energy_offset"],
        energy_slope=start["energy_slope"],
        energy_quadratic=0.0,
        channel_range=(fit.first_channel, last),
        snip_width=MAPS_SNIP_WIDTH,
        constants=constants,
    )
    assert fit.background.tolist() == pytest.approx(expected[fit.first_channel : last + 1].tolist())
