"""Normalised maps of a scan with what a calibration has to know of it, and what speaks against a standard."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from hpcxrf.config.quantify import QuantifyConfig
from hpcxrf.config.run import RunConfig
from hpcxrf.errors import ConfigError
from hpcxrf.physics.detector import Detector
from hpcxrf.pipeline.prepare.facts import scan_facts
from hpcxrf.pipeline.prepare.inputs import SUM
from hpcxrf.pipeline.prepare.resolve import resolve_detector
from hpcxrf.pipeline.prepare.sources import read_sources
from hpcxrf.pipeline.quantify.scans import StandardScan
from hpcxrf.quantify.checks import Conditions, check_standard
from hpcxrf.results.store.derived import STORED_ATTRIBUTE
from hpcxrf.results.store.normalised import COMBINED
from hpcxrf.store.spectra import SpectraStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Maps of a scan with what a calibration has to know of it."""

    maps: xr.Dataset
    """Group `normalised`."""
    counts: xr.Dataset
    """Group `maps`."""
    spectrum: xr.Dataset
    """Group `spectrum`."""
    entries: tuple[str, ...]
    """Names on the detector axis of `normalised`."""
    components: tuple[str, ...]
    parts: Mapping[str, tuple[str, ...]]
    """Detectors that an entry is made of; none where its fit has no solution."""
    detector: Mapping[str, Detector]
    """Windows and path by detector."""
    incident_energy_kev: float
    i0_name: str | None
    i0_reference: float | None

    @property
    def shape_yx(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.maps.sizes["y"], self.maps.sizes["x"]

    def is_stored(self, row: int) -> bool:
        """Whether the store holds the rates of a place on the detector axis; those of others are computed when read."""
        return self.entries[row] in self.maps.attrs.get(STORED_ATTRIBUTE, self.entries)

    def conditions(self, entry: str) -> Conditions:
        """How an entry was measured and fitted."""
        names = self.parts[entry]
        return Conditions(
            incident_energy_kev=self.incident_energy_kev,
            detector=self.detector[names[0]],
            detectors=names,
            i0_name=self.i0_name,
            i0_reference=self.i0_reference,
        )


def read_sample(tree: xr.DataTree, store: SpectraStore, config: RunConfig, source: Path) -> Sample:
    """Read the facts of a scan that is to be quantified.

    Args:
        tree: its open results store.
        store: its spectra.
        config: run file.
        source: its file.
    """
    maps, attributes = tree["normalised"].to_dataset(), tree.attrs
    entries = tuple(str(name) for name in maps["detector"].values)
    solved = [name for name, theta in attributes["theta_by_detector"].items() if theta is not None]
    apart = set(attributes.get("detectors_left_out", {}))
    facts = scan_facts(store, source)
    parts: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        if entry == SUM:
            parts[entry] = tuple(name for name in solved if name not in apart)
        elif entry == COMBINED:
            used = np.isfinite(maps["share"].values).any(axis=1)
            parts[entry] = tuple(name for name, one in zip(entries, used, strict=True) if one)
        else:
            parts[entry] = (entry,) if entry in solved else ()
    return Sample(
        maps=maps,
        counts=tree["maps"].to_dataset(),
        spectrum=tree["spectrum"].to_dataset(),
        entries=entries,
        components=tuple(str(name) for name in maps["component"].values),
        parts=parts,
        detector={
            name: Detector(**resolve_detector(config.detector, read_sources(config.fit, facts, int(name))))
            for name in dict.fromkeys(n for names in parts.values() for n in names)
        },
        incident_energy_kev=float(attributes["incident_energy_kev"]),
        i0_name=maps.attrs.get("i0"),
        i0_reference=maps.attrs.get("reference"),
    )


def refuse_standards(sample: Sample, standards: Sequence[StandardScan], config: QuantifyConfig, source: Path) -> None:
    """Refuse standards that do not belong to the sample.

    Raises:
        ConfigError: all that speaks against them, each once.
    """
    faults: list[str] = []
    for entry in sample.entries:
        names = sample.parts[entry]
        for standard in standards if names else ():
            if missing := [name for name in names if name not in standard.detectors]:
                faults.append(
                    f"{standard.certified.name}: {standard.source} has no fit of detector {', '.join(missing)}, which "
                    "the sample has; measure the standard with the same detectors, or exclude them (detectors.exclude)"
                )
                continue
            faults += check_standard(
                standard.certified,
                standard.measured(names),
                standard.conditions(names),
                sample.conditions(entry),
                allow=config.allow,
            )
    if faults:
        raise ConfigError("\n".join([f"{source}: cannot be quantified:", *(f"  {f}" for f in dict.fromkeys(faults))]))
