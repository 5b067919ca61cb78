"""The elements of a scan of which nobody lists any: found in its spectra, and listed for all that follows."""

import dataclasses
from collections.abc import Sequence

from torch import Tensor

from hpcxrf.config.run import RunConfig
from hpcxrf.config.sample import AUTO
from hpcxrf.fitting.axis.elements import find_elements
from hpcxrf.fitting.spectrum.prepare import FitOptions
from hpcxrf.notes import Note
from hpcxrf.physics.constants import constant_set
from hpcxrf.physics.detector import Detector
from hpcxrf.pipeline.prepare.resolve import resolve_detector, resolve_incident
from hpcxrf.pipeline.prepare.sources import read_sources
from hpcxrf.pipeline.records import ScanFacts


def ask_for_elements(config: RunConfig, facts: ScanFacts, detector: int) -> RunConfig:
    """Say `auto` where neither the run file nor an override file lists elements."""
    if config.sample.elements:
        return config
    override = read_sources(config.fit, facts, detector).override
    if override is not None and override.elements:
        return config
    return dataclasses.replace(config, sample=dataclasses.replace(config.sample, elements=AUTO))


def _describe(name: str, rivals: Sequence[str]) -> str:
    return f"{name} (cannot be told from {' or '.join(rivals)})" if rivals else name


def list_found(
    config: RunConfig, facts: ScanFacts, detectors: Sequence[int], counts: Tensor
) -> tuple[RunConfig, tuple[Note, ...]]:
    """List the elements of the detector with most counts, where the run file says `auto`.

    Args:
        config: run file.
        facts: facts of the scan.
        detectors: numbers of the detectors, counted from 0.
        counts: (detector, channel), of all detectors of the scan.

    Raises:
        ConfigError: no incident energy.
        FitError: nothing is found.
    """
    if config.sample.elements != AUTO:
        return config, ()
    best = max(detectors, key=lambda d: float(counts[d].sum()))
    sources, fit = read_sources(config.fit, facts, best), config.fit
    found = find_elements(
        counts[best],
        resolve_incident(config.sample, sources),
        calibration=facts.calibration[best] if facts.calibration is not None and fit.calibration != "none" else None,
        detector=Detector(**resolve_detector(config.detector, sources)),
        options=FitOptions(
            energy_range_kev=fit.energy_range_kev,
            background=fit.background,
            kbeta_sd=fit.kbeta_sd,
            incident_energy_sd_kev=fit.incident_energy_sd_kev,
            source=config.sample.source,
            constants=constant_set(fit.constants),
        ),
    )
    listed = dataclasses.replace(config, sample=dataclasses.replace(config.sample, elements=found.names))
    sure = [name for name in found.names if found.sureness[name] == "certain"]
    rest = [_describe(name, found.rivals.get(name, ())) for name in found.names if name not in sure]
    text = f"elements found in the spectrum: certain {', '.join(sure) or 'none'}; probable {', '.join(rest) or 'none'}"
    return listed, (Note("fact", text),)
