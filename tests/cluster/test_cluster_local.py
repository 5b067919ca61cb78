"""The local cluster: closed doors, threads, restarts, and a machine left as it was found."""

import json
import logging
import os
import resource
import signal
import socket
import ssl
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import dask
import psutil
import pytest
from distributed import wait

from hpcxrf.cluster import security as credentials
from hpcxrf.cluster.local.cluster import LocalClusterHandle, live_workers, local_cluster, restart_worker, worker_status
from hpcxrf.cluster.local.worker import make_nanny
from hpcxrf.errors import HpcxrfError
from tests.samples.doors import first_bytes, request

PAGES = (
    "status",
    "health",
    "json/index.html",
    "json/counts.json",
    "metrics",
    "info/main/workers.html",
    "individual-plots.json",
    "statics/css/gpu.css",
    "static/js/bokeh.min.js",
)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def running(run_dir: Path) -> Iterator[LocalClusterHandle]:
    with local_cluster(2, 1, run_dir) as handle:
        yield handle


@pytest.fixture
def token(running: LocalClusterHandle) -> str:
    assert running.dashboard_url is not None
    return running.dashboard_url.split("/")[3]


def http_port(running: LocalClusterHandle) -> int:
    return int(running.cluster.scheduler.http_server.port)


# ---- dashboard


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "//",
        "*",
        "/sitemap.json",
        "/favicon.ico",
        "/robots.txt",
        "//status",
        "/%2e/status",
        "/proxy/8787/127.0.0.1/status",
        *(f"/{page}" for page in PAGES),
    ],
)
def test_without_the_secret_every_path_answers_404_and_tells_nothing(
    running: LocalClusterHandle, token: str, target: str
) -> None:
    for method in ("GET", "HEAD", "POST", "OPTIONS"):
        answer = request(http_port(running), target, method)
        assert answer.status == 404
        assert token not in answer.body.decode() + answer.headers


@pytest.mark.parametrize("page", PAGES)
def test_with_the_secret_the_page_is_served(running: LocalClusterHandle, token: str, page: str) -> None:
    answer = request(http_port(running), f"/{token}/{page}")
    assert answer.status == 200
    assert answer.body


def test_a_secret_that_is_shorter_longer_or_elsewhere_is_none(running: LocalClusterHandle, token: str) -> None:
    wrong = (token[:-1], token + "x", f"x/{token}", f"x?{token}", token.swapcase())
    for start in wrong:
        assert request(http_port(running), f"/{start}/status").status == 404
    assert request(http_port(running), f"http://x/{token}/status").status == 404


HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
    "Sec-WebSocket-Protocol": "bokeh, x",
}


def test_the_websocket_opens_only_with_the_secret(running: LocalClusterHandle, token: str) -> None:
    assert request(http_port(running), "/status/ws", **HANDSHAKE).status == 404
    assert request(http_port(running), f"/{token}/status/ws", **HANDSHAKE).status == 101


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        ("http://127.0.0.1:PORT", "127.0.0.1:PORT", 101),
        ("http://localhost:PORT", "localhost:PORT", 101),
        # A tunnel that ends at another port of the user's machine.
        ("http://localhost:9999", "localhost:9999", 101),
        ("http://evil.example", "127.0.0.1:PORT", 403),
        # Another server of the same machine.
        ("http://127.0.0.1:9999", "127.0.0.1:PORT", 403),
        # A foreign name that resolves to the loopback.
        ("http://evil.example:PORT", "evil.example:PORT", 403),
        ("http://127.0.0.1.evil.example:PORT", "127.0.0.1.evil.example:PORT", 403),
        ("null", "127.0.0.1:PORT", 403),
        ("", "127.0.0.1:PORT", 403),
    ],
)
@pytest.mark.parametrize("path", ["status/ws", "eventstream"])
def test_a_websocket_opens_to_pages_of_the_dashboard_alone(
    running: LocalClusterHandle, token: str, path: str, origin: str, host: str, status: int
) -> None:
    port = http_port(running)
    headers = HANDSHAKE | {"Origin": origin.replace("PORT", str(port)), "Host": host.replace("PORT", str(port))}
    assert request(port, f"/{token}/{path}", **headers).status == status


def test_without_the_guard_a_foreign_page_would_get_a_websocket(
    running: LocalClusterHandle, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why the rule exists; once this fails, distributed checks the Origin by itself."""
    rules = running.cluster.scheduler.http_application.default_router.rules
    monkeypatch.setattr(running.cluster.scheduler.http_application.default_router, "rules", rules[2:])
    assert request(http_port(running), f"/{token}/status/ws", **HANDSHAKE, Origin="http://evil.example").status == 101


def test_the_dashboard_file_holds_the_key_for_the_owner_alone(
    running: LocalClusterHandle, run_dir: Path, token: str
) -> None:
    path = run_dir / "secrets" / "dashboard.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    content = json.loads(path.read_text())
    assert content == {
        "url": running.dashboard_url,
        "host": socket.gethostname(),
        "port": http_port(running),
        "token": token,
    }
    assert [p.name for p in path.parent.iterdir()] == ["dashboard.json"]
    assert token not in running.log_path.read_text()
    assert stat.S_IMODE(running.log_path.stat().st_mode) == 0o600


def test_the_log_keeps_the_secret_out_even_of_errors_of_a_page(running: LocalClusterHandle, token: str) -> None:
    logging.getLogger("tornado.application").error("page-failed %s", f"/{token}/status")
    log = running.log_path.read_text()
    assert "page-failed /SECRET/status" in log
    assert token not in log


# ---- TLS and sockets


def server_ports(running: LocalClusterHandle) -> list[int]:
    """Ports of the scheduler, both workers and both nannies."""
    cluster = running.cluster
    addresses = [cluster.scheduler.address, *worker_status(running.client)]
    addresses += [nanny.address for nanny in cluster.workers.values()]
    assert len(addresses) == 5
    assert all(address.startswith("tls://127.0.0.1:") for address in addresses)
    return [int(address.rsplit(":", 1)[1]) for address in addresses]


def without_certificate() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def test_plain_tcp_is_refused_by_every_server(running: LocalClusterHandle) -> None:
    for port in server_ports(running):
        try:
            answer = first_bytes(port, None)
        except ConnectionResetError:
            answer = b""
        # An alert record of TLS (type 21) or nothing: no word of Dask's protocol.
        assert answer in {b"", b"\x15"}


def test_tls_without_certificate_is_refused_by_every_server(running: LocalClusterHandle) -> None:
    for port in server_ports(running):
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            first_bytes(port, without_certificate())


def test_a_foreign_certificate_is_refused_and_the_own_one_is_not(running: LocalClusterHandle) -> None:
    foreign = credentials.temporary_security().get_connection_args("client")["ssl_context"]
    foreign.verify_mode = ssl.CERT_NONE
    own = running.cluster.security.get_connection_args("client")["ssl_context"]
    for port in server_ports(running):
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            first_bytes(port, foreign)
        assert len(first_bytes(port, own)) == 1


def test_every_listening_socket_is_on_loopback(running: LocalClusterHandle) -> None:
    own = psutil.Process()
    listening = {
        socket_.laddr
        for process in (own, *own.children(recursive=True))
        for socket_ in process.net_connections(kind="inet")
        if socket_.status == psutil.CONN_LISTEN or not socket_.raddr
    }
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert {*server_ports(running), http_port(running)} <= {address.port for address in listening}


def test_the_http_servers_of_workers_serve_no_page(running: LocalClusterHandle) -> None:
    workers = running.client.scheduler_info(n_workers=-1)["workers"].values()
    ports = [worker["services"]["dashboard"] for worker in workers]
    assert len(ports) == 2
    for port in ports:
        for page in ("", "status", "health", "metrics", "statics/css/gpu.css"):
            assert request(port, f"/{page}").status == 404


# ---- workers


def state_of_process() -> dict[str, object]:
    import torch

    return {
        "torch": torch.get_num_threads(),
        "variables": {os.environ[f"{name}_NUM_THREADS"] for name in ("OMP", "MKL", "OPENBLAS")},
        "gpus": os.environ["CUDA_VISIBLE_DEVICES"],
        "core": resource.getrlimit(resource.RLIMIT_CORE),
        "spill": dask.config.get("distributed.worker.memory.spill"),
    }


def test_a_worker_has_one_torch_thread_no_gpu_no_core_file_and_no_spilling(running: LocalClusterHandle) -> None:
    states = running.client.run(state_of_process)
    assert len(states) == 2
    for state in states.values():
        assert state["torch"] == 1
        assert state["variables"] == {"1"}
        assert state["gpus"] == ""
        assert state["core"] == (0, 0)
        assert state["spill"] is False
    info = running.client.scheduler_info(n_workers=-1)["workers"].values()
    assert [worker["nthreads"] for worker in info] == [1, 1]
    assert running.device == "cpu"


def shout() -> None:
    os.write(1, b"loud-stdout\n")
    os.write(2, b"loud-stderr\n")
    logging.getLogger("distributed.worker").warning("loud-logger")


def test_what_dask_and_the_workers_say_goes_to_the_log_alone(
    running: LocalClusterHandle, capfd: pytest.CaptureFixture[str]
) -> None:
    running.client.run(shout)
    logging.getLogger("distributed.scheduler").error("loud-scheduler")
    logging.getLogger("tornado.application").error("loud-tornado")
    log = running.log_path.read_text()
    words = ("stdout", "stderr", "logger", "scheduler", "tornado")
    assert all(f"loud-{word}" in log for word in words)
    assert capfd.readouterr() == ("", "")


def die_before(attempt: int, folder: Path) -> int:
    """Kills its worker until it is tried for the `attempt`-th time; returns the number of tries."""
    tries = len(list(folder.iterdir())) + 1
    if tries < attempt:
        (folder / str(tries)).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return tries


def square(number: int) -> int:
    time.sleep(0.02)
    return number**2


def test_a_task_that_kills_its_worker_fails_no_other_task_and_the_worker_comes_back(
    running: LocalClusterHandle, tmp_path: Path
) -> None:
    client = running.client
    before = set(client.run(os.getpid).values())
    # Five deaths: by default Dask gives a task up after the fourth.
    deadly = client.submit(die_before, 6, tmp_path)
    good = client.map(square, range(40), pure=False)
    wait([deadly, *good], timeout=120)  # finds the client by itself
    assert client.gather(good) == [number**2 for number in range(40)]
    assert deadly.result() == 6
    client.wait_for_workers(2, timeout=60)
    assert live_workers(client) == 2
    after = set(client.run(os.getpid).values())
    assert after != before
    assert {state["torch"] for state in client.run(state_of_process).values()} == {1}


def test_a_worker_can_be_restarted_by_its_address(running: LocalClusterHandle) -> None:
    client = running.client
    pids = client.run(os.getpid)
    address, pid = next(iter(pids.items()))
    restart_worker(client, address)
    client.wait_for_workers(2, timeout=60)
    after = set(client.run(os.getpid).values())
    assert len(after) == 2
    assert pid not in after
    assert not psutil.pid_exists(pid)


def test_a_worker_that_nobody_knows_cannot_be_restarted(running: LocalClusterHandle) -> None:
    with pytest.raises(HpcxrfError, match=r"tls://127\.0\.0\.1:1"):
        restart_worker(running.client, "tls://127.0.0.1:1")


def test_a_worker_that_cannot_start_is_an_error_that_names_the_log(tmp_path: Path) -> None:
    # A GPU that this machine does not have, or not under this name.
    with pytest.raises(HpcxrfError, match=r"dask\.log") as caught, local_cluster(1, 1, tmp_path, gpus=("GPU-none",)):
        pass
    assert "sees 0 GPUs (CUDA_VISIBLE_DEVICES=GPU-none)" in str(caught.value)


def test_each_worker_sees_the_gpu_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpcxrf.cluster.local.worker.Nanny", lambda *_args, **options: options["env"])
    names = ("3", "5", "GPU-af")
    seen = [make_nanny("tls://x", name=i, gpus=names, setup=None) for i in range(3)]
    assert [env["CUDA_VISIBLE_DEVICES"] for env in seen] == list(names)
    assert make_nanny("tls://x", name=1, gpus=(), setup=None)["CUDA_VISIBLE_DEVICES"] == ""


# ---- life and end


def test_afterwards_the_process_is_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    own = psutil.Process()

    def state() -> tuple[object, ...]:
        logger = logging.getLogger("distributed")
        return (
            dict(os.environ),
            repr(dask.config.config),
            (list(logger.handlers), logger.propagate, logger.level),
            signal.getsignal(signal.SIGINT),
            signal.pthread_sigmask(signal.SIG_BLOCK, []),
            {child.pid for child in own.children(recursive=True)},
            resource.getrlimit(resource.RLIMIT_CORE),
        )

    before = state()
    with local_cluster(1, 2, tmp_path, dashboard=False, memory_limit_bytes=2**30) as handle:
        assert handle.dashboard_url is None
        assert request(http_port(handle), "/health").status == 404
        (worker,) = handle.client.scheduler_info(n_workers=-1)["workers"].values()
        assert worker["memory_limit"] == 2**30
        (found,) = handle.client.run(state_of_process).values()
        assert found["torch"] == 2
        assert found["variables"] == {"2"}
        scratch = Path(worker["local_directory"])
        assert scratch.is_dir()
    assert state() == before
    assert not scratch.exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["logs", "dask.log"]
