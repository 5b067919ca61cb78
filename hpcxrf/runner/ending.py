"""How a run went: what its pages and tables say of the whole of it."""

import datetime
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Final

from hpcxrf import __version__
from hpcxrf.config.untrusted import read_json_object, report_faults
from hpcxrf.errors import OutputError
from hpcxrf.notes import Note, pack_notes, unpack_notes
from hpcxrf.store.files import atomic_write_text, output_faults
from hpcxrf.store.rundir import RunDir

_FILE: Final = Path("state", "end.json")
_REMEDY: Final = "remove the file, and the report is rebuilt from the journals"
_LIBRARIES: Final = ("torch", "numpy", "zarr", "xarray", "dask", "xraylib", "h5py")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """How a run went, when nothing of it is left to do."""

    run: RunDir
    """The run directory."""
    wall_s: float
    """Seconds since the start, planning included."""
    device: str
    """What it ran on, for people: `CPU, 4 workers x 2 threads`."""
    command: str
    """The command line."""
    started: str
    """ISO 8601 with time zone."""
    notes: tuple[Note, ...]
    """What was noticed while the files were found."""


def keep_end(end: RunEnd) -> None:
    """Write how a run went, so that its pages can be written again.

    Raises:
        OutputError: the run directory cannot be written.
    """
    content = {**asdict(end), "run": None, **pack_notes(end.notes)}
    atomic_write_text(end.run.path / _FILE, json.dumps(content, indent=1) + "\n")


def forget_end(run: RunDir) -> None:
    """A driver begins: until it comes to its end, the run has none, whatever pages are there.

    Raises:
        OutputError: the run directory cannot be written.
    """
    with output_faults(run.path, bytes_needed=0):
        (run.path / _FILE).unlink(missing_ok=True)


def has_end(run: RunDir) -> bool:
    """Whether a driver came to the end of this run, and none has begun since."""
    return (run.path / _FILE).is_file()


def read_end(run: RunDir) -> RunEnd:
    """How a run went; of one that did not go to its end, or of version 0.1.0, what can be said without it."""
    file = run.path / _FILE
    if not file.is_file():
        return RunEnd(
            run=run,
            wall_s=0.0,
            device="as recorded in each dataset",
            command="",
            started=now(),
            notes=(Note("warning", "run not finished; this report was rebuilt from the journals"),),
        )
    content = read_json_object(file, OutputError, remedy=_REMEDY)
    names = {f.name for f in fields(RunEnd)} - {"run"}
    plain = {name: value for name, value in content.items() if name in names}
    with report_faults(file, OutputError, _REMEDY):
        return RunEnd(run=run, **plain | {"notes": unpack_notes(content), "wall_s": float(plain["wall_s"])})


def tell_finish(end: RunEnd) -> str:
    """When a run came to its end, ISO 8601 with time zone, also where its pages are written again later.

    Raises:
        OutputError: what was kept of its start is no time.
    """
    with report_faults(end.run.path / _FILE, OutputError, _REMEDY):
        finished = datetime.datetime.fromisoformat(end.started) + datetime.timedelta(seconds=end.wall_s)
        return finished.isoformat(timespec="seconds")


def describe_device(device: str, workers: int, threads: int) -> str:
    """What a run computes on, for people."""
    each = f"{workers} workers x {threads} thread{'s' * (threads != 1)}"
    return f"CPU, {each}" if device == "cpu" else f"CUDA, {each}, one GPU each"


def versions() -> Mapping[str, str]:
    """Versions of this program and of the libraries that results depend on."""
    found = {name: version(name) for name in _LIBRARIES}
    return {"hpcxrf": __version__, "python": platform.python_version(), **found}


def now() -> str:
    """Time of day, ISO 8601 with time zone."""
    return datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="seconds")
