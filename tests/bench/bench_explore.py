"""What the explorer's server costs on a scan of a million pixels and some twenty maps, in CPU and in memory.

The scan is drawn from 64 mixtures of eight families and fitted before the clock starts. Every question is put over
HTTP as the page does, and counted is the CPU that the server's process took until its answer: the first time, and as
the median of 50, each another box, lasso, pixel or map than all before it. `HPCXRF_EXPLORED_RUN` names a run directory
of `make_big_run` that is taken instead; `HPCXRF_EXPLORED_SIDE` sets another side of the scan.
"""

import json
import os
import time
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest
from pixel_scans import ELEMENTS, ENERGY_KEV, made_job, run_stage
from run_folders import served

from hpcxrf.explore.selections import mask_polygon
from hpcxrf.store.spectra import open_spectra

pytestmark = pytest.mark.bench

SIDE = int(os.environ.get("HPCXRF_EXPLORED_SIDE", "1000"))
MORE = ("Cl", "Ti", "Cr", "Ni", "Co", "As", "Se", "Br", "P", "V")
TIMES = 50


def make_big_run(folder: Path, side: int) -> Path:
    sample = {"elements": [*ELEMENTS, *MORE], "incident_energy_kev": ENERGY_KEV}
    job = made_job(folder, (1, side, side, 2048), sample=sample, pixels={"deviance": True})
    for stage in ("integrated", "pixels", "finalise"):
        run_stage(job, stage)
    return job.run_dir


@pytest.fixture(scope="module")
def big_run(tmp_path_factory) -> Path:
    if made_before := os.environ.get("HPCXRF_EXPLORED_RUN"):
        return Path(made_before)
    return make_big_run(tmp_path_factory.mktemp("big"), SIDE)


class Asking:
    """The page's questions to a server, each with the CPU and the time that it took."""

    def __init__(self, process, address: str):
        self.pid = process.pid
        self.root, secret = address.rstrip("/").split("/#")
        with urlopen(self._request("/open", {"secret": secret})) as answer:  # noqa: S310 (loopback)
            self.cookie = answer.headers["Set-Cookie"].partition(";")[0]

    def _request(self, path: str, body=None) -> Request:
        content = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Origin": self.root}
        if hasattr(self, "cookie"):
            headers["Cookie"] = self.cookie
        return Request(self.root + path, data=content, headers=headers)  # noqa: S310 (loopback)

    def ask(self, path: str, body=None) -> tuple[bytes, float, float]:
        """Answer, CPU of the server and wall time, seconds."""
        before, began = self.cpu_s(), time.perf_counter()
        with urlopen(self._request(path, body)) as answer:  # noqa: S310 (loopback)
            content = answer.read()
        return content, self.cpu_s() - before, time.perf_counter() - began

    def cpu_s(self) -> float:
        # What `clock_getcpuclockid` gives on Linux: to a nanosecond, threads that have ended included.
        return time.clock_gettime(((~self.pid) << 3) | 2)

    def peak_mb(self) -> float:
        text = Path(f"/proc/{self.pid}/status").read_text()
        return int(text.split("VmHWM:")[1].split()[0]) / 1024


def lasso(rng: np.random.Generator, side: int) -> list[list[float]]:
    """Some hundred corners around half of the scan."""
    angles = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    radius = side * 0.4 * (1 + 0.06 * np.sin(3 * angles + rng.uniform(0, 6)) + 0.02 * rng.standard_normal(120))
    centre = side * (0.5 + 0.05 * rng.standard_normal(2))
    return np.stack([centre[0] + radius * np.sin(angles), centre[1] + radius * np.cos(angles)], axis=1).tolist()


def draw(kind: str, rng: np.random.Generator, side: int) -> dict:
    if kind == "lasso":
        return {"kind": "polygon", "points": lasso(rng, side)}
    if kind == "box":
        (y, x), size = rng.integers(0, side // 4, 2).tolist(), int(side * 0.7)
        return {"kind": "box", "y": [y, y + size], "x": [x, x + size]}
    y, x = rng.integers(0, side, 2).tolist()
    return {"kind": "pixel", "y": y, "x": x}


def mask_of(selection: dict, shape_yx) -> np.ndarray:
    mask = np.zeros(shape_yx, dtype=bool)
    if selection["kind"] == "polygon":
        return mask_polygon(np.array(selection["points"]), shape_yx)
    if selection["kind"] == "box":
        mask[slice(*selection["y"]), slice(*selection["x"])] = True
        return mask
    mask[selection["y"], selection["x"]] = True
    return mask


@pytest.fixture
def told(figure):
    def tell(name: str, costs: list[tuple[float, float]]) -> None:
        cpu, wall = np.array(costs).T
        if len(costs) > 1:
            figure(name=f"explorer, {name}: first", value=1e3 * cpu[0], unit="ms CPU")
            cpu, wall = cpu[1:], wall[1:]
        figure(name=f"explorer, {name}: median of {len(cpu)}", value=1e3 * float(np.median(cpu)), unit="ms CPU")
        figure(name=f"explorer, {name}: 95 % within", value=1e3 * float(np.quantile(wall, 0.95)), unit="ms wall")

    return tell


@pytest.mark.timeout(1800)
def test_the_explorer_of_a_million_pixels(big_run, figure, told):
    dataset = next((big_run / "results").glob("*.zarr*")).name.partition(".zarr")[0]
    rng = np.random.default_rng(int(os.environ.get("HPCXRF_EXPLORED_SEED", "1")))
    spectra = open_spectra(big_run / "spectra" / f"{dataset}.zarr")
    shape_yx = spectra.shape[1:3]
    told_of = __doc__.split("\n\n", 1)[1].replace("\n", " ").strip()
    with served(big_run) as (process, address):
        asking = Asking(process, address)
        start = asking.cpu_s()
        scan, _, _ = asking.ask("/api/scan")
        figure(name="explorer, start to the first answer of what there is", value=asking.cpu_s(), unit="s CPU")
        figure(name="explorer, of it before the address is printed", value=start, unit="s CPU")
        components = json.loads(scan)["components"]
        names = [one if isinstance(one, str) else one["name"] for one in components]
        small = asking.ask(f"/api/thumbnails?detector=0&layer=amplitude&side=128&dataset={dataset}")
        told(f"{len(names)} thumbnails", [small[1:]])
        large = [asking.ask(f"/api/map?detector=0&layer=amplitude&component={name}") for name in names]
        told("large view of another map", [one[1:] for one in large])
        told("large view again", [asking.ask(f"/api/map?detector=0&layer=amplitude&component={names[-1]}")[1:]])
        others = [asking.ask(f"/api/map?detector=0&layer=sigma&component={name}")[1:] for name in names]
        told("large view of another uncertainty", others)
        for kind in ("pixel", "box", "lasso"):
            costs = []
            for number in range(TIMES + 1):
                selection = draw(kind, rng, shape_yx[0])
                answer, *cost = asking.ask("/api/spectrum", {"detector": "0", "selection": selection})
                costs.append(tuple(cost))
                if number in {0, TIMES}:
                    _require_exact(spectra, json.loads(answer), mask_of(selection, shape_yx))
            told(kind, costs)
        told("lasso that moves by a pixel", _move(asking, lasso(rng, shape_yx[0])))
        figure(name="explorer, memory at its peak", value=asking.peak_mb(), unit="MB", includes=told_of)


def _fit(asking: Asking, kind: str, values: dict[str, float]) -> tuple[float, float]:
    """CPU of the server and time beyond what the engine took, seconds, asked for as the page does."""
    theta = {name: {"mode": "fit", "value": value} for name, value in values.items()}
    wanted = {"detector": "0", "selection": {"kind": "all"}, "kind": kind, "theta": theta}
    before, began = asking.cpu_s(), time.perf_counter()
    asked, *_ = asking.ask("/api/fit", wanted)
    while True:
        state = json.loads(asking.ask(f"/api/fit?id={json.loads(asked)['id']}")[0])
        if state["state"] == "done":
            break
        assert state["state"] in {"waiting", "running"}, state
        time.sleep(0.06)
    wall = time.perf_counter() - began
    return asking.cpu_s() - before, wall - state["fit"]["engine_s"]


@pytest.mark.timeout(1800)
def test_fits_by_eye(big_run, told):
    rng = np.random.default_rng(int(os.environ.get("HPCXRF_EXPLORED_SEED", "1")))
    with served(big_run) as (process, address):
        asking = Asking(process, address)
        # The process that fits starts with the first question.
        _fit(asking, "amplitudes", {})
        offset, gain = (rng.uniform(-0.01, 0.01, TIMES), 0.01 * (1 + rng.uniform(-5e-4, 5e-4, TIMES)))
        starts = [{"energy_offset": a, "energy_slope": b} for a, b in zip(offset, gain, strict=True)]
        for kind in ("amplitudes", "full"):
            told(f"{kind} fit, beyond the engine's own time", [_fit(asking, kind, one) for one in starts])


def _move(asking: Asking, points: list[list[float]]) -> list[tuple[float, float]]:
    costs = []
    for step in range(TIMES + 1):
        # One corner is dragged.
        moved = [[points[0][0], points[0][1] + step], *points[1:]]
        selection = {"kind": "polygon", "points": moved}
        costs.append(asking.ask("/api/spectrum", {"detector": "0", "selection": selection})[1:])
    return costs


def _require_exact(spectra, answer, mask) -> None:
    total = np.zeros(spectra.shape[3], dtype=np.uint64)
    for y in range(0, spectra.shape[1], 16):
        rows = slice(y, min(y + 16, spectra.shape[1]))
        total += spectra.read_rows([0], rows)[0][mask[rows]].sum(axis=0, dtype=np.uint64)
    assert answer["n_pixels"] == int(mask.sum())
    np.testing.assert_array_equal(np.array(answer["counts"], dtype=np.uint64), total)
