"""The list `groups` of the run file: scans of a catalogue that are treated otherwise than its sections say."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Final

from pydantic import ConfigDict

from hpcxrf.config.fields import CHECKED

_Values = dict[str, Any]
_NOT_OF_A_SCAN: Final = frozenset({"files", "catalogue", "where"})
"""Options of the section `input` that are of the run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupConfig:
    """Values for some scans of a catalogue, by section as in the run file."""

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    where: str
    """Condition on the columns of the catalogue, as `input.where`."""
    input: _Values = field(default_factory=dict)
    """How their files are read: `dataset_path`, `energy_slope_kev` ..."""
    sample: _Values = field(default_factory=dict)
    """Elements and incident energy."""
    detector: _Values = field(default_factory=dict)
    """Windows of the detector."""
    detectors: _Values = field(default_factory=dict)
    """Detectors that are left out."""
    fit: _Values = field(default_factory=dict)
    """Fit of the integrated spectrum."""
    pixels: _Values = field(default_factory=dict)
    """Method of the pixels."""
    regions: _Values = field(default_factory=dict)
    """Regions of interest."""
    normalise: _Values = field(default_factory=dict)
    """I0, its reference, the site with the table of scalers."""
    quantify: _Values = field(default_factory=dict)
    """Standards."""


def override_sections(sections: Mapping[str, Any], group: GroupConfig) -> dict[str, Any]:
    """Return sections of a run file with the values of a group in the place of theirs.

    What follows from a value that the group changes is dropped, so that it follows from the new one: the table of
    scalers from the site, the objective from the method.
    """
    result = {name: dict(values) if isinstance(values, Mapping) else values for name, values in sections.items()}
    for section in (one.name for one in fields(GroupConfig) if one.name != "where"):
        given = getattr(group, section)
        if not given:
            continue
        values = result.setdefault(section, {})
        for cause, effect in (("site", "scalers"), ("method", "objective")):
            if cause in given and section in {"normalise", "fit"}:
                values.pop(effect, None)
        values.update(given)
    return result


def group_faults(group: GroupConfig) -> list[str]:
    """Options that are of the run and not of a scan, each with its place."""
    return [
        f"input.{name}: is of the whole run; give it in the section input"
        for name in group.input
        if name in _NOT_OF_A_SCAN
    ]
