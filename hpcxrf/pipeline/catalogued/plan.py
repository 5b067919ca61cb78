"""The datasets of a run over a catalogue: donors first, and of each kind the biggest first."""

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Final

from hpcxrf.config.run import RunConfig
from hpcxrf.pipeline.catalogued.entries import Entries, Entry, Groups, read_entries
from hpcxrf.pipeline.opening import SharedInputs, Wanted, find_kept, look_ahead, open_dataset, read_shared
from hpcxrf.pipeline.records import ORIGINAL, DatasetJob, Donor, Stamps
from hpcxrf.pipeline.settings_stamps import FITS, READING, stamp_settings, stamp_values
from hpcxrf.runner.records import Kept, Refusal
from hpcxrf.runner.workload import PlanRequest

Settings = tuple[tuple[str, Stamps], ...]
_MADE_FROM: Final = ("stamps", READING, FITS)
"""Kinds of what a donor's fit is made from."""


def plan_catalogue(request: PlanRequest) -> Iterator[DatasetJob | Refusal | Kept]:
    """Open the scans that a run takes from its catalogue, several at a time and each as it is asked for.

    Yields:
        What was found: the donors of others first, then the others, the biggest of each first. Numbers are those of the
        catalogue's order.

    Raises:
        ConfigError: a condition, a table of elements or groups that are not valid.
        InputFileError: the catalogue cannot be read, or has no such scan.
    """
    found = read_entries(request.config)
    for note in found.notes:
        request.note(note)
    plan = _Plan(
        request=request,
        found=found,
        shared={groups: read_shared(config) for groups, config in found.configs.items()},
        donors=frozenset(found.donor_of.values()),
    )
    for opened, (entry, looked) in enumerate(look_ahead(_order(plan), plan.look), start=1):
        request.opened(opened, len(found.entries))
        yield plan.settle(entry, looked)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    request: PlanRequest
    found: Entries
    shared: Mapping[Groups, SharedInputs]
    donors: Set[int]
    """Numbers of the donors."""
    settled: dict[int, tuple[Donor, bool]] = field(default_factory=dict)
    """Donors that can be opened, by number, with whether they are done already."""
    stamps: dict[tuple[object, ...], Settings] = field(default_factory=dict)
    """Stamps of configurations by what makes them differ."""

    def look(self, entry: Entry) -> tuple[Wanted, DatasetJob | Refusal | Kept]:
        """Find a scan done, or open it; which donor it has makes no difference to that."""
        config = self.found.configure(entry)
        wanted = Wanted(
            path=entry.file,
            dataset_id=self.found.name(entry),
            config=config,
            shared=self.shared[entry.groups],
            number=entry.number,
            settings=self._stamp(entry, config),
            datasets=len(self.found.entries),
        )
        return wanted, find_kept(wanted, self.request) or open_dataset(wanted, self.request)

    def _stamp(self, entry: Entry, config: RunConfig) -> Settings:
        """Stamps of a configuration, which many scans have in common."""
        key = entry.groups, entry.elements, entry.member
        if key not in self.stamps:
            self.stamps[key] = stamp_settings(config)
        return self.stamps[key]

    def settle(self, entry: Entry, looked: tuple[Wanted, DatasetJob | Refusal | Kept]) -> DatasetJob | Refusal | Kept:
        """Give a scan its donor, which comes before it; one that was done with another donor is not done."""
        wanted, one = looked
        number = self.found.donor_of.get(entry.number, -1)
        donor, is_done = self.settled.get(number, (None, True))
        stamp = {} if donor is None else {donor.dataset_id: donor.stamp}
        if isinstance(one, Kept) and one.record.made_from.get("donor", {}) != stamp:
            one = open_dataset(wanted, self.request)
        if isinstance(one, DatasetJob) and donor is not None:
            one = replace(one, donor=donor, follows=() if is_done else (number,))
        if entry.number in self.donors and not isinstance(one, Refusal):
            self.settled[entry.number] = _make_donor(wanted.dataset_id, one), isinstance(one, Kept)
        return replace(one, number=entry.number)


def _order(plan: _Plan) -> Iterator[Entry]:
    def rank(entry: Entry) -> tuple[bool, int, int]:
        return entry.number not in plan.donors, -entry.size, entry.number

    return iter(sorted(plan.found.entries, key=rank))


def _make_donor(dataset_id: str, one: DatasetJob | Kept) -> Donor:
    made_from = one.record.made_from if isinstance(one, Kept) else one.made_from
    known = {kind: dict(made_from[kind]) for kind in _MADE_FROM}
    # Where its files were touched and hold the same, its theta is the same.
    known["stamps"] = dict(made_from.get(ORIGINAL, known["stamps"]))
    return Donor(dataset_id=dataset_id, stamp=stamp_values(known))
