"""What the page asks of runs: each a function from the runs and a request to an answer."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from hpcxrf.config.untrusted import show_name
from hpcxrf.errors import ConfigError
from hpcxrf.explore.exchange import Answer, Request, answer_json
from hpcxrf.explore.given import dump_sections, list_given
from hpcxrf.explore.run_fields import describe_form
from hpcxrf.explore.run_jobs import begin, describe_prepared, list_sites, prepare, stop
from hpcxrf.explore.run_plans import begin_plan, poll_plan
from hpcxrf.explore.run_reports import write_address
from hpcxrf.explore.run_text import NEW, Fault, check_text, describe_text, edit_text
from hpcxrf.explore.runs import Runs, describe_run, describe_runs, find_run
from hpcxrf.pipeline.request import config_of_run
from hpcxrf.store.catalog import is_dataset_id

Json = dict[str, Any]


def _answer_list(runs: Runs, _request: Request) -> Answer:
    described = describe_runs(runs)
    return answer_json({**described, "runs": [_with_report(runs, row) for row in described["runs"]]})


def _answer_one(runs: Runs, request: Request) -> Answer:
    return answer_json(_with_report(runs, describe_run(runs, request.parameter("run"))))


def _with_report(runs: Runs, row: Json) -> Json:
    """A described run with the address of its report; null: it has none yet."""
    return row | {"report": write_address(runs, row["key"], row["page"]) if row["report"] else None}


def _answer_form(_runs: Runs, _request: Request) -> Answer:
    return answer_json({"sections": describe_form(), "sites": list_sites()})


def _answer_start(runs: Runs, request: Request) -> Answer:
    """The text from which a run file begins: that of a run, its paths absolute, or the defaults."""
    key = request.query.get("run", "")
    if not key:
        return answer_json(describe_text(check_text(NEW, runs.folder)))
    run = find_run(runs, key)
    text = f"# As the run {show_name(run.path.name)}.\n{dump_sections(list_given(config_of_run(run)[0]))}"
    return answer_json(describe_text(check_text(text, runs.folder)))


def _answer_text(runs: Runs, request: Request) -> Answer:
    """A run file's text with some options changed, its values, and its faults."""
    content = request.read_object()
    text, changes = content.get("text"), content.get("changes") or {}
    if not isinstance(text, str) or not isinstance(changes, dict):
        raise ConfigError("text and changes are missing; reload the page")
    if not all(change is None or isinstance(change, dict) for change in changes.values()):
        raise ConfigError("a change is an object or null; reload the page")
    more: list[Fault] = []
    if changes:
        text, more = edit_text(text, changes)
    return answer_json(describe_text(check_text(text, runs.folder), more))


def _answer_plan(runs: Runs, request: Request) -> Answer:
    content = request.read_object()
    text, name, site = (content.get(key, "") for key in ("text", "name", "site"))
    if not (isinstance(text, str) and isinstance(name, str) and isinstance(site, str)):
        raise ConfigError("text, name and site are texts; reload the page")
    if not is_dataset_id(name):
        raise ConfigError(f"name {show_name(name)[:80]!r}: letters, digits, _ and inner - only")
    if site and site not in list_sites():
        raise ConfigError(f"site {show_name(site)[:80]!r}: there is no profile of that name; `hpcxrf site list`")
    probe = content.get("probe") is True
    return answer_json({"id": begin_plan(runs.plans, text, runs.folder, runs.folder / name, site, probe=probe)})


def _answer_planned(runs: Runs, request: Request) -> Answer:
    return answer_json(poll_plan(runs.plans, request.parameter("id")))


def _answer_prepare(runs: Runs, request: Request) -> Answer:
    return answer_json(describe_prepared(prepare(runs, request.read_object())))


def _answer_begin(runs: Runs, request: Request) -> Answer:
    return answer_json(begin(runs, request.read_object()))


def _answer_stop(runs: Runs, request: Request) -> Answer:
    return answer_json(stop(runs, str(request.read_object().get("run", ""))))


RUN_ANSWERS: Final[Mapping[tuple[str, str], tuple[str, Callable[[Runs, Request], Answer]]]] = {
    ("GET", "/api/runs"): ("runs", _answer_list),
    ("GET", "/api/runs/one"): ("runs", _answer_one),
    ("GET", "/api/runs/form"): ("forms", _answer_form),
    ("GET", "/api/runs/start"): ("forms", _answer_start),
    ("POST", "/api/runs/text"): ("forms", _answer_text),
    ("POST", "/api/runs/plan"): ("forms", _answer_plan),
    ("GET", "/api/runs/plan"): ("", _answer_planned),
    ("POST", "/api/runs/prepare"): ("forms", _answer_prepare),
    ("POST", "/api/runs/begin"): ("forms", _answer_begin),
    ("POST", "/api/runs/stop"): ("forms", _answer_stop),
}
"""Threads in which it runs, and what answers, by method and path."""
