"""The film of the microprobe 2-ID-E: areal densities of measured scans, by the notebook and by the command."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import hpcxrf

pytestmark = pytest.mark.more

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "notebooks" / "archive-to-areal-density.ipynb"
ELEMENTS = "Al,Si,P,S,Cl,Ar,K,Ca,Ti,Cr,Mn,Fe,Co,Ni,Cu,Zn,La_L,Pb_M"
CERTIFIED = {"Ca": 1.931, "Fe": 0.504, "Cu": 0.284}


def run_python(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200", "TERM": "dumb", **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def by_notebook(shared_data, tmp_path_factory):
    """Everything that the cells print, and the run directory."""
    folder = tmp_path_factory.mktemp("notebook")
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(one["source"]) for one in cells if one["cell_type"] == "code")
    # Worker processes import the script: only the notebook itself may run the cells.
    script = folder / "cells.py"
    script.write_text("if __name__ == '__main__':\n" + textwrap.indent(code, "    ") + "\n")
    places = {"HPCXRF_NOTEBOOK_DATA": str(shared_data / "aps-2ide"), "HPCXRF_NOTEBOOK_OUT": str(folder / "out")}
    return run_python(str(script), **places), folder / "out"


def test_the_notebook_runs_and_prints_what_it_says(by_notebook):
    printed, out = by_notebook
    assert "Ca: " in printed
    assert "by own point" in printed
    assert "[1.93" in printed
    assert (out / "tables").is_dir()


def test_the_film_measured_as_a_sample_has_its_own_certificate_in_every_detector(by_notebook):
    results = hpcxrf.open_results(by_notebook[1])
    film = results.areal_density(next(name for name in results if name.startswith("axo_std")))
    for element, density in CERTIFIED.items():
        mean = film.areal_density.sel(component=element).mean(("y", "x"))
        # Pixels are fitted at the theta of the scan, the standard with a theta of its own spectrum: .5 % apart at most.
        np.testing.assert_allclose(mean, density, rtol=0.008)


def test_the_detectors_agree_within_two_per_cent_in_the_ratios_of_the_sample(by_notebook):
    """Of detectors 0 and 1; 2 and 3 of this scan hardly saw the sample."""
    results = hpcxrf.open_results(by_notebook[1])
    sample = results.areal_density(next(name for name in results if name.startswith("2xfm_0010")))
    mean = sample.areal_density.sel(detector=["0", "1"], component=list(CERTIFIED)).mean(("y", "x")).values
    noise = np.sqrt((sample.counting_sigma.sel(detector=["0", "1"], component=list(CERTIFIED)) ** 2).sum(("y", "x")))
    error = (noise / sample.sizes["y"] / sample.sizes["x"]).values / mean
    ratio = mean[1] / mean[0]
    spread = np.abs(ratio / ratio.mean() - 1.0)
    assert (spread < 0.02 + 2 * np.hypot(*error)).all(), (ratio, error)


def test_the_curve_misses_the_film_by_no_more_than_it_says(by_notebook):
    results = hpcxrf.open_results(by_notebook[1])
    rows = results.areal_density(next(iter(results))).attrs["leave_one_out"]
    assert {row["family"] for row in rows} == set(CERTIFIED)
    for row in rows:
        assert abs(row["pull"]) < 2.0, row
        assert row["sigma"] < 0.25, row
    assert {row["family"]: round(100 * row["deviation"]) for row in rows} == pytest.approx(
        {"Ca": 42, "Fe": -21, "Cu": -11}, abs=4
    )


def test_a_run_that_is_there_is_quantified_without_fitting_it_again(shared_data, tmp_path, by_notebook):
    mda = shared_data / "aps-2ide" / "mda"
    options = ("--elements", ELEMENTS, "--energy", "10", "--workers", "1", "--set", "regions.find=[]")
    run_python("-m", "hpcxrf", "run", str(mda / "2xfm_0010.mda"), "-o", str(tmp_path / "out"), *options)
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out" / "spectra").iterdir()}
    asked = ("quantify", str(tmp_path / "out"), "--standard", str(mda / "axo_std.mda"), "--i0", "us_ic")
    run_python("-m", "hpcxrf", *asked)
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out" / "spectra").iterdir()} == before
    (journal,) = (tmp_path / "out" / "state").glob("2xfm*.jsonl")
    tasks = [json.loads(line)["task"] for line in journal.read_text().splitlines() if '"finished"' in line]
    assert tasks.count("ingest") == tasks.count("integrated") == 1
    assert tasks.count("finalise") == 2
    results, whole = hpcxrf.open_results(tmp_path / "out"), hpcxrf.open_results(by_notebook[1])
    name = next(one for one in whole if one.startswith("2xfm_0010"))
    np.testing.assert_array_equal(results.areal_density().areal_density, whole.areal_density(name).areal_density)
    assert "as it was written" in run_python("-m", "hpcxrf", "verify", str(tmp_path / "out"))
    # Another certificate error: the maps are derived again; own points stay, their sigma does not.
    run_python("-m", "hpcxrf", *asked, "--relative-error", "0.2")
    again = hpcxrf.open_results(tmp_path / "out").areal_density()
    own = {"component": list(CERTIFIED)}
    np.testing.assert_array_equal(again.areal_density.sel(own), whole.areal_density(name).areal_density.sel(own))
    assert float(again.relative_error.sel(detector="0", component="Fe", term="standard")) == pytest.approx(0.2)
