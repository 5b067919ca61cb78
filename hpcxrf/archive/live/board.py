"""What the page of a run that is watched shows: a page that is written once, and small files that it asks for again.

The page runs from a file: it may load nothing but scripts, so that what it shows comes as scripts, too. `live/tick.js`
changes with `live/data.js`, and now and then without; `live/status.json` has the same for programs.
"""

import datetime
import json
import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from markupsafe import Markup

from hpcxrf.archive.live.events import LiveEvent
from hpcxrf.config.untrusted import read_json_object, show_name
from hpcxrf.errors import OutputError
from hpcxrf.results.report.page.data import pack_json
from hpcxrf.results.report.page.head import read_head
from hpcxrf.results.report.page.look import allow_scripts, load_page_look, load_templates
from hpcxrf.results.store.storage import replace_file
from hpcxrf.store.files import output_faults
from hpcxrf.store.rundir import RunDir

PAGE: Final = "live.html"
FOLDER: Final = "live"
STATUS: Final = "status.json"
MOST_ROWS: Final = 200
"""Scans that the page shows, the latest ones."""
MOST_GROWING: Final = 50
BEAT_S: Final = 5.0
"""Seconds after which the page hears that the watching goes on."""
_HERE: Final = Path(__file__).parent / "page"


@dataclass(slots=True, kw_only=True)
class Board:
    """State of the page."""

    run: RunDir
    folder: str
    """The folder that is watched."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Scans that ended, the latest first."""
    growing: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Scans that are not complete, by path."""
    at_work: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Scans that are computed, by dataset_id."""
    counts: Counter[str] = field(default_factory=Counter)
    """Scans of this call, by kind of event."""
    remarks: list[dict[str, str]] = field(default_factory=list)
    """The latest sentences, the latest first."""
    state: str = "watching"
    changed: bool = True
    version: int = 0
    beat: int = 0
    beat_s: float = 0.0
    began: str = field(default_factory=lambda: f"{time.time_ns():x}")

    def take(self, event: LiveEvent) -> None:
        """Take note of something that happened."""
        self.changed = True
        event = replace(event, values=_finite(event.values))
        self.counts[event.kind] += 1
        if event.kind in {"growing", "view"}:
            self._take_growing(event)
        elif event.kind == "taken":
            self.growing.pop(event.path, None)
            self.at_work[event.dataset_id] = {"name": show_name(event.name), "since": _time_of_day()}
        elif event.kind in {"done", "failed"}:
            self._take_ended(event)
        elif event.kind == "ended":
            self.state = "ended"
        if event.kind in {"left out", "moved", "gone"}:
            self.growing.pop(event.path, None)
        if event.text and event.kind not in {"growing", "view", "done", "failed"}:
            text = (
                f"{show_name(event.name)}: {show_name(event.text)}" if event.kind != "folder" else show_name(event.text)
            )
            self.remarks = [{"time": _time_of_day(), "text": text}, *self.remarks][:MOST_ROWS]

    def _take_growing(self, event: LiveEvent) -> None:
        if event.kind == "view" and event.path not in self.growing:
            return
        entry = self.growing.setdefault(event.path, {"name": show_name(event.name)})
        if event.kind == "growing":
            entry |= {**event.values, "reason": show_name(event.text)}
        else:
            entry["view"] = {**event.values, "time": _time_of_day(), "reason": show_name(event.text)}

    def _take_ended(self, event: LiveEvent) -> None:
        self.at_work.pop(event.dataset_id, None)
        self.rows = [row for row in self.rows if row["dataset_id"] != event.dataset_id]
        page = self.run.page_file(event.dataset_id)
        has_page = event.kind == "done" and page.is_file()
        row = {
            "dataset_id": event.dataset_id,
            "name": show_name(event.name),
            "state": event.kind,
            "time": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "reason": show_name(event.text),
            "page": f"pages/{event.dataset_id}.html" if has_page else "",
            "thumbnail": read_head(page).thumbnail if has_page else "",
            **event.values,
        }
        self.rows = [row, *self.rows][:MOST_ROWS]

    def restore(self) -> None:
        """Show what an earlier call showed; a damaged file of it is as good as none: the report has all scans."""
        file = self.run.path / FOLDER / STATUS
        if not file.is_file():
            return
        try:
            stored = read_json_object(file, OutputError, remedy="remove it")
        except OutputError:
            return
        rows = stored.get("scans")
        for row in rows if isinstance(rows, list) else ():
            if isinstance(row, dict) and isinstance(row.get("dataset_id"), str) and isinstance(row.get("name"), str):
                self.rows.append(row)

    def write_page(self) -> None:
        """Write the page itself.

        Raises:
            OutputError: the run directory cannot be written.
        """
        look = load_page_look(str(_HERE / "live.js"))
        text = (
            load_templates(_HERE)
            .get_template("live.html.j2")
            .render(title=self.run.path.name, policy=allow_scripts(has_side_files=True), **look)
        )
        with output_faults(self.run.path, bytes_needed=0):
            (self.run.path / FOLDER).mkdir(mode=0o700, exist_ok=True)
        self._put(self.run.path / PAGE, text)

    def write(self) -> None:
        """Write what the page asks for, where it changed, and now and then that the watching goes on.

        Raises:
            OutputError: the run directory cannot be written.
        """
        folder, now_s = self.run.path / FOLDER, time.monotonic()
        if self.changed:
            self.changed = False
            self.version += 1
            content = self.content()
            self._put(folder / STATUS, json.dumps(content, indent=1) + "\n")
            self._put(folder / "data.js", f'hpcxrf.live.receive("data", {pack_json(content)});\n')
        elif now_s - self.beat_s < BEAT_S:
            return
        self.beat, self.beat_s = self.beat + 1, now_s
        tick = {"version": self._name_version(), "beat": self.beat, "state": self.state}
        self._put(folder / "tick.js", f'hpcxrf.live.receive("tick", {pack_json(tick)});\n')

    def _name_version(self) -> str:
        # Of another process another one, whatever its count.
        return f"{self.began}-{self.version}"

    def content(self) -> Mapping[str, Any]:
        """JSON values of all that is shown."""
        return {
            "version": self._name_version(),
            "state": self.state,
            "folder": show_name(self.folder),
            "time": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "counts": {
                "done": self.counts["done"],
                "failed": self.counts["failed"],
                "before": self.counts["found before"],
                "at_work": len(self.at_work),
                "growing": len(self.growing),
            },
            "growing": list(self.growing.values())[-MOST_GROWING:][::-1],
            "at_work": list(self.at_work.values()),
            "scans": self.rows,
            "remarks": self.remarks[:20],
            "has_report": self.run.report_file.is_file(),
        }

    def _put(self, path: Path, text: str | Markup) -> None:
        with replace_file(path) as partial:
            partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def _time_of_day() -> str:
    return datetime.datetime.now().astimezone().strftime("%H:%M:%S")


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has neither NaN nor infinities."""
    return {name: None if isinstance(one, float) and not math.isfinite(one) else one for name, one in values.items()}
