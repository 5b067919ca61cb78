"""Fingerprints of files: by them a file is found again under another name, without reading all of it."""

from hashlib import blake2b
from pathlib import Path
from typing import Final

PIECE_BYTES: Final = 16384
WHOLE: Final = "whole:"
"""Begins the fingerprint of a file that is small enough to be read whole: equal ones are equal files."""


def make_fingerprint(path: Path) -> str:
    """Hash of size, beginning, middle and end of a file: the same of files that may be copies of each other.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        size = file.seek(0, 2)
        digest = blake2b(str(size).encode(), digest_size=16)
        if size <= 3 * PIECE_BYTES:
            file.seek(0)
            digest.update(file.read())
            return f"{WHOLE}{digest.hexdigest()}"
        for place in (0, size // 2, size - PIECE_BYTES):
            file.seek(place)
            digest.update(file.read(PIECE_BYTES))
    return digest.hexdigest()
