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

from hpcxrf.cluster.login.limits import partition_faults
from hpcxrf.cluster.login.sbatch import after_options, job_request, job_size, place_options, render
from hpcxrf.cluster.login.sites import find_site
from hpcxrf.cluster.slurm import Partition
from hpcxrf.config.site import SiteProfile
from hpcxrf.errors import ConfigError

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


def script(site=SITE, run_dir="/project/run", mode="allocation", workers=None, nodes=None) -> str:
    size = job_size(site, workers=workers, nodes=nodes)
    request = job_request(site, size, mode=mode)
    return render(site, request, size, run_dir=Path(run_dir), python="/usr/bin/python3")


GOLDEN_SCRIPTS = {
    "allocation_gpu.sh": lambda: script(workers=6),
    "allocation_everything.sh": lambda: script(EVERYTHING, nodes=2),
    "allocation_cpu.sh": lambda: script(find_site("generic-cpu")),
    "elastic.sh": lambda: script(EVERYTHING, mode="elastic", nodes=2),
    "hostile.sh": lambda: script(run_dir='/project/it\'s $(touch pwned) #SBATCH %j "☢"'),
}


@pytest.mark.parametrize("name", GOLDEN_SCRIPTS)
def test_scripts_are_as_they_were_read_and_found_good(name):
    assert GOLDEN_SCRIPTS[name]() == (GOLDEN / name).read_text(encoding="utf-8")


def test_the_script_to_be_read_beside_the_profiles_is_a_real_one():
    text = script(find_site("generic-gpu"), "/project/xrf/my-run", nodes=2)
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


# Limits ----------------------------------------------------------------------------------------

PARTITION = Partition(name="gpu", default=True, up=True, time_limit_s=3600, nodes=2, cores=16, memory_mb=3000, gpus=2)


def limit_faults(*found: Partition, **fields) -> list[str]:
    site = dataclasses.replace(SITE, **fields)
    size = job_size(site, workers=None, nodes=3)
    return partition_faults(site, job_request(site, size, mode="allocation"), size, found)


def test_everything_that_would_never_start_is_told_with_both_numbers():
    assert limit_faults(PARTITION) == [
        "3 nodes are asked for, partition gpu has 2",
        "32 cores a node are asked for, partition gpu has 16",
        "4 GPUs a node are asked for, partition gpu has 2",
        "6000 MB of memory a node are asked for, partition gpu has 3000",
        "02:00:00 of time are asked for, partition gpu allows 01:00:00",
    ]


def test_nothing_is_told_of_what_fits():
    large = dataclasses.replace(PARTITION, nodes=9, cores=64, gpus=8, memory_mb=10**6, time_limit_s=None)
    assert limit_faults(large) == []
    assert limit_faults(large, exclusive=True) == []
    # Kinds of nodes in one partition add up, and the largest counts.
    assert limit_faults(PARTITION, dataclasses.replace(large, nodes=1)) == []


def test_a_partition_that_is_not_there_or_down_is_told():
    assert limit_faults(PARTITION, partition="cpu") == ["partition cpu: Slurm has gpu"]
    assert limit_faults(dataclasses.replace(PARTITION, up=False)) == ["partition gpu is down"]
    assert limit_faults(dataclasses.replace(PARTITION, default=False)) == ["a default partition: Slurm has gpu"]
    # Of several nothing can be said.
    assert limit_faults(PARTITION, partition="gpu,long") == []
