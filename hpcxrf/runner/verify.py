"""Whether what a run wrote is still what it wrote: the checksums of all journals against the files."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcxrf.errors import DamagedStoreError, OutputError
from hpcxrf.runner.datasets import forget_dataset, read_datasets
from hpcxrf.runner.done import last_lines
from hpcxrf.runner.ending import forget_end
from hpcxrf.store.files import ABSENT, tree_sha256
from hpcxrf.store.packed import StoreFiles
from hpcxrf.store.rundir import FINISHED, RETRY, RunDir

JOURNAL: Final = "journal"
"""Task of a damaged journal: what its dataset wrote cannot be compared with anything."""
_STORE: Final = ".zarr"
_UNREADABLE: Final = "unreadable"
"""In place of the checksum of what lies in a zip, or in a shard, whose index is damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A file or folder that is not as a task left it."""

    dataset_id: str
    home: str
    """Folder of the dataset's journal within the run directory; empty: the run directory itself."""
    task: str
    """Task that wrote it, or `JOURNAL`."""
    path: str
    """Relative to the run directory."""


def find_damage(run: RunDir, looked_at: Callable[[int, int], None] = lambda _done, _total: None) -> Iterator[Damage]:
    """Compare every checksum of a run with its file; what a later task overwrote is that task's.

    A journal that cannot be read is its own dataset's damage and stops no other.

    Args:
        run: the run directory.
        looked_at: called with (datasets compared, datasets).

    Raises:
        OutputError: the records of the datasets are damaged.
        OSError: a file cannot be read.
    """
    homes = sorted({"", *(record.home for record in read_datasets(run))})
    every = [(home, dataset_id) for home in homes for dataset_id in run.inner(home).dataset_ids()]
    for number, (home, dataset_id) in enumerate(every, start=1):
        for path, task in _list_damaged(run.inner(home), dataset_id):
            where = f"{home}/{path}" if home else path
            yield Damage(dataset_id=dataset_id, home=home, task=task, path=where)
        looked_at(number, len(every))


def _list_damaged(run: RunDir, dataset_id: str) -> Iterator[tuple[str, str]]:
    """Path and task of everything of a dataset that is not as it was written."""
    try:
        written = _read_written(run, dataset_id)
    except OutputError:
        yield str(run.journal_file(dataset_id).relative_to(run.path)), JOURNAL
        return
    stores: dict[Path, StoreFiles] = {}
    for (path, checksum), task in written.items():
        if _find_checksum(run.path, Path(path), stores) != checksum:
            yield path, task


def _find_checksum(root: Path, path: Path, stores: dict[Path, StoreFiles]) -> str:
    """Checksum of what a task wrote at a path, which holds for stores in any form they have had since."""
    store = next((one for one in (path, *path.parents) if one.suffix == _STORE), None)
    if store is None:
        return tree_sha256(root / path) if (root / path).exists() else ABSENT
    files = stores.setdefault(store, StoreFiles(root / store))
    try:
        return files.checksum("/".join(path.relative_to(store).parts))
    except DamagedStoreError:
        return _UNREADABLE


def _read_written(run: RunDir, dataset_id: str) -> dict[tuple[str, str], str]:
    """Task by (path, checksum) of what its finished tasks wrote, each path by the last that wrote it."""
    last: dict[str, tuple[str, str]] = {}
    for task, line in last_lines(run.read_journal(dataset_id)).items():
        if line["event"] == FINISHED:
            last |= {path: (checksum, task) for path, checksum in line.get("checksums", {}).items()}
    return {(path, checksum): task for path, (checksum, task) in last.items()}


def do_again(run: RunDir, damage: Damage) -> None:
    """Write into the journal that a damaged task, and with it all that rests on it, is to be done again.

    A dataset whose journal is damaged is done again whole: whoever works on it next puts that journal aside.

    Args:
        run: the run directory, locked by the caller.
        damage: of `find_damage`.

    Raises:
        OutputError: the journal cannot be written.
    """
    reason = f"{damage.path} is not as it was written"
    if damage.task != JOURNAL:
        line = {"event": RETRY, "task": damage.task, "damaged": True, "reason": reason}
        run.inner(damage.home).append(damage.dataset_id, line)
    forget_dataset(run.inner(damage.home), damage.dataset_id, reason)
    forget_end(run)
