"""A finished store as one file: a zip of stored members, `X.zarr.zip` in the place of the folder `X.zarr`.

A zip appears by a rename and the folder goes afterwards; unpacked, the folder appears by a rename and the zip goes
afterwards. So where both are there, both are whole or the zip alone is, and the zip counts. What tasks recorded of the
files that they wrote holds for the members, and for chunks gathered into shards: `StoreFiles` finds each.
"""

import hashlib
import os
import shutil
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from hpcxrf.config.untrusted import parse_json_object, read_json_object
from hpcxrf.errors import DamagedStoreError, OutputError
from hpcxrf.store.files import ABSENT, output_faults, sync_folder, sync_tree, tree_bytes, tree_files
from hpcxrf.store.gather import METADATA, is_gathered, list_chunks, shard_name
from hpcxrf.store.shard_index import Part

SUFFIX: Final = ".zip"
MOST_PACKED_BYTES: Final = 2 * 10**9
"""A larger store stays a folder: copying it takes long, and it has few files for its size."""
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
_MODE: Final = 0o100644 << 16
_LOCAL_HEADER: Final = struct.Struct("<4s5H3I2H")
_LOCAL_SIGNATURE: Final = b"PK\x03\x04"
_REMEDY: Final = "remove it; the next run or resume makes it again"


def locate_store(path: Path) -> Path:
    """Where a store is: its zip if there is one, else its folder.

    Args:
        path: `X.zarr`, whether that is there or not, or `X.zarr.zip`.
    """
    packed = packed_file(path)
    return packed if packed.is_file() else folder_of(path)


def packed_file(path: Path) -> Path:
    """The zip of a store that is given by its folder or by its zip."""
    return path if path.suffix == SUFFIX else path.with_name(path.name + SUFFIX)


def folder_of(path: Path) -> Path:
    """The folder of a store that is given by its folder or by its zip."""
    return path.with_name(path.name.removesuffix(SUFFIX)) if path.suffix == SUFFIX else path


def is_packed(path: Path) -> bool:
    """Whether a store is a zip."""
    return packed_file(path).is_file()


def is_store(path: Path) -> bool:
    """Whether a store is there, in either form; what its metadata say is another matter."""
    return is_packed(path) or (folder_of(path) / METADATA).is_file()


def has_store(path: Path) -> bool:
    """Whether there is a store, or something else, in either form; a dangling link counts."""
    return is_packed(path) or folder_of(path).exists() or folder_of(path).is_symlink()


def read_root(path: Path) -> dict[str, Any]:
    """Metadata of a store's root.

    Raises:
        OutputError: there are none, or they are damaged.
    """
    place = locate_store(path)
    if place.suffix != SUFFIX:
        return read_json_object(place / METADATA, OutputError, remedy="remove the store")
    member = _list_members(place).get(METADATA)
    if member is None:
        raise DamagedStoreError(f"{place}: holds no store; {_REMEDY}")
    return parse_json_object(member.read(), f"{place}, {METADATA}", OutputError, "remove the store")


def has_root(path: Path) -> bool:
    """Whether the metadata of a store can be read."""
    try:
        read_root(path)
    except OutputError:
        return False
    return True


def remove_store(path: Path) -> None:
    """Remove a store in either form, with what killed processes left of it."""
    packed_file(path).unlink(missing_ok=True)
    _remove_folder(folder_of(path))
    _remove_leftovers(folder_of(path))


def pack_store(path: Path) -> bool:
    """Make a finished store one file; twice equals once.

    Args:
        path: the store, of which nobody writes.

    Returns:
        Whether it is a zip now; one above 2 GB stays a folder.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    folder, packed = folder_of(path), packed_file(path)
    if not packed.is_file():
        size = tree_bytes(folder)
        if size > MOST_PACKED_BYTES:
            return False
        with output_faults(folder.parent, bytes_needed=size):
            _remove_leftovers(folder)
            partial = _temporary(packed)
            _write_zip(folder, partial)
            partial.replace(packed)
            sync_folder(packed.parent)
    _remove_folder(folder)
    _remove_leftovers(folder)
    return True


def unpack_store(path: Path) -> None:
    """Make a store a folder again, byte for byte, also where members are damaged; twice equals once.

    Raises:
        OutputError: the folder cannot be written; a DamagedStoreError: the zip's directory is damaged.
    """
    folder, packed = folder_of(path), packed_file(path)
    if not packed.is_file():
        return
    members = _list_members(packed)
    with output_faults(folder.parent, bytes_needed=packed.stat().st_size):
        _remove_folder(folder)
        _remove_leftovers(folder)
        partial = _temporary(folder)
        for name, member in members.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            with (partial / name).open("wb") as stream:
                stream.writelines(member.blocks())
        sync_tree(partial)
        partial.rename(folder)
        sync_folder(folder.parent)
        packed.unlink()
        # Else a power cut could bring it back, to count instead of what is written into the folder from now on.
        sync_folder(folder.parent)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def _remove_folder(folder: Path) -> None:
    """Remove a folder beside its zip, under another name first: nobody takes the rest of it for a store."""
    if folder.is_dir():
        aside = _temporary(folder)
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def _remove_leftovers(folder: Path) -> None:
    for left in folder.parent.glob(f".{folder.name}.*partial"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _write_zip(folder: Path, partial: Path) -> None:
    """Stored members in order of name, the root's metadata first; the same folder gives the same bytes."""
    names = sorted(file.relative_to(folder).as_posix() for file in tree_files(folder))
    with partial.open("wb") as stream:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as packed:
            for name in sorted(names, key=lambda name: name != METADATA):
                about = zipfile.ZipInfo(name, _EPOCH)
                about.external_attr = _MODE
                about.file_size = (folder / name).stat().st_size
                with (folder / name).open("rb") as source, packed.open(about, "w") as member:
                    shutil.copyfileobj(source, member, 1 << 20)
        stream.flush()
        os.fsync(stream.fileno())


def _list_members(packed: Path) -> dict[str, Part]:
    """Where each member's bytes are, by name.

    Raises:
        DamagedStoreError: the zip cannot be read, or is not one of `pack_store`.
    """
    try:
        with zipfile.ZipFile(packed) as opened, packed.open("rb") as stream:
            found = {about.filename: _find_bytes(about, stream.fileno(), packed) for about in opened.infolist()}
    except (OSError, ValueError, struct.error, zipfile.BadZipFile, NotImplementedError) as error:
        raise DamagedStoreError(f"{packed}: not a zip that can be read ({error}); {_REMEDY}") from error
    if strange := next((name for name in found if not _is_inside(name)), None):
        raise DamagedStoreError(f"{packed}: member {strange!r} lies outside of a store; {_REMEDY}")
    return found


def _is_inside(name: str) -> bool:
    parts = name.split("/")
    return not any(part in {"", ".", ".."} for part in parts) and "\\" not in name and "\0" not in name


def _find_bytes(about: zipfile.ZipInfo, descriptor: int, packed: Path) -> Part:
    if about.compress_type != zipfile.ZIP_STORED or about.is_dir():
        raise ValueError(f"member {about.filename!r} is not a stored file")
    header = _LOCAL_HEADER.unpack(os.pread(descriptor, _LOCAL_HEADER.size, about.header_offset))
    if header[0] != _LOCAL_SIGNATURE:
        raise ValueError(f"member {about.filename!r} has no header")
    offset = about.header_offset + _LOCAL_HEADER.size + header[-2] + header[-1]
    return Part(file=packed, offset=offset, size=about.file_size)


@dataclass(frozen=True)
class StoreFiles:
    """Files of a store as its tasks wrote them, whatever form it has now."""

    path: Path
    """The store's folder, or where it was."""

    @cached_property
    def _files(self) -> Mapping[str, Part]:
        place = locate_store(self.path)
        if place.suffix == SUFFIX:
            return _list_members(place)
        return {
            file.relative_to(place).as_posix(): Part(file=file, offset=0, size=file.stat().st_size)
            for file in tree_files(place)
        }

    def has(self, name: str) -> bool:
        """Whether there is a file of this name.

        Raises:
            DamagedStoreError: the zip cannot be read.
        """
        return name in self._files if is_packed(self.path) else (folder_of(self.path) / name).is_file()

    def part(self, name: str) -> Part:
        """Where the bytes of a file are.

        Raises:
            KeyError: there is none of this name.
        """
        return self._files[name]

    def checksum(self, name: str) -> str:
        """SHA-256 as a task recorded it of a file or a folder in the store; `ABSENT` where there is none.

        Args:
            name: path within the store; empty: all of it.

        Raises:
            OutputError: the zip or the index of a shard is damaged.
            OSError: something cannot be read.
        """
        found = self._find(name)
        if name in found:
            return _hash_part(found[name])
        return _hash_tree(found, name) if found else ABSENT

    def _find(self, name: str) -> Mapping[str, Part]:
        """The file of that name, or those below it."""
        prefix = f"{name}/" if name else ""
        found = {one: part for one, part in self._files.items() if one == name or one.startswith(prefix)}
        return found or {
            one: part for one, part in self._find_gathered(name).items() if one == name or one.startswith(prefix)
        }

    def _find_gathered(self, name: str) -> Mapping[str, Part]:
        """Chunks of the gathered array that a name lies in."""
        array, _, chunk = f"{name}/".rpartition("/c/")
        metadata = self._files.get(f"{array}/{METADATA}") if chunk else None
        if metadata is None:
            return {}
        content = parse_json_object(metadata.read(), f"{self.path}/{array}", OutputError, _REMEDY)
        shard = self._files.get(f"{array}/{shard_name(content)}")
        if shard is None or not is_gathered(content):
            return {}
        return {f"{array}/{one}": part for one, part in list_chunks(content, shard).items()}


def _hash_part(part: Part) -> str:
    digest = hashlib.sha256()
    for block in part.blocks():
        digest.update(block)
    return digest.hexdigest()


def _hash_tree(found: Mapping[str, Part], name: str) -> str:
    """As `tree_sha256` of the folder `name`."""
    digest = hashlib.sha256()
    for file, part in sorted(_relative(found, name), key=lambda one: tuple(one[0].split("/"))):
        digest.update(os.fsencode(file) + b"\0" + bytes.fromhex(_hash_part(part)))
    return digest.hexdigest()


def _relative(found: Mapping[str, Part], name: str) -> Iterator[tuple[str, Part]]:
    start = len(name) + 1 if name else 0
    return ((file[start:], part) for file, part in found.items())
