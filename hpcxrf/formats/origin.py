"""What a file says of its scan beside the spectra, and its date in ISO 8601, whoever wrote it."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

_LONGEST: Final = 64
_FORMS: Final = (
    "%b %d, %Y %H:%M:%S",  # EPICS
    "%b %d %Y %H:%M:%S",
    "%a %b %d %H:%M:%S %Y",  # C's ctime, SPEC
    "%d-%b-%Y %H:%M:%S",  # EMSA
    "%d-%b-%Y %H:%M",
    "%d %b %Y %H:%M:%S",
    "%m/%d/%Y %H:%M:%S",  # Ortec, Amptek
    "%d.%m.%Y %H:%M:%S",  # Bruker
    "%Y/%m/%d %H:%M:%S",
    "%d-%b-%Y",
    "%b %d, %Y",
    "%m/%d/%Y",
    "%d.%m.%Y",
)
_FRACTION: Final = re.compile(r"(:\d\d)[.,](\d{1,9})")
_ZONE: Final = re.compile(r"(?:Z|[+-]\d\d:?\d\d)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Facts of a scan that no fit needs; None where the file does not give them."""

    date: str | None = None
    """Start of the scan, ISO 8601; with `Z`, UTC, where the file says its zone."""
    sample: str | None = None
    instrument: str | None = None
    counts: int | None = None
    """Counts of the integrated spectrum, all detectors, where the file carries one."""


def parse_date(text: str) -> str | None:
    """Read a date and time as ISO 8601.

    Args:
        text: as EPICS, NeXus, SPEC, EMSA, Ortec, Amptek or Bruker write it; days before months only with points.

    Returns:
        Date and time to the second, UTC with a `Z` where the text has a zone; None where it is none of these forms.
    """
    plain = " ".join(text.replace("\0", " ").split())
    if not 6 <= len(plain) <= _LONGEST:
        return None
    plain = _FRACTION.sub(r"\1", plain)
    found = _parse_iso(plain) or next((one for form in _FORMS if (one := _parse_as(plain, form)) is not None), None)
    if found is None:
        return None
    if found.tzinfo is not None:
        try:
            return found.astimezone(UTC).replace(tzinfo=None, microsecond=0).isoformat() + "Z"
        except (OverflowError, ValueError):
            return None
    return found.replace(microsecond=0).isoformat()


def _parse_iso(text: str) -> datetime | None:
    if not text[:4].isdigit() or text[4:5] not in {"-", "/"}:
        return None
    try:
        return datetime.fromisoformat(text.replace("/", "-").removesuffix(" UTC") + ("Z" if " UTC" in text else ""))
    except ValueError:
        # as `2020-01-02 03:04:05 +0100`
        joined = re.sub(r"\s+(?=[+-]\d\d)", "", text)
        try:
            return datetime.fromisoformat(joined) if _ZONE.search(joined) else None
        except ValueError:
            return None


def _parse_as(text: str, form: str) -> datetime | None:
    try:
        return datetime.strptime(text, form)  # noqa: DTZ007 - the file does not say its zone
    except ValueError:
        return None
