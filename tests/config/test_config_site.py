"""Site profiles: the shipped ones are good, faults are told all at once, and names are found where it is said."""

import dataclasses
import sys
from pathlib import Path

import pytest
import yaml

from hpcxrf.cluster.login.sites import chosen_partition, find_site, propose_site, site_folders
from hpcxrf.cluster.slurm import Partition
from hpcxrf.config.site import SiteProfile, check_site, load_site
from hpcxrf.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted((ROOT / "slurm").glob("*.yaml"))
NAMES = {field.name for field in dataclasses.fields(SiteProfile)}
SMALL = {"cores_per_node": 8, "memory_per_worker_mb": 1000, "time_limit_h": 1}


def site(**fields):
    return check_site({**SMALL, **fields}, "here", name="here")


def faults(**fields) -> str:
    with pytest.raises(ConfigError) as error:
        site(**fields)
    return str(error.value)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_every_shipped_profile_is_good_and_says_what_it_is(path):
    profile = load_site(path)
    assert profile.description
    assert profile.name == path.stem
    if path.stem in {"perlmutter", "maxwell", "esrf"}:
        assert "UNTESTED THERE" in path.read_text()
        assert "untested" in profile.description


def test_the_commented_lines_of_the_generic_profile_are_good_as_well():
    text = (ROOT / "slurm" / "generic-cpu.yaml").read_text()
    lines = [line.removeprefix("# ") for line in text.splitlines()]
    fields = [line for line in lines if line.split(":")[0] in NAMES]
    profile = check_site(yaml.safe_load("\n".join(fields)), "generic", name="generic")
    assert profile.partition == "compute"
    assert profile.python == "/project/xrf/venv/bin/python"
    # A field of the profile that the example does not show would be found by nobody.
    shown = {line.split(":")[0] for line in fields} | {"name", "gpus_per_node", "gpu_memory_mb", "driver_partition"}
    assert shown == NAMES


def test_workers_are_one_per_gpu_and_share_the_cores():
    profile = site(gpus_per_node=3, cores_per_node=32)
    assert (profile.workers_on_a_node, profile.threads_per_worker) == (3, 10)


def test_workers_of_a_cpu_node_are_one_per_core_up_to_16():
    assert (site().workers_on_a_node, site().threads_per_worker) == (8, 1)
    large = site(cores_per_node=96)
    assert (large.workers_on_a_node, large.threads_per_worker) == (16, 6)


def test_all_faults_are_told_at_once():
    said = faults(partition="a b", workers_per_node=9, time_limit_h=0.01, modules=["x;y"], setup=["a\nb"])
    assert "partition: 'a b' is no plain word" in said
    assert "9 workers on a node of cores_per_node 8" in said
    assert "time_limit_h 0.01 is 36 s" in said
    assert "modules[0]: 'x;y'" in said
    assert "setup[0]: 'a\\nb' must be one line" in said


def test_types_and_unknown_fields_are_told_with_their_place():
    said = faults(cores_per_node="many", colour="red")
    assert "cores_per_node: Input should be a valid integer" in said
    assert "colour: Unexpected keyword argument" in said


def test_memory_is_refused_with_both_numbers():
    said = faults(memory_per_node_mb=6000)
    assert "need 10000, memory_per_node_mb is 6000" in said


def test_options_that_hpcxrf_sets_itself_are_refused():
    assert "hpcxrf sets --output itself" in faults(options=["--output=x"])
    assert "'-p x' is none" in faults(options=["-p x"])
    assert site(options=["--reservation=beam", "--hint=nomultithread"]).options[0] == "--reservation=beam"


def test_a_constraint_may_choose_between_features():
    assert site(constraint="a100|(h100&80g)").constraint == "a100|(h100&80g)"


@pytest.mark.parametrize("raw", [None, 3, "x", ["a"]])
def test_what_is_no_mapping_is_no_profile(raw):
    with pytest.raises(ConfigError, match="is no site profile"):
        check_site(raw, "here", name="here")


def test_the_interpreter_is_that_of_the_environment_where_one_is_set_up():
    assert site().interpreter is None
    assert site(setup=["source /x/bin/activate"]).interpreter == "python"
    assert site(setup=["source /x/bin/activate"], python="/y/python").interpreter == "/y/python"


# Finding ---------------------------------------------------------------------------------------


def test_a_site_is_found_by_path_and_by_name_in_the_order_of_the_folders(tmp_path):
    for folder, partition in (("one", "first"), ("two", "second")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "lab.yaml").write_text(yaml.safe_dump({**SMALL, "partition": partition}))
    (tmp_path / "home" / "hpcxrf" / "sites").mkdir(parents=True)
    environment = {"HPCXRF_SITES": f"{tmp_path}/one:{tmp_path}/two", "XDG_CONFIG_HOME": str(tmp_path / "home")}
    assert find_site("lab", environment).partition == "first"
    assert find_site(str(tmp_path / "two" / "lab.yaml"), environment).partition == "second"
    assert site_folders(environment)[2] == tmp_path / "home" / "hpcxrf" / "sites"
    # Shipped profiles are found after all others.
    assert find_site("generic-gpu", environment).gpus_per_node == 4


def test_a_site_that_is_not_there_is_told_with_those_that_are_and_where_was_looked(tmp_path):
    with pytest.raises(ConfigError) as error:
        find_site("nowhere", {"HPCXRF_SITES": str(tmp_path)})
    for text in ("no site profile 'nowhere'", "generic-cpu", str(tmp_path), f"{sys.prefix}/share/hpcxrf/sites"):
        assert text in str(error.value)


def test_a_name_cannot_climb_out_of_the_folders(tmp_path):
    (tmp_path / "secret.yaml").write_text("a: b")
    (tmp_path / "sites").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        find_site("../secret", {"HPCXRF_SITES": str(tmp_path / "sites")})


# Proposing -------------------------------------------------------------------------------------


def partition(**fields) -> Partition:
    usual = {
        "name": "main",
        "default": True,
        "up": True,
        "time_limit_s": 86400,
        "nodes": 3,
        "cores": 8,
        "memory_mb": 6000,
        "gpus": 0,
    }
    return Partition(**{**usual, **fields})


@pytest.mark.parametrize(
    "found",
    [
        partition(),
        partition(gpus=4, cores=64, memory_mb=500_000),
        partition(time_limit_s=300, cores=1, memory_mb=1000),
        partition(time_limit_s=None, cores=256),
    ],
)
def test_what_is_proposed_is_a_good_profile_that_fits_the_partition(found):
    profile = check_site(yaml.safe_load(propose_site(found)), "proposed", name="proposed")
    assert profile.partition == "main"
    assert profile.gpus_per_node == found.gpus
    assert profile.time_limit_s <= (found.time_limit_s or 86400) + 2


def test_a_partition_with_gpus_is_proposed_before_the_default_one():
    found = [partition(), partition(name="gpu", default=False, gpus=4), partition(name="down", gpus=8, up=False)]
    assert chosen_partition(found, None).name == "gpu"
    assert chosen_partition(found, "main").name == "main"
    with pytest.raises(ConfigError, match="partition down: is not there or not up; sinfo has main, gpu, down"):
        chosen_partition(found, "down")
