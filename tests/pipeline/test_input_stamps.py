"""Whether the files that a result was made from are still all of its scan, and as they were."""

import numpy as np
import pytest

from hpcxrf.config.run import check_config
from hpcxrf.formats.maps_writer import write_maps_v10
from hpcxrf.formats.registry import open_scan
from hpcxrf.formats.scan import EnergyCalibration
from hpcxrf.pipeline.prepare.inputs import input_stamps, renew_stamps


@pytest.fixture
def config():
    return check_config({"input": {"files": ["x"]}, "sample": {"elements": ["Fe"], "incident_energy_kev": 12}}, "x")


def write_detectors(folder, names):
    """Detectors of one scan, of which some have not landed yet."""
    size = (len(names), 2, 3)
    counts = np.ones((*size, 64), np.uint32)
    times = dict.fromkeys(("live_time_s", "real_time_s", "icr_hz", "ocr_hz"), np.ones(size))
    axes = (EnergyCalibration(offset_kev=0.0, slope_kev=0.01),) * len(names)
    files = write_maps_v10(folder / "all.h5", counts, **times, energy_calibration=axes)
    return [file.rename(folder / name) for file, name in zip(files, names, strict=True)]


@pytest.mark.parametrize("late", ["scan.h50", "scan.h52", "scan.h57"])
def test_a_detector_that_lands_later_makes_a_scan_another_one(tmp_path, config, late):
    first, away = write_detectors(tmp_path, ["scan.h51", "late"])
    stamps = dict(input_stamps(config, open_scan(first), first))
    assert renew_stamps(config, first, stamps, dict) == stamps
    away.rename(tmp_path / late)
    assert renew_stamps(config, first, stamps, dict) is None
    # What is made from both is whole again.
    both = dict(input_stamps(config, open_scan(first), first))
    assert len(both) == 2
    assert renew_stamps(config, first, both, dict) == both


def test_another_scan_beside_it_is_none_of_its_detectors(tmp_path, config):
    first, other = write_detectors(tmp_path, ["scan.h50", "scan2.h50"])
    stamps = dict(input_stamps(config, open_scan(first), first))
    assert renew_stamps(config, first, stamps, dict) == stamps
    other.rename(tmp_path / "scan.h5")
    assert renew_stamps(config, first, stamps, dict) == stamps
