"""`hpcxrf run`: a whole run on this machine. What is heavy is imported inside, so that `--help` answers at once."""

import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from hpcxrf.cli import options as opt
from hpcxrf.errors import ConfigError

EXAMPLE: Final = (
    "Examples:  hpcxrf run scan.h50 --elements Si,Fe,Zn --energy 12 -o out   |   "
    "hpcxrf run workflows/scan.yaml -o out --workers 4 --set fit.kbeta_sd=0.15"
)


def run(
    context: typer.Context,
    files: opt.Files,
    output: opt.Output,
    elements: opt.Elements = None,
    energy: opt.Energy = None,
    pixels: opt.Pixels = None,
    detectors: opt.Detectors = None,
    workers: opt.Workers = None,
    device: opt.Device = None,
    settings: opt.Set = None,
    energy_range: opt.EnergyRange = None,
    calibration: opt.Calibration = None,
    override: opt.Override = None,
    source: opt.Source = None,
    anode: opt.Anode = None,
    kv: opt.Kv = None,
    background: opt.Background = None,
    method: opt.Method = None,
    objective: opt.Objective = None,
    kbeta_sd: opt.KbetaSd = None,
    energy_sd: opt.EnergySd = None,
    previous: opt.Previous = None,
    auto_elements: opt.AutoElements = None,
    suggest: opt.Suggest = None,
    dataset_path: opt.DatasetPath = None,
    energy_axis: opt.EnergyAxis = None,
    energy_offset: opt.EnergyOffset = None,
    energy_slope: opt.EnergySlope = None,
    strict: opt.Strict = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say of every dataset whether it would be run, and why; run nothing.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --dry-run: one JSON object on standard output.")
    ] = False,
    help_all: opt.HelpAll = False,
) -> None:
    """Run everything here: a run file with options over it, or scans. The same command goes on where it stopped."""
    config, text = opt.read_request(files, context.params)
    if dry_run:
        from hpcxrf.cli.dry_run import explain

        explain(config, output, as_json=as_json)
        return
    if as_json:
        raise ConfigError("--json shows what --dry-run finds; give both, or read the index of the run when it is done")
    run_on_this_machine(config, text, output, strict=strict)


def run_on_this_machine(  # (config is a RunConfig, which is imported late)
    config: Any,  # noqa: ANN401
    text: str,
    output: Path,
    *,
    as_json: bool = False,
    strict: bool = False,
) -> None:
    """Run the workload that the configuration describes, on a local cluster, and show it.

    Args:
        config: a checked run file.
        text: its text as given.
        output: the run directory.
        as_json: print the tables of a benchmark as JSON, too.
        strict: doubtful fits end with an exit code, too.

    Raises:
        DatasetsFailedError: the run went to its end, but some datasets failed, or their fits are wrong.
    """
    from hpcxrf.cli.run_display import print_result, watching
    from hpcxrf.cli.terminal import console
    from hpcxrf.cluster.local.run import run_here
    from hpcxrf.workloads import choose_workload

    workload = choose_workload(config)
    workload.check(config)
    out = console()
    with watching(out, workload) as callbacks:
        result = run_here(config, text, output, callbacks, command=" ".join(sys.argv))
    print_result(out, result, sys.argv, as_json=as_json)
    refuse_failures(result)
    refuse_verdicts(result, strict=strict)


def refuse_failures(result: Any) -> None:  # noqa: ANN401 (RunResult)
    """Turn failures among good datasets into the exit code that says so.

    Raises:
        DatasetsFailedError: some datasets failed.
    """
    from hpcxrf.errors import DatasetsFailedError

    ended = result.ended
    if not ended.failed + ended.not_tried:
        return
    parts = [f"{n} {word}" for n, word in ((ended.failed, "failed"), (ended.not_tried, "not tried")) if n]
    raise DatasetsFailedError(
        f"{ended.total} datasets: {', '.join(parts)}, {ended.done} done; {result.page} and `hpcxrf logs "
        f"{result.run.path} --failed` give the reasons. Fix the cause and rerun the same command"
    )


def refuse_verdicts(result: Any, *, strict: bool) -> None:  # noqa: ANN401 (RunResult)
    """Turn fits that are wrong or on a doubtful energy axis, or just doubtful where that counts, into their exit code.

    Raises:
        DatasetsFailedError: some datasets have such a fit.
    """
    from hpcxrf.errors import DatasetsFailedError
    from hpcxrf.fitting.verdict import Verdict
    from hpcxrf.pipeline.printout import count_verdicts
    from hpcxrf.runner.datasets import read_datasets

    refused = (Verdict.WRONG, Verdict.DOUBTFUL) if strict else (Verdict.WRONG,)
    counted = count_verdicts(read_datasets(result.run))
    parts = [f"{counted[verdict]} {verdict.word}" for verdict in refused if counted[verdict]]
    if flagged := sum(bool(record.facts.get("axis_flags")) for record in read_datasets(result.run)):
        parts.append(f"{flagged} with a doubtful energy axis or incident energy")
    if parts:
        noun = "dataset" if counted.total() == 1 else "datasets"
        raise DatasetsFailedError(
            f"{counted.total()} fitted {noun}: {', '.join(parts)}; {result.page} gives the reasons. Their maps are "
            "marked there; give the elements, the incident energy or a calibration that the reasons name"
        )
