"""A result that is to be made again: what its store says it was made from and with, beside what is here today."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import torch

from hpcxrf.config.run import RunConfig, check_config, drop_unused, name_workload
from hpcxrf.config.untrusted import is_there, show_name
from hpcxrf.errors import ConfigError, HpcxrfError, InputFileError, OutputError
from hpcxrf.formats.registry import open_scan
from hpcxrf.pipeline.prepare.inputs import read_options
from hpcxrf.pipeline.prepare.sources import find_override_file
from hpcxrf.pipeline.provenance import (
    ENVIRONMENT,
    OVERRIDE,
    PREVIOUS,
    PROVENANCE,
    SCAN,
    THREADS,
    describe_constants,
    describe_environment,
    hash_earlier_fit,
    list_beside,
)
from hpcxrf.results.opened import find_results, name_dataset
from hpcxrf.results.store.storage import require_readable_schema
from hpcxrf.store.files import tree_bytes, tree_sha256
from hpcxrf.store.packed import folder_of, is_store

DifferenceKind = Literal["input", "version", "processor", "constant", "record"]

_PROCESSOR: Final = ("processor", "vector instructions", "processor flags")
_MISSING: Final = "not there"
_SHOWN: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing on which the bits of a result depend, and which is not as it was."""

    kind: DifferenceKind
    """`record`: the store does not say how it was."""
    what: str
    recorded: str
    here: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerun:
    """What is to be run to make a result again."""

    store: Path
    """The result."""
    dataset: str
    config: RunConfig
    """Its configuration, for its scan alone, where the files are today."""
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Input:
    """A file that a result was made from, as its store has it."""

    kind: str
    path: str
    size_bytes: int | None
    sha256: str


def find_result(path: Path, dataset: str | None = None) -> Path:
    """Find the results store that is meant.

    Args:
        path: a results store (folder or zip), or a run directory.
        dataset: name of the dataset; None: the only one.

    Raises:
        ConfigError: several datasets and no name, or none of that name.
        OutputError: no results there, or none that are finished.
    """
    found = find_results(path)
    names = list(found)
    if dataset is None and len(names) == 1:
        return found.stores[names[0]]
    if dataset is None or dataset not in found.stores:
        listed = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        asked = "name one with --dataset" if dataset is None else f"{dataset!r} is not one of them"
        raise ConfigError(f"{path}: has the finished datasets {listed}; {asked}")
    return found.stores[dataset]


def plan_rerun(
    store: Path,
    folders: Sequence[Path] = (),
    *,
    workers: int | None = None,
    looked_at: Callable[[int, int], None] = lambda _done, _total: None,
) -> Rerun:
    """Compare what a result was made from and with, with what is here, and prepare to make it again.

    Args:
        store: a finished results store.
        folders: folders in which inputs are sought, by name and checksum, that are not where they were.
        workers: number of processes; None: as many as this machine has cores for.
        looked_at: called with (inputs compared, inputs).

    Returns:
        What to run, and everything that differs.

    Raises:
        ConfigError: the store holds no scan of a run, or its configuration has options that this version lacks.
        InputFileError: the scan itself is nowhere, so that nothing can be run.
        OutputError: the store cannot be read.
    """
    attributes: Mapping[str, Any] = require_readable_schema(store)
    configuration = attributes.get("configuration")
    if not isinstance(configuration, Mapping):
        raise OutputError(f"{store}: does not say by what configuration it was made; run its scan anew")
    if (workload := name_workload(configuration)) != "scan":
        raise ConfigError(f"{store}: is of a {workload}; only results of scans are made again one by one")
    provenance = attributes.get(PROVENANCE, {})
    inputs = _read_inputs(attributes)
    places = _locate_inputs(inputs, folders, looked_at)
    source = _find_source(attributes, inputs, places, store)
    moved = {one.path: str(place) for one, place in zip(inputs, places, strict=True) if place is not None}
    # Of the files of the run, the result was made from this one.
    rest = {key: value for key, value in configuration.items() if key != "input"}
    sections = {**_move_paths(rest, moved), "input": {**configuration["input"], "files": [str(source)]}}
    environment = provenance.get(ENVIRONMENT, {})
    sections["execution"] = {
        "dashboard": False,
        "device": "auto" if _list_gpus(attributes) else "cpu",
        "workers": workers,
        "threads": int(environment.get(THREADS, 1)),
    }
    config = _name_override(check_config(drop_unused(sections), str(store)), inputs, places)
    differences = [
        *_list_unrecorded(provenance),
        *_compare_inputs(inputs, places),
        *(_compare_found(config, source, inputs, places) if "inputs" in provenance else ()),
        *_compare_environments(provenance),
        *_compare_devices(attributes, provenance),
        *_compare_constants(config, attributes, provenance),
    ]
    return Rerun(store=store, dataset=name_dataset(store), config=config, differences=tuple(differences))


def _read_inputs(attributes: Mapping[str, Any]) -> list[_Input]:
    """Inputs of a store; of one of an earlier version the files of the scan, of which it says the checksums."""
    told = attributes.get(PROVENANCE, {}).get("inputs")
    if told is None:
        told = [{"kind": SCAN, **one} for one in attributes.get("source_files", ())]
    return [
        _Input(kind=str(one["kind"]), path=str(one["path"]), size_bytes=one.get("bytes"), sha256=str(one["sha256"]))
        for one in told
    ]


def _locate_inputs(
    inputs: Sequence[_Input], folders: Sequence[Path], looked_at: Callable[[int, int], None]
) -> list[Path | None]:
    """Where each input is today: at its place if it is the same there, else in the folders; None: nowhere."""
    found: list[Path | None] = []
    wanted = {Path(one.path).name for one in inputs}
    index: dict[str, list[Path]] | None = None
    for number, one in enumerate(inputs, start=1):
        place = Path(one.path)
        if _is_same(one, place):
            found.append(place)
        elif folders:
            index = _index_names(folders, wanted) if index is None else index
            found.append(next((path for path in index.get(place.name, ()) if _is_same(one, path)), None))
        else:
            found.append(None)
        looked_at(number, len(inputs))
    return found


def _index_names(folders: Sequence[Path], wanted: set[str]) -> dict[str, list[Path]]:
    """Paths of all files and folders below these folders that have one of the names."""
    index: dict[str, list[Path]] = {}
    for top in folders:
        if not top.is_dir():
            raise InputFileError(f"--source {top}: is not a folder; name the folder in which the inputs lie")
        for folder, inner, files in os.walk(top):
            for name in (*inner, *files):
                plain = name.removesuffix(".zip") if name.endswith(".zarr.zip") else name
                if plain in wanted:
                    index.setdefault(plain, []).append(Path(folder, plain).absolute())
    return {name: sorted(set(paths)) for name, paths in index.items()}


def _is_same(one: _Input, place: Path) -> bool:
    return _measure(one, place)[1] == one.sha256


def _measure(one: _Input, place: Path) -> tuple[int | None, str]:
    """Size and checksum of what lies at a place, in the place of the latter what keeps it from being read."""
    try:
        if one.kind == PREVIOUS:
            return None, hash_earlier_fit(place) if is_store(place) else _MISSING
        if not is_there(place):
            return None, _MISSING
        size = tree_bytes(place)
        if one.size_bytes is not None and size != one.size_bytes:
            return size, f"{size} bytes"
        return size, tree_sha256(place)
    except (OSError, HpcxrfError) as error:
        return None, f"cannot be read: {error}"


def _find_source(
    attributes: Mapping[str, Any], inputs: Sequence[_Input], places: Sequence[Path | None], store: Path
) -> Path:
    """The file to open: where the scan is today, or where it was if another one is there now.

    Raises:
        InputFileError: it is nowhere.
    """
    scans = [(one, place) for one, place in zip(inputs, places, strict=True) if one.kind == SCAN]
    named = attributes.get(PROVENANCE, {}).get("source") or (scans[0][0].path if scans else None)
    if named is None:
        raise OutputError(f"{store}: does not say from which scan it was made; run its scan anew")
    found = next((place for one, place in scans if one.path == named and place is not None), None)
    if found is None and is_there(Path(named)):
        found = Path(named)
    if found is None:
        raise InputFileError(
            f"{show_name(named)}: the scan of {store} is not there; name the folder that it lies in today with --source"
        )
    return found


def _move_paths(value: Any, moved: Mapping[str, str]) -> Any:  # noqa: ANN401 (any JSON value)
    """The same configuration, with the paths of inputs where they are today."""
    if isinstance(value, Mapping):
        return {name: _move_paths(inner, moved) for name, inner in value.items()}
    if isinstance(value, list):
        return [_move_paths(inner, moved) for inner in value]
    if isinstance(value, str):
        return moved.get(value, moved.get(str(folder_of(Path(value))), value)) if value else value
    return value


def _list_unrecorded(provenance: Mapping[str, Any]) -> Iterator[Difference]:
    lacking = [name for name in (ENVIRONMENT, "constants", "inputs") if name not in provenance]
    if lacking:
        words = {ENVIRONMENT: "versions and processor", "constants": "constants", "inputs": "inputs beside the scan"}
        what = ", ".join(words[name] for name in lacking)
        yield Difference(kind="record", what=what, recorded="not recorded", here="cannot be compared")


def _compare_inputs(inputs: Sequence[_Input], places: Sequence[Path | None]) -> Iterator[Difference]:
    for one, place in zip(inputs, places, strict=True):
        if place is None:
            _, here = _measure(one, Path(one.path))
            size = "" if one.size_bytes is None else f"{one.size_bytes} bytes, "
            is_sum = len(here) == len(one.sha256) and " " not in here
            yield Difference(
                kind="input",
                what=f"{one.kind} {show_name(one.path)}",
                recorded=f"{size}SHA-256 {one.sha256}",
                here=f"SHA-256 {here}" if is_sum else here,
            )


def _compare_found(
    config: RunConfig, source: Path, inputs: Sequence[_Input], places: Sequence[Path | None]
) -> Iterator[Difference]:
    """Files that a run would take from beside the scan today, against those that it took then."""
    try:
        scan = open_scan(source, read_options(config))
    except HpcxrfError as error:
        yield Difference(kind="input", what=f"scan {show_name(str(source))}", recorded="was read", here=str(error))
        return
    files = [file.absolute() for file in scan.files]
    overrides = [find_override_file(config.fit, source, detector) for detector in range(scan.shape[0])]
    taken = [path.absolute() for path in dict.fromkeys(overrides) if path is not None and path.is_file()]
    beside = [path for _, path in list_beside(config, scan.shape[0])]
    was_there = {one.path for one in inputs} | {str(place) for place in places if place is not None}
    # What lies where it lay is compared with the inputs.
    for path in dict.fromkeys([*files, *taken, *beside]):
        if str(path) not in was_there:
            yield Difference(kind="input", what=show_name(str(path)), recorded="was not there", here="is there")
    for one, place in zip(inputs, places, strict=True):
        if place is None or one.kind not in {SCAN, OVERRIDE}:
            continue
        if place.absolute() not in (files if one.kind == SCAN else taken):
            yield Difference(
                kind="input",
                what=f"{one.kind} {show_name(one.path)}",
                recorded="taken with the scan",
                here=f"{show_name(str(place))} is the same, but does not lie where it would be taken from",
            )


def _name_override(config: RunConfig, inputs: Sequence[_Input], places: Sequence[Path | None]) -> RunConfig:
    """Name the only override file in the run file where it does not lie at its place any more."""
    found = [(one, place) for one, place in zip(inputs, places, strict=True) if one.kind == OVERRIDE]
    if config.fit.override != "auto" or len(found) != 1:
        return config
    one, place = found[0]
    if place is None or str(place) == one.path:
        return config
    return replace(config, fit=replace(config.fit, override=str(place)))


def _compare_environments(provenance: Mapping[str, Any]) -> Iterator[Difference]:
    recorded = provenance.get(ENVIRONMENT, {})
    here = describe_environment()
    if recorded:
        yield from _list_other(recorded, here, "")
    for other in provenance.get("other_environments", ()):
        # Some of its tasks had these, so that no single place has them all.
        yield from _list_other(other, recorded, "of some tasks: ")


def _list_other(recorded: Mapping[str, str], here: Mapping[str, str], prefix: str) -> Iterator[Difference]:
    for name in dict.fromkeys([*recorded, *here]):
        if name == THREADS or recorded.get(name) == here.get(name):
            continue
        yield Difference(
            kind="processor" if name in _PROCESSOR else "version",
            what=f"{prefix}{name}",
            recorded=recorded.get(name, "not recorded"),
            here=here.get(name, "not recorded"),
        )


def _compare_devices(attributes: Mapping[str, Any], provenance: Mapping[str, Any]) -> Iterator[Difference]:
    if not _list_gpus(attributes):
        return
    recorded = ", ".join(map(str, provenance.get("gpus", ()))) or "a GPU"
    here = torch.cuda.get_device_name(0) if torch.cuda.device_count() else "no GPU"
    if here != recorded:
        yield Difference(kind="processor", what="GPU", recorded=recorded, here=here)


def _list_gpus(attributes: Mapping[str, Any]) -> list[str]:
    return [str(one) for one in attributes.get("devices", ()) if str(one).startswith("cuda")]


def _compare_constants(
    config: RunConfig, attributes: Mapping[str, Any], provenance: Mapping[str, Any]
) -> Iterator[Difference]:
    recorded = provenance.get("constants", {})
    if not recorded:
        return
    components = [name.removeprefix("lines of ") for name in recorded if name.startswith("lines of ")]
    here = describe_constants(config.fit.constants, components, float(attributes["incident_energy_kev"]))
    for name in dict.fromkeys([*recorded, *here]):
        if recorded.get(name) != here.get(name):
            yield Difference(
                kind="constant",
                what=name,
                recorded=str(recorded.get(name, "not recorded")),
                here=str(here.get(name, "not known")),
            )
