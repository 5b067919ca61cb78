"""`hpcxrf catalog`: what an archive holds, in one file that SQL reads. Loads neither torch nor dask."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from hpcxrf.cli import options as opt
from hpcxrf.errors import ConfigError

if TYPE_CHECKING:
    from hpcxrf.archive.catalogue.report import Contents, WalkReport
    from hpcxrf.catalogue.rows import ScanRow

EXAMPLE: Final = (
    "Examples:  hpcxrf catalog /data/2023 /data/2024 -o archive.sqlite   |   "
    "hpcxrf catalog archive.sqlite --where \"date > '2024-01-01' and shape_y > 100\" --csv scans.csv"
)


def catalog(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDERS or CATALOGUE",
            help="Folders of the archive, with -o; or a catalogue to read.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Catalogue: new, or brought up to date; outside of the folders."
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            metavar="SQL",
            help="Only scans for which it holds: columns, constants, comparisons, and, or, not, like, in.",
        ),
    ] = None,
    as_json: opt.AsJson = False,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write the scans as CSV; '-': standard output.")
    ] = None,
    parquet: Annotated[
        Path | None, typer.Option("--parquet", metavar="FILE", help="Write the scans as Parquet; needs pyarrow.")
    ] = None,
    sha256: Annotated[
        bool, typer.Option("--sha256", help="Compute the checksum of every scan: reads all of it.")
    ] = False,
    reread: Annotated[bool, typer.Option("--reread", help="Read also what has not changed.")] = False,
    site: Annotated[
        str | None, typer.Option(help="Site profile whose table of scalers names I0.", show_default="names of PVs")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes that read files.", show_default="one a core")
    ] = None,
) -> None:
    """List every scan of an archive in one SQLite file; again: what is new, changed, moved, duplicate, vanished.

    A scan is what `hpcxrf run FOLDER` takes; all other files are listed with the reason. Nothing is written into the
    folders. Without -o an existing catalogue is read.
    """
    from hpcxrf.archive.catalogue.export import STDOUT, refuse_inside, require_parquet
    from hpcxrf.catalogue.read import read_roots
    from hpcxrf.catalogue.where import check_where

    if where is not None:
        check_where(where)
    if parquet is not None:
        require_parquet()
    if as_json and csv == STDOUT:
        raise ConfigError("--json and --csv - both write to standard output; name a file for the CSV")
    walking = {"--sha256": sha256, "--reread": reread, "--site": site is not None, "--jobs": jobs is not None}
    report = None
    if output is None:
        _refuse_reading(paths, [name for name, given in walking.items() if given])
        path = paths[0]
        refuse_inside([csv, parquet], read_roots(path))
    else:
        path = output
        refuse_inside([csv, parquet], map(str, paths))
        report = _walk(path, paths, {"jobs": jobs, "sha256": sha256, "reread": reread}, site)
    _show(path, where, report, as_json=as_json, csv=csv, parquet=parquet)


def _refuse_reading(paths: Sequence[Path], walking: Sequence[str]) -> None:
    """Refuse folders without a place for their catalogue, and options of a walk where there is none."""
    if walking:
        raise ConfigError(f"{', '.join(walking)}: of a walk; name the folders, and the catalogue with -o")
    if len(paths) != 1 or paths[0].is_dir():
        names = " ".join(map(str, paths))
        raise ConfigError(f"{names}: name the catalogue with -o, as hpcxrf catalog {names} -o archive.sqlite")


def _walk(path: Path, folders: Sequence[Path], given: Mapping[str, Any], site: str | None) -> "WalkReport":
    from hpcxrf.archive.catalogue.update import WalkOptions, update_catalogue
    from hpcxrf.cli.progress import show_step
    from hpcxrf.cli.terminal import console

    table: dict[str, tuple[str, ...]] = {}
    if site is not None:
        from hpcxrf.config.site_files import load_named_site

        table = {name: row.pvs for name, row in load_named_site(site).scalers.items()}
    options = WalkOptions(scalers=table, **{name: value for name, value in given.items() if value is not None})
    with show_step(console(), "catalog", "files") as advance:
        return update_catalogue(path, folders, options, lambda step, done, of: advance(done * (step == "read"), of))


def _show(
    path: Path, where: str | None, report: "WalkReport | None", *, as_json: bool, csv: Path | None, parquet: Path | None
) -> None:
    from hpcxrf.archive.catalogue.export import STDOUT, write_csv, write_json, write_parquet
    from hpcxrf.archive.catalogue.report import Counting
    from hpcxrf.catalogue.read import read_catalogue
    from hpcxrf.cli.catalog_display import describe_contents, describe_walk, print_contents, print_rows, print_walk
    from hpcxrf.cli.terminal import console, results_console

    if csv is not None:
        write_csv(csv, read_catalogue(path, where))
    if parquet is not None:
        write_parquet(parquet, read_catalogue(path, where))
    counting = Counting()
    rows = _count(read_catalogue(path, where), counting)
    if as_json:
        head = {"catalogue": str(path), "where": where, "walk": None if report is None else describe_walk(report)}
        write_json(sys.stdout, head, rows, lambda: describe_contents(counting.finish()))
        return
    # What a table on standard output is read by must not meet another one there.
    out = console() if csv == STDOUT else results_console()
    if report is None or where is not None:
        print_rows(out, rows)
    contents: Contents = counting.finish()
    if report is not None:
        print_walk(out, report)
        contents = report.contents
    print_contents(out, contents)
    out.print(f"catalogue: {path}", markup=False, soft_wrap=True)


def _count(rows: "Iterable[ScanRow]", counting: Any) -> "Iterator[ScanRow]":  # noqa: ANN401 - loaded late
    for row in rows:
        counting.add(row.state, row.format, row.fault, row.path)
        yield row
