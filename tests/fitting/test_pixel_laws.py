"""Laws of the pixel fits that no choice of numbers may break: order, orientation, type, sums, scale, composition."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pixel_samples import BASIS, N_COMPONENTS, OPERATOR, fit, poisson_pixels
from run_samples import maps_of, run_scan, spectrum, write_scan

from hpcxrf.fitting.pixels.basis import PixelBasis
from hpcxrf.fitting.pixels.fit import prepare_solver
from hpcxrf.fitting.result import FitStatus

N_COLUMNS = len(BASIS.coefficients)
seeds = st.integers(0, 2**31)
# Brightness of every column against the mean pixel, from a trace to a hot spot of it alone.
levels = st.lists(st.floats(-2.0, 3.0), min_size=N_COLUMNS, max_size=N_COLUMNS)


def with_columns(order, n_components):
    """The basis with some of its columns, in another order."""
    columns, coefficients = BASIS.columns[:, order], BASIS.coefficients[order]
    return PixelBasis(
        columns=columns, n_components=n_components, expected=columns @ coefficients, coefficients=coefficients
    )


def coefficients_of(exponents):
    return BASIS.coefficients * 10.0 ** torch.tensor(exponents, dtype=torch.float64)


# --- one tile -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["linear", "nnls", "poisson"])
@settings(max_examples=15)
@given(order=st.permutations(range(N_COMPONENTS)), exponents=levels, seed=seeds)
def test_the_order_of_the_families_changes_no_amplitude(method, order, exponents, seed):
    counts = poisson_pixels(coefficients_of(exponents).expand(20, -1), seed)
    every = [*order, *range(N_COMPONENTS, N_COLUMNS)]
    mixed = fit(counts, method, prepare_solver(method, with_columns(every, N_COMPONENTS)))
    straight = fit(counts, method)
    # The likelihood is within 0.05 of its optimum, and the rounding of its counts, which leaves a part of a sigma open;
    # a hot spot with hardly a background may need more steps than there are, and says so.
    near = {"linear": 1e-3, "nnls": 0.02, "poisson": 0.5}[method]
    ended = (mixed.status == FitStatus.CONVERGED) & (straight.status == FitStatus.CONVERGED)
    assert bool(ended.all()) or method == "poisson"
    for name in ("amplitude", "detection_limit"):
        apart = getattr(mixed, name) - getattr(straight, name)[:, order]
        assert not bool(((apart / straight.sigma[:, order])[ended].abs() > near).any()), name


@settings(max_examples=25)
@given(exponents=levels, seed=seeds)
def test_a_pixel_of_any_composition_has_no_bias_and_an_honest_sigma(exponents, seed):
    """Also one that is nothing like the mean pixel, whose weights it shares."""
    n = 1500
    given_coefficients = coefficients_of(exponents)
    found = fit(poisson_pixels(given_coefficients.expand(n, -1), seed), deviance=False)
    amplitude = found.amplitude.double()
    scatter = amplitude.std(dim=0)
    off = (amplitude.mean(dim=0) - given_coefficients[:N_COMPONENTS]) / scatter * n**0.5
    assert float(off.abs().max()) < 5.0
    ratio = (found.sigma.double() ** 2).mean(dim=0).sqrt() / scatter
    # Never too small; what is known to a few counts is taken to be there, and has a little too much.
    assert float(ratio.min()) > 0.9
    assert float(ratio[scatter > 10.0].max() if bool((scatter > 10.0).any()) else 1.0) < 1.15


@settings(max_examples=15)
@given(exponents=levels, absent=st.integers(0, 3), seed=seeds)
def test_a_family_that_is_not_there_changes_the_others_within_their_sigma(exponents, absent, seed):
    n = 400
    true = coefficients_of(exponents)
    true[absent] = 0.0
    counts = poisson_pixels(true.expand(n, -1), seed)
    rest = [i for i in range(N_COLUMNS) if i != absent]
    without = fit(counts, "linear", prepare_solver("linear", with_columns(rest, N_COMPONENTS - 1)))
    others = rest[: N_COMPONENTS - 1]
    both = fit(counts)
    moved = (both.amplitude[:, others] - without.amplitude) / both.sigma[:, others]
    assert float(moved.double().pow(2).mean(dim=0).sqrt().max()) < 1.0
    # What the fit has no column for is in nobody's amplitude on average, as it is not there.
    assert float((moved.double().mean(dim=0) / moved.double().std(dim=0) * n**0.5).abs().max()) < 5.0
    one, other = (values.mean(dim=0) for values in (without.sigma, both.sigma[:, others]))
    # But for the weights, which are of another mean pixel.
    assert bool((one < 1.1 * other).all())


@given(seed=seeds, level=st.floats(0.01, 30.0))
@settings(max_examples=15)
def test_the_map_of_a_sum_is_the_sum_of_the_maps(seed, level):
    one, two = (poisson_pixels((level * BASIS.coefficients).expand(30, -1), seed + i) for i in (0, 1))
    together = fit(one + two).amplitude
    apart = fit(one).amplitude + fit(two).amplitude
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-3 * (1.0 + level))


@pytest.mark.parametrize("method", ["linear", "nnls", "poisson"])
@settings(max_examples=10)
@given(times=st.integers(2, 50), seed=seeds)
def test_counts_that_are_n_times_as_many_give_n_times_the_amplitudes(method, times, seed):
    counts = poisson_pixels((3.0 * BASIS.coefficients).expand(20, -1), seed)
    one, many = fit(counts, method), fit(times * counts, method)
    apart = (many.amplitude / times - one.amplitude) / one.sigma
    assert float(apart.abs().max()) < {"linear": 1e-3, "nnls": 0.02, "poisson": 0.3}[method]


def test_a_column_in_another_unit_is_another_unit_of_its_amplitude_alone():
    factor = 1e-3
    columns, mean = BASIS.columns.clone(), BASIS.coefficients.clone()
    columns[:, 1] *= factor
    mean[1] /= factor
    basis = PixelBasis(columns=columns, n_components=N_COMPONENTS, expected=BASIS.expected, coefficients=mean)
    solver = prepare_solver("linear", basis)
    counts = poisson_pixels((2.0 * BASIS.coefficients).expand(50, -1))
    found, expected = fit(counts, "linear", solver), fit(counts)
    assert torch.equal(solver.operator.measured, OPERATOR.measured)
    torch.testing.assert_close(found.amplitude[:, 1] * factor, expected.amplitude[:, 1], rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(found.amplitude[:, 2], expected.amplitude[:, 2], rtol=1e-3, atol=1e-2)


# --- whole runs ---------------------------------------------------------------------------------

ELEMENTS = ("Ca", "Fe", "Zn")
SHAPE = (2, 6, 8)


@pytest.fixture(scope="module")
def counts():
    """Two detectors, three families each with its own pattern."""
    rng = np.random.default_rng(5)
    mean = np.zeros((*SHAPE, 1200))
    for name, level in zip(ELEMENTS, (100.0, 200.0, 60.0), strict=True):
        one = spectrum({name: 1.0, "elastic": 0.0, "Compton": 0.0}, continuum=0.0)
        mean += level * 2.0 * rng.random(SHAPE[1:])[None, :, :, None] * one
    mean += spectrum({"Fe": 0.0, "elastic": 60.0, "Compton": 80.0})
    mean[1] *= 0.6
    return rng.poisson(mean).astype(np.uint16)


def mapped(folder, given_counts, elements=ELEMENTS):
    write_scan(folder, np.zeros((1, 1, 1, 1200)), elements=elements)
    np.save(folder / "scan.npy", given_counts)
    store, _ = run_scan(folder, folder / "run", pixels={"detectors": "both"})
    found = maps_of(store)
    assert (found.status == FitStatus.CONVERGED).all()
    return found


@pytest.fixture(scope="module")
def straight(counts, tmp_path_factory):
    return mapped(tmp_path_factory.mktemp("straight"), counts)


def assert_same(found, expected, near):
    """Amplitudes to a share of their sigma, and sigmas to the same share."""
    apart = (found.amplitude.values - expected.amplitude.values) / expected.sigma.values
    assert float(np.abs(apart).max()) < near
    assert float(np.abs(found.sigma.values / expected.sigma.values - 1.0).max()) < near


@pytest.mark.parametrize("dtype", [np.uint32, np.int32, np.float32, np.float64])
def test_the_type_of_the_file_changes_no_map(counts, straight, tmp_path, dtype):
    assert_same(mapped(tmp_path, counts.astype(dtype)), straight, 1e-6)


def test_a_scan_that_is_turned_and_mirrored_has_maps_that_are(counts, straight, tmp_path):
    turned = np.ascontiguousarray(np.swapaxes(counts[:, ::-1], 1, 2))
    back = mapped(tmp_path, turned).transpose("detector", "component", "x", "y")
    assert_same(back, straight.isel(y=slice(None, None, -1)), 1e-6)


def test_detectors_in_another_order_have_their_own_maps_and_the_same_sum(counts, straight, tmp_path):
    found = mapped(tmp_path, np.ascontiguousarray(counts[::-1]))
    assert_same(found.sel(detector=["sum", "1", "0"]), straight, 1e-3)


def test_elements_in_another_order_have_the_same_maps(counts, straight, tmp_path):
    found = mapped(tmp_path, counts, tuple(reversed(ELEMENTS)))
    assert_same(found.sel(component=straight.component), straight, 1e-3)


def test_a_scan_in_two_files_has_the_maps_of_one(counts, straight, tmp_path):
    """Each is calibrated by itself: a part of a sigma is the calibration's."""
    for i, rows in enumerate((slice(0, 3), slice(3, 6))):
        found = mapped(tmp_path / str(i), np.ascontiguousarray(counts[:, rows]))
        whole = straight.isel(y=rows)
        apart = ((found.amplitude - whole.amplitude) / whole.sigma).sel(component=list(ELEMENTS))
        assert float(np.sqrt((apart**2).mean())) < 0.2
        assert float(np.abs(apart).max()) < 1.0
