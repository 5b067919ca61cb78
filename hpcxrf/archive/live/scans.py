"""Which files make up a scan, and whether they are complete."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from hpcxrf.archive.live.files import Files, WatchedFile
from hpcxrf.errors import InputFileError
from hpcxrf.formats.progress import FileProgress, read_progress

_MEMBER: Final = re.compile(r"^(?P<stem>.+)\.h5(?P<number>\d+)$")
_COMPANION_END: Final = "_0.h5"


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """How long a file that lands is waited for; all times by this process's own clock."""

    poll_s: float = 1.0
    """Seconds from one look to the next."""
    settled_polls: int = 3
    """Looks in a row that find a file as it was, before one whose format does not say so is taken for complete."""
    others_s: float = 30.0
    """Seconds without a change that a scan waits for further files that it may have: other detectors, its MDA file."""
    broken_s: float = 15.0
    """Seconds without a change before a file that cannot be opened is called broken."""
    patience_s: float = 600.0
    """Seconds without a change before a file that its format calls incomplete is taken as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do with a scan now."""

    act: Literal["wait", "take", "take as it is"]
    """`take as it is`: it is not complete, and did not change for long."""
    reason: str = ""
    """What is missing, for people; empty where nothing is known to be."""
    rows_done: int | None = None
    rows: int | None = None
    by_rows: bool = False
    """Whether its complete rows can be looked at meanwhile."""
    growing: bool = False
    """Whether its format says, or its name lets expect, that something is still to come."""
    unchanged: int = 0
    """Looks in a row that found all its files as they were."""
    resting_s: float = 0.0
    """Seconds since the last change."""


def name_lead(path: str, files: Files) -> str:
    """The file that stands for the scan that a file belongs to: of `X.h50` .. `X.h5N` the lowest that is there."""
    folder, name = os.path.split(path)
    return os.path.join(folder, _list_members(name, files.names.get(folder, set()))[0])  # noqa: PTH118


def list_files(lead: str, files: Files) -> tuple[str, ...]:
    """All files that are there of the scan of a leading file, that one first; without the companion of a fly scan."""
    folder, name = os.path.split(lead)
    return tuple(os.path.join(folder, one) for one in _list_members(name, files.names.get(folder, set())))  # noqa: PTH118


def _list_members(name: str, names: set[str]) -> list[str]:
    match = _MEMBER.match(name)
    if match is None:
        return [name]
    stem = match["stem"]
    # Detectors are counted from 0 without gaps, or nearly so: a hundred thousand names need not be looked through.
    numbers = range(max(32, int(match["number"]) + 1) if len(match["number"]) < 4 else 32)
    found = {f"{stem}.h5{number}" for number in numbers} & names
    return sorted(found | {name}, key=lambda one: int(one.rpartition(".h5")[2]))


def list_neighbours(lead: str, files: Files) -> set[str]:
    """Files that decide whether one is a scan of its own: its detectors, and MDA files that it may belong to."""
    folder, name = os.path.split(lead)
    found = {lead, *list_files(lead, files)}
    if name.endswith(".h5"):
        members = {f"{name}{number}" for number in range(10)} & files.names.get(folder, set())
        found |= {os.path.join(folder, one) for one in members}  # noqa: PTH118
    if name.endswith(_COMPANION_END):
        stems = {name[: match.start()] for match in re.finditer("_", name)}
        for other in _list_related(folder, files):
            wanted = {f"{stem}{suffix}" for stem in stems for suffix in (".mda", ".MDA")}
            found |= {os.path.join(other, one) for one in wanted & files.names[other]}  # noqa: PTH118
    return found


def _list_related(folder: str, files: Files) -> Iterator[str]:
    """Folders in which an MDA file names its companion in this one."""
    above = os.path.split(folder)[0]
    return (other for other in files.names if other in {folder, above} or os.path.split(other)[0] == above)


def is_member(path: str) -> bool:
    """Whether the name is that of one detector of several, `X.h50`."""
    return _MEMBER.match(os.path.split(path)[1]) is not None


def count_members(parts: Sequence[str]) -> int:
    """Detectors that a scan has by the highest number among its files: one that is not there may be still to come."""
    return max(int(part.rpartition(".h5")[2]) for part in parts) + 1


def may_be_companion(lead: str) -> bool:
    """Whether the name is that of the spectra of a fly scan, whose MDA file may be still to come."""
    return lead.endswith(_COMPANION_END)


def decide(
    lead: str,
    parts: Sequence[str],
    watched: Mapping[str, WatchedFile],
    now_s: float,
    waiting: Waiting,
    *,
    expected: int,
) -> Decision:
    """Decide whether a scan is to be taken now.

    Args:
        lead: its leading file.
        parts: all its files that are there.
        watched: those that may still change; what is not among them has rested.
        now_s: monotonic time.
        waiting: how long is waited.
        expected: detectors that the scans beside it have.
    """
    progress = _read_least(parts)
    reason, growing = progress.reason, progress.state == "growing"
    if progress.elsewhere and not growing:
        companions = _find_companions(lead)
        if companions:
            parts = [*parts, *companions]
            progress = _read_least(parts)
            reason, growing = progress.reason, progress.state == "growing"
        else:
            reason, growing = "the file with its spectra (flyXRF.h5) is not there yet", True
    moving = [watched[one] for one in parts if one in watched]
    unchanged = min((one.unchanged for one in moving), default=waiting.settled_polls)
    resting_s = now_s - max((one.changed_s for one in moving), default=now_s - waiting.patience_s)
    if not growing and len(parts) < expected and resting_s < waiting.others_s:
        growing, reason = True, f"{len(parts)} of {expected} detectors are there"
    if not growing and may_be_companion(lead) and resting_s < waiting.others_s:
        growing, reason = True, "its MDA file may be still to come"
    enough = unchanged >= (1 if progress.state == "complete" else waiting.settled_polls)
    act: Literal["wait", "take", "take as it is"] = "wait"
    if not growing and enough:
        act = "take"
    elif growing and enough and resting_s >= waiting.patience_s:
        act = "take as it is"
    return Decision(
        act=act,
        reason=reason,
        rows_done=progress.rows_done,
        rows=progress.rows,
        by_rows=progress.by_rows,
        growing=growing,
        unchanged=unchanged,
        resting_s=resting_s,
    )


def _find_companions(lead: str) -> list[str]:
    """Files with the spectra of a fly scan; one that cannot be read yet is none."""
    from hpcxrf.formats.mda import find_companions

    try:
        return [str(one) for one in find_companions(Path(lead))[:1]]
    except (InputFileError, OSError):
        return []


def _read_least(parts: Sequence[str]) -> FileProgress:
    """That of the file which is least far."""
    found = [read_progress(Path(one)) for one in parts]
    order = ("growing", "not said", "complete")
    return min(found, key=lambda one: order.index(one.state))
