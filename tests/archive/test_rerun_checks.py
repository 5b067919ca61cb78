"""What of a result is not as it was, before anything runs: real changes of files, constants, versions, places."""

import dataclasses
import json
import shutil

import pytest
from diff_samples import write_result
from rerun_samples import write_sample

from hpcxrf.archive.rerun import find_result, plan_rerun
from hpcxrf.errors import ConfigError, InputFileError
from hpcxrf.physics.constants import PHYSICS
from hpcxrf.results.store.storage import update_attributes
from hpcxrf.store.packed import pack_store, read_root

OVERRIDE = "maps_fit_parameters_override.txt"


@pytest.fixture
def sample(tmp_path):
    return write_sample(tmp_path)


def differences(store, *folders):
    return [(one.kind, one.what, one.recorded, one.here) for one in plan_rerun(store, folders).differences]


def provenance_of(store):
    return read_root(store)["attributes"]["provenance"]


def test_nothing_differs_where_nothing_changed(sample):
    plan = plan_rerun(sample.store)
    assert plan.differences == ()
    assert plan.config.input.files == (str(sample.scan),)
    assert plan.config.execution.device == "cpu"
    assert plan.dataset == "leaf-00000001"


def test_a_changed_byte_of_the_scan_is_named_with_both_checksums(sample):
    content = bytearray(sample.scan.read_bytes())
    content[len(content) // 2] ^= 1
    sample.scan.write_bytes(content)
    ((kind, what, recorded, here),) = differences(sample.store)
    assert (kind, what) == ("input", f"scan {sample.scan}")
    assert f"{len(content)} bytes, SHA-256 " in recorded
    assert here.startswith("SHA-256 ")
    assert recorded[-64:] != here[-64:]


def test_a_scan_of_another_size_is_told_by_its_size(sample):
    with sample.scan.open("ab") as file:
        file.write(b"more")
    ((_, _, recorded, here),) = differences(sample.store)
    size = sample.scan.stat().st_size
    assert here == f"{size} bytes"
    assert recorded.startswith(f"{size - 4} bytes")


def test_a_scan_that_was_moved_is_found_by_name_and_checksum(sample, tmp_path):
    impostor = tmp_path / "archive" / "2023" / "leaf.h5"
    impostor.parent.mkdir(parents=True)
    impostor.write_bytes(b"x" * sample.scan.stat().st_size)
    shutil.move(sample.scan.parent, tmp_path / "archive" / "2024")
    with pytest.raises(InputFileError, match="--source"):
        plan_rerun(sample.store)
    plan = plan_rerun(sample.store, [tmp_path / "archive"])
    assert plan.differences == ()
    assert plan.config.input.files == (str(tmp_path / "archive" / "2024" / "leaf.h5"),)
    # The override file is the same wherever it lies, and is named where it is.
    assert plan.config.fit.override == str(tmp_path / "archive" / "2024" / OVERRIDE)
    (tmp_path / "archive" / "2024" / "leaf.h5").write_bytes(b"other")
    with pytest.raises(InputFileError, match="is not there"):
        plan_rerun(sample.store, [tmp_path / "archive"])


def test_an_override_file_that_changed_or_is_new_is_an_input_that_differs(sample, tmp_path):
    override = sample.scan.parent / OVERRIDE
    override.write_text("ELEMENTS_TO_FIT: Si\n")
    ((kind, what, _, _),) = differences(sample.store)
    assert (kind, what) == ("input", f"override file {override}")
    override.unlink()
    assert [(one[0], one[1], one[3]) for one in differences(sample.store)] == [
        ("input", f"override file {override}", "not there")
    ]
    bare = write_sample(tmp_path / "bare", override=None)
    assert differences(bare.store) == []
    (bare.scan.parent / OVERRIDE).write_text("ELEMENTS_TO_FIT: Si\n")
    assert differences(bare.store) == [("input", str(bare.scan.parent / OVERRIDE), "was not there", "is there")]


def test_an_earlier_fit_is_an_input_by_its_theta_alone(tmp_path):
    theta = {"0": {"energy_offset": 0.1, "energy_slope": 0.01}}
    about = {"theta_by_detector": theta, "constants": "physics"}
    donor = write_result(tmp_path / "old" / "donor.zarr", attributes=about)
    sample = write_sample(tmp_path, fit={"calibration": "previous", "previous": str(donor)})
    assert differences(sample.store) == []
    update_attributes(donor, {"title": "quantified meanwhile"})
    assert pack_store(donor)
    assert differences(sample.store) == []
    shutil.move(tmp_path / "old", tmp_path / "new")
    assert [(one[0], one[1], one[3]) for one in differences(sample.store)] == [
        ("input", f"earlier fit {donor}", "not there")
    ]
    plan = plan_rerun(sample.store, [tmp_path])
    assert plan.differences == ()
    assert plan.config.fit.previous == str(tmp_path / "new" / "donor.zarr")
    other = write_result(donor, attributes={**about, "theta_by_detector": {"0": {"energy_offset": 0.2}}})
    ((_, what, recorded, here),) = differences(sample.store)
    assert what == f"earlier fit {other}"
    assert recorded != here


def test_a_changed_constant_is_named_with_both_values(sample, monkeypatch):
    other = dataclasses.replace(PHYSICS, width_factor=3.66)
    monkeypatch.setattr("hpcxrf.pipeline.provenance.constant_set", lambda _name: other)
    assert differences(sample.store) == [("constant", "constants physics: width_factor", "3.58", "3.66")]


def test_changed_line_data_name_the_family(sample, monkeypatch):
    from hpcxrf.pipeline import provenance

    lines = provenance.find_emitted_lines

    def bent(z, shell, energy_kev):
        return tuple((name, kev + (z == 26) * 1e-6, strength) for name, kev, strength in lines(z, shell, energy_kev))

    monkeypatch.setattr(provenance, "find_emitted_lines", bent)
    provenance._hash_lines.cache_clear()
    found = differences(sample.store)
    provenance._hash_lines.cache_clear()
    assert [(kind, what) for kind, what, _, _ in found] == [("constant", "lines of Fe")]


def test_families_have_fingerprints_and_nothing_else_has(sample):
    lines = [name for name in provenance_of(sample.store)["constants"] if name.startswith("lines of ")]
    assert lines == ["lines of Si", "lines of Fe", "lines of Pt_L"]


def test_other_versions_and_processors_are_listed_all_at_once(sample):
    found = provenance_of(sample.store)
    told = found["environment"]
    environment = {**told, "torch": "2.9.9", "hpcxrf source": "0" * 16, "processor": "Other", "threads": "17"}
    update_attributes(sample.store, {"provenance": {**found, "environment": environment}})
    plan = plan_rerun(sample.store)
    assert [(one.kind, one.what, one.recorded) for one in plan.differences] == [
        ("version", "hpcxrf source", "0" * 16),
        ("version", "torch", "2.9.9"),
        ("processor", "processor", "Other"),
    ]
    assert plan.differences[1].here == told["torch"]
    assert plan.config.execution.threads == 17  # as it was, where a sum is split over threads


def test_tasks_of_another_machine_are_listed(sample):
    found = provenance_of(sample.store)
    other = {**found["environment"], "processor": "Other"}
    update_attributes(sample.store, {"provenance": {**found, "other_environments": [other]}})
    ((kind, what, recorded, _),) = differences(sample.store)
    assert (kind, what, recorded) == ("processor", "of some tasks: processor", "Other")


def test_a_gpu_that_is_not_here_is_a_difference(sample):
    update_attributes(
        sample.store, {"devices": ["cuda:0"], "provenance": {**provenance_of(sample.store), "gpus": ["Fancy 9"]}}
    )
    ((kind, what, recorded, here),) = differences(sample.store)
    assert (kind, what, recorded) == ("processor", "GPU", "Fancy 9")
    assert here != "Fancy 9"


def test_a_store_of_an_earlier_version_says_that_it_cannot_be_compared(sample):
    attributes = {k: v for k, v in read_root(sample.store)["attributes"].items() if k != "provenance"}
    document = json.loads((sample.store / "zarr.json").read_text())
    (sample.store / "zarr.json").write_text(json.dumps(document | {"attributes": attributes}))
    ((kind, what, recorded, _),) = differences(sample.store)
    assert (kind, recorded) == ("record", "not recorded")
    assert "versions and processor" in what
    sample.scan.write_bytes(sample.scan.read_bytes() + b"x")
    assert [one[0] for one in differences(sample.store)] == ["record", "input"]


def test_a_packed_store_says_the_same(sample):
    assert pack_store(sample.store)
    store = find_result(sample.store.with_name("leaf-00000001.zarr.zip"))
    assert plan_rerun(store).differences == ()
    assert find_result(sample.store.parents[1]) == store


def test_of_several_datasets_one_must_be_named(tmp_path):
    one = write_sample(tmp_path)
    shutil.copytree(one.store, one.store.with_name("other.zarr"))
    with pytest.raises(ConfigError, match="leaf-00000001, other; name one with --dataset"):
        find_result(one.store.parents[1])
    assert find_result(one.store.parents[1], "other").name == "other.zarr"
    with pytest.raises(ConfigError, match="'none' is not one of them"):
        find_result(one.store.parents[1], "none")


def test_results_of_a_benchmark_are_refused(sample):
    update_attributes(sample.store, {"configuration": {"input": {"files": ["x"]}, "benchmark": {}}})
    with pytest.raises(ConfigError, match="is of a benchmark"):
        plan_rerun(sample.store)


def test_the_command_lists_and_refuses_and_runs_nothing(sample, hpcxrf, monkeypatch):
    assert hpcxrf("rerun", sample.store, "--check").code == 0
    sample.scan.write_bytes(sample.scan.read_bytes() + b"x")
    monkeypatch.setattr("hpcxrf.cluster.local.run.run_here", None)
    ran = hpcxrf("rerun", sample.store, "--json")
    assert ran.code == 8
    assert "--anyway" in ran.err
    assert (ran.json["ran"], ran.json["identical"], ran.json["run"]) == (False, None, None)
    assert [one["kind"] for one in ran.json["differences"]] == ["input"]
    told = hpcxrf("rerun", sample.store)
    assert told.code == 8
    assert "scan" in told.out
