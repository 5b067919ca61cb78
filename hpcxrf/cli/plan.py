"""`hpcxrf plan`: what would run, how big it is, and what speaks against it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from hpcxrf.cli import options as opt
from hpcxrf.errors import ConfigError, InputFileError

if TYPE_CHECKING:
    from rich.table import Table

    from hpcxrf.cluster.login.probe import Probe
    from hpcxrf.config.run import RunConfig
    from hpcxrf.config.site import SiteProfile
    from hpcxrf.notes import Note
    from hpcxrf.pipeline.plan import Plan
    from hpcxrf.pipeline.plan_size import PlanSize
    from hpcxrf.runner.counts import TaskCounts
    from hpcxrf.runner.records import Refusal
    from hpcxrf.runner.workload import Workload

_SHOWN_REFUSALS: Final = 20
EXAMPLE = "Examples:  hpcxrf plan run.yaml --site generic-gpu --max-gpu-hours 20   |   hpcxrf plan run.yaml --probe"


def plan(
    context: typer.Context,
    files: opt.Files,
    site: Annotated[str | None, typer.Option("--site", help="Compare with a site profile and its partition.")] = None,
    output: opt.PlannedOutput = None,
    elements: opt.Elements = None,
    energy: opt.Energy = None,
    pixels: opt.Pixels = None,
    detectors: opt.Detectors = None,
    workers: opt.Workers = None,
    settings: opt.Set = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Measure the time of a fit here, on the smallest scan.")
    ] = False,
    max_gpu_hours: Annotated[
        float | None,
        typer.Option(min=0.0, help="Fail if the estimate exceeds this many GPU-hours.", show_default="no limit"),
    ] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Say what a run consists of: datasets, tasks, bytes, hours by measurement; refuse what cannot work."""
    from hpcxrf.cli.progress import show_step
    from hpcxrf.cli.terminal import console, print_json
    from hpcxrf.cluster.login.checks import hours_faults, memory_faults, output_faults_of, site_faults
    from hpcxrf.cluster.login.probe import last_probe, measure
    from hpcxrf.cluster.login.sites import find_site
    from hpcxrf.pipeline.plan import make_plan
    from hpcxrf.pipeline.plan_size import measure_plan
    from hpcxrf.workloads import choose_workload

    config, text = opt.read_request(files, context.params)
    workload = choose_workload(config)
    workload.check(config)
    profile = None if site is None else find_site(site)
    folder = (output or opt.name_output(files)).absolute()
    if workload.name != "scan":
        if probe or max_gpu_hours is not None:
            raise ConfigError(
                f"--probe and --max-gpu-hours estimate the hours of maps; of a {workload.name} no speed is known before"
            )
        _plan_tasks(files[0], workload, config, text, folder, profile, as_json=as_json)
        return
    with show_step(console(), "open files") as advance:
        made = make_plan(config, folder, opened=advance)
    work = measure_plan(made)
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
    _refuse(files[0], len(made.jobs), made.refusals, faults)


def _plan_tasks(
    file: Path,
    workload: "Workload",
    config: "RunConfig",
    text: str,
    folder: Path,
    profile: "SiteProfile | None",
    *,
    as_json: bool,
) -> None:
    """Count the tasks of a workload of which no speed is known."""
    from dataclasses import asdict

    from hpcxrf.cli.progress import show_step
    from hpcxrf.cli.terminal import console, print_json
    from hpcxrf.cluster.login.checks import folder_faults, site_faults
    from hpcxrf.cluster.login.sbatch import one_core_site
    from hpcxrf.notes import pack_notes
    from hpcxrf.runner.counts import count_tasks

    with show_step(console(), "open files") as advance:
        counts = count_tasks(workload, config, text, advance)
    faults, notes = folder_faults(folder), list(counts.notes)
    if profile is not None:
        site = one_core_site(profile) if workload.one_core else profile
        of_site, unasked = site_faults(site, config)
        faults, notes = [*faults, *of_site], [*notes, *unasked]
    if as_json:
        told = asdict(counts) | {"workload": workload.name, "refused": _reasons(counts.refusals), "faults": faults}
        del told["refusals"]
        print_json(told | pack_notes(notes))
    else:
        _print_tasks(workload, counts, notes)
    _refuse(file, counts.items, counts.refusals, faults)


def _reasons(refusals: "Sequence[Refusal]") -> dict[str, str]:
    return {str(one.source): one.reason for one in refusals}


def _print_tasks(workload: "Workload", counts: "TaskCounts", notes: "Sequence[Note]") -> None:
    from rich.table import Table

    from hpcxrf.cli.terminal import results_console

    table = Table.grid(padding=(0, 2))
    table.add_row("[bold]workload[/]", workload.name)
    table.add_row("[bold]datasets[/]", f"{counts.items}, {len(counts.refusals)} cannot be opened")
    table.add_row("[bold]tasks[/]", ", ".join(f"{n} {stage}" for stage, n in counts.tasks.items()))
    if counts.unforeseen:
        table.add_row("", "those of the fits are known when the maps are there")
    if workload.one_core:
        table.add_row("[bold]workers[/]", "one core each, no GPU: CPU seconds are compared")
    _add_doubts(table, notes, counts.refusals)
    results_console().print(table)


def _add_doubts(table: "Table", notes: "Sequence[Note]", refusals: "Sequence[Refusal]") -> None:
    from rich.markup import escape

    from hpcxrf.cli.notes import label_note

    for note in notes:
        table.add_row(label_note(note), escape(note.text))
    for source, reason in list(_reasons(refusals).items())[:_SHOWN_REFUSALS]:
        # Most reasons begin with the file.
        table.add_row("[red]refused[/]", escape(reason if reason.startswith(source) else f"{source}: {reason}"))


def _refuse(file: Path, runnable: int, refusals: "Sequence[Refusal]", faults: Sequence[str]) -> None:
    """End with an exit code where the run would end so.

    Raises:
        InputFileError: no scan can be opened.
        ConfigError: something speaks against the run.
    """
    if not runnable:
        raise InputFileError(f"{file}: not one of {len(refusals)} scans can be opened; the reasons are above")
    if faults:
        raise ConfigError("\n".join([f"{file}: cannot run:", *[f"  {f}" for f in faults]]))


def _json(
    made: "Plan", work: "PlanSize", probe: "Probe | None", faults: list[str], notes: "list[Note]"
) -> dict[str, Any]:
    from dataclasses import asdict

    from hpcxrf.cluster.login.probe import hours
    from hpcxrf.notes import pack_notes
    from hpcxrf.pipeline.device_memory import largest_device_memory
    from hpcxrf.pipeline.memory import IDLE_WORKER_BYTES
    from hpcxrf.pipeline.plan import memory_by_stage

    memory, device = memory_by_stage(made), largest_device_memory(made.jobs)
    return {
        **asdict(work),
        "worker_bytes": {stage: IDLE_WORKER_BYTES + needed for stage, needed in memory.items()},
        "device_bytes": None if device is None else asdict(device),
        "refused": _reasons(made.refusals),
        "probe": None if probe is None else asdict(probe),
        "hours": None if probe is None else hours(work, probe),
        "faults": faults,
        **pack_notes([*made.notes, *notes]),
    }


def _print(made: "Plan", work: "PlanSize", probe: "Probe | None", notes: "list[Note]") -> None:
    from rich.markup import escape
    from rich.table import Table

    from hpcxrf.cli.terminal import results_console
    from hpcxrf.cluster.login.checks import size_text
    from hpcxrf.pipeline.plan import memory_text

    table = Table.grid(padding=(0, 2))
    table.add_row("[bold]datasets[/]", f"{work.datasets}, {len(made.refusals)} cannot be opened")
    table.add_row("[bold]tasks[/]", ", ".join(f"{n} {stage}" for stage, n in work.tasks.items()))
    table.add_row("[bold]pixels[/]", f"{work.pixels:,} spectra of pixels, {work.spectra:,} integrated")
    table.add_row("[bold]read[/]", size_text(work.bytes_read))
    table.add_row("[bold]write[/]", f"at most {size_text(work.bytes_written)}, before compression")
    table.add_row("[bold]leave[/]", f"at most {work.inodes:,} files and folders{_pack_text(made)}")
    if made.jobs:
        table.add_row("[bold]memory[/]", memory_text(made))
        table.add_row("[bold]GPU memory[/]", _device_text(made))
    table.add_row("[bold]time[/]", escape(_time(work, probe)))
    _add_doubts(table, (*made.notes, *notes), made.refusals)
    results_console().print(table)


def _pack_text(made: "Plan") -> str:
    packed = sum(job.pack for job in made.jobs)
    return ", one file a store (store.pack)" if packed else ""


def _device_text(made: "Plan") -> str:
    from hpcxrf.cluster.login.checks import size_text
    from hpcxrf.pipeline.device_memory import LEAST_BATCH, MOST_BATCH, largest_device_memory

    device = largest_device_memory(made.jobs)
    if device is None:
        return "none: execution.device is cpu"
    return (
        f"of a worker's GPU, where it has one, at most {size_text(device.most)} with {MOST_BATCH} pixels at a time; "
        f"{size_text(device.least)} with {LEAST_BATCH}, and no less"
    )


def _time(work: "PlanSize", probe: "Probe | None") -> str:
    from hpcxrf.cluster.login.probe import hours

    if probe is None:
        return "unknown: no such fit has been measured yet; use --probe"
    unit = "GPU-hours" if probe.on_gpu else "core-hours"
    return f"about {hours(work, probe):.2g} {unit}, by a measurement of {probe.date} on {probe.host} ({probe.device})"
