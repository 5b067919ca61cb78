"""Man pages and completion scripts, made from the commands: `python -m hpcxrf.cli.man` writes them anew.

They lie in `hpcxrf/cli/shell/` and are installed below `share/`; a test compares them with the commands.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parent / "shell"
REFERENCE: Final = Path(__file__).parents[2] / "docs" / "reference" / "commands.md"
"""Page of the commands, in a checkout."""
FORMATS_PAGE: Final = REFERENCE.with_name("formats.md")
"""Page of the file formats, in a checkout."""
_PROGRAM: Final = "hpcxrf"
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
    pages = {f"{'-'.join(words)}.1": _make_page(words, command) for words, command in _list_commands((_PROGRAM,), root)}
    scripts = {
        name: get_completion_script(prog_name=_PROGRAM, complete_var="_HPCXRF_COMPLETE", shell=shell) + "\n"
        for shell, name in _COMPLETION_FILES.items()
    }
    return pages | scripts


def make_reference() -> str:
    """Make the page `docs/reference/commands.md`: every command with its first sentence and its example."""
    import typer

    from hpcxrf.cli.app import app

    root: Any = typer.main.get_command(app)
    lines = ["# Commands", "", "Each has `--help`. This page is written by `python -m hpcxrf.cli.man`.", ""]
    lines += ["| command | does |", "|---|---|"]
    found = [(words, command) for words, command in _list_commands((_PROGRAM,), root) if len(words) > 1]
    for words, command in found:
        sentence = " ".join((command.help or "").split("\n\n")[0].split())
        lines.append(f"| `{' '.join(words)}` | {sentence} |")
    lines += ["", "## Examples", ""]
    for _, command in found:
        examples = (command.epilog or "").partition(":")[2].split("   |   ")
        lines += [f"* `{text.strip()}`" for text in examples if text.strip()]
    return "\n".join(lines) + "\n"


def make_formats_page() -> str:
    """Make the page `docs/reference/formats.md`: the table of formats, from the registry of the readers."""
    from hpcxrf.formats.registry import list_file_formats

    lines = ["# File formats", "", "A file is recognised by its content, never by its name. The list is that of"]
    lines += ["`hpcxrf inspect --formats`, and this page is written by `python -m hpcxrf.cli.man`.", ""]
    lines += ["| format | files | what is read | needs |", "|---|---|---|---|"]
    for row in list_file_formats():
        needs = "" if row.extra is None else f"`hpcxrf[{row.extra}]`"
        lines.append(f"| {row.name} | {row.files} | {row.reads} | {needs} |")
    return "\n".join(lines) + "\n"


def _list_formats() -> list[tuple[str, str]]:
    """List the formats as the entries of a man page."""
    from hpcxrf.formats.registry import list_file_formats

    return [
        (row.name, f"{row.files}: {row.reads}" + (f" (needs hpcxrf[{row.extra}])" if row.extra else ""))
        for row in list_file_formats()
    ]


def _list_commands(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:  # noqa: ANN401
    """List a command and those below it, each with the words that call it."""
    yield words, command
    for name, inner in sorted(getattr(command, "commands", {}).items()):
        yield from _list_commands((*words, name), inner)


def _make_page(words: tuple[str, ...], command: Any) -> str:  # noqa: ANN401
    from hpcxrf import __version__

    for parameter in command.params:
        parameter.hidden = False
    context = command.make_context(" ".join(words), [], resilient_parsing=True)
    help_text = [" ".join(part.split()) for part in (command.help or "").split("\n\n")]
    title, name = "-".join(words).upper(), "-".join(words)
    lines = [
        f'.TH "{_escape(title)}" 1 "" "{_PROGRAM} {__version__}" "User commands"',
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
        examples = command.epilog.partition(":")[2].split("   |   ")
        lines += [".SH EXAMPLES", *(line for text in examples for line in (".PP", _escape(text.strip())))]
    lines += _make_list("EXIT STATUS", _EXIT_CODES)
    above = [_PROGRAM] if len(words) > 1 else [f"{_PROGRAM}-{inner}" for inner, _ in below]
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
    if REFERENCE.parent.is_dir():
        REFERENCE.write_text(make_reference(), encoding="utf-8")
        FORMATS_PAGE.write_text(make_formats_page(), encoding="utf-8")
    sys.stderr.write(f"{len(files)} files in {FOLDER}\n")


if __name__ == "__main__":
    main()
