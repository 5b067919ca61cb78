"""Run files, scans and override files in a few words, and what becomes of them before a fit."""

from pathlib import Path

from hpcxrf.config.run import check_config
from hpcxrf.formats.scan import EnergyCalibration
from hpcxrf.physics.parameters import PARAMETERS
from hpcxrf.pipeline.prepare.from_config import prepare
from hpcxrf.pipeline.records import ScanFacts

DEFAULTS = {p.name: p for p in PARAMETERS}


def config_of(**sections):
    given = {"sample": {"elements": ["S", "Ca", "Fe"], "incident_energy_kev": 10.0}}
    return check_config({"input": {"files": ["a.mda"]}, **given, **sections}, "x.yaml")


def facts_of(source="scan.mda"):
    axis = EnergyCalibration(offset_kev=0.01, slope_kev=0.0095)
    return ScanFacts(
        source=Path(source), n_detectors=2, n_channels=2048, calibration=(axis, axis), incident_energy_kev=None
    )


def override_of(folder, text, name="o.txt"):
    path = folder / name
    path.write_text("DATE: 2025-01-01\n" + text)
    return str(path)


def rows_of(config, facts=None, detector=0):
    prepared = prepare(config, facts or facts_of(), detector)
    return {p.name: p for p in prepared.problem.parameters}, " | ".join(note.text for note in prepared.notes)
