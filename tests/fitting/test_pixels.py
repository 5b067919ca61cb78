"""Pixels at fixed theta: numpy and scipy as oracles, no bias, honest sigma, the same bits for any tiling."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fit_samples import TRUTH, channels, drawn, setup, table, theta_of
from scipy.optimize import nnls

from hpcxrf.errors import FitError
from hpcxrf.fitting.objective import poisson_deviance
from hpcxrf.fitting.pixels.basis import group_background, pixel_basis, pixel_operator, shared_weights
from hpcxrf.fitting.pixels.fit import fit_pixels, prepare_solver
from hpcxrf.fitting.pixels.parts import MICRO_BATCH
from hpcxrf.fitting.result import FitStatus
from hpcxrf.fitting.spectrum.integrated import fit_spectrum
from hpcxrf.physics.constants import PHYSICS
from hpcxrf.physics.model import design_matrix

TABLE = table(("Ca", "Fe", "Zn", "Ba_L"))
CHANNEL = channels(200, 1300)[::3]
# The coarse axis keeps the areas: a third of the channels, each three times as wide.
PHI = 3.0 * design_matrix(theta_of(**TRUTH), TABLE, CHANNEL, constants=PHYSICS)
CONTINUUM = torch.stack([1300.0 - CHANNEL, CHANNEL - 150.0]).clamp(min=1.0)
MEAN = torch.tensor([30.0, 100.0, 10.0, 20.0, 50.0, 150.0], dtype=torch.float64)


def basis_of(mean=MEAN, background_counts=40.0):
    continuum = background_counts * CONTINUUM / CONTINUUM.sum()
    return pixel_basis(PHI, mean, continuum, 1)


BASIS = basis_of()
OPERATOR = pixel_operator(BASIS)


def simulated(coefficients, n_pixels, seed=0):
    """Poisson pixels of the basis' model, (pixel, channel) float32."""
    expected = (BASIS.columns @ coefficients).clamp(min=0.0)
    return drawn(expected.expand(n_pixels, -1), seed).to(torch.float32)


def fit(counts, basis=BASIS, method="linear", **options):
    return fit_pixels(counts, torch.ones(len(counts)).bool(), prepare_solver(method, basis), **options)


def scaled(level):
    return BASIS.coefficients * level


# --- against numpy and scipy --------------------------------------------------------------------


def test_the_projector_is_the_weighted_least_squares_of_numpy():
    counts = simulated(scaled(3.0), 20)
    root = np.sqrt(1.0 / (BASIS.expected.numpy() + 0.01 * BASIS.expected.numpy().mean()))
    by_numpy = np.linalg.lstsq(root[:, None] * BASIS.columns.numpy(), (root * counts.double().numpy()).T, rcond=None)[0]
    np.testing.assert_allclose(fit(counts).amplitude, by_numpy[:6].T, rtol=2e-4, atol=2e-3)
    exact = counts.double() @ pixel_projector_float64()
    np.testing.assert_allclose(exact, by_numpy.T, rtol=1e-6, atol=1e-6)


def pixel_projector_float64():
    weights = shared_weights(BASIS.expected)
    weighted = BASIS.columns * weights[:, None]
    return torch.linalg.solve(OPERATOR.gram, weighted.T).T


def test_the_float32_projector_is_the_float64_one_to_its_rounding():
    exact = pixel_projector_float64()
    np.testing.assert_allclose(OPERATOR.projector, exact, rtol=1e-4, atol=1e-6 * float(exact.abs().max()))


def test_the_shared_weights_are_one_over_the_mean_plus_a_hundredth():
    # Mean of (1, 3): 2; weights 1 / 1.02 and 1 / 3.02
    found = shared_weights(torch.tensor([1.0, 3.0]))
    np.testing.assert_allclose(found, [1 / 1.02, 1 / 3.02], rtol=1e-6)
    assert float(shared_weights(torch.tensor([-5.0, 4.0]))[0]) == pytest.approx(1 / 0.02)


def test_non_negative_pixels_are_those_of_scipy():
    counts = simulated(scaled(0.05), 60)
    found = fit(counts, method="nnls").amplitude.numpy()
    root = np.sqrt(shared_weights(BASIS.expected).numpy())
    design = root[:, None] * BASIS.columns.numpy()
    expected = np.stack([nnls(design, root * y)[0] for y in counts.double().numpy()])
    np.testing.assert_allclose(found, expected[:, :6], rtol=1e-4, atol=1e-4)
    assert (found == 0.0).any()
    assert (found >= 0.0).all()


def test_pixels_without_noise_give_back_their_amplitudes_by_either_method():
    generator = torch.Generator().manual_seed(1)
    given = 1000.0 * torch.rand(30, BASIS.columns.shape[1], generator=generator, dtype=torch.float64)
    for method in ("linear", "nnls"):
        found = fit((given @ BASIS.columns.T), method=method)
        np.testing.assert_allclose(found.amplitude, given[:, :6], rtol=1e-4, atol=2e-2)


def test_the_sigma_is_that_of_the_propagated_counts():
    """var(a) = sum_n P_nk^2 mu_n, with mu of the pixel: against the truth's mu, without noise."""
    given = scaled(20.0)
    found = fit((BASIS.columns @ given)[None])
    variance = (pixel_projector_float64()[:, :6] ** 2).T @ (BASIS.columns @ given)
    np.testing.assert_allclose(found.sigma[0], variance.sqrt(), rtol=1e-3)


def test_the_detection_limit_is_currie_with_the_component_taken_away():
    given = scaled(20.0)
    found = fit((BASIS.columns @ given)[None])
    squares = pixel_projector_float64()[:, :6] ** 2
    for k in range(6):
        without = BASIS.columns @ given - BASIS.columns[:, k] * given[k]
        null = float((squares[:, k] @ without).sqrt())
        added = float(squares[:, k] @ BASIS.columns[:, k])
        assert float(found.detection_limit[0, k]) == pytest.approx(2.71 * added + 3.29 * null, rel=1e-3)


def test_the_deviance_is_the_poisson_deviance_of_the_model_per_degree_of_freedom():
    counts = simulated(scaled(30.0), 3)
    found = fit(counts)
    model = (counts.double() @ pixel_projector_float64()) @ BASIS.columns.T
    by_hand = poisson_deviance(counts.double(), model) / (len(CHANNEL) - BASIS.columns.shape[1])
    np.testing.assert_allclose(found.deviance, by_hand, rtol=1e-3)
    assert bool(fit(counts, deviance=False).deviance.isnan().all())
    torch.testing.assert_close(fit(counts, deviance=False).amplitude, found.amplitude)


def test_the_deviance_of_bright_pixels_is_one():
    assert float(fit(simulated(scaled(1000.0), 400)).deviance.mean()) == pytest.approx(1.0, abs=0.02)


# --- statistics ---------------------------------------------------------------------------------


@pytest.mark.parametrize("counts_per_element", [1.0, 3.0, 10.0, 30.0, 100.0])
def test_the_linear_fit_is_unbiased_down_to_one_count(counts_per_element):
    """Weights from the noisy pixel itself lose up to 30 % here."""
    n = 4000
    given = BASIS.coefficients.clone()
    given[1] = counts_per_element
    found = fit(simulated(given, n, seed=int(counts_per_element))).amplitude.double()
    error = found.std(dim=0) / n**0.5
    pull = (found.mean(dim=0) - given[:6]) / error
    assert float(pull.abs().max()) < 3.5
    assert abs(float(pull[1])) < 3.0


@pytest.mark.parametrize("level", [0.01, 1.0, 100.0])
def test_the_linear_fit_is_unbiased_at_any_brightness_of_the_pixel(level):
    n = 4000
    found = fit(simulated(scaled(level), n, seed=7)).amplitude.double()
    pull = (found.mean(dim=0) - scaled(level)[:6]) / (found.std(dim=0) / n**0.5)
    assert float(pull.abs().max()) < 3.5


def test_sigma_predicts_the_scatter_and_68_percent_of_the_pixels_lie_within_it():
    n = 20000
    given = scaled(5.0)  # 50 counts in the faintest element
    found = fit(simulated(given, n, seed=11))
    pull = (found.amplitude.double() - given[:6]) / found.sigma
    cover = (pull.abs() < 1.0).double().mean(dim=0)
    assert bool(((cover > 0.66) & (cover < 0.70)).all()), cover
    scatter = found.amplitude.double().std(dim=0)
    np.testing.assert_allclose(found.sigma.double().mean(dim=0), scatter, rtol=0.02)


def test_shared_weights_are_more_precise_than_none_and_as_precise_as_the_true_ones():
    n = 6000
    given = scaled(1.0)
    counts = simulated(given, n, seed=3).double()
    mu = BASIS.columns @ given

    def scatter(weights):
        weighted = BASIS.columns * weights[:, None]
        return (counts @ torch.linalg.solve(BASIS.columns.T @ weighted, weighted.T).T)[:, :6].std(dim=0)

    shared = fit(counts.float()).amplitude.double().std(dim=0)
    assert bool((shared < 1.02 * scatter(1.0 / mu)).all())
    assert bool((shared < scatter(torch.ones_like(mu))).all())


def test_the_sum_of_the_pixels_is_the_fit_of_the_sum():
    from fit_samples import amplitudes, expected_counts

    lines = table(("Si", "Ca", "Fe", "Zn", "Ba_L"))
    mean = sum(expected_counts(400.0, lines=lines))
    pixels = drawn(mean.expand(1000, -1), 5)
    whole = fit_spectrum(pixels.sum(dim=0), setup(lines))
    first = whole.first_channel
    inside = pixels[:, first : first + len(whole.counts)]
    phi = (whole.component_counts / whole.amplitude[:, None]).T
    background = group_background(whole.background_parts, 3)
    basis = pixel_basis(phi, whole.amplitude, background, 1000)
    total = fit(inside, basis).amplitude.double().sum(dim=0)
    assert bool(((total - whole.amplitude).abs() < 2.0 * whole.amplitude_sigma).all())
    # Linear: the fit of the summed counts, to rounding, is the sum of the fits.
    of_sum = fit(inside.sum(dim=0, keepdim=True), basis).amplitude[0].double()
    torch.testing.assert_close(total, of_sum, rtol=1e-4, atol=0.5)
    pull = (total - amplitudes(4e5, lines)) / whole.amplitude_sigma
    assert float(pull.abs().max()) < 3.0, pull


# --- bits, tiles, batches -----------------------------------------------------------------------


@pytest.mark.parametrize("method", ["linear", "nnls"])
def test_results_are_bit_identical_for_any_tiling_at_micro_batches(method):
    n = 3 * MICRO_BATCH + 100
    counts = simulated(scaled(0.3), n, seed=2)
    whole = fit(counts, method=method)
    for size in (MICRO_BATCH, 2 * MICRO_BATCH):
        tiles = [fit(counts[i : i + size], method=method) for i in range(0, n, size)]
        for name in ("amplitude", "sigma", "detection_limit", "deviance", "status"):
            joined = torch.cat([getattr(t, name) for t in tiles])
            assert torch.equal(torch.nan_to_num(joined), torch.nan_to_num(getattr(whole, name))), name


def test_permuting_the_pixels_permutes_the_results():
    counts = simulated(scaled(0.5), 500)
    order = torch.randperm(500, generator=torch.Generator().manual_seed(0))
    for method in ("linear", "nnls"):
        straight, mixed = fit(counts, method=method), fit(counts[order], method=method)
        torch.testing.assert_close(mixed.amplitude, straight.amplitude[order], rtol=1e-4, atol=1e-4)


def test_doubling_the_counts_doubles_the_amplitudes_and_scales_sigma_by_the_root():
    counts = simulated(scaled(30.0), 50)
    one, two = fit(counts), fit(2.0 * counts)
    torch.testing.assert_close(two.amplitude, 2.0 * one.amplitude, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(two.sigma, 2.0**0.5 * one.sigma, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int32, torch.float64])
def test_the_type_of_the_counts_does_not_matter(dtype):
    counts = simulated(scaled(0.5), 40).clamp(max=200)
    assert torch.equal(fit(counts.to(dtype)).amplitude, fit(counts).amplitude)


def test_a_tile_without_pixels_gives_empty_arrays():
    found = fit(torch.zeros(0, len(CHANNEL)))
    assert found.amplitude.shape == (0, 6)
    assert found.status.shape == (0,)


# --- status -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["linear", "nnls"])
def test_each_pixel_has_its_status_and_bad_ones_hurt_no_neighbour(method):
    counts = simulated(scaled(1.0), 5)
    clean = fit(counts, method=method)
    broken = counts.clone()
    broken[1] = 0.0
    broken[2, 7] = float("nan")
    broken[3, 9] = float("inf")
    measured = torch.tensor([True, True, True, True, False])
    found = fit_pixels(broken, measured, prepare_solver(method, BASIS))
    assert found.status.tolist() == [
        FitStatus.CONVERGED,
        FitStatus.EMPTY,
        FitStatus.NONFINITE,
        FitStatus.NONFINITE,
        FitStatus.NOT_MEASURED,
    ]
    assert found.status.dtype == torch.uint8
    torch.testing.assert_close(found.amplitude[0], clean.amplitude[0])
    for values in (found.amplitude, found.sigma, found.detection_limit):
        assert bool(values[[2, 3, 4]].isnan().all())
        assert bool(torch.isfinite(values[[0, 1]]).all())
    assert float(found.amplitude[1].abs().max()) == 0.0
    assert bool((found.sigma[1] > 0.0).all())
    assert FitStatus.NOT_RUN not in found.status.tolist()


def test_counts_are_not_changed():
    counts = simulated(scaled(1.0), 3)
    counts[1, 3] = float("nan")
    before = counts.clone()
    fit(counts)
    torch.testing.assert_close(counts, before, equal_nan=True, rtol=0.0, atol=0.0)


# --- refusals and background --------------------------------------------------------------------


def test_a_component_without_a_count_in_the_range_is_not_measured_and_spoils_no_other():
    empty = torch.cat([PHI[:, :2], torch.zeros_like(PHI[:, :1])], dim=1)
    nothing = torch.zeros(0, len(CHANNEL)).double()
    counts = simulated(scaled(1.0), 30)
    with_it = pixel_basis(empty, MEAN[:3], nothing, 1)
    without = pixel_basis(PHI[:, :2], MEAN[:2], nothing, 1)
    for method in ("linear", "nnls"):
        found = fit(counts, with_it, method)
        assert bool(found.amplitude[:, 2].isnan().all())
        assert bool(found.sigma[:, 2].isnan().all())
        expected = fit(counts, without, method)
        torch.testing.assert_close(found.amplitude[:, :2], expected.amplitude)


def test_two_equal_components_make_the_basis_singular():
    twice = torch.cat([PHI, PHI[:, 1:2]], dim=1)
    mean = torch.cat([MEAN, MEAN[1:2]])
    basis = pixel_basis(twice, mean, torch.zeros(0, len(CHANNEL)).double(), 1)
    with pytest.raises(FitError, match="singular: column 1, column 6 have indistinguishable spectra"):
        pixel_operator(basis)
    names = ("Ca", "Fe", "Zn", "Ba_L", "elastic", "Compton", "Co")
    with pytest.raises(FitError, match="singular: Fe, Co have indistinguishable spectra"):
        pixel_operator(replace(basis, names=names))


def test_a_component_that_is_a_mixture_of_others_makes_the_basis_singular():
    mixture = torch.cat([PHI, PHI[:, :1] + 2.0 * PHI[:, 2:3]], dim=1)
    mean = torch.cat([MEAN, MEAN[1:2]])
    with pytest.raises(FitError, match="singular"):
        pixel_operator(pixel_basis(mixture, mean, torch.zeros(0, len(CHANNEL)).double(), 1))


def test_background_parts_are_joined_with_their_neighbours_and_keep_their_sum():
    parts = torch.arange(1.0, 11.0)[:, None] * torch.eye(10)
    parts[4] = 0.0
    grouped = group_background(parts, 3)
    assert grouped.shape == (3, 10)
    torch.testing.assert_close(grouped.sum(dim=0), parts.sum(dim=0))
    assert [row.nonzero()[:, 0].tolist() for row in grouped] == [[0, 1, 2], [3, 5, 6], [7, 8, 9]]
    assert group_background(parts, 40).shape == (9, 10)
    assert group_background(torch.zeros(3, 10), 2).shape == (0, 10)
    assert group_background(torch.zeros(0, 10), 2).shape == (0, 10)


def test_the_basis_is_the_mean_pixel_of_the_integrated_fit():
    background = torch.full((2, len(CHANNEL)), 30.0, dtype=torch.float64)
    basis = pixel_basis(PHI, 100.0 * MEAN, background, 100)
    torch.testing.assert_close(basis.coefficients[:6], MEAN)
    torch.testing.assert_close(basis.expected, PHI @ MEAN + 0.6)
    torch.testing.assert_close(basis.columns[:, 6:].sum(dim=0), torch.ones(2).double())
    assert basis.n_components == 6


def test_without_a_background_the_pixels_are_fitted_by_their_components_alone():
    basis = pixel_basis(PHI, MEAN, torch.zeros(0, len(CHANNEL)).double(), 1)
    assert basis.columns.shape[1] == 6
    found = fit((PHI @ MEAN)[None], basis)
    np.testing.assert_allclose(found.amplitude[0], MEAN, rtol=1e-4)


def test_the_number_of_threads_changes_no_bit():
    counts = simulated(scaled(1.0), 3 * MICRO_BATCH + 17)
    one, four = fit(counts, threads=1), fit(counts, threads=4)
    for name in ("amplitude", "sigma", "detection_limit", "deviance", "status"):
        torch.testing.assert_close(getattr(one, name), getattr(four, name), rtol=0.0, atol=0.0)


@pytest.mark.parametrize("total", [30.0, 300.0])
def test_a_component_that_is_hardly_there_keeps_an_honest_sigma(total):
    """Signed estimates of its neighbours must not cancel its variance: pulls stay those of a normal law."""
    weak = MEAN.clone()
    weak[1] = 1e-3 * MEAN[1]
    share = torch.cat([weak, BASIS.coefficients[len(MEAN) :]])
    coefficients = share / share.sum() * total
    counts = simulated(coefficients, 20000, seed=5)
    found = fit(counts)
    pull = (found.amplitude - coefficients[: len(MEAN)]) / found.sigma
    # A few counts are no normal law: their lower tail is longer. Signed variances gave a third beyond 3.
    assert float((pull.abs() > 3.0).double().mean(dim=0).max()) < 0.06
    assert float(pull[:, 1].abs().max()) < 4.0
    assert bool((pull.std(dim=0) < 1.4).all())
