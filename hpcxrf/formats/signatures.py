"""How files begin and where they lie; known without the libraries that read them."""

from typing import Final

NPY_SIGNATURE: Final = b"\x93NUMPY"
SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
SIGNATURE_PLACES: Final = (0, 512, 1024, 2048)
COMPANION_FOLDERS: Final = ("../flyXRF.h5", "flyXRF.h5", "../flyXRF", "flyXRF", ".")
"""Folders of the spectra of a fly scan, from the folder of its MDA file, the nearest first."""


def is_hdf5(head: bytes) -> bool:
    """True where the first bytes are those of an HDF5 file."""
    return any(head.startswith(SIGNATURE, place) for place in SIGNATURE_PLACES)
