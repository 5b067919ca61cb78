"""The files that a fit is prepared from, read once for each detector; and a value with its origin."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Generic, TypeVar

from hpcxrf.config.fit import FitConfig
from hpcxrf.errors import ConfigError
from hpcxrf.formats.override import Override, find_override, read_override
from hpcxrf.physics.constants import constant_set
from hpcxrf.pipeline.prepare.previous import previous_theta
from hpcxrf.pipeline.records import ScanFacts

T = TypeVar("T")


class Origin(StrEnum):
    """Places that a value can come from, by the words of the notes."""

    RUN_FILE = "run file"
    OVERRIDE = "override file"
    SCAN = "scan file"
    PREVIOUS = "earlier fit"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Value(Generic[T]):
    """A value and the place that it comes from."""

    value: T
    origin: Origin
    written: T | None = None
    """Value as it is written there, where it was moved to the nearest one that a detector has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviousFit:
    """One detector's theta in the results store of an earlier scan."""

    store: Path
    theta: Mapping[str, float]
    """Fitted values by name, the width restated for the constants of this fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Everything that the files say about one detector of a scan."""

    facts: ScanFacts
    detector: int
    """Number of the detector, counted from 0."""
    override: Override | None
    previous: PreviousFit | None


def read_sources(fit: FitConfig, facts: ScanFacts, detector: int) -> Sources:
    """Read the override file and the earlier fit of one detector.

    Args:
        fit: section `fit` of the run file, which names them.
        facts: facts of the scan.
        detector: number of the detector, counted from 0.

    Raises:
        ConfigError: `fit.calibration` is `override` and there is no override file; the earlier fit is not a finished
            one or has no such detector.
        InputFileError: the override file cannot be read.
    """
    path = find_override_file(fit, facts.source, detector)
    if path is None and fit.calibration == "override":
        raise ConfigError(
            f"{facts.source}: fit.calibration is 'override', but no maps_fit_parameters_override.txt lies beside "
            "the scan or in the folder above; name it in fit.override"
        )
    previous = None
    if fit.previous is not None:
        store = Path(fit.previous)
        theta = previous_theta(store, detector, constant_set(fit.constants))
        previous = PreviousFit(store=store, theta=theta)
    override = None if path is None else read_override(path)
    return Sources(facts=facts, detector=detector, override=override, previous=previous)


def find_override_file(fit: FitConfig, source: Path, detector: int) -> Path | None:
    """Find the override file of a detector: the one that the run file names, or the one beside the scan."""
    if fit.override == "auto":
        return find_override(source, detector)
    return None if fit.override == "none" else Path(fit.override)
