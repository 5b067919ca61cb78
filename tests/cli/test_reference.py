"""Generated pages of the reference: in step with the program, and whole."""

import dataclasses
import re

import pytest
import typer

from hpcxrf.cli import reference
from hpcxrf.cli.app import app
from hpcxrf.config.run import RunConfig
from hpcxrf.config.site import SiteProfile
from hpcxrf.store import schema

PAGES = reference.make_pages()


def page(name: str) -> str:
    return (reference.FOLDER / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_in_step_with_the_program(name):
    assert page(name) == PAGES[name], "run python -m hpcxrf.cli.man"


@pytest.mark.parametrize("name", PAGES)
def test_every_row_of_a_table_has_the_cells_of_its_heading(name):
    for block in re.findall(r"(?:^\|.*\n)+", PAGES[name], re.MULTILINE):
        heading, _, *rows = (re.split(r"(?<!\\)\|", row)[1:-1] for row in block.splitlines())
        assert rows
        assert {len(row) for row in rows} == {len(heading)}


@pytest.mark.parametrize("name", PAGES)
def test_links_within_a_page_lead_to_its_headings(name):
    headings = {h.lower().replace(" ", "-") for h in re.findall(r"^## (.*)", PAGES[name], re.MULTILINE)}
    for target in re.findall(r"\]\(#([^)]+)\)", PAGES[name]):
        assert target in headings, target


def test_the_commands_are_all_there_with_all_their_options():
    sections = dict(re.findall(r"^## (hpcxrf .*?)\n(.*?)(?=^## |\Z)", PAGES["commands.md"], re.DOTALL | re.MULTILINE))
    for words, command in reference.list_commands(("hpcxrf",), typer.main.get_command(app)):
        if len(words) > 1:
            section = sections[" ".join(words)]
            for parameter in command.params:
                option = parameter.param_type_name == "option"
                name = parameter.opts[-1] if option else parameter.metavar or parameter.name.upper()
                # Names of arguments are written large by some versions of typer.
                found = re.search(rf"^\| `[^`]*{re.escape(name)}", section, re.MULTILINE | re.IGNORECASE)
                assert found, (words, name)


def test_the_page_of_the_formats_is_the_list_of_the_program(hpcxrf):
    rows = hpcxrf("inspect", "--formats", "--json").json["formats"]
    assert len(rows) >= 18
    for row in rows:
        assert f"| {row['name']} | {row['files']} |" in PAGES["formats.md"]


def test_the_run_file_has_every_option_with_its_meaning():
    sections = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", PAGES["run-file.md"], re.DOTALL | re.MULTILINE))
    for section in dataclasses.fields(RunConfig):
        kind = section.type if isinstance(section.type, type) else None
        assert section.name in sections
        for option in dataclasses.fields(kind) if kind else ():
            (row,) = re.findall(rf"^\| `{option.name}` \|(.*)\|$", sections[section.name], re.MULTILINE)
            assert len(row.split("|")[-1].strip()) > 8, option.name


def test_the_profile_has_every_field():
    for field in dataclasses.fields(SiteProfile):
        assert f"\n| `{field.name}` |" in PAGES["site-profile.md"]
    assert "| must be given |" in PAGES["site-profile.md"]


def test_every_table_of_the_stores_is_on_their_page():
    """A table that is only another one by region is told of in words."""
    by_region = {"REGION_MAP_VARIABLES", "REGION_SHIFT_VARIABLES"}
    tables = {
        name
        for name, value in vars(schema).items()
        if isinstance(value, dict) and value and all(isinstance(one, schema.VariableSpec) for one in value.values())
    }
    shown = {name for _, _, names in reference._STORE_GROUPS for name in names}
    assert tables - by_region == shown
    assert "| `detection_limit` | detector, component, y, x | float32 | count |" in PAGES["stores.md"]
