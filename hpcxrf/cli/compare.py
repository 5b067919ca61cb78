"""`hpcxrf compare`: maps of a run beside those of another program."""

from pathlib import Path
from typing import Annotated, Final

import typer

from hpcxrf.cli import options as opt

EXAMPLE: Final = "Example:  hpcxrf compare out --with img.dat/scan.h50 -o scan-comparison.html"


def compare(
    results: Annotated[Path, typer.Argument(metavar="RUN_OR_RESULT", help="A run directory, or a results store.")],
    other: Annotated[
        Path, typer.Option("--with", metavar="FILE", help="Maps of XRF-Maps, PyXRF or PyMca (HDF5) of the same scan.")
    ],
    dataset: Annotated[str | None, typer.Option(help="Name of the dataset.", show_default="the only one")] = None,
    detector: Annotated[
        str | None, typer.Option(help="Detector of ours, or 'sum'.", show_default="that of the file")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Fit of theirs: nnls, matrix, svd, roi, xrf_fit ..", show_default="all")
    ] = None,
    page: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="HTML", help="Write a page with maps and differences.")
    ] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Compare element maps with those of XRF-Maps, PyXRF or PyMca: ratio, correlation, differences.

    Counts of the strongest line, as XRF-Maps has them, are converted to counts of the family.
    """
    from hpcxrf.cli.compare_display import print_comparison
    from hpcxrf.cli.terminal import console, print_json, results_console
    from hpcxrf.pipeline.compare import compare_with
    from hpcxrf.results.compare.page import describe_comparison

    found = compare_with(results, other, dataset=dataset, detector=detector, method=method, page=page)
    if as_json:
        print_json({"comparisons": [describe_comparison(one) for one in found]})
        return
    for one in found:
        print_comparison(results_console(), one)
    if page is not None:
        console().print(f"page: {page}" if len(found) == 1 else f"pages: {page.with_name(page.stem)}-*", markup=False)
