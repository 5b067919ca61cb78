"""What every page has in common: templates that escape, one style, pictures inside the file."""

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


def picture(figure: Figure, alt: str, limit_bytes: int) -> Picture:
    """The best version of a figure that takes at most `limit_bytes` in the page, or the smallest."""
    data = b""
    for dpi, quality in _PICTURE_STEPS:
        data = plots.encode(figure, dpi=dpi, quality=quality)
        if len(data) * 4 // 3 <= limit_bytes:
            break
    return Picture(data=f"data:image/webp;base64,{base64.b64encode(data).decode()}", alt=alt)


def template_environment() -> jinja2.Environment:
    """Templates of this package: every text is escaped, every name must be known."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=views.number,
        fixed=views.fixed,
        percent=views.percent,
        duration=views.duration,
        to_sigma=views.to_sigma,
        status_text=views.status_text,
    )
    return environment


def page_look() -> dict[str, object]:
    """Style, script and the script's hash, which the page's policy lets run and nothing else."""
    script = _text("report.js.j2")
    return {
        "style": Markup(_text("report.css.j2")),  # noqa: S704  a file of this package
        "script": Markup(script),  # noqa: S704  a file of this package
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }


def _text(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
