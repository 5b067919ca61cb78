"""What people see of a run, a fit, a file: bars, tables, and the JSON of a fit."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TaskID
from rich.table import Table

from hpcxrf.cli.terminal import progress_bars
from hpcxrf.cluster.local.cluster import LocalClusterHandle
from hpcxrf.cluster.local.run import RunResult, Watch
from hpcxrf.fitting.spectrum.suggestion import Suggestion
from hpcxrf.pipeline.plan import Plan, memory_text
from hpcxrf.pipeline.prepare.suggestions import as_records
from hpcxrf.pipeline.single import FileFit
from hpcxrf.runner.driver import Progress as TaskProgress
from hpcxrf.runner.driver import totals

STAGE_TITLES: Final = {
    "ingest": "ingest into Zarr",
    "integrated": "integrated spectra",
    "pixels": "pixels",
    "regions": "find regions",
    "refine": "refine regions",
    "finalise": "close stores, draw",
}


@contextmanager
def watching(out: Console) -> Iterator[Watch]:
    """Bars of a run while the block runs."""
    with progress_bars(out) as bars:
        yield _Bars(bars, out).watch()


class _Bars:
    """One bar per stage; the pixel bar also shows the rate."""

    def __init__(self, bars: Progress, out: Console) -> None:
        self.bars, self.out = bars, out
        self.opening = bars.add_task("open files", total=None, rate="")
        self.stages: dict[str, TaskID] = {}
        self.pixels = 0

    def watch(self) -> Watch:
        return Watch(
            opened=lambda done, total: self.bars.update(self.opening, completed=done, total=total),
            planned=self.planned,
            started=self.started,
            progress=self.progress,
            reporting=lambda n: self.out.print(f"writing the report, {n} {'dataset' if n == 1 else 'datasets'}"),
        )

    def planned(self, plan: Plan) -> None:
        for note in plan.notes:
            self.out.print(f"note: {escape(note)}")
        if plan.jobs:
            self.out.print(f"memory {memory_text(plan)}")
        for stage, total in totals(plan).items():
            # A bar's clock starts with its first task: its rate is that of the stage, not of the run.
            self.stages[stage] = self.bars.add_task(STAGE_TITLES[stage], total=total, rate="", start=False)

    def started(self, handle: LocalClusterHandle) -> None:
        where = f"{handle.n_workers} workers x {handle.threads_per_worker} threads"
        self.out.print(f"{handle.device}, {where}")
        if handle.dashboard_url is not None:
            self.out.print(f"dashboard: {handle.dashboard_url}")

    def progress(self, event: TaskProgress) -> None:
        bar = self.stages[event.stage]
        for begun in (bar, *self._next(event)):
            if self.bars.tasks[begun].start_time is None:
                self.bars.start_task(begun)
        self.pixels += event.pixels
        rate = ""
        if event.stage == "pixels":
            elapsed = self.bars.tasks[bar].elapsed or 0.0
            rate = f"{self.pixels / elapsed:,.0f} px/s" if elapsed > 0.5 else ""
        self.bars.update(bar, advance=1, rate=rate)

    def _next(self, event: TaskProgress) -> list[TaskID]:
        """The bar of the stage that an ended task lets begin."""
        names = [name for name in STAGE_TITLES if name in self.stages]
        following = names[names.index(event.stage) + 1 :][:1]
        return [self.stages[name] for name in following]


def print_run(out: Console, result: RunResult) -> None:
    """The final table, the failures with their reasons, and where the report is."""
    table = Table(title=f"run {escape(str(result.run.path))}", title_justify="left")
    for column in ("dataset", "status", "R2", "pixels", "seconds", "note"):
        table.add_column(column, overflow="fold")
    for refusal in result.plan.refusals:
        table.add_row(escape(refusal.source.name), "[red]failed[/]", "", "", "", escape(refusal.reason))
    for outcome in result.outcomes:
        facts = next((r.facts for r in outcome.records if r.stage == "integrated"), None) or {}
        r2 = ", ".join(f"{d}: {v:.5f}" for d, v in facts.get("r2", {}).items())
        pixels = outcome.job.shape[1] * outcome.job.shape[2]
        seconds = sum(r.wall_s for r in outcome.records)
        status = "[red]failed[/]" if outcome.failure else "[green]done[/]"
        table.add_row(
            escape(outcome.job.source.name), status, r2, f"{pixels:,}", f"{seconds:.1f}", escape(outcome.failure or "")
        )
    out.print(table)
    for outcome in result.outcomes:
        for note in outcome.notes:
            out.print(f"note: {escape(outcome.job.source.name)}: {escape(note)}")
    total = len(result.outcomes) + len(result.plan.refusals)
    out.print(f"{total - len(result.failed)} of {total} datasets done in {result.wall_s:.1f} s, report included")
    out.print(f"report: {escape(str(result.run.report_file))}", soft_wrap=True)


def fit_json(result: FileFit) -> dict[str, Any]:
    """The fit as scripts get it."""
    fit = result.fit
    theta = dict(zip(fit.parameter_names, fit.theta.tolist(), strict=True))
    amplitudes = dict(zip(fit.component_names, fit.amplitude.tolist(), strict=True))
    sigma = dict(zip(fit.component_names, fit.amplitude_sigma.tolist(), strict=True))
    sigma |= dict(zip(fit.parameter_names, fit.theta_sigma.tolist(), strict=True))
    limits = dict(zip(fit.component_names, fit.detection_limit.tolist(), strict=True))
    value: dict[str, Any] = {
        "file": str(result.scan.files[0]),
        "detector": result.detector,
        "r2": fit.r2,
        "r2_expected": fit.r2_expected,
        "reduced_chi2": fit.reduced_chi2,
        "deviance": fit.deviance,
        "cpu_s": fit.cpu_s + sum(f.cpu_s for f in result.by_detector),
        "status": fit.status.name.lower(),
        "iterations": fit.iterations,
        "suggested": as_records(result.suggested),
        "theta": theta,
        "amplitudes": amplitudes,
        "sigma": sigma,
        "detection_limit": limits,
        "at_bound": [n for n, b in zip(fit.parameter_names, fit.at_bound.tolist(), strict=True) if b],
        "first_channel": fit.first_channel,
        "last_channel": fit.first_channel + fit.counts.shape[0] - 1,
        "notes": list(result.notes) + list(fit.messages),
    }
    if result.by_detector:
        value["theta_by_detector"] = [
            dict(zip(f.parameter_names, f.theta.tolist(), strict=True)) for f in result.by_detector
        ]
    return value


def print_fit(out: Console, result: FileFit) -> None:
    """The fit as people read it."""
    fit = result.fit
    out.print(
        f"[bold]{escape(result.scan.name)}[/] detector {result.detector}: R2 {fit.r2:.5f} "
        f"(counting noise alone: {fit.r2_expected:.5f}), reduced chi2 {fit.reduced_chi2:.2f}, "
        f"{fit.status.name.lower()} in {fit.iterations} steps, {fit.cpu_s:.2f} CPU s"
    )
    for note in (*result.notes, *fit.messages):
        out.print(f"note: {escape(note)}")
    amplitudes = Table("component", "counts", "sigma", "detection limit", title="amplitudes")
    rows = zip(
        fit.component_names,
        fit.amplitude.tolist(),
        fit.amplitude_sigma.tolist(),
        fit.detection_limit.tolist(),
        strict=True,
    )
    for name, value, sigma, limit in rows:
        style = "dim" if value < limit else ""
        amplitudes.add_row(name, f"{value:,.0f}", f"{sigma:,.0f}", f"{limit:,.0f}", style=style)
    out.print(amplitudes)
    if result.suggested:
        out.print(_suggested_table(result.suggested))
    table = Table("parameter", "value", "sigma", "start", "unit", "", title="theta")
    for i, name in enumerate(fit.parameter_names):
        if bool(fit.free[i]):
            table.add_row(
                name,
                f"{float(fit.theta[i]):.6g}",
                f"{float(fit.theta_sigma[i]):.2g}",
                f"{float(fit.theta_initial[i]):.6g}",
                fit.parameter_units[i],
                "at a bound" if bool(fit.at_bound[i]) else "",
            )
    out.print(table)


def _suggested_table(suggested: Sequence[Suggestion]) -> Table:
    title = "not listed, but the residual speaks for"
    table = Table("component", "z", "counts", "sigma", "lines (keV: z, overlaps)", title=title)
    for s in suggested:
        lines = "; ".join(
            f"{line.energy_kev:.2f}: {line.z:.1f}" + (f", {line.overlaps}" if line.overlaps else "") for line in s.lines
        )
        table.add_row(s.name, f"{s.z:.1f}", f"{s.counts:,.0f}", f"{s.sigma:,.0f}", escape(lines))
    return table


def print_inspection(out: Console, facts: Mapping[str, Any]) -> None:
    """What `inspect` found, as people read it."""
    table = Table.grid(padding=(0, 2))
    detectors, n_y, n_x, n_channels = facts["shape"]
    calibration = facts["calibration"]
    rows = {
        "file": facts["file"],
        "format": facts["format"],
        "shape": f"{detectors} detectors, {n_y} x {n_x} pixels (y, x), {n_channels} channels",
        "counts": ", ".join(f"{total:,.0f}" for total in facts["total_counts"]) + " by detector",
        "incident energy": _or_unknown(facts["incident_energy_kev"], "keV"),
        "energy axis": "unknown"
        if calibration is None
        else f"{calibration[0]['offset_kev']:g} keV + {calibration[0]['slope_kev']:g} keV a channel",
        "scalers": ", ".join(facts["scalers"][:12]) or "none",
    }
    for name, value in rows.items():
        table.add_row(f"[bold]{name}[/]", escape(str(value)))
    for note in facts["notes"]:
        table.add_row("note", escape(note))
    out.print(table)


def _or_unknown(value: float | None, unit: str) -> str:
    return "unknown" if value is None else f"{value:g} {unit}"


def print_doctor(out: Console, checks: Mapping[str, Any]) -> None:
    """What `doctor` found."""
    table = Table("check", "", "found")
    for check in checks["checks"]:
        mark = "[green]ok[/]" if check["ok"] else "[red]fault[/]"
        table.add_row(check["name"], mark, escape(check["found"]))
    out.print(table)
