"""What this installation can do, tried and not guessed."""

import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distributed.system import MEMORY_LIMIT

from hpcxrf.cluster.local.cluster import default_layout, local_cluster, usable_cores, visible_gpus
from hpcxrf.cluster.login.sbatch import job_request, job_size, render
from hpcxrf.cluster.slurm import try_submission
from hpcxrf.config.site import SiteProfile
from hpcxrf.errors import HpcxrfError, SlurmError
from hpcxrf.runner.ending import versions

Check = Callable[[], str]


def examine(site: SiteProfile | None = None) -> dict[str, Any]:
    """Run every check.

    Args:
        site: profile whose job Slurm tries, without submitting it; None: any small job.

    Returns:
        `ok` and a list of `{name, ok, found}`; a failed check says what it met.
    """
    checks: dict[str, Check] = {
        "versions": lambda: ", ".join(f"{k} {v}" for k, v in versions().items()),
        "machine": _machine,
        "GPUs": _gpus,
        "HDF5": _hdf5,
        "temporary space": _space,
        "a fit": _fit,
        "a TLS cluster": _cluster,
        "Slurm": lambda: _slurm(site),
    }
    found = [_try_check(name, check) for name, check in checks.items()]
    return {"ok": all(c["ok"] for c in found), "checks": found}


def _try_check(name: str, check: Check) -> dict[str, Any]:
    try:
        return {"name": name, "ok": True, "found": check()}
    except (HpcxrfError, OSError, RuntimeError, ImportError) as error:
        return {"name": name, "ok": False, "found": f"{type(error).__name__}: {error}"}


def _machine() -> str:
    cores = usable_cores()
    workers, threads = default_layout(cores, len(visible_gpus()))
    memory = MEMORY_LIMIT / 2**30
    return f"{cores} cores, {memory:.0f} GiB; a run takes {workers} workers x {threads} threads"


def _gpus() -> str:
    import torch

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ", ".join(names) if names else "torch sees no GPU; fits run on the CPU"


def _hdf5() -> str:
    import h5py

    found = tuple(int(part) for part in h5py.version.hdf5_version.split(".")[:3])
    if found < (1, 14, 4):
        raise RuntimeError(
            f"h5py carries HDF5 {h5py.version.hdf5_version}, which has known holes; it must be 1.14.4 or later"
        )
    return f"HDF5 {h5py.version.hdf5_version}"


def _space() -> str:
    free = shutil.disk_usage(tempfile.gettempdir()).free / 2**30
    return f"{free:.1f} GiB free in {tempfile.gettempdir()}"


def _fit() -> str:
    import torch

    from hpcxrf.fitting.spectrum.integrated import fit_spectrum
    from hpcxrf.fitting.spectrum.problem import FitProblem
    from hpcxrf.physics.constants import PHYSICS
    from hpcxrf.physics.detector import Detector
    from hpcxrf.physics.lines import build_line_table
    from hpcxrf.physics.model import model_spectrum
    from hpcxrf.physics.parameters import PARAMETERS, pack

    table = build_line_table(["Si", "Ca", "Fe", "Cu"], 10.0, efficiency=Detector())
    channel = torch.arange(1200, dtype=torch.float64)
    amplitude = torch.tensor([3e4, 2e4, 5e4, 1e4, 2e4, 3e4], dtype=torch.float64)
    counts = model_spectrum(pack(PARAMETERS), amplitude, table, channel, constants=PHYSICS)
    setup = FitProblem(table=table, constants=PHYSICS, parameters=PARAMETERS, energy_min_kev=1.0, energy_max_kev=11.0)
    fit = fit_spectrum(counts, setup)
    if not fit.r2 > 0.99999:
        raise RuntimeError(f"a noise-free spectrum was fitted with R2 {fit.r2:.6f}, must be 1")
    return f"R2 {fit.r2:.6f} in {fit.cpu_s:.2f} CPU s"


def _cluster() -> str:
    with tempfile.TemporaryDirectory() as folder, local_cluster(1, 1, Path(folder), dashboard=False) as handle:
        answers: dict[str, int] = handle.client.run(sum, (1, 2))
    return f"{handle.cluster.scheduler_address.split(':')[0]}, answers ({', '.join(map(str, answers.values()))})"


def _slurm(site: SiteProfile | None) -> str:
    """Let Slurm try a job; without a site, a machine without Slurm passes as well."""
    if site is not None:
        size = job_size(site, workers=None, nodes=None)
        request = job_request(site, size, mode="allocation")
        folder = Path(tempfile.gettempdir(), "hpcxrf-doctor")
        script = render(site, request, size, run_dir=folder, python=sys.executable)
        return f"site {site.name}: {try_submission(script, ())}"
    if shutil.which("sbatch") is None:
        return "not here; `hpcxrf submit` needs a login node of a cluster"
    try:
        return try_submission("#!/bin/sh\ntrue\n", ())
    except SlurmError as error:
        return f"sbatch is here, but {error}"
