"""What the runner knows of any workload: items, their units, and the records of finished ones. Small, no arrays."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from hpcxrf.notes import Note

DatasetState = Literal["done", "failed", "not tried"]
"""`failed`: a unit was tried and failed, or the file cannot be opened; `not tried`: an item that it needs failed."""


class Item(Protocol):
    """One piece of a workload with a journal of its own: a scan, or the simulation that a study begins with."""

    @property
    def number(self) -> int:
        """Counter within the run: task keys carry it instead of the sample's name."""

    @property
    def dataset_id(self) -> str:
        """Name of its journal."""

    @property
    def source(self) -> Path:
        """The file that it is made from, for messages."""

    @property
    def run_dir(self) -> Path:
        """The run directory that keeps its journal."""

    @property
    def made_from(self) -> Mapping[str, Mapping[str, str]]:
        """Stamps of the files that its results are made from, by kind: a finished unit counts only for these."""

    @property
    def after(self) -> tuple[int, ...]:
        """Numbers of the items that must be done before its units are known."""

    @property
    def follows(self) -> tuple[int, ...]:
        """Numbers of the items that must have ended before, well or not; they come earlier in the plan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One task of an item: what the graph, the journal and the bars know of it."""

    task: str
    """Identifier within the item: `ingest`, `pixels-0-00000-00008`, `initial-adam`."""
    stage: str
    needs: tuple[str, ...] = ()
    """Tasks of the same item that must be finished before."""
    reads: tuple[str, ...] = ()
    """Kinds of the item's files (keys of `Item.made_from`) that it reads itself. One that names none reads what it
    needs, or every kind where it needs no other."""
    work: Any = None
    """What the workload's `run_unit` needs to know beside the item: small and picklable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """What a finished task did."""

    task: str
    """Identifier within the item."""
    stage: str
    dataset_id: str
    wall_s: float
    cpu_s: float
    read_s: float = 0.0
    """Seconds of reading; in a pixel task reading, fitting and writing overlap: their sum exceeds the wall time."""
    fit_s: float = 0.0
    write_s: float = 0.0
    bytes_read: int = 0
    bytes_written: int = 0
    pixels: int = 0
    device: str = "cpu"
    checksums: dict[str, str] | None = None
    """SHA-256 by path relative to the run directory, of everything that it wrote."""
    facts: dict[str, Any] | None = None
    """A few JSON values for the report: R2 by detector."""
    notes: tuple[Note, ...] = ()
    """Choices made and doubts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A file that cannot be run, known before anything of it is tried; it stops no other."""

    dataset_id: str
    source: Path
    reason: str
    number: int = 0
    """Its place in the plan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRecord:
    """How one item ended: one small line of `state/datasets.jsonl`, from which report and tables are made."""

    dataset_id: str
    name: str
    """Name of its file."""
    source: str = ""
    """Path of its file."""
    home: str = ""
    """Folder of its journal within the run directory; empty: the run directory itself."""
    state: DatasetState
    reason: str = ""
    """Why it failed, or was not tried."""
    failed: int = 0
    """Tasks that were tried and failed."""
    not_tried: int = 0
    """Tasks that a failed one kept from running."""
    shape: tuple[int, ...] = ()
    """(detector, y, x, channel); empty where the file cannot be opened."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall seconds of its tasks by stage."""
    cpu_s: float = 0.0
    gpu_s: float = 0.0
    """Wall seconds of its tasks on GPUs."""
    notes: tuple[Note, ...] = ()
    """Choices made and doubts, of all stages."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """A few JSON values for tables: R2 by detector."""
    made_from: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Stamps of the files that it was made from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An item that an earlier driver finished and whose files are as they were: it is not opened again."""

    record: DatasetRecord
    renewed: bool = False
    """Whether its files have other stamps and the same content, which the record says now."""
    number: int = 0
    """Its place in the plan."""
