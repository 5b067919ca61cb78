"""`hpcxrf quantify` of a run that was submitted: another job makes the areal densities, and fits nothing again."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from normalise_samples import FLUX, TABLE, write_timed_scan

from hpcxrf.results.store.opening import open_results
from hpcxrf.store.rundir import RunDir
from tests.samples.stand_in_jobs import until, until_queue

pytestmark = [pytest.mark.slurm, pytest.mark.more, pytest.mark.timeout(290)]

CERTIFIED = {"Ca": 2.0, "Fe": 0.5}


def count_finished(run: RunDir, stage: str) -> int:
    lines = (line for name in run.dataset_ids() for line in run.read_journal(name))
    return sum(line["event"] == "finished" and line["stage"] == stage for line in lines)


def test_a_submitted_run_gets_its_areal_densities_by_a_second_job(hpcxrf, lab, slurm_cluster, monkeypatch):
    monkeypatch.setenv("HPCXRF_SITES", str(Path(__file__).parents[2] / "slurm"))
    write_timed_scan(lab / "scan")
    standard = write_timed_scan(lab / "standard", shape=(5, 7), seed=11)
    (lab / "table.yaml").write_text(
        yaml.safe_dump(
            {
                "standards": [
                    {
                        "name": "film 7",
                        "source": "made",
                        "unit": "ug/cm2",
                        "file": "scan.npz",
                        "relative_error": 0.03,
                        "elements": CERTIFIED,
                    }
                ]
            }
        )
    )
    raw = {"input": {"files": ["scan/scan.npz"]}, "regions": {"find": []}, "fit": {"suggest": False}}
    (lab / "run.yaml").write_text(yaml.safe_dump(raw))
    ran = hpcxrf("submit", "run.yaml", "--site", "testcluster", "-o", "out", "--json")
    assert ran.code == 0, ran.err
    first = until(hpcxrf, "out", "done", 200.0)["job_id"]
    until_queue(slurm_cluster, set(), 60.0)
    run = RunDir(path=lab / "out")
    pixels, fits = count_finished(run, "pixels"), count_finished(run, "integrated")
    scalers = json.dumps({"us_ic": TABLE["us_ic"]})
    ran = hpcxrf(
        *("quantify", "out", "--standard", str(standard), "--standards", "table.yaml", "--i0", "us_ic"),
        *("--reference", str(FLUX), "--set", f"normalise.scalers={scalers}", "--json"),
    )
    assert ran.code == 0, ran.err
    second = until(hpcxrf, "out", "done", 200.0)["job_id"]
    assert second != first
    assert (count_finished(run, "pixels"), count_finished(run, "integrated")) == (pixels, fits)
    assert count_finished(run, "quantify") == 1
    (name,) = run.dataset_ids()
    with open_results(run.results_store(name)) as tree:
        densities = tree["areal_density"].to_dataset()
        mean = densities.areal_density.mean(("y", "x")).sel(detector="sum")
        # The sample is the standard, measured again.
        for element, density in CERTIFIED.items():
            assert float(mean.sel(component=element)) == pytest.approx(density, rel=0.03)
        assert np.isfinite(densities.sigma).all()
