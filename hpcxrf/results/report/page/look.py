"""Parts that all pages share: templates that escape, one style, scripts that a policy names by their hash."""

import base64
import functools
import hashlib
from pathlib import Path
from typing import Final

import jinja2
from markupsafe import Markup

from hpcxrf.results.names import shown_name
from hpcxrf.results.report import views
from hpcxrf.results.report.archive.page import describe_shifts
from hpcxrf.results.report.colours import NOT_FITTED, list_colour_maps, viridis_gradient
from hpcxrf.results.report.page.data import pack_json

TABLES: Final = "tables.js"
"""Tables that sort, and the switch of the counts axis."""
VIEWING: Final = (
    "dom.js",
    "colours.js",
    "view.js",
    "select.js",
    "scan.js",
    "picture.js",
    "grid.js",
    "tools_controls.js",
    "tools_readout.js",
    "tools_save.js",
    "tools_scatter.js",
    "tools_profile.js",
    "tools_keys.js",
    "viewer.js",
    "axes.js",
    "spectrum.js",
)
"""Scripts of everything that draws maps and spectra, in the order in which a page runs them."""
DRAWING: Final = (TABLES, *VIEWING, "page.js")
"""Scripts of the page of a dataset."""
REPORTING: Final = (*DRAWING, "archive.js")
"""Scripts of a report."""
STYLES: Final = ("page.css", "viewer.css", "archive.css")
"""Styles of a page, one after the other."""


@functools.cache
def load_templates(*folders: Path) -> jinja2.Environment:
    """Templates of this package and of further folders: every text is escaped, every name must be known."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([Path(__file__).parent, *folders]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=views.format_number,
        fixed=views.format_fixed,
        percent=views.format_percent,
        duration=views.format_duration,
        to_sigma=views.format_to_sigma,
        status_text=views.format_status,
        shifts=describe_shifts,
        shown=shown_name,
    )
    return environment


@functools.cache
def load_page_look(*scripts: str) -> dict[str, object]:
    """Style, script and the script's hash, which the page's policy lets run and nothing else.

    Args:
        scripts: files of this package, one after the other; those of `DRAWING` for spectra and maps.
    """
    script = "\n".join(map(_read_text, scripts or (TABLES,)))
    return {
        "style": Markup(write_colours() + "".join(map(_read_text, STYLES))),  # noqa: S704  a file of this package
        "script": Markup(script),  # noqa: S704  a file of this package
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "map_colours": pack_json(list_colour_maps()),
    }


def write_colours() -> str:
    """Style that gives the colours of maps names, which the files of style use."""
    return f":root {{ --map-scale: {viridis_gradient()}; --not-fitted: {NOT_FITTED}; }}\n"


def allow_scripts(*, has_side_files: bool) -> str:
    """What a page's policy says of scripts beside the hash of its own.

    Args:
        has_side_files: its script loads side files: the trust in it passes on to the scripts that it creates, from a
            file as over HTTP, and to no script that stands in the page.
    """
    return " 'strict-dynamic'" if has_side_files else ""


def _read_text(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
