"""A small case study in one command: everything that the page promises, going on, and what failed."""

import csv
import subprocess
import sys

import numpy as np
import pytest
import yaml

from hpcxrf.cluster.local.run import run_here
from hpcxrf.config.run import load_run_file
from hpcxrf.errors import FitError
from hpcxrf.runner.workload import PlanRequest
from hpcxrf.studies.case_study.data import StudyOutcome, gather_study
from hpcxrf.studies.case_study.gather import plan_fits, read_outcome
from hpcxrf.studies.case_study.page import draw_figures
from hpcxrf.studies.case_study.plan import SINGLE, study_scan
from hpcxrf.studies.case_study.tables import list_fit_rows, list_pixel_rows
from hpcxrf.studies.case_study.workload import make_dataset

pytestmark = pytest.mark.more

PICTURES = ("first-pass", "misfits", "regions", "single-pixels", "region-maps", "maps")


@pytest.fixture(scope="module")
def run_file(tmp_path_factory):
    raw = {
        "input": {"files": ["scan/plant.h50"]},
        "fit": {"calibration": "none", "override": "none"},
        "regions": {"find": ["squares"], "k": 3, "side": 6},
        "case_study": {
            "size": [60, 50],
            "seed": 12,
            "starts": 1,
            "adam_steps": 12,
            "sbplx_evaluations": 40,
            "pixels": 4,
            "trials": 1,
            "draws": 2,
            "pixel_adam_steps": 8,
            "pixel_sbplx_evaluations": 20,
            "map_adam_steps": 5,
            "map_sbplx_evaluations": 10,
        },
        "execution": {"workers": 2, "dashboard": False},
    }
    path = tmp_path_factory.mktemp("study") / "study.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def _command(run_file, folder) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-m", "hpcxrf", "case-study", str(run_file), "-o", str(folder)]
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def finished(run_file):
    folder = run_file.parent / "out"
    return folder, _command(run_file, folder)


def _table(path):
    with path.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _state(folder) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted((folder / "state").glob("*.jsonl"))}


def test_one_command_simulates_fits_and_writes_page_pictures_and_tables(finished):
    folder, done = finished
    assert done.returncode == 0, done.stderr
    page = (folder / "case_study.html").read_text(encoding="utf-8")
    assert page.count("<img src=") == len(PICTURES)
    assert "0.872" in page
    assert "−0.050" in page
    assert "Adam 12 steps, SBPLX 40 evaluations; the 4" in page
    for limits in ("Adam 8, SBPLX 20", "Adam 5, SBPLX 10"):
        assert limits in page
    for name in PICTURES:
        picture = folder / "pictures" / f"{name}.png"
        assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    for run in ("linear", "poisson"):
        assert (folder / run / "report.html").is_file()


def test_the_product_finds_the_first_pass_and_the_trial_without_a_calibration(finished):
    rows = {(r["group"], r["method"]): r for r in _table(finished[0] / "fits.csv")}
    assert float(rows["first-pass", "product"]["median"]) > 0.99
    assert float(rows["trials", "product"]["median"]) > 0.99
    # Few steps from random values lead nowhere, which is what they are here for.
    assert float(rows["first-pass", "sbplx"]["median"]) < 0.9
    assert float(rows["first-pass", "adam"]["evaluations"]) == 12.0
    assert all(row["failed"] == "0" for row in rows.values())
    assert {m for g, m in rows if g == "first-pass"} >= {"adam", "adam-guessed", "sbplx", "sbplx-guessed"}
    for method in ("adam", "sbplx"):
        assert float(rows["first-pass", f"{method}-guessed"]["median"]) > float(rows["first-pass", method]["median"])


def test_every_region_has_a_bias_over_draws_of_its_noise(finished):
    rows = _table(finished[0] / "draws.csv")
    assert {(r["group"], r["method"]) for r in rows} == {
        (f"draws-{i}", m) for i in range(3) for m in ("product", "adam", "sbplx")
    }
    assert all((row["n"], row["failed"]) == ("2", "0") for row in rows)
    areas = {(r["group"][-1], r["method"], r["component"]): r for r in _table(finished[0] / "areas.csv")}
    for row in rows:
        # A draw is of the same expectation as the region's own spectrum.
        assert float(row["true"]) == float(areas[row["group"][-1], row["method"], row["component"]]["true"])
        if row["component"] in {"K", "Ca"} and row["method"] == "product" and float(row["true"]) > 500.0:
            assert abs(float(row["bias"])) < 4.0 * float(row["true"]) ** -0.5 + 0.1
    assert 'id="draws"' in (finished[0] / "case_study.html").read_text(encoding="utf-8")


def test_maps_of_the_whole_scan_are_unbiased_within_their_errors(finished):
    rows = _table(finished[0] / "maps.csv")
    whole = [r for r in rows if (r["group"], r["method"]) == ("scan", "linear")]
    assert len(whole) == 3
    for row in whole:
        # The scan's own fit has an error as well, which all pixels share.
        limit = 4.0 * float(row["bias_error"]) + 0.05
        assert abs(float(row["bias"])) < limit, row["component"]


def test_the_same_command_does_nothing_again_and_another_seed_is_refused(finished, run_file):
    folder, _ = finished
    before = _state(folder)
    assert _command(run_file, folder).returncode == 0
    assert _state(folder) == before
    raw = yaml.safe_load(run_file.read_text())
    raw["case_study"]["seed"] = 13
    other = run_file.with_name("other.yaml")
    other.write_text(yaml.safe_dump(raw))
    told = _command(other, folder)
    assert told.returncode == 4
    assert "case_study.seed" in told.stderr
    config, text = load_run_file(other)
    with pytest.raises(FitError, match="another size or seed"):
        run_here(config, text, run_file.parent / "elsewhere")


@pytest.fixture(scope="module")
def gathered(finished, run_file):
    """What was found, as if the fits of one method on some pixels had failed."""
    folder, _ = finished
    config, _ = load_run_file(run_file)
    spec = study_scan(config)
    job = make_dataset(PlanRequest(config=config, run_dir=folder, kept={}), spec)
    units, mapped = plan_fits(job)
    records = read_outcome(job, units).records
    assert records.keys() == {u.task for u in units}
    lost = ["single-pixels-1-adam-0000", "first-pass-sbplx-000"]
    kept = {task: record for task, record in records.items() if task not in lost}
    outcome = StudyOutcome(records=kept, failures=dict.fromkeys(lost, "memory"))
    return gather_study(job, units, outcome, spec, mapped)


def test_what_failed_is_counted_and_stops_no_figure(gathered):
    pixels = {(r.group, r.method): r for r in list_pixel_rows(gathered) if r.component == "Cu"}
    assert len(pixels) == 3 * len(SINGLE)
    lost = pixels["single-pixels-1", "adam"]
    assert (lost.n, lost.failed) == (4, 4)
    assert np.isnan(lost.error)
    assert pixels["single-pixels-0", "adam"].failed == 0
    first = {r.method: r for r in list_fit_rows(gathered, ("first-pass",))}
    assert (first["sbplx"].n, first["sbplx"].failed, first["sbplx"].good) == (1, 1, 0)
    assert first["adam"].failed == 0
    drawn = draw_figures(gathered)
    assert tuple(drawn) == PICTURES
    assert len(drawn["region-maps"].axes) == 3 * (1 + 2 + 2 + 1)


def test_the_truth_of_a_region_is_the_sum_of_its_pixels(gathered):
    for box, sums in zip(gathered.boxes, gathered.region_truth, strict=True):
        for trace in gathered.traces:
            assert sums[trace] == pytest.approx(float(gathered.truth[trace][box].sum()))
    spectra = gathered.spectra
    for region in range(3):
        np.testing.assert_array_equal(spectra[f"region-{region}"][0], spectra[f"pixels-{region}"].sum(axis=0))
