"""Files of the page: a list that is fixed when the server starts; a browser names one of it, never a path."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

PAGE_PATH: Final = "/page/"
_SHARED: Final = Path(__file__).parents[1] / "results" / "report" / "page"
_OWN: Final = Path(__file__).parent / "page"
_TEMPLATE: Final = "explore.html.j2"
_BOKEH: Final = ("bokeh.min.js", "bokeh-api.min.js", "bokeh-gl.min.js")
_KINDS: Final[Mapping[str, str]] = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


def list_page_files() -> dict[str, Path]:
    """List the scripts and styles of reports, of the explorer, and BokehJS of the installed package, by name."""
    folders = [folder for folder in (_SHARED, _OWN) if folder.is_dir()]
    files = {file.name: file for folder in folders for file in sorted(folder.iterdir()) if file.suffix in _KINDS}
    found = importlib.util.find_spec("bokeh")
    scripts = None if found is None or found.origin is None else Path(found.origin).parent / "server" / "static" / "js"
    return files | {name: scripts / name for name in _BOKEH if scripts is not None and (scripts / name).is_file()}


@dataclass(frozen=True, slots=True)
class PageFiles:
    """Files that are served, by name."""

    files: Mapping[str, Path] = field(default_factory=list_page_files)

    def read(self, name: str) -> tuple[str, bytes] | None:
        """Read a file of the list: its type and content; None: there is none of this name."""
        file = self.files.get(name)
        return None if file is None else (_KINDS[file.suffix], file.read_bytes())

    def render(self, title: str) -> str:
        """Write the page itself."""
        from hpcxrf.results.report.page.look import load_templates

        scripts = [name for name in self.files if name.endswith(".js")]
        styles = [name for name in self.files if name.endswith(".css")]
        return load_templates(_OWN).get_template(_TEMPLATE).render(title=title, scripts=scripts, styles=styles)
