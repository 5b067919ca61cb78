"""What `hpcxrf run --dry-run` prints: of every dataset whether it would be run, and why."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from hpcxrf.config.run import RunConfig
    from hpcxrf.runner.dry_run import Intention

_SHOWN: Final = 200
_COLOURS: Final = {"run": "green", "nothing": "dim", "refused": "red", "left alone": "yellow"}


def explain(config: "RunConfig", output: Path, *, as_json: bool) -> None:
    """Print what a run would do now with every dataset, and why.

    Args:
        config: a checked run file.
        output: the run directory, which need not be there.
        as_json: print one JSON object instead of lines.

    Raises:
        HpcxrfError: the plan cannot go on.
    """
    from hpcxrf.cli.terminal import print_json, results_console
    from hpcxrf.runner.dry_run import explain_run
    from hpcxrf.workloads import choose_workload

    workload = choose_workload(config)
    workload.check(config)
    intentions = explain_run(workload, config, output)
    if as_json:
        found = [_pack(one) for one in intentions]
        print_json(
            {"run": str(output.absolute()), "datasets": found, "counts": Counter(one["action"] for one in found)}
        )
        return
    counts: Counter[str] = Counter()
    out = results_console()
    for one in intentions:
        counts[one.action] += 1
        if one.action != "nothing" and counts.total() - counts["nothing"] <= _SHOWN:
            tasks = f", {one.tasks} of {one.of} tasks" if one.of else ""
            style = _COLOURS[one.action]
            out.print(f"[{style}]{one.action}[/] ", end="")
            out.print(f"{one.dataset_id}{tasks}: {one.reason}", markup=False, soft_wrap=True, highlight=False)
    more = counts.total() - counts["nothing"] - _SHOWN
    if more > 0:
        out.print(f"and {more} more; --json lists all")
    parts = ", ".join(f"{counts[action]} {word}" for action, word in _WORDS.items() if counts[action])
    out.print(f"{counts.total()} datasets: {parts or 'none'}")


_WORDS: Final = {
    "run": "to run",
    "nothing": "with nothing to do",
    "refused": "refused",
    "left alone": "left alone (failed, and hpcxrf retry chose others)",
}


def _pack(one: "Intention") -> dict[str, Any]:
    return {
        "dataset_id": one.dataset_id,
        "source": str(one.source),
        "action": one.action,
        "reason": one.reason,
        "tasks": one.tasks,
        "of": one.of,
    }
