"""The view of runs in the browser: form and text in step, a run begun and followed, a report that reaches nothing."""

import json
import re
from contextlib import contextmanager

import pytest
import yaml
from playwright.sync_api import expect
from run_folders import bare_run, ended_run, served

from tests.cluster.drills import make_scans

pytestmark = [pytest.mark.browser]

# A beacon is sent without a word of what became of it: its answer is looked at below.
PROBE = """async () => {
  navigator.sendBeacon("/api/runs/stop", "{}");
  const told = {};
  const attempt = async (name, act) => {
    try { told[name] = String(await act()); } catch (error) { told[name] = "refused"; }
  };
  const load = (node, source) => new Promise((resolve, reject) => {
    node.onload = () => resolve("loaded");
    node.onerror = reject;
    node.src = source;
    document.body.append(node);
  });
  const stop = { method: "POST", headers: { "Content-Type": "application/json" }, body: "{}" };
  await attempt("get", async () => (await fetch("/api/runs", { credentials: "include" })).status);
  await attempt("post", async () => (await fetch("/api/runs/stop", stop)).status);
  await attempt("plain", async () => (await fetch("/api/runs", { mode: "no-cors", credentials: "include" })).type);
  await attempt("request", () => new Promise((resolve, reject) => {
    const one = new XMLHttpRequest();
    [one.onload, one.onerror] = [() => resolve(one.status), reject];
    one.open("GET", "/api/runs");
    one.send();
  }));
  await attempt("socket", () => new Promise((resolve, reject) => {
    const one = new WebSocket("ws://" + location.host + "/");
    [one.onopen, one.onerror] = [resolve, reject];
  }));
  await attempt("script", () => load(document.createElement("script"), "/api/runs"));
  await attempt("picture", () => load(new Image(), "/api/runs"));
  await attempt("frame", async () => {
    const frame = document.createElement("iframe");
    await load(frame, "/");
    return frame.contentWindow.document.title;
  });
  await attempt("window", () => window.open("/").location.href);
  await attempt("cookie", () => document.cookie);
  await attempt("storage", () => localStorage.length);
  await attempt("opener", () => window.opener.location.href);
  return { origin: self.origin, told };
}"""


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans") / "scans"
    make_scans(folder, 2)
    return folder


@pytest.fixture
def folder(tmp_path, scans):
    place = tmp_path / "runs"
    place.mkdir()
    ended_run(place / "old-1", "done", "failed")
    bare_run(place / "new <b>")
    return place


@pytest.fixture
def explored(open_page):
    """The page of a folder's explorer, closed before its server is."""

    @contextmanager
    def explore(*arguments, **options):
        with served(*arguments) as (_, address):
            page = open_page(address, **options)
            page.wait_for_selector("html[data-runs=ready]", state="attached")
            yield page
            page.close()

    return explore


def option(page, place):
    return page.locator(f".option[data-place='{place}']")


def text_of(page):
    return yaml.safe_load(page.get_by_label("text of the run file").input_value())


def test_form_and_text_are_in_step_and_faults_stand_at_their_options(folder, explored):
    with explored(folder) as page:
        files = page.get_by_label("input.files", exact=True)
        expect(option(page, "input.files")).to_have_class(re.compile("wrong"))
        files.fill("a scan.mda\nb.mda")
        files.blur()
        expect(option(page, "input.files")).not_to_have_class(re.compile("wrong"))
        assert text_of(page) == {"input": {"files": ["a scan.mda", "b.mda"]}}
        page.get_by_label("Find an option").fill("kbeta")
        width = page.get_by_label("fit.kbeta_sd", exact=True)
        width.fill("20")
        width.press("Tab")
        expect(option(page, "fit.kbeta_sd").locator(".fault")).to_contain_text("less than or equal to 10")
        expect(width).to_have_attribute("aria-invalid", "true")
        expect(page.locator(".checked")).to_have_text("1 fault")
        page.get_by_label("reset fit.kbeta_sd").click()
        expect(page.locator(".checked")).to_contain_text("No fault")
        assert "fit" not in text_of(page)
        # And from the text to the form.
        text = page.get_by_label("text of the run file")
        text.fill(
            "input: {files: [a.mda]}\npixels: {method: nnls, deviance: false}\n"
            "regions: {find: [areas]}\nfit: {kbeta: 1}\n"
        )
        page.get_by_label("Find an option").fill("")
        expect(page.get_by_label("pixels.method", exact=True)).to_have_value('"nnls"')
        expect(page.get_by_label("pixels.deviance", exact=True)).not_to_be_checked()
        expect(option(page, "regions.find").get_by_label("areas")).to_be_checked()
        expect(option(page, "regions.find").get_by_label("phases")).not_to_be_checked()
        expect(page.locator("details.group", has_text="fit").locator("> .fault").first).to_be_attached()
        expect(page.locator(".faults")).to_contain_text("did you mean fit.kbeta_sd?")
        text.fill("input: [")
        expect(page.locator(".groups")).to_have_class(re.compile("unread"))
        text.fill("input: {files: [a.mda]}\n")
        expect(page.locator(".groups")).not_to_have_class(re.compile("unread"))
        expect(page.get_by_label("pixels.method", exact=True)).to_have_value('"linear"')


def test_what_is_changed_while_an_answer_is_awaited_stays_as_it_was_changed(folder, explored):
    slow = "((real) => { window.fetch = async (path, options) => { const answer = await real(path, options);"
    slow += "if (path.includes('/text')) { await new Promise((r) => setTimeout(r, 700)); } return answer; }; })(fetch)"
    with explored(folder) as page:
        page.get_by_label("Find an option").fill("suggest")
        page.evaluate(slow)
        page.get_by_label("fit.suggest", exact=True).uncheck()
        page.get_by_label("fit.auto_elements", exact=True).check()
        page.wait_for_timeout(1000)
        # The first answer is there, the second is not.
        assert text_of(page)["fit"] == {"suggest": False}
        assert page.get_by_label("fit.auto_elements", exact=True).is_checked()
        page.wait_for_timeout(700)
        assert text_of(page)["fit"] == {"suggest": False, "auto_elements": True}


def test_names_are_texts_and_keys_of_the_maps_do_nothing_here(folder, explored):
    with explored(folder, width=1920) as page:
        page.get_by_role("button", name="new <b>", exact=True).click()
        expect(page.locator("section[aria-label='chosen run'] h2")).to_have_text("new <b>")
        for key in ("r", "z", "n", "l", "ArrowRight", "?"):
            page.keyboard.press(key)
        expect(page.get_by_role("button", name="Maps", exact=True).first).to_be_disabled()
        page.get_by_role("button", name="old-1", exact=True).click()
        expect(page.locator(".reasons")).to_contain_text("is cut short")


def test_nothing_is_begun_or_stopped_where_the_explorer_only_reads(folder, explored):
    with explored(folder, "--read-only") as page:
        page.get_by_role("button", name="old-1", exact=True).click()
        expect(page.get_by_role("button", name="New run like this")).to_be_visible()
        for name in ("Go on", "Stop", "Show the script"):
            expect(page.get_by_role("button", name=name)).to_have_count(0)
        expect(page.get_by_text("only reads")).to_be_visible()


@pytest.mark.more
@pytest.mark.timeout(290)
def test_a_run_goes_from_the_form_to_its_maps(folder, scans, explored):
    with explored(folder) as page:
        page.get_by_label("input.files", exact=True).fill(str(scans))
        page.get_by_label("input.files", exact=True).blur()
        page.get_by_label("Find an option").fill("suggest")
        page.get_by_label("fit.suggest", exact=True).uncheck()
        page.get_by_label("Find an option").fill("regions.find")
        for kind in ("phases", "squares"):
            option(page, "regions.find").get_by_label(kind).uncheck()
        page.get_by_label("Find an option").fill("workers")
        page.get_by_label("execution.workers", exact=True).fill("1")
        page.get_by_role("button", name="Plan", exact=True).click()
        expect(page.locator(".plan")).to_contain_text("Nothing speaks against it.", timeout=60_000)
        expect(page.locator(".plan")).to_contain_text("2 ingest")
        page.get_by_label("Name", exact=True).fill("leaf-1")
        page.get_by_role("button", name="Show the script").click()
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_label("script")).to_contain_text(f"run {folder}/leaf-1.yaml -o {folder}/leaf-1")
        assert not (folder / "leaf-1").exists()
        assert not (folder / "leaf-1.yaml").exists()
        dialog.get_by_role("button", name="Run it").click()
        row = page.locator("table.runs tr", has=page.get_by_role("button", name="leaf-1", exact=True))
        expect(row.locator(".chip")).to_have_text("running", timeout=60_000)
        assert yaml.safe_load((folder / "leaf-1.yaml").read_text())["input"] == {"files": [str(scans)]}
        expect(row.locator(".chip")).to_have_text("done", timeout=200_000)
        expect(page.locator("section[aria-label='chosen run']")).to_contain_text("2 of 2 done", timeout=20_000)
        expect(page.get_by_label("end of the log")).not_to_be_empty()
        with page.context.expect_page() as report:
            row.get_by_role("link", name="Report").click()
        # Maps are drawn when they come into view.
        report.value.set_viewport_size({"width": 1280, "height": 4000})
        report.value.locator(".viewer[data-drawn]").first.wait_for()
        assert report.value.evaluate("origin") == "null"
        report.value.close()
        row.get_by_role("button", name="Maps").click()
        page.wait_for_selector("html[data-ready=all]", state="attached", timeout=60_000)
        expect(page.locator("#dataset option")).to_have_count(2)
        assert page.locator("#dataset").input_value().startswith("leaf-1/s0")
        page.get_by_role("button", name="Runs", exact=True).click()
        expect(row.locator(".chip")).to_have_text("done")


def test_a_report_that_others_have_written_cannot_reach_the_explorer(folder, browser):
    page_text = (
        "<!doctype html><title>evil</title><body><form method=post action=/api/runs/stop><button>x</button></form>"
    )
    (folder / "old-1" / "report.html").write_text(page_text)
    with served(folder) as (_, address):
        context = browser.new_context()
        page = context.new_page()
        page.goto(address)
        page.wait_for_selector("html[data-runs=ready]", state="attached")
        assert page.evaluate("fetch('/api/runs').then((answer) => answer.status)") == 200
        link = page.locator("table.runs").get_by_role("link", name="Report")
        with context.expect_page() as found:
            link.click()
        report = found.value
        answers = {}
        report.on("response", lambda one: answers.setdefault(one.url.rpartition("/")[2], one.status))
        assert report.title() == "evil"
        probed = report.evaluate(PROBE)
        assert probed["origin"] == "null"
        assert set(probed["told"].values()) == {"refused"}, json.dumps(probed["told"])
        assert 200 not in {status for name, status in answers.items() if name != "report.html"}
        # A form goes nowhere, and what it navigates to has no cookie of the explorer.
        report.locator("button").click(no_wait_after=True)
        report.wait_for_timeout(300)
        assert "/report/" in report.url
        report.evaluate("setTimeout(() => { location.href = '/api/runs'; })")
        report.wait_for_url("**/api/runs")
        assert list(json.loads(report.locator("body").inner_text())) == ["error"]
        context.close()


def test_a_report_cannot_be_put_into_a_frame_of_another_page(folder, browser):
    (folder / "old-1" / "report.html").write_text("<!doctype html><title>r</title>")
    with served(folder) as (_, address):
        context = browser.new_context()
        page = context.new_page()
        page.goto(address)
        page.wait_for_selector("html[data-runs=ready]", state="attached")
        target = page.locator("table.runs").get_by_role("link", name="Report").evaluate("(one) => one.href")
        other = context.new_page()
        other.set_content(f"<iframe src='{target}'></iframe>")
        other.wait_for_timeout(500)
        assert other.frames[1].url.startswith("chrome-error:") or not other.frames[1].title()
        context.close()
