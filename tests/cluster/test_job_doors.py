"""The doors of a job, without Slurm: TLS, secrets, one address, and what its workers tell."""

import http.client
import json
import socket
import ssl
import time
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest
from distributed import Security

from hpcxrf.cluster.job.cluster import job_cluster
from hpcxrf.cluster.job.worker_ends import worker_end
from hpcxrf.cluster.job.worker_terms import read_facts, read_terms, write_terms
from hpcxrf.cluster.security import temporary_security
from hpcxrf.store.rundir import create_or_resume
from tests.samples.doors import first_bytes
from tests.samples.job_samples import REQUEST, TERMS, wait_until, worker


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    run = create_or_resume(tmp_path_factory.mktemp("doors") / "run", "{}", {})
    with job_cluster(run, REQUEST, "1", lambda _text: None) as cluster:
        process = worker(run)
        deadline = time.monotonic() + 240
        while not (sight := cluster.list_workers()):
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield SimpleNamespace(cluster=cluster, run=run, process=process, sight=sight)
    assert process.wait(30) == 0
    process.stdout.close()


def ports(running) -> list[int]:
    """Scheduler, supervisor and worker, their HTTP servers apart."""
    info = running.cluster.client.scheduler_info(n_workers=-1)
    [facts] = info["workers"].values()
    addresses = [info["address"], facts["nanny"], running.sight[0].address]
    return [int(address.rsplit(":", 1)[1]) for address in addresses]


def test_without_a_certificate_every_port_refuses_at_once(running):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    for port in ports(running):
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            first_bytes(port, context)


def test_a_foreign_certificate_is_refused_at_once(running):
    context = temporary_security().get_connection_args("client")["ssl_context"]
    context.verify_mode = ssl.CERT_NONE
    for port in ports(running):
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            first_bytes(port, context)


def test_plain_tcp_is_refused_at_once(running):
    for port in ports(running):
        try:
            assert first_bytes(port, None) == b""
        except ConnectionResetError:
            continue


def test_the_files_for_workers_open_the_doors_and_nothing_of_them_is_on_a_command_line(running):
    terms, files = read_terms(running.run)
    context = Security(**files, require_encryption=True).get_connection_args("worker")["ssl_context"]
    port = int(terms.scheduler.rsplit(":", 1)[1])
    assert first_bytes(port, context)
    shown = " ".join(psutil.Process(running.process.pid).cmdline())
    assert terms.scheduler not in shown
    assert "PRIVATE KEY" not in shown
    assert json.loads((running.run.secrets / "dashboard.json").read_text())["token"] not in shown


def test_everything_listens_on_one_address_and_the_http_of_workers_is_closed(running):
    root = psutil.Process(running.process.pid)
    mine = [psutil.Process(), root, *root.children(recursive=True)]
    listening = [c.laddr for p in mine for c in p.net_connections("tcp") if c.status == "LISTEN"]
    assert {address.ip for address in listening} == {"127.0.0.1"}
    [facts] = running.cluster.client.scheduler_info(n_workers=-1)["workers"].values()
    for path in ("/", "/health", "/status", "/metrics", "/json/counts.json"):
        assert answer(facts["services"]["dashboard"], path) == 404


def answer(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_dashboard_of_a_job_answers_below_its_secret_path_only(running):
    told = json.loads((running.run.secrets / "dashboard.json").read_text())
    for page in ("", "status", "health", "metrics", "info/main/workers.html", "sitemap.json"):
        assert answer(told["port"], f"/{page}") == 404
    for page in ("status", "health", "metrics"):
        assert answer(told["port"], f"/{told['token']}/{page}") == 200


def test_a_worker_says_where_it_is(running):
    facts = read_facts(running.run)["w-0"]
    assert (facts.pid, facts.host, facts.fault) == (running.process.pid, socket.gethostname(), None)
    assert running.sight[0].name == "w-0"


def test_with_the_driver_its_secrets_go(run):
    with job_cluster(run, REQUEST, "1", lambda _text: None):
        assert (run.secrets / "workers" / "key.pem").exists()
        assert (run.secrets / "dashboard.json").exists()
    assert list(run.secrets.iterdir()) == []


def test_a_start_removes_the_keys_that_a_killed_driver_left(run):
    run.secrets.mkdir(mode=0o700, exist_ok=True)
    (run.secrets / ".dask-jobqueue.worker.key.x1y2").write_text("of version 0.1.0")
    (run.secrets / ".dashboard.json.123").write_text("half-written")
    write_terms(run, TERMS, temporary_security())
    before = (run.secrets / "workers" / "key.pem").read_text()
    with job_cluster(run, replace(REQUEST, mode="elastic"), "1", lambda _text: None):
        assert sorted(f.name for f in run.secrets.iterdir()) == ["dashboard.json", "workers"]
        assert (run.secrets / "workers" / "key.pem").read_text() != before
    assert list(run.secrets.iterdir()) == []


def test_plain_tcp_is_there_when_asked_for_and_said_loudly(run):
    said = []
    with job_cluster(run, replace(REQUEST, insecure=True), "1", said.append) as cluster:
        assert cluster.cluster.scheduler_address.startswith("tcp://127.0.0.1:")
        assert not (run.secrets / "workers" / "key.pem").exists()
    assert "insecure" in said[0]


def test_a_worker_process_that_is_killed_leaves_word_how(running):
    [before] = running.cluster.list_workers()
    nanny = psutil.Process(running.process.pid)
    [child] = [c for c in nanny.children() if "resource_tracker" not in " ".join(c.cmdline())]
    child.kill()
    wait_until(lambda: [w.address for w in running.cluster.list_workers()] not in ([before.address], []))
    assert worker_end(running.run, "w-0").reason == f"worker process {child.pid} was killed by signal 9"


def test_the_heartbeat_of_a_worker_tells_what_its_task_spends(running):
    def spend(seconds):
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    [before] = running.cluster.list_workers()
    running.cluster.client.submit(spend, 1.0, pure=False).result(timeout=60)
    wait_until(lambda: running.cluster.list_workers()[0].busy_s > before.busy_s + 0.7)
    assert running.cluster.list_workers()[0].silent_s < 10
