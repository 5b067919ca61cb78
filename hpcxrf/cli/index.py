"""`hpcxrf index`: the table of all results of a run, as a file that any program of SQLite reads."""

from typing import Final

from hpcxrf.cli import options as opt

EXAMPLE: Final = (
    "Examples:  hpcxrf index out   |   "
    "sqlite3 out/index.sqlite \"select path, fault from result where state = 'failed'\""
)


def index(run: opt.RunFolder, as_json: opt.AsJson = False) -> None:
    """Write the index of a run anew: a row a dataset with its verdict, R2 and fault, and every fitted parameter."""
    from hpcxrf.cli.terminal import console, print_json
    from hpcxrf.pipeline.index import write_index
    from hpcxrf.pipeline.request import config_of_run
    from hpcxrf.store.rundir import open_run, require_own_folder

    require_own_folder(run)
    opened = open_run(run)
    written = write_index(opened, config_of_run(opened)[0])
    if as_json:
        print_json({"index": str(written.absolute())})
        return
    console().print(f"index: {written}", markup=False, soft_wrap=True)
