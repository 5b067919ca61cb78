"""`python -m hpcxrf.cluster.local.process_child`: what a call of `hpcxrf.process` runs in a process of its own.

It reads one JSON object from standard input and writes one to standard output. It ends when standard input does, so
that no work outlives the call that asked for it.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from hpcxrf.cluster.local.run import RunCallbacks, run_here
from hpcxrf.config.run import RunConfig
from hpcxrf.config.settings import Setting
from hpcxrf.errors import EXIT_RESUMABLE, HpcxrfError, InputFileError
from hpcxrf.pipeline.printout import verdict_of
from hpcxrf.runner.datasets import describe_ending, read_datasets
from hpcxrf.runner.ending import versions
from hpcxrf.runner.hooks import Progress
from hpcxrf.store.rundir import RunDir
from hpcxrf.workloads import choose_workload


def main() -> int:
    """Answer one question."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # Whatever a library prints goes where errors go.
    os.dup2(2, 1)
    signal.signal(signal.SIGTERM, _leave)
    question = json.loads(sys.stdin.readline())
    answered = threading.Event()
    threading.Thread(target=_end_with_caller, args=(answered,), name="caller", daemon=True).start()
    try:
        answer: dict[str, Any] = {"outcome": _process(question)}
    except HpcxrfError as error:
        answer = {"error": type(error).__name__, "text": str(error)}
    answered.set()
    answers.write(json.dumps(answer) + "\n")
    answers.close()
    return 0


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit(EXIT_RESUMABLE)


def _end_with_caller(answered: threading.Event) -> None:
    sys.stdin.read()
    if not answered.is_set():
        os.kill(os.getpid(), signal.SIGTERM)


def _process(question: Mapping[str, Any]) -> dict[str, Any]:
    began = time.perf_counter()
    files, run = question["files"], RunDir(path=Path(question["output"]).absolute())
    config, text = _read_config(files, question["runfile"])
    choose_workload(config).check(config)
    ran: list[Progress] = []

    def count(progress: Progress) -> None:
        if progress.tried and not progress.found:
            ran.append(progress)

    try:
        result = run_here(config, text, run.path, RunCallbacks(progress=count), command="hpcxrf.process")
    except InputFileError as error:
        # Not one file can be run: an outcome, as it is where others can.
        return _describe(run, began, reasons=dict.fromkeys(files, str(error)), state="failed", tasks=0)
    records = list(read_datasets(run))
    done = [one for one in records if one.state == "done"]
    reasons = {one.dataset_id: describe_ending(one) for one in records if one.state != "done"}
    state = "done" if not reasons else "partly done" if done else "failed"
    return _describe(run, began, reasons=reasons, state=state, tasks=len(ran)) | {
        "datasets": [one.dataset_id for one in records],
        "results": {one.dataset_id: str(run.results_store(one.dataset_id)) for one in done},
        "verdicts": {one.dataset_id: verdict_of(one).word for one in done},
        "report": str(result.page),
    }


def _describe(run: RunDir, began: float, *, reasons: dict[str, str], state: str, tasks: int) -> dict[str, Any]:
    return {
        "state": state,
        "output": str(run.path),
        "datasets": [],
        "results": {},
        "verdicts": {},
        "reasons": reasons,
        "report": None,
        "tasks": tasks,
        "seconds": time.perf_counter() - began,
        "versions": dict(versions()),
    }


def _read_config(files: list[str], runfile: str | None) -> tuple[RunConfig, str]:
    # The schema loads while nothing else is to be done.
    from hpcxrf.config.run import load_run_file
    from hpcxrf.pipeline.map_arguments import read_run_config

    if runfile is None:
        return read_run_config([Path(name) for name in files], {})
    named = Setting(place=("input", "files"), value=list(files), origin="the files of hpcxrf.process")
    return load_run_file(Path(runfile), [named])


if __name__ == "__main__":
    sys.exit(main())
