"""The exit code of a batch script, on which mails and chains of jobs depend."""

from types import SimpleNamespace

import pytest

from hpcxrf.cluster.job.__main__ import choose_exit_code
from hpcxrf.runner.datasets import append_dataset
from hpcxrf.runner.records import DatasetRecord
from hpcxrf.store.rundir import create_or_resume


@pytest.mark.parametrize(
    ("states", "fail_job", "code", "expected"),
    [
        (("done", "failed"), False, 6, 0),
        (("done", "failed"), True, 6, 6),
        (("failed", "failed"), False, 6, 6),
        (("done", "done"), False, 0, 0),
        (("done", "failed"), False, 75, 75),
    ],
)
def test_failed_datasets_end_a_job_well_only_among_good_ones(tmp_path, states, fail_job, code, expected):
    run = create_or_resume(tmp_path / "run", "", {"input": {}})
    for number, state in enumerate(states):
        append_dataset(run, DatasetRecord(dataset_id=f"s{number}", name=f"s{number}.h5", state=state), number)
    job = SimpleNamespace(run=run, request=SimpleNamespace(fail_job_on_failed_dataset=fail_job))
    assert choose_exit_code(job, code) == expected
