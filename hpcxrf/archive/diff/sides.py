"""The two sides of a comparison: which datasets each has, and which of them belong together."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hpcxrf.errors import OutputError
from hpcxrf.results.opened import find_results
from hpcxrf.results.store.storage import require_readable_schema
from hpcxrf.runner.datasets import describe_ending, read_datasets
from hpcxrf.store.packed import is_store
from hpcxrf.store.rundir import RunDir

MatchedBy = Literal["", "given", "dataset_id", "checksum", "path"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A run directory, or a results store."""

    path: Path
    is_store: bool
    stores: Mapping[str, Path]
    """Results stores of the finished datasets by dataset_id."""
    failures: Mapping[str, str] = field(default_factory=dict)
    """Why a dataset has no results, by dataset_id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A dataset of both sides, or of one."""

    first: str | None
    """dataset_id on the first side; None: it has none."""
    second: str | None
    matched_by: MatchedBy = ""
    """What both have in common; empty where one side lacks it."""


def read_side(path: Path) -> Side:
    """Find the datasets of a run directory, or a single results store.

    Raises:
        OutputError: no results there, or none that are finished.
    """
    found = find_results(path)
    failures = dict.fromkeys(found.unfinished, "its results are not complete")
    run = RunDir(path=path)
    if run.effective_file.is_file():
        ended = ((r.dataset_id, describe_ending(r) or r.state) for r in read_datasets(run) if r.state != "done")
        failures |= {name: reason for name, reason in ended if name not in found.stores}
    return Side(path=path, is_store=is_store(path), stores=found.stores, failures=failures)


def read_sides(first: Path, second: Path) -> tuple[Side, Side]:
    """Find the datasets of both sides.

    Raises:
        OutputError: no results on one side, or on both, which are then both named.
    """
    sides, faults = [], []
    for path in (first, second):
        try:
            sides.append(read_side(path))
        except OutputError as error:
            faults.append(str(error))
    if faults:
        raise OutputError("\n".join(dict.fromkeys(faults)))
    return sides[0], sides[1]


def match_datasets(first: Side, second: Side) -> Iterator[Pair]:
    """Match the datasets of both sides: by dataset_id, else by the checksums of their scans, else by their paths.

    Two results stores belong together, whatever their names.

    Yields:
        Pairs in the order of the first side, then what only the second has.

    Raises:
        OutputError: a store cannot be read.
    """
    if first.is_store and second.is_store:
        yield Pair(first=next(iter(first.stores)), second=next(iter(second.stores)), matched_by="given")
        return
    ours, theirs = _list_names(first), _list_names(second)
    same = set(ours) & set(theirs)
    left = {name: how for name, how in _match_left(first, second, same).items() if how[0] is not None}
    for name in ours:
        if name in same:
            yield Pair(first=name, second=name, matched_by="dataset_id")
        else:
            other, how = left.get(name, (None, ""))
            yield Pair(first=name, second=other, matched_by=how)
    taken = {other for other, _ in left.values()}
    yield from (Pair(first=None, second=name) for name in theirs if name not in same and name not in taken)


def _list_names(side: Side) -> list[str]:
    return sorted({*side.stores, *side.failures})


def _match_left(first: Side, second: Side, same: set[str]) -> dict[str, tuple[str | None, MatchedBy]]:
    """Name on the second side, and what both have in common, of those whose names are not on both."""
    found: dict[str, tuple[str | None, MatchedBy]] = {}
    taken: set[str] = set()
    ways: tuple[tuple[MatchedBy, Callable[[Mapping[str, Any]], tuple[str, ...]]], ...] = (
        ("checksum", lambda one: tuple(str(file.get("sha256")) for file in one.get("source_files", ()))),
        ("path", lambda one: tuple(str(file.get("path")) for file in one.get("source_files", ()))),
    )
    if all(name in same for name in first.stores) or all(name in same for name in second.stores):
        return found
    for how, read_key in ways:
        index: dict[tuple[str, ...], list[str]] = {}
        for name, store in second.stores.items():
            if name not in same and name not in taken and (key := read_key(require_readable_schema(store))):
                index.setdefault(key, []).append(name)
        for name, store in first.stores.items():
            if name in same or name in found or not index:
                continue
            matching = index.get(read_key(require_readable_schema(store)), [])
            if matching:
                other = matching.pop(0)
                found[name] = (other, how)
                taken.add(other)
    return found
