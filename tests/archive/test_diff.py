"""Two runs beside each other: figures against numpy, outcomes, matching, JSON, exit codes."""

import json
import math
import shutil
import subprocess
import sys

import numpy as np
import pytest
from diff_samples import SHAPE, amplitude_map, write_result

from hpcxrf.archive.diff.compare import judge_outcome
from hpcxrf.archive.diff.facts import Change, DetectorChange, Limits
from hpcxrf.archive.diff.walk import compare_runs
from hpcxrf.fitting.status import FitStatus
from hpcxrf.fitting.verdict import Verdict

LIMITS = Limits()
GOOD, DOUBTFUL, WRONG = int(Verdict.GOOD), int(Verdict.DOUBTFUL), int(Verdict.WRONG)


def compare(first, second, *, most=5, limits=LIMITS):
    with compare_runs(first, second, limits=limits, most=most) as found:
        return list(found.read_all()), found.summary.describe(), [found.read(offset) for offset in found.most]


@pytest.fixture
def plain(tmp_path):
    return write_result(tmp_path / "one" / "results" / "leaf-00000001.zarr")


def test_a_result_and_its_copy_are_the_same(plain, tmp_path, hpcxrf):
    shutil.copytree(plain, tmp_path / "copy.zarr")
    rows, summary, most = compare(plain, tmp_path / "copy.zarr")
    assert (rows[0]["outcome"], rows[0]["largest"], most) == ("same", 0.0, [])
    assert (summary["same"], summary["changed"], summary["configuration"]) == (1, 0, [])
    assert hpcxrf("diff", plain, tmp_path / "copy.zarr", "--fail-on-change").code == 0


def test_theta_is_compared_in_its_uncertainty(plain, tmp_path):
    other = write_result(tmp_path / "other.zarr", theta={"energy_offset": 3.0, "fwhm_offset": -0.5})
    (row,), summary, (most,) = compare(plain, other)
    moved = {one["name"]: one for one in row["detectors"][0]["theta"]}
    assert moved["energy_offset"]["in_sigma"] == pytest.approx(3.0)
    assert moved["energy_offset"]["second"] - moved["energy_offset"]["first"] == pytest.approx(3.0 * 2e-4)
    assert moved["fwhm_offset"]["in_sigma"] == pytest.approx(0.5)
    assert math.isnan(moved["step_offset"]["in_sigma"])  # held
    assert row["largest"] == pytest.approx(3.0)
    assert row["largest_of"] == "energy_offset, detector 0"
    assert most["name"] == "leaf"
    # Theta moved and the deviance did not: neither better nor worse, but changed.
    assert (row["outcome"], summary["changed"]) == ("same", 1)


def test_a_held_parameter_with_another_value_is_a_change(plain, tmp_path):
    other = write_result(tmp_path / "other.zarr", theta={"step_offset": 0.01})
    (row,), summary, _ = compare(plain, other)
    assert (row["largest"], summary["changed"]) == (0.0, 1)


def test_ratio_and_differences_of_maps_are_those_of_numpy(plain, tmp_path):
    other = write_result(tmp_path / "other.zarr", scale={"Fe": 1.25})
    (row,), _, _ = compare(plain, other)
    maps = {one["component"]: one for one in row["detectors"][0]["maps"]}
    ours, sigma = amplitude_map("Fe")
    theirs, _ = amplitude_map("Fe", 1.25)
    both = np.isfinite(sigma)
    assert maps["Fe"]["ratio"] == pytest.approx(theirs.sum() / ours.sum())
    assert maps["Fe"]["in_sigma"] == pytest.approx(np.sqrt(np.mean(((theirs - ours)[both] / sigma[both]) ** 2)))
    assert maps["Fe"]["pixels"] == SHAPE[0] * SHAPE[1]
    assert maps["Ca"]["ratio"] == pytest.approx(1.0)
    assert maps["Ca"]["in_sigma"] == 0.0
    assert row["largest_of"] == "map of Fe, detector 0"


def test_components_detectors_and_outcomes_of_pixels(plain, tmp_path):
    components = ("S", "K", "Ca", "Fe", "compton", "elastic")
    other = write_result(tmp_path / "other.zarr", components=components, detectors=("0", "1"), bad_pixels=7)
    (row,), summary, _ = compare(plain, other)
    assert row["only_first"] == ["Ti", "Cr", "Mn", "Ni", "Cu", "Zn"]
    assert row["only_second"] == ["detector 1"]
    (detector,) = row["detectors"]
    assert detector["pixels"]["saturated"] == [0, 7]
    assert detector["pixels"]["converged"] == [SHAPE[0] * SHAPE[1] - 1, SHAPE[0] * SHAPE[1] - 8]
    assert detector["pixels_changed"] == 7
    assert {one["component"] for one in detector["maps"]} == set(components)
    assert all(one["in_sigma"] == 0.0 for one in detector["maps"])  # matched by name, not by place
    assert summary["changed"] == 1


def test_options_and_versions_that_differ_are_named_and_counted(plain, tmp_path):
    environment = {"torch": "2.10", "processor": "one"}
    first = write_result(
        tmp_path / "first.zarr", attributes={"provenance": {"environment": environment, "constants": {"k": "3.58"}}}
    )
    told = {"environment": {**environment, "torch": "2.11"}, "constants": {"k": "2.96"}}
    changed = {"input": {"files": ["/data/other.h5"]}, "fit": {"kbeta_sd": 0.15, "free": ["step_offset"]}}
    second = write_result(tmp_path / "second.zarr", configuration=changed, attributes={"provenance": told})
    (row,), summary, _ = compare(first, second)
    assert row["configuration"] == [["fit.free", "(absent)", '["step_offset"]'], ["fit.kbeta_sd", "0.0", "0.15"]]
    assert row["versions"] == [["torch", "2.10", "2.11"], ["k", "3.58", "2.96"]]
    assert {"name": "fit.kbeta_sd", "first": "0.0", "second": "0.15", "datasets": 1} in summary["configuration"]


def detector(name="0", *, deviance=(1.0, 1.0), verdict=(GOOD, GOOD), status=(1, 1)):
    return DetectorChange(
        detector=name, r2=(0.99, 0.99), r2_expected=(1.0, 1.0), deviance=deviance, verdict=verdict, status=status
    )


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ([{}], "same"),
        ([{"deviance": (1.0, 1.0099)}], "same"),
        ([{"deviance": (1.0, 1.011)}], "worse"),
        ([{"deviance": (2.0, 1.97)}], "better"),
        ([{"deviance": (1.0, math.nan)}], "same"),
        ([{"verdict": (GOOD, DOUBTFUL), "deviance": (2.0, 1.0)}], "worse"),
        ([{"verdict": (WRONG, DOUBTFUL), "deviance": (1.0, 2.0)}], "better"),
        ([{"verdict": (0, DOUBTFUL)}], "same"),  # not judged before
        ([{"status": (int(FitStatus.CONVERGED), int(FitStatus.SINGULAR)), "verdict": (WRONG, GOOD)}], "worse"),
        ([{"status": (int(FitStatus.MAX_ITERATIONS), 1)}], "better"),
        ([{"deviance": (1.0, 1.5)}, {"deviance": (1.0, 0.5)}], "mixed"),
        ([{"deviance": (1.0, 1.5)}, {}], "worse"),
        ([], "same"),
    ],
)
def test_outcomes_follow_fit_then_verdict_then_deviance(changes, outcome):
    found, why = judge_outcome([detector(str(i), **one) for i, one in enumerate(changes)], LIMITS)
    assert found == outcome
    assert bool(why) == (outcome != "same")


def test_a_change_is_measured_in_the_larger_uncertainty():
    change = Change(name="x", unit="1", first=1.0, first_sigma=0.1, second=2.0, second_sigma=0.5)
    assert change.in_sigma == pytest.approx(2.0)
    held = Change(name="x", unit="1", first=1.0, first_sigma=math.nan, second=1.0, second_sigma=math.nan)
    assert math.isnan(held.in_sigma)
    assert not held.is_moved


def run_of(folder, **results):
    for name, options in results.items():
        write_result(folder / "results" / f"{name}.zarr", **options)
    return folder


def test_datasets_are_matched_by_name_then_checksum_then_path(tmp_path):
    first = run_of(
        tmp_path / "first",
        same={"sha256": "1" * 64, "source": "/a/same.h5"},
        moved={"sha256": "2" * 64, "source": "/a/moved.h5"},
        edited={"sha256": "3" * 64, "source": "/a/edited.h5"},
        gone={"sha256": "4" * 64, "source": "/a/gone.h5"},
    )
    second = run_of(
        tmp_path / "second",
        same={"sha256": "9" * 64, "source": "/b/other.h5"},
        moved2={"sha256": "2" * 64, "source": "/b/moved.h5"},
        edited2={"sha256": "8" * 64, "source": "/a/edited.h5"},
        fresh={"sha256": "7" * 64, "source": "/b/fresh.h5"},
    )
    rows, summary, _ = compare(first, second)
    assert {(row["first"], row["second"], row["matched_by"]) for row in rows} == {
        ("same", "same", "dataset_id"),
        ("moved", "moved2", "checksum"),
        ("edited", "edited2", "path"),
        ("gone", None, ""),
        (None, "fresh", ""),
    }
    assert (summary["only_in_first"], summary["only_in_second"], summary["compared"]) == (1, 1, 3)


def test_a_store_that_cannot_be_read_stops_no_other(tmp_path, hpcxrf):
    first = run_of(tmp_path / "first", a={}, b={"sha256": "b" * 64})
    second = run_of(tmp_path / "second", a={}, b={"sha256": "b" * 64})
    shutil.rmtree(second / "results" / "a.zarr" / "spectrum")
    rows, summary, most = compare(first, second)
    assert [row["outcome"] for row in rows] == ["worse", "same"]
    assert "spectrum" in rows[0]["fault"]
    assert (summary["without_results"], summary["worse"], most[0]["first"]) == (1, 1, "a")
    assert hpcxrf("diff", first, second, "--fail-on-change").code == 8


def test_json_is_one_object_with_every_dataset_and_no_nan(tmp_path, hpcxrf):
    first = run_of(tmp_path / "first", a={}, b={"sha256": "b" * 64})
    second = run_of(tmp_path / "second", a={"theta": {"energy_offset": 2.0}}, b={"sha256": "b" * 64})
    ran = hpcxrf("diff", first, second, "--json", "--sigma", "2.5")
    assert ran.code == 0
    assert "NaN" not in ran.out
    assert [one["first"] for one in ran.json["datasets"]] == ["a", "b"]
    assert ran.json["limits"] == {"deviance": 0.01, "sigma": 2.5}
    assert ran.json["summary"]["changed"] == 0
    assert ran.json["datasets"][0]["detectors"][0]["verdict"] == ["good", "good"]
    failed = hpcxrf("diff", first, second, "--fail-on-change")
    assert failed.code == 8
    assert "1 dataset differs" in failed.err
    assert "energy_offset, detector 0" in failed.out


def test_it_loads_neither_torch_nor_dask(plain):
    code = (
        "import sys\nfrom hpcxrf.cli import main\n"
        f"sys.argv = ['hpcxrf', 'diff', {str(plain)!r}, {str(plain)!r}, '-o', {str(plain.parent / 'page.html')!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'torch', 'dask', 'distributed', 'numba'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_nothing_to_compare_is_an_error(tmp_path, plain, hpcxrf):
    (tmp_path / "empty").mkdir()
    assert hpcxrf("diff", plain, tmp_path / "empty").code == 4
    told = hpcxrf("diff", tmp_path / "lost", tmp_path / "gone")
    assert told.code == 4
    assert f"{tmp_path / 'lost'}: no results here" in told.err
    assert f"{tmp_path / 'gone'}: no results here" in told.err


def test_what_a_dataset_says_does_not_depend_on_what_came_before(tmp_path):
    """Nothing of a dataset is held: each line of the file stands for itself."""
    names = {f"s{i:02}": {"sha256": f"{i:064}", "theta": {"energy_offset": float(i)}} for i in range(6)}
    first = run_of(tmp_path / "first", **{name: {"sha256": one["sha256"]} for name, one in names.items()})
    second = run_of(tmp_path / "second", **names)
    rows, summary, most = compare(first, second, most=2)
    assert [round(row["largest"]) for row in rows] == list(range(6))
    assert [one["first"] for one in most] == ["s05", "s04"]
    assert summary["median_largest_in_sigma"] == pytest.approx(2.5)
    assert json.loads(json.dumps(summary["verdicts"])) == [{"first": "good", "second": "good", "datasets": 6}]
