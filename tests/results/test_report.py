"""The report, as a browser without a network sees it."""

import html
import json
import math
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pages import browse, parsed, programs, run_summary
from results_sample import COMPONENTS, PARAMETERS, make_store

from hpcxrf.errors import OutputError
from hpcxrf.fitting.result import FitStatus
from hpcxrf.fitting.verdict import Verdict
from hpcxrf.notes import Note
from hpcxrf.results.names import shown_name
from hpcxrf.results.report import report
from hpcxrf.results.report.judgement import Judgement, read_judgement
from hpcxrf.results.report.page.dataset import DatasetSummary, read_details, write_dataset_page
from hpcxrf.results.report.report import write_report
from hpcxrf.results.report.views import Merit, pack_merit, unpack_merit
from hpcxrf.results.store.maps import open_results
from hpcxrf.store.packed import pack_store

HOSTILE = "<script>document.title='owned'</script>\"'><img src=x onerror=alert(1)>\n{{ 7*7 }}"


def dataset(path: Path | None, **changes) -> DatasetSummary:
    facts = {
        "dataset_id": "leaf-1a2b3c4d",
        "name": "leaf_0001",
        "source": "leaf_0001.h50",
        "status": "done",
        "shape": (2, 70, 60, 1200),
        "seconds": {"ingest": 3.0, "pixels": 20.0},
        "results_path": path,
        "notes": (Note("fact", "leaf_0001.h5 was ignored"),),
        **changes,
    }
    return DatasetSummary(**facts)


def write_page(summary: DatasetSummary, path: Path) -> str:
    with open_results(summary.results_path) as tree:
        write_dataset_page(summary, tree, path)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("report") / "leaf-1a2b3c4d.zarr"
    make_store(path, shape_yx=(70, 60))
    return path


@pytest.fixture(scope="module")
def page_path(store) -> Path:
    """Two datasets, one of them named by an attacker, and one failure."""
    path = store.parent / "report.html"
    hostile = dataset(
        store,
        dataset_id="leaf-5e6f7a8b",
        name=HOSTILE,
        source=HOSTILE,
        notes=(Note("warning", HOSTILE),),
        seconds={HOSTILE: 1.0},
    )
    failed = dataset(None, name="broken", status="failed", reason=HOSTILE, shape=None, seconds={})
    run = run_summary(title=HOSTILE, configuration=HOSTILE, versions={HOSTILE: HOSTILE})
    write_report(run, (dataset(store), hostile, failed), path)
    return path


def test_the_page_needs_nothing_but_itself(page_path):
    text = page_path.read_text(encoding="utf-8")
    assert len(text.encode()) < 10_000_000
    page = parsed(text)
    sources = [a["src"] for a in page.attributes("img")]
    assert len(sources) == 2 * 2 * len(COMPONENTS) + 2  # and in small, in the table
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert [a.get("href") for a in page.attributes("link")] == ["data:,"]
    assert all("src" not in a for a in page.attributes("script"))
    bare = re.sub(r"base64,[\w+/=]+", "", text).replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|url\((?!#)|@import", bare)
    policy = page.attributes("meta")[-1]["content"]
    assert re.search(r"script-src 'sha256-[\w+/=]+';", policy)


def test_hostile_names_stay_text(page_path):
    page = parsed(page_path.read_text(encoding="utf-8"))
    assert len(programs(page)) == 1
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert sum("{{ 7*7 }}" in text for text in page.texts) >= 8
    assert any(HOSTILE in text for text in page.texts)
    assert not any(text.strip() == "49" for text in page.texts)


def test_every_dataset_failure_component_and_parameter_is_told(page_path):
    page = parsed(page_path.read_text(encoding="utf-8"))
    words = [text.strip() for text in page.texts]
    for name in (*map(shown_name, COMPONENTS), *PARAMETERS):
        assert words.count(name) >= 4, name  # 2 datasets of 2 detectors
    assert words.count("at bound") == 4
    assert "not found" in words
    assert words.count("Fe K-beta") == 4
    assert any(a.get("id") == "failures" for a in page.attributes("section"))
    assert "leaf_0001.h5 was ignored" in words
    assert "1 min 40 s" in words


@pytest.mark.browser
def test_a_browser_shows_every_picture_and_reports_no_error(page_path, chromium, tmp_path):
    done = browse(chromium, tmp_path, "--dump-dom", page_path.as_uri())
    assert "CONSOLE" not in done.stderr, done.stderr
    root = re.search(r"<html[^>]*>", done.stdout).group()
    assert f'data-images="{4 * len(COMPONENTS) + 2}/{4 * len(COMPONENTS) + 2}"' in root
    assert 'data-scale="log"' in root
    page = parsed(done.stdout)
    classes = [a.get("class", "") for a in page.attributes("table")]
    assert sum("amplitudes" in name for name in classes) == 4
    assert sum("parameters" in name for name in classes) == 4
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL).group(1)
    assert html.unescape(title) == f"{HOSTILE} – hpcxrf report"
    # The script ran: it puts a button into every heading that sorts.
    assert len(page.attributes("button")) > 20


@pytest.mark.browser
def test_a_foreign_script_would_be_refused(page_path, chromium, tmp_path):
    """The second wall: even if a name got through the escaping, the page's policy stops it."""
    changed = tmp_path / "changed.html"
    text = page_path.read_text(encoding="utf-8")
    attack = "<script>document.documentElement.dataset.owned = 'yes'</script></body>"
    changed.write_text(text.replace("</body>", attack), encoding="utf-8")
    done = browse(chromium, tmp_path, "--dump-dom", changed.as_uri())
    assert "data-owned" not in re.search(r"<html[^>]*>", done.stdout).group()
    assert "Content Security Policy" in done.stderr


@pytest.mark.browser
def test_tables_sort_and_spectra_change_scale_on_a_click(page_path, chromium, tmp_path):
    clicks = """<script>
    const heads = [...document.querySelectorAll("#datasets th button")];
    heads.find((b) => b.textContent === "Time").click();
    const amplitudes = document.querySelector("table.amplitudes");
    [...amplitudes.querySelectorAll("th button")].find((b) => b.textContent === "Amplitude").click();
    document.querySelector("button[data-scale=linear]").click();
    </script></body>"""
    changed = tmp_path / "changed.html"
    text = re.sub(r"<meta http-equiv[^>]*>", "", page_path.read_text(encoding="utf-8"))
    changed.write_text(text.replace("</body>", clicks), encoding="utf-8")
    done = browse(chromium, tmp_path, "--dump-dom", changed.as_uri())
    assert "CONSOLE" not in done.stderr, done.stderr
    assert 'data-scale="linear"' in re.search(r"<html[^>]*>", done.stdout).group()
    table = done.stdout.split('id="datasets"')[1].split("</table>")[0]
    seconds = [float(value) for value in re.findall(r'data-value="([\d.]+)">[^<]* s<', table)]
    assert seconds == [23.0, 1.0, 0.0]
    table = done.stdout.split("<h4>Amplitudes</h4>")[1].split("</table>")[0]
    first = re.findall(r'<td class="name">(\w+)</td>', table)
    assert first[:3] == ["Fe", "compton", "Ca"]


@pytest.mark.browser
def test_a_screenshot_is_not_blank(page_path, open_page, tmp_path):
    from matplotlib.image import imread

    shot = tmp_path / "shot.png"
    page = open_page(page_path.as_uri(), height=2400)
    # The maps are drawn once they are in sight, which a picture taken at load does not wait for.
    page.wait_for_selector(".viewer[data-drawn]")
    page.screenshot(path=shot)
    pixels = imread(shot)[..., :3]
    assert pixels.shape[:2] == (2400, 1280)
    dark_end = np.array([0x44, 0x01, 0x54]) / 255  # of the colours of the maps
    assert (np.abs(pixels - dark_end).max(-1) < 0.06).sum() > 5000


def test_a_results_store_that_cannot_be_read_is_a_failure_with_its_reason(tmp_path):
    path = tmp_path / "report.html"
    write_report(run_summary(), (dataset(tmp_path / "none.zarr"), dataset(None)), path)
    words = " ".join(parsed(path.read_text(encoding="utf-8")).texts)
    assert "no results store here" in words
    assert "no results were written" in words
    assert not parsed(path.read_text(encoding="utf-8")).attributes("img")


def test_what_does_not_fit_the_page_is_linked_to_a_page_of_its_own(tmp_path, monkeypatch):
    store = tmp_path / "one.zarr"
    make_store(store, shape_yx=(40, 30), detectors=("sum",))
    many = [dataset(store, dataset_id=f"scan-{i}", name=f"scan_{i}", shape=(1, 40, 30, 1200)) for i in range(4)]
    path = tmp_path / "report.html"
    write_report(run_summary(), many[:1], path)
    details = len(read_details(tmp_path / "pages" / "scan-0.html").encode())
    most = len(path.read_bytes()) + 2 * details
    monkeypatch.setattr(report, "MAX_BYTES", most)
    write_report(run_summary(), many, path)
    assert len(path.read_bytes()) < most
    page = parsed(path.read_text(encoding="utf-8"))
    shown = [a["id"] for a in page.attributes("details") if a.get("class") == "dataset"]
    assert 0 < len(shown) < 4
    names = [(f"#{shown[i]}" if i < len(shown) else f"pages/scan-{i}.html", f"pages/scan-{i}.html") for i in range(4)]
    links = [a["href"] for a in page.attributes("a")]
    assert links == [address for row in names for address in row]
    for link in links:
        if link.startswith("#"):
            continue
        assert "Detection limit" in (tmp_path / link).read_text(encoding="utf-8")


def test_the_page_of_a_dataset_says_what_the_report_says_of_it(store, tmp_path):
    path = tmp_path / "report.html"
    text = write_page(dataset(store, name=HOSTILE), tmp_path / "pages" / "leaf-1a2b3c4d.html")
    assert "<script>document" not in text
    write_report(run_summary(), (dataset(store, name="another name"),), path)
    alone, whole = parsed(text), parsed(path.read_text(encoding="utf-8"))
    assert alone.attributes("img") == whole.attributes("img")[1:]  # the first one is that of the table
    assert "another name" not in read_details(tmp_path / "pages" / "leaf-1a2b3c4d.html")
    assert {a["href"] for a in alone.attributes("a")} == {"../report.html"}


@pytest.mark.parametrize(
    ("pages", "written"), [("all", ["good", "not-judged", "wrong"]), ("failed", ["not-judged", "wrong"]), ("none", [])]
)
def test_only_the_wanted_datasets_have_a_page_and_all_a_row(store, tmp_path, pages, written):
    merit = read_judgement(store).merit
    verdicts = {"good": Verdict.GOOD, "wrong": Verdict.WRONG, "not-judged": Verdict.NOT_JUDGED}
    many = [
        dataset(store, dataset_id=name, name=name, judgement=Judgement(merit=replace(merit, verdict=verdict)))
        for name, verdict in verdicts.items()
    ]
    failed = dataset(None, dataset_id="broken", name="broken", status="failed", reason="no such file")
    write_report(run_summary(), [*many, failed], tmp_path / "report.html", pages=pages)
    assert sorted(path.stem for path in tmp_path.glob("pages/*")) == written
    page = parsed((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert {*verdicts, "broken", "no such file"} <= {text.strip() for text in page.texts}
    assert sum(a.get("class") == "dataset" for a in page.attributes("details")) == len(written)


def test_a_long_table_shows_failures_first(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MAX_ROWS", 3)
    failed = dataset(None, name="broken", status="failed", reason="x")
    path = tmp_path / "report.html"
    many = [dataset(tmp_path / "none.zarr", name=f"scan_{i}") for i in range(4)]
    write_report(run_summary(), [*many, failed], path)
    page = parsed(path.read_text(encoding="utf-8"))
    assert any("5 datasets; the table shows 3" in text for text in page.texts)


@pytest.mark.parametrize("packed_store", [False, True])
def test_what_the_report_knows_of_a_dataset_is_not_read_from_its_store_again(
    store, tmp_path, monkeypatch, packed_store
):
    if packed_store:
        store = shutil.copytree(store, tmp_path / store.name)
        pack_store(store)
    path = tmp_path / "report.html"
    write_report(run_summary(), (dataset(store),), path)
    known = path.read_text(encoding="utf-8")
    judgement = read_judgement(store)
    packed = json.loads(json.dumps(pack_merit(judgement.merit), allow_nan=False))
    assert unpack_merit(packed) == judgement.merit
    monkeypatch.setattr(report, "read_judgement", None)
    kept = Judgement(merit=unpack_merit(packed), flags=judgement.flags)
    write_report(run_summary(), iter([dataset(store, judgement=kept)]), path)
    assert path.read_text(encoding="utf-8") == known


def test_a_merit_without_a_number_is_kept_as_one():
    merit = Merit(
        status=FitStatus.EMPTY, r2=math.nan, r2_expected=1.0, reduced_chi2=math.inf, deviance=math.nan, cpu_s=0.5
    )
    packed = pack_merit(merit)
    assert (packed["status"], packed["r2"], packed["reduced_chi2"], packed["cpu_s"]) == (
        int(merit.status),
        None,
        None,
        0.5,
    )
    assert math.isnan(unpack_merit(packed).r2)


def test_writing_replaces_the_page_at_once_and_leaves_nothing_behind(store, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("earlier")
    write_report(run_summary(), (), path)
    assert "leaf survey" in path.read_text(encoding="utf-8")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_a_page_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"file/report\.html: .*another folder"):
        write_report(run_summary(), (), tmp_path / "file" / "report.html")


def listed(page: str, look: str) -> list[str]:
    """Notes of a page in lists of one class."""
    lists = re.findall(rf'<ul class="{look}">(.*?)</ul>', page, flags=re.DOTALL)
    return [text for one in lists for text in re.findall(r"<li>(.*?)</li>", one)]


def without_kinds(values):
    """JSON values as version 0.1.0 wrote them, the consolidated metadata of the root among them."""
    if isinstance(values, dict):
        return {key: without_kinds(value) for key, value in values.items() if key != "warnings"}
    return [without_kinds(value) for value in values] if isinstance(values, list) else values


def test_facts_and_warnings_are_apart_and_a_store_without_kinds_warns(store, tmp_path):
    kept = (Note("fact", "nothing is missing"), Note("warning", "energy from o.txt"))
    page = write_page(dataset(store, notes=kept), tmp_path / "new.html")
    own = "the width constant is 3.58, from the date of the override file"
    assert set(listed(page, "choices")) == {"nothing is missing", own}
    assert listed(page, "notes") == ["energy from o.txt"]
    old = tmp_path / "old.zarr"
    shutil.copytree(store, old)
    for file in old.rglob("zarr.json"):
        file.write_text(json.dumps(without_kinds(json.loads(file.read_text()))))
    assert set(listed(write_page(dataset(old, notes=()), tmp_path / "old.html"), "notes")) == {own}


def test_the_report_of_a_run_is_written_without_torch():
    """Every run ends with its report, and loading torch takes a second."""
    code = "import sys, hpcxrf.results.report.report; print(sorted({'torch', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
