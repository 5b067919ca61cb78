"""The viewer over maps of another origin, as the explorer builds it: its calls, its events, its tools to select."""

import base64

import numpy as np
import pytest

from hpcxrf.results.report.page.look import VIEWING, load_page_look

pytestmark = pytest.mark.browser

SHAPE = (6, 8)
# A provider that answers like a server: exact values, one layer that fails, a region image.
PROVIDER = """
  const [ny, nx] = [6, 8];
  const maps = {
    Fe: Float32Array.from({ length: 48 }, (_, i) => i), Zn: Float32Array.from({ length: 48 }, (_, i) => 48 - i),
    regions: Float32Array.from({ length: 48 }, (_, i) => (i < 8 ? 0 : i < 24 ? 1 : 2)),
  };
  window.asked = [];
  const scan = {
    name: "a scan", shape: [ny, nx], step_um: null, detectors: ["sum", "0"], coarse: false,
    components: ["Fe", "Zn"].map((name, i) => ({
      name, label: name, z: 26 + 4 * i, counts: { sum: 9 - i, 0: 4 }, share: { sum: 0.5, 0: 0.4 },
      found: { sum: true, 0: true } })),
    layers: [
      { name: "amplitude", label: "amplitude", unit: "counts", each: true },
      { name: "status", label: "outcome", unit: "", each: false },
      { name: "regions", label: "regions", unit: "", each: false }],
    regions: [
      { number: 1, name: "<b>one</b>", n_pixels: 16, reason: "" },
      { number: 2, name: "two", n_pixels: 24, reason: "" }],
    map: async (detector, layer, component) => {
      window.asked.push([detector, layer, component]);
      if (layer === "status") { throw new Error("the store is gone; open another run"); }
      const values = maps[layer === "regions" ? layer : component];
      if (component === "Zn" && window.slow) { await new Promise((resolve) => setTimeout(resolve, 300)); }
      return { values, shape: [ny, nx], factor: 1, unit: layer === "regions" ? "" : "counts" };
    },
    thumbnails: async () => ["Fe", "Zn"].map((component) => (
      { component, values: maps[component], shape: [ny, nx], factor: 1 })),
  };
  window.events = [];
  window.scan = scan;
  const place = document.querySelector("#place");
  ["pixelchosen", "selectionmade", "selectionpreview", "detectorchosen"].forEach((name) => place.addEventListener(
    name, (event) => window.events.push([name, event.detail])));
  window.viewer = hpcxrf.viewer.build(place, scan, { select: true, keys: [["r", "fit again"]] });
"""


@pytest.fixture
def page(open_page):
    look = load_page_look(*VIEWING)
    page = open_page("about:blank")
    page.set_content(
        f"<style>{look['style']}</style><main id=place></main>"
        f'<script type="application/json" id="map-colours">{look["map_colours"]}</script>'
    )
    page.add_script_tag(content=str(look["script"]))
    page.add_script_tag(content=f"(() => {{ {PROVIDER} }})();")
    page.evaluate("() => window.viewer.ready")
    return page


def events(page, name):
    return page.evaluate("(name) => window.events.filter(([one]) => one === name).map(([, detail]) => detail)", name)


def point(page, y, x):
    box = page.locator(".stage").bounding_box()
    return box["x"] + box["width"] * (x + 0.5) / SHAPE[1], box["y"] + box["height"] * (y + 0.5) / SHAPE[0]


def test_the_calls_change_what_is_shown(page):
    assert page.evaluate("() => window.viewer.state().component") == "Fe"
    page.evaluate("() => window.viewer.next(1)")
    assert page.evaluate("() => window.viewer.state().component") == "Zn"
    page.evaluate("() => window.viewer.show('Fe')")
    page.evaluate("() => window.viewer.setDetector('0')")
    page.evaluate("() => window.viewer.toggleLog()")
    page.evaluate("() => window.viewer.contrast(1)")
    state = page.evaluate("() => window.viewer.state()")
    assert events(page, "detectorchosen") == [{"detector": "0"}]
    assert (state["detector"], state["log"], state["limits"]["low"]) == ("0", True, 2)
    assert ["0", "amplitude", "Fe"] in page.evaluate("() => window.asked")
    page.evaluate("() => window.viewer.setLayer('regions')")
    assert page.locator(".colour-legend li").all_inner_texts() == ["no region", "region 1", "region 2"]
    page.keyboard.press("?")
    assert "fit again" in page.get_by_role("dialog").inner_text()
    page.keyboard.press("Escape")
    page.evaluate("() => window.viewer.destroy()")
    assert page.locator("#place > *").count() == 0
    page.keyboard.press("ArrowRight")  # no error after the end


def test_before_the_first_map_is_there_nothing_of_it_can_be_used(page):
    page.evaluate(
        """() => {
          window.viewer.destroy();
          const scan = { ...window.scan, map: () => new Promise(() => {}), thumbnails: () => new Promise(() => {}) };
          window.viewer = hpcxrf.viewer.build(document.querySelector("#place"), scan, { select: true });
        }"""
    )
    for name in ("Save PNG", "Save CSV"):
        assert page.get_by_role("button", name=name, exact=True).is_disabled()
    for event in ("pointerdown", "pointermove", "pointerup", "dblclick"):
        page.locator(".colour-bar").dispatch_event(event, {"button": 0, "pointerId": 1})
    for key in ("ArrowRight", "[", "]", "l"):
        page.keyboard.press(key)
    page.get_by_label("Region").select_option("2")  # no error, which the fixture would find


def test_a_click_is_a_pixel_and_pointing_a_preview(page):
    page.mouse.move(*point(page, 2, 5))
    page.mouse.down()
    page.mouse.up()
    assert events(page, "pixelchosen") == [{"y": 2, "x": 5}]
    assert events(page, "selectionpreview")[-1] == {"y": 2, "x": 5}
    assert page.locator(".readout-value").inner_text() == "21 counts · column 5, row 2"  # exact: no word of 8 bit


def test_regions_thresholds_and_marks_select_pixels(page):
    page.get_by_label("Region").select_option("2")
    page.wait_for_function("() => window.events.length === 1")
    assert events(page, "selectionmade") == [{"selection": {"kind": "region", "number": 2}}]
    assert "Selected: 24 pixels" in page.locator(".readout-selected").inner_text()
    page.get_by_label("select values from").fill("10")
    page.get_by_label("select values to").fill("12")
    page.get_by_role("button", name="Select", exact=True).click()
    page.wait_for_function("() => window.events.length === 2")
    (_, made) = events(page, "selectionmade")
    assert made["selection"] == {
        "kind": "threshold", "detector": "sum", "layer": "amplitude", "component": "Fe", "low": 10, "high": 12,
    }  # fmt: skip
    assert "Selected: 3 pixels · Fe mean 11 counts" in page.locator(".readout-selected").inner_text()
    mask = np.zeros(SHAPE, dtype=bool)
    mask[1, 2:5] = True
    selection = {"kind": "mask", "bits": base64.b64encode(np.packbits(mask)).decode()}
    page.evaluate("(selection) => window.viewer.mark(selection)", selection)
    assert page.evaluate("() => window.viewer.selection()") == selection
    assert "Selected: 3 pixels · Fe mean 11 counts" in page.locator(".readout-selected").inner_text()
    assert len(events(page, "selectionmade")) == 2  # who marks knows of it
    page.evaluate("() => window.viewer.mark(null)")
    assert page.locator(".map-shade").is_hidden()
    page.get_by_role("button", name="Clear").wait_for(state="hidden")


def test_a_layer_that_fails_is_told_and_a_slow_map_replaces_no_later_one(page):
    page.evaluate("() => window.viewer.setLayer('status')")
    assert page.locator(".stage-message").inner_text() == "the store is gone; open another run"
    page.evaluate("() => window.viewer.setLayer('amplitude')")
    assert page.locator(".stage-message").inner_text() == ""
    page.evaluate(
        "() => { window.slow = true; const slow = window.viewer.show('Zn'); window.viewer.show('Fe'); return slow; }"
    )
    page.wait_for_timeout(400)
    assert page.locator(".readout-title").inner_text() == "Fe"
    assert page.evaluate("() => window.viewer.state().component") == "Fe"
