"""Minutes of random clicking: no fault in the page, no growth of the server, every answer of counts right.

`HPCXRF_SOAK_MINUTES` and `HPCXRF_SOAK_SEED` set another time and another seed.
"""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from playwright.sync_api import expect
from run_folders import served
from soak import SCRIPT, Soak, inside

MINUTES = os.environ.get("HPCXRF_SOAK_MINUTES")
SEED = int(os.environ.get("HPCXRF_SOAK_SEED", "1"))
WARM = 0.25
"""Share of the time after which everything has been used once."""
MOST_GROWTH = 0.10


@pytest.mark.browser
@pytest.mark.parametrize(
    "minutes",
    [
        pytest.param(1.0, marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
        pytest.param(10.0, marks=[pytest.mark.slow, pytest.mark.timeout(3000)]),
    ],
)
def test_random_clicking_finds_no_fault_and_the_server_does_not_grow(demo, tmp_path, browser, minutes):
    minutes = float(MINUTES or minutes)
    run_dir = Path(shutil.copytree(demo, tmp_path / "demo"))
    dataset_id = next((run_dir / "results").glob("*.zarr")).stem
    said, memory = [], []
    with served(run_dir) as (process, address):
        context = browser.new_context(viewport={"width": 1280, "height": 1000}, accept_downloads=True)
        context.add_init_script(path=SCRIPT)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda one: said.append(one.text) if one.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: said.append(f"{error}\n{error.stack}"))
        page.goto(address)
        page.locator("html[data-ready=all]").wait_for(state="attached")
        server = psutil.Process(process.pid)
        soak = Soak(page=page, run_dir=run_dir, dataset_id=dataset_id, rng=np.random.default_rng(SEED))
        page.evaluate("(one) => window.soak.warm(one)", dataset_id)
        soak.work(minutes, lambda share: memory.append((share, server.memory_info().rss)))
        # That a request was refused is looked at with its answer.
        faults = [*soak.faults, *(one for one in said if "Failed to load resource" not in one)]
        told = f"seed {SEED}, after {soak.acts} acts, the last ones: " + "; ".join(soak.done)
        assert not faults, f"{faults[0]}\n{told}"
        page.reload()
        page.locator("html[data-ready=all]").wait_for(state="attached")
        expect(page.locator("#fault")).to_be_hidden()
        context.close()
        before = max(rss for share, rss in memory if share <= WARM or share == memory[0][0])
        after = max(rss for share, rss in memory if share > 0.8)
        figures = f"{soak.acts} acts, {soak.compared} answers compared, {before / 1e6:.0f} to {after / 1e6:.0f} MB"
        tenths = [max((rss for share, rss in memory if 10 * share <= at + 1), default=0) / 1e6 for at in range(10)]
        figures += f"; highest so far by tenths of the time: {', '.join(f'{one:.0f}' for one in tenths)}"
        sys.stdout.write(f"{figures}\n")
        assert soak.compared > minutes
        assert after < (1 + MOST_GROWTH) * before, f"{figures}; {told}"
        assert process.poll() is None


def test_pixels_inside_a_polygon_are_counted_by_crossings():
    triangle = np.array([[-0.5, -0.5], [-0.5, 3.4], [3.4, -0.5]])
    assert inside(triangle, (4, 4)).astype(int).tolist() == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert inside(np.array([[0.0, 0.0], [0.0, 2.0], [2.0, 0.0]]), (4, 4)) is None
