"""`hpcxrf pack` and `unpack`: the stores of a run as one file each, or as folders again."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcxrf.cli import options as opt

if TYPE_CHECKING:
    from hpcxrf.store.rundir import RunDir

PACK_EXAMPLE: Final = "Example:  hpcxrf pack out"
UNPACK_EXAMPLE: Final = "Example:  hpcxrf unpack out"


def pack(run_directory: opt.RunFolder, as_json: opt.AsJson = False) -> None:
    """Make every finished store of a run one file, X.zarr.zip; stores above 2 GB stay folders.

    Contents are untouched: `hpcxrf verify`, resume and retry work as before, and xarray opens
    `zip://::out/results/X.zarr.zip`. After an interruption the same command goes on where it stopped.
    """
    from hpcxrf.errors import OutputError
    from hpcxrf.runner.packing import list_damaged_stores, list_finished_stores
    from hpcxrf.store.packed import pack_store
    from hpcxrf.store.rundir import open_run

    _change(run_directory, list_finished_stores, pack_store, "a zip", as_json=as_json)
    if damaged := list_damaged_stores(open_run(run_directory)):
        raise OutputError(
            f"{', '.join(map(str, damaged))}: metadata that cannot be read, not packed; `hpcxrf verify {run_directory} "
            "--redo` and resume make them again"
        )


def unpack(run_directory: opt.RunFolder, as_json: opt.AsJson = False) -> None:
    """Make every store of a run that is a zip a folder again.

    After an interruption the same command goes on where it stopped.
    """
    from hpcxrf.runner.packing import list_packed_stores
    from hpcxrf.store.packed import is_packed, unpack_store

    def make_folder(path: Path) -> bool:
        unpack_store(path)
        return not is_packed(path)

    _change(run_directory, list_packed_stores, make_folder, "a folder", as_json=as_json)


def _change(
    folder: Path,
    list_stores: Callable[["RunDir"], list[Path]],
    change: Callable[[Path], bool],
    form: str,
    *,
    as_json: bool,
) -> None:
    from hpcxrf.cli.progress import show_step
    from hpcxrf.cli.terminal import console, print_json, results_console
    from hpcxrf.cluster.slurm import job_ended
    from hpcxrf.store.lock import run_lock
    from hpcxrf.store.rundir import open_run

    run = open_run(folder)
    with run_lock(run, job_ended=job_ended), show_step(console(), form, "stores") as advance:
        stores = list_stores(run)
        left = []
        for number, store in enumerate(stores, start=1):
            if not change(store):
                left.append(str(store))
            advance(number, len(stores))
    if as_json:
        print_json({"run": str(run.path), "stores": len(stores) - len(left), "left": left})
        return
    many = "1 store is" if len(stores) - len(left) == 1 else f"{len(stores) - len(left)} stores are"
    kept = f"; {len(left)} above 2 GB stay folders" if left else ""
    results_console().print(f"{many} {form} each{kept}", markup=False)
