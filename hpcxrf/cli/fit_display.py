"""What people and scripts see of a fitted integrated spectrum."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from hpcxrf.cli.notes import print_notes
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.suggestion import Suggestion
from hpcxrf.fitting.verdict import Verdict
from hpcxrf.notes import pack_notes
from hpcxrf.pipeline.prepare.suggestions import as_records
from hpcxrf.pipeline.single import FileFit


def describe_fit(result: FileFit) -> dict[str, Any]:
    """Describe a fit in JSON values, as scripts get it."""
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
        "verdict": fit.verdict.word,
        "verdict_reasons": list(fit.verdict_reasons),
        "flags": list(fit.flags),
        "iterations": fit.iterations,
        "suggested": as_records(result.suggested),
        "theta": theta,
        "amplitudes": amplitudes,
        "sigma": sigma,
        "detection_limit": limits,
        "decision_limit": dict(zip(fit.component_names, fit.decision_limit.tolist(), strict=True)),
        "found": dict(zip(fit.component_names, fit.found.tolist(), strict=True)),
        "model_error": fit.model_error,
        "line_ratios": None if fit.ratios is None else fit.ratios.describe(),
        "at_bound": [n for n, b in zip(fit.parameter_names, fit.at_bound.tolist(), strict=True) if b],
        "first_channel": fit.first_channel,
        "last_channel": fit.first_channel + fit.counts.shape[0] - 1,
        **pack_notes([*result.notes, *fit.notes]),
    }
    if result.by_detector:
        value["theta_by_detector"] = [
            dict(zip(f.parameter_names, f.theta.tolist(), strict=True)) for f in result.by_detector
        ]
    return value


def _names_column(title: str, names: Sequence[str]) -> Column:
    """A column of names, which no narrow terminal shortens."""
    return Column(title, min_width=max(map(len, names), default=0))


def print_fit(out: Console, notes: Console, result: FileFit) -> None:
    """Print a fit as people read it.

    Args:
        out: console of the results.
        notes: console of the notes.
        result: the fit.
    """
    fit = result.fit
    out.print(
        f"[bold]{escape(result.scan.name)}[/] detector {result.detector}: R2 {fit.r2:.5f} "
        f"(counting noise alone: {fit.r2_expected:.5f}), reduced chi2 {fit.reduced_chi2:.2f}, "
        f"{fit.status.name.lower()} in {fit.iterations} steps, {fit.cpu_s:.2f} CPU s"
    )
    out.print(describe_verdict(fit))
    print_notes(notes, {"": [*result.notes, *fit.notes]})
    title = "amplitudes" if fit.verdict is not Verdict.WRONG else "amplitudes: not results, see the verdict"
    amplitudes = Table("component", "counts", "sigma", "detection limit", "", title=title)
    rows = zip(
        fit.component_names,
        fit.amplitude.tolist(),
        fit.amplitude_sigma.tolist(),
        fit.detection_limit.tolist(),
        fit.found.tolist(),
        strict=True,
    )
    for name, value, sigma, limit, found in rows:
        style, verdict = ("", "") if found else ("dim", "not found")
        amplitudes.add_row(name, f"{value:,.0f}", f"{sigma:,.0f}", f"{limit:,.0f}", verdict, style=style)
    out.print(amplitudes)
    if result.suggested:
        out.print(_make_suggested_table(result.suggested))
    table = Table(_names_column("parameter", fit.parameter_names), "value", "sigma", "start", "unit", "", title="theta")
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


def describe_verdict(fit: SpectrumFit) -> str:
    """The verdict on a fit with its reasons, marked up for the terminal."""
    colour = {Verdict.GOOD: "green", Verdict.DOUBTFUL: "yellow", Verdict.WRONG: "red"}.get(fit.verdict, "dim")
    reasons = "".join(f"\n  - {escape(reason)}" for reason in fit.verdict_reasons)
    return f"verdict: [{colour}]{fit.verdict.word}[/]{reasons}"


def _make_suggested_table(suggested: Sequence[Suggestion]) -> Table:
    title = "Suggested elements (not in your list, but present in the residual)"
    table = Table("component", "z", "counts", "sigma", "lines (keV: z, overlaps)", title=title)
    for s in suggested:
        lines = "; ".join(
            f"{line.energy_kev:.2f}: {line.z:.1f}" + (f", {line.overlaps}" if line.overlaps else "") for line in s.lines
        )
        table.add_row(s.name, f"{s.z:.1f}", f"{s.counts:,.0f}", f"{s.sigma:,.0f}", escape(lines))
    return table
