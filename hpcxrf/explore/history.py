"""The fits that a user keeps: one JSON line each in `<run>/explore/history.jsonl`, nothing else of the run changes.

A line says of which dataset it is. Fits are never removed: taking one back is a line of its own. A last line that a
kill left unfinished is no fit.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from hpcxrf.config.untrusted import read_regular
from hpcxrf.errors import ConfigError, OutputError
from hpcxrf.store.files import MAX_JOURNAL_BYTES, append_shared_line, output_faults

FOLDER: Final = "explore"
FILE: Final = "history.jsonl"
_FIT: Final = "fit"
_TAKEN_BACK: Final = "taken back"
_OWNER_ONLY: Final = 0o700
_SHOWN_PARAMETERS: Final = 6

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """A line of the file without the spectrum of its fit: of all that would be kept in memory that is nearly all."""

    record: Json
    start: int
    """Where it begins in the file, bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The kept fits of one dataset of a run."""

    run_dir: Path
    dataset_id: str
    _read: dict[tuple[int, int], list[_Line]] = field(default_factory=dict, repr=False, compare=False)
    """What was read last, by size and time of the file."""

    @property
    def file(self) -> Path:
        """The file of all datasets of the run."""
        return self.run_dir / FOLDER / FILE

    def append(self, fit: Mapping[str, Any]) -> None:
        """Keep a fit, durably.

        Raises:
            OutputError: the run directory cannot be written.
        """
        self._append({"event": _FIT, "dataset_id": self.dataset_id, "fit": dict(fit)})

    def summaries(self) -> list[Json]:
        """All kept fits, oldest first, without their spectra; those taken back say so.

        Raises:
            OutputError: the file is damaged.
        """
        lines = [line.record for line in self._lines() if line.record["dataset_id"] == self.dataset_id]
        gone = {line["id"] for line in lines if line["event"] == _TAKEN_BACK}
        kept = (line["fit"] for line in lines if line["event"] == _FIT)
        return [{**fit, "taken_back": fit["id"] in gone} for fit in kept]

    def one(self, fit_id: str) -> Json | None:
        """A kept fit with its spectrum; None: there is none of this id.

        Raises:
            OutputError: the file is damaged.
        """
        kept = next((fit for fit in self.summaries() if fit["id"] == fit_id), None)
        if kept is None:
            return None
        start = next(line.start for line in self._lines() if line.record.get("fit", {}).get("id") == fit_id)
        with self.file.open("rb") as file:
            file.seek(start)
            whole = json.loads(file.readline())
        return {**whole["fit"], "taken_back": kept["taken_back"]}

    def take_back(self) -> Json | None:
        """Mark the last kept fit as taken back.

        Returns:
            The fit before it that is not taken back; None: there is none.

        Raises:
            ConfigError: no fit is left to take back.
            OutputError: the file is damaged, or cannot be written.
        """
        left = [fit for fit in self.summaries() if not fit["taken_back"]]
        if not left:
            raise ConfigError("no kept fit is left to take back; keep one first")
        self._append({"event": _TAKEN_BACK, "dataset_id": self.dataset_id, "id": left[-1]["id"], "at": tell_time()})
        return self.one(left[-2]["id"]) if len(left) > 1 else None

    def _append(self, record: Mapping[str, Any]) -> None:
        with output_faults(self.file.parent, bytes_needed=0):
            self.file.parent.mkdir(mode=_OWNER_ONLY, exist_ok=True)
        append_shared_line(self.file, record)

    def _lines(self) -> list[_Line]:
        try:
            found = self.file.stat()
        except FileNotFoundError:
            return []
        key = (found.st_size, found.st_mtime_ns)
        lines = self._read.get(key)
        if lines is None:
            lines = _read_lines(self.file)
            # Two threads may come here at once: each has its own lines, and either's are kept.
            self._read.clear()
            self._read[key] = lines
        return lines


def _read_lines(file: Path) -> list[_Line]:
    content = read_regular(file, OutputError, largest=MAX_JOURNAL_BYTES)
    whole = content[: content.rfind(b"\n") + 1].split(b"\n")[:-1]
    lines, start = [], 0
    for number, text in enumerate(whole, start=1):
        record = _read_line(file, number, text)
        record.get("fit", {}).pop("spectrum", None)
        lines.append(_Line(record=record, start=start))
        start += len(text) + 1
    return lines


def _read_line(file: Path, number: int, line: bytes) -> Json:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or not _is_sound(record):
        raise OutputError(f"{file}, line {number}: not a line of a history of fits; remove the line, or the file")
    return record


def _is_sound(record: Mapping[str, Any]) -> bool:
    """Whether a line has what its readers count on."""
    if not isinstance(record.get("dataset_id"), str):
        return False
    if record.get("event") == _TAKEN_BACK:
        return isinstance(record.get("id"), str)
    fit = record.get("fit")
    return record.get("event") == _FIT and isinstance(fit, dict) and isinstance(fit.get("id"), str)


def tell_time() -> str:
    """Now, as ISO 8601 with its zone."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def describe_changes(fit: Mapping[str, Any], parent: Mapping[str, Any]) -> list[str]:
    """Say what differs between a fit and the one that it began from, sentence by sentence.

    Args:
        fit: a fit as the page has it.
        parent: the fit before, or that of the run.
    """
    said = [*_describe_origin(fit, parent), *_describe_elements(fit, parent), *_describe_parameters(fit, parent)]
    if fit.get("focus"):
        said.append(f"only {', '.join(fit['focus'])} fitted, in their energy window")
    elif fit.get("kind") == "amplitudes":
        said.append("amplitudes alone fitted, at this theta")
    return [*said, *_describe_figures(fit, parent)]


def _describe_origin(fit: Mapping[str, Any], parent: Mapping[str, Any]) -> list[str]:
    said = []
    if fit["detector"] != parent["detector"]:
        said.append(f"detector {fit['detector']} instead of {parent['detector']}")
    if fit.get("selection") != parent.get("selection"):
        pixels = fit.get("n_pixels")
        said.append("other pixels" if pixels is None else f"other pixels: {pixels}")
    return said


def _describe_elements(fit: Mapping[str, Any], parent: Mapping[str, Any]) -> list[str]:
    now, before = list(fit["elements"]), list(parent["elements"])
    added, removed = [n for n in now if n not in before], [n for n in before if n not in now]
    return [
        f"{', '.join(names)} {word}" for names, word in ((added, "added to the list"), (removed, "removed")) if names
    ]


def _describe_parameters(fit: Mapping[str, Any], parent: Mapping[str, Any]) -> list[str]:
    before = {row["name"]: row for row in parent["parameters"]}
    held, freed, bounded, stuck = [], [], [], []
    for row in fit["parameters"]:
        old = before.get(row["name"])
        if old is None:
            continue
        if not row["free"] and (old["free"] or not _is_same(row["value"], old["value"])):
            unit = "" if row["unit"] == "1" else f" {row['unit']}"
            held.append(f"{row['name']} at {_show(row['value'])}{unit}")
        if row["free"] and not old["free"]:
            freed.append(row["name"])
        if (row["lower"], row["upper"]) != (old["lower"], old["upper"]) and row["free"]:
            bounded.append(f"{row['name']} {_show(row['lower'])} to {_show(row['upper'])}")
        if row["at_bound"] and not old["at_bound"]:
            stuck.append(row["name"])
    words = (("held: ", held), ("fitted as well: ", freed), ("bounds: ", bounded), ("now at a bound: ", stuck))
    return [f"{word}{_shorten(names)}" for word, names in words if names]


def _is_same(one: float | None, other: float | None) -> bool:
    """Whether two values are the same but for rounding, as in the mean of several detectors."""
    return one == other or (one is not None and other is not None and math.isclose(one, other, rel_tol=1e-9))


def _shorten(names: list[str]) -> str:
    more = len(names) - _SHOWN_PARAMETERS
    return ", ".join(names[:_SHOWN_PARAMETERS]) + (f" and {more} more" if more > 0 else "")


def _describe_figures(fit: Mapping[str, Any], parent: Mapping[str, Any]) -> list[str]:
    said = []
    for key, word, digits in (("r2", "R2", 5), ("deviance", "deviance", 3)):
        now, old = fit.get(key), parent.get(key)
        if now is not None and old is not None and round(now, digits) != round(old, digits):
            said.append(f"{word} {now:.{digits}f}, before {old:.{digits}f}")
    if fit.get("verdict") != parent.get("verdict"):
        said.append(f"verdict {fit.get('verdict')}, before {parent.get('verdict')}")
    return said


def _show(value: float | None) -> str:
    return "unknown" if value is None or not math.isfinite(value) else f"{value:.6g}"
