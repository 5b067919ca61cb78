"""What a store says of its making: environments of all tasks, constants, every input once."""

from pathlib import Path

import pytest
from rerun_samples import COMPONENTS, ENERGY_KEV, write_sample

from hpcxrf.config.run import check_config
from hpcxrf.pipeline import provenance
from hpcxrf.pipeline.records import DatasetJob
from hpcxrf.runner.records import TaskRecord
from hpcxrf.store.packed import read_root


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return write_sample(tmp_path_factory.mktemp("sample"))


def record(**changes) -> TaskRecord:
    facts = {"task": "pixels-0", "stage": "pixels", "dataset_id": "leaf", "wall_s": 1.0, "cpu_s": 1.0, **changes}
    return TaskRecord(**facts)


def test_a_task_says_its_environment_only_where_it_is_another(sample, monkeypatch):
    assert provenance.mark_task(record(), sample.store).facts is None
    here = provenance.describe_environment()
    monkeypatch.setattr(provenance, "describe_environment", lambda: {**here, "torch": "9.9"})
    marked = provenance.mark_task(record(facts={"r2": 1.0}), sample.store)
    assert marked.facts == {"r2": 1.0, "environment": {**here, "torch": "9.9"}}


def test_the_store_gets_each_other_environment_once(sample):
    told = read_root(sample.store)["attributes"]
    other = {"torch": "9.9"}
    after = [record(facts={"environment": other}), record(), record(facts={"environment": other, "gpu": "G"})]

    job = _job_of(sample)
    made = provenance.end_provenance(job, told, after)["provenance"]
    assert made["other_environments"] == [other]
    assert made["gpus"] == ["G"]
    assert made["environment"] == told["provenance"]["environment"]
    assert made["constants"] == told["provenance"]["constants"]


def _job_of(sample):
    config = check_config({"input": {"files": [str(sample.scan)]}}, "test")
    return DatasetJob(
        number=0,
        dataset_id="leaf-00000001",
        source=sample.scan,
        run_dir=Path("out"),
        config=config,
        detectors=("0",),
        shape=(1, 4, 5, 1536),
        stamps=((str(sample.scan), "100 bytes, 5 ns"),),
    )


def test_inputs_of_the_scan_come_from_its_store(sample):
    sources = [{"path": "shown otherwise", "bytes": 7, "sha256": "ab"}]
    (one,) = provenance.list_inputs(_job_of(sample), sources)
    assert one == {"kind": "scan", "path": str(sample.scan), "bytes": 7, "sha256": "ab"}


def test_constants_are_texts_that_change_with_what_they_stand_for():
    first = provenance.describe_constants("physics", COMPONENTS, ENERGY_KEV)
    assert first == provenance.describe_constants("physics", COMPONENTS, ENERGY_KEV)
    assert all(isinstance(value, str) for value in first.values())
    legacy = provenance.describe_constants("maps-legacy-2.96", COMPONENTS, ENERGY_KEV)
    assert legacy["constants maps-legacy-2.96: width_factor"] == "2.96"
    # Strengths of lines are those at the incident energy.
    higher = provenance.describe_constants("physics", COMPONENTS, ENERGY_KEV + 3.0)
    assert {name for name in first if first[name] != higher[name]} == {f"lines of {n}" for n in ("Si", "Fe", "Pt_L")}


def test_the_text_of_the_program_is_part_of_it(tmp_path, monkeypatch):
    package = tmp_path / "hpcxrf"
    for name in ("fitting", "cli"):
        (package / name).mkdir(parents=True)
        (package / name / "one.py").write_text("x = 1\n")
    (package / "methods.py").write_text("")
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(provenance.hpcxrf, "__file__", str(package / "__init__.py"))
    before = provenance._hash_program()
    (package / "cli" / "one.py").write_text("x = 2\n")
    assert provenance._hash_program() == before
    (package / "fitting" / "one.py").write_text("x = 2\n")
    assert provenance._hash_program() != before
