"""Values of the command line that replace those of a run file: `--set section.key=value` and the named options."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Final

from hpcxrf.config.normalise import is_number
from hpcxrf.config.site_files import is_site_path
from hpcxrf.config.untrusted import parse_yaml
from hpcxrf.errors import ConfigError

_PATHS: Final = (
    ("input", "files"),
    ("input", "catalogue"),
    ("sample", "elements_table"),
    ("fit", "override"),
    ("fit", "previous"),
    ("regions", "labels"),
    ("normalise", "reference"),
    ("normalise", "site"),
    ("quantify", "standards"),
    ("quantify", "table"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One value of the command line."""

    place: tuple[str, ...]
    """Names from the section on: `("fit", "kbeta_sd")`."""
    value: Any
    origin: str
    """Option as it was typed, for messages: `--set fit.kbeta_sd=0.15`, `--workers`."""


def parse_setting(text: str) -> Setting:
    """Read `section.key=value`; the value is YAML.

    Raises:
        ConfigError: no such form, or the value is not YAML.
    """
    name, equals, value = text.partition("=")
    place = tuple(part.strip() for part in name.split("."))
    if not equals or len(place) < 2 or not all(place):
        raise ConfigError(f"--set {text}: not of the form section.key=value, as in --set fit.kbeta_sd=0.15")
    read = parse_yaml(value, f"--set {text} (quote a text with a colon, as in '\"a: b\"')", ConfigError)
    return Setting(place=place, value=read, origin=f"--set {name.strip()}")


def apply_settings(raw: Mapping[str, Any], settings: Sequence[Setting]) -> dict[str, Any]:
    """Return a run file's sections with the values of the command line in place of theirs.

    Args:
        raw: the sections; they stay as they are.
        settings: values with their places; paths among them are relative to the working directory.

    Raises:
        ConfigError: two of them name the same value.
    """
    _refuse_conflicts(settings)
    result = dict(raw)
    for setting in settings:
        branch = result
        for name in setting.place[:-1]:
            inner = branch.get(name)
            branch[name] = dict(inner) if isinstance(inner, Mapping) else {}
            branch = branch[name]
        branch[setting.place[-1]] = _resolve_path(setting.place, setting.value, Path.cwd())
    return result


def resolve_paths(raw: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a run file's sections with absolute paths: what they name must not depend on the working directory.

    Args:
        raw: the sections; they stay as they are.
        folder: folder of the run file.
    """
    result = dict(raw)
    for section, key in _PATHS:
        values = result.get(section)
        if isinstance(values, Mapping) and key in values:
            result[section] = {**values, key: _resolve_path((section, key), values[key], folder)}
    groups = result.get("groups")
    if isinstance(groups, list):
        result["groups"] = [resolve_paths(one, folder) if isinstance(one, Mapping) else one for one in groups]
    return result


def names_path(section: str, key: str) -> bool:
    """Whether an option names files."""
    return (section, key) in _PATHS


def _resolve_path(place: tuple[str, ...], value: Any, folder: Path) -> Any:  # noqa: ANN401 (any YAML value)
    """Return a path, or every path of a list or mapping, under the folder; anything else as it is."""
    if place[:2] not in _PATHS:
        return value
    if isinstance(value, Mapping):
        return {name: _resolve_path(place, inner, folder) for name, inner in value.items()}
    if isinstance(value, list):
        return [_resolve_path(place, inner, folder) for inner in value]
    return str(folder / value) if isinstance(value, str) and not _is_word(place, value) else value


def _is_word(place: tuple[str, ...], value: str) -> bool:
    """Whether a text in the place of a path is none: a choice, the name of a site, a number that YAML took as text."""
    if place == ("fit", "override"):
        return value in {"auto", "none"}
    if place == ("normalise", "site"):
        return not is_site_path(value)
    return place == ("normalise", "reference") and is_number(value)


def _refuse_conflicts(settings: Sequence[Setting]) -> None:
    faults = []
    for one, other in combinations(settings, 2):
        shorter = min(len(one.place), len(other.place))
        if one.place[:shorter] == other.place[:shorter]:
            faults.append(
                f"{one.origin} and {other.origin}: both set {'.'.join(one.place[:shorter])}; give one of them"
            )
    if faults:
        raise ConfigError("\n".join(faults))
