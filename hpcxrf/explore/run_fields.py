"""The options of a run file as fields of a form: kind, choices, default, and help by their docstrings."""

import dataclasses
import functools
import inspect
import json
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import TypeAdapter

from hpcxrf.config.docstrings import read_docstrings
from hpcxrf.config.run import RunConfig
from hpcxrf.config.settings import names_path

Kind = Literal["switch", "choice", "choices", "number", "text", "list", "yaml"]
Json = dict[str, Any]

_OPTIONAL: Final = ("benchmark", "case_study")
"""Sections that choose another workload than a scan."""
_LISTS: Final = frozenset({"groups"})
"""What of a run file is not a section of options: it is edited in the text."""
_REFERENCE: Final = "#/$defs/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One option of a run file."""

    place: str
    """`section.key`."""
    kind: Kind
    """How it is asked for: `switch` true or false; `choice` one of some values; `choices` any of some; `number`;
    `text`, as it stands; `list` of texts; `yaml` anything else."""
    default: Any
    """JSON value; None also where there is none."""
    required: bool
    nullable: bool = False
    """Whether it may be null."""
    choices: tuple[Any, ...] = ()
    """JSON values, of `yaml` those that are named beside others."""
    range: str = ""
    """Limits of a number, for people."""
    one_a_line: bool = False
    """Of a `list`: paths, each in a line of its own."""
    inner: tuple[str, ...] = ()
    """Names of the options of what is a section within the section."""
    help: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One section of a run file."""

    name: str
    help: str
    optional: bool
    """Whether a run file without it means something else than one with it."""
    fields: tuple[Field, ...]


@functools.cache
def list_sections() -> tuple[Section, ...]:
    """List the sections of a run file with all their options."""
    schema = TypeAdapter(RunConfig).json_schema()
    kinds = typing.get_type_hints(RunConfig)
    return tuple(
        _read_section(field.name, find_section_class(kinds[field.name]), schema)
        for field in dataclasses.fields(RunConfig)
        if field.name not in _LISTS
    )


@functools.cache
def list_fields() -> Mapping[str, Field]:
    """All options by `section.key`."""
    return {field.place: field for section in list_sections() for field in section.fields}


def describe_form() -> list[Json]:
    """Describe the form in JSON values."""
    return [json.loads(json.dumps(dataclasses.asdict(section))) for section in list_sections()]


def find_section_class(annotation: object) -> type:
    """The class of a section, of an optional one that of the section itself."""
    found = [kind for kind in (annotation, *typing.get_args(annotation)) if dataclasses.is_dataclass(kind)]
    return typing.cast("type", found[0])


def _read_section(name: str, kind: type, schema: Json) -> Section:
    shape, told = schema["$defs"][kind.__name__], read_docstrings(kind)
    return Section(
        name=name,
        help=inspect.cleandoc(kind.__doc__ or ""),
        optional=name in _OPTIONAL,
        fields=tuple(
            _read_field(f"{name}.{key}", shape["properties"][key], schema, _find_default(kind, key), told.get(key, ""))
            for key in (field.name for field in dataclasses.fields(kind))
        ),
    )


def _find_default(kind: type, key: str) -> tuple[Any, bool]:
    """The default of an option as a JSON value, and whether it must be given."""
    field = next(one for one in dataclasses.fields(kind) if one.name == key)
    if field.default_factory is not dataclasses.MISSING:
        return json.loads(json.dumps(field.default_factory())), False
    if field.default is dataclasses.MISSING:
        return None, True
    return json.loads(json.dumps(field.default)), False


def _read_field(place: str, shape: Json, schema: Json, default: tuple[Any, bool], told: str) -> Field:
    forms = [_resolve(form, schema) for form in shape.get("anyOf", [shape])]
    nullable = any(form.get("type") == "null" for form in forms)
    given = [form for form in forms if form.get("type") != "null"]
    kind, choices = _choose_kind(given)
    if kind == "choice" and nullable:
        choices = (None, *choices)
    inner = next((tuple(form["properties"]) for form in _with_inner(given, schema) if "properties" in form), ())
    return Field(
        place=place,
        kind=kind,
        default=default[0],
        required=default[1],
        nullable=nullable,
        choices=choices,
        range="; ".join(filter(None, map(_describe_range, given))),
        one_a_line=names_path(*place.split(".")),
        inner=inner,
        help=told,
    )


def _resolve(form: Json, schema: Json) -> Json:
    name = form.get("$ref", "").removeprefix(_REFERENCE)
    return schema["$defs"][name] if name else form


def _with_inner(forms: Sequence[Json], schema: Json) -> list[Json]:
    """Forms, and those of the values of mappings."""
    inner = [form["additionalProperties"] for form in forms if isinstance(form.get("additionalProperties"), dict)]
    return [*forms, *(_resolve(form, schema) for form in inner)]


def _choose_kind(forms: Sequence[Json]) -> tuple[Kind, tuple[Any, ...]]:
    named = tuple(value for form in forms for value in _list_named(form))
    types = [form.get("type") for form in forms]
    if named and all(_list_named(form) or form.get("type") == "boolean" for form in forms):
        return "choice", (*((False, True) if "boolean" in types else ()), *named)
    if types == ["array"]:
        return _choose_kind_of_list(forms[0].get("items", {}))
    simple: Mapping[str, Kind] = {"boolean": "switch", "integer": "number", "number": "number", "string": "text"}
    return (simple.get(str(types[0]), "yaml") if len(forms) == 1 else "yaml"), named


def _choose_kind_of_list(items: Json) -> tuple[Kind, tuple[Any, ...]]:
    named = _list_named(items)
    if named:
        return "choices", named
    return ("list" if items == {"type": "string"} else "yaml"), ()


def _list_named(form: Json) -> tuple[Any, ...]:
    """The values of an enumeration; none: it is not one."""
    return tuple(form.get("enum", [form["const"]] if "const" in form else ()))


def _describe_range(form: Json) -> str:
    lowest, highest = form.get("minimum"), form.get("maximum")
    words = [
        f"{lowest:g} to {highest:g}" if lowest is not None and highest is not None else "",
        f"{lowest:g} or more" if lowest is not None and highest is None else "",
        f"{highest:g} or less" if highest is not None and lowest is None else "",
        f"above {form['exclusiveMinimum']:g}" if "exclusiveMinimum" in form else "",
        f"below {form['exclusiveMaximum']:g}" if "exclusiveMaximum" in form else "",
    ]
    return ", ".join(filter(None, words))
