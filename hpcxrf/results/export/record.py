"""What an export has written: a line for each result in `.hpcxrf-export.jsonl` beside the files, by which it resumes.

A line is written when the files are whole, before they get their names: one killed in between knows its own.
"""

import hashlib
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from hpcxrf.store.files import tree_bytes
from hpcxrf.store.packed import read_root

RECORD: Final = ".hpcxrf-export.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The files of one result in one format."""

    format: str
    stem: str
    """Name that the files were given, without what the format adds."""
    result: str
    """Fingerprint of the result."""
    bytes_by_name: Mapping[str, int]
    """Sizes by name of files and folders."""
    notes: tuple[str, ...] = ()

    def is_there(self, folder: Path) -> bool:
        """Whether all is there in its size."""
        return all(
            (folder / name).exists() and measure(folder / name) == size for name, size in self.bytes_by_name.items()
        )


def compute_fingerprint(store: Path) -> str:
    """SHA-256 of the metadata of a results store, which name its arrays, its configuration and its sources.

    The same for a store that was packed; other where it was fitted otherwise, or has got another group.

    Raises:
        OutputError: the metadata are damaged.
    """
    return hashlib.sha256(json.dumps(read_root(store), sort_keys=True).encode()).hexdigest()


def measure(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return tree_bytes(path) if path.is_dir() else path.stat().st_size


def read_records(folder: Path) -> dict[tuple[str, str], Written]:
    """Last record by format and stem; lines that a full disk cut off are left out."""
    try:
        lines = (folder / RECORD).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    found = {}
    for line in lines:
        try:
            fields = json.loads(line)
            one = Written(**{**fields, "notes": tuple(fields["notes"])})
        except (ValueError, TypeError, KeyError):
            continue
        found[one.format, one.stem] = one
    return found


def append_record(folder: Path, written: Written) -> None:
    """Add a record, on the disk before this returns.

    Raises:
        OSError: the folder cannot be written.
    """
    with (folder / RECORD).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({**asdict(written), "bytes_by_name": dict(written.bytes_by_name)}) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def partial_name(stem: str) -> str:
    """Name of the folder in which this process writes a result, which says whose it is."""
    return f".{stem[:100]}.{socket.gethostname()}.{os.getpid()}.partial"


def list_abandoned(folder: Path, stem: str) -> list[Path]:
    """Folders of processes of this host that have ended while they wrote the result."""
    host = socket.gethostname()
    found = []
    for path in folder.glob(f".*.{host}.*.partial"):
        pid = path.name.removesuffix(".partial").rpartition(".")[2]
        if path.name.startswith(f".{stem[:100]}.{host}.") and pid.isdigit() and not _lives(int(pid)):
            found.append(path)
    return found


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
