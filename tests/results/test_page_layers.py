"""What a page holds for its viewer beside the pictures: blocks in the page or in side files, its head, one file."""

import base64
import json
import re
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pages import run_summary
from results_sample import COMPONENTS, make_store

from hpcxrf.fitting.limits import decision_limit
from hpcxrf.results.report.page import layers
from hpcxrf.results.report.page.dataset import DatasetSummary, read_details, write_dataset_page
from hpcxrf.results.report.page.elements import find_atomic_number
from hpcxrf.results.report.page.head import LAYOUT, read_head
from hpcxrf.results.report.page.layers import to_log_levels
from hpcxrf.results.report.report import write_report
from hpcxrf.results.report.single_file import write_single_file
from hpcxrf.results.report.thumbnails import summarise_maps
from hpcxrf.results.store.maps import open_results


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("layers") / "scan.zarr"
    make_store(path, shape_yx=(90, 61), detectors=("0", "sum"), last_row=64)
    return path


def dataset(store, **changes):
    return DatasetSummary(
        **{"dataset_id": "scan", "name": "scan", "source": "s", "status": "done", "results_path": store, **changes}
    )


def write_page(store, path):
    with open_results(store) as tree:
        write_dataset_page(dataset(store), tree, path)
    return path.read_text(encoding="utf-8")


def read_scan(text):
    return json.loads(re.search(r'class="scan">(.*?)</script>', text, re.DOTALL).group(1))


def unpack(block):
    levels = np.frombuffer(zlib.decompress(base64.b64decode(block["levels"])), dtype=np.uint8)
    return levels.reshape(-1, *block["shape"]).astype(float)


def test_a_small_dataset_has_everything_in_its_page(store, tmp_path):
    text = write_page(store, tmp_path / "pages" / "scan.html")
    scan = read_scan(text)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["scan.html"]
    assert "strict-dynamic" not in text
    assert scan["detectors"] == ["sum", "0"]  # the sum first, in any store
    assert [one["name"] for one in scan["layers"]] == ["amplitude", "sigma", "decision", "status"]
    assert [one["z"] for one in scan["components"]] == [16, 19, 20, 22, 24, 25, 26, 28, 29, 30, 0, 0]
    with open_results(store) as tree:
        summary = summarise_maps(tree["maps"].to_dataset(), "0")
        counts = tree["spectrum"]["amplitude"].sel(detector="0").values
    assert [one["counts"]["0"] for one in scan["components"]] == pytest.approx(counts, rel=1e-5)
    assert [one["share"]["0"] for one in scan["components"]] == pytest.approx(summary.above_limit, rel=1e-5)
    block = scan["data"]["0/sigma"]
    level, limits = unpack(block), np.array(block["limits"])[:, :, None, None]
    sigma = limits[:, 0] * (limits[:, 1] / limits[:, 0]) ** ((level - 1) / 254)
    np.testing.assert_allclose(np.where(level > 0, sigma, np.nan), summary.sigma, rtol=0.05)
    status = unpack(scan["data"]["0/status"])[0] - 1
    np.testing.assert_array_equal(status, summary.status)
    decision = unpack(scan["data"]["0/decision"])
    np.testing.assert_array_equal(decision == 0, np.isnan(summary.pictures))
    np.testing.assert_array_equal(decision == 2, summary.above)


def test_points_of_several_pixels_are_judged_by_the_noise_of_their_mean(store):
    with open_results(store) as tree:
        maps = tree["maps"].to_dataset()
        fine, coarse = summarise_maps(maps, "0"), summarise_maps(maps, "0", side=30)
        limit = maps["detection_limit"].sel(detector="0").values.astype(float)
    np.testing.assert_array_equal(fine.above, fine.pictures > decision_limit(limit))
    assert coarse.factor == 3
    np.testing.assert_array_equal(fine.sigma[:, ::3, ::3] / 3, coarse.sigma)
    # Of pixels without a component a few percent are above their limit, in points of any size.
    rng = np.random.default_rng(1)
    null = 4.0
    noise = rng.normal(0, null / 3, (200, 200))
    limit = np.full((200, 200), 2.71 + 3.29 * null)
    above = noise > layers_limit(limit, 3)
    assert 0.02 < above.mean() < 0.06
    assert coarse.status.shape == (30, 21)
    assert coarse.status[0, 0] == fine.status[:3, :3].max()


def layers_limit(limit, factor):
    from hpcxrf.results.report.thumbnails import _point_decision_limit

    return _point_decision_limit(limit, np.ones(1), factor)


@given(arrays(float, (4, 5), elements=st.floats(1e-3, 1e4) | st.just(np.nan)))
def test_uncertainties_keep_a_few_percent_of_themselves(values):
    level, (low, high) = to_log_levels(values)
    np.testing.assert_array_equal(level == 0, np.isnan(values))
    back = low * (high / low) ** ((level - 1.0) / 254)
    good = np.isfinite(values)
    # Half a step of 63, and half a level of 254.
    wrong = np.abs(np.log(back[good] / values[good]))
    assert (wrong <= np.log(high / low) * (0.5 / 63 + 0.5 / 254) + 1e-9).all()


def test_blocks_of_a_large_dataset_are_side_files_that_the_page_loads(store, tmp_path, monkeypatch):
    page = tmp_path / "pages" / "scan.html"
    monkeypatch.setattr(layers, "INLINE_BYTES", 1000)
    scan = read_scan(write_page(store, page))
    assert scan["data"]["0/sigma"] == {"file": "scan.files/0.js"}
    assert "'strict-dynamic'" in page.read_text()
    files = sorted(path.name for path in (page.parent / "scan.files").iterdir())
    assert files == ["0.js", "1.js"]
    text = (page.parent / "scan.files" / "0.js").read_text()
    assert text.startswith('hpcxrf.scan.receive("scan.files/0.js", {')
    # A page that has room for all leaves none of them behind.
    monkeypatch.undo()
    write_page(store, page)
    assert not (page.parent / "scan.files").exists()


def test_a_report_is_one_file_where_that_is_asked_for(store, tmp_path, monkeypatch):
    monkeypatch.setattr(layers, "INLINE_BYTES", 1000)
    report = tmp_path / "report.html"
    write_report(run_summary(), [dataset(store)], report)
    assert "'strict-dynamic'" in report.read_text()
    before = report.read_bytes()
    single = write_single_file(report, tmp_path / "pages")
    assert report.read_bytes() == before
    blocks = re.findall(r'class="side" data-name="([^"]*)">(.*?)</script>', single.read_text(), re.DOTALL)
    assert [name for name, _ in blocks] == ["scan.files/0.js", "scan.files/1.js"]
    assert unpack(json.loads(blocks[0][1])["0/sigma"]).shape == (len(COMPONENTS), 90, 61)


def test_a_page_says_its_layout_and_one_of_another_is_written_again(store, tmp_path):
    page = tmp_path / "pages" / "scan.html"
    write_page(store, page)
    head = read_head(page)
    assert head.is_current
    assert head.thumbnail.startswith("data:image/png;base64,")
    assert len(head.thumbnail) < 4000
    assert not read_head(tmp_path / "none.html").is_current
    old = page.read_text().replace(LAYOUT, "hpcxrf page 1")
    page.write_text(old)
    assert not read_head(page).is_current
    write_report(run_summary(), [dataset(store)], tmp_path / "report.html")
    assert read_head(page).is_current
    assert 'class="scan"' in read_details(page)


@pytest.mark.parametrize(
    ("component", "z"),
    [("Fe", 26), ("Pb_L", 82), ("Au_M", 79), ("Si_Cl", 0), ("COMPTON_AMPLITUDE", 0), ("elastic", 0), ("", 0)],
)
def test_components_have_the_atomic_number_of_their_element(component, z):
    assert find_atomic_number(component) == z


@pytest.mark.browser
@pytest.mark.parametrize("how", ["file", "http", "single"])
def test_side_files_are_loaded_when_they_are_asked_for(store, tmp_path, monkeypatch, open_page, how):
    monkeypatch.setattr(layers, "INLINE_BYTES", 1000)
    report = tmp_path / "report.html"
    write_report(run_summary(), [dataset(store)], report)
    if how == "single":
        report = write_single_file(report, tmp_path / "pages").replace(tmp_path / "alone.html")
        for file in (tmp_path / "pages").rglob("*.js"):
            file.unlink()
    with serve(tmp_path) as address:
        page = open_page(f"{address}/{report.name}" if how == "http" else report.as_uri())
        page.wait_for_selector(".viewer[data-drawn]")
        page.locator(".stage").hover(position={"x": 100, "y": 100})
        page.wait_for_function("() => document.querySelector('.readout-value').textContent.includes(' ± ')")
        page.get_by_label("Layer").select_option("sigma")
        page.wait_for_function("() => document.querySelector('.viewer').dataset.drawn === '2'")
        page.context.close()


@pytest.mark.browser
def test_a_side_file_that_is_missing_is_told_and_a_foreign_script_refused(store, tmp_path, monkeypatch, browser):
    monkeypatch.setattr(layers, "INLINE_BYTES", 1000)
    report = tmp_path / "report.html"
    write_report(run_summary(), [dataset(store)], report)
    for file in (tmp_path / "pages").rglob("*.js"):
        file.unlink()
    (tmp_path / "evil.js").write_text("document.documentElement.dataset.owned = 'yes';")
    evil = '<script src="evil.js"></script><script>document.documentElement.dataset.owned = 1</script></body>'
    report.write_text(report.read_text().replace("</body>", evil))
    page = browser.new_page()
    page.goto(report.as_uri())
    page.wait_for_function("() => document.querySelector('.readout').innerText.includes('copy the folder pages')")
    assert page.evaluate("() => document.documentElement.dataset.owned") is None
    page.close()


class serve:  # noqa: N801  used as a function
    """HTTP over a folder, for as long as the block runs."""

    def __init__(self, folder):
        import functools
        import http.server
        import threading

        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
        handler.func.log_message = lambda *_: None
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self):
        self.thread.start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
