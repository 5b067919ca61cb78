"""The viewer of maps on a written page, opened from a file: every tool as a user works it."""

import base64
import csv
import io

import numpy as np
import pytest
import xarray as xr
from PIL import Image
from results_sample import COMPONENTS, make_store

from hpcxrf.results.names import shown_name
from hpcxrf.results.report.colours import colour_limits
from hpcxrf.results.report.page.dataset import DatasetSummary, write_dataset_page
from hpcxrf.results.report.thumbnails import summarise_maps
from hpcxrf.results.store.maps import open_results

pytestmark = pytest.mark.browser

HOSTILE = "<script>document.title='owned'</script>\"'><img src=x onerror=alert(1)>"


def write_page(store, name="scan", **changes):
    path = store.parent / "pages" / f"{store.stem}.html"
    summary = DatasetSummary(
        dataset_id=store.stem, name=name, source="scan.h5", status="done", results_path=store, **changes
    )
    with open_results(store) as tree:
        write_dataset_page(summary, tree, path)
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Rows from 64 on were not fitted; one pixel is empty."""
    path = tmp_path_factory.mktemp("viewer") / "scan.zarr"
    make_store(path, shape_yx=(90, 60), detectors=("sum", "0"), last_row=64)
    return path


@pytest.fixture(scope="module")
def summary(store):
    with open_results(store) as tree:
        return summarise_maps(tree["maps"].to_dataset(), "sum")


@pytest.fixture(scope="module")
def page_path(store):
    return write_page(store)


class Viewer:
    """The first viewer of a page, and the places of its large map."""

    def __init__(self, page, shape):
        self.page, self.shape = page, shape
        self.root = page.locator(".viewer").first
        page.wait_for_selector(".viewer[data-drawn]")
        self.stage = self.root.locator(".stage")

    def act(self, do):
        """Do something, and wait until it is drawn."""
        before = self.root.get_attribute("data-drawn")
        do()
        self.page.wait_for_function("(n) => document.querySelector('.viewer').dataset.drawn !== n", arg=before)

    def place(self, y, x):
        """Point of the window above a place (0.5 is the middle of the first pixel)."""
        self.stage.scroll_into_view_if_needed()
        box = self.stage.bounding_box()
        return box["x"] + box["width"] * x / self.shape[1], box["y"] + box["height"] * y / self.shape[0]

    def point(self, y, x):
        self.page.mouse.move(*self.place(y + 0.5, x + 0.5))

    def drag(self, *places):
        self.page.mouse.move(*self.place(*places[0]))
        self.page.mouse.down()
        for one in places[1:]:
            self.page.mouse.move(*self.place(*one), steps=3)
        self.page.mouse.up()

    def tool(self, name):
        self.root.get_by_role("button", name=name, exact=True).first.click()

    def read(self):
        return self.root.locator(".readout-value").inner_text().replace("\u2009", "").replace("−", "-")

    def title(self):
        return self.root.locator(".readout-title").inner_text()

    def pixels(self):
        """Colours of the large map (y, x, 4)."""
        text = self.root.locator("canvas.map-pixels").evaluate("(canvas) => canvas.toDataURL()")
        return np.array(Image.open(io.BytesIO(base64.b64decode(text.partition(",")[2]))).convert("RGBA"))

    def saved(self, ending):
        with self.page.expect_download() as download:
            self.root.locator(f"[data-save={ending}]").click()
        return download.value.suggested_filename, download.value.path().read_bytes()

    def table(self):
        _, data = self.saved("csv")
        return list(csv.reader(io.StringIO(data.decode(), newline="")))


@pytest.fixture
def viewer(open_page, page_path):
    return Viewer(open_page(page_path.as_uri()), (90, 60))


def test_the_grid_has_every_component_by_atomic_number_and_other_orders(viewer):
    names = viewer.root.locator(".thumb-name")
    expected = ["S", "K", "Ca", "Ti", "Cr", "Mn", "Fe", "Ni", "Cu", "Zn"]
    assert names.all_inner_texts() == [*expected, "compton", "elastic"]
    viewer.act(lambda: viewer.root.get_by_label("Sort by").select_option("counts"))
    assert names.all_inner_texts()[0] == "Fe"
    viewer.act(lambda: viewer.root.get_by_label("Sort by").select_option("name"))
    assert names.all_inner_texts() == sorted(map(shown_name, COMPONENTS), key=str.lower)


def test_pointing_tells_every_map_with_its_sigma_and_place(viewer, summary):
    viewer.page.wait_for_timeout(200)  # uncertainties come after the map
    viewer.point(30, 20)
    read = viewer.read()
    assert viewer.title() == "Fe"
    place = COMPONENTS.index("Fe")
    low, high = colour_limits(summary.pictures[place])
    value, sigma = read.split(" counts")[0].split(" ± ")
    step = max((high - low) / 254, summary.median_sigma[place] / 4)
    assert float(value) == pytest.approx(summary.pictures[place, 30, 20], abs=step)
    assert float(sigma) == pytest.approx(summary.sigma[place, 30, 20], rel=0.1)
    assert read.endswith("counts (8 bit) · x 10 µm, y 15 µm · column 20, row 30")
    told = viewer.root.locator(".thumb-picture output").all_inner_texts()
    names = viewer.root.locator(".thumb-name").all_inner_texts()
    for name, text in zip(names, told, strict=True):
        index = [shown_name(one) for one in COMPONENTS].index(name)
        low, high = colour_limits(summary.pictures[index])
        expected = np.clip(summary.pictures[index, 30, 20], low, high)
        number = float(text.replace("\u2009", "").replace("−", "-").lstrip("≤≥ "))
        assert number == pytest.approx(
            expected, abs=float(max((high - low) / 254, summary.median_sigma[index] / 4)), rel=0.006
        )
    viewer.point(80, 20)
    assert viewer.read().startswith("not fitted")


def test_what_was_not_fitted_is_grey_and_limits_and_colours_change_the_picture(viewer):
    first = viewer.pixels()
    assert (first[64:, :, :3] == (0xB9, 0xBD, 0xC4)).all()
    viewer.act(lambda: viewer.root.get_by_label("Colours", exact=True).select_option("grey"))
    grey = viewer.pixels()
    assert (grey[:64, :, 0] == grey[:64, :, 1]).all()
    viewer.act(lambda: viewer.root.get_by_label("reversed").check())
    assert (viewer.pixels()[:64, :, 0] == 255 - grey[:64, :, 0]).all()
    viewer.act(lambda: viewer.root.get_by_label("reversed").uncheck())
    limit = viewer.root.get_by_label("limits to")
    viewer.act(lambda: (limit.fill("200"), limit.press("Enter")))
    assert viewer.root.get_by_label("Limits", exact=True).input_value() == "given"
    assert viewer.pixels()[:64, :, 0].mean() > grey[:64, :, 0].mean()
    ticks = viewer.root.locator(".colour-ticks span").all_inner_texts()
    assert max(float(tick.strip("–").replace("\u2009", "")) for tick in ticks) <= 200
    viewer.act(lambda: viewer.root.get_by_label("one scale for all").check())


def test_limits_are_dragged_at_the_colour_bar(viewer):
    bar = viewer.root.locator(".colour-bar")
    bar.scroll_into_view_if_needed()
    box = bar.bounding_box()
    low, high = (viewer.root.get_by_label(f"limits {end}") for end in ("from", "to"))
    before = float(low.input_value()), float(high.input_value())
    mouse = viewer.page.mouse
    mouse.move(box["x"] + 5, box["y"] + 0.1 * box["height"])
    mouse.down()
    viewer.act(lambda: mouse.move(box["x"] + 5, box["y"] + 0.6 * box["height"]))
    mouse.up()
    assert float(high.input_value()) == pytest.approx(sum(before) / 2, rel=0.02)
    assert float(low.input_value()) == pytest.approx(before[0])
    viewer.act(lambda: bar.dblclick(position={"x": 5, "y": 5}))
    assert (float(low.input_value()), float(high.input_value())) == before


def test_keys_step_contrast_and_scale_and_list_themselves(viewer):
    page = viewer.page
    viewer.act(lambda: page.keyboard.press("ArrowRight"))
    assert viewer.title() == "Ni"
    viewer.act(lambda: page.keyboard.press("ArrowLeft"))
    viewer.act(lambda: page.keyboard.press("ArrowLeft"))
    assert viewer.title() == "Mn"
    viewer.act(lambda: page.keyboard.press("]"))
    assert viewer.root.get_by_label("Limits", exact=True).input_value() == "2 98"
    viewer.act(lambda: page.keyboard.press("["))
    viewer.act(lambda: page.keyboard.press("["))
    assert viewer.root.get_by_label("Limits", exact=True).input_value() == "0.5 99.5"
    linear = viewer.pixels()
    viewer.act(lambda: page.keyboard.press("l"))
    assert (viewer.pixels() != linear).any()
    page.keyboard.press("?")
    assert page.get_by_role("dialog").is_visible()
    assert "next component" in page.get_by_role("dialog").inner_text()
    page.keyboard.press("Escape")
    assert not page.get_by_role("dialog").is_visible()
    # Typing a number is no key of the viewer.
    viewer.root.get_by_label("limits to").press("l")
    page.wait_for_timeout(100)
    assert viewer.root.get_by_role("button", name="Log").get_attribute("aria-pressed") == "true"


def test_the_large_map_is_read_with_the_keyboard(viewer):
    viewer.stage.focus()
    for key in ("Shift+ArrowUp", "Shift+ArrowLeft", "Enter"):
        viewer.page.keyboard.press(key)
    assert viewer.read().endswith("column 29, row 44")
    assert viewer.root.locator(".stage .pixel path").count() == 2


def test_layers_are_what_the_store_says(viewer, summary):
    layer = viewer.root.get_by_label("Layer")
    viewer.act(lambda: layer.select_option("status"))
    viewer.point(0, 0)
    assert viewer.read().startswith("empty")
    viewer.point(10, 10)
    assert viewer.read().startswith("converged")
    viewer.point(70, 10)
    assert viewer.read().startswith("not run")
    assert "converged" in viewer.root.locator(".colour-legend").inner_text()
    viewer.act(lambda: layer.select_option("sigma"))
    viewer.point(30, 20)
    expected = summary.sigma[COMPONENTS.index("Fe"), 30, 20]
    assert float(viewer.read().split(" ")[0]) == pytest.approx(expected, rel=0.06)
    viewer.act(lambda: layer.select_option("decision"))
    viewer.act(lambda: viewer.root.locator(".thumb", has_text="Ni").click())
    above = summary.above[COMPONENTS.index("Ni")][:64]
    rgb = viewer.pixels()[:64, :, :3].astype(int)
    known = np.isfinite(summary.pictures[COMPONENTS.index("Ni")][:64])
    is_grey = (rgb.max(-1) == rgb.min(-1)) & known
    np.testing.assert_array_equal(is_grey, ~above & known)
    assert 0.02 < above.mean() < 0.98


def test_deviance_and_shifts_of_theta_are_layers_of_their_own(open_page, store, tmp_path):
    path = tmp_path / "shifts.html"
    with open_results(store) as tree:
        maps = tree["maps"].to_dataset().load()
        z = np.linspace(-1, 5, 2 * 90 * 60, dtype=np.float32).reshape(2, 90, 60)
        shift = np.stack([z / 1000, 10 * z], axis=1)
        more = {"deviance_z": (maps["deviance"].dims, z), "theta_shift": (("detector", "parameter", "y", "x"), shift)}
        names = {"parameter": ["energy_offset", "fwhm"], "parameter_unit": ("parameter", ["keV", "1"])}
        tree["maps"] = xr.DataTree(maps.assign(more).assign_coords(names))
        summary = DatasetSummary(dataset_id="scan", name="scan", source="s", status="done", results_path=store)
        write_dataset_page(summary, tree, path)
    viewer = Viewer(open_page(path.as_uri()), (90, 60))
    layer = viewer.root.get_by_label("Layer")
    assert layer.locator("option").all_inner_texts()[-3:] == [
        "deviance above noise", "shift of energy_offset", "shift of fwhm",
    ]  # fmt: skip
    viewer.act(lambda: layer.select_option("misfit"))
    assert viewer.root.get_by_label("Limits", exact=True).input_value() == "layer"
    viewer.point(40, 30)
    assert float(viewer.read().split(" σ")[0]) == pytest.approx(z[0, 40, 30], abs=0.05)
    viewer.act(lambda: layer.select_option("shift:energy_offset"))
    viewer.point(40, 30)
    assert float(viewer.read().split(" eV")[0]) == pytest.approx(z[0, 40, 30], abs=0.05)
    # Another layer has the usual limits again.
    viewer.act(lambda: layer.select_option("misfit"))
    viewer.act(lambda: viewer.root.locator(".thumb", has_text="Fe").click())
    assert viewer.root.get_by_label("Limits", exact=True).input_value() == "1 99"


def test_another_detector_has_its_own_maps(viewer):
    before = viewer.pixels()
    viewer.act(lambda: viewer.root.get_by_label("Detector").select_option("0"))
    assert viewer.root.get_by_label("Detector").input_value() == "0"
    assert viewer.pixels().shape == before.shape


def test_three_components_at_once_and_the_ratio_of_two(viewer, summary):
    viewer.act(lambda: viewer.tool("RGB overlay"))
    assert viewer.title() == "Fe, Ca, Cu"
    for name, value in (("Red", "Ca"), ("Green", "S")):
        viewer.act(lambda name=name, value=value: viewer.root.get_by_label(name, exact=True).select_option(value))
    red = viewer.pixels()[:64, :, 0].astype(float)
    picture = summary.pictures[COMPONENTS.index("Ca")][:64]
    # Blue has some red of its own.
    good = np.isfinite(picture)
    assert np.corrcoef(red[good], np.clip(picture, *colour_limits(picture))[good])[0, 1] > 0.95
    viewer.point(30, 20)
    assert [one in viewer.read() for one in ("Ca ", "S ", "Ca")] == [True] * 3
    viewer.act(lambda: viewer.root.get_by_label("Overlay in").select_option("magenta-yellow-cyan"))
    viewer.act(lambda: viewer.tool("Ratio"))
    viewer.act(lambda: viewer.root.get_by_label("Ratio of").select_option("Zn"))
    viewer.act(lambda: viewer.root.get_by_label("Ratio to").select_option("Fe"))
    rows = viewer.table()
    assert rows[0] == ["row", "column", "y_um", "x_um", "Zn (counts), 8 bit", *rows[0][5:]]
    assert rows[0][-1] == "Zn / Fe"
    for row in rows[1:400]:
        if row[-1]:
            assert float(row[-1]) == pytest.approx(float(row[4]) / float(row[5]), rel=1e-5)


def test_a_profile_follows_the_line_that_was_drawn(viewer, summary):
    viewer.tool("Line")
    viewer.drag((10.5, 5.5), (10.5, 40.5))
    profile = viewer.root.locator(".profile")
    profile.locator("path.curve").wait_for()
    assert "over 17.5 µm" in profile.inner_text()
    with viewer.page.expect_download() as download:
        profile.get_by_role("button", name="Save CSV").click()
    rows = list(csv.reader(io.StringIO(download.value.path().read_text(), newline="")))
    assert rows[0] == ["distance_um", "row", "column", "Fe", "sigma"]
    assert [row[1:3] for row in rows[1:]] == [["10", str(x)] for x in range(5, 41)]
    assert [float(row[0]) for row in rows[1:]] == pytest.approx(np.arange(36) * 0.5, abs=0.02)
    place = COMPONENTS.index("Fe")
    low, high = colour_limits(summary.pictures[place])
    expected = np.clip(summary.pictures[place, 10, 5:41], low, high)
    step = max((high - low) / 254, summary.median_sigma[place] / 4)
    np.testing.assert_allclose([float(row[3]) for row in rows[1:]], expected, atol=step)
    profile.get_by_role("button", name="Column").click()
    viewer.page.wait_for_function("() => document.querySelector('.profile').innerText.includes('44.5 µm')")


def test_pixels_are_selected_in_the_map_and_in_the_scatter_plot(viewer):
    page = viewer.page
    page.evaluate(
        "() => { window.made = []; document.querySelector('.viewer')"
        ".addEventListener('selectionmade', (event) => window.made.push(event.detail.selection)); }"
    )
    viewer.root.get_by_text("Scatter plot of two components").click()
    plot = viewer.root.locator(".scatter-plot")
    page.wait_for_function("() => document.querySelector('.scatter-plot canvas').width > 20")
    viewer.tool("Box")
    viewer.drag((10.2, 20.1), (19.7, 39.8))
    page.wait_for_function("() => window.made.length === 1")
    assert page.evaluate("() => window.made[0]") == {"kind": "box", "y": [10, 20], "x": [20, 40]}
    assert "Selected: 200 pixels" in viewer.root.locator(".readout-selected").inner_text()
    assert "200 points are selected" in viewer.root.locator(".scatter").inner_text()
    shade = viewer.root.locator("canvas.map-shade").evaluate(
        "(canvas) => { const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);"
        "return [...data].filter((_, i) => i % 4 === 3); }"
    )
    dark = np.reshape(shade, (90, 60)) > 0
    assert not dark[10:20, 20:40].any()
    assert dark.sum() == 90 * 60 - 200
    viewer.tool("Lasso")
    viewer.drag((20, 10), (20, 30), (40, 30), (40, 10), (20.5, 10))
    page.wait_for_function("() => window.made.length === 2")
    assert "Selected: 400 pixels" in viewer.root.locator(".readout-selected").inner_text()
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 1, box["y"] + 0.6 * box["height"], steps=3)
    page.mouse.up()
    page.wait_for_function("() => window.made.length === 3")
    selection = page.evaluate("() => window.made[2]")
    assert selection["kind"] == "mask"
    rows = viewer.table()
    assert rows[0][-1] == "selected"
    marked = np.array([int(row[-1]) for row in rows[1:]], dtype=bool)
    bits = np.unpackbits(np.frombuffer(base64.b64decode(selection["bits"]), np.uint8))[: 90 * 60]
    np.testing.assert_array_equal(marked, bits.astype(bool))
    values = np.array([float(row[4] or "nan") for row in rows[1:]])
    assert np.nanmin(values[marked]) > np.nanmedian(values)
    page.keyboard.press("Escape")
    page.wait_for_function("() => window.made.length === 3 && document.querySelector('.map-shade').hidden")


def test_the_picture_is_saved_with_its_scales(viewer):
    name, data = viewer.saved("png")
    assert name == "scan_Fe_amplitude.png"
    image = np.array(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert image.shape[0] > 900
    assert image.shape[1] > 700
    assert (image[60:900, 640:660].reshape(-1, 3).std(axis=0) > 20).all()  # the colour bar
    rows = viewer.table()
    assert len(rows) == 1 + 90 * 60
    assert rows[0] == ["row", "column", "y_um", "x_um", "Fe (counts), 8 bit"]
    assert rows[1 + 30 * 60 + 20][:4] == ["30", "20", "15", "10"]
    assert rows[-1][-1] == ""


@pytest.mark.parametrize(("shape", "step"), [((1, 1), None), ((11, 11), 50.0), ((1, 40), 2.0), ((70, 3), None)])
def test_small_and_narrow_scans_are_shown_and_nothing_is_cut(open_page, tmp_path, shape, step):
    store = tmp_path / "small.zarr"
    make_store(store, shape_yx=shape, detectors=("0",), step_um=step)
    viewer = Viewer(open_page(write_page(store, HOSTILE).as_uri()), shape)
    assert viewer.pixels().shape[:2] == shape
    bar = viewer.root.locator(".scale-bar span").bounding_box()
    stage = viewer.stage.bounding_box()
    assert stage["x"] <= bar["x"]
    assert bar["x"] + bar["width"] <= stage["x"] + stage["width"] + 1
    for show in ("RGB overlay", "Ratio", "One map"):
        viewer.act(lambda show=show: viewer.tool(show))
    viewer.root.get_by_text("Scatter plot of two components").click()
    viewer.root.get_by_text("Line profile").first.click()
    viewer.root.locator(".profile").get_by_role("button", name="Row").click()
    viewer.root.locator(".profile path.axis").first.wait_for()
    viewer.act(lambda: viewer.page.keyboard.press("l"))
    assert viewer.page.title() == f"{HOSTILE} – hpcxrf"
    assert len(viewer.table()) == 1 + shape[0] * shape[1]
    assert viewer.saved("png")[0].endswith("_Fe_amplitude.png") or shape == (1, 1)


def test_maps_without_a_number_are_shown_as_not_fitted(open_page, tmp_path):
    store = tmp_path / "nothing.zarr"
    make_store(store, shape_yx=(12, 9), detectors=("0",), last_row=-1)
    viewer = Viewer(open_page(write_page(store).as_uri()), (12, 9))
    assert (viewer.pixels()[..., :3] == (0xB9, 0xBD, 0xC4)).all()
    viewer.act(lambda: viewer.page.keyboard.press("l"))
    viewer.act(lambda: viewer.tool("Ratio"))
    viewer.root.get_by_text("Scatter plot of two components").click()
    viewer.point(3, 3)
    assert "not fitted" in viewer.read() or "no ratio" in viewer.read()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1920, "dark"), (700, "light")])
def test_controls_have_labels_and_fit_the_window(open_page, page_path, width, scheme):
    page = open_page(page_path.as_uri(), width=width, color_scheme=scheme, reduced_motion="reduce")
    viewer = Viewer(page, (90, 60))
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    unnamed = page.evaluate(
        "() => [...document.querySelectorAll('.viewer :is(button, select, input), .key button')].filter((node) =>"
        "!(node.textContent.trim() || node.labels?.[0]?.textContent.trim() || node.ariaLabel)).length"
    )
    assert unnamed == 0
    for node in (".controls", ".thumbs", ".large"):
        box = viewer.root.locator(node).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
