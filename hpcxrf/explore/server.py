"""The explorer's HTTP: plain handlers over one scan, each a function from a request to an answer.

What takes long runs in threads of one task at a time: `counts` adds up spectra, `maps` reads maps, `fits` speaks with
the process that fits. So the loop always answers, a map does not wait for a sum, and what nobody waits for any more is
not begun.
"""

import asyncio
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from hpcxrf.errors import ConfigError, HpcxrfError
from hpcxrf.explore.access import OPEN_PATH, REPORT_PATH, find_refusal, is_same, write_cookie
from hpcxrf.explore.describe import describe_scan, describe_spectrum
from hpcxrf.explore.exchange import BYTES, Answer, Request, answer_error, answer_fault, answer_json
from hpcxrf.explore.explorer import Explorer, find_fits, find_session, reopen
from hpcxrf.explore.page_files import PAGE_PATH
from hpcxrf.explore.run_handlers import RUN_ANSWERS
from hpcxrf.explore.run_reports import answer_report
from hpcxrf.explore.runs import Runs, name_in_run
from hpcxrf.explore.session import MapView
from hpcxrf.explore.tiles import NobodyWaitsError

_LARGEST_SIDE: Final = 4096
_POLL_S: Final = 0.15
_POLL_STEP_S: Final = 0.01
_NO_RUNS: Final = "these are results without their run; start `hpcxrf explore` with the run directory or its folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """What answers the requests of one method and path."""

    pool: str
    """Threads in which it runs; empty: it does not wait, and runs in the loop."""
    answer: Callable[[Explorer, Request], Answer]


async def answer_request(explorer: Explorer, request: Request, headers: Mapping[str, str]) -> Answer:
    """Answer a request, whatever it is.

    Args:
        explorer: what is served.
        request: method, path, query, body.
        headers: headers by name.
    """
    refusal = find_refusal(explorer.access, request.method, request.path, headers, len(request.body))
    if refusal is not None:
        return answer_fault(refusal.status, refusal.reason)
    explorer.last_used = time.monotonic()
    try:
        return await _handle(explorer, request)
    except NobodyWaitsError:
        return answer_fault(499, "nobody waits for it any more")
    except HpcxrfError as error:
        return answer_error(error)
    except Exception:  # noqa: BLE001  one request that meets a fault of the program does not end the others
        traceback.print_exc(file=sys.stderr)
        return answer_fault(500, "a fault of the program; the terminal of `hpcxrf explore` has the details")


async def _handle(explorer: Explorer, request: Request) -> Answer:
    handler = find_handler(request)
    if handler is None:
        return answer_fault(404, "there is nothing of this name; reload the page")
    if handler.pool:
        return await asyncio.get_running_loop().run_in_executor(
            explorer.pools[handler.pool], lambda: _run(handler, explorer, request)
        )
    if (request.method, request.path) == ("GET", "/api/fit"):
        return await _wait_for_fit(explorer, request)
    return handler.answer(explorer, request)


def _run(handler: Handler, explorer: Explorer, request: Request) -> Answer:
    if request.is_gone():
        raise NobodyWaitsError
    return handler.answer(explorer, request)


def find_handler(request: Request) -> Handler | None:
    """Find what answers a request; None: nothing does."""
    if request.method == "GET" and request.path.startswith(PAGE_PATH):
        return _PAGE
    if request.method == "GET" and request.path.startswith(REPORT_PATH):
        return _REPORT
    return _HANDLERS.get((request.method, request.path))


def _answer_page(explorer: Explorer, _request: Request) -> Answer:
    given = explorer.target.name if explorer.target is not None else str(_require_runs(explorer).folder)
    name = given.rstrip("/").rpartition("/")[2]
    begin = "results" if explorer.runs is None else "maps" if explorer.default else "runs"
    return Answer(kind="text/html; charset=utf-8", body=explorer.files.render(title=name, begin=begin).encode())


def _answer_file(explorer: Explorer, request: Request) -> Answer:
    found = explorer.files.read(request.path.removeprefix(PAGE_PATH))
    if found is None:
        return answer_fault(404, "there is no such file; reload the page")
    kind, content = found
    # Only the page's own files: they are the same for everyone, and change with a new version alone.
    return Answer(kind=kind, body=content)


def _answer_open(explorer: Explorer, request: Request) -> Answer:
    if not is_same(request.read_object().get("secret"), explorer.access.secret):
        return answer_fault(403, "not the secret of this start; open the address that `hpcxrf explore` printed last")
    answer = answer_json({"open": True})
    return Answer(body=answer.body, headers={"Set-Cookie": write_cookie(explorer.access)})


def _answer_scan(explorer: Explorer, request: Request) -> Answer:
    name = request.query.get("dataset")
    described = describe_scan(find_session(explorer, name))
    key = (name or "").rpartition("/")[0]
    return answer_json(name_in_run(described, key) if key else described)


def _answer_map(explorer: Explorer, request: Request) -> Answer:
    session = find_session(explorer, request.query.get("dataset"))
    side = request.whole_number("side", 1, _LARGEST_SIDE) if "side" in request.query else None
    component = request.query.get("component") or None
    return _pack_map(session.map(request.parameter("detector"), request.parameter("layer"), component, side))


def _answer_thumbnails(explorer: Explorer, request: Request) -> Answer:
    session = find_session(explorer, request.query.get("dataset"))
    side = request.whole_number("side", 1, _LARGEST_SIDE) if "side" in request.query else 128
    return _pack_map(session.thumbnails(request.parameter("detector"), request.parameter("layer"), side))


def _pack_map(view: MapView) -> Answer:
    headers = {
        "X-Shape": ",".join(map(str, view.values.shape)),
        "X-Factor": str(view.factor),
        # Headers are Latin-1; the page decodes what is written by %.
        "X-Unit": _quote(view.unit),
    }
    return Answer(kind=BYTES, body=view.values.astype("<f4", copy=False).tobytes(), headers=headers)


def _quote(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe=" /")


def _answer_spectrum(explorer: Explorer, request: Request) -> Answer:
    began = time.perf_counter()
    content = request.read_object()
    session = find_session(explorer, _text_of(content, "dataset"))
    detector = _text_of(content, "detector") or session.detectors[0]
    selected = session.sum_counts(detector, session.select(content.get("selection")), request.is_gone)
    return answer_json(describe_spectrum(session, selected, time.perf_counter() - began))


def _answer_submit(explorer: Explorer, request: Request) -> Answer:
    content = request.read_object()
    dataset, page = content.pop("dataset", None), content.pop("page", "")
    fits, session = find_fits(explorer, dataset), find_session(explorer, dataset)
    selection = content.get("selection")
    if isinstance(selection, dict) and selection.get("kind") == "all":
        return answer_json(fits.submit(content, session=str(page)[:64]))
    mask = session.select(selection)
    parts = fits.detectors_of(_text_of(content, "detector") or "")
    counts = {one: session.sum_counts(str(one), mask).counts.astype(np.int64) for one in parts}
    n_pixels = int(np.count_nonzero(mask))
    return answer_json(fits.submit(content, counts, n_pixels=n_pixels, session=str(page)[:64]))


async def _wait_for_fit(explorer: Explorer, request: Request) -> Answer:
    """Give the state of a fit, once it has ended or a moment has passed."""
    job_id, ends = request.parameter("id"), time.monotonic() + _POLL_S
    name = request.query.get("dataset", explorer.default)
    # Of a run that was given itself the scans are open without its name.
    opened = explorer.opened.get(name) or explorer.opened.get(name.rpartition("/")[2])
    if opened is None or opened.fits is None:
        raise ConfigError(f"no fit was asked for with the id {job_id[:40]!r}; ask for it again")
    while True:
        state = opened.fits.poll(job_id)
        if state["state"] not in {"waiting", "running"} or time.monotonic() > ends:
            return answer_json(state)
        await asyncio.sleep(_POLL_STEP_S)


def _answer_fit(explorer: Explorer, request: Request) -> Answer:
    return answer_json(find_fits(explorer, request.query.get("dataset")).poll(request.parameter("id")))


def _answer_cancel(explorer: Explorer, request: Request) -> Answer:
    content = request.read_object()
    return answer_json(find_fits(explorer, _text_of(content, "dataset")).cancel(_text_of(content, "id") or ""))


def _answer_history(explorer: Explorer, request: Request) -> Answer:
    return answer_json(find_fits(explorer, request.query.get("dataset")).history())


def _answer_one(explorer: Explorer, request: Request) -> Answer:
    return answer_json(find_fits(explorer, request.query.get("dataset")).one(request.parameter("id")))


def _answer_take_back(explorer: Explorer, request: Request) -> Answer:
    return answer_json(find_fits(explorer, _text_of(request.read_object(), "dataset")).take_back())


def _answer_reopen(explorer: Explorer, request: Request) -> Answer:
    return answer_json({"dataset": reopen(explorer, _text_of(request.read_object(), "dataset"))})


def _answer_elements(explorer: Explorer, request: Request) -> Answer:
    return answer_json(find_fits(explorer, request.query.get("dataset")).elements(request.parameter("detector")))


def _answer_write(explorer: Explorer, request: Request) -> Answer:
    content = request.read_object()
    return answer_json(find_fits(explorer, content.pop("dataset", None)).write(content))


def _require_runs(explorer: Explorer) -> Runs:
    if explorer.runs is None:
        raise ConfigError(_NO_RUNS)
    return explorer.runs


def _answer_report(explorer: Explorer, request: Request) -> Answer:
    return answer_report(_require_runs(explorer), request.path)


def _answer_of_runs(answer: Callable[[Runs, Request], Answer]) -> Callable[[Explorer, Request], Answer]:
    return lambda explorer, request: answer(_require_runs(explorer), request)


def _text_of(content: Mapping[str, Any], name: str) -> str | None:
    value = content.get(name)
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{name}: must be a text; reload the page")
    return value


_PAGE: Final = Handler(pool="", answer=_answer_file)
_REPORT: Final = Handler(pool="runs", answer=_answer_report)
_HANDLERS: Final[Mapping[tuple[str, str], Handler]] = {
    ("GET", "/"): Handler(pool="", answer=_answer_page),
    ("POST", OPEN_PATH): Handler(pool="", answer=_answer_open),
    ("GET", "/api/scan"): Handler(pool="maps", answer=_answer_scan),
    ("POST", "/api/reopen"): Handler(pool="maps", answer=_answer_reopen),
    ("GET", "/api/map"): Handler(pool="maps", answer=_answer_map),
    ("GET", "/api/thumbnails"): Handler(pool="maps", answer=_answer_thumbnails),
    ("POST", "/api/spectrum"): Handler(pool="counts", answer=_answer_spectrum),
    ("POST", "/api/fit"): Handler(pool="counts", answer=_answer_submit),
    ("GET", "/api/fit"): Handler(pool="", answer=_answer_fit),
    ("POST", "/api/fit/cancel"): Handler(pool="fits", answer=_answer_cancel),
    ("GET", "/api/history"): Handler(pool="fits", answer=_answer_history),
    ("GET", "/api/history/one"): Handler(pool="fits", answer=_answer_one),
    ("POST", "/api/history/take_back"): Handler(pool="fits", answer=_answer_take_back),
    ("GET", "/api/elements"): Handler(pool="fits", answer=_answer_elements),
    ("POST", "/api/write"): Handler(pool="fits", answer=_answer_write),
    **{asked: Handler(pool=pool, answer=_answer_of_runs(answer)) for asked, (pool, answer) in RUN_ANSWERS.items()},
}
