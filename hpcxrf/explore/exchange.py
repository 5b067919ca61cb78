"""Requests and answers of the explorer, as plain values: what a handler gets and what it gives."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from hpcxrf.config.untrusted import show_lines, show_name
from hpcxrf.errors import ConfigError, DamagedStoreError, FitError, HpcxrfError, InputFileError, OutputError, SlurmError
from hpcxrf.explore.changes import StoreChangedError, StoreGoneError

JSON: Final = "application/json; charset=utf-8"
BYTES: Final = "application/octet-stream"
_DEEPEST: Final = 32
_STATUS: Final[tuple[tuple[type[HpcxrfError], int], ...]] = (
    (ConfigError, 400),
    (FitError, 422),
    (DamagedStoreError, 500),
    (OutputError, 409),
    (InputFileError, 400),
    (SlurmError, 502),
)
"""Status of an answer by the error; the first that fits."""
_CHANGES: Final[tuple[tuple[type[HpcxrfError], str], ...]] = ((StoreChangedError, "written"), (StoreGoneError, "gone"))
"""What a page is told beside the sentence, so that it can offer what is there now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, checked by `hpcxrf.explore.access`."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    is_gone: Callable[[], bool] = lambda: False
    """Says whether nobody waits for the answer any more."""

    def read_object(self) -> dict[str, Any]:
        """Read the body, a JSON object.

        Raises:
            ConfigError: it is not one.
        """
        try:
            content = json.loads(self.body, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"the body is not JSON ({error}); reload the page") from error
        if not isinstance(content, dict) or _is_deeper(content, _DEEPEST):
            raise ConfigError("the body is not a JSON object; reload the page")
        return content

    def parameter(self, name: str) -> str:
        """Give a parameter of the query.

        Raises:
            ConfigError: it is missing.
        """
        if name not in self.query:
            raise ConfigError(f"{self.path}: the parameter {name} is missing; reload the page")
        return self.query[name]

    def whole_number(self, name: str, lowest: int, highest: int) -> int:
        """Give a parameter of the query that is a whole number.

        Raises:
            ConfigError: it is missing, or not within the limits.
        """
        text = self.parameter(name)
        if not (text.isascii() and text.isdecimal() and len(text) < 10 and lowest <= int(text) <= highest):
            raise ConfigError(f"{self.path}: {name} is {show_name(text[:40])!r}, must be {lowest} to {highest}")
        return int(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is sent."""

    status: int = 200
    kind: str = JSON
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def answer_json(value: object, status: int = 200) -> Answer:
    """Answer JSON; numbers that are not finite become null."""
    text = json.dumps(_plain(value), allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    return Answer(status=status, body=text.encode("utf-8", "backslashreplace"))


def answer_fault(status: int, sentence: str, **more: str) -> Answer:
    """Answer that it cannot be done, and why."""
    return answer_json({"error": show_lines(sentence), **more}, status)


def answer_error(error: HpcxrfError) -> Answer:
    """Answer with the message of an error that a user can do something about."""
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    changed = next((word for kind, word in _CHANGES if isinstance(error, kind)), None)
    return answer_fault(status, str(error), **({} if changed is None else {"changed": changed}))


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _is_deeper(value: object, depth: int) -> bool:
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return depth == 0 or any(_is_deeper(one, depth - 1) for one in inner if isinstance(one, dict | list))


def _plain(value: Any) -> Any:  # noqa: ANN401 (any JSON value)
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (list, tuple)):
        # Long lists are those of counts, which are whole and finite.
        return value if value and all(type(one) is int for one in value) else [_plain(one) for one in value]
    return value
