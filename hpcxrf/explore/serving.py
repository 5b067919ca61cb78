"""The loop that serves the explorer: tornado's HTTP/1.1 around plain handlers, until nobody asks for hours."""

import asyncio
import logging
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from hpcxrf.explore.access import HEADERS
from hpcxrf.explore.exchange import Answer, Request
from hpcxrf.explore.explorer import Explorer
from hpcxrf.explore.listening import Listening
from hpcxrf.explore.server import answer_request

if TYPE_CHECKING:
    from tornado.httputil import HTTPServerRequest

BODY_LIMIT: Final = 4 << 20
"""Bytes of a body beyond which a connection is closed; of what is above `access.MOST_BODY_BYTES` the answer says so."""
_BODY_S: Final = 30.0
_LONGEST_SLEEP_S: Final = 30.0


async def serve(explorer: Explorer, listening: Listening, *, idle_s: float, ready: Callable[[], None]) -> bool:
    """Answer until nothing was asked for so long, SIGTERM comes, or the task is cancelled.

    Args:
        explorer: what is served.
        listening: where.
        idle_s: time without a request after which the server stops, s.
        ready: called when the door is open.

    Returns:
        True where it was SIGTERM.
    """
    from tornado.httpserver import HTTPServer

    # A browser that is closed in the middle of an answer is no news.
    logging.getLogger("tornado.general").setLevel(logging.ERROR)
    tasks: dict[asyncio.Task[None], threading.Event] = {}

    def receive(received: "HTTPServerRequest") -> None:
        gone = threading.Event()
        task = asyncio.get_running_loop().create_task(_respond(explorer, received, gone))
        tasks[task] = gone
        task.add_done_callback(tasks.pop)

    terminated = _watch_termination()
    server = HTTPServer(receive, max_body_size=BODY_LIMIT, body_timeout=_BODY_S, idle_connection_timeout=3600.0)
    server.add_sockets(listening.sockets)
    try:
        ready()
        while not terminated.is_set() and (left := explorer.last_used + idle_s - time.monotonic()) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(terminated.wait(), timeout=min(left, _LONGEST_SLEEP_S))
    finally:
        server.stop()
        for task, gone in tasks.items():
            # A thread that adds up for it gives up, too.
            gone.set()
            task.cancel()
    return terminated.is_set()


def run_server(explorer: Explorer, listening: Listening, *, idle_s: float, ready: Callable[[], None]) -> bool:
    """Do what `serve` does, outside of any loop; the handler of SIGTERM is afterwards what it was."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        return asyncio.run(serve(explorer, listening, idle_s=idle_s, ready=ready))
    finally:
        # The loop set its own, and removes it with any other.
        signal.signal(signal.SIGTERM, handler)


def _watch_termination() -> asyncio.Event:
    """An event that is set by SIGTERM: what a handler of signals raises inside the loop, the loop may swallow."""
    terminated = asyncio.Event()
    if threading.current_thread() is threading.main_thread():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminated.set)
    return terminated


async def _respond(explorer: Explorer, received: "HTTPServerRequest", gone: threading.Event) -> None:
    from tornado.httputil import HTTPHeaders, ResponseStartLine
    from tornado.iostream import StreamClosedError

    connection = received.connection
    connection.set_close_callback(gone.set)
    request = Request(
        method=received.method,
        path=received.path,
        query={name: values[-1].decode("utf-8", "replace") for name, values in received.query_arguments.items()},
        body=received.body,
        is_gone=gone.is_set,
    )
    answer = await answer_request(explorer, request, received.headers)
    if gone.is_set():
        return
    headers = HTTPHeaders({**HEADERS, **answer.headers, "Content-Type": answer.kind})
    headers["Content-Length"] = str(len(answer.body))
    start = ResponseStartLine("HTTP/1.1", answer.status, _name_status(answer))
    try:
        await connection.write_headers(start, headers, b"" if received.method == "HEAD" else answer.body)
        connection.finish()
    except StreamClosedError:
        return


def _name_status(answer: Answer) -> str:
    try:
        return HTTPStatus(answer.status).phrase
    except ValueError:
        return "Closed"
