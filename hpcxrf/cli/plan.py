"""`hpcxrf plan`: what would run, how big it is, and what speaks against it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpcxrf.cli import options as opt

if TYPE_CHECKING:
    from hpcxrf.cluster.login.probe import Probe
    from hpcxrf.pipeline.plan import Plan
    from hpcxrf.pipeline.plan_size import Workload

EXAMPLE = "Examples:  hpcxrf plan run.yaml --site generic-gpu --max-gpu-hours 20   |   hpcxrf plan run.yaml --probe"


def plan(
    run_file: Annotated[Path, typer.Argument(metavar="RUNFILE", help="The run file (.yaml).")],
    site: Annotated[str | None, typer.Option("--site", help="Compare with a site profile and its partition.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The run directory.", show_default="RUNFILE's name-run")
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Measure what a fit costs here: the smallest scan is fitted.")
    ] = False,
    max_gpu_hours: Annotated[
        float | None, typer.Option(min=0.0, help="Refuse what takes more.", show_default="no limit")
    ] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Say what would run: datasets, tasks, bytes, hours by measurement; refuse what cannot work."""
    from hpcxrf.cli.terminal import console, print_json, progress_bars
    from hpcxrf.cluster.login.feasible import hours_faults, memory_faults, output_faults_of, site_faults
    from hpcxrf.cluster.login.probe import last_probe, measure
    from hpcxrf.cluster.login.sites import find_site
    from hpcxrf.config.run import load_run_file
    from hpcxrf.errors import ConfigError
    from hpcxrf.pipeline.plan import make_plan
    from hpcxrf.pipeline.plan_size import workload
    from hpcxrf.pipeline.request import check_request

    config, _ = load_run_file(run_file)
    check_request(config)
    profile = None if site is None else find_site(site)
    folder = (output or Path(f"{run_file.stem}-run")).absolute()
    out = console()
    with progress_bars(out) as bars:
        opening = bars.add_task("open files", total=None, rate="")
        made = make_plan(config, folder, opened=lambda n, of: bars.update(opening, completed=n, total=of))
    work = workload(made)
    on_gpu = profile is not None and profile.gpus_per_node > 0 and config.execution.device != "cpu"
    measured = measure(made, config) if probe else last_probe(config, on_gpu=on_gpu)
    faults, notes = output_faults_of(folder, work)
    if profile is not None:
        of_site, unasked = site_faults(profile, config)
        faults, notes = [*faults, *of_site, *memory_faults(made, profile)], [*notes, *unasked]
    faults += hours_faults(work, measured, max_gpu_hours)
    if as_json:
        print_json(_json(made, work, measured, faults, notes))
    else:
        _print(made, work, measured, notes)
    if faults:
        raise ConfigError("\n".join([f"{run_file}: would not work:", *[f"  {f}" for f in faults]]))


def _json(made: "Plan", work: "Workload", probe: "Probe | None", faults: list[str], notes: list[str]) -> dict[str, Any]:
    from dataclasses import asdict

    from hpcxrf.cluster.login.probe import hours
    from hpcxrf.pipeline.device_memory import largest_device_memory
    from hpcxrf.pipeline.memory import IDLE_WORKER_BYTES
    from hpcxrf.pipeline.plan import memory_by_stage

    memory, device = memory_by_stage(made), largest_device_memory(made.jobs)
    return {
        **asdict(work),
        "worker_bytes": {stage: IDLE_WORKER_BYTES + needed for stage, needed in memory.items()},
        "device_bytes": None if device is None else asdict(device),
        "refused": {str(r.source): r.reason for r in made.refusals},
        "probe": None if probe is None else asdict(probe),
        "hours": None if probe is None else hours(work, probe),
        "faults": faults,
        "notes": [*made.notes, *notes],
    }


def _print(made: "Plan", work: "Workload", probe: "Probe | None", notes: list[str]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from hpcxrf.cli.terminal import console
    from hpcxrf.cluster.login.feasible import size_text
    from hpcxrf.pipeline.plan import memory_text

    table = Table.grid(padding=(0, 2))
    table.add_row("[bold]datasets[/]", f"{work.datasets}, {len(made.refusals)} cannot be opened")
    table.add_row("[bold]tasks[/]", ", ".join(f"{n} {stage}" for stage, n in work.tasks.items()))
    table.add_row("[bold]pixels[/]", f"{work.pixels:,} spectra of pixels, {work.spectra:,} integrated")
    table.add_row("[bold]read[/]", size_text(work.bytes_read))
    table.add_row("[bold]write[/]", f"at most {size_text(work.bytes_written)}, before compression")
    if made.jobs:
        table.add_row("[bold]memory[/]", memory_text(made))
        table.add_row("[bold]GPU memory[/]", _device_text(made))
    table.add_row("[bold]time[/]", escape(_time(work, probe)))
    for note in (*made.notes, *notes):
        table.add_row("note", escape(note))
    for refusal in made.refusals[:20]:
        # Most reasons begin with the file.
        named = refusal.reason.startswith(str(refusal.source))
        text = refusal.reason if named else f"{refusal.source}: {refusal.reason}"
        table.add_row("[red]refused[/]", escape(text))
    console().print(table)


def _device_text(made: "Plan") -> str:
    from hpcxrf.cluster.login.feasible import size_text
    from hpcxrf.pipeline.device_memory import LEAST_BATCH, MOST_BATCH, largest_device_memory

    device = largest_device_memory(made.jobs)
    if device is None:
        return "none: execution.device is cpu"
    return (
        f"of a worker's GPU, where it has one, at most {size_text(device.most)} with {MOST_BATCH} pixels at a time; "
        f"{size_text(device.least)} with {LEAST_BATCH}, and no less"
    )


def _time(work: "Workload", probe: "Probe | None") -> str:
    from hpcxrf.cluster.login.probe import hours

    if probe is None:
        return "not known: nothing of this kind was measured; `--probe` measures"
    unit = "GPU-hours" if probe.on_gpu else "core-hours"
    return f"about {hours(work, probe):.2g} {unit}, by a measurement of {probe.date} on {probe.host} ({probe.device})"
