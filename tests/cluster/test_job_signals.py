"""Signals that a job gets, locks of other hosts, and addresses that other nodes can reach."""

import errno
import os
import signal
import socket
from pathlib import Path

import pytest

from hpcxrf.cluster.job.network import address_options
from hpcxrf.cluster.job.signals import job_signals
from hpcxrf.cluster.job.worker_terms import remove_secrets
from hpcxrf.errors import ConfigError, OutputError
from hpcxrf.store.lock import LockHolder, read_lock, run_lock


def test_usr1_asks_to_drain_and_term_leaves_once():
    with job_signals() as signals:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signals.draining
        assert not signals.drained(60.0)
        assert signals.drained(0.0)
        with pytest.raises(SystemExit) as left:
            signal.raise_signal(signal.SIGTERM)
        assert left.value.code == 75
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_when_all_is_closed_term_is_only_noted():
    with job_signals() as signals:
        signals.patient = True
        signal.raise_signal(signal.SIGTERM)
        assert signals.terminated


def held(host, job_id):
    return LockHolder(host=host, pid=1, process_start="", job_id=job_id, restart_count=0)


@pytest.mark.parametrize(("ended", "taken"), [(True, True), (False, False), (None, False)])
def test_a_lock_of_another_host_falls_when_slurm_says_that_its_job_has_ended(run, ended, taken):
    own = held("node2", "12")
    guard = run_lock(run, held("node1", "11"))
    guard.__enter__()
    second = run_lock(run, own, job_ended={"11": ended}.get)
    if taken:
        with second:
            assert read_lock(run.lock_file) == own
    else:
        with pytest.raises(OutputError, match=r"host node1, pid 1, Slurm job 11.*remove"):
            second.__enter__()


def test_what_cannot_be_removed_at_the_end_is_an_output_error_of_the_run_directory(run, monkeypatch):
    def refuse(path, **_options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    guard = run_lock(run)
    guard.__enter__()
    monkeypatch.setattr(Path, "unlink", refuse)
    said = f"{run.path}: cannot be written: Read-only file system"
    with pytest.raises(OutputError, match=said):
        remove_secrets(run)
    # It takes the place of the error that the folder caused before: one sentence, not two tracebacks.
    with pytest.raises(OutputError, match=said):
        guard.__exit__(OutputError, OutputError("before"), None)


def test_a_host_whose_name_has_no_address_is_told_how_to_help(monkeypatch):
    def unknown(_host):
        raise OSError("Name or service not known")

    monkeypatch.setattr(socket, "gethostbyname", unknown)
    with pytest.raises(ConfigError, match="interface: ib0"):
        address_options(None)
    assert address_options("ib0") == {"interface": "ib0"}


def test_a_loopback_address_is_refused_where_other_nodes_must_reach_it(monkeypatch):
    monkeypatch.setattr(socket, "gethostbyname", lambda _host: "127.0.1.1")
    assert address_options(None) == {"host": "127.0.1.1"}
    with pytest.raises(ConfigError, match=r"means 127\.0\.1\.1, which other nodes cannot reach.*interface: ib0"):
        address_options(None, several_nodes=True)
