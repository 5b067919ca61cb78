"""What is read from the programs of Slurm, with stand-ins that answer as those do, badly or not at all."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcxrf.cluster import slurm
from hpcxrf.errors import ConfigError, SlurmError


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Put a shell script in the place of a program."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.defpath}")

    def put(name: str, body: str) -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o700)
        return path

    return put


# Times -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 5400), ("30:00", 1800), ("12:00:00", 43200), ("2-00", 172800), ("1-12:30", 131400), ("1-12:30:05", 131405)],
)
def test_times_are_read_as_slurm_means_them(text, seconds):
    assert slurm.seconds_of(text) == seconds


@given(st.integers(0, 10**7))
def test_a_time_that_is_written_is_read_again(seconds):
    assert slurm.seconds_of(slurm.time_text(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "4h", "-5", "1:2:3:4", "1.5", "1-", "infinite"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ConfigError, match="must be minutes, or"):
        slurm.seconds_of(text)


# Environment -----------------------------------------------------------------------------------


def test_the_job_that_a_command_is_given_in_does_not_leak_into_the_new_one(programs, monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "64")
    monkeypatch.setenv("SBATCH_PARTITION", "other")
    monkeypatch.setenv("SLURM_CONF", "/here/slurm.conf")
    programs("sbatch", f"env > {tmp_path}/env; echo 7")
    assert slurm.submit("#!/bin/sh\n", []) == "7"
    seen = (tmp_path / "env").read_text()
    assert "SLURM_MEM_PER_CPU" not in seen
    assert "SBATCH_PARTITION" not in seen
    assert "SLURM_CONF=/here/slurm.conf" in seen


# Answers ---------------------------------------------------------------------------------------


def test_a_script_goes_through_standard_input_and_the_folder_as_one_argument(programs, tmp_path):
    programs("sbatch", f'cat > {tmp_path}/script; printf "%s\\n" "$@" > {tmp_path}/args; echo "12;cluster"')
    options = ["--dependency=afterany:3", "--chdir=/project/it's $(a) %j"]
    assert slurm.submit("#!/bin/sh\necho ü\n", options) == "12"
    assert (tmp_path / "script").read_text() == "#!/bin/sh\necho ü\n"
    assert (tmp_path / "args").read_text().splitlines() == ["--parsable", *options]


def test_a_refusal_is_told_as_sbatch_tells_it(programs, tmp_path):
    programs("sbatch", "echo 'sbatch: error: invalid partition specified: nope' >&2; exit 1")
    with pytest.raises(SlurmError, match="invalid partition specified: nope"):
        slurm.submit("#!/bin/sh\n", [])


@pytest.mark.parametrize(
    ("printed", "job_id"),
    [
        ("17\\n", "17"),
        ("17;cluster\\n", "17"),
        ("Welcome to 2026!\\n17\\nYour project has 12 h left\\n", "17"),
        ("17\\n\\n=== maintenance on 2027-01-01 ===\\n", "17"),
        ("  17;cluster  \\n17;cluster\\n", "17"),
        ("2026\\nSubmitted batch job 17\\n", "17"),
        ("Submitted batch job 17 on cluster lab\\nbye\\n", "17"),
    ],
)
def test_the_job_id_is_found_wherever_a_wrapper_of_the_site_prints_its_own_lines(programs, printed, job_id):
    programs("sbatch", f"printf '{printed}'")
    assert slurm.submit("#!/bin/sh\n", []) == job_id


@pytest.mark.parametrize(
    "printed", ["Welcome to the cluster", "job 17", "17 18", "", "17\\n18", "-17", "1e5", "\u0661"]
)
def test_an_answer_without_one_job_id_is_refused(programs, printed):
    programs("sbatch", f"printf -- '{printed}'")
    with pytest.raises(SlurmError, match="which has no line with a job id; look at `squeue --me`"):
        slurm.submit("#!/bin/sh\n", [])


def test_without_slurm_the_remedy_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmError, match="squeue: not found; submit from a login node"):
        slurm.job_state("1")


def test_a_controller_that_does_not_answer_is_waited_for_so_long_and_no_longer(programs, monkeypatch):
    monkeypatch.setattr(slurm, "_TIMEOUT_S", 0.2)
    programs("squeue", "exec sleep 60")
    with pytest.raises(SlurmError, match="no answer in 0 s; Slurm's controller is busy or down"):
        slurm.job_state("1")


def test_an_id_that_slurm_does_not_know_is_none_and_any_other_failure_is_not(programs):
    programs("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert slurm.job_state("1") is None
    programs("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(SlurmError, match="Unable to contact slurm controller"):
        slurm.job_state("1")


def test_a_pending_job_has_its_reason(programs):
    programs("squeue", "echo '12|PENDING|PartitionNodeLimit|N/A||0:00|hpcxrf|(null)|/a'")
    state = slurm.job_state("12")
    assert (state.state, state.reason, state.ended) == ("PENDING", "PartitionNodeLimit", False)


def test_a_line_of_another_job_or_of_other_columns_says_nothing(programs):
    programs("squeue", "echo '13|RUNNING|None|N/A|n1|0:01|hpcxrf||/a'; echo '12|RUNNING'; echo motd")
    assert slurm.job_state("12") is None


def test_several_jobs_are_looked_up_by_one_call_whatever_their_folders_are_called(programs, tmp_path):
    lines = (
        "'12|RUNNING|None|N/A|n1|0:01|hpcxrf|hpcxrf:ab|/a|b c' '13|PENDING|Priority|N/A||0:00|x|(null)|/c' '99|RUNNING'"
    )
    programs("squeue", f"echo \"$@\" >> {tmp_path}/calls; printf '%s\\n' {lines}")
    states = slurm.job_states(["12", "13", "14"])
    assert {job: state.state for job, state in states.items()} == {"12": "RUNNING", "13": "PENDING"}
    assert (states["12"].comment, states["12"].folder) == ("hpcxrf:ab", "/a|b c")
    [call] = (tmp_path / "calls").read_text().splitlines()
    assert "--jobs=12,13,14" in call
    assert slurm.job_states([]) == {}
    assert len((tmp_path / "calls").read_text().splitlines()) == 1


def test_scancel_of_an_unknown_id_complains_and_ends_with_0(programs):
    programs("scancel", "echo 'scancel: error: Kill job error on job id 9: Invalid job id specified' >&2")
    assert slurm.cancel("9") is False
    programs("scancel", "true")
    assert slurm.cancel("9") is True


def test_many_jobs_are_cancelled_by_few_calls_and_unknown_ones_stop_nothing(programs, tmp_path):
    unknown = "echo 'scancel: error: Kill job error on job id 9: Invalid job id specified' >&2; exit 1"
    programs("scancel", f"echo $# >> {tmp_path}/calls; {unknown}")
    slurm.cancel_jobs([str(number) for number in range(1500)])
    assert (tmp_path / "calls").read_text().split() == ["1000", "500"]
    slurm.cancel_jobs([])
    assert len((tmp_path / "calls").read_text().split()) == 2
    programs("scancel", "echo 'scancel: error: Access/permission denied' >&2; exit 1")
    with pytest.raises(SlurmError, match="permission denied"):
        slurm.cancel_jobs(["9"])


def test_requeueing_that_is_forbidden_is_an_answer_and_no_error(programs):
    programs("scontrol", "echo 'Requested operation is presently disabled for job 5' >&2; exit 1")
    assert slurm.requeue("5") is False
    programs("scontrol", "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(SlurmError, match="Unable to contact"):
        slurm.requeue("5")


def test_partitions_are_read_with_their_kinds_of_nodes(programs):
    programs(
        "sinfo",
        "printf '%s\\n' 'gpu*|up|1-00:00:00|2|64|515000|gpu:a100:4(S:0-1)' "
        "'cpu|down|infinite|100|32|120000|(null)' 'mix|up|30:00|1|8|6000|gpu:2,gpu:h100:1'",
    )
    gpu, cpu, mix = slurm.partitions()
    assert (gpu.name, gpu.default, gpu.gpus, gpu.time_limit_s, gpu.memory_mb) == ("gpu", True, 4, 86400, 515000)
    assert (cpu.default, cpu.up, cpu.time_limit_s, cpu.gpus, cpu.nodes) == (False, False, None, 0, 100)
    assert (mix.gpus, mix.time_limit_s) == (3, 1800)


def test_a_line_of_sinfo_that_cannot_be_read_is_told(programs):
    programs("sinfo", "echo 'main|up|x|3|8|6000|gpu:4'")
    with pytest.raises(SlurmError, match="sinfo: printed 'main"):
        slurm.partitions()


def test_of_a_record_the_first_field_of_a_name_counts(programs):
    programs("scontrol", "echo 'JobId=5 JobState=FAILED Reason=NonZeroExitCode WorkDir=/a JobState=COMPLETED'")
    assert slurm.job_record("5")["JobState"] == "FAILED"
