"""Folders of runs in all states, and the explorer asked about them: in this process, and as its command serves it."""

import asyncio
import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from hpcxrf.cluster.job_files import append_event
from hpcxrf.config.run import check_config, effective
from hpcxrf.explore.access import new_access
from hpcxrf.explore.exchange import Request
from hpcxrf.explore.explorer import make_explorer
from hpcxrf.explore.runs import find_runs
from hpcxrf.explore.server import answer_request
from hpcxrf.pipeline.request import keep_configuration
from hpcxrf.runner.datasets import append_dataset
from hpcxrf.runner.ending import RunEnd, keep_end
from hpcxrf.runner.records import DatasetRecord
from hpcxrf.store.rundir import create_or_resume

HOST = "127.0.0.1:8000"
FILES = {"input": {"files": ["/data/leaf.mda"]}}


def bare_run(folder: Path, **sections):
    """A run directory in which nothing has been done."""
    config = check_config({**FILES, **sections}, "test")
    run = create_or_resume(folder, json.dumps({**FILES, **sections}), effective(config))
    keep_configuration(run, config)
    return run


def end_dataset(run, number: int, state: str, reason: str = "") -> None:
    name = f"leaf_{number}-{number:08x}"
    record = DatasetRecord(dataset_id=name, name=f"leaf_{number}.mda", state=state, reason=reason)
    run.append(name, {"task": "finalise", "event": "finished" if state == "done" else "failed", "reason": reason})
    append_dataset(run, record, number)


def ended_run(folder: Path, *states: str, **sections):
    """A run that came to its end on this machine."""
    run = bare_run(folder, **sections)
    for number, state in enumerate(states):
        end_dataset(run, number, state, "is cut short" if state == "failed" else "")
    end = RunEnd(
        run=run, wall_s=100.0, device="CPU", command="hpcxrf run", started="2026-11-20T10:00:00+00:00", notes=()
    )
    keep_end(end)
    return run


def submitted_run(folder: Path, job_id: str, *events: str, **details):
    """A run whose job has gone through these events."""
    run = bare_run(folder)
    for event in events:
        append_event(run, event, job_id=job_id, **(details if event == "ended" else {}))
    return run


class Asked:
    """The explorer of a folder of runs, asked without a socket."""

    def __init__(self, folder: Path, *, read_only: bool = False):
        access = new_access()
        self.runs = find_runs(folder, access.cookie_value.encode(), read_only=read_only)
        assert self.runs is not None
        self.explorer = make_explorer(None, None, access, None, self.runs)
        self.runs.ask = lambda _job_id: None

    def ask(self, method, target, body=None, **headers):
        path, _, query = target.partition("?")
        pairs = dict(part.split("=", 1) for part in query.split("&") if part)
        content = b"" if body is None else json.dumps(body).encode()
        access = self.explorer.access
        own = {
            "Host": HOST,
            "Origin": f"http://{HOST}",
            "Content-Type": "application/json",
            "Cookie": f"{access.cookie_name}={access.cookie_value}",
        }
        request = Request(method=method, path=path, query=pairs, body=content)
        return asyncio.run(answer_request(self.explorer, request, own | headers))

    def get(self, target, status=200, **headers):
        return self._read(self.ask("GET", target, **headers), status)

    def post(self, target, body, status=200, **headers):
        return self._read(self.ask("POST", target, body, **headers), status)

    @staticmethod
    def _read(answer, status):
        read = json.loads(answer.body)
        assert answer.status == status, read
        return read

    def row(self, name):
        return next(row for row in self.get("/api/runs")["runs"] if row["name"] == name)


@contextmanager
def served(*arguments, **environment):
    """The command at work; gives its process and the address that it printed."""
    root = str(Path(__file__).resolve().parents[2])
    began = subprocess.Popen(
        [sys.executable, "-m", "hpcxrf", "explore", *map(str, arguments), "--no-browser", "--port", _free_port()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**{k: v for k, v in os.environ.items() if k != "SSH_CONNECTION"}, "PYTHONPATH": root, **environment},
    )
    try:
        for line in began.stdout:
            if found := re.search(r"http://\S+#\S+", line):
                break
        else:
            raise AssertionError(began.stderr.read())
        yield began, found[0]
    finally:
        began.terminate()
        began.wait(60)
        began.stdout.close()
        began.stderr.close()


def _free_port() -> str:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as found:
        return str(found.getsockname()[1])
