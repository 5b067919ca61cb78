"""What a page holds as numbers: maps of 8 bit, spectra, texts; and what its scripts make of them in a browser."""

import base64
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib import colormaps
from pages import parsed, write_page
from PIL import Image
from results_sample import COMPONENTS, LINES_KEV, make_store
from scipy.ndimage import distance_transform_cdt

from hpcxrf.results.report.colours import COLOUR_MAPS, NOT_FITTED, VIRIDIS, colour_limits
from hpcxrf.results.report.misfits import LIMITS, TITLE, summarise_misfits
from hpcxrf.results.report.page.data import pack_floats, pack_json, pack_png
from hpcxrf.results.report.page.dataset import DatasetSummary, write_dataset_page
from hpcxrf.results.report.page.maps import PAGE_POINTS, Scale, build_map_grid, choose_side, to_levels
from hpcxrf.results.report.page.regions import _count_steps_out, _place_numbers
from hpcxrf.results.report.page.spectrum import build_spectrum
from hpcxrf.results.report.scales import list_ticks
from hpcxrf.results.report.thumbnails import summarise_maps
from hpcxrf.results.store.maps import open_results


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "scan.zarr"
    make_store(path, shape_yx=(90, 60), detectors=("0",), last_row=64)
    return path


@pytest.fixture(scope="module")
def page_path(store):
    return write_page(store)


def image_of(address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(address.removeprefix("data:image/png;base64,"))))


def floats(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype="<f4")


@pytest.mark.parametrize("name", ["viridis", "cividis", "magma", "inferno", "grey"])
def test_the_colours_are_those_of_matplotlib(name):
    expected = np.rint(255 * colormaps[name.replace("grey", "gray")](np.arange(256))[:, :3])
    np.testing.assert_array_equal(np.frombuffer(COLOUR_MAPS[name], dtype=np.uint8).reshape(-1, 3), expected)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_a_picture_reads_back_index_by_index(height, width, seed):
    index = np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)
    image = image_of(pack_png(index, bytes(3) + VIRIDIS[:765], b"\x00"))
    np.testing.assert_array_equal(np.array(image), index)
    assert image.getpalette()[3:] == list(VIRIDIS[:765])
    assert image.convert("RGBA").getchannel("A").getextrema()[1] == (255 if index.any() else 0)


def test_a_map_of_8_bit_is_within_half_a_level_of_its_values_and_knows_what_was_not_fitted(store):
    with open_results(store) as tree:
        summary = summarise_maps(tree["maps"].to_dataset(), "0")
    grid = build_map_grid(summary, unit="counts")
    for one, picture, sigma in zip(grid.maps, summary.pictures, summary.median_sigma, strict=True):
        low, high = one.limits
        assert one.limits == tuple(np.nanpercentile(picture, (1, 99)))
        image = image_of(one.image)
        level = np.array(image)
        np.testing.assert_array_equal(level == 0, np.isnan(picture))
        value = np.where(level > 0, low + (level - 1.0) / 254 * (high - low), np.nan)
        wrong = np.abs(value - np.clip(picture, low, high))
        assert np.nanmax(wrong) <= max((high - low) / 254 / 2, sigma / 4 / 2) * 1.0001
        assert "#" + bytes(image.getpalette()[:3]).hex() == NOT_FITTED


def test_levels_end_at_the_limits():
    picture = np.array([[-5.0, 0.0, 127.0, 254.0, 900.0, np.nan, np.inf]])
    assert to_levels(picture, (0.0, 254.0)).tolist() == [[1, 1, 128, 255, 255, 0, 0]]
    levels = np.unique(to_levels(np.linspace(0, 254, 999)[None], (0.0, 254.0), sigma=40.0))
    assert levels.tolist() == list(range(1, 256, 10))  # a quarter of a sigma apart
    assert to_levels(np.full((1, 2), 7.0), colour_limits(np.full((1, 2), 7.0))).tolist() == [[1, 1]]


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 60))
def test_the_maps_of_a_detector_fit_its_share_of_the_page(n_y, n_x, n_maps):
    factor = -(-max(n_y, n_x) // choose_side((n_y, n_x), n_maps))
    points = -(-n_y // factor) * -(-n_x // factor) * n_maps
    # The last row and column of points may be parts of them.
    assert points <= PAGE_POINTS * (1 + factor / n_y) * (1 + factor / n_x)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_few_round_and_between_the_ends(low, span):
    ticks = list_ticks(low, low + span)
    assert 1 <= len(ticks) <= 5
    assert low - 1e-6 * span <= min(ticks)
    assert max(ticks) <= low + span * (1 + 1e-6)
    if len(ticks) > 1:
        assert f"{ticks[1] - ticks[0]:.1e}"[:3] in {"1.0", "2.0", "2.5", "5.0"}


def test_no_name_ends_the_block_of_numbers():
    hostile = {"</script><script>alert(1)</script>": "<!-- & -->"}
    packed = pack_json(hostile)
    assert not set("<>&") & set(packed)
    assert json.loads(packed) == hostile
    with pytest.raises(ValueError, match="JSON compliant"):
        pack_json({"r2": float("nan")})
    np.testing.assert_array_equal(floats(pack_floats(np.array([1.5, np.nan]))), [1.5, np.nan])


def test_the_spectrum_is_the_stored_one_in_its_fit_range(store):
    with open_results(store) as tree:
        spectrum = tree["spectrum"].to_dataset().load()
    found = build_spectrum(spectrum, "0")
    one = spectrum.sel(detector="0").isel(channel=slice(100, 1100))
    for name in ("energy_kev", "counts", "model", "background"):
        np.testing.assert_allclose(floats(found[name]), one[name], rtol=1e-6)
    for part in found["components"]:
        whole = np.zeros(1000)
        counts = floats(part["counts"])
        whole[part["first"] : part["first"] + counts.size] = counts
        name = part["name"].replace("Compton", "compton")
        np.testing.assert_allclose(whole, one["component_counts"].sel(component=name), atol=0.1, rtol=1e-6)
    assert [at for at, _, _ in found["markers"]] == sorted(LINES_KEV.values())
    assert [name for _, name, _ in found["markers"]][:2] == ["S Kα", "K Kα"]
    spectrum["model"][:] = np.nan
    assert build_spectrum(spectrum, "0") is None


def test_the_number_of_a_region_stands_inside_it():
    layer = np.zeros((40, 60), dtype=np.uint16)
    layer[5:35, 5:35], layer[10:30, 10:30] = 1, 0  # a ring
    layer[20:24, 50:58] = 2
    for place in _place_numbers(layer):
        y, x = int(place.top_percent * 0.4), int(place.left_percent * 0.6)
        assert layer[y, x] == place.number
    assert [place.number for place in _place_numbers(layer)] == [1, 2]


@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_the_steps_out_of_a_region_are_those_of_a_distance_transform(mask):
    mask = np.pad(mask, 1)
    np.testing.assert_array_equal(_count_steps_out(mask), distance_transform_cdt(mask, metric="taxicab"))


def test_a_map_shows_where_the_fit_is_worse_than_noise(store, tmp_path):
    path = tmp_path / "page.html"
    summary = DatasetSummary(dataset_id="scan", name="scan", source="scan.h5", status="done", results_path=store)
    with open_results(store) as tree:
        maps = tree["maps"].to_dataset()
        assert summarise_misfits(maps, summarise_maps(maps, "0")) is None
        write_dataset_page(summary, tree, path)
        assert TITLE not in path.read_text()
        z = np.full(maps["deviance"].shape, 0.1, dtype=np.float32)
        z[0, 20:29, 10:16], z[0, 0, 0] = 8.0, np.nan
        tree["maps/deviance_z"] = maps["deviance"].copy(data=z)
        found = summarise_misfits(tree["maps"].to_dataset(), summarise_maps(maps, "0", side=30))
        write_dataset_page(summary, tree, path)
    assert found.median == pytest.approx(0.1)
    assert found.bad_share == pytest.approx(54 / (z.size - 1))
    picture = build_map_grid(found.summary, unit="σ", scale=Scale(limits=LIMITS, ticks=(0.0, 3.0))).maps[0]
    assert picture.limits == LIMITS
    assert [tick.text for tick in picture.ticks] == ["0", "3"]
    level = np.array(image_of(picture.image))
    assert level[21 // 3, 12 // 3] == 1 + round(254 * 11 / 12)
    text = path.read_text()
    assert TITLE in text
    assert "The median is 0.1; 1.0 % of the pixels are above 3" in text


def test_the_page_shows_colour_bars_with_numbers_and_a_scale_bar(page_path):
    page = parsed(page_path.read_text(encoding="utf-8"))
    assert sum(a.get("class") == "colours" for a in page.attributes("div")) == len(COMPONENTS)
    assert [text for text in page.texts if text == "10 µm"] == ["10 µm"] * len(COMPONENTS)
    assert any("grey pixels were not fitted" in text for text in page.texts)
