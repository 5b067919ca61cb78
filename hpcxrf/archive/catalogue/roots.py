"""The folders of a catalogue: there, apart from each other, and not where the catalogue itself lies."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from hpcxrf.catalogue.read import read_roots
from hpcxrf.config.untrusted import describe_fault, show_name
from hpcxrf.errors import ConfigError, InputFileError
from hpcxrf.formats.registry import is_zarr


def check_roots(path: Path, folders: Sequence[Path]) -> tuple[Path, ...]:
    """Find the folders of a walk, absolute; one that lies within another is listed with it.

    Args:
        path: the catalogue.
        folders: as they were given.

    Raises:
        ConfigError: none is given; the catalogue would lie in one of them; one overlaps a folder of the catalogue.
        InputFileError: one is missing, not a folder, or cannot be listed.
    """
    roots = tuple(dict.fromkeys(Path(os.path.abspath(folder)) for folder in folders))  # noqa: PTH100 - links are kept
    if not roots:
        raise ConfigError("no folder is named; write hpcxrf catalog FOLDER -o archive.sqlite")
    faults = [fault for root in roots if (fault := _explain_root(root)) is not None]
    if faults:
        raise InputFileError("\n".join(faults))
    real = {root: Path(os.path.realpath(root)) for root in roots}
    output = Path(os.path.realpath(path.parent)) / path.name
    inside = [show_name(str(root)) for root in roots if output.is_relative_to(real[root])]
    if inside:
        raise ConfigError(
            f"{show_name(str(path))}: lies in {', '.join(inside)}, into which nothing is written; name a file outside "
            "with -o"
        )
    outer = tuple(one for one in roots if not any(one != other and _lies_in(real, one, other) for other in roots))
    _refuse_overlap(path, outer)
    return outer


def _lies_in(real: Mapping[Path, Path], one: Path, other: Path) -> bool:
    same = real[one] == real[other]
    return real[one].is_relative_to(real[other]) and (not same or str(one) > str(other))


def _explain_root(root: Path) -> str | None:
    name = show_name(str(root))
    try:
        if not root.is_dir():
            return f"{name}: not a folder; name the folders of the archive" if root.exists() else _explain_missing(name)
        if is_zarr(root):
            return f"{name}: a Zarr store; name the folder that it lies in"
        with os.scandir(root):
            return None
    except OSError as error:
        return f"{name}: cannot be listed: {describe_fault(error)}; check its permissions"


def _explain_missing(name: str) -> str:
    return f"{name}: no such folder; check the name, and that its file system is mounted"


def _refuse_overlap(path: Path, roots: Sequence[Path]) -> None:
    """Refuse a folder above or below one of the catalogue: its scans would have two rows."""
    known = [Path(root) for root in read_roots(path)] if path.exists() else []
    faults = [
        f"{show_name(str(root))} and {show_name(str(other))}, which the catalogue lists, lie in each other"
        for root in roots
        for other in known
        if root != other and (root.is_relative_to(other) or other.is_relative_to(root))
    ]
    if faults:
        raise ConfigError(
            f"{show_name(str(path))}: {'; '.join(faults)}: walk the folder that it lists, or name another file with -o"
        )


def identify_roots(roots: Sequence[Path]) -> dict[Path, tuple[int, int]]:
    """Device and inode of each folder, by which it is known that its file system is still mounted.

    Raises:
        InputFileError: one is no longer there.
    """
    found = {}
    for root in roots:
        try:
            status = root.stat()
        except OSError as error:
            raise InputFileError(_explain_missing(show_name(str(root)))) from error
        found[root] = (status.st_dev, status.st_ino)
    return found


def require_roots(identities: Mapping[Path, tuple[int, int]]) -> None:
    """Refuse to go on where a folder vanished, lest all its scans be called vanished.

    Raises:
        InputFileError: names it; the catalogue stays as it was.
    """
    gone = []
    for root, identity in identities.items():
        try:
            status = root.stat()
            same = (status.st_dev, status.st_ino) == identity
            with os.scandir(root):
                pass
        except OSError:
            same = False
        if not same:
            gone.append(show_name(str(root)))
    if gone:
        raise InputFileError(
            f"{', '.join(gone)}: vanished during the walk; the catalogue stays as it was: mount it again, and the same "
            "command goes on where it stopped"
        )
