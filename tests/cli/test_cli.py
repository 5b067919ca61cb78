"""The command line: help without weight, every command and option once, and the doctor."""

import json
import re

import pytest
import typer

from hpcxrf.cli.app import app
from tests.samples.commands import child, loaded_modules

COMMANDS = (
    "benchmark",
    "demo",
    "run",
    "fit",
    "inspect",
    "ingest",
    "report",
    "simulate",
    "doctor",
    "case-study",
    "plan",
    "site",
    "submit",
    "status",
    "logs",
    "cancel",
    "resume",
    "retry",
    "verify",
    "pack",
    "unpack",
    "list",
    "dashboard",
    "quantify",
    "export",
    "explore",
    "compare",
    "catalog",
    "index",
    "rerun",
    "diff",
    "live",
    "init",
    "schema",
)


def test_help_names_every_command_and_imports_neither_torch_nor_dask():
    loaded, done = loaded_modules("--help")
    assert done.returncode == 0
    assert all(command in done.stdout for command in COMMANDS)
    assert "hpcxrf demo" in done.stdout
    assert "hpcxrf" in loaded
    assert not loaded & {"torch", "dask", "distributed", "zarr", "h5py", "xarray", "matplotlib"}


def test_help_of_a_command_and_the_version_are_as_light():
    for arguments in (("run", "--help"), ("--version",)):
        loaded, done = loaded_modules(*arguments)
        assert done.returncode == 0
        assert not loaded & {"torch", "dask", "distributed", "zarr", "h5py"}


def test_there_is_no_command_but_these():
    assert sorted(typer.main.get_command(app).commands) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_an_example_and_the_long_one_names_every_option(hpcxrf, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    short = hpcxrf(command, "--help")
    assert short.code == 0
    assert "Example" in short.out
    assert f"hpcxrf {command}" in short.out.split("Example")[1]
    parameters = typer.main.get_command(app).commands[command].params
    options = [p for p in parameters if p.param_type_name == "option"]
    hidden = [p for p in options if p.hidden]
    assert not [p for p in hidden if f" {p.opts[-1]} " in short.out]
    long = hpcxrf(command, "--help-all") if hidden else short
    assert long.code == 0
    for parameter in options:
        assert parameter.opts[-1] in long.out
        assert parameter.help, f"{command} {parameter.name}"


def test_the_short_help_of_a_run_names_the_few_options_that_most_need(hpcxrf, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    text = hpcxrf("run", "--help").out
    few = (
        "elements",
        "energy",
        "pixels",
        "detectors",
        "workers",
        "device",
        "output",
        "set",
        "dry-run",
        "json",
        "help",
        "help-all",
    )
    assert sorted(set(re.findall(r" --([a-z-]+) ", text.split("Example")[0]))) == sorted(few)


def test_help_groups_the_commands_by_what_they_are_for(hpcxrf):
    text = hpcxrf("--help").out
    for panel, inside in (
        ("Maps on this machine", "run"),
        ("Single files", "inspect"),
        ("On a Slurm cluster", "submit"),
    ):
        assert inside in text.split(panel)[1].split("╰")[0]


def test_the_version_is_that_of_the_package(hpcxrf):
    import hpcxrf as package

    assert hpcxrf("--version").out.strip() == f"hpcxrf {package.__version__}"


def test_no_arguments_shows_the_help(hpcxrf):
    ran = hpcxrf()
    assert ran.code == 2
    assert "inspect" in ran.out + ran.err


@pytest.mark.parametrize("arguments", [("fitt", "x"), ("fit",), ("inspect", "x", "--jsno"), ("ingest", "x")])
def test_a_command_line_that_cannot_be_meant_is_exit_2(hpcxrf, arguments):
    ran = hpcxrf(*arguments)
    assert ran.code == 2
    assert ran.out == ""
    assert "Usage" in ran.err


def test_python_m_hpcxrf_is_the_same_command():
    done = child("-m", "hpcxrf", "--version")
    assert done.returncode == 0
    assert done.stdout.startswith("hpcxrf ")


def test_the_doctor_finds_this_installation_healthy():
    done = child("-m", "hpcxrf", "doctor", "--json")
    checks = json.loads(done.stdout)
    assert done.returncode == 0, checks
    assert checks["ok"] is True
    names = {check["name"] for check in checks["checks"]}
    assert {"versions", "a fit", "a TLS cluster"} <= names
    assert all(check["found"] for check in checks["checks"])


def test_a_doctor_that_finds_a_fault_says_so_by_its_exit_code(hpcxrf, monkeypatch):
    from hpcxrf.cluster.login import doctor

    broken = {"ok": False, "checks": [{"name": "a fit", "ok": False, "found": "it is off"}]}
    monkeypatch.setattr(doctor, "examine", lambda site: broken)
    ran = hpcxrf("doctor")
    assert ran.code == 1
    assert "it is off" in ran.out
