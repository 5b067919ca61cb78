"""The page of a comparison in a browser: sorted, filtered, dark; nothing from outside, names escaped."""

import re

import numpy as np
import pytest
from diff_samples import write_result
from pages import parsed, programs

from hpcxrf.archive.diff.facts import Limits
from hpcxrf.archive.diff.page import draw_pictures, write_diff_page
from hpcxrf.archive.diff.walk import compare_runs
from hpcxrf.fitting.verdict import Verdict

HOSTILE = "<img src=x onerror=alert(1)> {{ 7*7 }}"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("diff")
    changes = {
        "calm": {},
        "moved": {"theta": {"energy_offset": 4.0}, "scale": {"Fe": 1.2, "Zn": 0.7}, "deviance": 1.5},
        "hostile": {"deviance": 0.9, "scale": {"Ca": 1.5}},
        "judged": {"verdict": Verdict.WRONG, "components": ("S", "K", "Ca", "Fe", "compton", "elastic")},
    }
    for number, (name, change) in enumerate(changes.items()):
        title = HOSTILE if name == "hostile" else f"{name}.h5"
        about = {"title": title, "sha256": f"{number:064}"}
        write_result(folder / "first" / "results" / f"{name}.zarr", **about)
        run = {"configuration": {"fit": {"kbeta_sd": 0.15}}}
        write_result(folder / "second" / "results" / f"{name}.zarr", **about, **run, **change)
    write_result(folder / "first" / "results" / "gone.zarr", title="gone.h5", sha256="f" * 64, source="/data/gone.h5")
    path = folder / "changes.html"
    with compare_runs(folder / "first", folder / "second", limits=Limits(), most=2) as found:
        write_diff_page(found, path)
    return path


def test_names_are_escaped_and_nothing_comes_from_outside(page):
    text = page.read_text(encoding="utf-8")
    assert HOSTILE not in text
    assert "&lt;img src=x" in text
    found = parsed(text)
    assert len(programs(found)) == 1
    addresses = [a.get("src") or a.get("href") for tag in ("img", "a", "link") for a in found.attributes(tag)]
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "default-src 'none'" in text
    assert not re.search(r"\bon[a-z]+=", "".join(f"{t}" for t, _ in found.tags))


def test_those_that_changed_most_have_pictures_and_no_others(page):
    found = parsed(page.read_text(encoding="utf-8"))
    details = [a for a in found.attributes("details") if a.get("class") == "dataset"]
    assert [one["id"] for one in details] == ["changed-1", "changed-2"]
    assert len(found.attributes("img")) == 3 * (1 + 2)  # first, second and ratio of Ca; of Fe and Zn


def test_pictures_of_ratios_are_grey_without_signal_and_centred_on_one():
    ours = np.full((12, 20), 100.0)
    ours[:, :5] = 0.0
    drawn = draw_pictures("Fe", ours, np.full(ours.shape, 10.0), 1.5 * ours, 3.0)
    assert drawn.ratio_limits == pytest.approx((1 / 1.5, 1.5))
    assert drawn.limits[0] == 0.0
    close = draw_pictures("Fe", ours, np.full(ours.shape, 10.0), 1.0001 * ours, 0.0)
    assert close.ratio_limits == pytest.approx((1 / 1.02, 1.02))


def names(opened):
    return opened.locator("#datasets tbody tr:visible td.name").all_inner_texts()


@pytest.mark.browser
def test_the_table_sorts_and_filters_and_leads_to_the_details(open_page, page):
    opened = open_page(page.as_uri())
    assert opened.locator(".filters output").inner_text() == "5 datasets"
    opened.get_by_label("Outcome").select_option("worse")
    assert names(opened) == ["judged.h5", "moved.h5"]
    opened.get_by_label("Outcome").select_option("only in first")
    assert names(opened) == ["gone.h5"]
    opened.get_by_label("Outcome").select_option("")
    opened.get_by_label("Verdict, second").select_option("wrong")
    assert names(opened) == ["judged.h5"]
    opened.get_by_label("Verdict, second").select_option("")
    opened.get_by_label("Filter").fill("only in first: Ti")
    assert names(opened) == ["judged.h5"]
    opened.get_by_label("Filter").fill("")
    opened.locator("#datasets").get_by_role("button", name="Largest, σ").click()
    assert names(opened) == [HOSTILE, "moved.h5", "calm.h5", "judged.h5", "gone.h5"]
    opened.locator("#datasets").get_by_role("link", name="moved.h5").click()
    opened.wait_for_selector("#changed-2[open]")
    broken = opened.locator("img").evaluate_all("(all) => all.filter((i) => i.complete && !i.naturalWidth).length")
    assert broken == 0


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_by_day_and_by_night_and_on_a_narrow_screen(open_page, page, scheme, tmp_path):
    opened = open_page(page.as_uri(), color_scheme=scheme)
    body, card = (
        opened.locator(where).first.evaluate("(one) => getComputedStyle(one).backgroundColor")
        for where in ("body", "main > section")
    )
    dark = scheme == "dark"
    assert (sum(map(int, re.findall(r"\d+", card)[:3])) < 200) == dark, (body, card)
    opened.screenshot(path=tmp_path / f"{scheme}.png", full_page=True)
    narrow = open_page(page.as_uri(), color_scheme=scheme, width=420)
    assert narrow.evaluate("() => document.documentElement.scrollWidth") <= 420
