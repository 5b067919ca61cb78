"""Groups that are made of finished maps by one task."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from hpcxrf.results.store.storage import output_errors
from hpcxrf.results.store.tiled import TiledMap
from hpcxrf.store.array_writer import METADATA
from hpcxrf.store.files import tree_sha256

STORED_ATTRIBUTE: Final = "stored_detectors"
"""Attribute of the group: detectors whose maps are in it. A group without it has those of all."""


def describe_stored(stored: Sequence[str]) -> dict[str, Any]:
    """Attributes that say which maps are in the group, for people, too, who open it with another program."""
    text = (
        f"Maps (detector, component, y, x) of {', '.join(stored)} are stored; those of other detectors are NaN here, "
        "and computed by hpcxrf.open_results of the group maps and the other arrays of this one."
    )
    return {STORED_ATTRIBUTE: list(stored), "comment": text}


def write_blocks(
    maps: Mapping[str, TiledMap], row: int | None, y: slice, x: slice, values: Mapping[str, NDArray[Any]]
) -> None:
    """Write one block of some maps of a group; twice equals once.

    Args:
        maps: open maps by name.
        row: place on the detector axis; None: maps (y, x).
        y: rows of the block.
        x: columns of the block.
        values: (*, y, x) by name, of any type of numbers.

    Raises:
        OutputError: the folder cannot be written.
    """
    for name, one in values.items():
        with output_errors(maps[name].folder):
            maps[name].write(row, y, x, one.astype(maps[name].dtype, copy=False))


def group_checksums(path: Path, group: str, tiled: Collection[str]) -> dict[str, str]:
    """Checksums of all that a group of one writer holds, by path within the store, as they hold also when it is closed.

    Args:
        path: the results store.
        group: name of the group.
        tiled: names of the arrays that blocks fill.

    Raises:
        OSError: something there cannot be read.
    """
    folder = path / group
    written = [folder / METADATA]
    for array in sorted(file.parent for file in folder.glob(f"*/{METADATA}")):
        # What blocks fill becomes one shard when the store is closed, with other metadata.
        written += sorted((array / "c").iterdir()) if (array / "c").is_dir() else []
        if array.name not in tiled:
            written.append(array)
    return {str(one.relative_to(path)): tree_sha256(one) for one in written}
