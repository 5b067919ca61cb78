"""`hpcxrf plan` in a process of its own: what a run file would do, found out without a file of the user in here."""

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hpcxrf.config.settings import resolve_paths
from hpcxrf.config.untrusted import show_lines
from hpcxrf.errors import ConfigError
from hpcxrf.explore.given import dump_sections
from hpcxrf.explore.run_text import check_text, find_faults

Json = dict[str, Any]

_RUN_FILE: Final = "run.yaml"
_LONGEST_S: Final = 3600.0
_MOST_KEPT: Final = 8
_SHOWN: Final = 40


@dataclass(slots=True, kw_only=True)
class Planning:
    """One plan that is being made, or was."""

    process: "subprocess.Popen[str]"
    folder: Path
    """Its own, and gone when it has ended."""
    began_s: float
    """By the monotonic clock."""
    answer: Json | None = None


@dataclass(slots=True, kw_only=True)
class Plans:
    """Plans of an explorer: the newest one is made, an older one that is not done is given up."""

    made: dict[str, Planning] = field(default_factory=dict)
    count: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def begin_plan(plans: Plans, text: str, folder: Path, output: Path, site: str, *, probe: bool) -> str:
    """Begin to plan; gives the id by which the plan is asked for.

    Args:
        plans: of the explorer.
        text: of the run file.
        folder: folder of the run file.
        output: run directory.
        site: name of a site profile; empty: none.
        probe: whether the time of a fit is measured.

    Raises:
        ConfigError: the run file has faults.
    """
    checked = check_text(text, folder)
    if checked.config is None or checked.raw is None:
        raise ConfigError("the run file has faults; correct them first")
    place = Path(tempfile.mkdtemp(prefix="hpcxrf-plan-"))
    (place / _RUN_FILE).write_text(dump_sections(resolve_paths(checked.raw, folder)), encoding="utf-8")
    argv = [sys.executable, "-P", "-m", "hpcxrf", "plan", str(place / _RUN_FILE), "-o", str(output), "--json"]
    argv += [*(["--site", site] if site else []), *(["--probe"] if probe else [])]
    process = subprocess.Popen(
        argv, cwd=place, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    planning = Planning(process=process, folder=place, began_s=time.monotonic())
    with plans.lock:
        for one in plans.made.values():
            if one.answer is None:
                one.process.kill()
        plans.count += 1
        name = str(plans.count)
        plans.made[name] = planning
        while len(plans.made) > _MOST_KEPT:
            plans.made.pop(next(iter(plans.made)))
    threading.Thread(target=_wait, args=(planning,), name="explore-plan", daemon=True).start()
    return name


def poll_plan(plans: Plans, name: str) -> Json:
    """How far a plan is: `running`, `given up`, or `done` with what `hpcxrf plan --json` says and its faults.

    Raises:
        ConfigError: no plan of that id.
    """
    planning = plans.made.get(name)
    if planning is None:
        raise ConfigError(f"no plan {name[:_SHOWN]!r}; ask for it again")
    if planning.answer is None:
        return {"state": "running", "elapsed_s": time.monotonic() - planning.began_s}
    return planning.answer


def close_plans(plans: Plans) -> None:
    """End what is still being planned."""
    with plans.lock:
        for one in plans.made.values():
            if one.answer is None:
                one.process.kill()


def _wait(planning: Planning) -> None:
    try:
        out, told = planning.process.communicate(timeout=_LONGEST_S)
    except subprocess.TimeoutExpired:
        planning.process.kill()
        out, told = planning.process.communicate()
    finally:
        shutil.rmtree(planning.folder, ignore_errors=True)
    planning.answer = read_answer(planning.process.returncode, out, told, str(planning.folder / _RUN_FILE))


def read_answer(code: int, out: str, told: str, run_file: str) -> Json:
    """Read what `hpcxrf plan --json` printed.

    Args:
        code: its exit code; negative: it was killed.
        out: standard output.
        told: standard error.
        run_file: name under which the run file was given, which nobody else knows.
    """
    if code < 0:
        return {"state": "given up"}
    message = told.rpartition("error: ")[2].strip().replace(run_file, "the run file") if code else ""
    plan = _read_object(out)
    if plan is None and not code:
        code, message = 1, f"hpcxrf plan --json printed no JSON object but {out[:80]!r}; give it in a terminal"
    faults = find_faults(show_lines(message)) if code else []
    return {
        "state": "done",
        "code": code,
        "plan": plan,
        "faults": [{"places": list(one.places), "text": one.text} for one in faults],
    }


def _read_object(out: str) -> Mapping[str, Any] | None:
    try:
        found = json.loads(out)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
