"""JSON schemas of run files and site profiles, for editors: what pydantic checks, described by docstrings."""

import dataclasses
import inspect
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import TypeAdapter

from hpcxrf.config.docstrings import read_docstrings
from hpcxrf.config.pixels import OLD_WEIGHTS
from hpcxrf.config.run import RunConfig
from hpcxrf.config.site import SiteProfile

Json = dict[str, Any]

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def make_run_schema() -> Json:
    """Make the schema of a run file; an empty section (`benchmark:`) has its defaults, as where it is checked."""
    schema = _make_schema(RunConfig, "hpcxrf run file")
    schema["properties"] = {name: _allow_empty(shape) for name, shape in schema["properties"].items()}
    pixels = schema["$defs"]["PixelConfig"]["properties"]
    pixels[OLD_WEIGHTS] = {**pixels["weights"], "deprecated": True}
    return schema


def make_site_schema() -> Json:
    """Make the schema of a site profile."""
    return _make_schema(SiteProfile, "hpcxrf site profile")


def list_classes(kind: type) -> Iterator[type]:
    """List a dataclass and the dataclasses that its fields hold, each once."""
    found: dict[type, None] = {}
    waiting = [kind]
    while waiting:
        one = waiting.pop(0)
        if one in found:
            continue
        found[one] = None
        waiting += [part for hint in typing.get_type_hints(one).values() for part in _list_dataclasses(hint)]
    yield from found


def _list_dataclasses(hint: object) -> list[type]:
    if dataclasses.is_dataclass(hint):
        return [typing.cast("type", hint)]
    return [part for inner in typing.get_args(hint) for part in _list_dataclasses(inner)]


def _make_schema(kind: type, title: str) -> Json:
    schema: Json = TypeAdapter(kind).json_schema()
    shapes: Mapping[str, Json] = {**schema.get("$defs", {}), kind.__name__: schema}
    for one in list_classes(kind):
        shape = shapes[one.__name__]
        shape["description"] = inspect.cleandoc(one.__doc__ or "")
        for name, text in read_docstrings(one).items():
            if name in shape["properties"]:
                shape["properties"][name] |= {"description": text.replace("None: ", "null: ")}
    return {"$schema": _DIALECT, **schema, "title": title}


def _allow_empty(shape: Json) -> Json:
    description = {"description": shape["description"]} if "description" in shape else {}
    forms = shape.get("anyOf", [{"$ref": shape["$ref"]}] if "$ref" in shape else [shape])
    return {"anyOf": [*(form for form in forms if form != {"type": "null"}), {"type": "null"}], **description}
