"""The Dask dashboard behind a secret path: loopback alone is open to every user of a shared node.

`http_prefix` of distributed puts the pages below /TOKEN, but doors stay open: `/` redirects to the token,
`/sitemap.json` lists every path with the token in it (where bokeh is missing; with it the listing happens to
crash), `/favicon.ico` is served. So nothing is shut one by one: a rule before all others answers 404 to
whatever is not below the token.
"""

import json
import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcxrf.cluster.security import private_folder, write_private

if TYPE_CHECKING:
    from distributed import Scheduler
    from distributed.scheduler import TaskState
    from tornado.httputil import HTTPServerRequest
    from tornado.routing import Rule

FILE_NAME: Final = "dashboard.json"


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
        token: Of `new_token`.
        options: For `distributed.Scheduler`.
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
    """Answer 404 to every path of the scheduler's HTTP server outside /token."""
    scheduler.http_application.default_router.rules.insert(0, _not_found_outside(token))


def _not_found_outside(token: str) -> "Rule":
    from tornado.routing import PathMatches, Rule
    from tornado.web import FallbackHandler

    # token_urlsafe holds no character that is special in a pattern. (?s): a newline is outside, too.
    outside = PathMatches(rf"(?s)(?!/{token}(?:/|$)).*$")
    # Not tornado's ErrorHandler: distributed takes that for "not mine" and asks the next application.
    return Rule(outside, FallbackHandler, {"fallback": _answer_not_found})


def _answer_not_found(request: "HTTPServerRequest") -> None:
    from tornado.httputil import HTTPHeaders, ResponseStartLine

    connection = request.connection
    if connection is None:
        return
    start = ResponseStartLine("HTTP/1.1", 404, "Not Found")
    connection.write_headers(start, HTTPHeaders({"Content-Length": "0"}))
    connection.finish()


def write_dashboard_file(run_dir: Path, *, port: int, token: str) -> Path:
    """Leave `secrets/dashboard.json` (0600 in a 0700 folder) for `hpcxrf dashboard`.

    Its keys are url, host (the node that the tunnel must reach), port and token.

    Raises:
        OutputError: If the folder is not this user's or cannot be written.
    """
    path = private_folder(run_dir / "secrets") / FILE_NAME
    url = dashboard_url(port, token)
    content = {"url": url, "host": socket.gethostname(), "port": port, "token": token}
    write_private(path, json.dumps(content, indent=1) + "\n")
    return path


def remove_dashboard_file(run_dir: Path) -> None:
    """Remove the file of a dashboard that no longer answers; nothing there is no error."""
    (run_dir / "secrets" / FILE_NAME).unlink(missing_ok=True)
