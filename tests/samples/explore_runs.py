"""Small finished runs of measured scans, made in this process, that the explorer opens."""

import atexit
import dataclasses
import json
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import yaml
from scan_units import run_unit, units_of

from hpcxrf.config.run import check_config, effective
from hpcxrf.pipeline.plan import make_plan
from hpcxrf.pipeline.request import keep_configuration
from hpcxrf.store.files import tree_sha256
from hpcxrf.store.rundir import FINISHED, RunDir, create_or_resume
from hpcxrf.store.spectra import open_spectra

FILM = ("Si", "S", "Cl", "Ar", "K", "Ca", "Ti", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn")
GLASS = ("Si", "Cl", "Ar", "Ca", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn")
SALT = ("Na", "Mg", "Al", "Si", "S", "Cl", "K", "Ca", "Ti", "Mn", "Fe")


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallRun:
    """A finished run of one scan."""

    run_dir: Path
    dataset_id: str

    @property
    def run(self):
        return RunDir(path=self.run_dir)

    @property
    def spectra(self):
        return open_spectra(self.run.spectra_store(self.dataset_id))

    def region(self, detectors, y, x):
        """Summed counts (channel,) of a box by detector, and its number of pixels."""
        box = self.spectra.read_rows(list(detectors), slice(*y), slice(*x))
        counts = {d: one.sum(axis=(0, 1), dtype=np.int64) for d, one in zip(detectors, box, strict=True)}
        return counts, box.shape[1] * box.shape[2]

    def hashes(self):
        """Checksum of everything but what the explorer may write, by name."""
        return {p.name: tree_sha256(p) for p in sorted(self.run_dir.iterdir()) if p.name != "explore"}


def make_run(folder, source, *, regions=None, stages=("ingest", "integrated", "pixels"), **sections):
    """Run the stages of one scan one after the other, without a driver."""
    raw = {"input": {"files": [str(source)]}, "regions": regions or {"find": []}, **sections}
    config = check_config(raw, "test")
    run = create_or_resume(folder, yaml.safe_dump(json.loads(json.dumps(raw))), effective(config))
    keep_configuration(run, config)
    (job,) = make_plan(config, folder).jobs
    done = []
    for unit in units_of(job):
        if unit.stage in (*stages, "finalise"):
            done.append(run_unit(job, unit, done))
            run.append(job.dataset_id, {"event": FINISHED, **dataclasses.asdict(done[-1])})
    return SmallRun(run_dir=folder, dataset_id=job.dataset_id)


@cache
def _scratch():
    folder = Path(tempfile.mkdtemp(prefix="hpcxrf-explore-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def copy_run(made, folder):
    """The same run in a folder of its own."""
    shutil.copytree(made.run_dir, folder)
    return SmallRun(run_dir=folder, dataset_id=made.dataset_id)


@cache
def film_run(shared_data):
    """Fly scan of a thin film, 11 x 9 pixels, 4 detectors and their sum, with a refined region; made once."""
    return make_run(
        _scratch() / "film",
        shared_data / "aps-2ide" / "mda" / "2xfm_0011.mda",
        stages=("ingest", "integrated", "pixels", "regions", "refine"),
        regions={"find": [], "rectangles": {"corner": [0, 5, 0, 4]}},
        sample={"elements": list(FILM), "incident_energy_kev": 10.0},
    )


@cache
def glass_run(shared_data):
    """One spectrum of a thin glass, 4 detectors; made once."""
    return make_run(
        _scratch() / "glass",
        shared_data / "larch-srm1832" / "srm1832.mca",
        sample={"elements": list(GLASS), "incident_energy_kev": 12.5},
        fit={"energy_range_kev": [1.0, 13.5]},
    )


@cache
def salt_run(shared_data):
    """Scan of a salt flat with a Rh tube, 2 detectors; made once."""
    return make_run(
        _scratch() / "salt",
        shared_data / "pixl-laguna" / "laguna.h5",
        sample={"elements": list(SALT), "source": "tube"},
        fit={"energy_range_kev": [1.0, 19.0]},
        pixels={"deviance": False},
    )
