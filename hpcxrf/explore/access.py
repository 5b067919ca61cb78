"""Who may look: a secret that is exchanged for a cookie, and requests of our own page alone.

Loopback is open to every user of a machine, and a browser sends requests of any page to it. So whatever is asked needs
the cookie, names a host that is this machine's loopback (a name that resolves to it is another's), and, where it could
change something, comes from our own page.
"""

import hmac
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from hpcxrf.cluster.dashboard import is_own_page, new_token

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
MOST_BODY_BYTES: Final = 1 << 20
OPEN_PATH: Final = "/open"
REPORT_PATH: Final = "/report/"
"""Addresses of reports have a code in them that stands in the place of the cookie: `hpcxrf.explore.run_reports`."""
_FREE_PATHS: Final = ("/", OPEN_PATH)
_PAGE_PATH: Final = "/page/"
_FIRST_USER: Final = 1000
"""Accounts of people have this number or a higher one; those below are the system's."""
_NOBODY: Final = 60_000

HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Headers of every answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What a browser must know; new with every start, and nowhere but in memory and in the address that is printed."""

    secret: str
    """In the fragment of the address, which browsers do not send: the page sends it once."""
    cookie_name: str
    """Its own at every start: cookies of one host are those of all its ports."""
    cookie_value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a request is not answered."""

    status: int
    reason: str


def new_access() -> Access:
    """Make a secret of 128 bits, and a cookie of as many."""
    return Access(secret=new_token(), cookie_name=f"hpcxrf-{new_token()[:8]}", cookie_value=new_token())


def find_refusal(access: Access, method: str, path: str, headers: Mapping[str, str], body_bytes: int) -> Refusal | None:
    """Check a request before anything of it is used.

    Args:
        access: of this server.
        method: `GET` or `POST`.
        path: path of the address, without its query.
        headers: headers by name.
        body_bytes: length of the body.

    Returns:
        None: it may be answered.
    """
    refusals = (
        _refuse_method(method),
        _refuse_page(method, path, headers),
        _refuse_body(headers, body_bytes) if method == "POST" else None,
        _refuse_stranger(access, path, headers),
    )
    return next((one for one in refusals if one is not None), None)


def _refuse_method(method: str) -> Refusal | None:
    return None if method in {"GET", "POST"} else Refusal(status=405, reason="only GET and POST are answered")


def _refuse_page(method: str, path: str, headers: Mapping[str, str]) -> Refusal | None:
    """Refuse what was not asked by our own page, or by a person who typed the address."""
    host = headers.get("Host", "")
    if not is_loopback(host):
        return Refusal(status=403, reason="not the loopback; open the address that `hpcxrf explore` printed")
    if method == "GET" and path.startswith(REPORT_PATH):
        # The page of a report has no origin: whatever it asks for is of another site.
        return None
    origin = headers.get("Origin", "")
    own = origin.startswith("http://") and is_own_page(origin, host)
    site = headers.get("Sec-Fetch-Site", "same-origin")
    if site not in {"same-origin", "none"} or (method == "POST" and not own):
        return Refusal(status=403, reason="requests of other pages are not answered")
    return None


def _refuse_body(headers: Mapping[str, str], body_bytes: int) -> Refusal | None:
    if headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
        return Refusal(status=415, reason="the body must be JSON (Content-Type: application/json)")
    if body_bytes > MOST_BODY_BYTES:
        return Refusal(status=413, reason=f"the body has {body_bytes} bytes, at most {MOST_BODY_BYTES} are read")
    return None


def _refuse_stranger(access: Access, path: str, headers: Mapping[str, str]) -> Refusal | None:
    if (
        path in _FREE_PATHS
        or path.startswith((_PAGE_PATH, REPORT_PATH))
        or has_cookie(access, headers.get("Cookie", ""))
    ):
        return None
    return Refusal(
        status=403, reason="no access, or that of another start; open the address that `hpcxrf explore` printed"
    )


def is_loopback(host: str) -> bool:
    """Whether the header Host names the loopback, at any port: a tunnel may end at any of the user's own machine."""
    try:
        split = urlsplit(f"//{host}")
        port_is_sound = split.port is None or split.port > 0
    except ValueError:
        return False
    plain = not (split.path or split.query or split.fragment or "@" in split.netloc)
    return plain and port_is_sound and split.hostname in LOOPBACK


def has_cookie(access: Access, header: str) -> bool:
    """Whether the header Cookie has the cookie of this server."""
    try:
        cookie = SimpleCookie(header).get(access.cookie_name)
    except CookieError:
        return False
    return cookie is not None and is_same(cookie.value, access.cookie_value)


def is_same(given: object, wanted: str) -> bool:
    """Compare in a time that does not tell how much of it is right."""
    return isinstance(given, str) and hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def write_cookie(access: Access) -> str:
    """Write the header Set-Cookie: no script reads it, and requests of other sites do not carry it."""
    return f"{access.cookie_name}={access.cookie_value}; Path=/; HttpOnly; SameSite=Strict"


def explain_sharing(processes: Path = Path("/proc")) -> str:
    """Say why this machine looks as if others work on it too, so that its loopback is not the user's alone.

    It does where Slurm is: a login node, or a node of a job; where processes of others are hidden, as administrators of
    shared machines do; and where another person's account (number 1000 or above) has a process right now.

    Args:
        processes: folder in which the system shows its processes.

    Returns:
        Empty: nothing speaks for it.
    """
    if "SLURM_JOB_ID" in os.environ or shutil.which("sbatch") is not None:
        return "it belongs to a Slurm cluster"
    if not sys.platform.startswith("linux") or not processes.is_dir():
        return ""
    if _hides_processes(processes):
        return "processes of other users are hidden on it"
    return "another user works on it" if _has_other_people(processes) else ""


def _has_other_people(processes: Path) -> bool:
    mine = os.getuid()
    with os.scandir(processes) as entries:
        for entry in entries:
            if not entry.name.isdecimal():
                continue
            try:
                owner = entry.stat().st_uid
            except OSError:
                # It has ended meanwhile.
                continue
            if _FIRST_USER <= owner < _NOBODY and owner != mine:
                return True
    return False


def _hides_processes(processes: Path) -> bool:
    try:
        mounts = (processes / "mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    fields = [line.split() for line in mounts.splitlines()]
    options = [one for row in fields if row[1:2] == [str(processes)] for one in row[3].split(",")]
    return any(one.startswith("hidepid=") and one not in {"hidepid=0", "hidepid=off"} for one in options)
