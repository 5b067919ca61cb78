"""The handlers of the explorer: what they answer to whom, one at a time and at once."""

import asyncio
import json
import threading
import time

import numpy as np
import pytest
from explore_samples import NAME, SHAPE_YX

from hpcxrf.errors import ConfigError
from hpcxrf.explore.access import new_access
from hpcxrf.explore.exchange import Request
from hpcxrf.explore.explorer import close_explorer, make_explorer
from hpcxrf.explore.server import answer_request
from hpcxrf.explore.session import Session
from hpcxrf.explore.targets import find_target

HOST = "127.0.0.1:8000"
POINT = {"kind": "pixel", "y": 2, "x": 3}


class StandInFits:
    """Fits that are done after two looks at them."""

    def __init__(self, session):
        self.session, self.calls, self.looks, self.closed = session, [], 0, False

    def detectors_of(self, name):
        return {"sum": (0, 1)}.get(name) or (int(name),)

    def submit(self, request, counts=None, *, n_pixels=None, session=""):
        self.calls.append((dict(request), counts, n_pixels, session))
        return {"id": "a1"}

    def poll(self, job_id):
        if job_id != "a1":
            raise ConfigError(f"no fit {job_id}")
        self.looks += 1
        return {"id": job_id, "state": "done" if self.looks > 2 else "running", "fit": {"r2": float("nan")}}

    def cancel(self, job_id):
        return {"id": job_id, "state": "cancelled"}

    def history(self):
        return [{"id": "a1"}]

    def one(self, fit_id):
        return {"id": fit_id, "spectrum": {}}

    def take_back(self):
        return None

    def elements(self, detector):
        return [{"symbol": "Fe", "detector": detector}]

    def write(self, request):
        return {"file_name": "override.txt", "text": json.dumps(request), "command": "hpcxrf run"}

    def close(self):
        self.closed = True


@pytest.fixture
def explorer(made):
    opened = make_explorer(find_target(made.folder), None, new_access(), StandInFits)
    yield opened
    close_explorer(opened)


def ask(explorer, method, target, body=None, **headers):
    path, _, query = target.partition("?")
    pairs = dict(part.split("=") for part in query.split("&") if part)
    content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    request = Request(method=method, path=path, query=pairs, body=content)
    own = {
        "Host": HOST,
        "Origin": f"http://{HOST}",
        "Content-Type": "application/json",
        "Cookie": f"{explorer.access.cookie_name}={explorer.access.cookie_value}",
    }
    return answer_request(explorer, request, own | headers)


def get(explorer, target, **headers):
    return asyncio.run(ask(explorer, "GET", target, **headers))


def post(explorer, target, body, **headers):
    return asyncio.run(ask(explorer, "POST", target, body, **headers))


def read(answer):
    assert answer.kind.startswith("application/json")
    return json.loads(answer.body)


def test_the_secret_is_exchanged_for_the_cookie_and_another_one_is_not(explorer):
    opened = post(explorer, "/open", {"secret": explorer.access.secret}, Cookie="")
    assert opened.status == 200
    cookie = opened.headers["Set-Cookie"].split(";")[0]
    assert get(explorer, "/api/scan", Cookie=cookie).status == 200
    for wrong in ("", "x", None, 3, explorer.access.cookie_value, new_access().secret):
        refused = post(explorer, "/open", {"secret": wrong}, Cookie="")
        assert refused.status == 403
        assert "Set-Cookie" not in refused.headers
        assert "printed last" in read(refused)["error"]
    assert post(explorer, "/open", {}, Cookie="").status == 403


def test_a_secret_and_a_cookie_of_an_earlier_start_are_worth_nothing(explorer, made):
    later = make_explorer(find_target(made.folder), None, new_access())
    cookie = f"{explorer.access.cookie_name}={explorer.access.cookie_value}"
    assert post(later, "/open", {"secret": explorer.access.secret}, Cookie="").status == 403
    assert get(later, "/api/scan", Cookie=cookie).status == 403
    close_explorer(later)


def test_maps_come_as_numbers_with_their_shape(explorer):
    session = explorer.opened[NAME].session
    answer = get(explorer, "/api/map?detector=0&layer=amplitude&component=Fe")
    values = np.frombuffer(answer.body, "<f4").reshape(SHAPE_YX)
    np.testing.assert_array_equal(values, session.map("0", "amplitude", "Fe").values)
    assert answer.headers["X-Shape"] == "21,33"
    assert answer.headers["X-Unit"] == "counts"
    small = get(explorer, "/api/thumbnails?detector=sum&layer=misfit&side=11")
    assert small.headers["X-Shape"] == "1,7,11"
    assert small.headers["X-Factor"] == "3"
    assert small.headers["X-Unit"] == "%CF%83"
    assert len(small.body) == 4 * 7 * 11


def test_the_counts_of_a_pixel_are_those_of_the_store(explorer, made):
    told = read(post(explorer, "/api/spectrum", {"detector": "sum", "selection": POINT}))
    assert told["counts"] == made.counts[:, 2, 3].sum(axis=0).tolist()
    assert told["n_pixels"] == 1
    assert told["seconds"] >= 0


@pytest.mark.parametrize(
    ("target", "fault"),
    [
        ("/api/map?layer=amplitude&component=Fe", "detector is missing"),
        ("/api/map?detector=9&layer=amplitude&component=Fe", "detector '9'"),
        ("/api/map?detector=0&layer=../x&component=Fe", "layer '../x'"),
        ("/api/map?detector=0&layer=amplitude&component=<script>", "component '<script>'"),
        ("/api/map?detector=0&layer=amplitude&component=Fe&side=0", "must be 1 to 4096"),
        ("/api/map?detector=0&layer=amplitude&component=Fe&side=1e9", "must be 1 to 4096"),
        ("/api/thumbnails?detector=0&layer=amplitude&side=%", "must be 1 to 4096"),
        ("/api/scan?dataset=../../etc/passwd", "not a dataset"),
        ("/api/fit?id=zz", "no fit"),
    ],
)
def test_what_is_not_there_is_a_sentence(explorer, target, fault):
    answer = get(explorer, target)
    assert answer.status == 400
    assert fault in read(answer)["error"]


@pytest.mark.parametrize(
    "body", [b"", b"[1]", b"{", b'{"a": NaN}', b"\xff\xfe", b"[" * 5000, b'{"a":' * 60 + b"1" + b"}" * 60]
)
def test_bodies_that_are_not_objects_are_refused(explorer, body):
    answer = post(explorer, "/api/spectrum", body)
    assert answer.status == 400
    assert "JSON" in read(answer)["error"]


def test_bodies_beyond_the_limit_are_refused_before_they_are_read(explorer):
    answer = post(explorer, "/api/spectrum", b" " * ((1 << 20) + 1))
    assert answer.status == 413
    assert "1048577 bytes" in read(answer)["error"]


@pytest.mark.parametrize(
    "name",
    [
        "../server.py",
        "..%2fserver.py",
        "/etc/passwd",
        "explore.html.j2",
        "",
        "spectrum.js/../../x",
        "__init__.py",
        ".",
        "a\0b",
    ],
)
def test_no_file_is_served_that_is_not_of_the_list(explorer, name):
    assert get(explorer, f"/page/{name}").status == 404


def test_the_files_of_the_page_are_served_to_anybody_and_nothing_else_is(explorer):
    page = get(explorer, "/", Cookie="")
    assert page.status == 200
    assert b"<script defer src=" in page.body
    assert explorer.access.secret.encode() not in page.body
    script = get(explorer, "/page/spectrum.js", Cookie="")
    assert script.kind.startswith("text/javascript")
    assert b"use strict" in script.body
    for target in ("/api/scan", "/nothing", "/api/history", "/secrets"):
        assert get(explorer, target, Cookie="").status == 403
    assert get(explorer, "/nothing").status == 404
    assert post(explorer, "/api/scan", {}).status == 404


def test_names_of_a_run_cannot_break_out_of_the_page(made, tmp_path):
    strange = tmp_path / "<script>alert(1)<"
    strange.symlink_to(made.folder)
    opened = make_explorer(find_target(strange), None, new_access())
    assert b"<script>alert" not in get(opened, "/").body
    close_explorer(opened)


def test_fits_get_the_counts_of_the_selection_and_those_of_the_whole_scan_are_the_runs(explorer, made):
    request = {"detector": "sum", "selection": POINT, "kind": "full", "page": "p1"}
    assert read(post(explorer, "/api/fit", request)) == {"id": "a1"}
    assert read(post(explorer, "/api/fit", request | {"selection": {"kind": "all"}})) == {"id": "a1"}
    fits = explorer.opened[NAME].fits
    sent, counts, n_pixels, page = fits.calls[0]
    assert sent == {"detector": "sum", "selection": POINT, "kind": "full"}
    np.testing.assert_array_equal(counts[1], made.counts[1, 2, 3])
    assert set(counts) == {0, 1}
    assert (n_pixels, page) == (1, "p1")
    assert fits.calls[1][1:3] == (None, None)
    assert post(explorer, "/api/fit", request | {"selection": {"kind": "box"}}).status == 400


def test_a_fit_is_waited_for_a_moment(explorer):
    post(explorer, "/api/fit", {"detector": "0", "selection": POINT})
    state = read(get(explorer, "/api/fit?id=a1"))
    assert state == {"id": "a1", "state": "done", "fit": {"r2": None}}
    explorer.opened[NAME].fits.looks = -(10**6)
    began = time.monotonic()
    assert read(get(explorer, "/api/fit?id=a1"))["state"] == "running"
    assert 0.14 < time.monotonic() - began < 2.0
    assert get(explorer, "/api/fit?id=a2").status == 400


def test_history_elements_and_texts_are_those_of_the_fits(explorer):
    assert read(get(explorer, "/api/history")) == [{"id": "a1"}]
    assert read(get(explorer, "/api/history/one?id=run-0"))["id"] == "run-0"
    assert read(post(explorer, "/api/history/take_back", {})) is None
    assert read(get(explorer, "/api/elements?detector=1"))[0]["detector"] == "1"
    assert read(post(explorer, "/api/fit/cancel", {"id": "a1"}))["state"] == "cancelled"
    text = read(post(explorer, "/api/write", {"kind": "override", "fit": None}))
    assert json.loads(text["text"]) == {"kind": "override", "fit": None}


def test_without_fits_they_are_refused_with_the_remedy(made):
    opened = make_explorer(find_target(made.results), None, new_access())
    assert read(get(opened, "/api/history"))["error"].endswith("start `hpcxrf explore RUN`")
    close_explorer(opened)


def test_a_get_of_what_changes_something_is_not_answered(explorer):
    for path in ("/open", "/api/history/take_back", "/api/fit/cancel", "/api/write", "/api/spectrum"):
        assert get(explorer, path).status == 404


def test_a_map_does_not_wait_for_a_sum_and_two_browsers_get_their_own(explorer, made, monkeypatch):
    free = threading.Event()
    summed = Session.sum_counts

    def slow(self, *arguments):
        assert free.wait(20)
        return summed(self, *arguments)

    monkeypatch.setattr(Session, "sum_counts", slow)

    async def both():
        points = [{"kind": "pixel", "y": y, "x": 5} for y in range(6)]
        sums = [asyncio.create_task(ask(explorer, "POST", "/api/spectrum", {"selection": one})) for one in points]
        began = time.monotonic()
        for target in ("/", "/api/scan", "/api/map?detector=0&layer=sigma&component=Fe"):
            assert (await ask(explorer, "GET", target)).status == 200
        assert time.monotonic() - began < 15
        assert not any(one.done() for one in sums)
        free.set()
        return [read(one) for one in await asyncio.gather(*sums)]

    told = asyncio.run(both())
    for y, one in enumerate(told):
        assert one["counts"] == made.counts[:, y, 5].sum(axis=0).tolist()


def test_what_nobody_waits_for_is_not_begun(explorer, monkeypatch):
    begun = []
    monkeypatch.setattr(Session, "sum_counts", lambda *_: begun.append(1))
    content = json.dumps({"selection": POINT}).encode()
    request = Request(method="POST", path="/api/spectrum", body=content, is_gone=lambda: True)
    headers = {
        "Host": HOST,
        "Origin": f"http://{HOST}",
        "Content-Type": "application/json",
        "Cookie": f"{explorer.access.cookie_name}={explorer.access.cookie_value}",
    }
    answer = asyncio.run(answer_request(explorer, request, headers))
    assert answer.status == 499
    assert begun == []


def test_a_fault_of_the_program_is_one_answer_and_the_next_request_is_answered(explorer, monkeypatch, capsys):
    monkeypatch.setattr(Session, "select", lambda *_: 1 / 0)
    answer = post(explorer, "/api/spectrum", {"selection": POINT})
    assert answer.status == 500
    assert "ZeroDivisionError" not in read(answer)["error"]
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert get(explorer, "/api/scan").status == 200
