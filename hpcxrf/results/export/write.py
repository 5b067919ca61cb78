"""Export of results: each is written under a temporary name, recorded, and renamed; what is there is skipped."""

import os
import shutil
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import Final, Literal, Protocol, cast

from hpcxrf.errors import ConfigError, HpcxrfError, OutputError
from hpcxrf.results.export.formats import EXPORT_FORMATS, ExportFormat
from hpcxrf.results.export.record import (
    Written,
    append_record,
    compute_fingerprint,
    list_abandoned,
    measure,
    partial_name,
    read_records,
)
from hpcxrf.results.export.source import ExportSource, list_detectors, make_names, read_source
from hpcxrf.results.opened import list_stores, name_dataset
from hpcxrf.results.store.storage import output_errors, require_readable_schema
from hpcxrf.store.files import sync_tree
from hpcxrf.store.schema import COMPLETE_ATTRIBUTE

_SHOWN: Final = 20


class Writer(Protocol):
    """Module of a format."""

    def write(self, source: ExportSource, folder: Path, stem: str) -> None:
        """Write a result into an empty folder: names begin with the stem."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """How the export of one result ended."""

    name: str
    state: Literal["written", "there", "failed"]
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    reason: str = ""
    """Why it failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where one result is written to."""

    store: Path
    name: str
    folder: Path
    stem: str


def export_results(
    stores: Mapping[str, Path],
    form: str,
    output: Path,
    *,
    is_folder: bool,
    force: bool = False,
    advance: Callable[[int, int], None] = lambda _done, _total: None,
) -> tuple[Exported, ...]:
    """Write results in a format, one after the other; one that fails stops no other.

    Args:
        stores: results stores by name of the dataset.
        form: name of the format.
        output: folder, or the name of what becomes of the only result.
        is_folder: whether `output` is a folder in which each result has its own name.
        force: write all anew, and replace what is there of another result or origin.
        advance: takes the number of results that have ended, and of all.

    Raises:
        ConfigError: no such format.
        OutputError: files of another origin are in the way, before anything is written.
    """
    row = find_format(form)
    targets = _choose_targets(stores, row, output, is_folder=is_folder)
    records = {folder: read_records(folder) for folder in {target.folder for target in targets}}
    if not force:
        _refuse_existing(targets, form, row, records)
    ended: list[Exported] = []
    for number, target in enumerate(targets, start=1):
        written = records[target.folder].get((form, target.stem))
        ended.append(_export_one(target, form, row, written, force=force))
        advance(number, len(targets))
    return tuple(ended)


def export_source(source: ExportSource, form: str, path: Path, *, force: bool = False) -> tuple[Path, ...]:
    """Write one result that is open, or maps in memory.

    Args:
        source: the result.
        form: name of the format.
        path: name of what is written; several files take it as their stem.
        force: replace what is there.

    Returns:
        The files.

    Raises:
        ConfigError: no such format, or one that needs more than the source has.
        OutputError: files are in the way, or cannot be written.
    """
    row = find_format(form)
    _require_groups(source, form, row)
    target = Target(store=path, name=source.name, folder=path.parent, stem=_stem(path.name, row))
    taken = [] if force else list_taken(target, row, list_names(target.folder))
    if taken:
        raise OutputError(f"{', '.join(map(str, taken))}: already there; choose another name, or replace it with force")
    files, _ = _publish(source, target, row, lambda _sizes: None)
    return files


def find_exportable(path: Path) -> tuple[dict[str, Path], dict[str, str], tuple[str, ...]]:
    """Find the results of a run directory, or the only one.

    Args:
        path: run directory, its folder `results`, or a results store.

    Returns:
        Finished stores by name of the dataset; reasons by name of those that cannot be read; names of the unfinished.

    Raises:
        OutputError: nothing there, or nothing that is finished and can be read.
    """
    stores = {name_dataset(store): store for store in list_stores(path)}
    if not stores:
        raise OutputError(f"{path}: no results here; name a run directory or a store <dataset>.zarr in its results")
    finished, refused, unfinished = {}, {}, []
    for name, store in stores.items():
        try:
            if require_readable_schema(store).get(COMPLETE_ATTRIBUTE):
                finished[name] = store
            else:
                unfinished.append(name)
        except OutputError as error:
            refused[name] = str(error)
    if not finished:
        reasons = "; ".join(list(refused.values())[:_SHOWN])
        raise OutputError(reasons or f"{path}: no dataset is finished; `hpcxrf status {path}` tells how far the run is")
    return finished, refused, tuple(unfinished)


def is_folder_of(output: Path, form: str) -> bool:
    """Whether a path is a folder to put a result into, and not the name of what an earlier export made of it."""
    row = find_format(form)
    return output.is_dir() and (form, _stem(output.name, row)) not in read_records(output.parent)


def select_stores(stores: Mapping[str, Path], patterns: Sequence[str]) -> dict[str, Path]:
    """Choose the datasets whose name matches one of the patterns; all without patterns.

    Raises:
        ConfigError: a pattern that no dataset matches.
    """
    if not patterns:
        return dict(stores)
    idle = [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in stores)]
    if idle:
        names = list(stores)
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise ConfigError(
            f"--where {', '.join(idle)}: no dataset of this name; there are {', '.join(names[:_SHOWN])}{more}"
        )
    return {name: store for name, store in stores.items() if any(fnmatchcase(name, one) for one in patterns)}


def find_format(form: str) -> ExportFormat:
    """Look a format up by its name.

    Raises:
        ConfigError: no such format; those that there are.
    """
    if form not in EXPORT_FORMATS:
        raise ConfigError(f"--to {form}: not a format of export; there are {', '.join(EXPORT_FORMATS)}")
    return EXPORT_FORMATS[form]


def list_names(folder: Path) -> list[str]:
    """Sorted names in a folder, hidden ones left out; none where it is not there."""
    return sorted(path.name for path in folder.glob("[!.]*")) if folder.is_dir() else []


def list_taken(target: Target, row: ExportFormat, names: Sequence[str]) -> list[Path]:
    """Files that have a name which the result may take.

    Args:
        target: the result.
        row: the format.
        names: sorted names in the target's folder.
    """
    taken = []
    for name in names[bisect_left(names, target.stem) :]:
        if not name.startswith(target.stem):
            break
        if _is_name_of(name.removeprefix(target.stem), row):
            taken.append(target.folder / name)
    return taken


def _is_name_of(rest: str, row: ExportFormat) -> bool:
    """Whether the rest of a name, behind the stem, is one that the format gives."""
    if row.names == "numbered":
        return rest == row.suffix or (rest.startswith(row.suffix) and rest.removeprefix(row.suffix).isdigit())
    if row.names == "parts":
        return rest.startswith("_") and rest.endswith(row.suffix)
    return rest == ("" if row.names == "folder" else row.suffix)


def _choose_targets(
    stores: Mapping[str, Path], row: ExportFormat, output: Path, *, is_folder: bool
) -> tuple[Target, ...]:
    if is_folder:
        stems = make_names(list(stores))
        return tuple(
            Target(store=store, name=name, folder=output, stem=stem)
            for (name, store), stem in zip(stores.items(), stems, strict=True)
        )
    [(name, store)] = stores.items()
    return (Target(store=store, name=name, folder=output.parent, stem=_stem(output.name, row)),)


def _stem(name: str, row: ExportFormat) -> str:
    return name.removesuffix(row.suffix) or name


def _refuse_existing(
    targets: Sequence[Target], form: str, row: ExportFormat, records: Mapping[Path, Mapping[tuple[str, str], Written]]
) -> None:
    """Refuse to replace anything but what an earlier export wrote of the same result."""
    faults: list[Path] = []
    names = {folder: list_names(folder) for folder in records}
    for target in targets:
        taken = list_taken(target, row, names[target.folder])
        written = records[target.folder].get((form, target.stem))
        if taken and (written is None or not _is_of(written, target)):
            faults += taken
        elif written is not None:
            faults += [path for path in taken if path.name not in written.bytes_by_name]
    if faults:
        more = f" and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise OutputError(
            f"{', '.join(map(str, faults[:_SHOWN]))}{more}: already there, of another result or origin; --force "
            "replaces it, -o writes elsewhere"
        )


def _is_of(written: Written, target: Target) -> bool:
    try:
        return written.result == compute_fingerprint(target.store)
    except HpcxrfError:
        # Its own turn tells what is wrong with it.
        return True


def _export_one(target: Target, form: str, row: ExportFormat, written: Written | None, *, force: bool) -> Exported:
    try:
        mark = compute_fingerprint(target.store)
        if not force and written is not None and written.result == mark and written.is_there(target.folder):
            files = tuple(target.folder / name for name in written.bytes_by_name)
            return Exported(name=target.name, state="there", files=files, notes=written.notes)
        with closing(read_source(target.store, spectra=row.spectra)) as source:
            _require_groups(source, form, row)

            def record(sizes: Mapping[str, int]) -> None:
                notes = tuple(source.notes)
                one = Written(format=form, stem=target.stem, result=mark, bytes_by_name=sizes, notes=notes)
                append_record(target.folder, one)

            files, notes = _publish(source, target, row, record)
        for name in () if written is None else written.bytes_by_name:
            if target.folder / name not in files:
                _remove(target.folder / name)
    except (HpcxrfError, OSError, ValueError, KeyError, RuntimeError) as error:
        return Exported(name=target.name, state="failed", reason=_tell(error, target))
    return Exported(name=target.name, state="written", files=files, notes=notes)


def _tell(error: Exception, target: Target) -> str:
    if isinstance(error, HpcxrfError):
        return str(error)
    if isinstance(error, OSError):
        return f"{target.folder}: {error.strerror or error}; free space, or choose another folder"
    return (
        f"{target.store}: cannot be exported to {target.folder} ({type(error).__name__}: {error}); free space "
        "there, and compare the store with `hpcxrf verify`"
    )


def _require_groups(source: ExportSource, form: str, row: ExportFormat) -> None:
    missing = [name for name in row.groups if name not in source.groups]
    if missing:
        raise ConfigError(
            f"{source.name}: --to {form} needs {', '.join(missing)}, which maps alone do not have; export the results "
            "of a run"
        )
    if "maps" in row.groups and not list_detectors(source):
        raise ConfigError(f"{source.name}: --to {form}: no maps with a detector and components")


def _publish(
    source: ExportSource, target: Target, row: ExportFormat, record: Callable[[Mapping[str, int]], None]
) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Write into a temporary folder, record what is there, and give it its names; nothing is left of a failure."""
    writer = cast("Writer", import_module(f"hpcxrf.results.export.{row.module}"))
    with output_errors(target.folder):
        target.folder.mkdir(parents=True, exist_ok=True)
        for left in list_abandoned(target.folder, target.stem):
            shutil.rmtree(left, ignore_errors=True)
        partial = target.folder / partial_name(target.stem)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            writer.write(source, partial, target.stem)
            made = sorted(partial.iterdir())
            for path in made:
                _sync(path)
            record({path.name: measure(path) for path in made})
            return tuple(_replace(path, target.folder / path.name) for path in made), tuple(source.notes)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _sync(path: Path) -> None:
    if path.is_dir():
        sync_tree(path)
        return
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _replace(path: Path, target: Path) -> Path:
    if path.is_dir() or target.is_dir():
        # Neither takes the place of the other, or of what is in it, by a rename.
        _remove(target)
    return path.replace(target)


def _remove(path: Path) -> None:
    """Remove what an earlier export of another result left beside what is written now."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
