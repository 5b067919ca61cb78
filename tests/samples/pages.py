"""Pages as tests look at them: parsed, and opened by a browser."""

import subprocess
from html.parser import HTMLParser
from pathlib import Path

from hpcxrf.results.report.page.dataset import DatasetSummary, write_dataset_page
from hpcxrf.results.report.report import RunSummary
from hpcxrf.results.store.maps import open_results

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=8000",
)


class Page(HTMLParser):
    """Tags with their attributes, and the text of the page."""

    def __init__(self):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if self.open[-1:] not in (["script"], ["style"]):
            self.texts.append(data)

    def attributes(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def parsed(text: str) -> Page:
    page = Page()
    page.feed(text)
    return page


def programs(page: Page) -> list[dict[str, str]]:
    """Scripts that a browser would run: blocks of data are none."""
    return [a for a in page.attributes("script") if a.get("type") != "application/json"]


def run_summary(**changes) -> RunSummary:
    facts = {
        "title": "leaf survey",
        "versions": {"hpcxrf": "0.1.0", "torch": "2.13.0"},
        "configuration": "detectors: each\n",
        "device": "2 CPU cores",
        "started": "2026-11-20T10:00:00+00:00",
        "finished": "2026-11-20T10:01:40+00:00",
        "seconds": 100.0,
        **changes,
    }
    return RunSummary(**facts)


def browse(chromium: str, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [chromium, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


def write_page(store: Path) -> Path:
    """Write the page of a results store beside it."""
    path = store.parent / "scan.html"
    summary = DatasetSummary(dataset_id="scan", name="scan", source="scan.h5", status="done", results_path=store)
    with open_results(store) as tree:
        write_dataset_page(summary, tree, path)
    return path
