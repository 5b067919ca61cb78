"""The command that a run proposes at its end."""

import shlex

import pytest

from hpcxrf.pipeline.printout import next_folder, suggest_command
from hpcxrf.store.rundir import RunDir


@pytest.mark.parametrize(
    ("argv", "kept"),
    [
        (["hpcxrf", "run", "a b.h50", "--elements", "Si,Fe", "-o", "out", "--energy", "12"], "'a b.h50' --energy 12"),
        (["/bin/hpcxrf", "run", "--output=out", "--elements=Si", "a.h50", "--set", "fit.x=1"], "a.h50 --set fit.x=1"),
        (["hpcxrf", "run", "run.yaml", "--output", "out", "--auto-elements"], "run.yaml"),
        (["hpcxrf", "run", "r.yaml", "--set", "sample.elements=[Si]", "--set=fit.x=1"], "r.yaml --set=fit.x=1"),
    ],
)
def test_the_proposed_command_is_the_given_one_with_more_elements_and_a_new_folder(tmp_path, argv, kept):
    command = suggest_command(argv, ("Si", "Fe"), ["Se"], RunDir(path=tmp_path / "out"))
    assert command == f"hpcxrf run {kept} --elements Si,Fe,Se -o {shlex.quote(str(tmp_path / 'out-2'))}"


def test_where_override_files_have_the_elements_the_program_adds_the_suggested_ones_itself(tmp_path):
    command = suggest_command(["hpcxrf", "run", "a.mda", "-o", "out"], (), ["Se"], RunDir(path=tmp_path / "out"))
    assert command == f"hpcxrf run a.mda --auto-elements -o {tmp_path / 'out-2'}"


def test_a_run_of_another_command_is_proposed_by_the_configuration_that_it_keeps(tmp_path):
    run = RunDir(path=tmp_path / "demo" / "run")
    command = suggest_command(["hpcxrf", "demo", "-o", "demo"], ("Si",), ["Se"], run)
    assert command == f"hpcxrf run {run.configuration_file} --elements Si,Se -o {tmp_path / 'demo' / 'run-2'}"


def test_a_proposed_folder_is_never_one_that_is_there(tmp_path):
    for name in ("out", "out-2", "out-3"):
        (tmp_path / name).mkdir()
    assert next_folder(tmp_path / "out") == tmp_path / "out-4"
