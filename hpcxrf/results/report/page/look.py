"""Parts that all pages share: templates that escape, one style, scripts that a policy names by their hash."""

import base64
import functools
import hashlib
from pathlib import Path
from typing import Final

import jinja2
from markupsafe import Markup

from hpcxrf.results.report import views
from hpcxrf.results.report.colours import NOT_FITTED, VIRIDIS, viridis_gradient
from hpcxrf.results.report.page.data import pack_json

TABLES: Final = "tables.js"
"""Tables that sort, and the switch of the counts axis."""
DRAWING: Final = (TABLES, "spectrum.js", "maps.js")
"""Scripts of a page with spectra and maps."""


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
    )
    return environment


@functools.cache
def load_page_look(*scripts: str) -> dict[str, object]:
    """Style, script and the script's hash, which the page's policy lets run and nothing else.

    Args:
        scripts: files of this package, one after the other; those of `DRAWING` for spectra and maps.
    """
    script = "\n".join(map(_read_text, scripts or (TABLES,)))
    colours = f":root {{ --map-scale: {viridis_gradient()}; --not-fitted: {NOT_FITTED}; }}\n"
    return {
        "style": Markup(colours + _read_text("page.css")),  # noqa: S704  a file of this package
        "script": Markup(script),  # noqa: S704  a file of this package
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "map_colours": pack_json(VIRIDIS.hex()),
    }


def _read_text(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
