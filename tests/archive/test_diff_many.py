"""Two runs of many datasets, failures among them: memory stays flat, and what failed in both has not changed."""

import os
import shutil
import subprocess
import sys

import pytest
from diff_samples import write_result
from run_folders import end_dataset, ended_run

from hpcxrf.archive.diff.facts import Limits
from hpcxrf.archive.diff.walk import compare_runs

_MEASURE = """
import resource, sys
from pathlib import Path
from hpcxrf.archive.diff.facts import Limits
from hpcxrf.archive.diff.page import write_diff_page
from hpcxrf.archive.diff.walk import compare_runs

first, second = Path(sys.argv[1]), Path(sys.argv[2])
with compare_runs(first, second, limits=Limits(), most=5) as found:
    write_diff_page(found, first / "page.html")
    assert found.summary.compared == int(sys.argv[3])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_failures_are_worse_better_or_neither(tmp_path):
    runs = [ended_run(tmp_path / name) for name in ("first", "second")]
    states = {"leaf_0-00000000": "df", "leaf_1-00000001": "fd", "leaf_2-00000002": "ff", "leaf_3-00000003": "dd"}
    for number, (name, pair) in enumerate(states.items()):
        for run, state in zip(runs, pair, strict=True):
            done = state == "d"
            end_dataset(run, number, "done" if done else "failed", "" if done else "is cut short")
            if done:
                write_result(run.path / "results" / f"{name}.zarr", title=name)
    with compare_runs(runs[0].path, runs[1].path, limits=Limits(), most=5) as found:
        rows = {row["first"]: row for row in found.read_all()}
        summary, most = found.summary.describe(), [found.read(offset)["first"] for offset in found.most]
    assert {name: row["outcome"] for name, row in rows.items()} == {
        "leaf_0-00000000": "worse",
        "leaf_1-00000001": "better",
        "leaf_2-00000002": "same",
        "leaf_3-00000003": "same",
    }
    assert rows["leaf_0-00000000"]["second_reason"] == "is cut short"
    assert (summary["changed"], summary["without_results"]) == (2, 3)
    assert sorted(most) == ["leaf_0-00000000", "leaf_1-00000001"]


def spread(seed, run, number):
    for i in range(number):
        shutil.copytree(seed, run / "results" / f"leaf-{i:08x}.zarr", copy_function=os.link)
    return run


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_datasets(tmp_path):
    first = write_result(tmp_path / "first.zarr")
    second = write_result(tmp_path / "second.zarr", theta={"energy_offset": 2.0}, scale={"Fe": 1.1})
    peaks = []
    for number in (10, 150):
        runs = [spread(seed, tmp_path / f"{seed.stem}-{number}", number) for seed in (first, second)]
        done = subprocess.run(
            [sys.executable, "-c", _MEASURE, *map(str, runs), str(number)], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout))
    # A row of the page takes some 10 kB as it is written.
    assert peaks[1] < peaks[0] * 1.1, peaks
