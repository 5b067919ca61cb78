"""Names of datasets: safe in paths, shells and reports, and the same wherever the archive is mounted."""

import hashlib
import os
import re
import unicodedata
from pathlib import Path
from typing import Final

from hpcxrf.errors import InputFileError

SLUG_LENGTH: Final = 48
HASH_DIGITS: Final = 8
DATASET_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def dataset_id(path: Path, archive_root: Path) -> str:
    """Name of a dataset in all stores and journals, `2xfm_0010-1a2b3c4d`.

    The slug of the file name (without its last suffix) is for people; the 8 hexadecimal digits are of
    the SHA-256 of the path relative to the archive, so that equal names in two folders stay apart and an
    archive that was moved keeps its names. Symbolic links are not resolved.

    Args:
        path: the file, inside the archive.
        archive_root: the folder of the archive.

    Raises:
        InputFileError: the file lies outside the archive.
    """
    relative = _relate(os.fspath(path), os.fspath(archive_root))
    if relative.split(os.sep, 1)[0] == os.pardir:
        raise InputFileError(f"{path}: lies outside the archive {archive_root}; give the folder that holds all scans")
    digest = hashlib.sha256(os.fsencode(relative)).hexdigest()
    return f"{slug(path.stem)}-{digest[:HASH_DIGITS]}"


def _relate(path: str, folder: str) -> str:
    """What `os.path.relpath` gives, which takes half of the time that the name of a dataset takes."""
    inside = os.path.join(folder, "")  # noqa: PTH118
    plain = os.path.isabs(path) and path.startswith(inside) and os.pardir not in path  # noqa: PTH117
    return path[len(inside) :] if plain else os.path.relpath(path, folder)


def slug(text: str) -> str:
    """Letters, digits, `_` and inner `-` only, at most 48 characters, never empty."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
    safe = re.sub(r"[^A-Za-z0-9_]+", "-", ascii_text).strip("-_")
    return safe[:SLUG_LENGTH].strip("-_") or "scan"


def is_dataset_id(text: str) -> bool:
    """True where the text can be a dataset's name, hence a file name of its own."""
    return DATASET_ID.fullmatch(text) is not None
