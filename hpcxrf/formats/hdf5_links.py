"""Ways through an HDF5 file, followed by hand: every link is looked at before it is followed, and they are counted.

The library follows what it finds: through any number of soft links, out of the file, and into a pipe that never ends.
"""

import os
from pathlib import Path
from typing import Final

import h5py

from hpcxrf.config.untrusted import refuse_irregular, show_name
from hpcxrf.errors import InputFileError

MAX_LINKS: Final = 64
"""Most soft and external links on the way to one object."""


def follow_path(file: h5py.File, name: str, *, allow_external: bool = False) -> object:
    """Return the object at a path; None where there is none.

    Args:
        file: the open file.
        name: path inside it.
        allow_external: follow links into other files.

    Raises:
        InputFileError: the way leaves the file and `allow_external` is False, leads to something that is not a regular
            file, or has more than `MAX_LINKS` links.
    """
    plain = _is_plain(file, name)
    if plain is None:
        return _follow(file, name, allow_external=allow_external, links_left=MAX_LINKS)
    return file[name] if plain else None


def _is_plain(file: h5py.File, name: str) -> bool | None:
    """Whether hard links alone lead to an object, as nearly always: such a way need not be followed by hand.

    Returns:
        False: hard links lead to where there is nothing. None: there is another link on the way, or it is not sound.
    """
    links, place = file.id.links, b""
    try:
        for part in _split(name):
            place += b"/" + part.encode()
            # No link before this one leads anywhere else, so that the library finds just this one.
            if not links.exists(place):
                return False
            if links.get_info(place).type != h5py.h5l.TYPE_HARD:
                return None
    except (RuntimeError, KeyError, ValueError, OSError):
        return None
    return True if place else None


def has_path(file: h5py.File, name: str) -> bool:
    """Whether there is an object at a path, or a link out of the file on the way to it, which is not followed."""
    try:
        return follow_path(file, name) is not None
    except _ExternalLinkError:
        return True


class _ExternalLinkError(InputFileError):
    """A link leaves the file, and nobody allowed that."""


def _follow(file: h5py.File, name: str, *, allow_external: bool, links_left: int) -> object:
    here: object = file["/"]
    parts = _split(name)
    while parts:
        part = parts.pop(0)
        if not isinstance(here, h5py.Group):
            return None
        link = here.get(part, getlink=True)
        if link is None:
            return None
        if isinstance(link, h5py.HardLink):
            here = here[part]
            continue
        links_left -= 1
        if links_left < 0:
            raise InputFileError(
                f"{file.filename}: {show_name(name)}: more than {MAX_LINKS} links on the way; the file is damaged"
            )
        if isinstance(link, h5py.SoftLink):
            here = file["/"] if link.path.startswith("/") else here
            parts = _split(link.path) + parts
        elif isinstance(link, h5py.ExternalLink):
            _check_external(file, f"{here.name.rstrip('/')}/{part}", link, allow_external, links_left)
            here = here[part]
        else:
            return None
    return here


def _split(path: str) -> list[str]:
    return [part for part in path.split("/") if part and part != "."]


def _check_external(
    file: h5py.File,
    place: str,
    link: h5py.ExternalLink,
    allow_external: bool,  # noqa: FBT001 - of `follow_path`
    links_left: int,
) -> None:
    """Refuse a link that nobody allowed, and one whose own way ends badly; the library follows it afterwards."""
    if not allow_external:
        raise _ExternalLinkError(
            f"{file.filename}: {show_name(place)} is an external link to {show_name(link.filename)}; "
            "name that file itself, or allow external links (input.allow_external: true in a run file)"
        )
    target = find_beside(Path(os.fsdecode(file.filename)), link.filename)
    refuse_irregular(target)
    with h5py.File(target, "r", locking=False) as other:
        _follow(other, link.path, allow_external=True, links_left=links_left)


def check_sources(file: h5py.File, dataset: h5py.Dataset) -> None:
    """Refuse a dataset whose numbers lie in something that is not a regular file.

    Raises:
        InputFileError: a source of a virtual dataset, or its external storage, is a pipe, a device or missing.
    """
    here = Path(os.fsdecode(file.filename))
    names = [source.file_name for source in dataset.virtual_sources()] if dataset.is_virtual else []
    names += [os.fsdecode(name) for name, _, _ in dataset.external or ()]
    for name in dict.fromkeys(names):
        # A missing source of a virtual dataset reads as its fill value, and `%b` stands for a number.
        other = find_beside(here, name)
        if name != "." and "%b" not in name and (other.exists() or not dataset.is_virtual):
            refuse_irregular(other)


def find_beside(path: Path, name: str) -> Path:
    """Return where the library looks for a file that another one names: as named, else in the folder of the other."""
    target = Path(name)
    beside = path.absolute().parent / target
    return beside if target.is_absolute() or beside.exists() else target
