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
from hpcxrf.cluster.job.elastic import MOST_IN_VAIN, WorkerJobs, job_options
from hpcxrf.cluster.job.network import address_options
from hpcxrf.cluster.job.signals import job_signals
from hpcxrf.cluster.job.steps import MOST_DEATHS, Step, Steps, step_command
from hpcxrf.cluster.job.watch import Watcher
from hpcxrf.cluster.job.worker_terms import WorkerTerms, read_facts, read_terms, remove_terms, worker_facts, write_terms
from hpcxrf.cluster.job_files import JobRequest, read_progress
from hpcxrf.cluster.security import temporary_security
from hpcxrf.errors import HpcxrfError, OutputError
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
    threads=1,
    gpus=0,
    pretend_gpus=False,
    memory_bytes=900 * 2**20,
    interface="lo",
    scratch=None,
    death_timeout_s=2.0,
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
        # As dask-jobqueue gives it further arguments, which it does not read.
        process = worker(run, "--nthreads", "7")
        deadline = time.monotonic() + 60
        while not (sight := cluster.sight()):
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
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
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
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "did not start with the scheduler at tls://127.0.0.1:1 within 2 s" in said


def test_a_worker_of_a_run_without_a_driver_has_nothing_to_do(run):
    process = worker(run)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == OutputError.exit_code
    assert "no driver works on this run" in said
    write_terms(run, TERMS, temporary_security())
    remove_terms(run)
    with pytest.raises(OutputError, match="no driver works on this run"):
        read_terms(run)


@pytest.mark.parametrize("seen", [None, "", "0,1", "0,1,2,3"])
def test_a_worker_that_is_not_given_exactly_one_gpu_refuses_and_says_what_it_saw(seen):
    environment = {} if seen is None else {"CUDA_VISIBLE_DEVICES": seen}
    fault = worker_facts("w", replace(TERMS, gpus=1), environment).fault
    assert fault is not None
    assert ("is not set" if seen is None else repr(seen)) in fault


def test_one_gpu_is_right_whatever_its_number_and_a_cpu_worker_takes_what_it_gets():
    one = replace(TERMS, gpus=1)
    assert worker_facts("w", one, {"CUDA_VISIBLE_DEVICES": "3"}).fault is None
    assert worker_facts("w", one, {"CUDA_VISIBLE_DEVICES": "GPU-8a"}).fault is None
    assert worker_facts("w", TERMS, {"CUDA_VISIBLE_DEVICES": "0,1"}).fault is None


def test_a_gpu_worker_that_torch_shows_no_gpu_does_not_start(run):
    write_terms(run, replace(TERMS, gpus=1), temporary_security())
    process = worker(run)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "CUDA_VISIBLE_DEVICES is not set" in said
    assert read_facts(run)["w-0"].fault is not None


# ---- steps


def steps_of(run, command, said, clock):
    return Steps(
        run=run,
        steps=[Step("w-0")],
        command=lambda _name: command,
        environment=os.environ,
        alarm=said.append,
        clock=clock,
    )


def test_a_step_that_ends_again_and_again_is_given_up_after_longer_and_longer_pauses(run):
    now, said, starts = [0.0], [], []
    steps = steps_of(run, ["false"], said, lambda: now[0])
    while not steps.all_given_up:
        steps.watch(set())
        process = steps.steps[0].process
        if process is not None:
            starts.append(now[0])
            process.wait()
            steps.watch(set())
        now[0] += 0.25
        assert now[0] < 200
    assert len(starts) == MOST_DEATHS == len(said)
    pauses = [b - a for a, b in itertools.pairwise(starts)]
    assert pauses == sorted(pauses)
    assert pauses[0] < 1.5
    assert pauses[-1] >= 8
    assert "it is given up" in said[-1]


def test_a_step_that_worked_for_long_has_all_its_lives_again(run):
    now, said = [0.0], []
    steps = steps_of(run, ["true"], said, lambda: now[0])
    for _ in range(3 * MOST_DEATHS):
        steps.watch({"w-0"})
        steps.steps[0].process.wait()
        now[0] += 1000.0
        steps.watch({"w-0"})
        now[0] += 100.0
    assert not steps.all_given_up


def test_a_step_whose_worker_is_not_heard_of_is_ended(run):
    now, said = [0.0], []
    steps = steps_of(run, ["sleep", "600"], said, lambda: now[0])
    steps.watch(set())
    process = steps.steps[0].process
    now[0] = 299.0
    steps.watch({"w-0"})
    now[0] = 598.0
    steps.watch(set())
    assert process.poll() is None
    now[0] = 600.0
    steps.watch(set())
    assert process.wait(10) == -signal.SIGKILL
    assert "not heard of" in said[0]


def test_steps_are_ended_at_the_end(run):
    steps = steps_of(run, ["sleep", "600"], [], time.monotonic)
    steps.watch(set())
    steps.end(patience_s=0.2)
    assert steps.steps[0].process.returncode == -signal.SIGTERM


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


def test_a_worker_job_is_asked_for_as_the_site_says_and_quotes_the_folder(tmp_path):
    from dask_jobqueue.slurm import SLURMJob

    run = SimpleNamespace(path=tmp_path / "it's $(here)")
    request = replace(REQUEST, mode="elastic", gpus_per_worker=1)
    script = SLURMJob("tls://x:1", name="worker-0", **job_options(run, request)).job_script()
    assert "#SBATCH --partition=main" in script
    assert "#SBATCH --gpus-per-task=1" in script
    assert "#SBATCH --mem=900M" in script
    assert "module load x" in script
    last = script.strip().splitlines()[-1]
    words = shlex.split(last)
    assert words[1:3] == ["-m", "hpcxrf.cluster.job.worker_main"]
    assert words[words.index("--run") + 1] == str(run.path)
    assert words[words.index("--name") + 1] == "worker-0"


def test_what_a_user_has_set_for_dask_jobqueue_does_not_get_into_worker_jobs(tmp_path):
    code = (
        "import sys, dask\n"
        "from pathlib import Path\n"
        "from types import SimpleNamespace\n"
        "from hpcxrf.cluster.job.elastic import job_options, jobqueue_settings\n"
        "from tests.cluster.test_cluster_job import REQUEST\n"
        "with dask.config.set(jobqueue_settings() if sys.argv[1] == 'ours' else {}):\n"
        "    from dask_jobqueue.slurm import SLURMJob\n"
        "    run = SimpleNamespace(path=Path('/run'))\n"
        "    job = SLURMJob('tls://x:1', name='worker-0', **job_options(run, REQUEST))\n"
        "    print(job.job_script())\n"
    )
    foreign = {
        "queue": "foreign",
        "account": "foreign",
        "walltime": "1-00",
        "death-timeout": 77,
        "shebang": "#!/foreign",
        "local-directory": "/foreign",
        "job-extra-directives": ["--foreign"],
        "job-script-prologue": ["foreign"],
        "job-directives-skip": ["--partition"],
        "worker-extra-args": ["--foreign"],
        "log-directory": str(tmp_path),
        "name": "foreign",
        "job-cpu": 77,
        "job-mem": "77G",
        "processes": 7,
        "worker-command": "foreign",
    }
    settings = tmp_path / "dask"
    settings.mkdir()
    (settings / "jobqueue.yaml").write_text(json.dumps({"jobqueue": {"slurm": foreign}}))

    def script(whose, folder):
        return subprocess.run(
            [sys.executable, "-c", code, whose],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "DASK_CONFIG": str(folder), "PYTHONPATH": os.pathsep.join(["", *sys.path])},
        ).stdout

    assert script("ours", settings) == script("ours", tmp_path / "none")
    # The settings are such as would have told.
    assert "foreign" in script("theirs", settings)


class FakeJobs:
    """As much of a SLURMCluster as the watchdog touches: a job is made for every name of the specification."""

    def __init__(self):
        self.worker_spec, self.workers, self.n = {}, {}, 0
        self.loop = SimpleNamespace(add_callback=lambda call, *arguments: call(*arguments))

    def scale(self, wanted):
        while len(self.worker_spec) < wanted:
            self.worker_spec[f"w-{self.n}"] = {}
            self.n += 1
        self.workers = {n: SimpleNamespace(job_id=f"job of {n}") for n in self.worker_spec}


def worker_jobs(ended):
    now, said = [0.0], []
    jobs = WorkerJobs(FakeJobs(), 3, said.append, ended.__contains__, lambda: now[0])
    return jobs, now, said


def test_a_worker_job_that_slurm_ended_is_replaced_and_no_other():
    ended = set()
    jobs, now, said = worker_jobs(ended)
    jobs.watch(set())
    assert sorted(jobs.cluster.workers) == ["w-0", "w-1", "w-2"]
    now[0] = 20.0
    jobs.watch({"w-0", "w-1"})
    assert said == []
    ended.add("job of w-1")
    now[0] = 40.0
    jobs.watch({"w-0"})
    assert sorted(jobs.cluster.workers) == ["w-0", "w-2", "w-3"]
    assert said == ["w-1: its job has ended, another is asked for"]
    now[0] = 60.0
    jobs.watch({"w-0", "w-2", "w-3"})
    assert sorted(jobs.cluster.workers) == ["w-0", "w-2", "w-3"]


def test_worker_jobs_that_sbatch_refuses_are_asked_for_again_and_given_up_after_long():
    jobs, now, said = worker_jobs(set())
    jobs.watch(set())
    for refused in (jobs.cluster.workers["w-0"], jobs.cluster.workers["w-1"]):
        refused.job_id = None
    now[0] = 20.0
    jobs.watch(set())
    assert sorted(jobs.cluster.workers) == ["w-2", "w-3", "w-4"]
    assert [text.split(":")[0] for text in said] == ["w-0", "w-1"]
    for step in range(200):
        for job in jobs.cluster.workers.values():
            job.job_id = None
        now[0] = 40.0 + 11.0 * step
        jobs.watch({"elsewhere"} if step == 100 else set())
        assert not jobs.all_given_up or step > 200 - 40
    assert jobs.in_vain == 0
    now[0] += 2000.0
    assert jobs.all_given_up


def test_worker_jobs_that_end_before_they_work_are_given_up():
    ended = set()
    jobs, now, said = worker_jobs(ended)
    for step in range(100):
        now[0] = 11.0 * step
        jobs.watch(set())
        ended |= {job.job_id for job in jobs.cluster.workers.values()}
        if jobs.all_given_up:
            break
    assert jobs.all_given_up
    assert len(said) == 3 * MOST_IN_VAIN
    before = dict(jobs.cluster.workers)
    now[0] += 1000.0
    jobs.watch(set())
    assert jobs.cluster.workers == before


# ---- the watcher


class FakeCluster:
    def __init__(self, *sights):
        self.sights, self.restarted, self.left = list(sights), [], False

    def sight(self):
        return self.sights

    def watch_workers(self, known):
        self.known = known

    def nobody_left(self):
        return self.left

    def restart(self, address):
        self.restarted.append(address)


def sight(name="w-0", status="running", at_work=()):
    return WorkerSight(address=f"tls://{name}", name=name, status=status, at_work=frozenset(at_work))


def wait_until(condition):
    deadline = time.monotonic() + 20
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
    cluster.left = True
    watcher.start(cluster)
    wait_until(lambda: watcher.fault is not None)
    assert "no worker is left" in str(watcher.fault)


def test_the_account_counts_what_the_driver_told(watcher, run):
    watcher.count.planned(3, {"ingest": 3, "pixels": 9})
    watcher.count.dataset("refused")
    watcher.count.dataset("begun")
    watcher.count.dataset("begun")
    watcher.count.task("ingest", 0, ok=True, found=True)
    watcher.count.task("pixels", 50, ok=True, found=False)
    watcher.count.task("pixels", 0, ok=False, found=False)
    watcher.count.dataset("done")
    watcher.account()
    told = read_progress(run)
    assert (told.datasets, told.datasets_done, told.datasets_failed, told.datasets_running) == (3, 1, 1, 1)
    assert told.stages["pixels"].done == told.stages["pixels"].failed == 1
    assert told.stages["pixels"].pixels == 50
    assert told.stages["ingest"].done == 1
    assert told.workers_wanted == 2


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
    with pytest.raises(HpcxrfError, match="interface: ib0"):
        address_options(None)
    assert address_options("ib0") == {"interface": "ib0"}
