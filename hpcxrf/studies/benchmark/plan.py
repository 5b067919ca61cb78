"""What a benchmark runs: which methods on which datasets, in what order, from which seeds."""

import hashlib
import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcxrf.config.benchmark import BenchmarkConfig, BenchmarkMethod, BenchmarkTask
from hpcxrf.config.run import RunConfig
from hpcxrf.errors import ConfigError
from hpcxrf.pipeline.plan import Refusal, make_plan
from hpcxrf.pipeline.records import DatasetJob, Stage

SUM: Final = "sum"
START: Final = "initial-separable"
"""Its fitted theta is where the refinement of every method starts."""
REGION_SIDE: Final = 25
"""Pixels of a side of the refined region, as published."""
_PACKAGES: Final = {"sbplx": "nlopt", "mapstorch": "mapstorch", "pymca": "PyMca5"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkJob:
    """One dataset of a benchmark."""

    dataset: DatasetJob
    methods: tuple[BenchmarkMethod, ...]
    """That are asked of it, in the order of the run file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkUnit:
    """One task of a dataset, in the order of the graph."""

    task: str
    """`sum`, `initial-adam`, `refinement-product`."""
    stage: Stage
    needs: tuple[str, ...]
    """Tasks that must be finished before."""
    fit: tuple[BenchmarkTask, BenchmarkMethod] | None = None
    """What is fitted; None: the spectra are summed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkPlan:
    """All datasets of a benchmark."""

    jobs: tuple[BenchmarkJob, ...]
    refusals: tuple[tuple[Refusal, tuple[BenchmarkMethod, ...]], ...]
    """Files that cannot be opened, and the methods that would have been asked."""
    notes: tuple[str, ...]


def check_benchmark(config: RunConfig) -> None:
    """Refuse what cannot be compared, before an archive is read for it.

    Raises:
        ConfigError: all faults at once: packages that are missing, a refinement without the fit that it starts
            from, no calibration to draw starting values around.
    """
    asked = config.benchmark
    faults = [
        f"benchmark.methods: {method} needs the package {package}: pip install hpcxrf[bench]"
        for method, package in _PACKAGES.items()
        if method in asked.methods and importlib.util.find_spec(package) is None
    ]
    faults += [
        f"benchmark.{name}: {values} names one twice or none; name each once"
        for name, values in (("methods", list(asked.methods)), ("tasks", list(asked.tasks)))
        if not values or len(set(values)) < len(values)
    ]
    begins = "initial" in asked.tasks and "separable" in asked.methods
    if "refinement" in asked.tasks and (not begins or "separable" in asked.datasets):
        faults.append(
            "benchmark.tasks: refinement starts from the initial separable fit of every dataset; add the task "
            "initial and the method separable, and no number of datasets for it"
        )
    if config.fit.calibration in {"none", "previous"}:
        faults.append(
            f"fit.calibration: {config.fit.calibration}; starting values are drawn around the calibration of the "
            "files: use auto, file or override (product takes none in any case)"
        )
    if faults:
        raise ConfigError("\n".join(["the benchmark cannot be run:", *[f"  {f}" for f in faults]]))


def plan_benchmark(
    config: RunConfig, run_dir: Path, *, opened: Callable[[int, int], None] | None = None
) -> BenchmarkPlan:
    """Find the scans, read their headers, and say which methods each is fitted with.

    Args:
        config: a checked run file.
        run_dir: where the results go.
        opened: called with (files opened, files) as it goes.

    Raises:
        InputFileError: no scan was found.
    """
    plan = make_plan(config, run_dir, opened=opened)
    names = [j.dataset_id for j in plan.jobs] + [r.dataset_id for r in plan.refusals]
    chosen = methods_of(names, config.benchmark)
    return BenchmarkPlan(
        jobs=tuple(BenchmarkJob(dataset=j, methods=chosen[j.dataset_id]) for j in plan.jobs),
        refusals=tuple((r, chosen[r.dataset_id]) for r in plan.refusals),
        notes=plan.notes,
    )


def methods_of(dataset_ids: Iterable[str], asked: BenchmarkConfig) -> dict[str, tuple[BenchmarkMethod, ...]]:
    """Methods of each dataset.

    A method with a number gets that many datasets, those of the smallest hash of seed and dataset: whatever the
    order of the files and the other methods, and a smaller number is part of a larger one. So methods of equal
    number are compared on the same datasets.
    """
    order = sorted(dataset_ids, key=lambda name: seed_of(asked.seed, name, "choice"))
    limits = {m: asked.datasets.get(m, len(order)) for m in asked.methods}
    return {name: tuple(m for m in asked.methods if rank < limits[m]) for rank, name in enumerate(order)}


def seed_of(seed: int, dataset_id: str, purpose: str) -> int:
    """Seed for one dataset and purpose, 0 to 2^53 - 1, the same on every machine and for every method."""
    digest = hashlib.sha256(f"{seed}\n{dataset_id}\n{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 11


def units_of(job: BenchmarkJob) -> list[BenchmarkUnit]:
    """All tasks of a dataset, each after those that it needs; none where no method is asked of it."""
    if not job.methods:
        return []
    needs: dict[BenchmarkTask, tuple[str, ...]] = {"initial": (SUM,), "refinement": (SUM, START)}
    fits = [
        BenchmarkUnit(task=f"{task}-{method}", stage=task, needs=needs[task], fit=(task, method))
        for task in needs
        if task in job.dataset.config.benchmark.tasks
        for method in job.methods
    ]
    return [BenchmarkUnit(task=SUM, stage="sum", needs=()), *fits]


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
    return job.run_dir / "benchmark" / job.dataset_id


def result_file(job: DatasetJob, task: str) -> Path:
    """File that a task writes."""
    return result_folder(job) / (f"{SUM}.npz" if task == SUM else f"{task}.json")
