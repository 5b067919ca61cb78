"""The terminal: results on standard output, progress and notes on standard error, JSON for scripts."""

import json
import math
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from hpcxrf.config.untrusted import show_lines

_PIPED_WIDTH: Final = 200


class PlainConsole(Console):
    """A console whose texts reach the terminal without the control characters that names in files may hold."""

    def render_str(self, text: str, **options: Any) -> Text:  # noqa: ANN401 (as rich has it)
        """Escape what would move the cursor, set the title of the window, or hide a name."""
        return super().render_str(show_lines(text), **options)


def console() -> Console:
    """Open standard error, for progress and notes."""
    return PlainConsole(stderr=True, highlight=False)


def results_console() -> Console:
    """Open standard output, for what a command was called for; what is piped is not folded to 80 columns."""
    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return PlainConsole(highlight=False, width=_PIPED_WIDTH if piped else None)


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object; what is not finite becomes null."""
    sys.stdout.write(json.dumps(plain_values(value), indent=2, allow_nan=False) + "\n")


def plain_values(value: Mapping[str, Any]) -> dict[str, Any]:
    """JSON values: what is not finite becomes null."""
    return {str(name): _plain(one) for name, one in value.items()}


def print_long_json(value: Mapping[str, Any], name: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Print one JSON object with a list that is written row by row, and never held whole.

    Args:
        value: the object without the list, at least one value.
        name: key of the list, which comes last.
        rows: what is in it.
    """
    head = json.dumps(_plain(value), indent=2, allow_nan=False)
    sys.stdout.write(f"{head.removesuffix(chr(10) + '}')},\n  {json.dumps(name)}: [")
    for number, row in enumerate(rows):
        sys.stdout.write(("," if number else "") + "\n    " + json.dumps(_plain(row), allow_nan=False))
    sys.stdout.write("\n  ]\n}\n")


def _plain(value: Any) -> Any:  # noqa: ANN401 (any JSON value)
    if isinstance(value, Mapping):
        return plain_values(value)
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
