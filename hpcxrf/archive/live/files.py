"""Files of watched folders: which are new, which change, which rest, which are gone.

Times are compared with nothing but themselves, and how long a file rests is counted by this process's own monotonic
clock: an instrument or a file server whose clock is off does no harm.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from hpcxrf.archive.live.folders import Folders, Sight

STATS_PER_POLL: Final = 10_000
"""Files that may still change and are looked at in a poll, at most."""
RECHECKS_PER_POLL: Final = 256
"""Files that were settled and are looked at again in a poll, in turn."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a look at a file says of it; another one means that the file changed."""

    size: int
    mtime_ns: int
    inode: int


@dataclass(slots=True)
class WatchedFile:
    """A file that may still change."""

    stamp: Stamp
    changed_s: float
    """Monotonic time at which it was seen to change last, or first."""
    unchanged: int = 0
    """Polls in a row that found it as it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a poll found."""

    gone: tuple[str, ...]
    """Settled files that are not there any more."""
    changed: tuple[str, ...]
    """Settled files that are others now, and are watched again."""


@dataclass(slots=True)
class Files:
    """The files below a root."""

    folders: Folders
    watched: dict[str, WatchedFile] = field(default_factory=dict)
    """Files that may still change, by path."""
    settled: dict[str, Stamp] = field(default_factory=dict)
    """Files of which is decided what they are, as they were then."""
    names: dict[str, set[str]] = field(default_factory=dict)
    """Names of all files by folder."""

    def poll(self, now_s: float) -> Changes:
        """Look at folders and files once.

        Args:
            now_s: monotonic time.
        """
        gone: list[str] = []
        hot = {os.path.split(path)[0] for path in self.watched}
        fresh: set[str] = set()
        for sight in self.folders.poll(hot):
            fresh |= self._take(sight, now_s, gone)
        self._look_again(fresh, now_s, gone)
        changed = self._recheck(now_s, gone)
        return Changes(gone=tuple(gone), changed=tuple(changed))

    def settle(self, paths: Iterable[str]) -> None:
        """Watch files no longer: what they are is decided; a change of one of them is found in its turn."""
        for path in paths:
            watched = self.watched.pop(path, None)
            if watched is not None:
                self.settled[path] = watched.stamp

    def watch_again(self, path: str, now_s: float) -> None:
        """Watch a settled file again, as if it had changed: another one that belongs to it did."""
        stamp = self.settled.pop(path, None)
        if stamp is not None:
            self.watched[path] = WatchedFile(stamp=stamp, changed_s=now_s)

    def look_at(self, paths: Iterable[str], now_s: float) -> tuple[str, ...]:
        """Look at settled files out of their turn; those that changed meanwhile and are watched again."""
        changed: list[str] = []
        for path in paths:
            if path in self.settled:
                self._compare(path, now_s, [], changed)
        return tuple(changed)

    def stamps_of(self, paths: Iterable[str]) -> Mapping[str, Stamp]:
        """Stamps of files that are known."""
        found = {path: self.watched[path].stamp if path in self.watched else self.settled.get(path) for path in paths}
        return {path: stamp for path, stamp in found.items() if stamp is not None}

    def _take(self, sight: Sight, now_s: float, gone: list[str]) -> set[str]:
        """Take up new files of a folder, and put away those that are not there any more; the new ones."""
        known = self.names.setdefault(sight.folder, set())
        new = {os.path.join(sight.folder, name) for name in sight.names - known}  # noqa: PTH118
        known |= sight.names
        for path in new:
            self._watch(path, now_s)
        if sight.whole is not None:
            for name in known - sight.whole:
                self._forget(os.path.join(sight.folder, name), gone)  # noqa: PTH118
        return new

    def _watch(self, path: str, now_s: float) -> None:
        stamp = read_stamp(path)
        if stamp is not None:
            self.watched[path] = WatchedFile(stamp=stamp, changed_s=now_s)

    def _forget(self, path: str, gone: list[str]) -> None:
        folder, name = os.path.split(path)
        self.names[folder].discard(name)
        if self.watched.pop(path, None) is None and self.settled.pop(path, None) is not None:
            gone.append(path)

    def _look_again(self, fresh: set[str], now_s: float, gone: list[str]) -> None:
        for path in list(islice(self.watched, STATS_PER_POLL)):
            # To the end: of more than fit into a poll, the others are next.
            watched = self.watched[path] = self.watched.pop(path)
            if path in fresh:
                continue
            stamp = read_stamp(path)
            if stamp is None:
                self._forget(path, gone)
            elif stamp == watched.stamp:
                watched.unchanged += 1
            else:
                watched.stamp, watched.unchanged, watched.changed_s = stamp, 0, now_s

    def _recheck(self, now_s: float, gone: list[str]) -> list[str]:
        changed: list[str] = []
        for path in list(islice(self.settled, RECHECKS_PER_POLL)):
            self._compare(path, now_s, gone, changed)
        return changed

    def _compare(self, path: str, now_s: float, gone: list[str], changed: list[str]) -> None:
        # To the end: of more than fit into a poll, the others are next.
        known = self.settled[path] = self.settled.pop(path)
        stamp = read_stamp(path)
        if stamp is None:
            self._forget(path, gone)
        elif stamp != known:
            del self.settled[path]
            self.watched[path] = WatchedFile(stamp=stamp, changed_s=now_s)
            changed.append(path)


def read_stamp(path: str) -> Stamp | None:
    """Look at a file; None where it is not there, or cannot be looked at."""
    try:
        status = os.stat(path)  # noqa: PTH116 (of ten thousand files a second)
    except OSError:
        return None
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ino)
