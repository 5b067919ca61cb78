"""Ways to damage a file: bytes, numbers, words, and the values of JSON."""

import json
import random
import re
import struct

EXTREMES = (0, 1, -1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, -(2**31), 2**32 - 1, 2**40, 2**63 - 1, -(2**63))
WORDS = (
    *(
        "0",
        "-1",
        "1e300",
        "-1e-300",
        "nan",
        "inf",
        "9" * 5000,
        "18446744073709551616",
        "[" * 200,
        "{",
        "}",
        "\x1b]0;x\x07",
    ),
    *(
        "!!timestamp x",
        "!!python/name:os.system",
        "&a [*a]",
        "null",
        "true",
        "\n",
        "\0",
        "\udcff",
        "../" * 300,
        "{a: {b: c}}",
    ),
)
VALUES = (None, True, 0, -1, 2**70, 1e300, "", "x" * 1000, "\x1b[2J\n", [], [[]], {}, {"a": 1}, [None], ["/dev/zero"])


def mutate(content: bytes, draw: random.Random, other: bytes) -> bytes:
    """Damage a file once to four times; `other` is material to splice in."""
    for _ in range(draw.choice((1, 1, 2, 4))):
        content = draw.choice(MUTATORS)(content, draw, other)
    return content


def flip_bits(content, draw, _other):
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 3, 16))):
        if changed:
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def cut(content, draw, _other):
    return content[: draw.randrange(len(content) + 1)]


def remove(content, draw, _other):
    start = draw.randrange(len(content) + 1)
    return content[:start] + content[start + draw.choice((1, 2, 4, 8, 64, 512)) :]


def repeat(content, draw, _other):
    start, size = draw.randrange(len(content) + 1), draw.choice((1, 4, 16, 256))
    return content[:start] + content[start : start + size] * draw.choice((2, 3, 50)) + content[start + size :]


def splice(content, draw, other):
    start, size = draw.randrange(len(other) + 1), draw.choice((4, 16, 256))
    place = draw.randrange(len(content) + 1)
    return content[:place] + other[start : start + size] + content[place + draw.choice((0, size)) :]


def set_number(content, draw, _other):
    """An integer of a header becomes an extreme, in either byte order."""
    size = draw.choice((1, 2, 4, 8))
    # Headers are at the start of most formats.
    place = draw.randrange(max(1, min(len(content), draw.choice((64, 1024, len(content) or 1)))))
    value = draw.choice(EXTREMES) & (2 ** (8 * size) - 1)
    return content[:place] + value.to_bytes(size, draw.choice(("little", "big"))) + content[place + size :]


def set_float(content, draw, _other):
    value = draw.choice((float("nan"), float("inf"), -1.0, 1e300, 5e-324))
    place = draw.randrange(len(content) + 1)
    return content[:place] + struct.pack(draw.choice("<>") + "d", value) + content[place + 8 :]


def replace_word(content, draw, _other):
    words = list(re.finditer(rb"[A-Za-z0-9_.+-]+", content[:20_000]))
    if not words:
        return content
    word = draw.choice(words)
    new = draw.choice(WORDS).encode("utf-8", "surrogateescape")
    return content[: word.start()] + new + content[word.end() :]


def replace_value(content, draw, other):
    """One value of the first JSON text becomes another."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return replace_word(content, draw, other)
    here = document
    while isinstance(here, (dict, list)) and here:
        key = draw.choice(list(here) if isinstance(here, dict) else range(len(here)))
        if draw.random() < 0.4 or not isinstance(here[key], (dict, list)) or not here[key]:
            here[key] = draw.choice(VALUES)
            break
        here = here[key]
    else:
        document = draw.choice(VALUES)
    return json.dumps(document).encode()


MUTATORS = (
    flip_bits,
    flip_bits,
    cut,
    remove,
    repeat,
    splice,
    set_number,
    set_number,
    set_float,
    replace_word,
    replace_value,
)
