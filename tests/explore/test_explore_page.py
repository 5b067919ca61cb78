"""The explorer in a browser, on measured scans: every number on the page is that of the stores, and of the engine."""

import json
import os
import re
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
import yaml
from explore_runs import copy_run, film_run, glass_run, salt_run
from playwright.sync_api import expect

from hpcxrf.config.run import check_config

pytestmark = [pytest.mark.browser, pytest.mark.more]
PATIENCE_MS = 90_000
"""The process that fits loads torch, and on a new machine compiles kernels, before its first answer."""


class Explored:
    """A run that is served, and a page of it."""

    def __init__(self, made, address, open_page, **options):
        self.made = made
        self.page = open_page(address, height=1000, **options)
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.locator("html[data-ready=all]").wait_for(state="attached")

    def tab(self, name):
        self.page.get_by_role("tab", name=name).click()

    def fit(self, act, kind=None):
        """What the engine answers to an action, once it is done."""

        def is_done(response):
            if "/api/fit?" not in response.url or response.status != 200:
                return False
            state = response.json()
            return state["state"] == "done" and (kind is None or state["fit"]["kind"] == kind)

        with self.page.expect_response(is_done) as got:
            act()
        return got.value.json()["fit"]

    def counts(self, act):
        """Counts that the server gives for what is selected by an action."""
        with self.page.expect_response(lambda response: response.url.endswith("/api/spectrum")) as got:
            act()
        return np.array(got.value.json()["counts"]), got.value.json()["n_pixels"]

    def drag(self, points, shape):
        """Draw over the large map from pixel to pixel (y, x), in pixels of the scan."""
        stage = self.page.locator(".stage")
        stage.scroll_into_view_if_needed()
        box = stage.bounding_box()
        places = [(box["x"] + x / shape[1] * box["width"], box["y"] + y / shape[0] * box["height"]) for y, x in points]
        mouse = self.page.mouse
        mouse.move(*places[0])
        mouse.down()
        for place in places[1:]:
            mouse.move(*place, steps=6)
        mouse.up()

    def choose_detector(self, name):
        with self.page.expect_response(lambda response: f"id=run-{name}" in response.url):
            self.page.get_by_label("Detector").first.select_option(name)
        self.page.wait_for_timeout(200)

    def text(self, selector):
        return self.page.locator(selector).inner_text()


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture
def explore(open_page):
    """Serve a run as a user does, and open its page; closed before its server is: a page that still asks has errors."""
    served, opened = [], []

    def start(made, **options):
        child = subprocess.Popen(
            [sys.executable, "-m", "hpcxrf", "explore", str(made.run_dir), "--no-browser", "--port", str(free_port())],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        served.append(child)
        address = next(found for line in child.stdout if (found := re.match(r"http://\S+", line)))
        one = Explored(made, address.group(), open_page, **options)
        opened.append(one)
        return one

    yield start
    for one in opened:
        one.page.close()
    for child in served:
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=60)
        assert child.returncode == 130, said
        assert "Traceback" not in said


@pytest.fixture
def film(shared_data, tmp_path):
    return copy_run(film_run(shared_data), tmp_path / "film")


def selected(made, detector, y, x):
    counts, n_pixels = made.region([detector], y, x)
    return counts[detector], n_pixels


def test_spectra_of_pixels_boxes_and_regions_are_exactly_those_of_the_store(explore, film):
    before = film.hashes()
    one = explore(film)
    page, shape = one.page, film.spectra.shape[1:3]
    assert one.text("#selection") == "the whole scan"
    one.choose_detector("2")
    counts, n_pixels = one.counts(lambda: one.drag([(3.5, 4.5)], shape))
    np.testing.assert_array_equal(counts, selected(film, 2, (3, 4), (4, 5))[0])
    assert (n_pixels, one.text("#selection")) == (1, "pixel at row 3, column 4")
    page.get_by_role("button", name="Box", exact=True).click()
    counts, n_pixels = one.counts(lambda: one.drag([(2.2, 1.2), (5.7, 6.6)], shape))
    expected, pixels = selected(film, 2, (2, 6), (1, 7))
    np.testing.assert_array_equal(counts, expected)
    assert (n_pixels, one.text("#selection")) == (pixels, "rows 2 to 5, columns 1 to 6")
    expect(page.locator("#counted")).to_contain_text("24 pixels")
    page.get_by_role("button", name="Lasso", exact=True).click()
    # Around the middles of rows 1 to 3 and columns 2 to 4.
    counts, n_pixels = one.counts(lambda: one.drag([(1.1, 2.1), (1.1, 4.9), (3.9, 4.9), (3.9, 2.1)], shape))
    np.testing.assert_array_equal(counts, selected(film, 2, (1, 4), (2, 5))[0])
    assert n_pixels == 9
    counts, n_pixels = one.counts(lambda: page.locator("#region").select_option("1"))
    np.testing.assert_array_equal(counts, selected(film, 2, (0, 5), (0, 4))[0])
    one.fit(lambda: page.locator("#whole").click())
    assert film.hashes() == before


def test_theta_by_hand_the_amplitudes_follow_the_slider_and_the_fit_the_release(explore, film):
    one = explore(film)
    page = one.page
    expect(page.get_by_label("slider of fwhm_offset")).to_be_disabled()
    one.choose_detector("0")
    slider = page.get_by_label("slider of fwhm_offset")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, middle)
    page.mouse.down()
    held = one.fit(lambda: page.mouse.move(box["x"] + 0.8 * box["width"], middle, steps=4), "amplitudes")
    asked = float(page.get_by_label("value of fwhm_offset").input_value())
    width = next(row for row in held["parameters"] if row["name"] == "fwhm_offset")
    assert width["value"] == pytest.approx(asked, rel=0.05)
    free = one.fit(page.mouse.up, "full")
    assert free["deviance"] < held["deviance"]
    fixed = one.fit(lambda: page.get_by_label("fit fwhm_offset", exact=True).uncheck(), "full")
    row = next(row for row in fixed["parameters"] if row["name"] == "fwhm_offset")
    assert not row["free"]
    kept = one.fit(lambda: page.keyboard.press("r"), "full")
    assert kept["deviance"] == pytest.approx(fixed["deviance"], rel=1e-3)
    one.tab("History")
    expect(page.locator(".history li")).to_have_count(1)
    lines = (film.run_dir / "explore" / "history.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["dataset_id"] == film.dataset_id


def test_elements_are_added_and_removed_by_a_click_and_taken_back(explore, film):
    one = explore(film)
    page = one.page
    one.tab("Elements")
    expect(page.get_by_role("button", name=re.compile("^Iron"))).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name=re.compile("^Germanium")).click()
    assert "not excited: its edge is at 11.1 keV" in one.text(".families")
    page.get_by_role("button", name=re.compile("^Iron")).click()
    without = one.fit(lambda: page.get_by_role("button", name="Remove Fe", exact=True).click())
    assert "Fe" not in without["elements"]
    assert "Fe" in [found["name"] for found in without["suggested"]]
    expect(page.get_by_role("button", name=re.compile("^Iron"))).to_have_attribute("aria-pressed", "false")
    one.tab("Fit")
    again = one.fit(lambda: page.locator(".suggested button", has_text=re.compile(r"^Fe \(")).click())
    assert "Fe" in again["elements"]
    assert again["r2"] > without["r2"]
    one.fit(lambda: page.get_by_role("button", name="Keep", exact=True).click())
    page.get_by_role("button", name="Take back").click()
    one.tab("History")
    expect(page.locator(".history .flag", has_text="taken back")).to_have_count(1)


def test_a_focus_fits_the_window_of_its_element_alone(explore, film):
    one = explore(film)
    one.choose_detector("0")
    focused = one.fit(lambda: one.page.get_by_label("focus on Cu", exact=True).check(), "full")
    assert focused["focus"] == ["Cu"]
    amplitudes = {row["name"]: row["amplitude"] for row in focused["amplitudes"]}
    run = {row["name"]: row["amplitude"] for row in one_fit(one)["amplitudes"]}
    assert amplitudes["Ca"] == pytest.approx(run["Ca"], rel=1e-3)


def one_fit(one):
    """The run's own fit, as the page asks for it."""
    with one.page.expect_response(lambda response: "/api/history/one" in response.url) as got:
        one.page.get_by_role("button", name="As the run fitted").click()
    return got.value.json()


def test_what_is_written_is_a_run_file_that_a_run_accepts(explore, film):
    one = explore(film)
    page, shape = one.page, film.spectra.shape[1:3]
    page.get_by_role("button", name="Box", exact=True).click()
    one.fit(lambda: one.drag([(2.2, 1.2), (5.7, 6.6)], shape))
    page.locator("#draw-region").click()
    one.tab("Out of it")
    page.get_by_role("button", name="Run file").click()
    expect(page.locator("pre.written")).to_contain_text("sample:")
    text = one.text("pre.written")
    config = check_config(yaml.safe_load(text), "explored.yaml")
    assert config.regions.wanted
    assert "hpcxrf run" in one.text("#panels section:not([hidden]) code")
    with page.expect_download() as got:
        page.get_by_role("button", name="Save", exact=True).click()
    assert got.value.path().read_text().rstrip() == text.rstrip()
    page.get_by_role("button", name="Override file").click()
    expect(page.locator("pre.written")).to_contain_text("CAL_OFFSET_[E_OFFSET]")
    page.get_by_role("button", name="Regions", exact=True).click()
    expect(page.locator("pre.written")).to_contain_text("region-1")


@pytest.mark.parametrize("make", [glass_run, salt_run])
def test_one_pixel_of_four_detectors_and_a_tube_open_and_fit(explore, shared_data, tmp_path, make):
    made = copy_run(make(shared_data), tmp_path / "run")
    one = explore(made)
    detector = one.page.get_by_label("Detector").first.input_value()
    assert detector
    n_y, n_x = made.spectra.shape[1:3]
    assert f"{n_y * n_x} pixel" in one.text("#panels ul.tiles")
    fitted = one.fit(lambda: one.page.get_by_role("button", name="Fit", exact=True).click(), "full")
    assert fitted["r2"] > 0.97
    one.tab("Elements")
    expect(one.page.get_by_role("button", name=re.compile("^Iron"))).to_have_attribute("aria-pressed", "true")


@pytest.mark.parametrize("options", [{"width": 1280}, {"width": 1920, "color_scheme": "dark"}])
def test_nothing_is_cut_off_and_every_control_has_a_name(explore, film, options):
    page = explore(film, **options).page
    width = page.evaluate("() => [document.documentElement.scrollWidth, window.innerWidth]")
    assert width[0] <= width[1]
    assert page.locator(".stage").bounding_box()["width"] > 220
    assert page.locator(".colour-scale").bounding_box()["height"] > 200
    nameless = page.locator("button, select, input").evaluate_all(
        """nodes => nodes.filter(node => !(node.textContent.trim() || node.ariaLabel || node.closest('label')
            || node.title)).map(node => node.outerHTML)"""
    )
    assert nameless == []


def test_a_fitting_process_that_dies_is_said_and_begun_again(explore, film):
    one = explore(film)
    one.fit(lambda: one.page.get_by_role("button", name="Fit", exact=True).click())
    children = subprocess.run(
        ["pgrep", "-f", f"fitting_process.*{re.escape(str(film.run_dir))}"], capture_output=True, text=True, check=False
    ).stdout.split()
    assert children
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    one.page.get_by_role("button", name="Fit", exact=True).click()
    expect(one.page.locator("#fault")).to_contain_text("ask for the fit once more", timeout=PATIENCE_MS)
    again = one.fit(lambda: one.page.get_by_role("button", name="Fit", exact=True).click())
    assert again["r2"] > 0.9
    expect(one.page.locator("#fault")).to_be_hidden()


def test_two_pages_at_once_do_not_get_each_others_fits(explore, film, open_page):
    first = explore(film)
    cookies = first.page.context.cookies()
    second = first.page.context.browser.new_context(viewport={"width": 1280, "height": 900})
    second.add_cookies(cookies)
    page = second.new_page()
    page.goto(first.page.url)
    page.locator("html[data-ready=all]").wait_for(state="attached", timeout=PATIENCE_MS)
    page.get_by_role("button", name="Fit", exact=True).click()
    first.choose_detector("0")
    mine = first.fit(lambda: first.page.get_by_label("focus on Cu", exact=True).check(), "full")
    assert mine["focus"] == ["Cu"]
    second.close()
