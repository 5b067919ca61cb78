"""What the headers of text files say of their spectra: date, sample, instrument."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hpcxrf.formats.origin import Origin, parse_date
from hpcxrf.formats.text_files import decode_text

_HEAD_BYTES: Final = 65536
_DATE: Final[Mapping[str, re.Pattern[str]]] = {
    "epics-mca": re.compile(r"(?m)^\s*DATE:[ \t]*(.+)$"),
    "amptek-pmca": re.compile(r"(?m)^START_TIME - (.+)$"),
    "iaea-spe": re.compile(r"(?m)^\$DATE_MEA:?\s*\n(.+)$"),
    "spec": re.compile(r"(?m)^#D (.+)$"),
}
_SAMPLE: Final[Mapping[str, re.Pattern[str]]] = {
    "amptek-pmca": re.compile(r"(?m)^DESCRIPTION -[ \t]*(.+)$"),
    "iaea-spe": re.compile(r"(?m)^\$SPEC_ID:?[ \t]*\n([^$\n].*)$"),
}
_EMSA: Final = re.compile(r"(?m)^#(DATE|TIME|TITLE|OWNER)\b[^:\n]*:[ \t]*(.*)$")
_SPX: Final = re.compile(r"<(Date|Time)>([^<]{1,40})</\1>")


def read_text_origin(path: Path, format_name: str) -> Origin:
    """Read the header of a text file.

    Args:
        path: the file, which its reader has opened before.
        format_name: name of its format.
    """
    with path.open("rb") as file:
        text = decode_text(file.read(_HEAD_BYTES)).replace("\r\n", "\n").replace("\r", "\n")
    if format_name == "emsa":
        fields = {key: value.strip() for key, value in _EMSA.findall(text)}
        stamp = f"{fields.get('DATE', '')} {fields.get('TIME', '')}"
        return Origin(date=parse_date(stamp), sample=fields.get("TITLE") or None)
    if format_name == "bruker-spx":
        stamps = dict(reversed(_SPX.findall(text)))
        return Origin(date=parse_date(f"{stamps.get('Date', '')} {stamps.get('Time', '')}"))
    date, sample = _DATE.get(format_name), _SAMPLE.get(format_name)
    found = None if date is None else date.search(text)
    named = None if sample is None else sample.search(text)
    return Origin(
        date=None if found is None else parse_date(found[1]), sample=None if named is None else named[1].strip() or None
    )
