"""What the preparation of a fit needs to know of a scan. Loads neither torch nor zarr."""

from pathlib import Path
from typing import TYPE_CHECKING

from hpcxrf.formats.scan import RawScan
from hpcxrf.pipeline.records import ScanFacts

if TYPE_CHECKING:
    from hpcxrf.store.spectra import SpectraStore


def scan_facts(scan: "RawScan | SpectraStore", source: Path) -> ScanFacts:
    """Gather what the preparation of a fit needs to know of a scan, raw or ingested."""
    return ScanFacts(
        source=source,
        n_detectors=scan.shape[0],
        n_channels=scan.shape[3],
        calibration=scan.calibration,
        incident_energy_kev=scan.incident_energy_kev,
        tube=scan.tube,
    )
