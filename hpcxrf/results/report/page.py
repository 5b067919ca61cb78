"""Parts that all pages share: templates that escape, one style, pictures inside the file."""

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from hpcxrf.results.report import plots, views

# (dpi, quality) of the pictures, best first; the first that fits its share of the page is taken.
_PICTURE_STEPS: Final = ((120.0, 86), (95.0, 78), (70.0, 65))


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture inside the page."""

    data: str
    """data: address."""
    alt: str


def encode_picture(figure: Figure, alt: str, limit_bytes: int) -> Picture:
    """The best version of a figure that takes at most `limit_bytes` in the page, or the smallest."""
    data = b""
    for dpi, quality in _PICTURE_STEPS:
        data = plots.encode(figure, dpi=dpi, quality=quality)
        if len(data) * 4 // 3 <= limit_bytes:
            break
    return Picture(data=f"data:image/webp;base64,{base64.b64encode(data).decode()}", alt=alt)


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


def load_page_look() -> dict[str, object]:
    """Style, script and the script's hash, which the page's policy lets run and nothing else."""
    script = _read_text("report.js.j2")
    return {
        "style": Markup(_read_text("report.css.j2")),  # noqa: S704  a file of this package
        "script": Markup(script),  # noqa: S704  a file of this package
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }


def _read_text(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
