"""The Dask dashboard behind a secret path: loopback alone is open to every user of a shared node.

`http_prefix` of distributed puts the pages below /TOKEN, but doors stay open: `/` redirects to the token,
`/sitemap.json` lists every path with the token in it (where bokeh is missing; with it the listing happens to
crash), `/favicon.ico` is served. So nothing is shut one by one: a rule before all others answers 404 to
whatever is not below the token.

Bokeh's websocket accepts every Origin with the settings of distributed, so a page of any site, opened in the same
browser, could speak to it if it knew the token. A second rule answers 403 to requests of pages of another origin.
"""

import json
import secrets
import socket
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from hpcxrf.cluster.security import private_folder, write_private
from hpcxrf.store.files import output_faults

if TYPE_CHECKING:
    from distributed import Scheduler
    from distributed.scheduler import TaskState
    from tornado.httputil import HTTPServerRequest
    from tornado.routing import Rule

FILE_NAME: Final = "dashboard.json"
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def new_token() -> str:
    """A path element that nobody guesses: 128 random bits, URL-safe."""
    return secrets.token_urlsafe(16)


def dashboard_url(port: int, token: str) -> str:
    """The page to open, on the host of the scheduler or through a tunnel to it."""
    return f"http://127.0.0.1:{port}/{token}/status"


def guarded_scheduler(*, token: str, **options: object) -> "Scheduler":
    """A Scheduler whose HTTP server answers below /token only, and with which tasks wait for a free worker.

    It is closed in the same turn of the event loop that opens the port, before any request is read.

    Args:
        token: result of `new_token`.
        options: options of `distributed.Scheduler`.
    """
    from distributed import Scheduler

    scheduler = Scheduler(http_prefix=token, **options)
    close_root(scheduler, token)
    scheduler.is_rootish = _waits_for_any_worker
    return scheduler


def _waits_for_any_worker(task: "TaskState") -> bool:
    """Whether a task is queued by the scheduler until a worker is free, whichever it is.

    By itself Dask does so with groups of tasks that are large and depend on little, and sends all others at once to
    the worker that has what they depend on: here records of a kilobyte. Then tiles wait behind each other until they
    are stolen, about once a second.
    """
    return not (task.worker_restrictions or task.host_restrictions or task.resource_restrictions)


def close_root(scheduler: "Scheduler", token: str) -> None:
    """Answer 404 to every path of the scheduler's HTTP server outside /token, 403 to pages of another origin."""
    scheduler.http_application.default_router.rules[:0] = [_refuse_outside(token), _refuse_foreign_pages()]


def is_own_page(origin: str, host: str) -> bool:
    """Whether a request comes from a page of the dashboard itself, here or at the end of a tunnel.

    A tunnel may end at any port of the user's own machine. A name that only resolves to the loopback is foreign: its
    owner chooses what it resolves to.

    Args:
        origin: header Origin, `http://localhost:8787`.
        host: header Host, `localhost:8787`.
    """
    page = urlsplit(origin)
    return page.netloc.lower() == host.lower() and page.hostname in _LOOPBACK


def _refuse_outside(token: str) -> "Rule":
    from tornado.routing import PathMatches, Rule
    from tornado.web import FallbackHandler

    # token_urlsafe holds no character that is special in a pattern. (?s): a newline is outside, too.
    outside = PathMatches(rf"(?s)(?!/{token}(?:/|$)).*$")
    # Not tornado's ErrorHandler: distributed takes that for "not mine" and asks the next application.
    return Rule(outside, FallbackHandler, {"fallback": partial(_answer, 404, "Not Found")})


def _refuse_foreign_pages() -> "Rule":
    from tornado.routing import Rule
    from tornado.web import FallbackHandler

    # Programs send no Origin; browsers do with every websocket.
    matcher = SimpleNamespace(match=_match_foreign_page, reverse=lambda *_arguments: None)
    return Rule(matcher, FallbackHandler, {"fallback": partial(_answer, 403, "Forbidden")})


def _match_foreign_page(request: "HTTPServerRequest") -> dict[str, Any] | None:
    origin = request.headers.get("Origin", request.headers.get("Sec-Websocket-Origin"))
    return None if origin is None or is_own_page(origin, request.headers.get("Host", "")) else {}


def _answer(code: int, reason: str, request: "HTTPServerRequest") -> None:
    from tornado.httputil import HTTPHeaders, ResponseStartLine

    connection = request.connection
    if connection is None:
        return
    start = ResponseStartLine("HTTP/1.1", code, reason)
    connection.write_headers(start, HTTPHeaders({"Content-Length": "0"}))
    connection.finish()


def write_dashboard_file(run_dir: Path, *, port: int, token: str) -> Path:
    """Leave `secrets/dashboard.json` (0600 in a 0700 folder) for `hpcxrf dashboard`.

    Its keys are url, host (the node that the tunnel must reach), port and token.

    Raises:
        OutputError: the folder is not this user's or cannot be written.
    """
    path = private_folder(run_dir / "secrets") / FILE_NAME
    url = dashboard_url(port, token)
    content = {"url": url, "host": socket.gethostname(), "port": port, "token": token}
    write_private(path, json.dumps(content, indent=1) + "\n")
    return path


def remove_dashboard_file(run_dir: Path) -> None:
    """Remove the file of a dashboard that no longer answers; nothing there is no error.

    Raises:
        OutputError: the folder cannot be written.
    """
    with output_faults(run_dir, bytes_needed=0):
        (run_dir / "secrets" / FILE_NAME).unlink(missing_ok=True)
