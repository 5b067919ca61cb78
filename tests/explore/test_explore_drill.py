"""The eight groups of the explorer one after the other on the demo, as a user goes through them.

`HPCXRF_DRILL_PICTURES=FOLDER` keeps a picture of each.
"""

import csv
import io
import json
import os
import re
import shutil
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml
import zarr
from playwright.sync_api import expect
from run_folders import served

from hpcxrf.config.run import check_config
from hpcxrf.store.files import tree_sha256

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(1500)]
PICTURES = os.environ.get("HPCXRF_DRILL_PICTURES")
PATIENCE_MS = 240_000


class Drill:
    """A page of the demo's explorer, and the arrays that it shows."""

    def __init__(self, page, run_dir):
        self.page = page
        self.name = next((run_dir / "results").glob("*.zarr")).stem
        self.counts = zarr.open_group(run_dir / "spectra" / f"{self.name}.zarr", mode="r")["counts"][:]
        self.results = zarr.open_group(run_dir / "results" / f"{self.name}.zarr", mode="r")
        self.shape = self.counts.shape[1:3]

    def picture(self, name):
        if PICTURES:
            self.page.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=True)

    def drawn(self, act):
        """Do something that draws the maps anew, and wait until they are."""
        viewer, ends = self.page.locator(".viewer"), time.monotonic() + PATIENCE_MS / 1000
        before = int(viewer.get_attribute("data-drawn") or 0)
        act()
        while int(viewer.get_attribute("data-drawn") or 0) <= before:
            assert time.monotonic() < ends, "the maps were not drawn anew"
            self.page.wait_for_timeout(30)

    def choose(self, label, value):
        self.drawn(lambda: self.page.get_by_label(label, exact=True).first.select_option(value))

    def press(self, name, within=".viewer"):
        self.page.locator(within).get_by_role("button", name=name, exact=True).first.click()

    def drag(self, selector, points):
        """From place to place of a node, in shares of its size (y, x)."""
        node = self.page.locator(selector).first
        node.scroll_into_view_if_needed()
        box = node.bounding_box()
        places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for y, x in points]
        self.page.mouse.move(*places[0])
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*place, steps=5)
        self.page.mouse.up()

    def summed(self, act):
        """What is asked and what is answered when pixels are chosen."""
        with self.page.expect_response(lambda one: one.url.endswith("/api/spectrum")) as got:
            act()
        return got.value.request.post_data_json, got.value.json()

    def fitted(self, act, kind="full"):
        def is_done(response):
            if "/api/fit?" not in response.url or response.status != 200:
                return False
            state = response.json()
            return state["state"] == "done" and state["fit"]["kind"] == kind

        with self.page.expect_response(is_done) as got:
            act()
        return got.value.json()["fit"]

    def saved(self, act):
        with self.page.expect_download() as got:
            act()
        return got.value.path().read_bytes()


def see_maps(drill):
    page, components = drill.page, [str(one) for one in drill.results["maps/component"][:]]
    thumbs = page.locator(".thumb")
    expect(thumbs).to_have_count(len(components))
    assert page.get_by_label("Detector", exact=True).first.input_value() == "sum"
    orders = {}
    for order in ("name", "counts", "share", "z"):
        drill.choose("Sort by", order)
        orders[order] = page.locator(".thumb-name").all_inner_texts()
    assert orders["name"] == sorted(orders["name"], key=str.lower)
    assert len({tuple(one) for one in orders.values()}) > 2
    # Hover: the value of the stored map with its uncertainty.
    page.get_by_label("Layer", exact=True).select_option("amplitude")
    drill.drawn(lambda: thumbs.nth(2).click())
    shown = page.locator(".thumb[aria-pressed=true] .thumb-name").inner_text()
    stage = page.locator(".stage")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    y, x = 40, 70
    page.mouse.move(
        box["x"] + (x + 0.5) / drill.shape[1] * box["width"], box["y"] + (y + 0.5) / drill.shape[0] * box["height"]
    )
    expect(page.locator(".readout-value")).to_contain_text(f"column {x}, row {y}")
    expect(page.locator(".readout-value")).to_contain_text("±")
    detectors = [str(one) for one in drill.results["maps/detector"][:]]
    stored = drill.results["maps/amplitude"][detectors.index("sum")][components.index(shown), y, x]
    told = re.search(r"[−\d.]+", page.locator(".readout-value").inner_text())[0].replace("−", "-")
    assert float(told) == pytest.approx(float(stored), abs=0.6 + 0.01 * abs(float(stored)))
    # Colours, limits, layers, overlay, ratio.
    for palette in page.get_by_label("Colours", exact=True).locator("option").all_inner_texts():
        drill.choose("Colours", palette)
    drill.choose("Colours", "viridis")
    drill.drawn(lambda: drill.press("Log"))
    drill.drawn(lambda: page.keyboard.press("l"))
    drill.choose("Limits", "0 100")
    drill.drawn(lambda: page.get_by_label("limits to", exact=True).press("ArrowUp"))
    drill.drawn(lambda: page.get_by_label("one scale for all").check())
    drill.drawn(lambda: page.get_by_label("one scale for all").uncheck())
    for layer in page.get_by_label("Layer", exact=True).locator("option").evaluate_all("all => all.map(o => o.value)"):
        drill.choose("Layer", layer)
        assert page.locator(".stage").inner_text().strip() == "" or "µm" in page.locator(".stage").inner_text()
    drill.choose("Layer", "amplitude")
    drill.drawn(lambda: drill.press("RGB overlay"))
    drill.picture("1-overlay")
    drill.drawn(lambda: drill.press("Ratio"))
    expect(page.locator(".readout-title")).to_contain_text("/")
    drill.drawn(lambda: drill.press("One map"))
    # A profile, and what is shown as a picture and as a table.
    page.locator(".profile summary").click()
    drill.press("Draw a line")
    drill.drag(".stage", [(0.2, 0.1), (0.8, 0.9)])
    expect(page.locator(".profile p[role=status]")).to_contain_text("over")
    table = drill.saved(lambda: page.locator(".profile").get_by_role("button", name="Save CSV").click()).decode()
    assert len(list(csv.reader(io.StringIO(table)))) > 50
    assert drill.saved(lambda: drill.press("Save PNG")).startswith(b"\x89PNG")
    rows = list(csv.reader(io.StringIO(drill.saved(lambda: drill.press("Save CSV", ".grid-side")).decode())))
    assert len(rows) > drill.shape[0]
    page.locator(".profile summary").click()
    drill.press("Point")
    drill.picture("1-maps")


def see_spectra(drill):
    page = drill.page
    figure = page.locator("#spectrum")
    expect(figure.locator(".key-row").first).to_contain_text("fit")
    expect(figure.locator("path.part").first).to_be_attached()
    expect(figure.locator("path.residual")).to_be_attached()
    page.get_by_role("button", name="Linear", exact=True).last.click()
    assert page.evaluate("document.documentElement.dataset.scale") == "linear"
    page.get_by_role("button", name="Log", exact=True).last.click()
    drill.drag("#spectrum svg[tabindex]", [(0.3, 0.3), (0.3, 0.5)])
    expect(figure.get_by_role("button", name="Whole spectrum")).to_be_visible()
    page.mouse.move(0, 0)
    page.locator("#spectrum svg[tabindex]").hover()
    expect(figure.locator("output")).to_contain_text("keV")
    figure.get_by_role("button", name="Whole spectrum").click()
    # What was read there is read again of another spectrum, and one that is held lies over those that come after it.
    told = figure.locator("output").inner_text()
    drill.summed(lambda: page.locator(".stage").click())
    expect(figure.locator("output")).not_to_have_text(told)
    page.locator("#hold").click()
    expect(figure.locator(".key-row", has_text="Compare with")).to_contain_text("pixel")
    drill.picture("2-spectra")
    page.locator("#hold").click()


def see_tables(drill):
    page = drill.page
    drill.fitted(lambda: page.locator("#whole").click(), "amplitudes")
    page.get_by_role("tab", name="Fit").click()
    tree = drill.results
    names = [str(one) for one in tree["maps/component"][:]]
    expect(page.locator("table.amplitudes tbody tr")).to_have_count(len(names))
    expect(page.locator("#panels ul.tiles")).to_contain_text(f"{drill.shape[0] * drill.shape[1]} pixels")
    page.get_by_label("parameters that are held, too").check()
    parameters = page.locator("table.parameters tbody tr")
    expect(parameters).to_have_count(tree["parameters/name"].shape[0])
    expect(page.locator("#same")).to_contain_text("hpcxrf")
    drill.picture("3-tables")


def choose_pixels(drill):
    page, counts = drill.page, drill.counts.sum(axis=0, dtype=np.int64)

    def same(told, mask):
        assert told["n_pixels"] == int(mask.sum())
        np.testing.assert_array_equal(np.array(told["counts"]), counts[mask].sum(axis=0))

    def box_of(asked):
        mask = np.zeros(drill.shape, dtype=bool)
        mask[slice(*asked["selection"]["y"]), slice(*asked["selection"]["x"])] = True
        return mask

    asked, told = drill.summed(lambda: page.locator(".stage").click())
    mask = np.zeros(drill.shape, dtype=bool)
    mask[asked["selection"]["y"], asked["selection"]["x"]] = True
    same(told, mask)
    drill.press("Box")
    asked, told = drill.summed(lambda: drill.drag(".stage", [(0.21, 0.13), (0.83, 0.77)]))
    assert asked["selection"]["kind"] == "box"
    same(told, box_of(asked))
    drill.press("Lasso")
    from soak import inside

    path = [(0.113, 0.117), (0.153, 0.831), (0.871, 0.757), (0.619, 0.217)]
    asked, told = drill.summed(lambda: drill.drag(".stage", path))
    mask = inside(np.array(asked["selection"]["points"]), drill.shape)
    if mask is not None:
        same(told, mask)
    if "regions" in drill.results:
        asked, told = drill.summed(lambda: page.locator("#region").select_option("1"))
        layer = int(drill.results["regions/layer_of"][0])
        same(told, drill.results["regions/label"][layer] == 1)
    page.get_by_label("select values from", exact=True).fill("50")
    asked, told = drill.summed(lambda: drill.press("Select"))
    names = [str(one) for one in drill.results["maps/component"][:]]
    detectors = [str(one) for one in drill.results["maps/detector"][:]]
    which, component = (asked["selection"][name] for name in ("detector", "component"))
    same(told, drill.results["maps/amplitude"][detectors.index(which)][names.index(component)] >= 50)
    page.locator(".scatter summary").click()
    expect(page.locator(".scatter p[role=status]")).to_contain_text("Correlation")
    asked, told = drill.summed(lambda: drill.drag(".scatter-plot", [(0.9, 0.05), (0.3, 0.95)]))
    assert asked["selection"]["kind"] == "mask"
    assert 0 < told["n_pixels"] < drill.shape[0] * drill.shape[1]
    drill.picture("4-pixels")
    page.locator(".scatter summary").click()
    drill.press("Point")
    drill.fitted(lambda: page.locator("#whole").click(), "amplitudes")


def change_elements(drill):
    page = drill.page
    page.get_by_role("tab", name="Elements").click()
    listed = page.locator(".periodic .listed")
    before = listed.count()
    assert before > 5
    page.locator(".periodic .dark").first.is_disabled()
    page.get_by_role("button", name=re.compile("^Iron")).click()
    expect(page.locator(".families")).to_contain_text("z ")
    without = drill.fitted(lambda: page.get_by_role("button", name="Remove Fe", exact=True).click())
    assert "Fe" not in without["elements"]
    expect(listed).to_have_count(before - 1)
    again = drill.fitted(lambda: page.get_by_role("button", name="Add Fe", exact=True).click())
    assert again["deviance"] < without["deviance"]
    drill.picture("5-elements")


def fit_live(drill):
    page = drill.page
    page.get_by_role("tab", name="Fit").click()
    with page.expect_response(lambda one: "id=run-0" in one.url):
        page.get_by_label("Detector", exact=True).first.select_option("0")
    slider = page.get_by_label("slider of fwhm_offset")
    expect(slider).to_be_enabled()
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, middle)
    page.mouse.down()
    held = drill.fitted(lambda: page.mouse.move(box["x"] + 0.9 * box["width"], middle, steps=4), "amplitudes")
    free = drill.fitted(page.mouse.up)
    assert free["deviance"] < held["deviance"]
    focused = drill.fitted(lambda: page.get_by_label("focus on Fe", exact=True).check())
    assert focused["focus"] == ["Fe"]
    drill.fitted(lambda: page.get_by_label("focus on Fe", exact=True).uncheck())
    drill.fitted(lambda: page.keyboard.press("r"))
    page.get_by_role("tab", name="History").click()
    entries = page.locator(".history li")
    expect(entries).to_have_count(1)
    entries.get_by_role("button", name="Overlay").click()
    entries.get_by_role("button", name="Difference").click()
    expect(page.get_by_role("tabpanel", name="History").locator("table")).to_contain_text("in σ")
    drill.picture("6-fit")
    page.keyboard.press("z")
    expect(page.locator(".history .flag", has_text="taken back")).to_have_count(1)
    drill.page.get_by_role("tab", name="Fit").click()
    drill.fitted(lambda: page.get_by_role("button", name="Keep", exact=True).click())


def take_out(drill):
    page = drill.page
    drill.press("Box")
    drill.summed(lambda: drill.drag(".stage", [(0.2, 0.2), (0.5, 0.5)]))
    page.locator("#draw-region").click()
    page.get_by_role("tab", name="Out of it").click()
    written = page.locator("pre.written")
    page.get_by_role("button", name="Run file", exact=True).click()
    expect(written).to_contain_text("polygons")
    config = check_config(yaml.safe_load(written.inner_text()), "explored.yaml")
    assert config.regions.wanted
    text = drill.saved(lambda: page.locator("#panels").get_by_role("button", name="Save", exact=True).click())
    assert text.decode().rstrip() == written.inner_text().rstrip()
    page.get_by_role("button", name="Override file").click()
    expect(written).to_contain_text("CAL_OFFSET")
    page.get_by_role("button", name="Regions", exact=True).click()
    expect(written).to_contain_text("region-1")
    drill.picture("7-out-of-it")
    drill.press("Point")


def see_runs(drill):
    page = drill.page
    page.get_by_role("button", name="Runs", exact=True).click()
    page.wait_for_selector("html[data-runs=ready]", state="attached")
    row = page.locator("table.runs tbody tr")
    expect(row).to_have_count(1)
    expect(row.locator(".chip")).to_have_text("done")
    expect(row.get_by_role("button", name="Retry…")).to_have_count(0)
    expect(page.locator("section[aria-label='chosen run']")).to_contain_text("1 of 1 done")
    expect(page.locator("section[aria-label='new run']")).to_contain_text("One run was opened")
    page.get_by_role("button", name="New run like this").click()
    expect(page.locator(".checked")).to_contain_text("No fault")
    page.get_by_role("button", name="Plan", exact=True).click()
    expect(page.locator(".plan")).to_contain_text("Nothing speaks against it.", timeout=PATIENCE_MS)
    with page.context.expect_page() as report:
        row.get_by_role("link", name="Report").click()
    report.value.wait_for_load_state()
    assert report.value.evaluate("origin") == "null"
    report.value.close()
    drill.picture("8-runs")
    page.get_by_role("button", name="Maps", exact=True).first.click()
    expect(page.locator("#maps")).to_be_visible()


GROUPS = (see_maps, see_spectra, see_tables, choose_pixels, change_elements, fit_live, take_out, see_runs)


def test_the_eight_groups_one_after_the_other(demo, tmp_path, open_page):
    run_dir = Path(shutil.copytree(demo, tmp_path / "demo"))
    before = {name: tree_sha256(run_dir / name) for name in ("results", "spectra")}
    with served(run_dir) as (process, address):
        page = open_page(address, height=1000)
        page.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=60_000)
        try:
            page.locator("html[data-ready=all]").wait_for(state="attached")
            drill = Drill(page, run_dir)
            for group in GROUPS:
                group(drill)
                expect(page.locator("#fault")).to_be_hidden()
        finally:
            expect.set_options(timeout=5_000)
        # All of it by a server that has never loaded what fits.
        assert not [one for one in psutil.Process(process.pid).memory_maps() if "torch" in one.path]
        page.close()
    assert {name: tree_sha256(run_dir / name) for name in before} == before
    lines = (run_dir / "explore" / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["fit", "taken back", "fit"]
