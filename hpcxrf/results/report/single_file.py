"""A report as one file: what its side files hold is put into the page."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from markupsafe import escape

from hpcxrf.results.report.page.data import pack_json
from hpcxrf.results.store.storage import replace_file

SINGLE_FILE: Final = "report-single-file.html"
"""Name of the page beside the report."""
_RECEIVE: Final = "hpcxrf.scan.receive("
_NAME: Final = re.compile(r'"file":"([\w.-]+\.files/\w+\.js)"')
_BLOCK: Final = '<script type="application/json" id="map-colours">'


def write_single_file(report: Path, pages: Path) -> Path:
    """Write a report again as one file, which may be sent to others; the report itself stays as it is.

    Args:
        report: page of a run.
        pages: folder of the datasets' own pages.

    Returns:
        The new page, beside the report.

    Raises:
        OSError: a file cannot be read.
        OutputError: the page cannot be written.
    """
    text = report.read_text(encoding="utf-8")
    blocks = "".join(
        f'<script type="application/json" class="side" data-name="{escape(name)}">{pack_json(blocks)}</script>\n'
        for name, blocks in _read_side_files(pages, sorted(set(_NAME.findall(text))))
    )
    path = report.with_name(SINGLE_FILE)
    with replace_file(path) as partial:
        partial.write_text(text.replace(_BLOCK, blocks + _BLOCK, 1), encoding="utf-8", errors="backslashreplace")
    return path


def _read_side_files(pages: Path, names: Sequence[str]) -> Iterator[tuple[str, object]]:
    """Name and blocks of the side files of these names; one that is gone is left out, and the page says so."""
    for name in names:
        file = pages / name
        if file.is_file():
            call = file.read_text(encoding="utf-8").strip().removeprefix(_RECEIVE).removesuffix(");")
            yield name, json.loads(f"[{call}]")[1]
