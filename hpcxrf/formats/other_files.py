"""Files that are known and hold no spectra that can be read: what they are, and what to do."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_XDI: Final = re.compile(rb"\s*#\s*XDI/")
_ATHENA: Final = re.compile(rb"(?im)^[ \t]*[#%][ \t]*(?:athena|artemis|demeter|larch)\b")
_MANY_BYTES: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherFile:
    """What a file is, and the remedy."""

    kind: str
    """With its article, as in `an image (TIFF)`."""
    remedy: str


_EXPORT_SPECTRA: Final = "give the file of the spectra"
_IMAGES: Final = (
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "BigTIFF"),
    (b"MM\0+", "BigTIFF"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
)
_DOCUMENTS: Final = {
    b"%PDF-": "a PDF document",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "a file of an office program (.xls, .doc)",
}
_HANDHELD: Final = {
    ".pdz": OtherFile(
        kind="a handheld instrument's own file (Bruker .pdz)",
        remedy="export it in the instrument's program (Bruker Toolbox, S1PXRF or ARTAX) as .csv, .txt or .spx",
    ),
    ".dms": OtherFile(
        kind="a handheld instrument's own file (.dms)",
        remedy="export the spectra in the instrument's program as .csv (energy and counts) or .msa",
    ),
    ".ndt": OtherFile(
        kind="a handheld instrument's own file (Niton .ndt)",
        remedy="export the spectra in NDT or NitonConnect as .csv (energy and counts)",
    ),
}


def recognise_other(path: Path, head: bytes) -> OtherFile | None:
    """Recognise a file that holds no spectra, or none that anybody but its maker can read; None for all others."""
    handheld = _HANDHELD.get(path.suffix.lower())
    if handheld is not None:
        return handheld
    image = next((name for mark, name in _IMAGES if head.startswith(mark)), None)
    if image is not None and (image != "BMP" or _is_bitmap(path, head)):
        return OtherFile(kind=f"an image ({image}), not spectra", remedy=_EXPORT_SPECTRA)
    if _XDI.match(head) or (_ATHENA.search(head) and b"@A" not in head):
        return OtherFile(kind="an absorption spectrum (XANES or EXAFS)", remedy=_EXPORT_SPECTRA)
    document = next((name for mark, name in _DOCUMENTS.items() if head.startswith(mark)), None)
    return None if document is None else OtherFile(kind=document, remedy="save the table of the spectra as .csv")


def _is_bitmap(path: Path, head: bytes) -> bool:
    """Tell whether `BM` begins a bitmap: the size of the file follows it."""
    try:
        return len(head) > _MANY_BYTES and int.from_bytes(head[2:6], "little") == path.stat().st_size
    except OSError:
        return False
