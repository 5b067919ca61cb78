"""What a report says of many datasets together."""

import json
import math
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from pages import parsed, run_summary, write_page
from results_sample import make_store

from hpcxrf.fitting.verdict import Verdict
from hpcxrf.results.report import report
from hpcxrf.results.report.archive.facts import FitFacts, pack_fit_facts, unpack_fit_facts
from hpcxrf.results.report.archive.gather import ArchivePoint, gather_trends
from hpcxrf.results.report.archive.page import MOST_POINTS, describe_shifts, measure_throughput, pack_trends
from hpcxrf.results.report.page.dataset import DatasetSummary
from hpcxrf.results.report.report import write_report

HOSTILE = "<script>alert(1)</script>"
SWAP = 25


def fit(detector: str, offset: float, **changes) -> FitFacts:
    facts = {
        "theta": {"energy_offset": (offset, 0.0003), "fwhm_offset": (0.09 + offset, math.nan)},
        "units": {"energy_offset": "keV", "fwhm_offset": "keV"},
        "r2": 0.99,
        "r2_expected": 0.995,
        "deviance": 1.2,
        "verdict": Verdict.GOOD,
        "dead_time": 0.1,
    }
    return FitFacts(detector=detector, **facts | changes)


def fits_of(index: int) -> tuple[FitFacts, ...]:
    """Detector 0 is exchanged before dataset SWAP, detector 1 is wild in dataset 12."""
    noise = np.random.default_rng(index).normal(0, 0.0004, 2)
    return (
        fit("0", 0.001 + noise[0] + (0.02 if index >= SWAP else 0.0)),
        fit("1", 0.004 + noise[1] + (0.05 if index == 12 else 0.0)),
    )


def point(index: int, **changes) -> ArchivePoint:
    facts = {
        "name": f"scan {index}",
        "link": f"pages/scan-{index}.html",
        "date": None,
        "kind": "mda 2048 channels",
        "fits": fits_of(index),
        "suggested": (),
    }
    return ArchivePoint(**facts | changes)


def test_facts_are_the_same_after_a_file_of_json():
    facts = (fit("0", 0.0123456, dead_time=math.nan), fit("1", -1.0, verdict=Verdict.WRONG))
    text = json.dumps(pack_fit_facts(facts), allow_nan=False)
    read = unpack_fit_facts(json.loads(text))
    assert repr(read) == repr(facts)


def test_few_datasets_say_nothing_together():
    assert gather_trends([point(i) for i in range(4)]) is None
    assert gather_trends([point(i) for i in range(5)]) is not None


def test_an_exchanged_detector_is_one_change_of_all_its_parameters():
    trends = gather_trends([point(i) for i in range(50)])
    assert [(one.detector, one.before.name, one.after.name) for one in trends.changes] == [
        ("0", f"scan {SWAP - 1}", f"scan {SWAP}")
    ]
    assert {moved.name for moved in trends.changes[0].parameters} == {"energy_offset", "fwhm_offset"}
    assert trends.changes[0].parameters[0].size == pytest.approx(0.02, abs=0.002)
    assert [(one.detector, one.dataset.name) for one in trends.outliers] == [("1", "scan 12")]
    assert trends.outliers[0].parameters[0].size == pytest.approx(0.05, abs=0.002)


def test_datasets_are_in_the_order_of_their_dates_where_all_have_one():
    shuffled = np.random.default_rng(3).permutation(50)
    dated = [point(i, date=f"2024-03-{1 + i // 24:02}T{i % 24:02}:00:00") for i in shuffled]
    trends = gather_trends(dated)
    assert trends.is_by_date
    assert [one.after.name for one in trends.changes] == [f"scan {SWAP}"]
    without = gather_trends([*dated[:-1], replace(dated[-1], date=None)])
    assert not without.is_by_date
    assert [one.name for one in without.points] == [one.name for one in dated]
    assert pack_trends(without)["dates"] is None


def test_a_wrong_fit_says_nothing_of_its_detector():
    points = [point(i) for i in range(50)]
    points[12] = replace(points[12], fits=tuple(replace(one, verdict=Verdict.WRONG) for one in points[12].fits))
    assert gather_trends(points).outliers == ()


def test_detectors_of_one_name_in_two_instruments_are_two():
    points = [point(i, kind="mda 2048 channels" if i < SWAP else "larch 4096 channels") for i in range(50)]
    trends = gather_trends(points)
    assert trends.changes == ()
    assert len({one.detector for one in trends.series}) == 4


def test_suggested_components_are_counted_by_dataset():
    points = [point(i, suggested=("Ga", "Ga") if i % 2 else ("Cu",) if i == 2 else ()) for i in range(20)]
    missing = gather_trends(points).missing
    assert [(one.name, one.datasets, len(one.examples)) for one in missing] == [("Ga", 10, 3), ("Cu", 1, 1)]


def test_histograms_count_every_fit_once_and_say_what_is_not_known():
    values = np.random.default_rng(5).lognormal(0.2, 0.3, 40)
    points = [
        point(i, fits=(fit("0", 0.0, deviance=values[i], dead_time=math.nan if i < 30 else 0.2),)) for i in range(40)
    ]
    by_title = {one.title: one for one in gather_trends(points).histograms}
    deviance = by_title["Deviance"]
    assert sum(deviance.counts["good"]) == 40
    assert deviance.median == pytest.approx(np.median(values))
    assert list(deviance.counts["good"]) == np.histogram(values, deviance.edges)[0].tolist()
    assert (by_title["Dead time"].n_missing, by_title["Dead time"].median) == (30, 20.0)  # percent
    assert by_title["Share of the variance that the fit leaves"].median == pytest.approx(0.01)  # R2 is 0.99
    unknown = [replace(one, fits=(replace(one.fits[0], dead_time=math.nan),)) for one in points]
    assert "Dead time" not in {one.title for one in gather_trends(unknown).histograms}


def test_long_series_are_thinned_but_for_their_outliers():
    points = [point(i) for i in range(2 * MOST_POINTS + 1)]
    points[4001] = replace(points[4001], fits=(fit("0", 0.9), fit("1", 0.004)))
    series = pack_trends(gather_trends(points))["series"]
    shown = next(one for one in series if one["detector"] == "0" and one["parameter"] == "energy_offset")
    assert len(shown["at"]) + shown["left_out"] == len(points)
    assert len(shown["at"]) < MOST_POINTS + 10
    assert 4001 in [shown["at"][i] for i in shown["outliers"]]


def test_shifts_are_told_in_words():
    change = gather_trends([point(i) for i in range(50)]).changes[0]
    assert re.fullmatch(
        r"[\w ]+ \+0\.0\d+ keV \(\d+ σ\); [\w ]+ \+0\.0\d+ keV \(\d+ σ\)", describe_shifts(change.parameters)
    )
    assert describe_shifts(change.parameters, most=1).endswith("; and 1 more")


def test_throughput_by_hand():
    found = measure_throughput(
        {"ingest": 30.0, "pixels": 90.0}, wall_s=60.0, n_datasets=10, n_pixels=6000, cpu_s=25.0, gpu_s=1800.0
    )
    assert (found.datasets_per_h, found.pixels_per_s, found.cpu_s_per_dataset, found.gpu_h) == (600.0, 100.0, 2.5, 0.5)
    assert [(one.name, one.share) for one in found.stages] == [("ingest", 0.25), ("pixels", 0.75)]
    assert measure_throughput({}, wall_s=60.0, n_datasets=0, n_pixels=0, cpu_s=0.0, gpu_s=0.0) is None


@pytest.fixture(scope="module")
def archive_page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    store = folder / "one.zarr"
    make_store(store, shape_yx=(6, 5), detectors=("0", "1"))
    datasets = [
        DatasetSummary(
            dataset_id=f"scan-{i}",
            name=f"scan {i} {HOSTILE if i == SWAP else ''}".strip(),
            source=f"scan_{i}.h5",
            status="done",
            shape=(2, 6, 5, 1200),
            seconds={"ingest": 1.0, "pixels": 2.0},
            results_path=store,
            cpu_s=2.5,
            fits=tuple(replace(one, r2=1.0 - 3.5e-4) for one in fits_of(i)),
            suggested=("Ga",) if i % 3 == 0 else (),
        )
        for i in range(50)
    ]
    failed = [
        DatasetSummary(
            dataset_id=f"bad-{i}",
            name=f"bad {i}",
            source=f"bad_{i}.h5",
            status="failed",
            reason=f"bad_{i}.h5: the file ends early {HOSTILE}",
            reason_kind=f"<file>: the file ends early {HOSTILE}",
        )
        for i in range(3)
    ]
    # All pages are alike: one is drawn, so that the others are there already.
    (folder / "pages").mkdir()
    page = write_page(store)
    for one in datasets:
        shutil.copy(page, folder / "pages" / f"{one.dataset_id}.html")
    path = folder / "report.html"
    write_report(run_summary(), [*datasets, *failed], path)
    return path


def test_a_page_of_many_datasets_has_no_details_and_tells_of_all_together(archive_page):
    page = parsed(archive_page.read_text(encoding="utf-8"))
    assert len(page.attributes("script")) == 3  # numbers, colours and the program: no name became one
    assert not [a for a in page.attributes("details") if a.get("class") == "dataset"]
    ids = {a.get("id") for a in page.attributes("section")}
    assert {"distributions", "trends", "missing-elements", "reasons", "throughput"} <= ids
    words = [text.strip() for text in page.texts]
    assert words[words.index("Reason") + 1 :][:6].count("3") == 1
    assert f"<file>: the file ends early {HOSTILE}" in words
    links = [a["href"] for a in page.attributes("a")]
    assert links.count("pages/scan-7.html") >= 1
    assert len(list(archive_page.parent.glob("pages/*.html"))) == 50


def test_a_page_of_few_datasets_shows_them_in_full(archive_page, monkeypatch):
    assert report.MOST_DETAILED < 50
    few = [
        DatasetSummary(
            dataset_id=f"scan-{i}",
            name=f"scan {i}",
            source=f"scan_{i}.h5",
            status="done",
            shape=(2, 6, 5, 1200),
            results_path=archive_page.parent / "one.zarr",
        )
        for i in range(3)
    ]
    path = archive_page.parent / "few.html"
    write_report(run_summary(), few, path)
    page = parsed(path.read_text(encoding="utf-8"))
    assert len([a for a in page.attributes("details") if a.get("class") == "dataset"]) == 3
    assert "trends" not in {a.get("id") for a in page.attributes("section")}


@pytest.mark.browser
def test_trends_are_drawn_steered_and_lead_to_pages(archive_page, open_page):
    page = open_page(archive_page.as_uri())
    chart = page.locator("figure.trend .chart svg[viewBox]")
    chart.wait_for()
    assert page.locator(".histograms figure").count() == 3
    assert "median 0.00035." in page.locator(".histograms figcaption").first.inner_text()
    assert page.locator(".trend .step").count() == 1
    drawn = page.locator(".trend .points").first.get_attribute("d")
    assert drawn.count("M") == 50
    page.get_by_label("Parameter", exact=True).select_option("dead_time")
    assert page.locator(".trend .step").count() == 0
    page.get_by_label("Parameter", exact=True).select_option("energy_offset")
    page.get_by_label("Range", exact=True).select_option("whole")
    assert page.locator(".trend .outlier").count() == 1
    page.get_by_role("button", name="detector 1").click()
    assert page.locator(".trend .points").count() == 1
    chart.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert "scan 1 · detector 0 · 0.00" in page.locator(".trend output").inner_text()
    page.keyboard.press("Enter")
    page.wait_for_url("**/pages/scan-1.html")


@pytest.mark.browser
def test_the_table_of_an_archive_sorts_filters_and_opens(archive_page, open_page):
    page = open_page(archive_page.as_uri())
    page.locator("#datasets th button", has_text="Time").click()
    page.get_by_placeholder("name, reason, flag").fill("scan 31")
    rows = page.locator("#datasets tbody tr:visible")
    assert rows.count() == 1
    rows.locator("a").first.click()
    page.wait_for_url("**/pages/scan-31.html")
