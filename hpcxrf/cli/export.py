"""`hpcxrf export`: results for other programs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from hpcxrf.cli import options as opt
from hpcxrf.results.export.formats import formats_text

if TYPE_CHECKING:
    from hpcxrf.results.export.write import Exported

EXAMPLE: Final = (
    "Examples:  hpcxrf export out --to nexus   |   hpcxrf export out/results/scan-1a2b3c4d.zarr --to tiff -o iron"
    "   |   hpcxrf export out --to maps --where 'leaf*' -o img.dat"
)
_SHOWN: Final = 20


def export(
    results: Annotated[
        Path, typer.Argument(metavar="RUN_OR_RESULT", help="A run directory, or results/<dataset>.zarr of one.")
    ],
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help=f"Format: {formats_text()}.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Folder; of one result also the name of the file, or the stem of the names of several files.",
            show_default="RUN/export/FORMAT; of one result the current folder",
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            metavar="PATTERN",
            help="Only datasets with such a name, as in --where 'leaf*'. Repeatable.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write all anew, also over files of another result or origin.")
    ] = False,
    as_json: opt.AsJson = False,
) -> None:
    """Write the results of a run, or of one scan, in the format of another program.

    What an earlier export wrote of the same results is skipped, so that the same command goes on where it stopped.
    """
    from hpcxrf.cli.progress import show_step
    from hpcxrf.cli.terminal import console
    from hpcxrf.errors import DatasetsFailedError, OutputError
    from hpcxrf.results.export.write import (
        Exported,
        export_results,
        find_exportable,
        find_format,
        is_folder_of,
        select_stores,
    )
    from hpcxrf.store.packed import is_store

    find_format(to)
    found, refused, unfinished = find_exportable(results)
    stores = select_stores({**found, **dict.fromkeys(refused, results)}, where or [])
    failed = [Exported(name=name, state="failed", reason=refused[name]) for name in stores if name in refused]
    stores = {name: store for name, store in stores.items() if name in found}
    is_single = is_store(results)
    place = output or (Path() if is_single else results / "export" / to)
    is_folder = not is_single or output is None or is_folder_of(place, to)
    with show_step(console(), f"export to {to}", "datasets") as advance:
        ended = export_results(stores, to, place, is_folder=is_folder, force=force, advance=advance)
    ended = (*ended, *failed)
    _report(to, place, ended, unfinished, as_json=as_json)
    reasons = [f"  {one.name}: {one.reason}" for one in ended if one.state == "failed"]
    if reasons and len(ended) == 1:
        raise OutputError(ended[0].reason)
    if reasons:
        more = [f"  and {len(reasons) - _SHOWN} more"] if len(reasons) > _SHOWN else []
        raise DatasetsFailedError(
            "\n".join(
                (
                    f"{len(reasons)} of {len(ended)} datasets could not be exported, all others are; fix the cause, "
                    "and the same command exports them:",
                    *reasons[:_SHOWN],
                    *more,
                )
            )
        )


def _report(to: str, place: Path, ended: "tuple[Exported, ...]", unfinished: tuple[str, ...], *, as_json: bool) -> None:
    from hpcxrf.cli.terminal import console, print_json, results_console

    if as_json:
        rows: list[dict[str, Any]] = [
            {
                "dataset": one.name,
                "state": one.state,
                "files": [str(file) for file in one.files],
                "notes": list(one.notes),
                "reason": one.reason or None,
            }
            for one in ended
        ]
        print_json({"format": to, "output": str(place), "datasets": rows, "unfinished": list(unfinished)})
        return
    for note, names in _gather_notes(ended).items():
        many = names[0] if len(names) == 1 else f"{len(names)} datasets"
        console().print(f"{many}: {note}", markup=False, soft_wrap=True)
    if unfinished:
        console().print(f"not finished, and left out: {len(unfinished)}", markup=False)
    out = results_console()
    files = [file for one in ended if one.state == "written" for file in one.files]
    for file in files[:_SHOWN]:
        out.print(str(file), markup=False, soft_wrap=True)
    if len(files) > _SHOWN:
        out.print(f"and {len(files) - _SHOWN} more in {place}", markup=False, soft_wrap=True)
    there = sum(one.state == "there" for one in ended)
    if there:
        out.print(f"{there} written by an earlier export, and as they were", markup=False)


def _gather_notes(ended: "tuple[Exported, ...]") -> dict[str, list[str]]:
    """Names of the datasets by note, so that the same one is told once."""
    notes: dict[str, list[str]] = {}
    for one in ended:
        for note in one.notes if one.state == "written" else ():
            notes.setdefault(note, []).append(one.name)
    return notes
