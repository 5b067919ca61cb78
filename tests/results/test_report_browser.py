"""The report of a run in a browser: its table of datasets, what has no script, what is printed."""

import re

import pytest
from pages import run_summary
from results_sample import COMPONENTS, make_store

from hpcxrf.notes import Note
from hpcxrf.results.report.page.dataset import DatasetSummary
from hpcxrf.results.report.report import write_report

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=alert(1)> {{ 7*7 }}"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Two datasets that are done and one that is not, of a run with links to its files."""
    folder = tmp_path_factory.mktemp("run")
    store = folder / "results" / "leaf-1a2b3c4d.zarr"
    make_store(store, shape_yx=(30, 24), detectors=("0",))
    table = folder / "tables" / "leaf 1.csv"
    table.parent.mkdir()
    table.write_text("region\n")

    def dataset(name, **changes):
        facts = {
            "dataset_id": name,
            "name": name,
            "source": name,
            "status": "done",
            "shape": (1, 30, 24, 1200),
            "results_path": store,
            "files": {"results": store, "regions": table, "none": folder / "none.csv"},
            "notes": (Note("fact", "one"), Note("fact", "one"), Note("warning", "two"), Note("fact", "two")),
        }
        return DatasetSummary(**{**facts, **changes})

    broken = dataset("root_0003", status="failed", results_path=None, reason=f"no counts {HOSTILE}", files={})
    write_report(run_summary(), [dataset("leaf_0001"), dataset("leaf_0002"), broken], folder / "report.html")
    return folder / "report.html"


def shown(page):
    return page.locator("#datasets tbody tr:visible td.name > a").all_inner_texts()


def test_datasets_are_filtered_by_words_status_and_verdict(open_page, report):
    page = open_page(report.as_uri())
    output = page.locator(".filters output")
    assert output.inner_text() == "3 datasets"
    page.get_by_label("Filter").fill("LEAF 0002")
    assert output.inner_text() == "1 of 3 datasets"
    assert shown(page) == ["leaf_0002"]
    page.get_by_label("Filter").fill("no counts")
    assert page.locator("#datasets tbody tr:visible .reason").inner_text() == f"no counts {HOSTILE}"
    page.get_by_label("Filter").fill("")
    page.get_by_label("Status").select_option("done")
    assert shown(page) == ["leaf_0001", "leaf_0002"]
    page.get_by_label("Verdict").select_option("wrong")
    assert output.inner_text() == "0 of 3 datasets"
    page.get_by_label("Verdict").select_option("–")
    page.locator("#datasets").get_by_role("button", name="Dataset").click()
    assert shown(page) == ["leaf_0002", "leaf_0001"]  # sorted, and filtered still


def test_rows_have_a_picture_and_links_to_what_there_is(open_page, report):
    page = open_page(report.as_uri())
    first = page.locator("#datasets tbody tr").first
    assert first.locator("img").evaluate("(image) => image.naturalWidth") > 8
    links = first.locator(".links a").evaluate_all(
        "(all) => all.map((one) => [one.textContent, one.getAttribute('href')])"
    )
    assert links == [
        ["page", "pages/leaf_0001.html"],
        ["results", "results/leaf-1a2b3c4d.zarr"],
        ["regions", "tables/leaf%201.csv"],
    ]
    first.get_by_role("link", name="page", exact=True).click()
    page.wait_for_selector(".viewer[data-drawn]")
    page.get_by_role("link", name="report of the whole run").click()
    page.wait_for_selector("#datasets")


def test_notes_are_told_once_and_what_is_a_warning_is_no_fact(report):
    text = report.read_text(encoding="utf-8")
    details = text.split('class="dataset"')[1]
    assert re.findall(r'<ul class="notes">(.*?)</ul>', details, re.DOTALL)[0] == "<li>two</li>"
    assert re.findall(r'<ul class="choices">(.*?)</ul>', details, re.DOTALL)[0] == "<li>one</li>"


def test_viewers_are_built_when_their_dataset_opens(open_page, report):
    page = open_page(report.as_uri())
    page.wait_for_selector(".viewer[data-drawn]")
    page.evaluate("() => window.scrollTo(0, document.body.scrollHeight)")
    page.wait_for_timeout(300)
    assert page.locator(".viewer").count() == 1
    page.locator("details.dataset").nth(1).locator("summary").first.click()
    page.wait_for_function("() => document.querySelectorAll('.viewer[data-drawn]').length === 2")
    # Keys go to the viewer that was used last.
    page.locator(".viewer").nth(1).locator(".stage").hover()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelectorAll('.viewer')[1].dataset.drawn === '2'")
    assert page.locator(".viewer").first.get_attribute("data-drawn") == "1"


def test_without_scripts_and_on_paper_maps_are_pictures(open_page, report):
    bare = open_page(report.as_uri(), java_script_enabled=False)
    assert bare.locator("details.dataset").first.locator("figure.static img:visible").count() == len(COMPONENTS)
    assert bare.locator("figure.spectrum noscript p").first.is_visible()
    page = open_page(report.as_uri())
    page.wait_for_selector(".viewer[data-drawn]")
    first = page.locator("details.dataset").first
    assert first.locator("figure.static img:visible").count() == 0
    page.emulate_media(media="print")
    assert first.locator("figure.static img:visible").count() == len(COMPONENTS)
    assert not page.locator(".viewer").first.is_visible()
    page.evaluate("() => window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("figure.spectrum path.counts").count() == 2
