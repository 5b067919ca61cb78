"""The command and its server as they are used: ports, sockets, other users, Ctrl-C."""

import asyncio
import hashlib
import http.client
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import webbrowser
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from explore_samples import NAME

from hpcxrf.explore.access import new_access
from hpcxrf.explore.explorer import close_explorer, make_explorer
from hpcxrf.explore.listening import listen_on_port, open_in_browser
from hpcxrf.explore.serving import serve
from hpcxrf.explore.targets import find_target
from tests.conftest import skip_or_fail

NOBODY = 65534


@contextmanager
def explored(*arguments, **environment):
    """The command at work, with the lines that it printed first."""
    began = subprocess.Popen(
        [sys.executable, "-m", "hpcxrf", "explore", *map(str, arguments), "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**{k: v for k, v in os.environ.items() if k not in {"DISPLAY", "SSH_CONNECTION"}}, **environment},
    )
    try:
        lines = []
        while not lines or "#" not in lines[-1]:
            line = began.stdout.readline()
            assert line, began.stderr.read()
            lines.append(line.strip())
        yield began, lines
    finally:
        # It puts away its folders.
        began.terminate()
        began.wait(30)
        began.stdout.close()
        began.stderr.close()


class UnixConnection(http.client.HTTPConnection):
    """HTTP through a socket file, as a tunnel brings it."""

    def __init__(self, path):
        super().__init__("localhost", timeout=30)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self.path)


def connected(port):
    return closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30))


def ask(connection, method, path, body=None, **headers):
    host = headers.pop("Host", "localhost:8000")
    sent = {"Host": host, "Origin": f"http://{host}", "Content-Type": "application/json", **headers}
    connection.request(method, path, None if body is None else json.dumps(body), sent)
    answer = connection.getresponse()
    return answer, answer.read()


def enter(connection, line):
    """Exchange the secret of the printed address for the cookie."""
    answer, _ = ask(connection, "POST", "/open", {"secret": line.partition("#")[2]})
    assert answer.status == 200
    return answer.getheader("Set-Cookie").partition(";")[0]


def hash_tree(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_a_run_is_served_on_the_loopback_and_is_as_before_when_ctrl_c_ends_it(made):
    before = hash_tree(made.folder)
    with ExitStack() as stack, explored(made.folder, "--port", free_port()) as (process, lines):
        port = int(re.fullmatch(r"http://127\.0\.0\.1:(\d+)/#[\w-]{22}", lines[-1])[1])
        browsers = [stack.enter_context(connected(port)) for _ in range(2)]
        cookies = [enter(one, lines[-1]) for one in browsers]
        for one, cookie in zip(browsers, cookies, strict=True):
            answer, body = ask(one, "GET", "/api/scan", Cookie=cookie)
            assert json.loads(body)["dataset_id"] == NAME
            assert answer.getheader("Cache-Control") == "no-store"
            assert "script-src 'self'" in answer.getheader("Content-Security-Policy")
            assert answer.getheader("Server") is None
            point = {"detector": "1", "selection": {"kind": "pixel", "y": 3, "x": 4}}
            _, body = ask(one, "POST", "/api/spectrum", point, Cookie=cookie)
            assert json.loads(body)["counts"] == made.counts[1, 3, 4].tolist()
        assert ask(browsers[0], "GET", "/api/scan")[0].status == 403
        assert ask(browsers[0], "GET", "/api/scan", Host="evil.example", Cookie=cookies[0])[0].status == 403
        loaded = Path(f"/proc/{process.pid}/maps")
        if loaded.exists():
            assert "libtorch" not in loaded.read_text()
        assert_only_loopback(port)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        told = process.stderr.read()
        assert "Traceback" not in told
        assert lines[-1].partition("#")[2] not in told
    assert hash_tree(made.folder) == before


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def assert_only_loopback(port: int) -> None:
    """The port is not open at another address of this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outward:
        try:
            outward.connect(("192.0.2.1", 9))
        except OSError:
            return
        address = outward.getsockname()[0]
    if not address.startswith("127."):
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((address, port), timeout=5)


def test_a_body_beyond_all_bounds_closes_the_connection_and_the_next_one_is_served(made):
    with ExitStack() as stack, explored(made.folder, "--port", free_port()) as (_, lines):
        port = int(lines[-1].partition("#")[0].rstrip("/").rpartition(":")[2])
        one = stack.enter_context(connected(port))
        cookie = enter(one, lines[-1])
        for size, wanted in ((2 << 20, 413), (64 << 20, 400)):
            other = stack.enter_context(connected(port))
            other.putrequest("POST", "/api/spectrum", skip_host=True)
            own = {"Host": "localhost", "Origin": "http://localhost", "Content-Type": "application/json"}
            for name, value in (own | {"Cookie": cookie, "Content-Length": str(size)}).items():
                other.putheader(name, value)
            other.endheaders(b" " * min(size, 2 << 20))
            assert other.getresponse().status == wanted
        assert ask(one, "GET", "/api/scan", Cookie=cookie)[0].status == 200


@pytest.fixture
def short_path():
    """A folder whose name leaves room for that of a socket, of which there are 108 bytes."""
    with tempfile.TemporaryDirectory(prefix="x", dir="/tmp") as folder:
        yield Path(folder)


def test_a_socket_is_a_file_of_the_user_alone_and_gone_at_the_end(made, short_path):
    with explored(made.folder, "--socket", TMPDIR=str(short_path), XDG_RUNTIME_DIR="") as (process, lines):
        path = re.search(r"ssh -N -L 8000:(\S+) \S+@\S+", lines[0])[1]
        assert lines[-1].startswith("http://localhost:8000/#")
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
        assert stat.S_IMODE(Path(path).parent.stat().st_mode) == 0o700
        with closing(UnixConnection(path)) as connection:
            cookie = enter(connection, lines[-1])
            assert ask(connection, "GET", "/api/scan", Cookie=cookie)[0].status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 75
        assert not Path(path).exists()
    assert list(short_path.iterdir()) == []


def test_a_second_user_of_the_machine_gets_nothing_by_the_socket_and_nothing_by_a_port_without_the_secret(made):
    if os.getuid() != 0:
        skip_or_fail("only root can act as another user; run the tests as root in a container")
    code = (
        "import os, socket, sys\n"
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "one = socket.socket(socket.AF_UNIX)\n"
        "try:\n    one.connect(sys.argv[1])\n"
        "except PermissionError:\n    sys.exit(13)\n"
    )
    with explored(made.folder, "--socket", TMPDIR=tempfile.gettempdir(), XDG_RUNTIME_DIR="") as (_, lines):
        path = re.search(r"8000:(\S+) ", lines[0])[1]
        assert subprocess.run([sys.executable, "-c", code, path], check=False).returncode == 13


def test_a_shared_machine_has_a_socket_by_itself(made, short_path):
    with explored(made.folder, TMPDIR=str(short_path), XDG_RUNTIME_DIR="", SLURM_JOB_ID="7") as (_, lines):
        assert lines[0].startswith(f"ssh -N -L 8000:{short_path}")


def test_it_stops_by_itself_when_nobody_asks_and_not_while_somebody_does(made):
    explorer = make_explorer(find_target(made.folder), None, new_access())

    async def watch(listening):
        ended = asyncio.create_task(serve(explorer, listening, idle_s=0.5, ready=lambda: None))
        for _ in range(8):
            await asyncio.sleep(0.1)
            explorer.last_used = time.monotonic()
        assert not ended.done()
        return await asyncio.wait_for(ended, 20)

    with listen_on_port(None) as listening:
        assert asyncio.run(watch(listening)) is False
    close_explorer(explorer)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("nothing-here",), 3, "no such file"),
        ((".",), 3, "is not a run directory"),
        (("{file}",), 3, "of no known format"),
        (("{run}", "--dataset", "other"), 2, "not a dataset"),
        (("{run}", "--socket", "--port", "8000"), 2, "choose one"),
        (("{run}", "--port", "{taken}"), 4, "name another --port"),
    ],
)
def test_what_cannot_be_explored_is_refused_with_its_exit_code(
    hpcxrf, made, short_path, monkeypatch, arguments, code, told
):
    text = short_path / "notes.txt"
    text.write_text("nothing")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.chdir(short_path)
        names = {"run": made.folder, "file": text, "taken": taken.getsockname()[1]}
        ran = hpcxrf("explore", *(one.format(**names) for one in arguments), "--no-browser")
    assert ran.code == code
    assert told in " ".join(ran.err.split())
    assert ran.out == ""


def test_the_browser_is_given_a_file_of_the_user_alone_and_no_secret_on_a_command_line(monkeypatch):
    given = []
    monkeypatch.setattr(webbrowser, "open", given.append)
    with open_in_browser("http://127.0.0.1:8000/#secret-of-this-start"):
        assert "secret" not in given[0]
        page = Path(given[0].removeprefix("file://"))
        assert stat.S_IMODE(page.stat().st_mode) == 0o600
        assert stat.S_IMODE(page.parent.stat().st_mode) == 0o700
        assert "url=http://127.0.0.1:8000/#secret-of-this-start" in page.read_text()
    assert not page.exists()
