"""Files of the page: a list that is fixed when the server starts; a browser names one of it, never a path."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

PAGE_PATH: Final = "/page/"
_SHARED: Final = Path(__file__).parents[1] / "results" / "report" / "page"
_OWN: Final = Path(__file__).parent / "page"
_TEMPLATE: Final = "explore.html.j2"
_SCRIPTS: Final = (
    "client.js",
    "provider.js",
    "fit_panel.js",
    "elements_panel.js",
    "history_panel.js",
    "write_panel.js",
    "run_list.js",
    "run_follow.js",
    "run_form.js",
    "runs.js",
    "explore.js",
)
"""Scripts of the explorer, which run after those that it shares with reports."""
_STYLES: Final = ("explore.css", "runs.css")
_KINDS: Final[Mapping[str, str]] = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}


def list_page_files() -> dict[str, Path]:
    """List the scripts and styles of reports and of the explorer by name, in the order in which a page has them."""
    from hpcxrf.results.report.page.look import STYLES, TABLES, VIEWING

    shared = {name: _SHARED / name for name in (*STYLES, TABLES, *VIEWING)}
    return shared | {name: _OWN / name for name in (*_STYLES, *_SCRIPTS)}


@dataclass(frozen=True, slots=True)
class PageFiles:
    """Files that are served, by name."""

    files: Mapping[str, Path] = field(default_factory=list_page_files)

    def read(self, name: str) -> tuple[str, bytes] | None:
        """Read a file of the list: its type and content; None: there is none of this name."""
        file = self.files.get(name)
        return None if file is None else (_KINDS[file.suffix], file.read_bytes())

    def render(self, title: str, begin: str = "results") -> str:
        """Write the page itself.

        Args:
            title: name of what was given.
            begin: view with which it begins: `maps`, `runs`, or `results` of a store that has no run.
        """
        from hpcxrf.results.report.colours import list_colour_maps
        from hpcxrf.results.report.page.data import pack_json
        from hpcxrf.results.report.page.look import load_templates, write_colours

        return (
            load_templates(_OWN)
            .get_template(_TEMPLATE)
            .render(
                title=title,
                begin=begin,
                scripts=[name for name in self.files if name.endswith(".js")],
                styles=[name for name in self.files if name.endswith(".css")],
                colours=write_colours(),
                map_colours=pack_json(list_colour_maps()),
            )
        )
