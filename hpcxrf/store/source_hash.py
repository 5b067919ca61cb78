"""Checksums of a scan's files, computed in a thread of their own while the scan is read."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hpcxrf.errors import InputFileError
from hpcxrf.formats.room import count_bytes
from hpcxrf.formats.scan import RawScan
from hpcxrf.store.attributes import SourceFile
from hpcxrf.store.files import tree_bytes, tree_sha256

SourceHash = Future[tuple[SourceFile, ...]]
"""Checksums of all files of a scan, once they are known."""

_SMALL_BYTES: Final = 16 << 20
"""Files that are hashed in some 10 ms: they are waited for, and an ingest of them tells each band as it is finished."""


@contextmanager
def hash_sources(scan: RawScan) -> Iterator[SourceHash]:
    """Hash the files of a scan in a thread, while the block runs; the thread ends with the block.

    The result raises InputFileError where a file is gone or cannot be read.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="hash") as pool:
        sources = pool.submit(lambda: tuple(_hash_source(path, stop) for path in scan.files))
        try:
            if all(map(os.path.lexists, scan.files)) and count_bytes(scan.files, _SMALL_BYTES) < _SMALL_BYTES:
                wait([sources])
            yield sources
        finally:
            stop.set()


def _hash_source(path: Path, stop: threading.Event) -> SourceFile:
    try:
        return SourceFile(
            path=os.fsencode(path.absolute()).decode("utf-8", "backslashreplace"),
            size_bytes=tree_bytes(path),
            sha256=tree_sha256(path, stop),
        )
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputFileError(f"{path}: cannot be read: {reason}; check the file and its rights") from error
