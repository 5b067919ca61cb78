"""The README tells the truth: its commands, options, code, exit codes, picture and targets."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

from hpcxrf.cli.app import app
from hpcxrf.simulate import demo_spec, raw_scan, simulate_scan, write_scan

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = typer.main.get_command(app).commands
PLACEHOLDER_STORE = "out/results/scan-1a2b3c4d.zarr"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def shell_lines() -> list[list[str]]:
    """Words of every command line in the README's shell blocks."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def shown_commands() -> list[list[str]]:
    return [words[1:] for words in shell_lines() if Path(words[0]).name == "hpcxrf"]


def own_data_commands() -> list[list[str]]:
    section = README.split("## Your own data")[1].split("\n## ")[0]
    return [words for words in shown_commands() if " ".join(words) in section]


def command_of(words: list[str]) -> tuple[object, list[str]]:
    """The command that the words call, down its groups, and its own words."""
    command, rest = COMMANDS[words[0]], words[1:]
    while rest and rest[0] in getattr(command, "commands", {}):
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


def inline_commands() -> list[list[str]]:
    """Commands between backticks in the text: `hpcxrf run RUNFILE`."""
    found = re.findall(r"`hpcxrf ([^`]+)`", README)
    return [shlex.split(command) for command in found]


def make_targets() -> set[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][a-z-]*):", text, re.MULTILINE))


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Path:
    """A folder with a small `scan.h50`, in which the commands of "Your own data" were run as written."""
    folder = tmp_path_factory.mktemp("own-data")
    write_scan(simulate_scan(demo_spec(seed=2, shape=(1, 6, 9, 2048), name="scan")), folder)
    for words in own_data_commands():
        done = subprocess.run(
            [sys.executable, "-m", "hpcxrf", *words], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"
    return folder


def test_there_are_commands_to_test():
    assert [words[0] for words in own_data_commands()] == ["inspect", "fit", "run"]
    assert len(blocks("python")) == 2
    assert len(inline_commands()) >= 2


def test_it_is_short_enough_to_be_read():
    assert len(README.splitlines()) <= 150


def test_every_command_and_option_in_the_readme_exists():
    for words in [*shown_commands(), *inline_commands()]:
        command, rest = command_of(words)
        known = {name for parameter in command.params for name in parameter.opts}
        used = {word.split("=")[0] for word in rest if word.startswith("-")}
        assert used <= known, words
    for option in re.findall(r"`(--[a-z-]+)[^`]*`", README):
        assert any(option in p.opts for c in COMMANDS.values() for p in c.params) or (option == "--help"), option


def test_the_commands_of_own_data_run_as_written(ran):
    assert (ran / "out" / "report.html").is_file()
    assert len(list((ran / "out" / "results").glob("scan-*.zarr"))) == 1


def test_the_results_open_as_the_readme_says(ran):
    (code,) = [block for block in blocks("python") if "open_zarr" in block]
    (store,) = (ran / "out" / "results").glob("scan-*.zarr")
    assert PLACEHOLDER_STORE in code
    names: dict = {}
    exec(code.replace(PLACEHOLDER_STORE, str(store)), names)  # noqa: S102 (the README's own code)
    assert names["iron"].shape == names["error"].shape == (1, 6, 9)
    assert names["iron"].attrs["units"] == "count"


def test_the_maps_of_an_array_are_made_as_the_readme_says(tmp_path, monkeypatch):
    (code,) = [block for block in blocks("python") if "fit_map" in block]
    spec = demo_spec(seed=2, shape=(1, 6, 9, 2048), name="scan")
    rows = raw_scan(simulate_scan(spec)).read_counts(slice(0, 6))[0]
    np.save(tmp_path / "cube.npy", rows)
    np.save(tmp_path / "scan.npy", rows)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code, names)  # noqa: S102 (the README's own code)
    assert names["maps"].amplitude.sel(component="Fe").shape == (6, 9)
    assert names["scan"].shape == (1, 6, 9, 2048)
    assert (tmp_path / "maps.png").stat().st_size > 1000


def test_every_make_target_in_the_readme_exists():
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)", " ".join(["", *blocks("sh")])))
    named |= set(re.findall(r"`make ([a-z][a-z-]*)`", README))
    assert {"demo", "test"} <= named
    assert named <= make_targets()


def test_files_and_links_in_the_readme_exist():
    # Absolute, since the page of an index shows the README without the repository.
    pictures = re.findall(r"!\[[^]]+\]\(https://raw\.githubusercontent\.com/hpcxrf/hpcxrf/main/([^)]+)\)", README)
    assert len(pictures) == README.count("![") > 0
    for name in pictures:
        assert (ROOT / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    for name in re.findall(r"\]\(([^)#]+\.md)\)", README):
        assert (ROOT / name).is_file(), name
    for name in (*re.findall(r"`((?:workflows|slurm)/[^`]+)`", README), "CONTRIBUTING.md", "CITATION.cff"):
        assert (ROOT / name).is_file(), name


def test_the_run_files_that_it_names_are_valid_and_show_every_option_at_its_default():
    import dataclasses

    import yaml

    from hpcxrf.config.benchmark import BenchmarkConfig
    from hpcxrf.config.case_study import CaseStudyConfig
    from hpcxrf.config.run import RunConfig, load_run_file

    config, text = load_run_file(ROOT / "workflows" / "scan.yaml")
    load_run_file(ROOT / "workflows" / "demo.yaml")
    shown = yaml.safe_load(text)
    _, text = load_run_file(ROOT / "workflows" / "benchmark.yaml")
    shown["benchmark"] = yaml.safe_load(text)["benchmark"]
    _, of_study = load_run_file(ROOT / "workflows" / "case_study.yaml")
    shown["case_study"] = yaml.safe_load(of_study)["case_study"]
    assert yaml.safe_load(text).keys() < shown.keys()
    assert yaml.safe_load(of_study).keys() < shown.keys()
    kinds = {"benchmark": BenchmarkConfig, "case_study": CaseStudyConfig}
    assert shown.pop("groups") == []
    for section in (one for one in dataclasses.fields(RunConfig) if one.name != "groups"):
        value = getattr(config, section.name)
        assert shown[section.name].keys() == {f.name for f in dataclasses.fields(kinds.get(section.name, value))}
        if section.name != "input":
            assert value == getattr(RunConfig(input=config.input), section.name)


def test_the_vocabulary_explains_what_the_stores_hold():
    words = re.findall(r"^\| `?([\w, `]+?)`? \|", README.split("## Words")[1], re.MULTILINE)
    for word in ("counts", "amplitude", "theta", "sigma", "status", "detection_limit", "dataset"):
        assert any(word in entry for entry in words), word
