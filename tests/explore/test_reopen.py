"""A run that changes or vanishes while it is looked at: it says so, and what is there now is opened in its place."""

import asyncio
import json
import shutil

import numpy as np
import pytest
from explore_samples import NAME, make_run
from playwright.sync_api import expect
from run_folders import served
from test_server import StandInFits, ask, get, post, read

from hpcxrf.explore.access import new_access
from hpcxrf.explore.explorer import close_explorer, make_explorer
from hpcxrf.explore.runs import find_runs
from hpcxrf.explore.targets import find_target

MAP = "/api/map?detector=0&layer=amplitude&component=Fe"


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made.folder, tmp_path / "out")


@pytest.fixture
def explorer(folder):
    opened = make_explorer(find_target(folder), None, new_access(), StandInFits)
    yield opened
    close_explorer(opened)


def write_again(folder, shape_yx=(9, 7)):
    """Another run in the place of one, with other maps and counts."""
    shutil.rmtree(folder)
    shutil.rmtree(folder.with_name(f"{folder.name}-source"), ignore_errors=True)
    return make_run(folder, shape_yx=shape_yx)


def values(answer):
    assert answer.status == 200, answer.body
    return np.frombuffer(answer.body, "<f4")


def test_what_was_written_again_is_refused_until_it_is_opened_anew(explorer, folder):
    before = values(get(explorer, MAP)).size
    assert get(explorer, "/api/history").status == 200
    fits = explorer.opened[NAME].fits
    write_again(folder)
    for answer in (
        # Not from memory either.
        get(explorer, MAP),
        get(explorer, "/api/scan"),
        get(explorer, "/api/map?detector=0&layer=sigma&component=Fe"),
        post(explorer, "/api/spectrum", {"selection": {"kind": "pixel", "y": 1, "x": 1}}),
        post(explorer, "/api/fit", {"detector": "0", "selection": {"kind": "all"}}),
        get(explorer, "/api/history"),
    ):
        assert answer.status == 409
        assert read(answer)["changed"] == "written"
        assert "load what is there now" in read(answer)["error"]
    assert not fits.calls
    assert read(post(explorer, "/api/reopen", {"dataset": NAME})) == {"dataset": NAME}
    assert fits.closed
    assert values(get(explorer, MAP)).size == 9 * 7 != before
    point = {"kind": "pixel", "y": 8, "x": 6}
    assert read(post(explorer, "/api/spectrum", {"selection": point}))["n_pixels"] == 1
    assert get(explorer, "/api/history").status == 200
    assert explorer.opened[NAME].fits is not fits


def test_another_dataset_in_its_place_is_opened_where_the_one_that_was_is_gone(explorer, folder):
    write_again(folder)
    other = "leaf-0badcafe"
    for kind in ("results", "spectra"):
        (folder / kind / f"{NAME}.zarr").rename(folder / kind / f"{other}.zarr")
    answer = read(get(explorer, "/api/map?detector=0&layer=sigma&component=Fe"))
    assert answer["changed"] == "written"
    assert "its run is still there" in answer["error"]
    assert read(post(explorer, "/api/reopen", {})) == {"dataset": other}
    assert read(get(explorer, "/api/scan"))["dataset_id"] == other
    assert get(explorer, f"/api/scan?dataset={NAME}").status == 400


def test_a_run_that_vanished_says_so_plainly_and_there_is_nothing_to_open(explorer, folder):
    away = folder.with_name("away")
    folder.rename(away)
    answer = get(explorer, "/api/map?detector=0&layer=sigma&component=Fe")
    assert (answer.status, read(answer)["changed"]) == (409, "gone")
    assert f"{folder}: is gone since it was opened" in read(answer)["error"]
    answer = post(explorer, "/api/reopen", {"dataset": NAME})
    assert (answer.status, read(answer)["changed"]) == (409, "gone")
    # It is back, as a disk that was not there.
    away.rename(folder)
    assert get(explorer, "/api/map?detector=0&layer=sigma&component=Fe").status == 200


def test_nothing_is_closed_by_a_get_or_by_another_page(explorer, folder):
    session = explorer.opened[NAME].session
    assert get(explorer, "/api/reopen").status == 404
    assert post(explorer, "/api/reopen", {}, Origin="http://evil.example").status == 403
    assert post(explorer, "/api/reopen", {}, Cookie="").status == 403
    assert post(explorer, "/api/reopen", {"dataset": "../etc"}).status in {200, 400}
    # What has not changed stays open.
    assert explorer.opened[NAME].session is session


def test_a_run_of_a_folder_is_opened_anew_by_its_name(made, tmp_path):
    folder = shutil.copytree(made.folder, tmp_path / "runs" / "one")
    runs = find_runs(tmp_path / "runs", b"key", read_only=True)
    explorer = make_explorer(None, None, new_access(), None, runs)
    name = f"one/{NAME}"
    assert values(get(explorer, f"{MAP}&dataset={name}")).size
    write_again(folder)
    assert read(get(explorer, f"{MAP.replace('amplitude', 'sigma')}&dataset={name}"))["changed"] == "written"
    assert read(post(explorer, "/api/reopen", {"dataset": name})) == {"dataset": name}
    assert values(get(explorer, f"{MAP}&dataset={name}")).size == 63
    shutil.rmtree(folder)
    assert "no such run" in read(post(explorer, "/api/reopen", {"dataset": name}))["error"]
    close_explorer(explorer)


def test_two_pages_that_ask_at_once_open_it_once(explorer, folder, monkeypatch):
    from hpcxrf.explore import explorer as module

    write_again(folder)
    opened = []
    real = module.open_session
    monkeypatch.setattr(module, "open_session", lambda *parts: opened.append(1) or real(*parts))

    async def both():
        return await asyncio.gather(*(ask(explorer, "POST", "/api/reopen", {}) for _ in range(2)))

    assert [json.loads(one.body) for one in asyncio.run(both())] == [{"dataset": NAME}] * 2
    assert len(opened) == 1


# The last one: a browser's event loop runs to the end of the module.
@pytest.mark.browser
def test_the_page_offers_what_is_there_now_and_says_when_there_is_nothing(folder, browser):
    with served(folder) as (_, address):
        page = browser.new_page()
        page.set_default_timeout(30_000)
        page.goto(address)
        page.locator("html[data-ready=all]").wait_for(state="attached")
        expect(page.locator("#changed")).to_be_hidden()
        write_again(folder)
        page.get_by_label("Layer", exact=True).select_option("sigma")
        expect(page.locator("#changed")).to_contain_text("was written again since it was opened")
        assert page.evaluate("document.activeElement.tagName") != "DIALOG"
        # Focus comes to it by the keyboard, too. The errors of what is shown are asked for once, and kept.
        with page.expect_response(lambda one: one.ok and "/api/map" in one.url and "sigma" in one.url) as got:
            page.locator("#reopen").press("Enter")
        assert got.value.headers["x-shape"] == "9,7"
        expect(page.locator("#changed")).to_be_hidden()
        page.locator("html[data-ready=all]").wait_for(state="attached")
        shutil.rmtree(folder)
        page.get_by_label("Layer", exact=True).select_option("status")
        expect(page.locator("#changed")).to_contain_text("is gone since it was opened")
        expect(page.locator("#reopen")).to_be_hidden()
        page.close()
