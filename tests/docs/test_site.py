"""The built site: links, pictures and notebooks. `make docs` builds it and names it in HPCXRF_SITE."""

import os
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from hpcxrf import __version__

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted(path.stem for path in (ROOT / "docs" / "notebooks").glob("*.ipynb"))


class Page(HTMLParser):
    """What a page links to, loads, and can be linked at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids |= {value for name in ("id", "name") if (value := given.get(name))}
        if tag == "a" and given.get("href"):
            self.links.append(str(given["href"]))
        if tag in {"img", "script", "source"} and given.get("src"):
            self.loads.append(str(given["src"]))
        if tag == "link" and given.get("href") and "stylesheet" in str(given.get("rel")):
            self.loads.append(str(given["href"]))


@pytest.fixture(scope="module")
def site() -> Path:
    named = os.environ.get("HPCXRF_SITE")
    if named is None:
        pytest.skip("the site was not built; `make docs` builds it and runs this")
    return (ROOT / named).resolve()


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    # The theme leaves templates of its own among the static files.
    built = [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]
    return {path: Page(path.read_text(encoding="utf-8")) for path in built}


def is_outside(target: str) -> bool:
    return target.startswith(("https://", "http://", "mailto:", "data:", "javascript:"))


def test_every_page_of_the_docs_was_built(site):
    for source in (ROOT / "docs").rglob("*.md"):
        assert (site / source.relative_to(ROOT / "docs").with_suffix(".html")).is_file(), source


def test_every_link_inside_leads_to_a_page_and_a_place_on_it(pages):
    lost = []
    for path, page in pages.items():
        for link in filter(lambda link: not is_outside(link), page.links):
            name, _, place = unquote(link).partition("#")
            target = (path.parent / name).resolve() if name else path
            if not target.exists():
                lost.append(f"{path.name}: {link}")
            elif place and target in pages and place not in pages[target].ids:
                lost.append(f"{path.name}: {link}: no such place")
    assert lost == []


def test_pages_load_nothing_from_elsewhere_and_lack_nothing(pages):
    for path, page in pages.items():
        for target in page.loads:
            assert not target.startswith(("http", "//")), (path, target)
            if not is_outside(target):
                assert (path.parent / unquote(target).partition("?")[0]).resolve().is_file(), (path, target)


def test_every_script_of_the_gallery_has_made_its_picture(site):
    for script in sorted((ROOT / "docs" / "gallery").glob("plot_*.py")):
        picture = site / "_images" / f"sphx_glr_{script.stem}_001.png"
        assert picture.stat().st_size > 5000, script.name


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_notebook_was_run(site, name):
    if name == "archive-to-areal-density" and not (ROOT.parent / "shared" / "data").is_dir():
        pytest.skip("measured data not found: put the shared folder beside the project")
    text = (site / "notebooks" / f"{name}.html").read_text(encoding="utf-8")
    outputs = re.findall(r'class="cell_output[^"]*"', text)
    assert len(outputs) >= 3
    assert "Traceback" not in text


def test_the_site_is_that_of_this_version(site):
    assert f"hpcxrf {__version__}" in (site / "index.html").read_text(encoding="utf-8")


@pytest.mark.browser
def test_a_page_opens_without_a_fault(site, open_page):
    page = open_page((site / "start.html").as_uri())
    assert page.title().startswith("Start in five minutes")
    assert page.locator("nav").count() > 0
