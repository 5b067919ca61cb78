"""What runs inside a job, without Slurm: doors, terms, steps that die, tasks that hang, signals."""

import http.client
import itertools
import json
import os
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest
from distributed import Security

from hpcxrf.cluster.job.cluster import WorkerSight, job_cluster
from hpcxrf.cluster.job.elastic import ASK_S, MOST_IN_VAIN, SlurmCalls, WorkerJobs, script_options, worker_script
from hpcxrf.cluster.job.network import address_options
from hpcxrf.cluster.job.pace import update_paces
from hpcxrf.cluster.job.pinning import device_variable, forget_devices, list_node_gpus
from hpcxrf.cluster.job.signals import job_signals
from hpcxrf.cluster.job.steps import MOST_DEATHS, Step, StepWorkers, allocation_steps, step_command
from hpcxrf.cluster.job.watch import Watcher
from hpcxrf.cluster.job.worker_checks import find_faults
from hpcxrf.cluster.job.worker_ends import MOST_STARTING, last_error, worker_end
from hpcxrf.cluster.job.worker_terms import (
    WorkerTerms,
    read_facts,
    read_terms,
    remove_secrets,
    worker_facts,
    write_facts,
    write_terms,
)
from hpcxrf.cluster.job_files import JobRequest, append_event, read_progress
from hpcxrf.cluster.security import temporary_security
from hpcxrf.cluster.slurm import JobState
from hpcxrf.errors import ConfigError, OutputError, SlurmError
from hpcxrf.store.lock import LockHolder, read_lock, run_lock
from hpcxrf.store.rundir import create_or_resume

REQUEST = JobRequest(
    site="test",
    mode="allocation",
    workers=2,
    threads_per_worker=1,
    gpus_per_worker=0,
    memory_per_worker_mb=900,
    interface="lo",
    scratch=None,
    setup=("module load x",),
    worker_options=("--partition=main", "--time=00:10:00"),
    time_limit_s=600,
    drain_s=30,
    requeue=True,
    dashboard=True,
    insecure=False,
)
TERMS = WorkerTerms(
    scheduler="tls://127.0.0.1:1",
    driver_host=socket.gethostname(),
    threads=1,
    gpus=0,
    pretend_gpus=False,
    memory_bytes=900 * 2**20,
    interface="lo",
    scratch=None,
    worker_start_s=2.0,
    tls=True,
)


@pytest.fixture
def run(tmp_path):
    return create_or_resume(tmp_path / "run", "{}", {})


def worker(run, *more, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "hpcxrf.cluster.job.worker_main", "--run", str(run.path), "--name", "w-0", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"} | environment,
    )


# ---- doors


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    run = create_or_resume(tmp_path_factory.mktemp("doors") / "run", "{}", {})
    with job_cluster(run, REQUEST, "1", lambda _text: None) as cluster:
        process = worker(run)
        deadline = time.monotonic() + 240
        while not (sight := cluster.list_workers()):
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield SimpleNamespace(cluster=cluster, run=run, process=process, sight=sight)
    assert process.wait(30) == 0
    process.stdout.close()


def ports(running) -> list[int]:
    """Scheduler, supervisor and worker, their HTTP servers apart."""
    info = running.cluster.client.scheduler_info(n_workers=-1)
    [facts] = info["workers"].values()
    addresses = [info["address"], facts["nanny"], running.sight[0].address]
    return [int(address.rsplit(":", 1)[1]) for address in addresses]


def first_bytes(port: int, context: ssl.SSLContext | None) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        if context is None:
            plain.sendall(b"\x00" * 64)
            return plain.recv(64)
        with context.wrap_socket(plain) as secure:
            return secure.recv(64)


def test_without_a_certificate_every_port_refuses_at_once(running):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    for port in ports(running):
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            first_bytes(port, context)


def test_a_foreign_certificate_is_refused_at_once(running):
    context = temporary_security().get_connection_args("client")["ssl_context"]
    context.verify_mode = ssl.CERT_NONE
    for port in ports(running):
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            first_bytes(port, context)


def test_plain_tcp_is_refused_at_once(running):
    for port in ports(running):
        try:
            assert first_bytes(port, None) == b""
        except ConnectionResetError:
            continue


def test_the_files_for_workers_open_the_doors_and_nothing_of_them_is_on_a_command_line(running):
    terms, files = read_terms(running.run)
    context = Security(**files, require_encryption=True).get_connection_args("worker")["ssl_context"]
    port = int(terms.scheduler.rsplit(":", 1)[1])
    assert first_bytes(port, context)
    shown = " ".join(psutil.Process(running.process.pid).cmdline())
    assert terms.scheduler not in shown
    assert "PRIVATE KEY" not in shown
    assert json.loads((running.run.secrets / "dashboard.json").read_text())["token"] not in shown


def test_everything_listens_on_one_address_and_the_http_of_workers_is_closed(running):
    root = psutil.Process(running.process.pid)
    mine = [psutil.Process(), root, *root.children(recursive=True)]
    listening = [c.laddr for p in mine for c in p.net_connections("tcp") if c.status == "LISTEN"]
    assert {address.ip for address in listening} == {"127.0.0.1"}
    [facts] = running.cluster.client.scheduler_info(n_workers=-1)["workers"].values()
    for path in ("/", "/health", "/status", "/metrics", "/json/counts.json"):
        assert answer(facts["services"]["dashboard"], path) == 404


def answer(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_dashboard_of_a_job_answers_below_its_secret_path_only(running):
    told = json.loads((running.run.secrets / "dashboard.json").read_text())
    for page in ("", "status", "health", "metrics", "info/main/workers.html", "sitemap.json"):
        assert answer(told["port"], f"/{page}") == 404
    for page in ("status", "health", "metrics"):
        assert answer(told["port"], f"/{told['token']}/{page}") == 200


def test_a_worker_says_where_it_is(running):
    facts = read_facts(running.run)["w-0"]
    assert (facts.pid, facts.host, facts.fault) == (running.process.pid, socket.gethostname(), None)
    assert running.sight[0].name == "w-0"


def test_with_the_driver_its_secrets_go(run):
    with job_cluster(run, REQUEST, "1", lambda _text: None):
        assert (run.secrets / "workers" / "key.pem").exists()
        assert (run.secrets / "dashboard.json").exists()
    assert list(run.secrets.iterdir()) == []


def test_a_start_removes_the_keys_that_a_killed_driver_left(run):
    run.secrets.mkdir(mode=0o700, exist_ok=True)
    (run.secrets / ".dask-jobqueue.worker.key.x1y2").write_text("of version 0.1.0")
    (run.secrets / ".dashboard.json.123").write_text("half-written")
    write_terms(run, TERMS, temporary_security())
    before = (run.secrets / "workers" / "key.pem").read_text()
    with job_cluster(run, replace(REQUEST, mode="elastic"), "1", lambda _text: None):
        assert sorted(f.name for f in run.secrets.iterdir()) == ["dashboard.json", "workers"]
        assert (run.secrets / "workers" / "key.pem").read_text() != before
    assert list(run.secrets.iterdir()) == []


def test_plain_tcp_is_there_when_asked_for_and_said_loudly(run):
    said = []
    with job_cluster(run, replace(REQUEST, insecure=True), "1", said.append) as cluster:
        assert cluster.cluster.scheduler_address.startswith("tcp://127.0.0.1:")
        assert not (run.secrets / "workers" / "key.pem").exists()
    assert "insecure" in said[0]


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


def test_a_worker_process_that_is_killed_leaves_word_how(running):
    [before] = running.cluster.list_workers()
    nanny = psutil.Process(running.process.pid)
    [child] = [c for c in nanny.children() if "resource_tracker" not in " ".join(c.cmdline())]
    child.kill()
    wait_until(lambda: [w.address for w in running.cluster.list_workers()] not in ([before.address], []))
    assert worker_end(running.run, "w-0").reason == f"worker process {child.pid} was killed by signal 9"


# ---- steps


def steps_of(run, command, alarms, clock, names=("w-0",)):
    return StepWorkers(
        run=run,
        steps=[Step(name) for name in names],
        command=lambda _name: command,
        environment=os.environ,
        alarm=alarms.append,
        start_s=300.0,
        clock=clock,
    )


def test_a_step_that_ends_again_and_again_is_given_up_after_longer_and_longer_pauses(run):
    now, alarms, starts = [0.0], [], []
    steps = steps_of(run, ["sh", "-c", "echo OSError: no GPU today; exit 3"], alarms, lambda: now[0])
    while steps.end_error() is None:
        steps.supervise({})
        process = steps.steps[0].process
        if process is not None:
            starts.append(now[0])
            process.wait()
            steps.supervise({})
        now[0] += 0.25
        assert now[0] < 200
    assert len(starts) == MOST_DEATHS == len(alarms)
    pauses = [b - a for a, b in itertools.pairwise(starts)]
    assert pauses == sorted(pauses)
    assert pauses[0] < 1.5
    assert pauses[-1] >= 8
    assert alarms[0] == "w-0: OSError: no GPU today; its step ended with 3 (logs/w-0.log) and is started again"
    assert "it is given up" in alarms[-1]
    assert str(steps.end_error()) == "w-0: OSError: no GPU today"


def test_a_step_that_worked_for_long_has_all_its_lives_again(run):
    now, alarms = [0.0], []
    steps = steps_of(run, ["true"], alarms, lambda: now[0])
    for _ in range(3 * MOST_DEATHS):
        steps.supervise({"w-0": "tls://1"})
        steps.steps[0].process.wait()
        now[0] += 1000.0
        steps.supervise({"w-0": "tls://1"})
        now[0] += 100.0
    assert steps.end_error() is None


def test_a_step_whose_fault_another_start_would_not_mend_is_not_started_again(run):
    alarms = []
    steps = steps_of(run, ["true"], alarms, time.monotonic, names=("w-0", "w-1"))
    steps.supervise({})
    for name in ("w-0", "w-1"):
        facts = worker_facts(name, TERMS, None, {"SLURMD_NODENAME": "n1"})
        write_facts(run, replace(facts, fault="scratch /x is not a folder", exit_code=2, is_final=True))
    for step in steps.steps:
        step.process.wait()
    steps.supervise({})
    error = steps.end_error()
    assert isinstance(error, ConfigError)
    assert str(error) == "w-1 on n1: scratch /x is not a folder"
    assert [alarm.endswith("it is given up") for alarm in alarms] == [True, True]
    assert all(step.process is None for step in steps.steps)


def test_a_step_whose_worker_is_not_heard_of_is_ended(run):
    now, alarms = [0.0], []
    steps = steps_of(run, ["sleep", "600"], alarms, lambda: now[0])
    steps.supervise({})
    process = steps.steps[0].process
    now[0] = 299.0
    steps.supervise({"w-0": "tls://1"})
    now[0] = 598.0
    steps.supervise({})
    assert process.poll() is None
    now[0] = 600.0
    steps.supervise({})
    assert process.wait(10) == -signal.SIGKILL
    assert "has not heard of it for 300 s" in alarms[0]


def test_another_process_of_a_worker_is_an_alarm_with_the_reason(run):
    alarms = []
    steps = steps_of(run, ["sleep", "600"], alarms, time.monotonic)
    steps.supervise({})
    steps.supervise({"w-0": "tls://1"})
    steps.supervise({"w-0": "tls://1"})
    assert alarms == []
    write_facts(run, replace(worker_facts("w-0", TERMS, None, {}), fault="worker process 7 was killed by signal 9"))
    steps.supervise({"w-0": "tls://2"})
    steps.supervise({"w-0": "tls://2"})
    steps.end(patience_s=0.2)
    assert len(alarms) == 1
    assert "worker process 7 was killed by signal 9; its supervisor has started another process" in alarms[0]


def test_steps_start_in_waves(run):
    names = [f"w-{number}" for number in range(2 * MOST_STARTING + 5)]
    steps = steps_of(run, ["sleep", "600"], [], time.monotonic, names)

    def started():
        return [step.name for step in steps.steps if step.process is not None]

    try:
        for _ in range(3):
            steps.supervise({})
        assert started() == names[:MOST_STARTING]
        known = {name: f"tls://{name}" for name in names[:10]}
        steps.supervise(known)
        assert started() == names[: MOST_STARTING + 10]
        steps.supervise({name: f"tls://{name}" for name in started()})
        steps.supervise({name: f"tls://{name}" for name in started()})
        assert started() == names
    finally:
        steps.end(patience_s=0.2)


def test_steps_are_ended_at_the_end(run):
    steps = steps_of(run, ["sleep", "600"], [], time.monotonic)
    steps.supervise({})
    steps.end(patience_s=0.2)
    assert steps.steps[0].process.returncode == -signal.SIGTERM


def test_a_log_that_cannot_be_written_is_a_word_about_the_run_directory(run):
    run.logs.rmdir()
    run.logs.symlink_to("/proc/self/attr")
    steps = steps_of(run, ["true"], [], time.monotonic)
    with pytest.raises(OutputError, match="cannot be written"):
        steps.supervise({})


def test_the_command_of_a_step_pins_one_gpu_and_names_no_secret(tmp_path):
    words = step_command(replace(REQUEST, gpus_per_worker=1), tmp_path / "a b", "w-1")
    assert words[:8] == [
        "srun",
        "--exact",
        "--nodes=1",
        "--ntasks=1",
        "--cpus-per-task=1",
        "--mem=900M",
        "--gpus-per-task=1",
        "--job-name=worker",
    ]
    assert words[-4:] == ["--run", str(tmp_path / "a b"), "--name", "w-1"]
    assert "--gpus-per-task=1" not in step_command(REQUEST, tmp_path, "w-1")


def test_a_launcher_wraps_the_worker_and_not_srun(tmp_path):
    launcher = ("apptainer", "exec", "--nv", "my image.sif")
    request = replace(REQUEST, launcher=launcher, worker_python="python3", gpu_options=("--gres=gpu:a100:1",))
    words = step_command(replace(request, gpus_per_worker=1), tmp_path, "w-1")
    assert words[0] == "srun"
    assert "--gres=gpu:a100:1" in words
    start = words.index("apptainer")
    assert words[start : start + 7] == [*launcher, "python3", "-m", "hpcxrf.cluster.job.worker_main"]
    script = worker_script(tmp_path, replace(request, mode="elastic"), "worker-3")
    last = shlex.split(script.strip().splitlines()[-1])
    assert last[:7] == [*launcher, "python3", "-m", "hpcxrf.cluster.job.worker_main"]


def test_workers_of_whole_nodes_have_a_node_and_a_number_on_it(run, tmp_path, monkeypatch):
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text('#!/bin/sh\n[ "$*" = "show hostnames n[1-2]" ] && printf "n1\\nn2\\n"\n')
    scontrol.chmod(0o700)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    request = replace(REQUEST, gpus_per_worker=1, gpu_options=(), node_gpus=2, workers=4)
    environment = {"SLURM_JOB_NODELIST": "n[1-2]"}
    steps = allocation_steps(run, request, "7", environment, print, print)
    where = []
    for step in steps.steps:
        words = steps.command(step.name)
        assert not any(word.startswith(("--gpus", "--gres")) for word in words)
        [node] = [word for word in words if word.startswith("--nodelist=")]
        where.append((node, *[word for word in words if word.startswith("--node-gpu")]))
    assert sorted(where) == [(f"--nodelist=n{n}", f"--node-gpu={gpu}/2") for n in (1, 2) for gpu in (0, 1)]


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


# ---- elastic


def test_a_worker_job_is_requested_as_the_site_says_and_quotes_the_folder(tmp_path):
    folder = tmp_path / "it's 100% $(here)"
    request = replace(REQUEST, mode="elastic", gpus_per_worker=1)
    script = worker_script(folder, request, "worker-0")
    assert "#SBATCH --partition=main" in script
    assert "#SBATCH --gpus-per-task=1" in script
    assert "#SBATCH --mem=900M" in script
    assert "module load x" in script
    assert script.startswith("#!/bin/bash -l\n")
    words = shlex.split(script.strip().splitlines()[-1])
    assert words[1:3] == ["-m", "hpcxrf.cluster.job.worker_main"]
    assert words[words.index("--run") + 1] == str(folder)
    assert words[words.index("--name") + 1] == "worker-0"
    log = f"{tmp_path}/it's 100%% $(here)/logs/worker-job-%j.log"
    assert script_options(folder) == [f"--chdir={folder}", f"--output={log}"]


def test_a_worker_job_has_nothing_of_a_jobqueue_yaml(tmp_path):
    import dask

    request = replace(REQUEST, mode="elastic")
    theirs = {"queue": "other", "account": "other", "walltime": "9:99:99"}
    with dask.config.set({f"jobqueue.slurm.{name}": value for name, value in theirs.items()}):
        assert "other" not in worker_script(tmp_path, request, "worker-0")
        assert "9:99:99" not in worker_script(tmp_path, request, "worker-0")


class FakeSlurm:
    """Jobs of a Slurm that can be told what becomes of them, and that counts what it is asked."""

    def __init__(self):
        self.states, self.names, self.asked, self.cancelled = {}, {}, [], []
        self.refuses, self.silent, self.first_state = False, False, "PENDING"

    def submit(self, name):
        if self.refuses:
            raise SlurmError("sbatch: error: QOSMaxSubmitJobPerUserLimit")
        job_id = str(100 + len(self.states))
        self.states[job_id], self.names[name] = self.first_state, job_id
        return job_id

    def ask(self, job_ids):
        self.asked.append(list(job_ids))
        if self.silent:
            raise SlurmError("squeue: no answer in 30 s")
        usual = {"reason": "None", "start": "N/A", "nodes": "n1", "elapsed": "0:01"}
        return {i: JobState(job_id=i, state=self.states[i], **usual) for i in job_ids if self.states[i] is not None}

    def cancel(self, job_ids):
        if job_ids:
            self.cancelled.append(list(job_ids))


def worker_jobs(run, wanted=3):
    now, alarms, slurm = [0.0], [], FakeSlurm()
    jobs = WorkerJobs(
        run=run,
        wanted=wanted,
        calls=SlurmCalls(submit=slurm.submit, states=slurm.ask, cancel=slurm.cancel),
        alarm=alarms.append,
        start_s=300.0,
        clock=lambda: now[0],
    )
    (run.path / "jobs").mkdir(exist_ok=True)
    return jobs, slurm, now, alarms


def known(*names):
    return {name: f"tls://{name}" for name in names}


def test_a_worker_job_that_slurm_ended_is_replaced_and_no_other(run):
    jobs, slurm, now, alarms = worker_jobs(run)
    jobs.supervise({})
    assert list(jobs.jobs) == ["worker-0", "worker-1", "worker-2"]
    now[0] = 20.0
    jobs.supervise(known("worker-0", "worker-1"))
    assert alarms == []
    slurm.states[slurm.names["worker-1"]] = "FAILED"
    now[0] = 40.0
    jobs.supervise(known("worker-0"))
    assert list(jobs.jobs) == ["worker-0", "worker-2", "worker-3"]
    assert alarms == ["worker-1; its job has ended (FAILED), another is submitted"]
    now[0] = 60.0
    jobs.supervise(known("worker-0", "worker-2", "worker-3"))
    assert list(jobs.jobs) == ["worker-0", "worker-2", "worker-3"]
    recorded = [json.loads(line) for line in (run.path / "jobs" / "worker-jobs.jsonl").read_text().splitlines()]
    assert {line["name"]: line["job_id"] for line in recorded} == slurm.names


def test_one_call_of_squeue_every_ten_seconds_is_for_all_jobs_whose_worker_is_unknown(run):
    jobs, slurm, now, _ = worker_jobs(run, wanted=200)
    for tick in range(400):
        now[0] = 0.25 * tick
        jobs.supervise({})
    assert len(jobs.jobs) == 200
    assert len(slurm.asked) == 10
    assert sorted(slurm.asked[-1]) == sorted(slurm.states)
    # When everybody works there is nothing to ask.
    for tick in range(400, 800):
        now[0] = 0.25 * tick
        jobs.supervise(known(*jobs.jobs))
    assert len(slurm.asked) == 10


def test_worker_jobs_start_in_waves_but_those_that_wait_for_room_do_not_count(run):
    jobs, slurm, now, _ = worker_jobs(run, wanted=100)
    slurm.first_state = "RUNNING"
    for tick in range(100):
        now[0] = 0.25 * tick
        jobs.supervise({})
    assert len(jobs.jobs) == MOST_STARTING
    for tick in range(100, 140):
        now[0] = 0.25 * tick
        jobs.supervise(known(*list(slurm.names)[:20]))
    assert len(jobs.jobs) == MOST_STARTING + 20
    for name in slurm.names.values():
        slurm.states[name] = "PENDING"
    for tick in range(140, 240):
        now[0] = 0.25 * tick
        jobs.supervise(known(*list(slurm.names)[:20]))
    assert len(jobs.jobs) > MOST_STARTING + 40


def test_a_slurm_that_is_silent_says_nothing_of_the_workers(run):
    jobs, slurm, now, alarms = worker_jobs(run)
    jobs.supervise({})
    slurm.silent = True
    for step in range(100):
        now[0] = 11.0 * step
        jobs.supervise({})
    assert (len(jobs.jobs), alarms, jobs.end_error()) == (3, [], None)


def test_worker_jobs_that_sbatch_refuses_are_submitted_again_and_given_up_after_long(run):
    jobs, slurm, now, alarms = worker_jobs(run)
    slurm.refuses = True
    for step in range(200):
        now[0] = 11.0 * step
        jobs.supervise(known("elsewhere") if step == 100 else {})
        assert jobs.end_error() is None or step > 200 - 40
    # One sentence, not two hundred.
    assert alarms == [
        f"worker-0: sbatch refused its job (sbatch: error: QOSMaxSubmitJobPerUserLimit); it is submitted again every "
        f"{ASK_S:g} s"
    ]
    now[0] += 2000.0
    assert "QOSMaxSubmitJobPerUserLimit" in str(jobs.end_error())
    assert jobs.end_error().exit_code == SlurmError.exit_code


def test_worker_jobs_that_end_before_they_work_are_given_up_with_the_reason(run):
    jobs, slurm, now, alarms = worker_jobs(run)
    for step in range(200):
        now[0] = 11.0 * step
        jobs.supervise({})
        for job_id in slurm.states:
            slurm.states[job_id] = "FAILED"
            (run.logs / f"worker-job-{job_id}.log").write_text("bash: line 9: module: command not found\n")
        if jobs.end_error() is not None:
            break
    assert "module: command not found" in str(jobs.end_error())
    assert len(alarms) == 3 * MOST_IN_VAIN
    made = jobs.made
    now[0] += 1000.0
    jobs.supervise({})
    assert jobs.made == made


def test_a_node_that_ends_every_job_does_not_end_the_run_of_those_who_work(run):
    jobs, slurm, now, _ = worker_jobs(run)
    for step in range(200):
        now[0] = 11.0 * step
        jobs.supervise(known("worker-0"))
        for job_id in list(slurm.states)[1:]:
            slurm.states[job_id] = "FAILED"
    assert jobs.end_error() is None
    assert jobs.made <= 1 + 3 * MOST_IN_VAIN + 2
    now[0] += 11.0
    jobs.supervise({})
    assert jobs.end_error() is not None


def test_a_fault_that_another_job_would_have_too_ends_the_run_without_another_job(run):
    jobs, slurm, now, _ = worker_jobs(run)
    jobs.supervise({})
    for name, job_id in slurm.names.items():
        facts = worker_facts(name, TERMS, None, {"SLURMD_NODENAME": "n1"})
        write_facts(run, replace(facts, fault="scratch /x is not a folder", exit_code=2, is_final=True))
        slurm.states[job_id] = "FAILED"
    now[0] = 11.0
    jobs.supervise({})
    assert str(jobs.end_error()) == "worker-2 on n1: scratch /x is not a folder"
    assert jobs.end_error().exit_code == 2
    assert jobs.made == 3


def test_a_job_whose_worker_never_comes_is_cancelled_after_its_window(run):
    jobs, slurm, now, alarms = worker_jobs(run, wanted=1)
    jobs.supervise({})
    # However long it waits in the queue.
    now[0] = 5000.0
    jobs.supervise({})
    assert slurm.cancelled == []
    slurm.states["100"] = "RUNNING"
    for seconds in (5010.0, 5200.0, 5309.0):
        now[0] = seconds
        jobs.supervise({})
    assert alarms == []
    now[0] = 5320.0
    jobs.supervise({})
    assert slurm.cancelled[-1] == ["100"]
    assert "has not heard of it for 300 s" in alarms[0]


def test_only_a_job_that_failed_by_itself_is_held_against_its_tasks(run):
    jobs, slurm, now, _ = worker_jobs(run, wanted=4)
    forgiven = []
    jobs.forgive = forgiven.append
    jobs.supervise({})
    ends = ["NODE_FAIL", "PREEMPTED", "FAILED", "OUT_OF_MEMORY"]
    slurm.states = dict(zip(slurm.states, ends, strict=True))
    now[0] = 11.0
    jobs.supervise({})
    assert forgiven == ["worker-0", "worker-1"]


def test_a_job_that_cannot_be_recorded_is_cancelled_and_ends_the_run(run):
    jobs, slurm, _, _ = worker_jobs(run)
    (run.path / "jobs" / "worker-jobs.jsonl").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        jobs.supervise({})
    assert slurm.cancelled == [["100"]]
    assert len(slurm.states) == 1


def test_at_the_end_one_scancel_is_for_all_jobs(run):
    jobs, slurm, _, _ = worker_jobs(run)
    jobs.supervise({})
    jobs.end()
    assert slurm.cancelled == [["100", "101", "102"]]


# ---- the watcher


class FakeCluster:
    def __init__(self, *sights):
        self.sights, self.restarted, self.error = list(sights), [], None

    def list_workers(self):
        return self.sights

    def supervise_workers(self, known):
        self.known = known

    def end_error(self):
        return self.error

    def restart(self, address):
        self.restarted.append(address)


def sight(name="w-0", status="running", at_work=()):
    return WorkerSight(address=f"tls://{name}", name=name, status=status, at_work=frozenset(at_work))


def wait_until(condition):
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def watcher(run):
    watcher = Watcher(run, job_id="7", workers_wanted=2, task_limit_s=0.6)
    yield watcher
    watcher.stop()


def test_a_task_beyond_its_time_ends_its_worker_once_and_no_other(watcher):
    cluster = FakeCluster(sight("slow", at_work=["pixels-1"]), sight("quick"))
    watcher.start(cluster)
    wait_until(lambda: cluster.restarted)
    cluster.sights = [sight("quick")]
    assert cluster.restarted == ["tls://slow"]
    assert "takes longer than 0.6 s" in watcher.progress().alarms[0]


def test_many_tasks_one_after_the_other_are_no_task_beyond_its_time(watcher):
    cluster = FakeCluster(sight())
    watcher.start(cluster)
    for number in range(8):
        cluster.sights = [sight(at_work=[f"pixels-{number}"])]
        time.sleep(0.3)
    assert cluster.restarted == []


def test_when_nobody_is_left_to_work_the_run_ends_with_a_word(watcher):
    cluster = FakeCluster()
    cluster.error = ConfigError("w-0 on n1: scratch /x is not a folder")
    watcher.start(cluster)
    wait_until(lambda: watcher.fault is not None)
    assert watcher.fault is cluster.error


def hang(name="w-0", **changes):
    return WorkerSight(**({"address": f"tls://{name}", "name": name, "status": "running"} | changes))


def test_a_task_that_neither_computes_nor_reads_is_an_alarm_and_one_that_works_for_hours_is_none():
    paces, now, stalled_s = {}, 0.0, 60.0
    at_work = frozenset({"pixels-3"})
    troubles = {}
    for second in range(4000):
        now = float(second)
        workers = [
            # Talking to the scheduler costs CPU, too.
            hang("hangs", at_work=at_work, busy_s=0.01 * now, io_bytes=int(8e3 * now)),
            hang("computes", at_work=at_work, busy_s=0.2 * now),
            hang("reads", at_work=at_work, busy_s=0.01 * now, io_bytes=int(5e5 * now)),
            hang("idle"),
            hang("many", at_work=frozenset({f"pixels-{second // 30}"})),
        ]
        paces = update_paces(paces, workers, now)
        for pace in paces.values():
            if (trouble := pace.trouble(now, stalled_s)) is not None:
                troubles.setdefault(pace.worker.name, (now, trouble))
    assert list(troubles) == ["hangs"]
    began, sentence = troubles["hangs"]
    assert 60 < began < 63
    assert sentence == f"hangs makes no progress for {began:.0f} s in pixels-3: it neither computes nor reads"


def test_a_worker_that_sends_no_heartbeat_is_an_alarm_although_it_was_busy():
    paces = update_paces({}, [hang(at_work=frozenset({"a"}), silent_s=0.3)], 0.0)
    paces = update_paces(paces, [hang(at_work=frozenset({"a"}), silent_s=61.0)], 61.0)
    assert "has sent no heartbeat for 61 s" in paces["tls://w-0"].trouble(61.0, 60.0)


def test_a_stalled_worker_is_named_in_the_account_as_long_as_it_stalls(run, capfd):
    watcher = Watcher(run, job_id="7", workers_wanted=1, task_limit_s=600.0, stalled_s=0.3)
    cluster, log = FakeCluster(hang(at_work=frozenset({"pixels-3"}))), []
    try:
        watcher.start(cluster)
        wait_until(lambda: any("w-0 makes no progress" in alarm for alarm in watcher.progress().alarms))
        wait_until(lambda: log.append(capfd.readouterr().err) or "w-0 makes no progress" in "".join(log))
        cluster.sights = [hang(at_work=frozenset({"pixels-4"}))]
        wait_until(lambda: not watcher.progress().alarms)
    finally:
        watcher.stop()
    assert "".join([*log, capfd.readouterr().err]).count("w-0 makes no progress") == 1


def test_of_many_stalled_workers_some_are_named_and_all_are_counted(run):
    watcher = Watcher(run, job_id="7", workers_wanted=1, task_limit_s=600.0, stalled_s=0.1)
    try:
        watcher.start(FakeCluster(*[hang(f"w-{n}", at_work=frozenset({"a"})) for n in range(50)]))
        wait_until(lambda: len(watcher.progress().alarms) > 2)
        alarms = watcher.progress().alarms
    finally:
        watcher.stop()
    assert len(alarms) == 9
    assert alarms[-1] == "42 more workers make no progress"


def test_the_heartbeat_of_a_worker_tells_what_its_task_spends(running):
    def spend(seconds):
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass

    [before] = running.cluster.list_workers()
    running.cluster.client.submit(spend, 1.0, pure=False).result(timeout=60)
    wait_until(lambda: running.cluster.list_workers()[0].busy_s > before.busy_s + 0.7)
    assert running.cluster.list_workers()[0].silent_s < 10


def test_a_run_directory_that_takes_nothing_for_long_ends_the_run_with_that_word(run, capfd):
    watcher = Watcher(run, job_id="7", workers_wanted=1, task_limit_s=600.0, unwritable_s=0.2)
    (run.path / "jobs").mkdir(exist_ok=True)
    (run.path / "jobs" / "progress.json").mkdir()
    (run.path / "jobs" / "progress.json" / "x").touch()
    watcher.account()
    assert watcher.fault is None
    time.sleep(0.3)
    watcher.account()
    watcher.account()
    assert isinstance(watcher.fault, OutputError)
    assert capfd.readouterr().err.count("alarm:") == 1


def test_the_last_alarms_are_in_the_account_that_stays(run, watcher):
    watcher.start(FakeCluster())
    watcher.alarm("w-0 on n1: MemoryError")
    watcher.stop()
    assert "w-0 on n1: MemoryError" in read_progress(run).alarms


def test_the_account_counts_what_the_driver_told(watcher, run):
    watcher.count.units({"ingest": 1, "pixels": 4})
    watcher.count.units({"ingest": 1, "pixels": 5})
    for event in ("planned", "failed", "planned", "begun", "planned", "begun"):
        watcher.count.dataset(event)
    watcher.count.task("ingest", 0, ok=True, found=True)
    watcher.count.task("pixels", 50, ok=True, found=False)
    watcher.count.task("pixels", 0, ok=False, found=False)
    watcher.count.task("pixels", 0, ok=False, found=False, tried=False)
    watcher.count.dataset("ended")
    watcher.count.dataset("done")
    watcher.account()
    told = read_progress(run)
    assert (told.datasets, told.datasets_done, told.datasets_failed, told.datasets_running) == (3, 1, 1, 1)
    assert told.stages["pixels"].done == told.stages["pixels"].failed == told.stages["pixels"].not_tried == 1
    assert (told.stages["pixels"].total, told.stages["ingest"].total) == (9, 2)
    assert told.stages["pixels"].pixels == 50
    assert told.stages["ingest"].done == 1
    assert told.workers_wanted == 2


def test_status_shows_why_workers_died_although_the_driver_has_ended(run, watcher, hpcxrf):
    append_event(run, "started", job_id="7", host="n1", pid=1, restart_count=0)
    watcher.start(FakeCluster())
    watcher.alarm("w-0 on n1: MemoryError; its step ended with 1")
    watcher.stop()
    append_event(run, "ended", job_id="7", host="n1", exit_code=2, reason="w-0 on n1: scratch /x is not a folder")
    shown = " ".join(hpcxrf("status", run.path).out.split())
    assert "w-0 on n1: MemoryError" in shown
    assert "scratch /x is not a folder" in shown


# ---- signals, locks


def test_usr1_asks_to_drain_and_term_leaves_once():
    with job_signals() as signals:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signals.draining
        assert not signals.drained(60.0)
        assert signals.drained(0.0)
        with pytest.raises(SystemExit) as left:
            signal.raise_signal(signal.SIGTERM)
        assert left.value.code == 75
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_when_all_is_closed_term_is_only_noted():
    with job_signals() as signals:
        signals.patient = True
        signal.raise_signal(signal.SIGTERM)
        assert signals.terminated


def held(host, job_id):
    return LockHolder(host=host, pid=1, process_start="", job_id=job_id, restart_count=0)


@pytest.mark.parametrize(("ended", "taken"), [(True, True), (False, False), (None, False)])
def test_a_lock_of_another_host_falls_when_slurm_says_that_its_job_has_ended(run, ended, taken):
    own = held("node2", "12")
    guard = run_lock(run, held("node1", "11"))
    guard.__enter__()
    second = run_lock(run, own, job_ended={"11": ended}.get)
    if taken:
        with second:
            assert read_lock(run.lock_file) == own
    else:
        with pytest.raises(OutputError, match=r"host node1, pid 1, Slurm job 11.*remove"):
            second.__enter__()


def test_a_host_whose_name_has_no_address_is_told_how_to_help(monkeypatch):
    def unknown(_host):
        raise OSError("Name or service not known")

    monkeypatch.setattr(socket, "gethostbyname", unknown)
    with pytest.raises(ConfigError, match="interface: ib0"):
        address_options(None)
    assert address_options("ib0") == {"interface": "ib0"}


def test_a_loopback_address_is_refused_where_other_nodes_must_reach_it(monkeypatch):
    monkeypatch.setattr(socket, "gethostbyname", lambda _host: "127.0.1.1")
    assert address_options(None) == {"host": "127.0.1.1"}
    with pytest.raises(ConfigError, match=r"means 127\.0\.1\.1, which other nodes cannot reach.*interface: ib0"):
        address_options(None, several_nodes=True)
