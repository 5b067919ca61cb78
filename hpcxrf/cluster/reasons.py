"""Why datasets failed, put together: a thousand times the same reason is one line."""

import re
from collections.abc import Mapping
from typing import Final

# What differs between two failures of one kind: the path at the start, and numbers.
_PLACE: Final = re.compile(r"^\S*/\S+: ")
_NUMBER: Final = re.compile(r"\d+(\.\d+)?([eE][+-]?\d+)?")
_SHOWN: Final = 5


def by_reason(failed: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """Failures of one kind together, the most frequent first.

    Args:
        failed: reason by dataset.

    Returns:
        (reason without the file that it names, in the words of the first; datasets of that kind, sorted).
    """
    groups: dict[str, tuple[str, list[str]]] = {}
    for dataset_id, reason in sorted(failed.items()):
        plain = _PLACE.sub("", reason.strip().split("\n", 1)[0])
        groups.setdefault(_NUMBER.sub("#", plain), (plain, []))[1].append(dataset_id)
    return sorted(groups.values(), key=lambda group: (-len(group[1]), group[0]))


def summary_lines(done: int, failed: Mapping[str, str]) -> list[str]:
    """How many datasets are done and failed, and a line for every reason.

    Args:
        done: datasets that are done.
        failed: reason by dataset.
    """
    lines = [f"datasets: {done} done, {len(failed)} failed"]
    for reason, names in by_reason(failed):
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        lines.append(f"  {len(names)} x {reason}: {', '.join(names[:_SHOWN])}{more}")
    return lines
