"""The commented run files that come with hpcxrf: beside the package in a checkout, else installed."""

import sys
from pathlib import Path
from typing import Final

import hpcxrf
from hpcxrf.errors import OutputError

_INSTALLED: Final = ("share", "hpcxrf", "workflows")


def find_workflows() -> dict[str, Path]:
    """Find the run files, by their names without the suffix.

    Raises:
        OutputError: this installation has none.
    """
    checkout = Path(hpcxrf.__file__).resolve().parents[1]
    in_checkout = (checkout / "pyproject.toml").is_file()
    folder = checkout / "workflows" if in_checkout else Path(sys.prefix, *_INSTALLED)
    found = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    if not found:
        raise OutputError(f"{folder}: has no run files; install hpcxrf again, into an environment of its own")
    return found


def read_summary(path: Path) -> str:
    """Read the first sentence of a run file's first comment."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#") or line.startswith("#  "):
            break
        lines.append(line.removeprefix("#").strip())
    sentence, _, _ = " ".join(lines).partition(". ")
    return sentence.rstrip(".")


def read_workflow(path: Path, target: Path) -> str:
    """Read a run file as it is to stand at another place: the commands in its comments name that place.

    Args:
        path: the run file, of `find_workflows`.
        target: file that the text is for.
    """
    text = path.read_text(encoding="utf-8").replace(f"workflows/{path.name}", str(target))
    beside = "" if target.parent == Path() else f"{target.parent}/"
    return text.replace("workflows/", beside)
