"""What goes to a task of a scan: small, picklable, no arrays."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from hpcxrf.config.run import RunConfig
from hpcxrf.formats.scan import EnergyCalibration

Stamps = tuple[tuple[str, str], ...]
"""Names with what tells one state of what they name from another."""

ORIGINAL: Final = "original_stamps"
"""Kind of `made_from`: the stamps that a dataset was made with, where its files have others since and hold the same."""

Stage = Literal["ingest", "integrated", "pixels", "normalise", "quantify", "regions", "refine", "finalise"]
STAGES: tuple[Stage, ...] = ("ingest", "integrated", "pixels", "normalise", "quantify", "regions", "refine", "finalise")
"""Stages of a scan, each after the ones before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class I0Reference:
    """I0 that all maps of a run are brought to, known once before anything is fitted."""

    value: float
    """Counts per second of a count, else the scaler's own unit."""
    origin: str
    """Where it comes from, for people."""
    gain_a_per_v: float | None = None
    """Sensitivity of the amplifier that it was measured with; None: not known, or the value is a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Donor:
    """A scan of the same detectors at whose fit that of another begins."""

    dataset_id: str
    stamp: str
    """Checksum of all that its own fit is made from: the same stamp, the same theta."""


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
    """Of the results: "sum" and/or "0".."n-1"."""
    shape: tuple[int, int, int, int]
    """(detector, y, x, channel)."""
    stamps: Stamps = ()
    """Name and stamp of every file that the results are made from: a finished task counts only for these."""
    region_stamps: Stamps = ()
    """The same of the label images that give regions, which the fits of the scan do not depend on."""
    reference_stamps: Stamps = ()
    """The same of the scan that the reference of I0 is made from, which nothing but normalised maps depends on."""
    standard_stamps: Stamps = ()
    """The same of the standards and their table, which nothing but areal densities depends on."""
    settings: tuple[tuple[str, Stamps], ...] = ()
    """Stamps of its configuration by kind, where a run goes on with another one; else its tasks are of that of the run
    whatever they were made with."""
    original_stamps: Stamps = ()
    """Stamps that its files had when it was fitted, where they were touched since and hold the same."""
    donor: Donor | None = None
    """Scan at whose fit the search for theta begins; None: where the files say."""
    i0_reference: I0Reference | None = None
    """I0 that normalised maps are brought to; None: they are not divided by I0."""
    memory_bytes: tuple[tuple[Stage, int], ...] = ()
    """By stage: most that a worker will need above what it holds when idle."""
    after: tuple[int, ...] = ()
    """Numbers of the items of the run that must be done before."""
    follows: tuple[int, ...] = ()
    """Number of the donor, where it is not done yet."""
    pack: bool = False
    """Its stores become one file each when they are closed."""
    join: bool = False
    """All its tasks are one."""

    @property
    def made_from(self) -> Mapping[str, Mapping[str, str]]:
        """Stamps of the files that the results are made from."""
        return {
            "stamps": dict(self.stamps),
            "region_stamps": dict(self.region_stamps),
            "reference_stamps": dict(self.reference_stamps),
            "standard_stamps": dict(self.standard_stamps),
            **{kind: dict(stamps) for kind, stamps in self.settings},
            **({ORIGINAL: dict(self.original_stamps)} if self.original_stamps else {}),
            **({} if self.donor is None else {"donor": {self.donor.dataset_id: self.donor.stamp}}),
        }

    def reads(self, *kinds: str) -> tuple[str, ...]:
        """Those kinds of `made_from` that it has, for a task that reads them itself."""
        return tuple(kind for kind in kinds if kind in self.made_from)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRange:
    """A pixel task: whole map blocks of one detector, counted row by row."""

    detector: str
    first: int
    stop: int


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
