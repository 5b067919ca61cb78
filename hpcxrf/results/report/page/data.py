"""Numbers inside a page: JSON that no name can break out of, arrays of float32, pictures of 8 bit."""

import base64
import json
import struct
import zlib
from typing import Final

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

# What would end the block, or begin another one, in HTML.
_UNSAFE: Final = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def pack_json(value: object) -> Markup:
    """JSON for a block `<script type="application/json">`, which browsers do not execute.

    Raises:
        ValueError: NaN or infinity, which JSON does not have.
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":")).translate(_UNSAFE)
    return Markup(text)  # noqa: S704  no character that HTML knows is left


def pack_floats(values: NDArray[np.floating]) -> str:
    """Base64 of float32, least significant byte first: 5.3 characters a number, NaN included."""
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def pack_png(index: NDArray[np.uint8], colours: bytes, opacity: bytes = b"") -> str:
    """`data:` address of a PNG with a palette, each pixel its index: 8 bit and exact.

    Args:
        index: (y, x).
        colours: red, green and blue of every index.
        opacity: of the first indices, 0 to 255; the others are opaque.
    """
    return f"data:image/png;base64,{base64.b64encode(encode_png(index, colours, opacity)).decode()}"


def encode_png(index: NDArray[np.uint8], colours: bytes, opacity: bytes = b"", *, text: str = "") -> bytes:
    """PNG with a palette, each pixel its index.

    Args:
        index: (y, x).
        colours: red, green and blue of every index.
        opacity: of the first indices, 0 to 255; the others are opaque.
        text: description that the file keeps.
    """
    height, width = index.shape
    # Every row begins with its filter, 0: neighbours in a map are not alike enough for another one to pay.
    rows = np.zeros((height, width + 1), dtype=np.uint8)
    rows[:, 1:] = index
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", colours),
        *([(b"tRNS", opacity)] if opacity else []),
        *([(b"iTXt", b"Description\0\0\0\0\0" + text.encode("utf-8", "replace"))] if text else []),
        (b"IDAT", zlib.compress(rows.tobytes(), 3)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
