"""The child of `first_look`: reads files as its parent is about to, until the kernel ends it or there are no more."""

import json
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from hpcxrf.formats.first_look import CPU_S, CPU_S_MOST, CPU_S_PER_MB, MEMORY_BYTES, MEMORY_RATIO, become_child
from hpcxrf.formats.label_images import is_tiff, read_tiff
from hpcxrf.formats.registry import open_scan, scan_formats
from hpcxrf.formats.scan import ReadOptions


def main() -> None:
    """Look at one file after the other, as the lines of standard input say, until there are no more."""
    become_child()
    scan_formats()
    import h5py

    del h5py
    for line in sys.stdin.buffer:
        question = json.loads(line)
        if _is_tiff(Path(question["path"])):
            import tifffile  # outside of the limits, which are for the file

            del tifffile
        fault = _look_within(question, _used_bytes())
        sys.stdout.write(json.dumps({"fault": fault}) + "\n")
        sys.stdout.flush()


def _used_bytes() -> int:
    """Address space of this process."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()


def _look_within(question: dict[str, Any], used: int) -> str:
    megabytes = question["size"] / 2**20
    room = used + MEMORY_BYTES + MEMORY_RATIO * question["size"]
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (room if hard == resource.RLIM_INFINITY else min(room, hard), hard))
    # At its end the kernel ends this process, wherever it is: no handler of Python would be reached.
    signal.setitimer(signal.ITIMER_PROF, min(CPU_S + CPU_S_PER_MB * megabytes, CPU_S_MOST))
    try:
        _look(Path(question["path"]), ReadOptions(**question["options"]), read=question["read"])
    except Exception as error:  # noqa: BLE001 - what is wrong with the file the parent finds itself, but for this
        return "asks for more memory than such a file can need" if _is_short_of_memory(error) else ""
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
    return ""


def _is_tiff(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return is_tiff(stream.read(4))
    except OSError:
        return False


def _look(path: Path, options: ReadOptions, *, read: bool) -> None:
    if _is_tiff(path):
        read_tiff(path)
        return
    scan = open_scan(path, options)
    if read:
        scan.read_scalars()
        scan.read_counts(slice(0, min(scan.rows_per_read, scan.shape[1])))


def _is_short_of_memory(error: BaseException | None) -> bool:
    while error is not None:
        text = str(error).lower()
        if isinstance(error, MemoryError) or "memory allocation failed" in text or "unable to allocate" in text:
            return True
        error = error.__cause__ or error.__context__
    return False


if __name__ == "__main__":
    main()
