"""Recipes of packages and images, and the bill of materials: in step with `pyproject.toml`."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jinja2
import pytest
import yaml

import hpcxrf

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "packaging"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
VERSION = PROJECT["version"]
FLOORS = dict(text.split(">=") for text in PROJECT["dependencies"])
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").split())
CONDA_NAMES = {"torch": "pytorch", "dask": "dask-core", "matplotlib": "matplotlib-base", "zlib-ng": "python-zlib-ng"}


def read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def instructions() -> list[tuple[str, str]]:
    """Instructions of the Containerfile, with continued lines joined."""
    lines = [line for line in read("Containerfile").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in joined.splitlines() if line.strip()]


def sections() -> dict[str, str]:
    """Sections of the Apptainer definition; the empty name: its head."""
    text = "".join(line for line in read("hpcxrf.def").splitlines(keepends=True) if not line.startswith("#"))
    head, *others = re.split(r"^%", text, flags=re.MULTILINE)
    return {"": head} | {part.partition("\n")[0].strip(): part.partition("\n")[2] for part in others}


def test_the_version_is_one_everywhere():
    assert hpcxrf.__version__ == VERSION
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == VERSION
    assert (
        yaml.safe_load(jinja2.Template(read("conda/meta.yaml")).render(PYTHON="python"))["package"]["version"]
        == VERSION
    )
    assert f'org.opencontainers.image.version="{VERSION}"' in dict(instructions())["LABEL"]
    assert f"Version {VERSION}" in sections()["labels"]
    heading = re.search(r"^## \[([0-9.]+)\] - \d{4}-\d{2}-\d{2}$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heading
    assert heading[1] == VERSION


def test_the_conda_recipe_needs_what_the_wheel_needs():
    recipe = yaml.safe_load(jinja2.Template(read("conda/meta.yaml")).render(PYTHON="python"))
    run = dict(text.split(" >=") for text in recipe["requirements"]["run"])
    assert run.pop("python") == PROJECT["requires-python"].removeprefix(">=")
    assert run == {CONDA_NAMES.get(name, name): version for name, version in FLOORS.items()}
    assert recipe["about"]["license"] == PROJECT["license"]
    assert recipe["about"]["home"] == PROJECT["urls"]["Homepage"]
    assert (FOLDER / "conda" / recipe["source"]["path"]).resolve() == ROOT
    name, _, target = recipe["build"]["entry_points"][0].partition(" = ")
    assert PROJECT["scripts"] == {name: target}


def test_images_begin_with_a_python_that_is_allowed_and_the_torch_that_is_pinned():
    for base in (dict(instructions())["FROM"], sections()[""]):
        (found,) = re.findall(r"python:(\d+\.\d+)-slim", base)
        lowest = PROJECT["requires-python"].removeprefix(">=")
        assert tuple(map(int, found.split("."))) >= tuple(map(int, lowest.split(".")))
    assert f'TORCH_VERSION="{PINS["torch"]}"' in [rest for word, rest in instructions() if word == "ARG"]
    assert f"TORCH_VERSION={PINS['torch']}" in sections()["arguments"].split()


def test_images_hold_all_that_the_wheel_is_made_of():
    needed = {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "hpcxrf", "slurm", "workflows"}
    copied = {name for word, rest in instructions() if word == "COPY" for name in rest.split()[:-1]}
    assert copied == needed
    assert {line.split()[0] for line in sections()["files"].splitlines() if line.strip()} == needed
    assert all((ROOT / name).exists() for name in needed)


def test_every_instruction_and_section_is_one_that_there_is():
    known = {"FROM", "ARG", "LABEL", "COPY", "RUN", "USER", "WORKDIR", "ENTRYPOINT", "CMD"}
    words = [word for word, _ in instructions()]
    assert set(words) <= known
    assert words[0] == "FROM"
    for word, rest in instructions():
        if word in {"ENTRYPOINT", "CMD"}:
            assert all(isinstance(part, str) for part in json.loads(rest))
    assert set(sections()) == {"", "arguments", "labels", "files", "post", "environment", "test", "runscript", "help"}


def test_shell_lines_of_images_are_valid():
    scripts = [rest for word, rest in instructions() if word == "RUN"]
    scripts += [
        re.sub(r"\{\{ (\w+) \}\}", r"\1", sections()[name]) for name in ("post", "environment", "test", "runscript")
    ]
    assert len(scripts) == 6
    for script in scripts:
        done = subprocess.run(["sh", "-n"], input=script, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("index", ["", "https://example.org/cpu"])
def test_an_index_of_torch_is_used_where_one_is_given(index):
    """The shell's own expansion of the line, with pip replaced by echo."""
    line = next(rest for word, rest in instructions() if word == "RUN" and "torch" in rest).split("&&")[0]
    script = line.replace("python -m pip", "echo")
    done = subprocess.run(
        ["sh", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={"TORCH_INDEX": index, "TORCH_VERSION": "1"},
    )
    assert done.stdout.split() == ["install", "--no-cache-dir", *(["--index-url", index] if index else []), "torch==1"]


def test_commands_of_the_recipes_exist():
    from typer.main import get_command

    from hpcxrf.cli.app import app

    lines = re.findall(r"^\s*(?:- )?hpcxrf ([a-z]+)", read("conda/meta.yaml") + sections()["test"], re.MULTILINE)
    assert len(lines) >= 4
    assert set(lines) <= set(get_command(app).commands)


def test_the_floors_are_those_of_the_project_with_the_torch_that_is_pinned():
    done = subprocess.run([sys.executable, FOLDER / "floors.py"], capture_output=True, text=True, check=True)
    assert dict(line.split("==") for line in done.stdout.split()) == FLOORS | {"torch": PINS["torch"]}


@pytest.mark.more
def test_the_bill_of_materials_is_valid_and_lists_all_that_is_needed():
    pytest.importorskip("cyclonedx", reason="cyclonedx is not installed: pip install hpcxrf[release]")
    done = subprocess.run([sys.executable, FOLDER / "make_sbom.py"], capture_output=True, text=True, check=True)
    bill = json.loads(done.stdout)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    named = {part["name"]: part for part in bill["components"]}
    assert {name.lower() for name in FLOORS} <= set(named)
    assert {"llvmlite", "pydantic-core", "markupsafe"} <= set(named)
    assert not {"pytest", "ruff", "sphinx"} & set(named)
    assert sum("licenses" in part for part in named.values()) > 0.9 * len(named)
    below = {one["ref"]: one.get("dependsOn", []) for one in bill["dependencies"]}
    own = below[bill["metadata"]["component"]["bom-ref"]]
    assert {ref.partition("@")[0] for ref in own} == {f"pkg:pypi/{name.lower()}" for name in FLOORS}
