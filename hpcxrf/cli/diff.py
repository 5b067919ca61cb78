"""`hpcxrf diff`: what changed between two runs of the same scans."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from hpcxrf.cli import options as opt

if TYPE_CHECKING:
    from hpcxrf.archive.diff.walk import Comparison

EXAMPLE: Final = (
    "Examples:  hpcxrf diff out out-new -o changes.html   |   hpcxrf diff out out-new --json --fail-on-change"
)
_SHOWN_KINDS: Final = 10


def diff(
    first: Annotated[Path, typer.Argument(metavar="RUN1", help="A run directory, or a results store.")],
    second: Annotated[Path, typer.Argument(metavar="RUN2", help="The run to compare with it, or a results store.")],
    page: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="HTML", help="Write a page with a table, maps and ratios.")
    ] = None,
    most: Annotated[
        int, typer.Option("--most", min=0, max=200, help="Number of datasets that changed most to show in detail.")
    ] = 20,
    deviance: Annotated[
        float, typer.Option("--deviance", min=0.0, help="Relative change of a deviance that is better or worse.")
    ] = 0.01,
    sigma: Annotated[
        float, typer.Option("--sigma", min=0.0, help="Change of theta, amplitudes and maps that counts, in sigma.")
    ] = 1.0,
    fail_on_change: Annotated[
        bool, typer.Option("--fail-on-change", help="End with exit code 8 where anything differs by more than that.")
    ] = False,
    as_json: opt.AsJson = False,
) -> None:
    """Compare two runs of the same scans: R2, deviance, verdict, theta, elements, maps, versions and configuration.

    Datasets are matched by their names, else by the checksums of their scans, else by their paths.
    """
    from hpcxrf.archive.diff.facts import Limits
    from hpcxrf.archive.diff.walk import compare_runs, describe_sides
    from hpcxrf.cli.progress import show_step
    from hpcxrf.cli.terminal import console, print_long_json
    from hpcxrf.errors import DifferentError

    limits = Limits(deviance=deviance, sigma=sigma)
    with (
        show_step(console(), "compare", "datasets") as looked_at,
        compare_runs(first, second, limits=limits, most=most, looked_at=looked_at) as found,
    ):
        if page is not None:
            from hpcxrf.archive.diff.page import write_diff_page

            write_diff_page(found, page)
        if as_json:
            summary = found.summary.describe()
            print_long_json({**describe_sides(found), "summary": summary}, "datasets", found.read_all())
        else:
            _print_comparison(found)
        changed = found.summary.changed
    if page is not None:
        console().print(f"page: {page}", markup=False)
    if fail_on_change and changed:
        noun = "dataset differs" if changed == 1 else "datasets differ"
        raise DifferentError(f"{changed} {noun} by more than {sigma:g} sigma or {100 * deviance:g} % of the deviance")


def _print_comparison(found: "Comparison") -> None:
    from rich.markup import escape
    from rich.table import Table

    from hpcxrf.cli.terminal import results_console
    from hpcxrf.config.untrusted import show_name

    out = results_console()
    numbers = found.summary.describe()
    parts = [f"{numbers[word]} {word}" for word in ("worse", "mixed", "better", "same")]
    lacking = [
        f"{numbers[key]} {key.replace('_', ' ')}"
        for key in ("only_in_first", "only_in_second", "without_results")
        if numbers[key]
    ]
    noun = "dataset" if numbers["datasets"] == 1 else "datasets"
    told = ", ".join([*parts, *lacking])
    out.print(f"{numbers['datasets']} {noun}: {told}; {numbers['changed']} changed", markup=False)
    for title, kinds in (("options", numbers["configuration"]), ("versions and constants", numbers["versions"])):
        for one in kinds[:_SHOWN_KINDS]:
            out.print(
                show_name(f"{title}: {one['name']}: {one['first']} -> {one['second']} ({one['datasets']})"),
                markup=False,
            )
        if len(kinds) > _SHOWN_KINDS:
            out.print(f"{title}: {len(kinds) - _SHOWN_KINDS} more", markup=False)
    if not found.most:
        return
    table = Table(show_edge=False, title="changed most", title_justify="left")
    for name, justify in (
        ("dataset", "left"),
        ("outcome", "left"),
        ("sigma", "right"),
        ("of", "left"),
        ("why", "left"),
    ):
        table.add_column(name, justify="right" if justify == "right" else "left", overflow="fold")
    for offset in found.most:
        table.add_row(*(escape(show_name(text)) for text in _list_cells(found.read(offset))))
    out.print(table)


def _list_cells(values: dict[str, Any]) -> tuple[str, ...]:
    reason = values["fault"] or values["second_reason"] or values["first_reason"]
    why = "; ".join([*values["why"], *([reason] if reason else [])])
    sigma = "" if reason else f"{values['largest']:.3g}"
    return values["name"], values["outcome"], sigma, values["largest_of"], why
