"""Files written whole or not at all, their checksums, and clear words for a folder that takes nothing."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from threading import Event
from typing import Final

from hpcxrf.config.untrusted import read_regular
from hpcxrf.errors import OutputError

HASH_BLOCK_BYTES: Final = 1 << 20
WRITER_PATIENCE_S: Final = 60.0
_LOCK_PAUSE_S: Final = 0.1
MAX_JOURNAL_BYTES: Final = 1 << 30
ABSENT: Final = "absent"
"""In place of the checksum of a file that must not be there."""
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def file_sha256(path: Path, stop: Event | None = None) -> str:
    """SHA-256 of a file's bytes in hexadecimal, read in blocks.

    Args:
        path: the file.
        stop: ends the reading when it is set.

    Raises:
        OSError: the file cannot be read.
        CancelledError: `stop` was set.
    """
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(HASH_BLOCK_BYTES))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            if stop is not None and stop.is_set():
                raise CancelledError
            digest.update(buffer[:size])
    return digest.hexdigest()


def tree_sha256(path: Path, stop: Event | None = None) -> str:
    """SHA-256 of a file, or of a folder: the names and checksums of all files in it, in order of name.

    Half-written temporaries (`*.partial`) are no content and do not count.

    Args:
        path: the file or folder.
        stop: ends the reading when it is set.

    Raises:
        OSError: something there cannot be read.
        CancelledError: `stop` was set.
    """
    if not path.is_dir():
        return file_sha256(path, stop)
    digest = hashlib.sha256()
    for file in sorted(tree_files(path), key=lambda file: file.relative_to(path).parts):
        digest.update(os.fsencode(file.relative_to(path).as_posix()) + b"\0")
        digest.update(bytes.fromhex(file_sha256(file, stop)))
    return digest.hexdigest()


def tree_files(path: Path) -> Iterator[Path]:
    """All finished files below a folder, in no order; the file itself when it is one."""
    if not path.is_dir():
        yield path
        return
    for file in path.rglob("*"):
        if file.is_file() and file.suffix != ".partial":
            yield file


def tree_bytes(path: Path) -> int:
    """Sum of the sizes of all files below a folder."""
    return sum(file.stat().st_size for file in tree_files(path))


def checksum_tree(paths: Iterable[Path]) -> dict[str, str]:
    """Checksums to keep in a journal: path as given -> SHA-256 of that file or folder.

    Raises:
        OSError: something there cannot be read.
    """
    return {os.fspath(path): tree_sha256(path) for path in paths}


def atomic_write_bytes(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Write a file so that a reader sees the old content or the new, whatever happens.

    Args:
        path: the file; its folder must exist.
        content: the whole of it.
        mode: permissions of a new file, before the umask.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    with output_faults(path.parent, bytes_needed=len(content)):
        try:
            _write_synced(temporary, content, mode)
            temporary.replace(path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def atomic_write_text(path: Path, text: str, *, mode: int = 0o666) -> None:
    r"""`atomic_write_bytes` of the text in UTF-8, newlines as they are; what is not UTF-8 in a name shows as `\udcff`.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    atomic_write_bytes(path, text.encode("utf-8", "backslashreplace"), mode=mode)


def write_blocks(path: Path, blocks: Iterable[bytes], *, sync: bool = False) -> str:
    """Write a file, of which a kill or a full disk leaves a part.

    Args:
        path: the file; its folder must exist.
        blocks: its bytes.
        sync: wait until they are on the disk.

    Returns:
        SHA-256 of the file.

    Raises:
        OSError: the folder cannot be written.
    """
    digest = hashlib.sha256()
    with path.open("wb", buffering=0) as file:
        for block in blocks:
            write_whole(file, block)
            digest.update(block)
        if sync:
            os.fsync(file.fileno())
    return digest.hexdigest()


def write_whole(file: FileIO, block: bytes) -> None:
    """Write bytes to an unbuffered file: a full disk takes the part that fits, and only the next write says so.

    Raises:
        OSError: the file cannot be written.
    """
    left = memoryview(block)
    while left:
        left = left[file.write(left) :]


def create_text(path: Path, text: str) -> bool:
    """Write a new file whole; whether it is new: one that is there already, or comes first, stays as it is.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    with output_faults(path.parent, bytes_needed=len(text)):
        try:
            _write_synced(temporary, text.encode("utf-8", "backslashreplace"), 0o666)
            path.hardlink_to(temporary)  # fails where the name exists, as a rename does not
            sync_folder(path.parent)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
    return True


def _write_synced(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def one_writer(path: Path) -> Iterator[None]:
    """Keep a second process out of what is being written at `path`; a file system without locks lets it in.

    The lock is the kernel's, on a file beside it, and ends with the process.

    Raises:
        OutputError: another process has been writing it for longer than `WRITER_PATIENCE_S`; or the folder cannot be
            written.
    """
    with output_faults(path.parent, bytes_needed=0):
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = _take_writer_lock(path)
    try:
        yield
    finally:
        with suppress(OSError):
            path.with_name(f".{path.name}.lock").unlink(missing_ok=True)
        stream.close()


def _take_writer_lock(path: Path) -> FileIO:
    file = path.with_name(f".{path.name}.lock")
    until = time.monotonic() + WRITER_PATIENCE_S
    while True:
        stream = file.open("ab", buffering=0)
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            stream.close()
            if time.monotonic() > until:
                raise OutputError(f"{path}: another hpcxrf writes it; wait for that one to end") from error
            time.sleep(_LOCK_PAUSE_S)
            continue
        except OSError:
            return stream
        # The one before removed the name, and a third may have made it anew.
        if file.exists() and os.path.samestat(file.stat(), os.fstat(stream.fileno())):
            return stream
        stream.close()


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, as renames are not by themselves."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Wait until a file, or all files of a folder, are on the disk, with their names; what is not there is passed over.

    Raises:
        OSError: the disk refuses.
    """
    folders = {path if path.is_dir() else path.parent}
    for file in tree_files(path) if path.exists() else ():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
        folders.add(file.parent)
    for folder in folders:
        if folder.is_dir():
            sync_folder(folder)


@contextmanager
def output_faults(folder: Path, *, bytes_needed: int) -> Iterator[None]:
    """Turn the system's refusals to write below `folder` into errors that a user can act on.

    Args:
        folder: what is being written into.
        bytes_needed: upper bound of what is still to be written, bytes.

    Raises:
        OutputError: any OSError of the block, with the folder, the bytes needed and the bytes free.
    """
    try:
        yield
    except OSError as error:
        raise OutputError(_describe(error, folder, bytes_needed)) from error


def _describe(error: OSError, folder: Path, bytes_needed: int) -> str:
    free = free_bytes(folder)
    room = f"needs up to {bytes_needed} bytes, {free} bytes are free"
    if error.errno in _FULL:
        return f"{folder}: disk or quota is full ({room}); free some space, then run again to resume"
    reason = error.strerror or str(error)
    return f"{folder}: cannot be written: {reason} ({room}); check its rights or name another folder"


def free_bytes(folder: Path) -> int:
    """Free bytes of the file system that holds `folder`, or would hold it; 0 where none can be asked."""
    for existing in (folder, *folder.parents):
        try:
            return shutil.disk_usage(existing).free
        except OSError:
            continue
    return 0


def append_line(path: Path, record: Mapping[str, object]) -> None:
    """`append_lines` of one record.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    append_lines(path, [record])


def append_lines(path: Path, records: Iterable[Mapping[str, object]]) -> None:
    """Append JSON lines durably; what a kill left of an unfinished last line is cut off first.

    Only one process may append to a file. NaN and infinities, which JSON has not, become null. The disk is waited
    for once, however many lines there are.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    lines = b"".join(_json_line(record) for record in records)
    with output_faults(path.parent, bytes_needed=len(lines)), path.open("ab+", buffering=0) as file:
        _cut_torn_line(file)
        left = lines
        while left:
            # A disk that fills up takes the part that fits, and only the next write says so.
            left = left[file.write(left) :]
        os.fsync(file.fileno())


def append_shared_line(path: Path, record: Mapping[str, object]) -> None:
    """Append a JSON line durably to a file that processes of several hosts append to.

    It is one write at the file's end, under a lock of the kernel, since NFS has no writes at the end. Where there are
    no locks an unfinished line, as a kill leaves it, is not cut off: another process could be writing it.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    line = _json_line(record)
    with output_faults(path.parent, bytes_needed=len(line)), path.open("ab+", buffering=0) as file:
        if _locked(file):
            _cut_torn_line(file)
        written = file.write(line)
        if written < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(file.fileno())


def _locked(file: FileIO) -> bool:
    """Whether the file is this process's until it closes it; some file systems have no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:
        return False
    return True


def _json_line(record: Mapping[str, object]) -> bytes:
    return json.dumps(_finite(record), allow_nan=False, separators=(",", ":")).encode() + b"\n"


def read_lines(path: Path) -> list[dict[str, object]]:
    """All whole JSON lines of a file, oldest first; none when it does not exist.

    An unfinished last line, which a kill leaves, is no record.

    Raises:
        OutputError: a finished line is no JSON object, with its number.
    """
    if not path.exists():
        return []
    content = read_regular(path, OutputError, largest=MAX_JOURNAL_BYTES)
    whole = content[: content.rfind(b"\n") + 1].splitlines()
    return [_parse_line(path, number, line) for number, line in enumerate(whole, start=1)]


def _parse_line(path: Path, number: int, line: bytes) -> dict[str, object]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise OutputError(_damaged(path, number)) from error
    if not isinstance(record, dict):
        raise OutputError(_damaged(path, number))
    return record


def _damaged(path: Path, number: int) -> str:
    return (
        f"{path}, line {number} is not a JSON object, so the journal is damaged; "
        "the next run or resume does that dataset again"
    )


def _cut_torn_line(file: FileIO) -> None:
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return
    file.seek(size - 1)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def _finite(value: object) -> object:
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
