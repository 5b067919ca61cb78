"""The run directory: what a run was asked, what of it is done, and who is at it.

State is files, never a live server. The driver alone appends to the journals; a lock keeps a second
driver out. This module imports neither torch nor dask nor zarr: it answers on a login node.
"""

import json
import os
from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hpcxrf.config.untrusted import read_json_object, report_faults
from hpcxrf.config.younger import YOUNGER_OPTIONS
from hpcxrf.errors import OutputError
from hpcxrf.store.catalog import is_dataset_id
from hpcxrf.store.files import append_line, append_lines, atomic_write_text, create_text, output_faults, read_lines

Record = dict[str, Any]

FINISHED: Final = "finished"
FAILED: Final = "failed"
RETRY: Final = "retry"
NOT_TRIED: Final = "not tried"
"""Events of a journal line; a unit asked to be tried again is not finished until it says so anew."""

_FOLDERS: Final = ("state", "logs", "spectra", "results", "secrets", "jobs")
_OWNER_ONLY: Final = 0o700
_RUN_FILE: Final = "run.yaml"
_EFFECTIVE_FILE: Final = "effective.json"
_CONFIGURATION_FILE: Final = "configuration.yaml"
_LOCK_FILE: Final = "lock"
_LEFT_ALONE: Final = Path("state", "left_alone.json")
_ABSENT: Final = "(absent)"
_NUMBERS: Final = ("wall_s", "cpu_s", "read_s", "fit_s", "write_s", "bytes_read", "bytes_written", "pixels")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDir:
    """Paths and journals of one run."""

    path: Path

    @property
    def run_file(self) -> Path:
        """The run file's text, as given."""
        return self.path / _RUN_FILE

    @property
    def effective_file(self) -> Path:
        """The whole configuration, defaults included."""
        return self.path / _EFFECTIVE_FILE

    @property
    def configuration_file(self) -> Path:
        """The whole configuration of the latest command, `execution` included."""
        return self.path / _CONFIGURATION_FILE

    @property
    def lock_file(self) -> Path:
        """Names the driver at work, while there is one."""
        return self.path / _LOCK_FILE

    @property
    def report_file(self) -> Path:
        """The page of the run, once there is one."""
        return self.path / "report.html"

    @property
    def logs(self) -> Path:
        """Folder of the logs."""
        return self.path / "logs"

    @property
    def secrets(self) -> Path:
        """Folder of keys, of the owner alone."""
        return self.path / "secrets"

    def spectra_store(self, dataset_id: str) -> Path:
        """Spectra of a dataset."""
        return self.path / "spectra" / f"{_safe(dataset_id)}.zarr"

    def results_store(self, dataset_id: str) -> Path:
        """Results of a dataset."""
        return self.path / "results" / f"{_safe(dataset_id)}.zarr"

    def page_file(self, dataset_id: str) -> Path:
        """Page of a dataset: its maps, spectra and parameters to look at."""
        return self.path / "pages" / f"{_safe(dataset_id)}.html"

    def regions_table(self, dataset_id: str) -> Path:
        """Refined regions of a dataset, CSV."""
        return self.path / "tables" / f"{_safe(dataset_id)}.regions.csv"

    def journal_file(self, dataset_id: str) -> Path:
        """Journal of a dataset."""
        return self.path / "state" / f"{_safe(dataset_id)}.jsonl"

    def inner(self, home: str) -> "RunDir":
        """A run directory that a workload keeps inside this one; empty: this one."""
        return RunDir(path=self.path / home) if home else self

    def dataset_ids(self) -> list[str]:
        """All datasets that have a journal, sorted."""
        files = (self.path / "state").glob("*.jsonl")
        # macOS and editors leave files of other names (`._scan.jsonl`) beside the journals.
        return sorted(file.stem for file in files if is_dataset_id(file.stem) and file.is_file())

    def append(self, dataset_id: str, record: Mapping[str, object]) -> None:
        """Append one record durably; only the driver that holds the lock may.

        Raises:
            OutputError: the folder cannot be written, or the disk is full.
        """
        append_line(self.journal_file(dataset_id), record)

    def append_all(self, dataset_id: str, records: Iterable[Mapping[str, object]]) -> None:
        """Append records durably, for the price of one; only the driver that holds the lock may.

        Raises:
            OutputError: the folder cannot be written, or the disk is full.
        """
        append_lines(self.journal_file(dataset_id), records)

    def read_journal(self, dataset_id: str) -> list[Record]:
        """All records of a dataset, oldest first; a line that a kill left unfinished is none.

        Raises:
            OutputError: a line is damaged.
        """
        file = self.journal_file(dataset_id)
        lines = read_lines(file)
        strange = next((number for number, line in enumerate(lines, start=1) if not _is_sound(line)), None)
        if strange is not None:
            raise OutputError(
                f"{file}, line {strange}: not a line of a journal; the next run or resume does that dataset again"
            )
        return lines

    def effective(self) -> Record:
        """The configuration of this run.

        Raises:
            OutputError: the file is gone or damaged.
        """
        # The schema of the run file takes longer to load than most that only look at a run.
        from hpcxrf.config.pixels import rename_old_options

        remedy = "name another output folder"
        content = read_json_object(self.effective_file, OutputError, remedy=remedy)
        with report_faults(self.effective_file, OutputError, remedy):
            return rename_old_options(content)

    def workload_name(self) -> str:
        """Name of the workload that this run directory holds, by the sections of its configuration.

        Raises:
            OutputError: the file is gone or damaged.
        """
        from hpcxrf.config.run import name_workload

        return name_workload(self.effective())


def _is_sound(line: Record) -> bool:
    """Whether a line of a journal has the types that its readers count on."""
    if line.get("event") not in {FINISHED, FAILED, RETRY}:
        return True
    numbers = [line[key] for key in _NUMBERS if key in line]
    objects = [line[key] for key in ("checksums", "facts", "made_from") if key in line]
    facts = line.get("facts") or {}
    return (
        isinstance(line.get("task"), str)
        and all(isinstance(value, int | float) for value in numbers)
        and all(value is None or isinstance(value, dict) for value in objects)
        and all(isinstance(facts[key], list) for key in ("notes", "shape") if key in facts)
        and all(isinstance(line[key], list) for key in ("notes", "warnings") if key in line)
        and (line["event"] != FINISHED or all(isinstance(line.get(key, ""), str) for key in ("stage", "dataset_id")))
    )


def _safe(dataset_id: str) -> str:
    if not is_dataset_id(dataset_id):
        raise ValueError(f"{dataset_id!r} is no dataset id: letters, digits, _ and inner - only")
    return dataset_id


def leave_alone(run: RunDir, reasons: Mapping[str, str]) -> None:
    """Keep which failed datasets the next driver is not to try again; it holds until a driver comes to its end.

    Args:
        run: whose lock is held.
        reasons: why each failed, by dataset; none: all may be tried.

    Raises:
        OutputError: the folder cannot be written.
    """
    if reasons:
        atomic_write_text(run.path / _LEFT_ALONE, json.dumps(dict(reasons), indent=1) + "\n")
        return
    with output_faults(run.path, bytes_needed=0):
        (run.path / _LEFT_ALONE).unlink(missing_ok=True)


def left_alone(run: RunDir) -> dict[str, str]:
    """Failed datasets that are not to be tried again now, with the reasons.

    Raises:
        OutputError: the file is damaged.
    """
    file = run.path / _LEFT_ALONE
    if not file.exists():
        return {}
    found = read_json_object(file, OutputError, remedy="remove it to try all failures")
    return {name: str(reason) for name, reason in found.items()}


def set_damaged_aside(run: RunDir, done: Container[str] = frozenset()) -> list[Path]:
    """Rename journals that cannot be read, so that their datasets are done again and stop no other.

    Call it with the run's lock held.

    Args:
        run: the run directory.
        done: finished datasets, by dataset_id. Their records are trusted and their journals not read: of 100 000 that
            takes minutes.

    Returns:
        Their new names.
    """
    left = (name for name in run.dataset_ids() if name not in done)
    return [_set_aside(run.journal_file(name)) for name in left if _damaged(run, name)]


def read_or_set_aside(run: RunDir, dataset_id: str) -> list[Record]:
    """All records of a dataset that is to be worked on; a journal that cannot be read is renamed, and counts as none.

    Call it with the run's lock held.
    """
    try:
        return run.read_journal(dataset_id)
    except OutputError:
        _set_aside(run.journal_file(dataset_id))
        return []


def _damaged(run: RunDir, dataset_id: str) -> bool:
    try:
        run.read_journal(dataset_id)
    except OutputError:
        return True
    return False


def _set_aside(journal: Path) -> Path:
    aside = journal.with_suffix(".damaged")
    with output_faults(journal.parent, bytes_needed=0):
        journal.replace(aside)
    return aside


def prepare_folder(folder: Path) -> RunDir:
    """Make a run directory in which the lock can be taken; what it holds of a run stays as it is.

    Raises:
        OutputError: the folder belongs to another user, cannot be written, or holds something else.
    """
    with output_faults(folder, bytes_needed=0):
        require_own_folder(folder)
        run = RunDir(path=folder)
        if not run.effective_file.exists():
            refuse_foreign_content(folder)
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(_OWNER_ONLY)
    for name in _FOLDERS:
        with output_faults(folder / name, bytes_needed=0):
            (folder / name).mkdir(mode=_OWNER_ONLY, exist_ok=True)
    return run


def create_or_resume(
    folder: Path, run_text: str, effective: Mapping[str, object], *, fixed: Collection[str] | None = None
) -> RunDir:
    """Make a run directory for this configuration, or go on with the one that is there.

    Where another process may start on the same folder, take the lock before (`prepare_folder`, `run_lock`): what is
    compared or written without it may be another's a moment later.

    Args:
        folder: the run directory.
        run_text: the run file as given; kept from the first time, or the last where the configuration may change.
        effective: the whole configuration, of JSON types.
        fixed: values (`section.key`) that must be equal on every resume, of a run that goes on with another
            configuration; None: all of them.

    Raises:
        OutputError: the folder belongs to another user, cannot be written, holds something else, or a run of another
            configuration; then every key that differs is named with both values.
    """
    wanted = json.loads(json.dumps(effective))
    run = prepare_folder(folder)
    if run.effective_file.exists():
        refuse_other_configuration(run, wanted, fixed)
        if fixed is not None and wanted != run.effective():
            _write_configuration(run, run_text, wanted)
        return run
    # Of two that start at once one makes the file, and the other is held to it.
    if create_text(run.effective_file, _dump(wanted)):
        atomic_write_text(run.run_file, run_text)
    else:
        refuse_other_configuration(run, wanted, fixed)
    return run


def _write_configuration(run: RunDir, run_text: str, effective: Record) -> None:
    atomic_write_text(run.run_file, run_text)
    atomic_write_text(run.effective_file, _dump(effective))


def _dump(effective: Record) -> str:
    return json.dumps(effective, indent=2, sort_keys=True) + "\n"


def require_own_folder(folder: Path) -> None:
    """Refuse a folder of another user, for root as well: whoever owns it could change what a run executes.

    Raises:
        OutputError: the folder is there and belongs to somebody else.
    """
    if not folder.exists() or folder.stat().st_uid == os.geteuid():
        return
    try:
        owner = folder.owner()
    except KeyError:
        owner = f"number {folder.stat().st_uid}"
    raise OutputError(f"{folder}: belongs to user {owner}; work as that user, or name a folder of your own")


def open_run(folder: Path) -> RunDir:
    """A run directory that is there already, for reading.

    Raises:
        OutputError: the folder holds no run.
    """
    run = RunDir(path=folder)
    if not run.effective_file.is_file():
        raise OutputError(f"{folder}: is not a run directory; name the folder that `hpcxrf run -o` made")
    return run


def refuse_foreign_content(folder: Path) -> None:
    """Refuse a folder that cannot become a run directory, since it holds something else.

    Raises:
        OutputError: it does, or is no folder.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputError(f"{folder}: is not a folder; name another output folder")
    ours = {*_FOLDERS, _RUN_FILE, _CONFIGURATION_FILE, _LOCK_FILE, f"{_LOCK_FILE}.guard"}
    foreign = sorted(entry.name for entry in folder.iterdir() if entry.name not in ours and entry.suffix != ".partial")
    if foreign:
        raise OutputError(
            f"{folder}: is not a run directory, it has other files ({', '.join(foreign[:5])}); "
            "name an empty or a new folder"
        )


def compare_configurations(old: Mapping[str, object], new: Mapping[str, object]) -> list[tuple[str, str, str]]:
    """List the options in which two effective configurations differ: `section.key`, and both values as JSON.

    An option that one of them lacks since it is younger has its default there.
    """
    flat = [_flat(old), _flat(new)]
    younger = {key: value for key, value in YOUNGER_OPTIONS.items() if any(key in one for one in flat)}
    first, second = (younger | one for one in flat)
    keys = sorted(first.keys() | second.keys())
    values = ((key, _value(first, key), _value(second, key)) for key in keys)
    return [(key, before, after) for key, before, after in values if before != after]


def refuse_other_configuration(run: RunDir, wanted: Record, fixed: Collection[str] | None) -> None:
    """Refuse to go on with a run of another configuration, naming every value that differs.

    Args:
        run: a run directory that has its configuration.
        wanted: the whole configuration, of JSON types.
        fixed: values (`section.key`) that must be equal; None: all of them.

    Raises:
        OutputError: values that differ, with both.
    """
    different = [
        one for one in compare_configurations(run.effective(), wanted) if fixed is None or one[0] in set(fixed)
    ]
    if different:
        lines = [f"  {key}: the run has {old}, this command {new}" for key, old, new in different]
        raise OutputError(
            "\n".join(
                [
                    f"{run.path}: holds a run of another configuration:",
                    *lines,
                    "name another output folder, or use the options of that run (its effective.json has them)",
                ]
            )
        )


def _value(flat: Mapping[str, object], key: str) -> str:
    return json.dumps(flat[key], ensure_ascii=False) if key in flat else _ABSENT


def _flat(tree: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{name}.")
        else:
            flat[name] = value
    return flat
