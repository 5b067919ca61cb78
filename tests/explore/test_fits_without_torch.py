"""Fits are asked for, kept and written out by a server that cannot load torch: only the process that fits does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from explore_runs import copy_run, film_run

pytestmark = pytest.mark.timeout(290)
ROOT = Path(__file__).resolve().parents[2]
SERVER = """
import json, sys, time
sys.modules["torch"] = sys.modules["numba"] = None
from pathlib import Path
from hpcxrf.explore.fit_session import FitSession
KINDS = ("override", "run_file")
one = FitSession(Path(sys.argv[1]), sys.argv[2])
try:
    job = one.submit({"detector": "0", "kind": "full", "keep": True})["id"]
    while (state := one.poll(job))["state"] in {"waiting", "running"}:
        time.sleep(0.02)
    assert state["state"] == "done", state
    kept = one.history()
    told = {
        "r2": state["fit"]["r2"],
        "run": one.run_fit("0")["r2"],
        "kept": len(kept),
        "elements": len(one.elements("sum")),
        "files": [one.write({"kind": kind, "fit": kept[0]["id"]})["file_name"] for kind in KINDS],
        "before": one.take_back(),
    }
finally:
    one.close()
print(json.dumps(told))
"""


def test_everything_of_fits_but_the_fits_does_without_torch(shared_data, tmp_path):
    made = copy_run(film_run(shared_data), tmp_path / "film")
    argv = [sys.executable, "-c", SERVER, str(made.run_dir), made.dataset_id]
    ran = subprocess.run(
        argv, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=250
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["r2"] == told["run"]
    assert (told["kept"], told["before"]) == (1, None)
    assert told["elements"] > 80
    assert len(told["files"]) == 2
