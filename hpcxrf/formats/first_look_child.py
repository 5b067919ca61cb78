"""The child of `first_look`: reads files as its parent is about to, until the kernel ends it or there are no more."""

from pathlib import Path
from typing import Any

from hpcxrf.formats.children import serve
from hpcxrf.formats.first_look import become_child
from hpcxrf.formats.label_images import is_tiff, read_tiff
from hpcxrf.formats.registry import open_scan, scan_formats
from hpcxrf.formats.scan import ReadOptions


def main() -> None:
    """Look at one file after the other, as the lines of standard input say, until there are no more."""
    become_child()
    scan_formats()
    import h5py

    del h5py
    serve(_look, _prepare)


def _prepare(question: dict[str, Any]) -> None:
    if _is_tiff(Path(question["path"])):
        import tifffile

        del tifffile


def _look(question: dict[str, Any]) -> dict[str, Any]:
    path = Path(question["path"])
    if _is_tiff(path):
        read_tiff(path)
        return {"fault": ""}
    scan = open_scan(path, ReadOptions(**question["options"]))
    if question["read"]:
        scan.read_scalars()
        scan.read_counts(slice(0, min(scan.rows_per_read, scan.shape[1])))
    return {"fault": ""}


def _is_tiff(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return is_tiff(stream.read(4))
    except OSError:
        return False


if __name__ == "__main__":
    main()
