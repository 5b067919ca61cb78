"""How files begin and where they lie; known without the libraries that read them."""

import re
from pathlib import Path
from typing import Final

NPY_SIGNATURE: Final = b"\x93NUMPY"
SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
SIGNATURE_PLACES: Final = (0, 512, 1024, 2048)
COMPANION_FOLDERS: Final = ("../flyXRF.h5", "flyXRF.h5", "../flyXRF", "flyXRF", ".")
"""Folders of the spectra of a fly scan, from the folder of its MDA file, the nearest first."""

MEMBER_NAME: Final = re.compile(r"^(?P<stem>.+)\.h5(?P<number>\d+)$")
"""A detector of a MAPS scan: `X.h50` .. `X.h5N`."""
_MOST_MEMBERS: Final = 16
_HDF5_NAME: Final = re.compile(r"\.(h5\d*|hdf5?|nxs|hspy)")


def is_hdf5(head: bytes) -> bool:
    """True where the first bytes are those of an HDF5 file."""
    return any(head.startswith(SIGNATURE, place) for place in SIGNATURE_PLACES)


def belies_its_name(path: Path, head: bytes) -> bool:
    """Whether a file that no reader takes is named as a scan: another file, a web page, is in the place of one.

    Args:
        path: the file.
        head: its first bytes.
    """
    suffix = path.suffix.lower()
    # Real HDF5 without spectra may be anything; what begins as an MDA file has been taken by its reader.
    is_named = suffix in {".mda", ".npy"} or _HDF5_NAME.fullmatch(suffix) is not None
    return is_named and not is_hdf5(head) and not head.startswith(NPY_SIGNATURE)


def list_member_names(path: Path) -> tuple[Path, ...]:
    """Where the detectors of a MAPS scan lie, if they are there; nothing of other files.

    Args:
        path: one of them.
    """
    match = MEMBER_NAME.match(path.name)
    if match is None:
        return ()
    return tuple(path.with_name(f"{match['stem']}.h5{number}") for number in range(_MOST_MEMBERS))
