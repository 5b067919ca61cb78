"""What people see of a comparison with another program."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hpcxrf.results.compare.page import Comparison
from hpcxrf.results.names import shown_name


def print_comparison(out: Console, comparison: Comparison) -> None:
    """Print the figures of a comparison as a table.

    Args:
        out: console of the results.
        comparison: ours and theirs of one detector and method.
    """
    out.print(
        f"[bold]{escape(comparison.ours)}[/] detector {comparison.detector}, beside {comparison.program} "
        f"{comparison.method} ({escape(comparison.theirs)}, counts of the {comparison.quantity})"
    )
    table = Table(show_edge=False)
    table.add_column("component")
    for title in ("pixels", "ours", "theirs", "ratio", "correlation", "difference", "95 % limits", "in sigma"):
        table.add_column(title, justify="right")
    for one in comparison.agreements:
        table.add_row(
            shown_name(one.component),
            str(one.pixels),
            f"{one.ours_counts:.6g}",
            f"{one.theirs_counts:.6g}",
            f"{one.ratio:.4f} +- {one.ratio_sigma:.4f}",
            f"{one.correlation:.4f}",
            f"{one.mean_difference:.3g}",
            f"{one.lower_limit:.3g} .. {one.upper_limit:.3g}",
            f"{one.rms_in_sigma:.2f}",
        )
    out.print(table)
    for title, names in (("only in ours", comparison.only_ours), ("only in theirs", comparison.only_theirs)):
        if names:
            out.print(f"{title}: {', '.join(map(shown_name, names))}", markup=False)
    for remark in comparison.remarks:
        out.print(remark, markup=False)
