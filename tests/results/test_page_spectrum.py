"""The spectrum of a page in a browser: what is drawn, told, switched and laid over it."""

import json
import re

import numpy as np
import pytest
from pages import write_page
from results_sample import COMPONENTS, make_store

from hpcxrf.results.report.page.data import pack_floats
from hpcxrf.results.report.page.spectrum import Overlay, build_spectrum, list_overlays
from hpcxrf.results.store.maps import open_results


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("spectrum") / "scan.zarr"
    make_store(path, shape_yx=(20, 16), detectors=("0",))
    return path


@pytest.fixture(scope="module")
def spectrum(store):
    with open_results(store) as tree:
        return tree["spectrum"].to_dataset().load()


@pytest.fixture(scope="module")
def page_path(store):
    return write_page(store)


def told(figure):
    return figure.locator("output").inner_text().replace("\u2009", "")


def lines(figure):
    return figure.locator("text.line").all_text_contents()


@pytest.mark.browser
def test_the_spectrum_is_drawn_and_tells_its_numbers(open_page, page_path, spectrum):
    page = open_page(page_path.as_uri())
    figure = page.locator("figure.spectrum")
    figure.scroll_into_view_if_needed()
    page.wait_for_function("() => document.documentElement.dataset.spectra === '1'")
    assert lines(figure)[:10] == [f"{name} Kα" for name in ("S", "K", "Ca", "Ti", "Cr", "Mn", "Fe", "Ni", "Cu", "Zn")]
    places = figure.locator("text.line").evaluate_all(
        "(texts) => texts.map((text) => Number(/translate\\(([\\d.]+)/.exec(text.getAttribute('transform'))[1]))"
    )
    assert len(places) == len(COMPONENTS)
    assert np.diff(places).min() > 12.9
    for word in ("energy (keV)", "counts per channel", "residual / σ"):
        assert figure.get_by_text(word, exact=True).count() == 1
    one = spectrum.sel(detector="0")
    counts = one["counts"].values[100:1100]
    drawn = figure.locator("path.counts").get_attribute("d")
    assert drawn.count("M") == (counts > 0).sum()
    # The highest dot is the largest count, and heights go with the logarithm.
    height = np.array([float(y) for y in re.findall(r"M[\d.]+ ([\d.]+)h0", drawn)])
    assert np.corrcoef(height, np.log(counts[counts > 0]))[0, 1] == pytest.approx(-1, abs=1e-4)
    figure.locator(".chart svg").focus()
    for _ in range(21):
        page.keyboard.press("Shift+ArrowRight")
    for _ in range(19):
        page.keyboard.press("ArrowRight")
    assert told(figure).startswith(f"{one['energy_kev'].values[539]:.3f} keV · counts {counts[439]:.0f} · fit ")
    page.locator("button[data-scale=linear]").click()
    drawn = figure.locator("path.counts").get_attribute("d")
    height = np.array([float(y) for y in re.findall(r"M[\d.]+ ([\d.]+)h0", drawn)])
    assert np.corrcoef(height, counts)[0, 1] == pytest.approx(-1, abs=1e-4)


@pytest.mark.browser
def test_a_drag_zooms_and_components_are_switched(open_page, page_path):
    page = open_page(page_path.as_uri())
    figure = page.locator("figure.spectrum")
    figure.scroll_into_view_if_needed()
    svg = figure.locator(".chart svg")
    svg.scroll_into_view_if_needed()
    box = svg.bounding_box()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 210, steps=3)
    page.mouse.up()
    assert "Fe Kα" in lines(figure)
    assert "S Kα" not in lines(figure)
    figure.get_by_role("button", name="Whole spectrum").click()
    assert "S Kα" in lines(figure)
    assert figure.locator("path.part").count() == len(COMPONENTS)
    figure.get_by_role("button", name="Fe", exact=True).click()
    assert figure.locator("path.part").count() == len(COMPONENTS) - 1
    figure.get_by_role("button", name="none", exact=True).click()
    assert figure.locator("path.part").count() == 0
    figure.get_by_role("button", name="Ca", exact=True).click()
    assert figure.locator("path.part").count() == 1
    figure.get_by_role("button", name="all", exact=True).click()
    assert figure.locator("path.part").count() == len(COMPONENTS)


@pytest.mark.browser
def test_counts_alone_are_drawn_and_replaced_and_others_laid_over_them(open_page, page_path):
    """As the explorer uses it: no model at first, then one, and overlays that may be shown."""
    energy = np.arange(1.0, 11.0, 0.01)
    counts = 100 * np.exp(-0.5 * ((energy - 5) / 0.1) ** 2)
    bare = {
        "energy_kev": pack_floats(energy),
        "counts": pack_floats(counts),
        "model": None,
        "background": None,
        "components": [],
        "markers": [],
        "overlays": [{"name": "<b>another</b>", "colour": "#009e73", "counts": pack_floats(3 * counts)}],
    }
    fitted = {**bare, "model": pack_floats(counts + 1), "background": pack_floats(np.ones(energy.size))}
    page = open_page(page_path.as_uri())
    page.evaluate(
        "(numbers) => { const figure = document.createElement('figure');"
        "Object.assign(figure, { className: 'spectrum', id: 'own' });"
        "document.querySelector('main').append(figure); window.own = hpcxrf.spectrum.build(figure, numbers); }",
        bare,
    )
    figure = page.locator("#own")
    assert figure.locator("path.counts").count() == 1
    assert figure.locator("path.fit, path.background, path.residual, path.overlay").count() == 0
    figure.get_by_role("button", name="<b>another</b>").click()
    assert figure.locator("path.overlay").count() == 1
    page.evaluate("() => window.own.zoom(4, 6)")
    page.evaluate("(numbers) => window.own.update(numbers)", fitted)
    assert figure.locator("path.fit").count() == figure.locator("path.residual").count() == 1
    assert figure.locator("path.overlay").count() == 1  # it stays switched on
    assert figure.get_by_role("button", name="Whole spectrum").is_visible()  # and the zoom stays
    figure.locator(".chart svg").hover(position={"x": 500, "y": 200})
    assert "<b>another</b> " in told(figure)
    page.evaluate("() => window.own.destroy()")
    assert figure.locator("svg").count() == 0


def test_overlays_are_the_highest_pixel_and_the_largest_regions(spectrum):
    n = spectrum.sizes["channel"]
    highest = {"0": np.arange(float(n)), "1": np.full(n, 500.0)}
    regions = spectrum[["counts"]].expand_dims(region=15).assign(n_pixels=("region", np.arange(15) % 14))
    names = [f"region {i + 1}" for i in range(15)]
    found = list_overlays("0", highest, regions, names)
    assert [one.name for one in found] == ["highest pixel", *(names[i] for i in (*range(2, 14),))]
    np.testing.assert_array_equal(found[0].counts, highest["0"])
    (of_sum,) = list_overlays("sum", highest, None, ())
    assert of_sum.name == "highest pixel of any detector"
    np.testing.assert_array_equal(of_sum.counts, np.maximum(highest["0"], 500.0))
    assert list_overlays("2", highest, regions, names) == []
    packed = build_spectrum(spectrum, "0", [Overlay(name="one", counts=np.arange(float(n)))])["overlays"]
    assert json.loads(json.dumps(packed))[0]["name"] == "one"
    assert packed[0]["counts"] == pack_floats(np.arange(100.0, 1100.0))
