"""The text of a run file beside the form of its options: what a change of one does to the other, and every fault."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hpcxrf.config.run import RunConfig, check_config, workload_name
from hpcxrf.config.settings import resolve_paths
from hpcxrf.config.untrusted import parse_yaml, report_faults, show_lines, show_name
from hpcxrf.config.yaml_text import dump_yaml
from hpcxrf.errors import ConfigError
from hpcxrf.explore.given import dump_sections
from hpcxrf.explore.run_fields import Field, list_fields, list_sections

Json = dict[str, Any]

NEW: Final = "input:\n  files: []\n"
"""The run file from which a new one begins."""
_NAME: Final = "the run file"
_WORD: Final = re.compile(r"[a-z_]\w*(?:\.[\w-]+)*")
_YAML: Final = "yaml"
_VALUE: Final = "value"
_SHOWN: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is wrong with a run file."""

    places: tuple[str, ...]
    """Options `section.key` and sections that it is about; none where that is not known."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedText:
    """A run file as it was checked."""

    text: str
    raw: Mapping[str, Any] | None
    """Its sections; None where the text is not that of a mapping."""
    config: RunConfig | None
    """None where it has faults."""
    faults: tuple[Fault, ...]


def check_text(text: str, folder: Path) -> CheckedText:
    """Check the text of a run file as the command line does.

    Args:
        text: YAML.
        folder: folder of the run file, from which its paths go out.
    """
    try:
        raw = parse_yaml(text, _NAME, ConfigError)
    except ConfigError as error:
        return CheckedText(text=text, raw=None, config=None, faults=(Fault(places=(), text=str(error)),))
    if not isinstance(raw, dict):
        told = "must be a mapping of sections; begin with 'input:' and its files"
        return CheckedText(text=text, raw=None, config=None, faults=(Fault(places=(), text=told),))
    try:
        with report_faults(_NAME, ConfigError, "correct the run file"):
            config = check_config(resolve_paths(raw, folder), _NAME)
    except ConfigError as error:
        return CheckedText(text=text, raw=raw, config=None, faults=tuple(find_faults(str(error))))
    return CheckedText(text=text, raw=raw, config=config, faults=())


def find_faults(message: str) -> list[Fault]:
    """Take a message apart into its faults, each with the options that it names."""
    first, *others = message.splitlines() or [""]
    listed = [line.strip() for line in others if line.startswith("  ")] if first.endswith(":") else []
    lines = listed or [message.strip()]
    return [Fault(places=find_places(line), text=show_lines(line)) for line in lines]


def find_places(fault: str) -> tuple[str, ...]:
    """Options and sections that a sentence is about: those before its first colon, else those of its first part.

    What it names as a remedy comes later, and is not at fault.
    """
    head = re.split(r": |; ", fault, maxsplit=1)[0]
    # The name of a section is an ordinary word, too: it counts where the sentence begins with nothing else.
    alone = set(re.split(r" and |, ", head))
    words = (word for word in _WORD.findall(head) if "." in word or word in alone)
    return tuple(dict.fromkeys(place for word in words if (place := _find_place(word)) is not None))


def _find_place(word: str) -> str | None:
    """The option that a dotted name lies in, or its section where it names one."""
    section, _, rest = word.partition(".")
    place = f"{section}.{rest.partition('.')[0]}"
    if place in list_fields():
        return place
    return section if section in {one.name for one in list_sections()} else None


def edit_text(text: str, changes: Mapping[str, Mapping[str, Any] | None]) -> tuple[str, list[Fault]]:
    """Change options in the text of a run file; its comments stay where they stand before the first section.

    Args:
        text: YAML of a mapping.
        changes: by `section.key`: `{"value": JSON}` or `{"yaml": text}`; None: the option is taken out.

    Returns:
        The new text, and what could not be read: such an option stays as it was.

    Raises:
        ConfigError: not a mapping, or an option that does not exist.
    """
    if not changes:
        return text, []
    raw = parse_yaml(text, _NAME, ConfigError) or {}
    if not isinstance(raw, dict):
        raise ConfigError(f"{_NAME}: must be a mapping of sections; correct its text first")
    sections: dict[str, Any] = {
        name: dict(values) if isinstance(values, Mapping) else values for name, values in raw.items()
    }
    faults: list[Fault] = []
    for place, change in changes.items():
        if place not in list_fields():
            raise ConfigError(f"{show_name(place)[:_SHOWN]}: is not an option of a run file; reload the page")
        try:
            _change(sections, place, change)
        except ConfigError as error:
            faults.append(Fault(places=(place,), text=show_lines(str(error))))
    return _head(text) + dump_sections(sections), faults


def _change(sections: dict[str, Any], place: str, change: Mapping[str, Any] | None) -> None:
    section, key = place.split(".")
    values = sections.get(section)
    if values is not None and not isinstance(values, dict):
        raise ConfigError(f"{section} is not a section of options in the text; correct it there")
    values = {} if values is None else values
    if change is None:
        values.pop(key, None)
        if not values and not _chooses_workload(section):
            sections.pop(section, None)
            return
    else:
        values[key] = _read_change(place, change)
    sections[section] = values


def _chooses_workload(section: str) -> bool:
    return any(one.optional for one in list_sections() if one.name == section)


def _read_change(place: str, change: Mapping[str, Any]) -> Any:  # noqa: ANN401 (any YAML value)
    if set(change) == {_YAML} and isinstance(change[_YAML], str):
        return parse_yaml(change[_YAML], f"{place} (quote a text with a colon)", ConfigError)
    if set(change) == {_VALUE}:
        return change[_VALUE]
    raise ConfigError(f"{place}: a change has a value or yaml; reload the page")


def _head(text: str) -> str:
    """Comments before the first section."""
    lines: list[str] = []
    for line in text.splitlines(keepends=True):
        if line.strip() and not line.startswith("#"):
            return "".join(lines)
        lines.append(line)
    return ""


def describe_values(raw: Mapping[str, Any]) -> dict[str, Json]:
    """Describe the value that every option has in a run file, given there or by default.

    Returns:
        By `section.key`: `value` (JSON; null where YAML has what JSON has not), `text` (YAML in one line), `given`
        (stands in the text) and `changed` (is not the default).
    """
    return {place: _describe_value(raw, field) for place, field in list_fields().items()}


def _describe_value(raw: Mapping[str, Any], field: Field) -> Json:
    section, key = field.place.split(".")
    values = raw.get(section)
    given = isinstance(values, Mapping) and key in values
    value = values[key] if given and isinstance(values, Mapping) else field.default
    plain = _plain(value)
    changed = given and json.dumps(plain, sort_keys=True) != json.dumps(_plain(field.default), sort_keys=True)
    return {"value": plain, "text": write_value(value), "given": given, "changed": changed}


def _plain(value: object) -> Any:  # noqa: ANN401 (any JSON value)
    """A YAML value as JSON: whole numbers as they are, others so that 8 and 8.0 are the same; dates as texts."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def write_value(value: object) -> str:
    """Write a value as YAML in one line; of a missing one nothing."""
    if value is None:
        return ""
    text = dump_yaml(value, default_flow_style=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


def describe_text(checked: CheckedText, more: Sequence[Fault] = ()) -> Json:
    """Describe a checked run file in JSON values, with further faults before its own."""
    return {
        "text": checked.text,
        "values": None if checked.raw is None else describe_values(checked.raw),
        "faults": [{"places": list(one.places), "text": one.text} for one in (*more, *checked.faults)],
        "workload": None if checked.config is None else workload_name(checked.config),
    }
