"""Scans with known truth: for tests, demonstrations and benchmarks.

The physics here is written afresh and shares neither code nor line data with `hpcxrf.physics`: it has lines, yields
and attenuation from tables of its own (`line_data`; the model has xraylib's), exponentially modified Gaussian tails, a
bremsstrahlung continuum, self-convolved pile-up and energy-dependent escape, which the model that is fitted does not
have. Otherwise a test of the fit would only show that it inverts itself.
"""

from hpcxrf.simulate.archive import archive_spec
from hpcxrf.simulate.archive_files import ArchiveRow, read_index, write_archive
from hpcxrf.simulate.output import (
    ScanTruth,
    absent_elements,
    read_truth,
    spec_from_json,
    unlisted_elements,
    write_scan,
    write_truth,
)
from hpcxrf.simulate.plant import (
    PLANT_ELEMENTS,
    PLANT_TRACES,
    SummedScan,
    draw_region,
    plant_spec,
    sum_scan,
    trial_spec,
)
from hpcxrf.simulate.presets import SimulatedSpectrum, demo_spec, random_spectrum_spec, simulate_spectrum
from hpcxrf.simulate.scan import (
    SimulatedScan,
    draw_counts,
    expected_amplitudes,
    expected_counts,
    raw_scan,
    scan_scalars,
    simulate_scan,
    true_theta,
)
from hpcxrf.simulate.spec import DetectorSpec, PhaseSpec, ScanSpec, ScatterSpec, StructureSpec

__all__ = [
    "PLANT_ELEMENTS",
    "PLANT_TRACES",
    "ArchiveRow",
    "DetectorSpec",
    "PhaseSpec",
    "ScanSpec",
    "ScanTruth",
    "ScatterSpec",
    "SimulatedScan",
    "SimulatedSpectrum",
    "StructureSpec",
    "SummedScan",
    "absent_elements",
    "archive_spec",
    "demo_spec",
    "draw_counts",
    "draw_region",
    "expected_amplitudes",
    "expected_counts",
    "plant_spec",
    "random_spectrum_spec",
    "raw_scan",
    "read_index",
    "read_truth",
    "scan_scalars",
    "simulate_scan",
    "simulate_spectrum",
    "spec_from_json",
    "sum_scan",
    "trial_spec",
    "true_theta",
    "unlisted_elements",
    "write_archive",
    "write_scan",
    "write_truth",
]
