"""A workload whose tasks do nothing but fail when they are to: what the runner does can be seen without any physics."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import dask
from distributed import Client, SpecCluster, Worker

from hpcxrf.cluster.dashboard import guarded_scheduler
from hpcxrf.cluster.local.cluster import dask_settings
from hpcxrf.errors import DamagedStoreError, FitError
from hpcxrf.notes import Note
from hpcxrf.runner.records import TaskRecord, Unit
from hpcxrf.runner.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class StubItem:
    """`first`, then `parts` tasks, then `last`."""

    number: int
    run_dir: Path
    dataset_id: str = "stub-00000000"
    parts: int = 2
    fails: Mapping[str, str] = field(default_factory=dict)
    """Reason by task; one that begins with `damaged` is a damaged store."""
    sleep_s: float = 0.0
    after: tuple[int, ...] = ()
    follows: tuple[int, ...] = ()
    stamp: str = "1"
    quiet: bool = False
    """Leave no list of what was run."""

    @property
    def source(self):
        return Path(f"{self.dataset_id}.raw")

    @property
    def made_from(self):
        return {"stamps": {"source": self.stamp}}


def units_of(item):
    parts = tuple(f"part-{i:05}" for i in range(item.parts))
    return [
        Unit(task="first", stage="first"),
        *(Unit(task=name, stage="part", needs=("first",), work=i) for i, name in enumerate(parts)),
        Unit(task="last", stage="last", needs=("first", *parts)),
    ]


def run_unit(item, unit, after):
    if not item.quiet:
        folder = item.run_dir / "executed"
        folder.mkdir(exist_ok=True)
        with (folder / f"{item.dataset_id}.{unit.task}").open("a") as log:
            log.write(",".join(record.task for record in after) + "\n")
    time.sleep(item.sleep_s)
    reason = item.fails.get(unit.task)
    if reason is not None:
        raise DamagedStoreError(reason) if reason.startswith("damaged") else FitError(reason)
    notes = () if unit.task == "first" else (Note("fact", f"{unit.task} was here"),)
    return TaskRecord(
        task=unit.task,
        stage=unit.stage,
        dataset_id=item.dataset_id,
        wall_s=0.5,
        cpu_s=0.25,
        pixels=1,
        facts={},
        notes=notes,
    )


def take_executed(run_dir):
    """Tasks that were run since the last call, as (dataset_id, task)."""
    found = set()
    for file in (run_dir / "executed").glob("*"):
        found.add(tuple(file.name.split(".")))
        file.unlink()
    return found


STUB = Workload(
    name="stub",
    stages={"first": "begin", "part": "parts", "last": "end"},
    page="report.html",
    reads_files=True,
    one_core=False,
    check=lambda _config: None,
    lasting=lambda _config: {},
    plan=lambda _request: iter(()),
    units_of=units_of,
    run_unit=run_unit,
    foresees=lambda _item: True,
    is_there=lambda _item, _unit: True,
    reopen=lambda _item, _last: None,
    summarise=lambda _config, _end: None,
)


class workers_here:  # noqa: N801 (used as a function)
    """A client of workers in this process, while the block runs."""

    def __init__(self, number):
        self.number = number

    def __enter__(self):
        common = {"host": "127.0.0.1", "protocol": "tcp://", "dashboard_address": "127.0.0.1:0"}
        worker = {"cls": Worker, "options": {**common, "nthreads": 1, "memory_limit": 0}}
        options = {**common, "port": 0, "dashboard": False, "token": "secret"}
        self.settings = dask.config.set(dask_settings(dashboard=False))
        self.settings.__enter__()
        self.cluster = SpecCluster(
            workers=dict.fromkeys(range(self.number), worker),
            scheduler={"cls": guarded_scheduler, "options": options},
            silence_logs=False,
        )
        self.client = Client(self.cluster, set_as_default=False)
        self.current = self.client.as_current()
        self.current.__enter__()
        self.client.wait_for_workers(self.number)
        return self.client

    def __exit__(self, *fault):
        self.current.__exit__(*fault)
        self.client.close()
        self.cluster.close()
        self.settings.__exit__(*fault)
