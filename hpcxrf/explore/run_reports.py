"""Reports of runs, served read-only: their own files by a fixed rule, in a page that cannot reach the explorer.

A report is HTML with scripts that lies in a run directory, where others may have written it; at the explorer's own
address its scripts could do whatever the explorer's page can. So its answers carry a policy that gives it an origin of
its own (`sandbox`) and no connection to anywhere. Such a page has no cookies: what opens its files is the address
itself, which has a code of the run in it, made from a key that is new with every start.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

from hpcxrf.config.untrusted import read_regular
from hpcxrf.errors import OutputError
from hpcxrf.explore.access import REPORT_PATH, is_same
from hpcxrf.explore.exchange import Answer, answer_fault
from hpcxrf.explore.runs import Runs, find_run
from hpcxrf.store.rundir import RunDir
from hpcxrf.workloads import WORKLOADS

MOST_BYTES: Final = 256 << 20
"""Of a file of a report."""
_ID: Final = r"[A-Za-z0-9_]+(?:-+[A-Za-z0-9_]+)*"
_KINDS: Final[Mapping[str, tuple[str, re.Pattern[str]]]] = {
    "page": (
        "text/html; charset=utf-8",
        re.compile(rf"(?:{'|'.join(re.escape(one.page) for one in WORKLOADS.values())}|pages/{_ID}\.html)"),
    ),
    "script": ("text/javascript; charset=utf-8", re.compile(rf"pages/{_ID}\.files/[a-z0-9_]+\.js")),
    "table": ("text/csv; charset=utf-8", re.compile(rf"tables/{_ID}(?:\.[a-z_]+)?\.csv")),
}
"""Type and form of the name, within the run directory, of all that is served."""
_POLICY: Final = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline' 'self'; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; connect-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": _POLICY,
    # A page without an origin loads its side files as a stranger would; its address is what lets it.
    "Cross-Origin-Resource-Policy": "cross-origin",
    # Browsers show no sandboxed page that asks for a group of its own; it has no opener either way.
    "Cross-Origin-Opener-Policy": "unsafe-none",
}


def write_address(runs: Runs, key: str, page: str) -> str:
    """Write the address of a file of a report."""
    return f"{REPORT_PATH}{_write_code(runs, key)}/{key}/{page}"


def answer_report(runs: Runs, path: str) -> Answer:
    """Answer a file of a report.

    Args:
        runs: the runs that may be looked at.
        path: path of the address, as it was asked for.
    """
    code, _, rest = path.removeprefix(REPORT_PATH).partition("/")
    for key in _split_keys(rest):
        if is_same(code, _write_code(runs, key)):
            return _answer_file(find_run(runs, key), unquote(rest.removeprefix(f"{key}/")))
    return answer_fault(403, "not an address of this start; open the report from the list of runs")


def _split_keys(rest: str) -> list[str]:
    """The keys that an address may mean: runs lie one or two levels deep."""
    parts = rest.split("/")
    return ["/".join(parts[:n]) for n in (1, 2) if len(parts) > n]


def _write_code(runs: Runs, key: str) -> str:
    return hmac.new(runs.report_key, b"report:" + key.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:32]


def _answer_file(run: RunDir, name: str) -> Answer:
    kind = next((kind for kind, form in _KINDS.values() if form.fullmatch(name)), None)
    if kind is None or not _is_in_place(run, name):
        return answer_fault(404, "a report has no such file; stores are opened from the list of runs")
    try:
        content = read_regular(run.path / name, OutputError, largest=MOST_BYTES)
    except OutputError:
        return answer_fault(404, "this file of the report is not there, or cannot be read; `hpcxrf report` writes it")
    headers = dict(_HEADERS) | ({"Content-Disposition": "attachment"} if kind.startswith("text/csv") else {})
    return Answer(kind=kind, body=content, headers=headers)


def _is_in_place(run: RunDir, name: str) -> bool:
    """Whether a file of a run is where its name says: what is a link, or lies beyond one, is none of its report."""
    try:
        return (run.path / name).resolve() == run.path.resolve() / name
    except (OSError, RuntimeError):
        return False
