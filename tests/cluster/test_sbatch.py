"""The batch script: golden files, and names that want to be commands."""

import dataclasses
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcxrf.cluster.job.elastic import worker_script
from hpcxrf.cluster.job.pinning import list_node_gpus, place_workers, take_node_gpu
from hpcxrf.cluster.job.steps import step_command
from hpcxrf.cluster.job_files import run_comment
from hpcxrf.cluster.login.checks import partition_faults
from hpcxrf.cluster.login.sbatch import after_options, job_request, job_size, place_options, render
from hpcxrf.cluster.login.sites import find_site
from hpcxrf.cluster.slurm import Partition
from hpcxrf.config.site import GpuRequest, SiteProfile
from hpcxrf.errors import ConfigError, HpcxrfError

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
SITE = SiteProfile(name="lab", cores_per_node=32, gpus_per_node=4, memory_per_worker_mb=1000, time_limit_h=2)
EVERYTHING = SiteProfile(
    name="lab",
    partition="gpu",
    driver_partition="small",
    account="xrf",
    constraint="a100|h100",
    qos="high",
    cores_per_node=32,
    gpus_per_node=4,
    memory_per_worker_mb=1000,
    driver_memory_mb=500,
    exclusive=True,
    time_limit_h=30,
    drain_s=600,
    requeue=False,
    modules=("gcc/12", "cuda"),
    setup=("source /venv/bin/activate",),
    options=("--reservation=beam",),
)
HOSTILE = [
    "with blank",
    "it's",
    'two"quotes',
    "$(touch pwned)",
    "`touch pwned`",
    "#SBATCH --wrap=x",
    "-rf",
    "a;touch pwned",
    "%j",
    "ünïcödé ☢",
    "*",
    "{a,b}",
    "~root",
    "!!",
    "&&",
    "<script>",
    "=1+1",
    "a\u00a0b",
]


IMAGE = "/project/it's an image.sif"
CONTAINER = ("apptainer", "exec", "--nv", "--bind=/project,/scratch", IMAGE)


def script(site=SITE, run_dir="/project/run", mode="allocation", workers=None, nodes=None) -> str:
    size = job_size(site, workers=workers, nodes=nodes)
    comment = run_comment(Path(run_dir)) if run_dir.isprintable() else ""
    request = job_request(site, size, mode=mode, comment=comment)
    return render(site, request, size, run_dir=Path(run_dir), python="/usr/bin/python3")


def with_gpus(form: str, gpu_type: str | None = None) -> SiteProfile:
    return dataclasses.replace(SITE, gpus=GpuRequest(type=gpu_type, request=form))


# srun, scontrol and munge are not in an image: either the driver stays outside of it, or the profile binds them.
OUTSIDE = dataclasses.replace(SITE, setup=("source /venv/bin/activate",), launcher=CONTAINER)
SLURM_INSIDE = "--bind=/etc/slurm,/run/munge,/usr/bin/srun,/usr/bin/scontrol,/usr/bin/squeue,/usr/lib/slurm,/etc/passwd"
INSIDE = dataclasses.replace(
    SITE,
    launcher=CONTAINER,
    driver_launcher=("apptainer", "exec", "--bind=/project,/scratch", SLURM_INSIDE, IMAGE),
    worker_python="/opt/venv/bin/python",
)


def steps(site: SiteProfile) -> str:
    """The batch script of a driver, and the commands with which it starts its workers."""
    size = job_size(site, workers=3, nodes=2)
    request = job_request(site, size, mode="allocation")
    request = dataclasses.replace(request, worker_python=request.worker_python or "/usr/bin/python3")
    places = place_workers(3, ["gpu1", "gpu2"]) if request.node_gpus else [None] * 3
    run_dir = Path("/project/run")
    return "".join(
        shlex.join(step_command(request, run_dir, f"worker-{i}", place)) + "\n" for i, place in enumerate(places)
    )


GOLDEN_SCRIPTS = {
    "gpus_per_task_typed.sh": lambda: script(with_gpus("gpus-per-task", "a100"), nodes=2),
    "gpus_per_task_typed.steps.sh": lambda: steps(with_gpus("gpus-per-task", "a100")),
    "gres.sh": lambda: script(with_gpus("gres", "a100"), workers=6),
    "gres.steps.sh": lambda: steps(with_gpus("gres", "a100")),
    "gres_elastic_worker.sh": lambda: worker_job(with_gpus("gres", "a100")),
    "gpus_per_node.sh": lambda: script(with_gpus("gpus-per-node"), nodes=2),
    "gpus_per_node.steps.sh": lambda: steps(with_gpus("gpus-per-node")),
    "whole_node.sh": lambda: script(with_gpus("whole-node"), nodes=2),
    "whole_node.steps.sh": lambda: steps(with_gpus("whole-node")),
    "driver_outside_container.sh": lambda: script(OUTSIDE),
    "driver_outside_container.steps.sh": lambda: steps(OUTSIDE),
    "driver_outside_container.worker.sh": lambda: worker_job(OUTSIDE),
    "driver_in_container.sh": lambda: script(INSIDE),
    "driver_in_container.steps.sh": lambda: steps(INSIDE),
    "allocation_gpu.sh": lambda: script(workers=6),
    "allocation_everything.sh": lambda: script(EVERYTHING, nodes=2),
    "allocation_cpu.sh": lambda: script(find_site("generic-cpu", {})),
    "elastic.sh": lambda: script(EVERYTHING, mode="elastic", nodes=2),
    "hostile.sh": lambda: script(run_dir='/project/it\'s $(touch pwned) #SBATCH %j "☢"'),
}


def worker_job(site: SiteProfile) -> str:
    """The script of one worker's job in elastic mode."""
    size = job_size(site, workers=2, nodes=None)
    request = job_request(site, size, mode="elastic", comment=run_comment(Path("/project/run")))
    request = dataclasses.replace(request, worker_python=request.worker_python or "/usr/bin/python3")
    return worker_script(Path("/project/run"), request, "worker-0")


@pytest.mark.parametrize("name", GOLDEN_SCRIPTS)
def test_scripts_are_as_they_were_read_and_found_good(name):
    assert GOLDEN_SCRIPTS[name]() == (GOLDEN / name).read_text(encoding="utf-8")


def test_the_script_to_be_read_beside_the_profiles_is_a_real_one():
    text = script(find_site("generic-gpu", {}), "/project/xrf/my-run", nodes=2)
    assert text == (ROOT / "slurm" / "example-job.sh").read_text(encoding="utf-8")


def executed(text: str, folder: Path) -> list[str]:
    """Arguments that the interpreter gets when bash runs the script."""
    interpreter = folder / "python"
    interpreter.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    interpreter.chmod(0o700)
    lines = text.replace("/usr/bin/python3", str(interpreter))
    ran = subprocess.run(
        ["bash"], input=lines, cwd=folder, capture_output=True, text=True, check=True, encoding="utf-8"
    )
    return json.loads(ran.stdout)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_folder_reaches_python_as_it_is_and_does_nothing_else(name, tmp_path):
    text = script(run_dir=f"/project/{name}")
    assert executed(text, tmp_path) == ["-m", "hpcxrf.cluster.job", f"/project/{name}"]
    assert [p.name for p in tmp_path.iterdir()] == ["python"]
    # Options of sbatch are above the first line of shell, and the folder is not among them.
    assert f"/{name}" not in text.split("umask")[0]


NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="/\\"), min_size=1)


@given(NAMES.filter(lambda name: name not in {".", ".."}))
def test_any_folder_is_one_word_of_the_last_line(name):
    last = script(run_dir=f"/project/{name}").split("ulimit -c 0\n")[1]
    assert last.count("\n") == 1
    words = shlex.split(last)
    assert words == ["exec", "/usr/bin/python3", "-m", "hpcxrf.cluster.job", f"/project/{name}"]


@pytest.mark.parametrize("bad", ["a\nb", "a\rb", "a\0b", "\x1b[31m", "a\u2028b", "a\x85b", "\udcff"])
def test_control_characters_are_refused(bad):
    with pytest.raises(ConfigError, match=r"the run directory .* has a control character"):
        script(run_dir=f"/project/{bad}")


def test_a_backslash_which_no_log_of_slurm_survives_is_refused():
    with pytest.raises(ConfigError, match="cannot write a log below a backslash"):
        script(run_dir="/project/back\\slash")


def test_the_place_of_the_log_is_taken_as_it_is_but_for_the_number_of_the_job():
    assert place_options(Path("/a b/%j")) == ("--chdir=/a b/%j", "--output=/a b/%%j/logs/job-%j.log")


def test_what_site_profiles_put_into_options_is_one_word_to_slurm():
    text = script(dataclasses.replace(SITE, constraint="a|(b&c)"))
    assert "#SBATCH --constraint='a|(b&c)'" in text


def test_the_words_of_launchers_reach_the_shell_as_they_are(tmp_path):
    words = ("env", "A=$(touch pwned)", "B=it's; touch pwned", 'C="', "D=#", "E=\u2622 `touch pwned`")
    text = script(dataclasses.replace(SITE, driver_launcher=words, python="/usr/bin/python3"))
    assert shlex.split(text.splitlines()[-1])[1 : 1 + len(words)] == list(words)
    assert executed(text, tmp_path) == ["-m", "hpcxrf.cluster.job", "/project/run"]
    assert [p.name for p in tmp_path.iterdir()] == ["python"]
    last = worker_job(dataclasses.replace(SITE, launcher=words)).strip().splitlines()[-1]
    assert shlex.split(last)[: len(words)] == list(words)


def test_a_comment_of_the_site_and_that_of_the_run_are_one_option():
    text = script(dataclasses.replace(SITE, options=("--comment=beamtime", "--reservation=x")))
    assert text.count("--comment=") == 1
    assert f"#SBATCH --comment=beamtime,{run_comment(Path('/project/run'))}\n" in text
    assert "#SBATCH --reservation=x\n" in text


def test_the_comment_of_a_run_names_no_folder_and_follows_no_link(tmp_path):
    (tmp_path / "secret-sample").mkdir()
    (tmp_path / "link").symlink_to("secret-sample")
    comment = run_comment(tmp_path / "secret-sample")
    assert comment == run_comment(tmp_path / "link")
    assert comment != run_comment(tmp_path / "other")
    assert "sample" not in comment


def test_elastic_workers_that_would_take_whole_nodes_with_several_gpus_are_refused():
    with pytest.raises(ConfigError, match="a worker would take a whole node with 4 GPUs"):
        script(with_gpus("whole-node"), mode="elastic")
    one = dataclasses.replace(with_gpus("whole-node"), gpus_per_node=1)
    assert "#SBATCH --exclusive" in worker_job(one)
    assert "--node-gpu=0/1" in worker_job(one)


# GPUs of whole nodes ---------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(1, 9))
def test_workers_are_on_all_nodes_in_turn_and_no_two_share_a_gpu(workers, nodes):
    names = [f"node{i}" for i in range(nodes)]
    places = place_workers(workers, names)
    assert len(set(places)) == len(places) == workers
    assert max(place.number for place in places) == -(-workers // nodes) - 1
    assert {place.node for place in places} == set(names[:workers])


def test_a_worker_takes_its_gpu_from_the_nodes_own_list(tmp_path):
    assert list_node_gpus(4, {}, tmp_path / "no-driver") == ["0", "1", "2", "3"]
    assert list_node_gpus(4, {"CUDA_VISIBLE_DEVICES": "GPU-ab, GPU-cd"}, tmp_path / "no-driver") == ["GPU-ab", "GPU-cd"]
    for name in ("0000:07:00.0", "0000:47:00.0"):
        (tmp_path / "gpus" / name).mkdir(parents=True)
    assert list_node_gpus(4, {"CUDA_VISIBLE_DEVICES": ""}, tmp_path / "gpus") == ["0", "1"]
    assert take_node_gpu(1, 4, ["GPU-ab", "GPU-cd"]) == "GPU-cd"
    with pytest.raises(
        HpcxrfError, match=r"GPU 3 of the node is not there: it lists 2 \(0, 1\), gpus_per_node .* is 4"
    ):
        take_node_gpu(3, 4, ["0", "1"])


# Size ------------------------------------------------------------------------------------------


@given(st.integers(1, 200), st.none() | st.integers(1, 60), st.integers(1, 8))
def test_a_size_has_room_for_its_workers_or_is_refused(workers, nodes, on_a_node):
    site = dataclasses.replace(SITE, gpus_per_node=on_a_node)
    try:
        size = job_size(site, workers=workers, nodes=nodes)
    except ConfigError:
        assert nodes is not None
        assert not nodes <= workers <= nodes * on_a_node
        return
    assert size.workers == workers
    assert size.nodes == (nodes or -(-workers // on_a_node))
    assert size.workers_per_node <= on_a_node
    assert size.nodes * size.workers_per_node >= workers


def test_without_a_wish_the_nodes_of_the_profile_are_full():
    size = job_size(dataclasses.replace(SITE, nodes=3), workers=None, nodes=None)
    assert (size.nodes, size.workers, size.workers_per_node) == (3, 12, 4)


def test_too_many_workers_are_refused_with_both_numbers():
    with pytest.raises(ConfigError, match="9 workers on 2 nodes: site lab has room for 4 on a node, 8 in all"):
        job_size(SITE, workers=9, nodes=2)


def test_a_time_that_leaves_none_to_work_is_refused():
    size = job_size(SITE, workers=1, nodes=None)
    with pytest.raises(ConfigError, match=r"400 s: drain_s of site lab \(300 s\) and 120 s"):
        job_request(SITE, size, mode="allocation", time_limit_s=400)


def test_after_takes_the_number_of_a_job_and_nothing_else():
    assert after_options(None) == ()
    assert after_options("17") == ("--dependency=afterany:17",)
    for bad in ("17;x", "-1", "", "17 18", "１７"):
        with pytest.raises(ConfigError, match="must be the number of a job"):
            after_options(bad)


# Checks ----------------------------------------------------------------------------------------

PARTITION = Partition(name="gpu", default=True, up=True, time_limit_s=3600, nodes=2, cores=16, memory_mb=3000, gpus=2)


def limit_faults(*found: Partition, **fields) -> list[str]:
    site = dataclasses.replace(SITE, **fields)
    size = job_size(site, workers=None, nodes=3)
    return partition_faults(site, job_request(site, size, mode="allocation"), size, found)


def test_everything_that_would_never_start_is_told_with_both_numbers():
    assert limit_faults(PARTITION) == [
        "3 nodes are requested, partition gpu has 2",
        "32 cores a node are requested, partition gpu has 16",
        "4 GPUs a node are requested, partition gpu has 2",
        "6000 MB of memory a node are requested, partition gpu has 3000",
        "a time limit of 02:00:00 is requested, partition gpu allows 01:00:00",
    ]


def test_nothing_is_told_of_what_fits():
    large = dataclasses.replace(PARTITION, nodes=9, cores=64, gpus=8, memory_mb=10**6, time_limit_s=None)
    assert limit_faults(large) == []
    assert limit_faults(large, exclusive=True) == []
    # GPUs of whole nodes are not resources of Slurm: sinfo shows none.
    assert limit_faults(dataclasses.replace(large, gpus=0), gpus=GpuRequest(request="whole-node")) == []
    # Kinds of nodes in one partition add up, and the largest counts.
    assert limit_faults(PARTITION, dataclasses.replace(large, nodes=1)) == []


def test_a_partition_that_is_not_there_or_down_is_told():
    assert limit_faults(PARTITION, partition="cpu") == ["partition cpu: Slurm has gpu"]
    assert limit_faults(dataclasses.replace(PARTITION, up=False)) == ["partition gpu is down"]
    assert limit_faults(dataclasses.replace(PARTITION, default=False)) == ["a default partition: Slurm has gpu"]
    # Of several nothing can be said.
    assert limit_faults(PARTITION, partition="gpu,long") == []
