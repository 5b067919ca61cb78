"""The way to a dashboard that listens on the loopback of a compute node, behind a secret path."""

import getpass
import http.client
import json
import shlex
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcxrf.cluster.dashboard import FILE_NAME
from hpcxrf.cluster.job_files import read_events
from hpcxrf.cluster.login.status import latest_job
from hpcxrf.cluster.slurm import ask_in_job
from hpcxrf.errors import OutputError, SlurmError
from hpcxrf.store.rundir import open_run

_ANSWER_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How to look at a dashboard."""

    ssh: str | None
    """Opens a tunnel; None: the dashboard is on this very host, outside of any job."""
    url: str
    answers: bool | None
    """None: could not be tried."""
    outcome: str
    """Sentence that says whether the dashboard answers, and if not why."""


def way_to_dashboard(folder: Path) -> Way:
    """Read where the dashboard of a run is, and try it.

    Raises:
        OutputError: no run there, no dashboard now, or a damaged file.
    """
    run = open_run(folder)
    path = run.secrets / FILE_NAME
    try:
        content = json.loads(path.read_bytes())
        url, host, port = str(content["url"]), str(content["host"]), int(content["port"])
        token = str(content["token"])
    except FileNotFoundError:
        raise OutputError(
            f"{folder}: has no dashboard now; there is one while the run goes on (`hpcxrf status`)"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise OutputError(f"{path}: is damaged ({error}); it comes anew with the next start") from error
    events = read_events(run)
    job_id = latest_job(events)
    hosts = [e["login_host"] for e in events if e.get("login_host")]
    answers, outcome = _try_dashboard(host, port, token, job_id)
    ssh = None if job_id is None else ssh_command(str(hosts[-1]) if hosts else None, host, port)
    return Way(ssh=ssh, url=url, answers=answers, outcome=outcome)


def ssh_command(login: str | None, host: str, port: int) -> str:
    """A tunnel from the user's own machine through the login node to the loopback of a compute node.

    Args:
        login: host name as it is known from outside; None: the node is reached directly.
        host: of the dashboard.
        port: of the dashboard, the same on both ends.
    """
    return _join_ssh(login, host, f"{port}:127.0.0.1:{port}")


def ssh_to_socket(login: str | None, host: str, path: str, port: int) -> str:
    """A tunnel from a port of the user's own machine to a Unix socket of a compute node (OpenSSH 6.7 or later).

    Args:
        login: host name as it is known from outside; None: the node is reached directly.
        host: on which the socket is.
        path: of the socket.
        port: at the near end.
    """
    return _join_ssh(login, host, f"{port}:{path}")


def _join_ssh(login: str | None, host: str, forward: str) -> str:
    user = getpass.getuser()
    through = [] if login is None or login == host else ["-J", f"{user}@{login}"]
    return shlex.join(["ssh", "-N", "-L", forward, *through, f"{user}@{host}"])


def _try_dashboard(host: str, port: int, token: str, job_id: str | None) -> tuple[bool | None, str]:
    if host == socket.gethostname():
        answers = _answers_here(port, token)
        return (answers, "it answers" if answers else "it does not answer; the driver has ended or is busy")
    if job_id is None:
        return None, f"it is on the loopback of {host}; whether it answers can only be tried there"
    try:
        answers = ask_in_job(job_id, host.split(".", maxsplit=1)[0], port)
    except SlurmError as error:
        return None, f"it is on the loopback of {host}, and cannot be tried from here ({error})"
    return answers, f"it answers on {host}" if answers else f"nothing answers on {host}"


def _answers_here(port: int, token: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_S)
    try:
        connection.request("GET", f"/{token}/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()
