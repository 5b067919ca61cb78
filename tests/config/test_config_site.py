"""Site profiles: the shipped ones are good, faults are told all at once, and names are found where it is said."""

import dataclasses
import sys
from pathlib import Path

import pytest
import yaml

from hpcxrf.cluster.login.sites import choose_partition, find_site, propose_site
from hpcxrf.cluster.slurm import Partition
from hpcxrf.config.site import GpuRequest, SiteProfile, check_site, load_site
from hpcxrf.config.site_files import site_folders
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
    if path.stem in {"perlmutter", "maxwell", "esrf", "juwels"}:
        assert "UNTESTED THERE" in path.read_text()
        assert "untested" in profile.description


def commented(name: str):
    """A shipped profile with its commented lines, and the names of the fields that it shows."""
    text = (ROOT / "slurm" / f"{name}.yaml").read_text()
    lines = [line.removeprefix("# ") for line in text.splitlines()]
    fields = [line for line in lines if line.split(":")[0] in NAMES]
    return check_site(yaml.safe_load("\n".join(fields)), name, name=name), {line.split(":")[0] for line in fields}


def test_the_commented_lines_of_the_generic_profiles_are_good_as_well():
    cpu, shown = commented("generic-cpu")
    assert cpu.partition == "compute"
    assert cpu.python == "/project/xrf/venv/bin/python"
    gpu, shown_for_gpus = commented("generic-gpu")
    assert gpu.gpus == GpuRequest(type="a100", request="gres")
    # A field of the profile that no example shows would be found by nobody.
    assert shown | shown_for_gpus | {"name", "driver_partition"} == NAMES


def test_workers_are_one_per_gpu_and_share_the_cores():
    profile = site(gpus_per_node=3, cores_per_node=32)
    assert (profile.workers_on_a_node, profile.threads_per_worker) == (3, 10)


def test_workers_of_a_cpu_node_are_one_per_core_up_to_16():
    assert (site().workers_on_a_node, site().threads_per_worker) == (8, 1)
    large = site(cores_per_node=96)
    assert (large.workers_on_a_node, large.threads_per_worker) == (16, 6)


def test_all_faults_are_told_at_once():
    said = faults(partition="a b", workers_per_node=9, time_limit_h=0.01, modules=["x;y"], setup=["a\nb"])
    assert "partition: 'a b' is not a plain word" in said
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
    assert "'-p x' is not a long sbatch option" in faults(options=["-p x"])
    assert site(options=["--reservation=beam", "--hint=nomultithread"]).options[0] == "--reservation=beam"


def test_options_for_gpus_are_left_to_the_form_of_the_request():
    assert "hpcxrf sets --gpus-per-node itself" in faults(options=["--gpus-per-node=4"])
    assert "choose another form with gpus.request" in faults(gpus_per_node=4, options=["--gres=gpu:4"])
    said = faults(gpus_per_node=4, gpus={"request": "gres"}, options=["--gres=nvme:1"])
    assert "--gres=nvme:1: hpcxrf requests the GPUs itself" in said
    assert site(gpus_per_node=4, options=["--gres=nvme:1", "--comment=beamtime"]).gpus.request == "gpus-per-task"


def test_gpus_without_a_number_and_types_of_whole_nodes_are_refused():
    assert "gpus: gpus_per_node is 0" in faults(gpus={"type": "a100"})
    assert "cannot name a type" in faults(gpus_per_node=4, gpus={"type": "a100", "request": "whole-node"})
    assert "gpus.type: String should match" in faults(gpus_per_node=4, gpus={"type": "a100:4"})
    assert "gpus.request: Input should be 'gpus-per-task', 'gres'" in faults(gpus_per_node=4, gpus={"request": "all"})


@pytest.mark.parametrize("bad", ["a\nb", "\x1b[31m", "\u2028"])
def test_control_characters_in_launchers_are_refused(bad):
    said = faults(launcher=["env", bad], driver_launcher=["env", bad], worker_python=bad)
    for name in ("launcher[1]", "driver_launcher[1]", "worker_python"):
        assert f"{name}: {bad!r} must be one line without control characters" in said


def test_a_launcher_is_a_list_that_begins_with_a_program():
    assert site(launcher=["apptainer", "exec", "--nv", "/p/a b.sif"]).launcher[3] == "/p/a b.sif"
    assert "launcher: '--nv' is not a program" in faults(launcher=["--nv", "x.sif"])
    assert "launcher: Input should be a valid tuple" in faults(launcher="apptainer exec x.sif")


def test_a_constraint_may_choose_between_features():
    assert site(constraint="a100|(h100&80g)").constraint == "a100|(h100&80g)"


@pytest.mark.parametrize("raw", [None, 3, "x", ["a"]])
def test_what_is_no_mapping_is_no_profile(raw):
    with pytest.raises(ConfigError, match="not a valid site profile"):
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


def test_the_users_own_variables_of_sbatch_count_where_the_profile_has_none(tmp_path):
    (tmp_path / "open.yaml").write_text(yaml.safe_dump(SMALL))
    (tmp_path / "fixed.yaml").write_text(yaml.safe_dump({**SMALL, "account": "xrf", "partition": "gpu"}))
    environment = {"HPCXRF_SITES": str(tmp_path), "SBATCH_ACCOUNT": "mine", "SBATCH_PARTITION": "short"}
    assert (find_site("open", environment).account, find_site("open", environment).partition) == ("mine", "short")
    assert (find_site("fixed", environment).account, find_site("fixed", environment).partition) == ("xrf", "gpu")
    unset = {"HPCXRF_SITES": str(tmp_path), "SBATCH_ACCOUNT": ""}
    assert (find_site("open", unset).account, find_site("open", unset).partition) == (None, None)
    hostile = environment | {"SBATCH_ACCOUNT": "x\n#SBATCH --wrap=y"}
    with pytest.raises(ConfigError, match=r"SBATCH_ACCOUNT='x\\n#SBATCH --wrap=y': not a plain word; correct it"):
        find_site("open", hostile)
    assert find_site("fixed", hostile).account == "xrf"


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
        partition(gpus=4, cores=64, memory_mb=500_000, gpu_types=("nvidia_a100_3g.20gb",)),
        partition(gpus=3, cores=64, memory_mb=500_000, gpu_types=("a100", "h100")),
    ],
)
def test_what_is_proposed_is_a_good_profile_that_fits_the_partition(found):
    profile = check_site(yaml.safe_load(propose_site(found)), "proposed", name="proposed")
    assert profile.partition == "main"
    assert profile.gpus_per_node == found.gpus
    assert profile.gpus.type == (found.gpu_types[0] if len(found.gpu_types) == 1 else None)
    assert profile.time_limit_s <= (found.time_limit_s or 86400) + 2


@pytest.mark.parametrize("gpus", [{}, {"gpus": 4, "gpu_types": ("a100",)}, {"gpus": 2, "gpu_types": ("a100", "h100")}])
def test_every_commented_line_of_a_proposal_is_one_that_a_profile_takes(gpus):
    text = propose_site(partition(**{"cores": 64, "memory_mb": 500_000, **gpus}))
    fields = yaml.safe_load(text)
    for line in text.splitlines():
        name, colon, _ = line.removeprefix("# ").partition(":")
        if line.startswith("# ") and colon and name in NAMES:
            changed = fields | yaml.safe_load(line.removeprefix("# "))
            check_site(changed | ({"gpus_per_node": 2} if name == "gpus" else {}), line, name="proposed")
    for name in ("modules", "setup", "launcher", "worker_start_s", "gpus", "account"):
        assert f"# {name}:" in text


def test_a_partition_with_gpus_is_proposed_before_the_default_one():
    found = [partition(), partition(name="gpu", default=False, gpus=4), partition(name="down", gpus=8, up=False)]
    assert choose_partition(found, None).name == "gpu"
    assert choose_partition(found, "main").name == "main"
    with pytest.raises(ConfigError, match="partition down: does not exist or is not up; sinfo has main, gpu, down"):
        choose_partition(found, "down")
