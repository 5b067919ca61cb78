from collections import Counter

"""How much work a plan is, what it costs by a measurement, and what speaks against it."""

import dataclasses
import json
import shutil

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hpcxrf.cluster.login.checks import hours_faults, output_faults_of, size_text
from hpcxrf.cluster.login.probe import Probe, hours, kind_of, last_probe, probe_file
from hpcxrf.config.run import check_config
from hpcxrf.pipeline.pixels.from_config import free_parameters
from hpcxrf.pipeline.plan import make_plan
from hpcxrf.pipeline.plan_size import PlanSize, bytes_written, measure_plan, task_counts
from hpcxrf.pipeline.records import DatasetJob
from hpcxrf.pipeline.units import units_of
from hpcxrf.simulate import demo_spec, simulate_scan, write_scan

WORK = PlanSize(
    datasets=10, tasks={}, spectra=20, pixels=1_000_000, bytes_read=10**9, bytes_written=4 * 10**9, inodes=100
)
PROBE = Probe(
    date="2026-01-02T03:04:05+00:00",
    host="node",
    device="cuda: H200",
    kind="separable poisson, pixels linear",
    ingest_s_per_gb=10.0,
    dataset_s=2.0,
    spectrum_s=1.0,
    pixel_s=1e-3,
)


def job(tmp_path, shape, detectors=("0",), **sections) -> DatasetJob:
    config = check_config({"input": {"files": ["a"]}, **sections}, "here")
    return DatasetJob(
        number=0,
        dataset_id="a-00000000",
        source=tmp_path,
        run_dir=tmp_path,
        config=config,
        detectors=detectors,
        shape=shape,
    )


REGIONS = st.fixed_dictionaries(
    {
        "find": st.lists(st.sampled_from(["phases", "areas", "hot_spots", "squares"]), unique=True),
        "refine": st.booleans(),
        "k": st.integers(1, 9),
        "labels": st.sampled_from([{}, {"a": "a.npy"}]),
    }
)


@given(st.integers(1, 900), st.integers(1, 900), REGIONS, st.none() | st.integers(1, 5))
def test_tasks_are_counted_as_the_graph_makes_them(tmp_path_factory, n_y, n_x, regions, blocks):
    one = job(
        tmp_path_factory.getbasetemp(),
        (2, n_y, n_x, 2048),
        ("sum", "0", "1"),
        regions=regions,
        pixels={"blocks_per_task": blocks},
    )
    assert task_counts(one) == Counter(unit.stage for unit in units_of(one))


@pytest.fixture(scope="module")
def scan_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    write_scan(simulate_scan(demo_spec(seed=1, shape=(2, 4, 6, 2048), name="small")), folder)
    return folder


def config_of(folder, **sections):
    raw = {
        "input": {"files": [str(folder / "small.h50")]},
        "sample": {"elements": ["Si", "Fe", "Zn"], "incident_energy_kev": 12.0},
        "regions": {"find": []},
    }
    return check_config({**raw, **sections}, "here")


def test_bytes_are_those_of_the_files_and_of_the_arrays(scan_folder, tmp_path):
    work = measure_plan(make_plan(config_of(scan_folder), tmp_path))
    files = [scan_folder / "small.h50", scan_folder / "small.h51"]
    assert work.bytes_read == sum(file.stat().st_size for file in files)
    # Counts of 2 bytes and 4 times of 8; 3 maps of 4 bytes for each of 3 elements, elastic, Compton; 9 a pixel.
    # Maps are those of two detectors and of their sum.
    assert work.bytes_written == 2 * 24 * (2048 * 2 + 32) + 3 * 24 * (5 * 12 + 9)
    assert (work.datasets, work.spectra, work.pixels) == (1, 2, 72)
    alone = measure_plan(make_plan(config_of(scan_folder, pixels={"detectors": "sum"}), tmp_path))
    assert (alone.spectra, alone.pixels) == (2, 24)


@pytest.mark.parametrize("method", ["linear", "nnls", "poisson", "nonlinear", "full"])
def test_shifts_of_theta_are_among_the_bytes_that_are_written(tmp_path, method):
    one = job(tmp_path, (1, 4, 6, 2048), pixels={"method": method})
    plain = job(tmp_path, (1, 4, 6, 2048))
    # Two maps of 4 bytes for each parameter that the pixels have of their own.
    beyond = 24 * 2 * 4 * len(free_parameters(method))
    assert bytes_written(one) - bytes_written(plain) == beyond


# Hours -----------------------------------------------------------------------------------------


def test_hours_add_up():
    # 4 GB at 10 s, 10 datasets at 2 s, 20 spectra at 1 s, a million pixels at 1 ms.
    assert hours(WORK, PROBE) == pytest.approx((40 + 20 + 20 + 1000) / 3600)


def test_too_many_gpu_hours_are_refused_with_both_numbers_and_the_date():
    (said,) = hours_faults(WORK, PROBE, 0.2)
    assert said == "about 0.3 GPU-hours by the measurement of 2026-01-02T03:04:05+00:00, --max-gpu-hours is 0.2"
    assert hours_faults(WORK, PROBE, 0.4) == []
    assert hours_faults(WORK, None, None) == []


@pytest.mark.parametrize("probe", [None, dataclasses.replace(PROBE, device="cpu")])
def test_without_a_measurement_on_a_gpu_a_limit_of_gpu_hours_cannot_be_kept(probe):
    (said,) = hours_faults(WORK, probe, 5.0)
    assert "no fit of this kind was measured on a GPU yet" in said


def test_a_plan_is_measured_and_the_measurement_is_kept_with_its_date(hpcxrf, scan_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = config_of(scan_folder)
    run_file = tmp_path / "run.yaml"
    raw = json.loads(json.dumps(dataclasses.asdict(config)))
    run_file.write_text(yaml.safe_dump({k: raw[k] for k in ("input", "sample", "regions")}))
    before = hpcxrf("plan", run_file, "--json").json
    assert (before["probe"], before["hours"]) == (None, None)
    assert "no such fit has been measured yet" in hpcxrf("plan", run_file).out
    measured = hpcxrf("plan", run_file, "--probe", "--json").json
    assert measured["hours"] > 0
    assert all(measured["probe"][key] > 0 for key in ("ingest_s_per_gb", "dataset_s", "spectrum_s", "pixel_s"))
    again = hpcxrf("plan", run_file, "--json").json
    assert again["probe"] == measured["probe"]
    assert f"measurement of {measured['probe']['date']}" in " ".join(hpcxrf("plan", run_file).out.split())
    # Of other methods, or of a GPU, that says nothing.
    assert last_probe(config, on_gpu=True) is None
    assert last_probe(config_of(scan_folder, pixels={"method": "nnls"}), on_gpu=False) is None
    assert probe_file().parent == tmp_path / "cache" / "hpcxrf"


def test_of_two_measurements_the_later_one_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = check_config({"input": {"files": ["a"]}}, "here")
    rows = [dataclasses.asdict(dataclasses.replace(PROBE, kind=kind_of(config), pixel_s=s)) for s in (1.0, 2.0)]
    probe_file().parent.mkdir()
    probe_file().write_text(json.dumps(rows))
    found = last_probe(config, on_gpu=True)
    assert found is not None
    assert found.pixel_s == 2.0


# Output ----------------------------------------------------------------------------------------


def test_an_output_that_cannot_hold_it_is_refused_with_both_numbers(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    faults, _ = output_faults_of(tmp_path / "new" / "run", dataclasses.replace(WORK, bytes_written=free * 30))
    assert "needs at least" in faults[0]
    assert f"{size_text(free)[:2]}" in faults[0]
    faults, notes = output_faults_of(tmp_path / "run", dataclasses.replace(WORK, bytes_written=free * 3))
    assert not faults
    assert "may need up to" in notes[0].text
    assert output_faults_of(tmp_path / "run", dataclasses.replace(WORK, bytes_written=1)) == ([], [])


def test_an_output_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    faults, _ = output_faults_of(tmp_path / "file" / "run", WORK)
    assert faults == [f"output {tmp_path}/file/run: {tmp_path}/file is not a folder"]


def test_an_output_that_is_not_ones_own_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("hpcxrf.cluster.login.checks.os.access", lambda path, mode: False)
    faults, _ = output_faults_of(tmp_path / "run", WORK)
    assert faults == [f"output {tmp_path}/run: {tmp_path} is not writable by you"]


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (999, "999 B"), (12_345, "12.3 kB"), (3_400_000_000, "3.4 GB")]
)
def test_sizes_are_decimal(number, text):
    assert size_text(number) == text
