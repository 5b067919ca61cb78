"""What goes to a task and what comes back: small, picklable, no arrays."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hpcxrf.config.run import RunConfig
from hpcxrf.formats.scan import EnergyCalibration

Stage = Literal[
    "ingest",
    "integrated",
    "pixels",
    "regions",
    "refine",
    "finalise",
    "sum",
    "initial",
    "refinement",
    "spectra",
    "first-pass",
    "trials",
    "areas",
    "single-pixels",
    "map",
]
STAGES: tuple[Stage, ...] = ("ingest", "integrated", "pixels", "regions", "refine", "finalise")
"""Of a run, each after the ones before it."""
BENCHMARK_STAGES: tuple[Stage, ...] = ("sum", "initial", "refinement")
"""Of a benchmark."""
STUDY_STAGES: tuple[Stage, ...] = ("spectra", "first-pass", "trials", "areas", "single-pixels", "map")
"""Of a case study."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetJob:
    """One dataset of a run."""

    number: int
    """Counter within the run: task keys carry it instead of the sample's name."""
    dataset_id: str
    source: Path
    run_dir: Path
    config: RunConfig
    detectors: tuple[str, ...]
    """Of the results: "0".."n-1" and/or "sum"."""
    shape: tuple[int, int, int, int]
    """(detector, y, x, channel)."""
    stamps: tuple[tuple[str, str], ...] = ()
    """Name and stamp of every file that the results are made from: a finished task counts only for these."""
    region_stamps: tuple[tuple[str, str], ...] = ()
    """The same of the label images that give regions, which the fits of the scan do not depend on."""
    memory_bytes: tuple[tuple[Stage, int], ...] = ()
    """By stage: most that a worker will need above what it holds when idle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRange:
    """A pixel task: whole map blocks of one detector, counted row by row."""

    detector: str
    first: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """What a task did."""

    task: str
    """Identifier within the dataset: `ingest`, `integrated`, `pixels-0-00000-00008`, `regions`, `refine-00`,
    `finalise`; of a benchmark `sum`, `initial-adam`, `refinement-separable`."""
    stage: Stage
    dataset_id: str
    wall_s: float
    cpu_s: float
    read_s: float = 0.0
    """Of a pixel task, reading, fitting and writing overlap: their sum is more than the wall time."""
    fit_s: float = 0.0
    write_s: float = 0.0
    bytes_read: int = 0
    bytes_written: int = 0
    pixels: int = 0
    device: str = "cpu"
    checksums: dict[str, str] | None = None
    """SHA-256 by path relative to the run directory, of everything that it wrote."""
    facts: dict[str, Any] | None = None
    """A few JSON values for the report: R2 by detector, notes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanFacts:
    """What is known of a scan before it is fitted."""

    source: Path
    n_detectors: int
    n_channels: int
    calibration: tuple[EnergyCalibration, ...] | None
    incident_energy_kev: float | None
    tube: str | None = None
    """What the file says of an X-ray tube as source."""
