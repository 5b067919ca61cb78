"""Scans of any size made cheaply into run directories, and the child process in which a stage of one is measured."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from scan_units import run_unit, units_of

from hpcxrf.config.run import check_config, effective
from hpcxrf.formats.scan import EnergyCalibration, RawScan, ScanScalars
from hpcxrf.physics.constants import PHYSICS
from hpcxrf.physics.detector import Detector
from hpcxrf.physics.lines import build_line_table
from hpcxrf.physics.model import SpectrumModel, evaluate
from hpcxrf.physics.parameters import PARAMETERS, pack, replace_values
from hpcxrf.pipeline.records import DatasetJob
from hpcxrf.store.ingest import ingest_scan
from hpcxrf.store.rundir import RunDir, create_or_resume

ELEMENTS = ("Si", "S", "K", "Ca", "Mn", "Fe", "Cu", "Zn")
ENERGY_KEV = 12.0
SLOPE_KEV = 0.01
MEAN = (20, 40, 100, 300, 20, 400, 60, 150, 200, 300)
CONTINUUM = 200.0


def expected_spectra(n_channels, slope_kev):
    """(spectrum, channel): 64 mixtures of the families."""
    table = build_line_table(ELEMENTS, ENERGY_KEV, efficiency=Detector())
    theta = pack(
        replace_values(PARAMETERS, {"coherent_sct_energy": ENERGY_KEV, "energy_slope": slope_kev, "energy_offset": 0.0})
    )
    channel = torch.arange(n_channels, dtype=torch.float64)
    phi = evaluate(theta, SpectrumModel(table=table, channel=channel, constants=PHYSICS)).phi
    continuum = torch.exp(-channel / (0.25 * n_channels))
    share = 2.0 * torch.rand(64, len(MEAN), generator=torch.Generator().manual_seed(3)).double()
    peaks = (share * torch.tensor(MEAN)) @ phi.T
    return (peaks + CONTINUUM * continuum / continuum.sum()).clamp(min=0.0).float()


def made_scan(source, shape, slope_kev=SLOPE_KEV):
    """Poisson pixels of 64 spectra; each band of eight rows is drawn with its own seed."""
    source.write_bytes(b"simulated")
    _, _, columns, channels = shape
    expected = expected_spectra(channels, slope_kev)

    def read_counts(rows):
        generator = torch.Generator().manual_seed(rows.start)
        n = (rows.stop - rows.start) * columns
        which = torch.randint(64, (n,), generator=generator)
        counts = torch.empty((n, channels), dtype=torch.uint16)
        for i in range(0, n, 4096):
            drawn = torch.poisson(expected[which[i : i + 4096]], generator=generator)
            counts[i : i + 4096] = drawn.to(torch.uint16)
        return counts.numpy().reshape(1, -1, columns, channels)

    return RawScan(
        name="scan",
        format="simulated",
        files=(source,),
        shape=shape,
        dtype=np.dtype(np.uint16),
        rows_per_read=8,
        read_counts=read_counts,
        read_scalars=ScanScalars,
        calibration=(EnergyCalibration(offset_kev=0.0, slope_kev=slope_kev),),
        incident_energy_kev=ENERGY_KEV,
    )


def made_job(folder, shape, *, ingest=True, **sections):
    """A run directory in `folder` with the scan ingested, and the job whose other tasks can run."""
    raw = {
        "input": {"files": ["-"]},
        "sample": {"elements": list(ELEMENTS), "incident_energy_kev": ENERGY_KEV},
        "fit": {"suggest": False},
        "pixels": {"deviance": False},
        "regions": {"find": []},
        **sections,
    }
    config = check_config(raw, "test")
    run = create_or_resume(folder / "run", "input: {files: ['-']}\n", effective(config))
    job = DatasetJob(
        number=0,
        dataset_id="scan",
        source=folder / "scan.raw",
        run_dir=run.path,
        config=config,
        detectors=("0",),
        shape=shape,
    )
    if ingest:
        ingest_made(job)
    return job


def ingest_made(job):
    scan = made_scan(job.source, job.shape, SLOPE_KEV * 2048 / job.shape[3])
    ingest_scan(scan, RunDir(path=job.run_dir).spectra_store(job.dataset_id))


def units(job, stage):
    return [unit for unit in units_of(job) if unit.stage == stage]


def run_stage(job, stage):
    return [run_unit(job, unit, []) for unit in units(job, stage)]


def measured_stage(job, stage, limit_bytes=None):
    """Run the tasks of a stage in a new process: megabytes idle and at the peak, and seconds of the records.

    Args:
        job: the dataset.
        stage: which.
        limit_bytes: address space above that of the idle process.
    """
    folder = job.run_dir.parent
    (folder / "job.pickle").write_bytes(pickle.dumps(job))
    command = [sys.executable, __file__, str(folder / "job.pickle"), stage, str(limit_bytes or 0)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _status_mb(key):
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    raise KeyError(key)


def _main():
    import resource

    # Loaded by the first task of a worker, and kept by an idle one.
    import hpcxrf.pipeline.regions.tasks
    import hpcxrf.pipeline.tasks  # noqa: F401
    from hpcxrf.fitting.pixels.compiled import load_map_kernels
    from hpcxrf.fitting.spectrum.compiled import load_spectrum_kernels

    job = pickle.loads(Path(sys.argv[1]).read_bytes())  # noqa: S301 (written by the parent test)
    torch.set_num_threads(1)
    # What an idle worker has loaded: libraries and kernels, and the buffers of one small product and factorisation.
    load_spectrum_kernels()
    load_map_kernels()
    ones = torch.ones(32, 32, dtype=torch.float64)
    torch.linalg.cholesky(torch.eye(32, dtype=torch.float64) + ones @ ones)
    idle_mb, limit = _status_mb("VmRSS"), int(sys.argv[3])
    if limit:
        most = int(_status_mb("VmSize") * 2**20) + limit
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    if sys.argv[2] == "ingest":
        ingest_made(job)
    records = [] if sys.argv[2] == "ingest" else run_stage(job, sys.argv[2])
    found = {"idle_mb": idle_mb, "peak_mb": _status_mb("VmHWM"), "tasks": len(records)}
    found |= {key: sum(getattr(r, key) for r in records) for key in ("wall_s", "cpu_s", "read_s", "fit_s", "write_s")}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    _main()
