"""Stamps of a dataset's configuration: what a task was made with, where a run goes on with another configuration."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from hpcxrf import __version__
from hpcxrf.config.run import RunConfig, effective
from hpcxrf.pipeline.records import Stamps

READING: Final = "reading settings"
FITS: Final = "fit settings"
NORMALISE: Final = "normalise settings"
QUANTIFY: Final = "quantify settings"
REGIONS: Final = "region settings"
REPORT: Final = "report settings"
"""Kinds of `made_from`."""
VERSION: Final = "version of hpcxrf"
"""Name of the stamp that is the version of this program."""
_SECTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    READING: ("input",),
    FITS: ("sample", "detector", "detectors", "fit", "pixels"),
    NORMALISE: ("normalise",),
    QUANTIFY: ("quantify",),
    REGIONS: ("regions",),
    REPORT: ("report",),
}
KINDS: Final = frozenset(_SECTIONS)
_OF_THE_RUN: Final = frozenset({"files", "catalogue", "where"})
_DIGITS: Final = 12


def stamp_settings(config: RunConfig) -> tuple[tuple[str, Stamps], ...]:
    """Stamps of the sections that each kind of task depends on; fits depend on the version of the program, too.

    Args:
        config: configuration of one dataset.
    """
    plain = effective(config)
    plain["input"] = {name: value for name, value in plain["input"].items() if name not in _OF_THE_RUN}
    stamps = {
        kind: tuple((name, _stamp(plain[name])) for name in names if name in plain) for kind, names in _SECTIONS.items()
    }
    stamps[FITS] += ((VERSION, __version__),)
    return tuple(stamps.items())


def stamp_values(values: Mapping[str, Any]) -> str:
    """Checksum of JSON values, whatever their order."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _stamp(values: Mapping[str, Any]) -> str:
    return stamp_values(values)[:_DIGITS]
