"""Two runs dataset by dataset: each is compared, kept as a line of a file, and forgotten, however many there are."""

import heapq
import json
import math
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import IO, Any, Final

from hpcxrf.archive.diff.compare import compare_pair
from hpcxrf.archive.diff.facts import OUTCOMES, DatasetChange, Limits, pack_change
from hpcxrf.archive.diff.sides import Side, match_datasets, read_sides
from hpcxrf.fitting.verdict import Verdict

_MOST_KINDS: Final = 200
"""Kinds of differences in versions and options that are counted; further ones are counted together."""


@dataclass(slots=True)
class Summary:
    """Numbers of all datasets."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """Datasets of both sides by outcome."""
    verdicts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Datasets by both verdicts on the detector that fits worst."""
    changed: int = 0
    """Datasets of which anything differs by more than the limits, or that only one side has."""
    compared: int = 0
    only_first: int = 0
    only_second: int = 0
    without_results: int = 0
    """Datasets of both sides of which one, or both, has no results that can be read."""
    versions: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Datasets by name of a version, processor or constant and both values."""
    configuration: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Datasets by option and both values."""
    r2: tuple["array[float]", "array[float]"] = field(default_factory=lambda: (array("d"), array("d")))
    """R2 of the detector that fits worst, of every dataset of both sides."""
    deviance: tuple["array[float]", "array[float]"] = field(default_factory=lambda: (array("d"), array("d")))
    largest: "array[float]" = field(default_factory=lambda: array("d"))
    """Largest change in sigma of every dataset of both sides."""

    @property
    def total(self) -> int:
        """Number of datasets."""
        return self.compared + self.only_first + self.only_second + self.without_results

    def add(self, change: DatasetChange, limits: Limits) -> None:
        """Count a dataset."""
        self.changed += change.is_changed(limits)
        if change.first is None or change.second is None:
            self.only_second += change.first is None
            self.only_first += change.second is None
            return
        self.outcomes[change.outcome] += 1
        if not change.is_compared:
            self.without_results += 1
            return
        self.compared += 1
        for kept, found in ((self.versions, change.versions), (self.configuration, change.configuration)):
            for one in found:
                kept[one if one in kept or len(kept) < _MOST_KINDS else ("others", "", "")] += 1
        self.largest.append(change.largest)
        if (worst := change.worst) is not None:
            self.verdicts[worst.verdict_words()] += 1
            for columns, pair in ((self.r2, worst.r2), (self.deviance, worst.deviance)):
                if all(map(math.isfinite, pair)):
                    columns[0].append(pair[0])
                    columns[1].append(pair[1])

    def describe(self) -> dict[str, Any]:
        """JSON values."""
        words = [verdict.word for verdict in Verdict]
        return {
            "datasets": self.total,
            "compared": self.compared,
            "changed": self.changed,
            **{outcome: self.outcomes[outcome] for outcome in OUTCOMES},
            "only_in_first": self.only_first,
            "only_in_second": self.only_second,
            "without_results": self.without_results,
            "verdicts": [
                {"first": first, "second": second, "datasets": self.verdicts[first, second]}
                for first, second in sorted(
                    self.verdicts, key=lambda pair: (words.index(pair[0]), words.index(pair[1]))
                )
            ],
            "median_r2": _find_medians(self.r2),
            "median_deviance": _find_medians(self.deviance),
            "median_largest_in_sigma": median(self.largest) if self.largest else math.nan,
            "versions": _list_kinds(self.versions),
            "configuration": _list_kinds(self.configuration),
        }


def _find_medians(columns: "tuple[array[float], array[float]]") -> list[float]:
    return [median(one) if one else math.nan for one in columns]


def _list_kinds(kinds: Counter[tuple[str, str, str]]) -> list[dict[str, Any]]:
    return [
        {"name": name, "first": first, "second": second, "datasets": number}
        for (name, first, second), number in kinds.most_common()
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What came out: numbers of all in memory, datasets in a file."""

    first: Side
    second: Side
    limits: Limits
    summary: Summary
    most: tuple[int, ...]
    """Offsets of the datasets that changed most, the first first."""
    offsets: "array[int]"
    """Offset of every dataset."""
    rank: "array[float]"
    """How much every dataset changed, in the same order: infinite where it could not be compared."""
    lines: IO[bytes]

    def read_all(self) -> Iterator[dict[str, Any]]:
        """Every dataset as JSON values, in the order in which they were compared."""
        return (self.read(offset) for offset in self.offsets)

    def read(self, offset: int) -> dict[str, Any]:
        """One dataset."""
        self.lines.seek(offset)
        found: dict[str, Any] = json.loads(self.lines.readline())
        return found


@contextmanager
def compare_runs(
    first: Path,
    second: Path,
    *,
    limits: Limits,
    most: int,
    looked_at: Callable[[int, int], None] = lambda _done, _total: None,
) -> Iterator[Comparison]:
    """Compare two runs, or two results stores; the file with the datasets lasts as long as the block.

    Args:
        first: a run directory, or a results store.
        second: the other one.
        limits: from where on two numbers are said to differ.
        most: number of datasets to keep as those that changed most.
        looked_at: called with (datasets compared, datasets).

    Raises:
        OutputError: no results on one side.
    """
    sides = read_sides(first, second)
    summary, offsets, rank = Summary(), array("q"), array("d")
    total = max(len(side.stores) + len(side.failures) for side in sides)
    with tempfile.TemporaryFile(prefix="hpcxrf-diff-") as lines:
        for number, pair in enumerate(match_datasets(*sides), start=1):
            change = compare_pair(pair, *sides, limits)
            summary.add(change, limits)
            offsets.append(lines.tell())
            rank.append(_rank(change))
            lines.write(json.dumps(pack_change(change)).encode() + b"\n")
            looked_at(number, max(total, number))
        chosen = heapq.nlargest(most, (i for i in range(len(rank)) if rank[i] > 0.0), key=rank.__getitem__)
        yield Comparison(
            first=sides[0],
            second=sides[1],
            limits=limits,
            summary=summary,
            most=tuple(offsets[i] for i in chosen),
            offsets=offsets,
            rank=rank,
            lines=lines,
        )


def _rank(change: DatasetChange) -> float:
    """How much a dataset changed: what one side lost or gained comes first."""
    if change.first is None or change.second is None or change.is_failed_twice:
        return 0.0
    return change.largest if change.is_compared else math.inf


def describe_sides(comparison: Comparison) -> Mapping[str, Any]:
    """What was compared, as JSON values."""
    return {
        "first": str(comparison.first.path),
        "second": str(comparison.second.path),
        "limits": {"deviance": comparison.limits.deviance, "sigma": comparison.limits.sigma},
    }
