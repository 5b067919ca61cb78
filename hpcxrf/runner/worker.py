"""What every task does around its work: seconds, attempts, device and threads."""

import json
import os
import platform
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hpcxrf.config.run import RunConfig
from hpcxrf.config.untrusted import refuse_irregular
from hpcxrf.errors import DeviceLostError, FitError, OutputError
from hpcxrf.runner.journal import pack_record, read_record
from hpcxrf.runner.records import Item, TaskRecord
from hpcxrf.store.files import output_faults, sync_tree

if TYPE_CHECKING:
    import torch

MAX_ATTEMPTS: Final = 3
ATTEMPTS: Final = Path("state", "attempts")
RECORDS: Final = Path("state", "records")
DEVICE_LOST_EXIT: Final = 76
WORKER_NAME: Final = "HPCXRF_WORKER"
"""Environment variable of a worker's name; markers carry it."""


def choose_device(config: RunConfig) -> "torch.device":
    """The device that the run file asks for.

    Raises:
        FitError: `cuda` was asked for and there is none, or a worker sees more than one.
    """
    import torch

    wanted, visible = config.execution.device, torch.cuda.device_count()
    if wanted == "cpu" or (wanted == "auto" and visible == 0):
        return torch.device("cpu")
    if visible != 1:
        raise FitError(
            f"execution.device is {wanted}, but this worker sees {visible} CUDA devices; it must see exactly one "
            "(CUDA_VISIBLE_DEVICES), or set execution.device: cpu"
        )
    return torch.device("cuda:0")


@contextmanager
def one_thread() -> Iterator[int]:
    """Numerics on one torch thread, denormal numbers flushed, giving the number of threads that the worker has.

    A sum that is split over threads rounds as they split it, and a result must not depend on the worker. Both
    settings are the process's: they are put back.
    """
    import torch

    from hpcxrf.fitting.pixels.fit import single_thread

    threads = torch.get_num_threads()
    single_thread()
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(False)


def machine_type() -> str:
    """The processor that CPU seconds are of, as the kernel names it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in {"model name", "Processor", "cpu"}:
            return value.strip()
    return platform.machine()


class Clock:
    """Wall, CPU, reading, fitting and writing seconds of one task, which may overlap."""

    def __init__(self) -> None:
        self.wall = time.perf_counter()
        self.cpu = time.process_time()
        self.read_s = 0.0
        self.fit_s = 0.0
        self.write_s = 0.0
        self.bytes_read = 0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Count the block as reading."""
        began = time.perf_counter()
        yield
        self.read_s += time.perf_counter() - began

    @contextmanager
    def fitting(self) -> Iterator[None]:
        """Count the block as fitting."""
        began = time.perf_counter()
        yield
        self.fit_s += time.perf_counter() - began

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Count the block as writing."""
        began = time.perf_counter()
        yield
        self.write_s += time.perf_counter() - began

    def record(self, item: Item, task: str, stage: str, **fields: Any) -> TaskRecord:  # noqa: ANN401 (fields of TaskRecord)
        """The record of the task that began when this clock was made."""
        fields.setdefault("bytes_read", self.bytes_read)
        return TaskRecord(
            task=task,
            stage=stage,
            dataset_id=item.dataset_id,
            wall_s=time.perf_counter() - self.wall,
            cpu_s=time.process_time() - self.cpu,
            read_s=self.read_s,
            fit_s=self.fit_s,
            write_s=self.write_s,
            **fields,
        )


def forget_attempts(run_dir: Path) -> None:
    """Delete the markers and records of earlier drivers: their interruption or loss was no fault of the tasks.

    Call it with the run's lock held, before any task is submitted or after all have ended.
    """
    for folder in (ATTEMPTS, RECORDS):
        shutil.rmtree(run_dir / folder, ignore_errors=True)


def forget_attempts_of(run_dir: Path, worker: str) -> int:
    """Delete the markers of a worker whose node was lost: no task is to blame; how many there were.

    Raises:
        OutputError: the folder cannot be written.
    """
    mine = [m for m in (run_dir / ATTEMPTS).glob("*.[0-9]") if _marked(m)[0] == worker]
    with output_faults(run_dir, bytes_needed=0):
        for marker in mine:
            marker.unlink(missing_ok=True)
    return len(mine)


def _mark(marker: Path, told: str) -> None:
    """Write which worker is at it, and what is known of its end."""
    marker.write_text(f"{os.environ.get(WORKER_NAME, '')}\n{told}", encoding="utf-8")


def _marked(marker: Path) -> tuple[str, str]:
    """Worker and what is known of its end; empty where nothing is."""
    try:
        refuse_irregular(marker, OutputError)
        worker, _, told = marker.read_text(encoding="utf-8", errors="replace").partition("\n")
    except (FileNotFoundError, OutputError):
        return "", ""
    return worker, told


def keep_record(item: Item, record: TaskRecord) -> None:
    """Leave a record where the next execution of the same task under this driver finds it.

    Results of tasks live in the memory of workers. When one dies, Dask runs again what was finished there, and an
    integrated fit that is run again would remove the pixels that were made from it.

    Raises:
        OutputError: the folder cannot be written.
    """
    keep_records(item, record.task, [record])


def keep_records(item: Item, name: str, records: Sequence[TaskRecord]) -> None:
    """The same of several, under one name.

    Raises:
        OutputError: the folder cannot be written.
    """
    file = _record_file(item, name)
    temporary = file.with_name(f"{file.name}.{uuid.uuid4().hex}.partial")
    content = json.dumps([pack_record(record) for record in records])
    with output_faults(item.run_dir, bytes_needed=len(content)):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Not synced: it matters as long as the driver lives, and after a crash no longer.
        temporary.write_text(content, encoding="utf-8")
        temporary.replace(file)


def read_kept_record(item: Item, task: str) -> TaskRecord | None:
    """The record of a task that has been finished under this driver, or None."""
    records = read_kept_records(item, task)
    return None if records is None or len(records) != 1 else records[0]


def read_kept_records(item: Item, name: str) -> list[TaskRecord] | None:
    """The records that were kept under a name by a task that has been finished under this driver, or None."""
    try:
        return [read_record(one) for one in json.loads(_record_file(item, name).read_bytes())]
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, OutputError):
        # Damaged is as good as not there: the task is done again.
        return None


def keeps_any(item: Item) -> bool:
    """Whether any task of an item has been finished under this driver."""
    return (item.run_dir / RECORDS / item.dataset_id).is_dir()


def sync_written(run_dir: Path, written: Iterable[str]) -> None:
    """Wait until everything that a task wrote is on the disk: only then may a journal name it.

    Args:
        run_dir: the run directory.
        written: files and folders, relative to it; a chunk of only fill values has no file.

    Raises:
        OutputError: the disk refuses.
    """
    with output_faults(run_dir, bytes_needed=0):
        for name in written:
            sync_tree(run_dir / name)


def forget_records(item: Item) -> None:
    """Delete the kept records of a dataset that has ended; its journal has them."""
    shutil.rmtree(item.run_dir / RECORDS / item.dataset_id, ignore_errors=True)


def _record_file(item: Item, task: str) -> Path:
    return item.run_dir / RECORDS / item.dataset_id / f"{task}.json"


@contextmanager
def attempt(item: Item, task: str) -> Iterator[None]:
    """Leave a marker while at work: a task that killed its worker three times is not tried again.

    An exception removes the marker (it is reported as such); only a process that dies leaves it. A process whose
    device is lost is ended here, with the reason in the marker: its successor, or another worker, tries again.

    Raises:
        FitError: three markers of earlier attempts are there.
        DeviceLostError: the device is lost, and nothing would start this process again.
    """
    folder = item.run_dir / ATTEMPTS
    folder.mkdir(mode=0o700, exist_ok=True)
    stem = f"{item.dataset_id}.{task}"
    earlier = sorted(folder.glob(f"{stem}.[0-9]"))
    if len(earlier) >= MAX_ATTEMPTS:
        _, told = _marked(earlier[-1])
        raise FitError(
            f"{item.source}: task {task} ended its worker {len(earlier)} times and is given up; "
            + (told or "see the logs for what killed it (memory?)")
            + "; the same command again tries it anew"
        )
    marker = folder / f"{stem}.{len(earlier)}"
    _mark(marker, "")
    try:
        yield
    except DeviceLostError as error:
        if is_restarted():
            _mark(marker, str(error))
            _end_process()
        raise
    finally:
        marker.unlink(missing_ok=True)
    for path in earlier:
        path.unlink(missing_ok=True)


def has_died(item: Item, task: str) -> bool:
    """Whether a task ended its worker under this driver."""
    return any((item.run_dir / ATTEMPTS).glob(f"{item.dataset_id}.{task}.[0-9]"))


def is_restarted() -> bool:
    """Whether this process is a worker that a nanny starts again when it ends."""
    from distributed import get_worker

    try:
        return get_worker().nanny is not None
    except ValueError:
        return False


def _end_process() -> None:
    """At once: a process whose CUDA context is lost may hang on its way out."""
    os._exit(DEVICE_LOST_EXIT)
