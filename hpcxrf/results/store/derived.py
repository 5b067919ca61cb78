"""Groups that are made of finished maps by one task."""

from collections.abc import Collection
from pathlib import Path
from typing import Final

from hpcxrf.store.array_writer import METADATA
from hpcxrf.store.files import tree_sha256

# What is derived has as many digits as counts that were fitted, which no level makes much smaller.
DERIVED_LEVEL: Final = -1
"""Level of the compression of its maps, `create_plain_array`."""


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
