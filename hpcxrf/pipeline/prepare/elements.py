"""The elements of a scan of which nobody lists any: found in its spectra, and listed for all that follows."""

import dataclasses
from collections.abc import Sequence

from torch import Tensor

from hpcxrf.config.run import RunConfig
from hpcxrf.config.sample import AUTO
from hpcxrf.fitting.axis.elements import FoundElements, find_elements
from hpcxrf.fitting.axis.flags import AXIS_FLAGS
from hpcxrf.fitting.spectrum.prepare import FitOptions
from hpcxrf.notes import Note
from hpcxrf.physics.constants import constant_set
from hpcxrf.physics.detector import Detector
from hpcxrf.pipeline.prepare.resolve import require_known, resolve_detector, resolve_incident
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


def list_found(
    config: RunConfig, facts: ScanFacts, detectors: Sequence[int], counts: Tensor
) -> tuple[RunConfig, tuple[Note, ...]]:
    """List the elements of the detector with most counts, where nobody lists any or the run file says `auto`.

    Args:
        config: run file.
        facts: facts of the scan.
        detectors: numbers of the detectors, counted from 0.
        counts: (detector, channel), of all detectors of the scan.

    Raises:
        ConfigError: no incident energy, or no energy calibration.
        FitError: nothing is found.
    """
    config = ask_for_elements(config, facts, detectors[0])
    if config.sample.elements != AUTO:
        return config, ()
    best = max(detectors, key=lambda d: float(counts[d].sum()))
    sources, fit = read_sources(config.fit, facts, best), config.fit
    require_known(config, sources)
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
    return listed, (Note("fact", describe_found(found)), *(n for n in found.fit.notes if _is_of_axis(n)))


def _is_of_axis(note: Note) -> bool:
    return note.text.partition(":")[0] in AXIS_FLAGS


def describe_found(found: FoundElements) -> str:
    """Say how sure each family is, and which others it cannot be told from."""
    words = []
    for sure in ("certain", "probable"):
        names = [name for name in found.names if found.sureness[name] == sure]
        words.append(f"{sure} {', '.join(names) or 'none'}")
    for name, rivals in found.rivals.items():
        words.append(f"{name} cannot be told from {' or '.join(rivals)}")
    return f"elements found in the spectrum: {'; '.join(words)}"
