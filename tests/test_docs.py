"""The pages of `docs/`: their links, files, commands, code and exit codes are those of the program."""

import re
import shlex
from pathlib import Path

import pytest
import typer

import hpcxrf.api
from hpcxrf import errors
from hpcxrf.cli.app import app
from hpcxrf.errors import HpcxrfError

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
COMMANDS = typer.main.get_command(app).commands


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)


def commands_in(text: str) -> list[list[str]]:
    """Words of every hpcxrf command in a shell block or between backticks."""
    lines = [line for block in blocks(text, "sh") for line in block.replace("\\\n", " ").splitlines()]
    inline = re.findall(r"`(hpcxrf [a-z][^`]*)`", text)
    words = [shlex.split(line, comments=True) for line in (*lines, *inline)]
    return [w[1:] for w in words if w and w[0] == "hpcxrf"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_of_a_page_leads_to_a_file(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).is_file(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_file_that_a_page_names_exists(page):
    names = re.findall(r"`((?:hpcxrf|tests|workflows|slurm)/[\w./-]+)`", page.read_text(encoding="utf-8"))
    for name in names:
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_and_option_of_a_page_exists(page):
    for words in commands_in(page.read_text(encoding="utf-8")):
        command, rest = COMMANDS[words[0]], words[1:]
        while rest and rest[0] in getattr(command, "commands", {}):
            command, rest = command.commands[rest[0]], rest[1:]
        known = {name for parameter in command.params for name in parameter.opts}
        assert {word.split("=")[0] for word in rest if word.startswith("-")} <= known, words


def test_the_index_names_every_page_and_notebook():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    linked = {(ROOT / "docs" / name).resolve() for name in re.findall(r"\]\(([^)#]+)\)", index)}
    of_sections = {page for page in PAGES if page.name == "index.md"}
    assert linked == (set(PAGES) - of_sections) | set((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def test_every_page_is_in_the_contents_of_the_site():
    """A page that no list of contents names is a warning of Sphinx, which `make docs` takes for an error."""
    named: set[Path] = {ROOT / "docs" / "index.md"}
    for page in PAGES:
        for block in re.findall(
            r"^```{toctree}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        ):
            entries = [line for line in block.splitlines() if line and not line.startswith(":")]
            for entry in entries:
                found = page.parent.glob(f"{entry}.md") if "*" in entry else [(page.parent / f"{entry}.md").resolve()]
                named.update(found)
    assert set(PAGES) <= named


def test_the_page_of_python_names_all_of_the_library():
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^\.\. auto(?:function|class):: (\w+)$", page, re.MULTILINE))
    assert shown | {"fit_integrated"} == set(hpcxrf.api.__all__)
    assert "`fit_integrated`" in page
    assert hpcxrf.api.fit_integrated is hpcxrf.api.fit_spectrum


def test_the_exit_codes_of_the_page_are_those_of_the_program():
    text = (ROOT / "docs" / "exit-codes.md").read_text(encoding="utf-8")
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    codes = {cls.exit_code for cls in (HpcxrfError, *HpcxrfError.__subclasses__())}
    assert listed == codes | {0, errors.EXIT_RESUMABLE, errors.EXIT_INTERRUPTED}


def test_the_model_is_differentiable_as_the_page_says():
    import torch

    (code,) = blocks((ROOT / "docs" / "train-through-the-model.md").read_text(encoding="utf-8"), "python")
    names: dict = {}
    exec(code, names)  # noqa: S102 (the page's own code)
    assert torch.isfinite(names["theta"].grad).all()
    assert float(names["counts"].detach().sum()) == pytest.approx(6e4, rel=0.05)


def test_the_regions_of_the_page_are_a_valid_section_of_a_run_file():
    import yaml

    from hpcxrf.config.run import check_config

    (code,) = blocks((ROOT / "docs" / "regions.md").read_text(encoding="utf-8"), "yaml")
    raw = {"input": {"files": ["scan.h50"]}, "sample": {"elements": ["Cu"]}, **yaml.safe_load(code)}
    assert check_config(raw, "docs/regions.md").regions.given == ("vein", "tissue", "copper")
