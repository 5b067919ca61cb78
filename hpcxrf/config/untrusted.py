"""Files that anybody may have written: only regular ones, within a bound, and every fault of them in our own words.

Run files, site profiles, journals, locks, markers and stores are read through here. What a parser raises on damaged
text has a dozen types (recursion, digits, dates, encodings); one wrapper at the edge turns all of them into the error
that its caller names.
"""

import errno
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from hpcxrf.errors import HpcxrfError, InputFileError

MAX_TEXT_BYTES: Final = 4 * 2**20
"""Largest run file, site profile or marker, bytes."""
MAX_JSON_BYTES: Final = 256 * 2**20
"""Largest file of JSON, bytes: the metadata of a store with many arrays."""
MAX_DEPTH: Final = 64
"""Deepest nesting of YAML or JSON."""
MAX_NODES: Final = 1_000_000
"""Most values of a YAML file, each alias counted with all that it stands for."""
_SYSTEM_FOLDERS: Final = ("/proc/", "/sys/", "/dev/")
_KINDS: Final = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe (FIFO)"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)
_INVISIBLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
_INVISIBLE_IN_LINES: Final = re.compile(_INVISIBLE.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f"))


@contextmanager
def report_faults(where: object, error_type: type[HpcxrfError] = InputFileError, remedy: str = "") -> Iterator[None]:
    """Let only the project's own errors out of a block that reads what others have written.

    Args:
        where: name of the file, for the message.
        error_type: type of the error.
        remedy: what a user can do about it.

    Raises:
        HpcxrfError: of `error_type`, for whatever the block raised; own errors go through as they are.
    """
    try:
        yield
    except HpcxrfError:
        raise
    except Exception as error:
        advice = remedy or "the file is damaged or not what it seems: copy it again"
        raise error_type(f"{where}: cannot be read: {describe_fault(error)}; {advice}") from error


def describe_fault(error: BaseException) -> str:
    """Say what a foreign error means, in one line of printable text."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    if isinstance(error, OSError) and error.strerror:
        return show_name(error.strerror)
    return show_name(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)[:500]


def show_name(text: str) -> str:
    r"""Show a name that a file gave: escapes, newlines and bytes that are not UTF-8 as `\x1b`, `\n`, `\xff`."""
    return _INVISIBLE.sub(_escape, text)


def show_lines(text: str) -> str:
    """As `show_name`, with line ends and tabs left as they are: for a message of several lines."""
    return _INVISIBLE_IN_LINES.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as Python keeps it in names of files
        return f"\\x{code - 0xDC00:02x}"
    return match[0].encode("unicode_escape").decode("ascii")


def refuse_irregular(path: Path, error_type: type[HpcxrfError] = InputFileError) -> int:
    """Refuse whatever is not a regular file: opening it may wait for ever, or never end.

    Returns:
        Its size in bytes.

    Raises:
        HpcxrfError: of `error_type`: missing, a pipe, a device, a socket, a folder, or a file of the system.
    """
    name = show_name(str(path))
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise error_type(f"{name}: no such file; check the name") from error
    except (OSError, ValueError) as error:
        raise error_type(f"{name}: cannot be read: {describe_fault(error)}; check its name and permissions") from error
    fault = _find_kind(path, status.st_mode)
    if fault is not None:
        raise error_type(f"{name}: is {fault}, not a file of data; name a regular file")
    return status.st_size


def explain_stray(path: Path) -> str | None:
    """Say why something in a folder is not a file that anybody can read: a pipe, a loop of links; None: it is one."""
    try:
        return _find_kind(path, path.stat().st_mode)
    except FileNotFoundError:
        return "a link to a file that is not there"
    except OSError as error:
        return "a link that leads back to itself" if error.errno == errno.ELOOP else None


def _find_kind(path: Path, mode: int) -> str | None:
    fault = next((kind for is_kind, kind in _KINDS if is_kind(mode)), None)
    real = os.path.realpath(path)
    if fault is None and real.startswith(_SYSTEM_FOLDERS) and not real.startswith("/dev/shm/"):  # noqa: S108
        return f"a file of the system ({real})"
    return fault


def is_folder(path: Path) -> bool:
    """Whether a path is a folder; a name that cannot be one (too long, no permission) is none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_there(path: Path) -> bool:
    """Whether there is something at a path; a name that nothing can have (too long, with a zero byte) is not."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def read_regular(path: Path, error_type: type[HpcxrfError], *, largest: int = MAX_TEXT_BYTES) -> bytes:
    """Read a regular file of a bounded size.

    Raises:
        HpcxrfError: of `error_type`: not a regular file, too large, or unreadable.
    """
    if not is_there(path):
        raise error_type(f"{show_name(str(path))}: cannot be read: No such file or directory; check the name")
    size = refuse_irregular(path, error_type)
    if size > largest:
        raise error_type(f"{path}: {size} bytes; such a file is a short text of at most {largest}, name the right one")
    with report_faults(path, error_type, "check its permissions"), path.open("rb") as stream:
        return stream.read(largest + 1)


def read_json_object(
    path: Path, error_type: type[HpcxrfError], *, remedy: str, largest: int = MAX_JSON_BYTES
) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        HpcxrfError: of `error_type`: as `read_regular`, or not a JSON object; the message ends with `remedy`.
    """
    return parse_json_object(read_regular(path, error_type, largest=largest), path, error_type, remedy)


def parse_json_object(content: bytes, where: object, error_type: type[HpcxrfError], remedy: str) -> dict[str, Any]:
    """Parse one JSON object.

    Raises:
        HpcxrfError: of `error_type`, with `where` and `remedy`.
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise error_type(f"{where}: is damaged; {remedy} ({describe_fault(error)})") from error
    if not isinstance(found, dict):
        raise error_type(f"{where}: is damaged; {remedy} (it holds {type(found).__name__}, not a JSON object)")
    return found


def read_yaml(path: Path, error_type: type[HpcxrfError]) -> tuple[Any, str]:
    """Read a YAML file; its plain value, and its text.

    Raises:
        HpcxrfError: of `error_type`: as `read_regular`, not UTF-8, or as `parse_yaml`.
    """
    content = read_regular(path, error_type)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise error_type(f"{path}: not YAML: {error}; save it as UTF-8 text") from error
    return parse_yaml(text, path, error_type), text


def parse_yaml(text: str, where: object, error_type: type[HpcxrfError]) -> Any:  # noqa: ANN401 (any YAML value)
    """Parse YAML into plain values, its depth and size bounded before anything is built.

    Raises:
        HpcxrfError: of `error_type`: not YAML, nested deeper than `MAX_DEPTH`, more than `MAX_NODES` values, or a
            value that its own type does not allow.
    """
    import yaml  # a child that looks at files has no use for it

    try:
        _refuse_bombs(text)
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise error_type(f"{where}: not YAML: {show_lines(str(error))}") from error
    except (ValueError, TypeError, OverflowError, RecursionError, AttributeError, KeyError, IndexError) as error:
        raise error_type(f"{where}: not YAML: {describe_fault(error)}; correct that value") from error


def _refuse_bombs(text: str) -> None:
    """Walk through the events of a text, which build nothing; aliases are counted with all that they stand for."""
    import yaml

    open_nodes: list[tuple[str | None, int]] = []
    sizes: dict[str, int] = {}
    total = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((anchor, total))
            if len(open_nodes) > MAX_DEPTH:
                raise yaml.YAMLError(f"nested more than {MAX_DEPTH} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            name, before = open_nodes.pop()
            if name is not None:
                sizes[name] = total - before + 1
        total += sizes.get(anchor or "", MAX_NODES) if isinstance(event, yaml.AliasEvent) else 1
        if isinstance(event, yaml.ScalarEvent) and anchor is not None:
            sizes[anchor] = 1
        if total > MAX_NODES:
            raise yaml.YAMLError(f"more than {MAX_NODES} values, aliases counted with what they stand for")
