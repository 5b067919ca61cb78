"""Thumbnails, figures and the texts of the tables."""

import doctest
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.image import imread
from results_sample import COMPONENTS, make_store
from scipy.optimize import isotonic_regression

from hpcxrf.fitting.result import FitStatus
from hpcxrf.results.report import colours, plots, scales, views
from hpcxrf.results.report.thumbnails import block_mean, summarise_maps
from hpcxrf.results.store.maps import open_results


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("plots") / "scan.zarr"
    maps = make_store(path, shape_yx=(130, 300), last_row=64)
    return open_results(path), maps


@pytest.fixture(scope="module")
def summary(store):
    return summarise_maps(store[0]["maps"].to_dataset(), "0")


def pixels_of(figure):
    return imread(io.BytesIO(plots.encode(figure, kind="png", dpi=80)))


def test_a_small_scan_is_summarised_pixel_by_pixel(store, summary):
    expected = store[1][:, :64].astype(np.float32)
    expected[:, 0, [0, 256]] = 0
    assert summary.factor == 1
    np.testing.assert_array_equal(summary.pictures[:, :64], expected)
    assert np.isnan(summary.pictures[:, 64:]).all()
    assert summary.status_counts[FitStatus.NOT_RUN] == 66 * 300
    assert summary.status_counts[FitStatus.EMPTY] == 2
    # The decision limit of a detection limit of 15: 1.645 (15 - 2.71) / 3.29 + 0.35.
    above = (expected > 6.495).reshape(len(COMPONENTS), -1)
    np.testing.assert_allclose(summary.above_limit, above.mean(1), atol=2 / above.shape[1])
    assert summary.step_um == pytest.approx((0.5, 0.5))


def test_a_large_scan_is_read_in_bands_and_keeps_its_mean(store, summary):
    small = summarise_maps(store[0]["maps"].to_dataset(), "0", side=60)
    assert (small.factor, small.pictures.shape) == (5, (len(COMPONENTS), 26, 60))
    assert small.status_counts == summary.status_counts
    np.testing.assert_allclose(small.pictures[:, :12], block_mean(summary.pictures[:, :60], 5), rtol=1e-12)


@given(arrays(float, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.floats(-9, 9)), st.integers(1, 5))
def test_block_means_are_the_means_of_the_blocks(values, factor):
    found = block_mean(values, factor)
    for y in range(found.shape[0]):
        for x in range(found.shape[1]):
            block = values[y * factor : (y + 1) * factor, x * factor : (x + 1) * factor]
            assert found[y, x] == pytest.approx(block.mean(), abs=1e-12)


def test_block_means_leave_out_what_was_not_fitted():
    values = np.array([[1.0, np.nan, np.nan, np.nan], [3.0, np.nan, np.nan, np.nan]])
    np.testing.assert_array_equal(block_mean(values, 2), [[2.0, np.nan]])


@given(st.floats(1e-3, 1e6))
def test_the_scale_bar_is_round_and_between_a_seventh_and_a_third(span):
    length = scales.nice_length(span)
    assert span / 7.6 < length <= span / 3 * (1 + 1e-6)
    assert f"{length:.0e}"[0] in "125"


@given(st.lists(st.floats(0, 10), min_size=1, max_size=30).map(sorted))
def test_labels_keep_their_order_their_gap_and_their_frame(positions):
    gap = 0.3
    places = plots.spread_labels(np.array(positions), gap, 0.0, 10.0)
    assert (np.diff(places) > gap - 1e-9).all()
    assert places[0] > -1e-9
    assert places[-1] < 10 + 1e-9
    steps = gap * np.arange(len(positions))
    best = np.clip(isotonic_regression(np.array(positions) - steps).x, 0, 10 - steps[-1]) + steps
    np.testing.assert_allclose(places, best, atol=1e-9)


def test_too_many_labels_share_the_frame():
    places = plots.spread_labels(np.full(5, 2.0), 10.0, 0.0, 4.0)
    np.testing.assert_allclose(places, [0, 1, 2, 3, 4])


def test_the_residual_is_in_units_of_the_expected_noise():
    found = plots.standardised_residual(np.array([110.0, 90.0, 2.0]), np.array([100.0, 100.0, 0.1]))
    np.testing.assert_allclose(found, [1.0, -1.0, 1.9])


def test_colour_limits_are_the_stated_percentiles():
    picture = np.arange(101.0).reshape(1, -1)
    assert colours.colour_limits(picture) == (1.0, 99.0)
    assert colours.colour_limits(np.full((2, 2), 7.0)) == (7.0, 8.0)
    assert colours.colour_limits(np.full((2, 2), np.nan)) == (0.0, 1.0)


def test_pixels_that_were_not_fitted_are_grey(summary):
    pixels = pixels_of(plots.draw_map_grid(summary))[..., :3]
    grey = np.array([0xB9, 0xBD, 0xC4]) / 255
    share = (np.abs(pixels - grey).max(-1) < 0.02).mean()
    assert 0.1 < share < 0.5


@pytest.mark.parametrize("scale", ["log", "linear"])
def test_the_spectrum_is_drawn_with_names_and_residual(store, scale):
    figure = plots.draw_spectrum_figure(store[0]["spectrum"].to_dataset(), "1", scale)
    main, strip = figure.axes
    assert main.get_yscale() == scale
    assert [text.get_text() for text in main.texts][:2] == ["S Kα", "K Kα"]
    assert strip.get_xlabel() == "energy (keV)"
    drawn = strip.lines[-1].get_ydata()
    assert np.nanstd(drawn) == pytest.approx(1, abs=0.15)
    assert pixels_of(figure).std() > 0.05


def test_a_store_without_fits_can_still_be_drawn(tmp_path):
    from hpcxrf.results.store.maps import create_results

    create_results(
        tmp_path / "s.zarr", detectors=("0",), components=("Fe",), shape_yx=(1, 500), n_channels=8, attributes={}
    )
    tree = open_results(tmp_path / "s.zarr")
    summary = summarise_maps(tree["maps"].to_dataset(), "0")
    assert np.isnan(summary.median_sigma).all()
    pixels_of(plots.draw_map_grid(summary))
    pixels_of(plots.draw_spectrum_figure(tree["spectrum"].to_dataset(), "0", "log"))
    assert views.list_flags(tree) == ("detector 0: not run",)


def test_the_flags_name_what_to_look_at(store):
    assert views.list_flags(store[0]) == tuple(
        f"detector {name}: parameters at a bound: fwhm_fanoprime" for name in "01"
    )


def test_the_examples_of_the_texts_hold():
    assert doctest.testmod(views).failed == 0
    assert doctest.testmod(scales).failed == 0


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_a_number_reads_back_to_its_digits(value):
    text = views.format_number(value).replace("\u2009", "").replace("−", "-")
    mantissa, _, power = text.partition(" × 10")
    digits = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    found = float(mantissa) * 10.0 ** int(power.translate(digits) or 0)
    assert found == pytest.approx(value, rel=6e-4)
