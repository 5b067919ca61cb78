"""A run that is submitted to a real Slurm from the page, and followed to its end."""

import pytest
import yaml
from playwright.sync_api import expect
from run_folders import served

from hpcxrf.cluster.job_files import read_events
from hpcxrf.runner.datasets import read_datasets
from hpcxrf.store.rundir import RunDir
from tests.cluster.drills import make_scans

pytestmark = [pytest.mark.slurm, pytest.mark.browser, pytest.mark.more, pytest.mark.timeout(290)]


N_SCANS = 70


def test_a_run_is_submitted_from_the_page_followed_stopped_and_goes_on(slurm_cluster, tmp_path, open_page):
    folder = tmp_path / "runs"
    folder.mkdir()
    # Slurm is asked every 20 s: a job of thirty scans is over before it is seen at work.
    make_scans(tmp_path / "scans", N_SCANS)
    raw = {
        "input": {"files": [str(tmp_path / "scans")]},
        "fit": {"suggest": False},
        "regions": {"find": []},
        "execution": {"dashboard": False},
    }
    with served(folder) as (_, address):
        page = open_page(address)
        page.wait_for_selector("html[data-runs=ready]", state="attached")
        page.get_by_label("text of the run file").fill(yaml.safe_dump(raw))
        expect(page.locator(".checked")).to_contain_text("No fault")
        page.get_by_label("Name", exact=True).fill("leaf-1")
        page.get_by_label("Run on").select_option("testcluster")
        page.get_by_label("Time limit").fill("0:20:00")
        page.get_by_role("button", name="Show the script").click()
        dialog = page.get_by_role("dialog")
        script = dialog.get_by_label("script").inner_text()
        assert "#SBATCH --time=0:20:00" in script or "#SBATCH --time=00:20:00" in script
        assert not (folder / "leaf-1").exists()
        assert slurm_cluster.run("squeue", "-h").strip() == ""
        dialog.get_by_role("button", name="Submit it").click()
        row = page.locator("table.runs tr", has=page.get_by_role("button", name="leaf-1", exact=True))
        expect(row.locator(".chip")).to_have_text("running", timeout=60_000)
        assert (folder / "leaf-1" / "jobs" / "job.sh").read_text().strip() == script.strip()
        expect(page.locator(".work-row").first).to_be_visible(timeout=120_000)
        # Stopped by a second word, and gone on with by the same script.
        page.get_by_role("button", name="Stop…").click()
        page.get_by_role("dialog").get_by_role("button", name="Stop it").click()
        expect(row.locator(".chip")).to_have_text("cancelled", timeout=90_000)
        page.get_by_role("button", name="Go on…").click()
        assert page.get_by_role("dialog").get_by_label("script").inner_text().strip() == script.strip()
        page.get_by_role("dialog").get_by_role("button", name="Submit it").click()
        expect(row.locator(".chip")).to_have_text("done", timeout=180_000)
        expect(page.get_by_label("end of the log")).not_to_be_empty()
        expect(row.get_by_role("link", name="Report")).to_be_visible()
        page.close()
    run = RunDir(path=folder / "leaf-1")
    assert [record.state for record in read_datasets(run)] == ["done"] * N_SCANS
    assert [event["event"] for event in read_events(run)].count("submitted") == 2
    assert yaml.safe_load((folder / "leaf-1.yaml").read_text()) == raw
