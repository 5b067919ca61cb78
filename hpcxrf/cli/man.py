"""Man pages and completion scripts, made from the commands: `python -m hpcxrf.cli.man` writes them anew.

They lie in `hpcxrf/cli/shell/` and are installed below `share/`; a test compares them with the commands. In a checkout
the pages of `hpcxrf.cli.reference` are written too.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from hpcxrf.cli import reference
from hpcxrf.cli.reference import PROGRAM, list_commands, list_examples

FOLDER: Final = Path(__file__).parent / "shell"
_COMPLETION_FILES: Final = {"bash": "hpcxrf", "zsh": "_hpcxrf", "fish": "hpcxrf.fish"}
_EXIT_CODES: Final = (
    ("0", "done"),
    ("1", "a fault of the program"),
    ("2", "the command line or the run file"),
    ("3", "an input file"),
    ("4", "an output folder or store"),
    ("5", "the fit is impossible with these options"),
    ("6", "finished, but some datasets failed"),
    ("7", "Slurm refuses or does not answer"),
    ("75, 130", "stopped early; the same command goes on"),
)


def make_files() -> dict[str, str]:
    """Make the text of every man page and completion script, by file name."""
    import typer
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    from hpcxrf.cli.app import app

    # Vendored by the command line library, which gives its commands no public type.
    root: Any = typer.main.get_command(app)
    pages = {f"{'-'.join(words)}.1": _make_page(words, command) for words, command in list_commands((PROGRAM,), root)}
    scripts = {
        name: get_completion_script(prog_name=PROGRAM, complete_var="_HPCXRF_COMPLETE", shell=shell) + "\n"
        for shell, name in _COMPLETION_FILES.items()
    }
    return pages | scripts


def _list_formats() -> list[tuple[str, str]]:
    """List the formats as the entries of a man page."""
    from hpcxrf.formats.registry import list_file_formats

    return [
        (row.name, f"{row.files}: {row.reads}" + (f" (needs hpcxrf[{row.extra}])" if row.extra else ""))
        for row in list_file_formats()
    ]


def _make_page(words: tuple[str, ...], command: Any) -> str:  # noqa: ANN401
    from hpcxrf import __version__

    for parameter in command.params:
        parameter.hidden = False
    context = command.make_context(" ".join(words), [], resilient_parsing=True)
    help_text = [" ".join(part.split()) for part in (command.help or "").split("\n\n")]
    title, name = "-".join(words).upper(), "-".join(words)
    lines = [
        f'.TH "{_escape(title)}" 1 "" "{PROGRAM} {__version__}" "User commands"',
        ".SH NAME",
        rf"{_escape(name)} \- {_escape(help_text[0])}",
        ".SH SYNOPSIS",
        rf"\fB{_escape(' '.join(words))}\fR {_escape(' '.join(command.collect_usage_pieces(context)))}",
        ".SH DESCRIPTION",
        *(line for part in help_text for line in (".PP", _escape(part))),
    ]
    records = [record for p in command.get_params(context) if (record := p.get_help_record(context)) is not None]
    lines += _make_list("OPTIONS", records)
    below = [(inner, sub.get_short_help_str(200)) for inner, sub in sorted(getattr(command, "commands", {}).items())]
    lines += _make_list("COMMANDS", below)
    lines += _make_list("FORMATS", _list_formats() if words[1:] == ("inspect",) else ())
    if command.epilog:
        lines += [".SH EXAMPLES", *(line for text in list_examples(command) for line in (".PP", _escape(text)))]
    lines += _make_list("EXIT STATUS", _EXIT_CODES)
    above = [PROGRAM] if len(words) > 1 else [f"{PROGRAM}-{inner}" for inner, _ in below]
    lines += [".SH SEE ALSO", ", ".join(rf"\fB{_escape(other)}\fR(1)" for other in above)]
    return "\n".join(lines) + "\n"


def _make_list(title: str, rows: Sequence[tuple[str, str]]) -> list[str]:
    entries = [line for name, text in rows for line in (".TP", rf"\fB{_escape(name)}\fR", _escape(text))]
    return [f".SH {title}", *entries] if entries else []


def _escape(text: str) -> str:
    """Protect what roff would read as its own: backslashes, hyphens, and a dot or quote that begins a line."""
    # The library writes `{FILES}...` and `[default: (auto)]`.
    plain = re.sub(r"default: \((.*?)\)(?=[\];])", r"default: \1", re.sub(r"\{(\w+)\}", r"\1", text))
    escaped = " ".join(plain.split()).replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{escaped}" if escaped.startswith((".", "'")) else escaped


def main() -> None:
    """Write the files, and remove those of commands that are gone."""
    files = make_files()
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.iterdir():
        if old.name not in files:
            old.unlink()
    for name, text in files.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    if reference.FOLDER.is_dir():
        for name, text in reference.make_pages().items():
            (reference.FOLDER / name).write_text(text, encoding="utf-8")
    sys.stderr.write(f"{len(files)} files in {FOLDER}\n")


if __name__ == "__main__":
    main()
