"""Workers of a job that do not start, what is loaded when, and the word that says why one died."""

import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from hpcxrf.cluster.job.cluster import job_cluster
from hpcxrf.cluster.job.pinning import device_variable, forget_devices, list_node_gpus
from hpcxrf.cluster.job.worker_checks import find_faults
from hpcxrf.cluster.job.worker_ends import last_error, worker_end
from hpcxrf.cluster.job.worker_terms import read_terms, remove_secrets, worker_facts, write_facts, write_terms
from hpcxrf.cluster.security import temporary_security
from hpcxrf.errors import ConfigError, OutputError, SlurmError
from tests.samples.job_samples import REQUEST, TERMS, worker

# ---- workers that do not start


def test_a_worker_without_a_scheduler_gives_up_and_says_which(run):
    write_terms(run, TERMS, temporary_security())
    process = worker(run)
    shown, _ = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "did not register with the scheduler at tls://127.0.0.1:1 within 2 s" in shown
    assert "worker_start_s of the site profile allows more time" in worker_end(run, "w-0").sentence


def test_a_worker_of_a_run_without_a_driver_has_nothing_to_do(run):
    process = worker(run)
    shown, _ = process.communicate(timeout=240)
    assert process.returncode == OutputError.exit_code
    assert "no driver works on this run" in shown
    write_terms(run, TERMS, temporary_security())
    remove_secrets(run)
    with pytest.raises(OutputError, match="no driver works on this run"):
        read_terms(run)


@pytest.mark.parametrize("variable", ["CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"])
@pytest.mark.parametrize("seen", [None, "", "0,1", "0,1,2,3"])
def test_a_worker_that_is_not_given_exactly_one_gpu_refuses_and_says_what_it_saw(seen, variable):
    environment = {} if seen is None else {variable: seen}
    [fault] = find_faults(replace(TERMS, gpus=1), environment)
    assert ("CUDA_VISIBLE_DEVICES is not set" if seen is None else f"{variable} is {seen!r}") in str(fault)
    assert fault.exit_code == SlurmError.exit_code


def test_one_gpu_is_right_whatever_its_number_and_a_cpu_worker_takes_what_it_gets():
    one = replace(TERMS, gpus=1)
    assert find_faults(one, {"CUDA_VISIBLE_DEVICES": "3"}) == []
    assert find_faults(one, {"CUDA_VISIBLE_DEVICES": "GPU-8a"}) == []
    assert find_faults(one, {"ROCR_VISIBLE_DEVICES": "3"}) == []
    assert find_faults(TERMS, {"CUDA_VISIBLE_DEVICES": "0,1"}) == []


def test_on_an_amd_node_the_variable_of_rocm_decides_although_slurm_sets_both():
    both = {"CUDA_VISIBLE_DEVICES": "3", "ROCR_VISIBLE_DEVICES": "3"}
    assert device_variable(both, has_amd_driver=True) == "ROCR_VISIBLE_DEVICES"
    assert device_variable(both, has_amd_driver=False) == "CUDA_VISIBLE_DEVICES"
    assert device_variable({"CUDA_VISIBLE_DEVICES": "3"}, has_amd_driver=True) == "CUDA_VISIBLE_DEVICES"
    forget_devices(both)
    assert both == {}


def test_the_nodes_own_list_may_be_that_of_rocm():
    assert list_node_gpus(4, {"ROCR_VISIBLE_DEVICES": "GPU-a, GPU-b"}) == ["GPU-a", "GPU-b"]


@pytest.mark.parametrize("variable", ["CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"])
def test_a_node_with_fewer_gpus_than_the_profile_says_is_one_sentence(run, variable):
    write_terms(run, replace(TERMS, gpus=1), temporary_security())
    process = worker(run, "--node-gpu=3/4", **{variable: "0,1"})
    shown, _ = process.communicate(timeout=240)
    assert process.returncode == ConfigError.exit_code
    assert shown.count("error:") == 1
    end = worker_end(run, "w-0")
    assert end.is_final
    assert isinstance(end.error(), ConfigError)
    assert "GPU 3 of the node is not there: it lists 2 (0, 1), gpus_per_node of the site profile is 4" in end.sentence


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"scratch": "/not/there"}, "scratch /not/there is not a folder"),
        ({"scratch": "$NOT_SET/x"}, "scratch $NOT_SET/x is not a folder"),
        ({"interface": "ib7"}, "there is no network ib7 (but lo"),
        ({"driver_host": "node1"}, "the scheduler on node1 listens on 127.0.0.1:1, which other nodes cannot reach"),
    ],
)
def test_what_a_node_lacks_is_one_sentence_about_the_site_profile(run, change, sentence):
    write_terms(run, replace(TERMS, **change), temporary_security())
    process = worker(run)
    shown, _ = process.communicate(timeout=240)
    assert process.returncode == ConfigError.exit_code
    assert sentence in shown
    assert "site profile" in shown
    assert "Traceback" not in shown
    assert worker_end(run, "w-0").is_final


def test_scratch_may_be_named_by_a_variable_of_the_node(tmp_path, monkeypatch):
    monkeypatch.setenv("NODE_DISK", str(tmp_path))
    assert find_faults(replace(TERMS, scratch="$NODE_DISK"), {}) == []


def test_a_gpu_worker_that_torch_shows_no_gpu_registers_and_leaves_without_a_task(run, monkeypatch):
    # Slurm gives a GPU, but torch finds none: a torch without CUDA, say.
    monkeypatch.setenv("HPCXRF_PRETEND_GPUS", "0")
    registered = False
    with job_cluster(run, replace(REQUEST, gpus_per_worker=1), "1", lambda _text: None) as cluster:
        process = worker(run, CUDA_VISIBLE_DEVICES="0")
        task = cluster.client.submit(os.getpid)
        deadline = time.monotonic() + 240
        while process.poll() is None:
            registered = registered or bool(cluster.list_workers())
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert registered
        assert not task.done()
        assert process.returncode == ConfigError.exit_code
    process.stdout.close()
    end = worker_end(run, "w-0")
    assert "torch sees 0 GPUs (CUDA_VISIBLE_DEVICES=0), a worker must see 1" in end.sentence
    assert end.is_final


# ---- why a worker ended


def test_the_last_error_of_a_log_is_what_says_why():
    traceback = [
        "Traceback (most recent call last):",
        '  File "x.py", line 1',
        "ImportError: libcudart.so.12: not there",
    ]
    noise = ["srun: error: node1: task 0: Exited with exit code 1", "srun: Terminating StepId=7.1"]
    assert last_error([*traceback, *noise]) == "ImportError: libcudart.so.12: not there"
    assert last_error(["fine", "srun: error: node1: task 0: Out Of Memory", *noise]).endswith("Out Of Memory")
    assert last_error(["slurmstepd: execve(): apptainer: No such file or directory", *noise]).startswith("slurmstepd")
    assert last_error(["2026-01-01 - distributed.nanny - INFO - Start Nanny at: 'tls://x'"]) == ""
    assert last_error([]) == ""
    assert len(last_error(["Error " + "x" * 10000])) <= 400


def test_of_two_starts_the_log_of_the_second_counts_and_what_was_shown_is_not_shown_again(run):
    log = run.logs / "w-0.log"
    log.write_text("MemoryError: old\n")
    assert worker_end(run, "w-0").reason == "MemoryError: old"
    assert worker_end(run, "w-0", since=log.stat().st_size).reason == ""
    facts = replace(worker_facts("w-0", TERMS, None, {"SLURMD_NODENAME": "n1"}), fault="worker process 7 was killed")
    write_facts(run, facts)
    assert worker_end(run, "w-0").sentence == "w-0 on n1: worker process 7 was killed"
    assert worker_end(run, "w-0", quoted=facts.fault).reason == "MemoryError: old"


@pytest.mark.parametrize(
    ("module", "not_loaded"),
    [
        # A job whose run is finished asks for no workers.
        ("hpcxrf.cluster.job.__main__", {"torch", "distributed", "dask", "zarr", "xarray", "matplotlib"}),
        # It submits tasks that it never runs; its cores are the workers' while they start.
        ("hpcxrf.runner.driver", {"torch", "zarr", "xarray", "matplotlib"}),
        # A worker is known to the scheduler before it has loaded what tasks need.
        ("hpcxrf.cluster.job.worker_main", {"torch", "zarr", "xarray", "matplotlib"}),
        ("hpcxrf.pipeline.tasks", {"matplotlib"}),
    ],
)
def test_nothing_is_loaded_before_it_is_needed(module, not_loaded):
    code = f"import sys, {module}; print(' '.join(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {name.split(".")[0] for name in found.stdout.split()} & not_loaded
