"""What a spectrum and a pixel cost, measured by fitting a scan, kept with its date, and what a plan costs by it."""

import datetime
import json
import os
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from hpcxrf.config.run import RunConfig
from hpcxrf.errors import ConfigError
from hpcxrf.pipeline.plan import Plan
from hpcxrf.pipeline.plan_size import PlanSize, bytes_written, pixel_spectra
from hpcxrf.pipeline.records import DatasetJob
from hpcxrf.store.files import atomic_write_text, output_faults

_FILE: Final = "probes.json"
_GB: Final = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Seconds of one worker, measured."""

    date: str
    """ISO 8601, UTC."""
    host: str
    device: str
    """`cpu`, or `cuda: NAME`."""
    kind: str
    """What was measured: methods of spectra and pixels."""
    ingest_s_per_gb: float
    """Seconds per 1e9 bytes of counts, as they are before compression."""
    dataset_s: float
    """Seconds per dataset for its regions and for closing its stores."""
    spectrum_s: float
    """Seconds per integrated spectrum."""
    pixel_s: float
    """Seconds per pixel of a detector."""

    @property
    def on_gpu(self) -> bool:
        """Measured on a GPU."""
        return self.device.startswith("cuda")


def kind_of(config: RunConfig) -> str:
    """The choices of a run file that decide what a spectrum costs."""
    fit, pixels = config.fit, config.pixels
    return f"{fit.method} {fit.objective}, pixels {pixels.method}"


def hours(work: PlanSize, probe: Probe) -> float:
    """Worker-hours that a plan takes by a measurement: GPU-hours or core-hours, as it was measured."""
    seconds = (
        work.bytes_written / _GB * probe.ingest_s_per_gb
        + work.datasets * probe.dataset_s
        + work.spectra * probe.spectrum_s
        + work.pixels * probe.pixel_s
    )
    return seconds / 3600.0


def measure(plan: Plan, config: RunConfig) -> Probe:
    """Run the smallest dataset of a plan in this process, in a temporary folder, and keep what it cost.

    Raises:
        ConfigError: no dataset to be measured.
        FitError: it cannot be fitted; with the reason.
    """
    from dataclasses import replace

    if not plan.jobs:
        raise ConfigError("--probe: no scan of the run file can be opened; there is nothing to measure")
    smallest = min(plan.jobs, key=pixel_spectra)
    with tempfile.TemporaryDirectory(prefix="hpcxrf-probe-") as folder:
        seconds, device = _measure_stages(replace(smallest, run_dir=Path(folder)))
    spectra, pixels = smallest.shape[0], pixel_spectra(smallest)
    apart = ("ingest", "integrated", "pixels")
    probe = Probe(
        date=datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="seconds"),
        host=socket.gethostname(),
        device=device,
        kind=kind_of(config),
        ingest_s_per_gb=seconds.get("ingest", 0.0) / (bytes_written(smallest) / _GB),
        dataset_s=sum(s for stage, s in seconds.items() if stage not in apart),
        spectrum_s=seconds.get("integrated", 0.0) / spectra,
        pixel_s=seconds.get("pixels", 0.0) / pixels,
    )
    _keep(probe)
    return probe


def _measure_stages(job: DatasetJob) -> tuple[dict[str, float], str]:
    """Seconds by stage: of a GPU all that pass, of a CPU those that one core was at work."""
    from hpcxrf.config.run import effective
    from hpcxrf.pipeline.workload import SCAN
    from hpcxrf.runner.records import TaskRecord
    from hpcxrf.runner.worker import choose_device
    from hpcxrf.store.rundir import create_or_resume

    create_or_resume(job.run_dir, "", effective(job.config))
    device = choose_device(job.config)
    done: dict[str, TaskRecord] = {}
    for unit in SCAN.units_of(job):
        done[unit.task] = SCAN.run_unit(job, unit, [done[name] for name in unit.needs])
    seconds: dict[str, float] = {}
    for record in done.values():
        spent = record.wall_s if device.type == "cuda" else max(record.cpu_s, record.read_s + record.write_s)
        seconds[record.stage] = seconds.get(record.stage, 0.0) + spent
    return seconds, _device_name(device.type)


def _device_name(kind: str) -> str:
    if kind == "cpu":
        return "cpu"
    import torch

    return f"cuda: {torch.cuda.get_device_name(0)}"


def last_probe(config: RunConfig, *, on_gpu: bool) -> Probe | None:
    """The latest measurement of this kind of fit on this kind of device; None: there is none.

    Raises:
        ConfigError: what is kept is damaged.
    """
    mine = [p for p in _kept() if p.kind == kind_of(config) and p.on_gpu == on_gpu]
    return mine[-1] if mine else None


def probe_file(environment: Mapping[str, str] = os.environ) -> Path:
    """Where measurements are kept, the latest last."""
    cache = environment.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache, "hpcxrf", _FILE)


def _kept() -> list[Probe]:
    path = probe_file()
    if not path.is_file():
        return []
    try:
        return [Probe(**row) for row in json.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path}: is damaged ({error}); remove it") from error


def _keep(probe: Probe) -> None:
    path = probe_file()
    others = [p for p in _kept() if (p.kind, p.device, p.host) != (probe.kind, probe.device, probe.host)]
    text = json.dumps([asdict(p) for p in [*others, probe]], indent=1) + "\n"
    with output_faults(path.parent, bytes_needed=len(text)):
        path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(path, text)
