"""What a benchmark runs: which methods on which datasets, in what order, from which seeds."""

import hashlib
import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from hpcxrf.config.benchmark import BenchmarkConfig, BenchmarkTask
from hpcxrf.config.run import RunConfig, require_benchmark
from hpcxrf.errors import ConfigError
from hpcxrf.pipeline.plan import plan_scans
from hpcxrf.pipeline.records import DatasetJob
from hpcxrf.runner.records import Kept, Refusal, Unit
from hpcxrf.runner.workload import PlanRequest
from hpcxrf.store.rundir import RunDir
from hpcxrf.studies.arms import ARMS, list_arms

SUM: Final = "sum"
START: Final = "initial-separable"
"""Its fitted theta is where the refinement of every method starts."""
REGION_SIDE: Final = 25
"""Pixels of a side of the refined region, as published."""
_RESULTS: Final = "benchmark"
_PACKAGES: Final = {"sbplx": "nlopt", "mapstorch": "mapstorch", "pymca": "PyMca5"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkJob:
    """One dataset of a benchmark."""

    dataset: DatasetJob
    arms: tuple[str, ...]
    """Arms that fit it, in the order of `list_arms`."""

    @property
    def number(self) -> int:
        """Counter within the run."""
        return self.dataset.number

    @property
    def dataset_id(self) -> str:
        """Name of its journal."""
        return self.dataset.dataset_id

    @property
    def source(self) -> Path:
        """File of the scan."""
        return self.dataset.source

    @property
    def run_dir(self) -> Path:
        """The run directory."""
        return self.dataset.run_dir

    @property
    def shape(self) -> tuple[int, ...]:
        """(detector, y, x, channel)."""
        return self.dataset.shape

    @property
    def made_from(self) -> Mapping[str, Mapping[str, str]]:
        """Stamps of the files of the scan."""
        return {"stamps": dict(self.dataset.stamps)}

    @property
    def after(self) -> tuple[int, ...]:
        """A dataset of a benchmark needs no other."""
        return ()

    @property
    def follows(self) -> tuple[int, ...]:
        """Every method begins where it says, never at the fit of another dataset."""
        return ()


def check_benchmark(config: RunConfig) -> None:
    """Refuse what cannot be compared, before an archive is read for it.

    Raises:
        ConfigError: all faults at once: packages that are missing, a refinement without the fit that it starts
            from, a background that cannot be shared, no calibration to draw starting values around.
    """
    asked = require_benchmark(config)
    faults = [
        f"benchmark.methods: {method} needs the package {package}, which is not installed: pip install hpcxrf[bench]"
        for method, package in _PACKAGES.items()
        if method in asked.methods and importlib.util.find_spec(package) is None
    ]
    faults += [
        f"benchmark.{name}: {values} names one twice or none; name each once"
        for name in ("methods", "tasks", "amplitudes", "peer_backgrounds", "ablation")
        if (values := list(getattr(asked, name))) != list(dict.fromkeys(values)) or not (values or name == "ablation")
    ]
    begins = "initial" in asked.tasks and "separable" in asked.methods
    if "refinement" in asked.tasks and (not begins or "separable" in asked.datasets):
        faults.append(
            "benchmark.tasks: refinement starts from the initial separable fit of every dataset; add the task "
            "initial and the method separable, and no number of datasets for it"
        )
    peers = {"mapstorch", "pymca"} & set(asked.methods)
    if peers and "shared" in asked.peer_backgrounds and asked.background == "hats":
        faults.append(
            "benchmark.peer_backgrounds: hats are fitted and cannot be shared with another program; give "
            "background: snip or peer_backgrounds: [own]"
        )
    if config.fit.calibration in {"none", "previous"}:
        faults.append(
            f"fit.calibration: {config.fit.calibration}; starting values are drawn around the calibration of the "
            "files: use auto, file or override (product takes none in any case)"
        )
    if faults:
        raise ConfigError("\n".join(["the benchmark cannot be run:", *[f"  {f}" for f in faults]]))


def plan_benchmark(request: PlanRequest) -> Iterator[BenchmarkJob | Refusal]:
    """Find the scans, read their headers, and say which methods each is fitted with.

    Yields:
        What was found, in the order of the inputs. Where a method has a number of datasets, all are opened first.

    Raises:
        InputFileError: no scan was found.
    """
    asked = require_benchmark(request.config)
    found: Iterable[DatasetJob | Refusal | Kept] = plan_scans(replace(request, kept={}))
    chosen: Mapping[str, tuple[str, ...]] = {}
    if asked.datasets:
        found = list(found)
        chosen = choose_arms([one.dataset_id for one in found if not isinstance(one, Kept)], asked)
    for one in found:
        if isinstance(one, Refusal):
            yield one
        elif isinstance(one, DatasetJob):
            yield BenchmarkJob(dataset=one, arms=chosen.get(one.dataset_id, list_arms(asked)))


def choose_arms(dataset_ids: Iterable[str], asked: BenchmarkConfig) -> dict[str, tuple[str, ...]]:
    """Arms of each dataset.

    A method with a number gets that many datasets, those of the smallest hash of seed and dataset: whatever the
    order of the files and the other methods, and a smaller number is part of a larger one. So methods of equal
    number are compared on the same datasets.
    """
    order = sorted(dataset_ids, key=lambda name: seed_of(asked.seed, name, "choice"))
    limits = {arm: asked.datasets.get(ARMS[arm].method, len(order)) for arm in list_arms(asked)}
    return {name: tuple(arm for arm in limits if rank < limits[arm]) for rank, name in enumerate(order)}


def seed_of(seed: int, dataset_id: str, purpose: str) -> int:
    """Seed for one dataset and purpose, 0 to 2^53 - 1, the same on every machine and for every method."""
    digest = hashlib.sha256(f"{seed}\n{dataset_id}\n{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 11


def units_of(job: BenchmarkJob) -> list[Unit]:
    """All tasks of a dataset, each after those that it needs; none where no arm fits it."""
    if not job.arms:
        return []
    needs: dict[BenchmarkTask, tuple[str, ...]] = {"initial": (SUM,), "refinement": (SUM, START)}
    fits = [
        Unit(task=f"{task}-{arm}", stage=task, needs=needs[task], work=(task, arm))
        for task in needs
        if task in require_benchmark(job.dataset.config).tasks
        for arm in job.arms
    ]
    return [Unit(task=SUM, stage=SUM), *fits]


def central_region(shape_yx: tuple[int, int]) -> tuple[slice, slice]:
    """The centred square that is refined: 25 x 25 pixels, of small maps half the shorter side, at least 2 x 2.

    Args:
        shape_yx: rows and columns, at least 1 each; a map of one row or column has a region that thin.
    """
    side = min(REGION_SIDE, max(2, min(shape_yx) // 2))
    starts = [(n - min(side, n)) // 2 for n in shape_yx]
    y, x = (slice(a, a + min(side, n)) for a, n in zip(starts, shape_yx, strict=True))
    return y, x


def result_folder(job: DatasetJob) -> Path:
    """Folder of a dataset's sums and results."""
    return job.run_dir / _RESULTS / job.dataset_id


def result_file(job: DatasetJob, task: str) -> Path:
    """File that a task writes."""
    return result_path(RunDir(path=job.run_dir), job.dataset_id, task)


def result_path(run: RunDir, dataset_id: str, task: str) -> Path:
    """File that a task of a dataset writes."""
    return run.path / _RESULTS / dataset_id / (f"{SUM}.npz" if task == SUM else f"{task}.json")
