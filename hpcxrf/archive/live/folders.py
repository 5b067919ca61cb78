"""Folders visited in turns by listing them: notifications of the kernel are deaf on NFS, Lustre and GPFS.

A poll takes a bounded number of folders and entries: those in which something goes on are visited in every poll, all
others in turn, and a folder with more entries than a poll takes goes on in the next one.
"""

import os
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hpcxrf.formats.registry import is_zarr

FOLDERS_PER_POLL: Final = 64
ENTRIES_PER_POLL: Final = 20_000
UNFINISHED: Final = (".tmp", ".part", ".partial", ".filepart", ".crdownload", ".inprogress", "~", ".swp", ".lock")
"""Ends of names of files that somebody will rename when they are complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """One look at a folder, or at a part of it."""

    folder: str
    names: frozenset[str]
    """Files that were seen, by name."""
    whole: frozenset[str] | None
    """All files of the folder, where the look came to its end: what is not among them is gone. None: it goes on."""


@dataclass(slots=True)
class _Look:
    """A folder that is being listed."""

    folder: str
    entries: Iterator["os.DirEntry[str]"]
    names: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Folders:
    """The folders below a root."""

    root: str
    skipped: frozenset[str] = frozenset()
    """Folders that are not entered, as the run directory."""
    turn: deque[str] = field(default_factory=deque)
    """All others, the next one first."""
    known: set[str] = field(default_factory=set)
    unseen: set[str] = field(default_factory=set)
    """Folders that were never listed to their end."""
    faults: dict[str, str] = field(default_factory=dict)
    """Why a folder cannot be listed."""
    stores: set[str] = field(default_factory=set)
    """Zarr stores, which are folders and no scans here."""
    look: _Look | None = None
    """A folder whose listing goes on in the next poll."""

    def __post_init__(self) -> None:
        self._add(self.root)

    @property
    def swept(self) -> bool:
        """Whether every known folder was listed to its end at least once."""
        return not self.unseen

    def poll(
        self, hot: Collection[str], *, folders: int = FOLDERS_PER_POLL, entries: int = ENTRIES_PER_POLL
    ) -> Iterator[Sight]:
        """Look at some folders.

        Args:
            hot: those in which something goes on: half of the folders of a poll are kept for them.
            folders: folders of a poll, at most.
            entries: entries of a poll, at most.
        """
        left = entries
        visited: set[str] = set()
        for folder in self._choose(hot, folders):
            if left <= 0:
                return
            if folder in visited or folder not in self.known:
                continue
            visited.add(folder)
            sight, taken = self._list(folder, left)
            left -= taken
            if sight is not None:
                yield sight

    def _choose(self, hot: Iterable[str], most: int) -> Iterator[str]:
        """The folder that is half listed, those in which something goes on, then all in turn."""
        chosen = 0
        if self.look is not None:
            chosen += 1
            yield self.look.folder
        for folder in sorted(hot, key=lambda one: one in self.unseen, reverse=True)[: most // 2]:
            chosen += 1
            yield folder
        for _ in range(min(len(self.turn), most - chosen)):
            folder = self.turn.popleft()
            self.turn.append(folder)
            yield folder

    def _list(self, folder: str, most: int) -> tuple[Sight | None, int]:
        look, self.look = self.look, None
        if look is None or look.folder != folder:
            opened = self._open(folder)
            if opened is None:
                return None, 1
            look = _Look(folder, opened)
        taken = 0
        seen: set[str] = set()
        try:
            for entry in look.entries:
                taken += 1
                if self._is_file(entry):
                    seen.add(entry.name)
                if taken >= most:
                    self.look = look
                    break
        except OSError as error:
            self._fail(folder, error)
            return None, taken
        look.names |= seen
        if self.look is not None:
            return Sight(folder=folder, names=frozenset(seen), whole=None), taken
        self.unseen.discard(folder)
        return Sight(folder=folder, names=frozenset(seen), whole=frozenset(look.names)), taken

    def _open(self, folder: str) -> Iterator["os.DirEntry[str]"] | None:
        try:
            entries = os.scandir(folder)
        except OSError as error:
            self._fail(folder, error)
            return None
        self.faults.pop(folder, None)
        return entries

    def _fail(self, folder: str, error: OSError) -> None:
        """A folder that is gone is forgotten; the root, or one that cannot be listed, is tried again in its turn."""
        self.unseen.discard(folder)
        if isinstance(error, (FileNotFoundError, NotADirectoryError)) and folder != self.root:
            self.known.discard(folder)
            self.turn.remove(folder)
            return
        self.faults[folder] = error.strerror or type(error).__name__

    def _is_file(self, entry: "os.DirEntry[str]") -> bool:
        """Whether an entry may be a file of a scan; a folder is remembered. Links to folders are not followed."""
        if entry.name.startswith(".") or entry.path in self.known:
            return False
        try:
            if not entry.is_dir(follow_symlinks=False):
                return not entry.name.endswith(UNFINISHED) and entry.is_file()
        except OSError:
            return False
        if entry.path not in self.stores and entry.path not in self.skipped:
            if is_zarr(Path(entry.path)):
                self.stores.add(entry.path)
            else:
                self._add(entry.path)
        return False

    def _add(self, folder: str) -> None:
        self.known.add(folder)
        self.unseen.add(folder)
        # A new folder is where tonight's scans are: its turn is next.
        self.turn.appendleft(folder)
