"""What the pages' scripts compute, run in a browser and compared with numpy."""

import base64
import csv
import io

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.path import Path as Outline

from hpcxrf.results.report.page.look import VIEWING, load_page_look
from hpcxrf.results.report.scales import list_ticks, nice_length

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def scripts(browser):
    """A page with the scripts and nothing to draw; `scripts(expression, argument)` is what it computes."""
    look = load_page_look(*VIEWING)
    page = browser.new_page()
    page.set_content(f'<script type="application/json" id="map-colours">{look["map_colours"]}</script>')
    page.add_script_tag(content=str(look["script"]))
    yield page.evaluate
    page.close()


def listed(values: np.ndarray) -> list[float | None]:
    """Values for the browser: NaN is null, which a Float32Array reads as 0, so that texts are sent."""
    return [str(value) for value in values.ravel()]


FLOATS = "const floats = (texts) => Float32Array.from(texts, (text) => text === 'nan' ? NaN : Number(text));"


def with_nan(rng: np.random.Generator, size: int) -> np.ndarray:
    values = rng.normal(100, 40, size).astype(np.float32)
    values[rng.random(size) < 0.1] = np.nan
    return values


@pytest.mark.parametrize("size", [1, 2, 7, 500])
def test_limits_are_percentiles_as_numpy_has_them(scripts, size):
    values = with_nan(np.random.default_rng(size), size)
    values[0] = 5.0
    shares = [0, 0.1, 1, 25, 50, 99, 100]
    found = scripts(
        f"([values, shares]) => {{ {FLOATS} const s = hpcxrf.view.sortFinite(floats(values));"
        "return shares.map((share) => hpcxrf.view.percentile(s, share)); }",
        [listed(values), shares],
    )
    np.testing.assert_allclose(found, np.nanpercentile(values.astype(float), shares), rtol=1e-6)


def test_limits_without_spread_or_numbers_are_still_a_span(scripts):
    def limits(values, log):
        return scripts(
            f"([values, log]) => {{ {FLOATS}"
            "return hpcxrf.view.findLimits(floats(values), { kind: 'percentile', low: 1, high: 99 }, log); }",
            [listed(np.array(values)), log],
        )

    assert limits([], False) == [0, 1]
    assert limits([3, 3, 3], False) == [3, 4]
    low, high = limits([-5, 0, 2, 400], True)
    assert 0 < low < high
    assert limits([-5, -4], True) == [1, 10]


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("name", ["viridis", "cividis", "magma", "inferno", "gray"])
def test_pixels_have_the_colours_that_matplotlib_gives_them(scripts, name, log):
    values = np.abs(with_nan(np.random.default_rng(1), 400)) + 0.5
    low, high = 20.0, 150.0
    pixels = scripts(
        f"([values, name, log]) => {{ {FLOATS} const table = hpcxrf.colours.table(name);"
        "return [...hpcxrf.view.paint(floats(values), { limits: [20, 150], log, table, missing: 7 })]; }",
        [listed(values), name.replace("gray", "grey"), log],
    )
    share = np.log(values / low) / np.log(high / low) if log else (values - low) / (high - low)
    known = np.isfinite(values)
    steps = np.floor(np.clip(share[known], 0, 1) * 255 + 0.5).astype(int)
    expected = np.rint(255 * colormaps[name](np.arange(256))[:, :3]).astype(int)[steps]
    found = np.array(pixels, dtype=np.int64)
    assert (found[~known] == 7).all()
    channels = np.stack([found[known] >> shift & 255 for shift in (0, 8, 16)], axis=1)
    # A value in the middle between two steps may fall to either: float32 here, float64 there.
    assert (np.abs(channels - expected).max(axis=1) <= 4).all()
    assert (channels == expected).all(axis=1).mean() > 0.98


def test_what_was_not_found_is_grey_and_reversed_colours_are_reversed(scripts):
    found = scripts(
        "() => { const table = hpcxrf.colours.table('viridis');"
        "const pixels = hpcxrf.view.paint(Float32Array.of(0, 1), { limits: [0, 1], table, missing: 0, faint: [0, 0] });"
        "return [[...pixels], table[0], hpcxrf.colours.table('viridis', true)[255]]; }"
    )
    greys, first, last = found
    assert first == last
    for grey in greys:
        assert len({grey >> shift & 255 for shift in (0, 8, 16)}) == 1


def test_an_overlay_adds_the_colours_of_its_components(scripts):
    rng = np.random.default_rng(2)
    maps = rng.uniform(0, 1, (3, 60)).astype(np.float32)
    maps[:, 0] = np.nan
    primaries = [[1, 0, 0.2], [0, 1, 0], [0.1, 0.3, 1]]
    pixels = scripts(
        f"([maps, primaries]) => {{ {FLOATS} return [...hpcxrf.view.compose(maps.map(floats),"
        "[[0, 1], [0, 1], [0, 1]], { primaries, missing: 9 })]; }",
        [[listed(one) for one in maps], primaries],
    )
    expected = np.rint(255 * np.minimum(maps[:, 1:].T @ np.array(primaries), 1))
    found = np.array(pixels[1:], dtype=np.int64)
    channels = np.stack([found >> shift & 255 for shift in (0, 8, 16)], axis=1)
    assert np.abs(channels - expected).max() <= 1
    assert pixels[0] == 9


def test_ratios_and_their_uncertainties(scripts):
    rng = np.random.default_rng(3)
    a, b = with_nan(rng, 200), with_nan(rng, 200) - 60
    known = (rng.random(200) < 0.7).astype(np.float32)
    found = scripts(
        f"(all) => {{ {FLOATS} return [...hpcxrf.view.ratio(...all.map(floats))].map(String); }}",
        [listed(a), listed(b), listed(known)],
    )
    expected = np.where((b > 0) & (known > 0), a / b, np.nan)
    np.testing.assert_allclose(np.array(found, dtype=float), expected, rtol=1e-6)
    sigma = scripts("() => hpcxrf.view.ratioSigma(200, 10, 50, 5)")
    assert sigma == pytest.approx(4 * np.hypot(10 / 200, 5 / 50))


@pytest.mark.parametrize("log", [False, True])
def test_a_scatter_plot_counts_as_numpy_does(scripts, log):
    rng = np.random.default_rng(4)
    a, b = rng.uniform(1, 100, (2, 900)).astype(np.float32)
    a[::17] = np.nan
    mask = rng.random(900) < 0.5
    edges = np.geomspace(2, 90, 21) if log else np.linspace(2, 90, 21)
    found = scripts(
        f"([a, b, mask, log]) => {{ {FLOATS} return [null, mask].map((one) =>"
        "[...hpcxrf.view.histogram(floats(a), floats(b), 20, [2, 90], [2, 90], log, one)]); }",
        [listed(a), listed(b), mask.astype(int).tolist(), log],
    )
    for counts, chosen in zip(found, (np.isfinite(a), np.isfinite(a) & mask), strict=True):
        expected, _, _ = np.histogram2d(b[chosen], a[chosen], bins=[edges, edges])
        assert np.abs(np.reshape(counts, (20, 20)) - expected).sum() <= 2  # values on an edge
    good = np.isfinite(a)
    correlation = scripts(
        f"([a, b]) => {{ {FLOATS} return hpcxrf.view.correlate(floats(a), floats(b)); }}", [listed(a), listed(b)]
    )
    assert correlation == pytest.approx(np.corrcoef(a[good], b[good])[0, 1], abs=1e-6)


def test_a_line_visits_the_pixels_that_it_crosses(scripts):
    points = scripts("() => hpcxrf.view.followLine([0.5, 0.5], [3.5, 6.5], [4, 7])")
    assert [(p["row"], p["column"]) for p in points] == [(0, 0), (1, 1), (1, 2), (2, 3), (2, 4), (3, 5), (3, 6)]
    assert [p["share"] for p in points] == pytest.approx(np.linspace(0, 1, 7))
    assert scripts("() => hpcxrf.view.followLine([0.5, 0.5], [0.5, 0.5], [1, 1]).map((p) => p.index)") == [0, 0]
    outside = scripts("() => hpcxrf.view.followLine([-3, -3], [9, 9], [2, 2]).map((p) => p.index)")
    assert set(outside) <= {0, 1, 2, 3}


def test_round_numbers_are_those_of_the_static_page(scripts):
    for low, high in ((0.0, 1.0), (3.0, 118.0), (-0.4, 0.3), (250.0, 2200.0)):
        assert scripts("([low, high]) => hpcxrf.view.ticks(low, high)", [low, high]) == pytest.approx(
            list_ticks(low, high)
        )
    for span in (1.0, 11.0, 620.0, 5500.0, 0.3):
        assert scripts("(span) => hpcxrf.view.niceLength(span)", span) == pytest.approx(nice_length(span))
    assert scripts("() => hpcxrf.view.writeLength(2000, true)") == "2 mm"
    assert scripts("() => hpcxrf.view.writeLength(5, false)") == "5 px"
    written = scripts(
        "() => [[1234.4, 20], [0.01234, 0.0002], [-3, NaN], [NaN, 1]].map((one) => hpcxrf.view.writeWithSigma(...one))"
    )
    assert written == ["1\u2009234 ± 20", "0.01234 ± 0.0002", "−3", "–"]


def test_a_table_reads_back_and_no_cell_is_a_formula(scripts):
    rows = [["name, of a map", '=SUM("A1")', "-x", "two\nlines"], [1.5, -2, 0, "µm"]]
    text = scripts("(rows) => hpcxrf.view.csv([...rows, [NaN, Infinity, 1, 2]])", rows)
    first, second, third = csv.reader(io.StringIO(text, newline=""))
    assert first == ["name, of a map", '\'=SUM("A1")', "'-x", "two\nlines"]
    assert second == ["1.5", "-2", "0", "µm"]
    assert third == ["", "", "1", "2"]


def test_components_are_in_the_order_that_is_asked_for(scripts):
    components = [
        {"name": "Fe", "label": "Fe", "z": 26, "counts": {"0": 5}, "share": {"0": 0.5}},
        {"name": "Ca", "label": "Ca", "z": 20, "counts": {"0": 9}, "share": {"0": None}},
        {"name": "COMPTON", "label": "Compton", "z": 0, "counts": {"0": None}, "share": {"0": 0.9}},
    ]

    def order(by):
        return scripts("([all, by]) => hpcxrf.view.order(all, by, '0').map((one) => one.name)", [components, by])

    assert order("z") == ["Ca", "Fe", "COMPTON"]
    assert order("name") == ["Ca", "COMPTON", "Fe"]
    assert order("counts") == ["Ca", "Fe", "COMPTON"]
    assert order("share") == ["COMPTON", "Fe", "Ca"]


def mask_of(scripts, selection, shape, factor=1, scan_shape=None, values=None):
    found = scripts(
        f"([selection, shape, factor, scanShape, values]) => {{ {FLOATS}"
        "const about = { shape, factor, scanShape, values: values && floats(values) };"
        "return [...hpcxrf.select.toMask(selection, about)]; }",
        [selection, shape, factor, scan_shape or shape, None if values is None else listed(values)],
    )
    return np.reshape(found, shape).astype(bool)


def test_selections_are_the_pixels_that_they_name(scripts):
    rng = np.random.default_rng(5)
    shape = [9, 12]
    y, x = np.indices(shape)
    assert mask_of(scripts, {"kind": "all"}, shape).all()
    np.testing.assert_array_equal(mask_of(scripts, {"kind": "pixel", "y": 3, "x": 7}, shape), (y == 3) & (x == 7))
    box = mask_of(scripts, {"kind": "box", "y": [2, 5], "x": [0, 3]}, shape)
    np.testing.assert_array_equal(box, (y >= 2) & (y < 5) & (x < 3))
    points = rng.uniform(-1, 12, (7, 2))
    outline = Outline(np.concatenate([points, points[:1]])[:, ::-1], closed=True)
    polygon = mask_of(scripts, {"kind": "polygon", "points": points.tolist()}, shape)
    # Matplotlib fills by the winding number; even-odd differs where the outline crosses itself.
    odd = np.array([count_crossings(points, *place) % 2 == 1 for place in np.ndindex(*shape)]).reshape(shape)
    np.testing.assert_array_equal(polygon, odd)
    convex = [[1.2, 1.1], [1.4, 9.8], [7.7, 10.2], [6.9, 0.8]]
    inside = Outline(np.array([*convex, convex[0]])[:, ::-1]).contains_points(np.stack([x.ravel(), y.ravel()], 1))
    np.testing.assert_array_equal(mask_of(scripts, {"kind": "polygon", "points": convex}, shape), inside.reshape(shape))
    assert outline.vertices.shape == (8, 2)
    values = with_nan(rng, 108)
    low = mask_of(scripts, {"kind": "threshold", "low": 80, "high": None}, shape, values=values)
    np.testing.assert_array_equal(low.ravel(), values >= 80)
    labels = rng.integers(0, 4, 108).astype(np.float32)
    region = mask_of(scripts, {"kind": "region", "number": 2}, shape, values=labels)
    np.testing.assert_array_equal(region.ravel(), labels == 2)


def count_crossings(points, y, x):
    """Edges of a polygon that cross the ray from a pixel's centre to the right."""
    following = np.roll(points, 1, axis=0)
    return sum(
        (a[0] > y) != (b[0] > y) and x < (b[1] - a[1]) * (y - a[0]) / (b[0] - a[0]) + a[1]
        for a, b in zip(points, following, strict=True)
    )


@pytest.mark.parametrize(("shape", "factor"), [([1, 1], 1), ([11, 11], 1), ([10, 13], 3)])
def test_masks_are_packed_as_numpy_packs_bits(scripts, shape, factor):
    ny, nx = shape
    small = [-(-ny // factor), -(-nx // factor)]
    mask = np.random.default_rng(6).random(small) < 0.5
    selection = scripts(
        "([mask, shape, factor, scanShape]) =>"
        "hpcxrf.select.fromMask(Uint8Array.from(mask), { shape, factor, scanShape })",
        [mask.ravel().astype(int).tolist(), small, factor, shape],
    )
    whole = np.kron(mask, np.ones((factor, factor), dtype=bool))[:ny, :nx]
    assert selection == {"kind": "mask", "bits": base64.b64encode(np.packbits(whole)).decode()}
    np.testing.assert_array_equal(mask_of(scripts, selection, small, factor, shape), mask)
