"""Rows of a catalogue as a run takes them: which configuration each has, in little memory."""

import dataclasses
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcxrf.catalogue.read import read_catalogue, read_roots
from hpcxrf.catalogue.rows import ScanRow
from hpcxrf.config.run import RunConfig, of_groups
from hpcxrf.errors import InputFileError
from hpcxrf.notes import Note
from hpcxrf.pipeline.catalogued.donors import Dated, choose_donors, name_family, wants_donor
from hpcxrf.pipeline.catalogued.element_table import ElementTable, find_elements, read_element_table
from hpcxrf.store.catalog import dataset_id

OK: Final = "ok"
REFUSED: Final = "refused"

Groups = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A scan that a run takes from its catalogue."""

    number: int
    """Its place in the catalogue's order."""
    root: str
    path: str
    """Relative to the root."""
    member: str | None
    groups: Groups
    """Groups of the run file that hold it."""
    elements: tuple[str, ...] | None
    """Elements by the table; None: it does not name the scan."""
    size: int
    """Counts of all its spectra; by the size of the file where the shape is not known."""

    @property
    def file(self) -> Path:
        """The scan's file."""
        return Path(self.root, self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entries:
    """All scans that a run takes from its catalogue."""

    entries: tuple[Entry, ...]
    base: Path
    """The folder that names the datasets relative to itself."""
    configs: Mapping[Groups, RunConfig]
    """Configurations by the groups that they are of."""
    donor_of: Mapping[int, int]
    """Number of the donor by number of each scan that has one."""
    notes: tuple[Note, ...]
    """What was left out, and why."""

    def name(self, entry: Entry) -> str:
        """Name of a dataset: that of a run over the folders of the catalogue; a scan within a file adds its own."""
        file = entry.file if entry.member is None else entry.file / f"{entry.file.stem}-{entry.member}.scan"
        return dataset_id(file, self.base)

    def configure(self, entry: Entry) -> RunConfig:
        """The configuration of one scan, which is that of a run over its file alone."""
        config = self.configs[entry.groups]
        sample = dataclasses.replace(
            config.sample,
            elements_table=None,
            elements=config.sample.elements if entry.elements is None else entry.elements,
        )
        given = dataclasses.replace(config.input, files=(str(entry.file),), catalogue=None, where=None)
        if entry.member is not None and given.dataset_path is None:
            given = dataclasses.replace(given, dataset_path=entry.member)
        return dataclasses.replace(config, input=given, sample=sample)


def read_entries(config: RunConfig) -> Entries:
    """Choose the scans of a catalogue, and their configurations.

    Raises:
        ConfigError: a condition that is not one, a table of elements that cannot be read, or groups that together are
            not valid.
        InputFileError: the catalogue cannot be read, or has no scan that meets the condition.
    """
    catalogue = Path(config.input.catalogue or "")
    members = [{row.scan_id for row in read_catalogue(catalogue, group.where)} for group in config.groups]
    configs: dict[Groups, RunConfig] = {}
    tables: dict[str, ElementTable] = {}
    left: Counter[str] = Counter()
    entries: list[Entry] = []
    # Of the whole catalogue: a condition must not rename a dataset.
    roots = read_roots(catalogue)
    families: dict[tuple[object, ...], list[Dated]] = {}
    seen: set[tuple[Path, str | None]] = set()
    for row in read_catalogue(catalogue, config.input.where):
        if row.state not in {OK, REFUSED}:
            left[row.state] += 1
            continue
        if len(roots) > 1:
            # One folder may lie in another.
            place = Path(row.root, row.path), row.member
            if place in seen:
                continue
            seen.add(place)
        groups = tuple(number for number, ids in enumerate(members) if row.scan_id in ids)
        if groups not in configs:
            configs[groups] = of_groups(config, groups)
        listed = configs[groups].sample.elements_table
        if listed is not None and listed not in tables:
            tables[listed] = read_element_table(Path(listed))
        elements = None if listed is None else find_elements(tables[listed], row.path, row.sample)
        if row.state == OK and wants_donor(configs[groups]):
            families.setdefault(name_family(row, groups), []).append((row.date or "", len(entries)))
        entries.append(_read_entry(row, len(entries), groups, elements))
    if not entries:
        condition = "" if config.input.where is None else f" that meets {config.input.where!r}"
        raise InputFileError(f"{catalogue}: no scan{condition}{_describe_left(left)}; see it with hpcxrf catalog")
    return Entries(
        entries=tuple(entries),
        base=Path(os.path.commonpath(roots)),
        configs=configs,
        donor_of=choose_donors(families.values()),
        notes=tuple(_note_left(catalogue, left)),
    )


def _read_entry(row: ScanRow, number: int, groups: Groups, elements: tuple[str, ...] | None) -> Entry:
    size = row.size_bytes
    if row.n_detectors and row.shape_y and row.shape_x and row.n_channels:
        size = row.n_detectors * row.shape_y * row.shape_x * row.n_channels
    return Entry(
        number=number,
        root=sys.intern(row.root),
        path=row.path,
        member=row.member,
        groups=groups,
        elements=elements,
        size=size,
    )


def _describe_left(left: Mapping[str, int]) -> str:
    return "".join(f", {number} {state}" for state, number in sorted(left.items()))


def _note_left(catalogue: Path, left: Mapping[str, int]) -> Iterator[Note]:
    if left:
        parts = ", ".join(f"{number} {state}" for state, number in sorted(left.items()))
        remedy = "; hpcxrf catalog looks again" if left.get("vanished") else ""
        yield Note("fact", f"{catalogue.name}: left out of this run, as the catalogue has them: {parts}{remedy}")
