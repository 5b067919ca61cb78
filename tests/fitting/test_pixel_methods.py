"""What holds for every pixel method: bits, bad pixels, types, honest sigma, no bias where none is promised."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pixel_samples import (
    BASIS,
    MEAN,
    METHODS,
    MODEL,
    N_COMPONENTS,
    NAMES,
    ONE_DETECTOR,
    PHI,
    SOLVERS,
    THETA,
    fit,
    poisson_pixels,
)

from hpcxrf.errors import FitError
from hpcxrf.fitting.pixels.basis import pixel_basis, pixel_operator
from hpcxrf.fitting.pixels.fit import prepare_solver
from hpcxrf.fitting.pixels.full import full_model
from hpcxrf.fitting.pixels.mixtures import find_mixtures
from hpcxrf.fitting.pixels.parts import MICRO_BATCH, move_to
from hpcxrf.fitting.result import FitStatus

FAST = tuple(m for m in METHODS if m != "full")
MAPS = ("amplitude", "sigma", "detection_limit", "deviance", "status", "theta_shift")


def varied(n, level=1.0, seed=0):
    """Coefficients (pixel, column): every one between 0 and twice the mean."""
    generator = torch.Generator().manual_seed(seed)
    share = 2.0 * torch.rand(n, len(BASIS.coefficients), generator=generator, dtype=torch.float64)
    return level * share * BASIS.coefficients


def assert_same_bits(found, expected):
    for name in MAPS:
        a, b = getattr(found, name), getattr(expected, name)
        assert (a is None) == (b is None), name
        if a is not None:
            assert torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)), name


def part(found, index):
    return type(found)(**{n: None if getattr(found, n) is None else getattr(found, n)[index] for n in MAPS})


# --- bits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", FAST)
def test_bits_do_not_depend_on_the_tiling(method):
    n = 2 * MICRO_BATCH + 100
    counts = poisson_pixels(varied(n, 0.3))
    whole = fit(counts, method)
    for start, stop in ((0, MICRO_BATCH), (MICRO_BATCH, n), (2 * MICRO_BATCH, n)):
        assert_same_bits(fit(counts[start:stop], method), part(whole, slice(start, stop)))


@pytest.mark.parametrize("method", FAST)
def test_bits_of_a_pixel_do_not_depend_on_its_neighbours(method):
    """A neighbour that needs more iterations, or is of another class, must not move a pixel that is done."""
    counts = poisson_pixels(varied(600, 0.3))
    order = torch.randperm(600, generator=torch.Generator().manual_seed(0))
    assert_same_bits(fit(counts[order], method), part(fit(counts, method), order))
    hard = counts.clone()
    hard[::2] = poisson_pixels(varied(300, 30.0, seed=1))
    assert_same_bits(part(fit(hard, method), slice(1, None, 2)), part(fit(counts, method), slice(1, None, 2)))


@pytest.mark.slow
def test_bits_of_the_full_model_do_not_depend_on_the_tiling():
    counts = poisson_pixels(varied(12, 3.0))
    whole = fit(counts, "full")
    for start, stop in ((0, 4), (4, 12), (8, 12)):
        assert_same_bits(fit(counts[start:stop], "full"), part(whole, slice(start, stop)))


@pytest.mark.parametrize("method", FAST)
def test_the_type_of_the_counts_changes_no_bit(method):
    counts = poisson_pixels(varied(300, 0.5))
    expected = fit(counts, method)
    for dtype in (torch.uint16, torch.int32, torch.float64):
        assert_same_bits(fit(counts.to(dtype), method), expected)


@pytest.mark.parametrize("method", FAST)
def test_counts_may_be_a_part_of_longer_spectra(method):
    counts = poisson_pixels(varied(300, 0.5))
    longer = torch.nn.functional.pad(counts, (7, 30), value=5.0)
    assert_same_bits(fit(longer[:, 7:-30], method), fit(counts, method))


# --- bad pixels ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_bad_pixel_is_flagged_and_hurts_no_neighbour(method):
    counts = poisson_pixels(varied(8, 3.0))
    broken = counts.clone()
    broken[1] = 0.0
    broken[2, 7] = float("nan")
    broken[3, 9] = float("inf")
    measured = torch.tensor([True, True, True, True, False, True, True, True])
    found, clean = fit(broken, method, measured=measured), fit(counts, method)
    assert found.status[:5].tolist() == [
        clean.status[0],
        FitStatus.EMPTY,
        FitStatus.NONFINITE,
        FitStatus.NONFINITE,
        FitStatus.NOT_MEASURED,
    ]
    torch.testing.assert_close(found.amplitude[5:], clean.amplitude[5:], rtol=1e-3, atol=1e-2)
    for name in ("amplitude", "sigma", "detection_limit"):
        values = getattr(found, name)
        assert values.shape == (8, N_COMPONENTS)
        assert values.dtype == torch.float32
        assert bool(values[[2, 3, 4]].isnan().all()), name
        assert bool(torch.isfinite(values[[0, 1, 5, 6, 7]]).all()), name
    assert float(found.amplitude[1].abs().max()) < 1e-3
    assert bool((found.sigma[[0, 1, 5, 6, 7]] > 0).all())


@pytest.mark.parametrize("method", METHODS)
def test_a_saturated_pixel_has_finite_numbers_and_a_deviance_that_tells(method):
    counts = poisson_pixels(varied(8, 3.0))
    counts[2, 100:] = 65535.0
    found = fit(counts, method)
    assert float(found.deviance[2]) > 100.0 * float(found.deviance[[0, 1, 3, 4]].max())
    assert bool(torch.isfinite(found.amplitude).all())


@pytest.mark.parametrize("method", METHODS)
def test_no_pixels_give_empty_maps(method):
    found = fit(torch.zeros(0, PHI.shape[0]), method)
    assert found.amplitude.shape == found.sigma.shape == (0, N_COMPONENTS)
    assert found.status.shape == (0,)


@pytest.mark.parametrize("method", METHODS)
def test_counts_are_left_as_they_are(method):
    counts = poisson_pixels(varied(4, 3.0))
    counts[1, 3] = float("nan")
    before = counts.clone()
    fit(counts, method)
    torch.testing.assert_close(counts, before, equal_nan=True, rtol=0.0, atol=0.0)


# --- statistics ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["linear", "weight_classes"])
@pytest.mark.parametrize("expected", [1.0, 3.0, 10.0, 30.0, 100.0])
def test_an_element_of_a_few_counts_is_found_without_bias_and_to_its_square_root(method, expected):
    n = 20_000
    coefficients = BASIS.coefficients.clone()
    coefficients[2] = expected
    pixels = coefficients.expand(n, -1)
    found = fit(poisson_pixels(pixels, seed=int(expected)), method, deviance=False)
    wrong = (found.amplitude[:, 2].double().mean() - expected).abs()
    assert float(wrong) < 3.0 * float(found.amplitude[:, 2].double().std()) / n**0.5


@pytest.mark.parametrize("method", [*FAST])
@pytest.mark.parametrize("total", [50.0, 400.0, 1e4, 1e5])
def test_68_percent_of_the_pixels_lie_within_sigma(method, total):
    """Of the strong components; one that is cut at 0 lies nearer."""
    level = total / float(BASIS.coefficients.sum())
    pixels = (level * BASIS.coefficients).expand(8000, -1)
    found = fit(poisson_pixels(pixels, seed=3), method, deviance=False)
    pull = (found.amplitude.double() - pixels[:, :N_COMPONENTS]) / found.sigma
    strong = pixels[0, :N_COMPONENTS] > 10.0
    cover = (pull[:, strong].abs() < 1.0).double().mean()
    assert 0.655 < float(cover) < 0.715, cover
    if method in {"linear", "weight_classes"}:
        assert 0.66 < float((pull.abs() < 1.0).double().mean()) < 0.70 or total < 400.0


@pytest.mark.parametrize("method", FAST)
def test_sums_over_pixels_agree_with_the_fit_of_the_summed_spectrum(method):
    counts = poisson_pixels(varied(4000, 2.0))
    total = fit(counts, method).amplitude.double().sum(dim=0)
    of_sum = fit(counts.double().sum(dim=0, keepdim=True), "poisson")
    difference = (total - of_sum.amplitude[0].double()) / of_sum.sigma[0]
    # What cannot be negative is too high on average where it is weak: that is why `linear` is the default.
    strong = MEAN > 25.0 if method in {"nnls", "poisson"} else MEAN > 0.0
    limit = 2.0 if method in {"linear", "weight_classes"} else 3.0
    assert float(difference[strong].abs().max()) < limit, difference


@pytest.mark.parametrize("method", ["nnls", "poisson"])
def test_nothing_is_below_zero(method):
    found = fit(poisson_pixels(varied(500, 0.05)), method)
    assert float(found.amplitude.min()) == 0.0
    assert bool((found.status == int(FitStatus.CONVERGED)).all())


@pytest.mark.parametrize("method", METHODS)
def test_the_deviance_of_a_right_model_is_one_a_degree_of_freedom(method):
    n = 40 if method == "full" else 400
    found = fit(poisson_pixels((100.0 * BASIS.coefficients).expand(n, -1)), method)
    assert float(found.deviance.mean()) == pytest.approx(1.0, abs=0.03)
    assert bool(fit(poisson_pixels(varied(4)), method, deviance=False).deviance.isnan().all())


@pytest.mark.parametrize("method", FAST)
def test_without_errors_the_amplitudes_are_the_same(method):
    counts = poisson_pixels(varied(40))
    found = fit(counts, method, errors=False)
    assert torch.equal(found.amplitude, fit(counts, method).amplitude)
    assert bool(found.sigma.isnan().all() & found.detection_limit.isnan().all())


@pytest.mark.parametrize("method", METHODS)
def test_a_detection_limit_is_what_is_seen_of_a_component_that_is_not_there(method):
    n = 32 if method == "full" else 4000
    present, absent = BASIS.coefficients * 5.0, BASIS.coefficients * 5.0
    absent[2] = 0.0
    limit = fit(poisson_pixels(present.expand(n, -1)), method).detection_limit[:, 2].mean()
    sigma = fit(poisson_pixels(absent.expand(n, -1)), "linear").amplitude[:, 2].std()
    if method == "full":
        sigma = fit(poisson_pixels(absent.expand(4000, -1)), "linear").amplitude[:, 2].std()
    assert float(limit) == pytest.approx(2.71 + 3.29 * float(sigma), rel=0.1)


# --- data and refusals --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "missing"), [("nonlinear", "needs a basis with tangents"), ("full", "needs the model of the pixels")]
)
def test_a_method_without_what_it_needs_is_refused(method, missing):
    with pytest.raises(FitError, match=f"'{method}' {missing}"):
        prepare_solver(method, BASIS)


def test_clipping_is_refused_without_a_model_and_by_methods_with_their_background_in_the_fit():
    with pytest.raises(FitError, match="give a PixelModel"):
        prepare_solver("linear", BASIS, clipped=True)
    for method in ("poisson", "nonlinear", "full"):
        with pytest.raises(FitError, match=f"not available with pixel method '{method}'.*use linear or nnls"):
            prepare_solver(method, BASIS, ONE_DETECTOR, clipped=True)


def test_models_and_operators_move_to_a_device_whole():
    there = torch.device("meta")
    moved = move_to(there, full_model(MODEL, THETA, BASIS))
    assert moved.space.free_names == {"energy_offset", "energy_slope", "fwhm_offset"}
    assert {moved.theta.device, moved.space.prior_sd.device, moved.model.table.energy_kev.device} == {there}
    operator = move_to(there, SOLVERS["linear"].operator)
    assert operator.projector.device == there
    assert operator.grouping == SOLVERS["linear"].operator.grouping


def test_families_of_nearly_the_same_shape_are_named():
    assert find_mixtures(replace(BASIS, names=NAMES)) == ()
    alike = 0.9 * PHI[:, 1:2] + 0.1 * PHI[:, 1:2].roll(1, dims=0)
    nothing, mean = torch.zeros(0, len(PHI)).double(), torch.cat([MEAN, MEAN[1:2]])
    basis = pixel_basis(torch.cat([PHI, alike], dim=1), mean, nothing, 1, names=(*NAMES, "Co"))
    (found,) = find_mixtures(basis)
    assert found.members == ("Fe", "Co")
    assert found.text.startswith("Fe, Co ")
    inflated = found.inflation
    counts = (pixel_operator(basis).projector.double()[:, 1] ** 2 @ basis.expected).sqrt()
    alone = pixel_basis(PHI[:, 1:2], 2.0 * MEAN[1:2], torch.zeros(0, len(PHI)).double(), 1)
    weights = 1.0 / (basis.expected + 0.01 * basis.expected.mean())
    single = pixel_operator(alone, weights=weights).projector.double()[:, 0]
    np.testing.assert_allclose(inflated, float(counts / (single**2 @ basis.expected).sqrt()), rtol=0.05)
