"""What a result was made from and with, as its store keeps it: inputs, versions, processor, constants.

`hpcxrf rerun` compares the same facts with those of today, by the same functions.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

import hpcxrf
from hpcxrf.config.run import RunConfig, effective
from hpcxrf.errors import FitError, HpcxrfError
from hpcxrf.formats.registry import open_scan
from hpcxrf.physics.components import find_emitted_lines, parse_component
from hpcxrf.physics.constants import constant_set
from hpcxrf.physics.detector import Detector, efficiency
from hpcxrf.physics.lines import TABLE_VERSION
from hpcxrf.physics.parameters import PARAMETERS
from hpcxrf.pipeline.prepare.inputs import checksum_stamp, read_options
from hpcxrf.pipeline.prepare.sources import find_override_file
from hpcxrf.pipeline.records import DatasetJob
from hpcxrf.results.store.storage import require_readable_schema
from hpcxrf.runner.ending import versions
from hpcxrf.runner.records import TaskRecord
from hpcxrf.runner.worker import machine_type
from hpcxrf.store.attributes import hash_record
from hpcxrf.store.gather import METADATA
from hpcxrf.store.packed import folder_of

PROVENANCE: Final = "provenance"
"""Root attribute of a results store."""
ENVIRONMENT: Final = "environment"
"""Key of the versions and the processor, in the attribute and in the facts of a task that had others."""
GPU: Final = "gpu"
"""Key of the name of the GPU, in the facts of a task that worked on one."""
THREADS: Final = "threads"
"""Key of the environment: torch threads of a worker."""

SCAN: Final = "scan"
OVERRIDE: Final = "override file"
PREVIOUS: Final = "earlier fit"
LABELS: Final = "label image"
REFERENCE: Final = "scan of the I0 reference"
STANDARD: Final = "standard"
STANDARD_TABLE: Final = "table of standards"
BESIDE_STANDARD: Final = "file beside a standard"
"""Kinds of inputs."""

_COMPUTING: Final = ("torch", "numpy", "numba", "llvmlite", "xraylib", "scikit-learn", "scikit-image", "h5py")
"""Libraries on which the bits of a result may depend."""
_MADE_OF: Final = ("config", "fitting", "formats", "physics", "pipeline", "quantify", "store")
"""Packages of this program whose texts are its numerics, with their data."""
_TEXTS: Final = (".py", ".yaml", ".csv")
_FLAGS: Final = {"flags", "Features"}
"""Lines of /proc/cpuinfo, of x86 and of Arm."""
_NUMERIC: Final = ("sse", "ssse", "avx", "fma", "f16c", "amx", "asimd", "sve", "sme")
"""Beginnings of flags of instructions for numbers; a newer kernel names further ones of other kinds."""
_DIGITS: Final = 16
_GRID_KEV: Final = tuple(np.arange(1.0, 40.5, 0.5).tolist())
_HASHED: Final = "sha256 "


def describe_environment() -> dict[str, str]:
    """Versions, text of the program, processor and threads of this process: what decides the bits of a result here."""
    return {**_describe_program(), THREADS: str(torch.get_num_threads())}


@lru_cache(maxsize=1)
def _describe_program() -> dict[str, str]:
    found = {name: _find_version(name) for name in _COMPUTING}
    return {
        **{name: versions()[name] for name in ("hpcxrf", "python")},
        "hpcxrf source": _hash_program(),
        **found,
        "processor": machine_type(),
        "vector instructions": str(torch.backends.cpu.get_cpu_capability()),
        "processor flags": _hash_flags(),
    }


def _find_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _hash_flags() -> str:
    """Fingerprint of the instructions for numbers that the processor has: kernels are compiled for them."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    lines = (line.partition(":") for line in text.splitlines())
    every = next((flags.split() for name, _, flags in lines if name.strip() in _FLAGS), [])
    return _fingerprint(sorted(flag for flag in every if flag.startswith(_NUMERIC)))


def _hash_program() -> str:
    """Fingerprint of the texts of the program: two of one version may differ in a checkout."""
    root = Path(hpcxrf.__file__).parent
    files = sorted(
        file for name in _MADE_OF for file in (root / name).rglob("*") if file.suffix in _TEXTS and file.is_file()
    )
    digest = hashlib.sha256((root / "methods.py").read_bytes())
    for file in files:
        digest.update(f"{file.relative_to(root)}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:_DIGITS]


def describe_constants(constants: str, components: Iterable[str], incident_energy_kev: float) -> dict[str, str]:
    """Constants of a fit, each as a text: numbers of the set, and fingerprints of what has many numbers.

    Args:
        constants: name of the constant set.
        components: names of what is fitted; pile-up, scatter and lines of a user have no lines of their own.
        incident_energy_kev: energy at which lines are excited.

    Raises:
        ConfigError: no such set of constants.
    """
    numbers = dataclasses.asdict(constant_set(constants))
    return {
        **{f"constants {constants}: {name}": repr(value) for name, value in numbers.items() if name != "name"},
        "table of theta": _fingerprint([dataclasses.asdict(p) for p in PARAMETERS]),
        "line table": TABLE_VERSION,
        "absorption in the detector's windows": _fingerprint(efficiency(_GRID_KEV, Detector()).tolist()),
        **{f"lines of {name}": text for name in components if (text := _hash_lines(name, incident_energy_kev))},
    }


@lru_cache(maxsize=4096)
def _hash_lines(name: str, incident_energy_kev: float) -> str | None:
    """Fingerprint of energies and strengths of a family's lines; None: it is not a family."""
    # Loaded late: xraylib has been by then.
    import xraylib

    try:
        component = parse_component(name)
    except FitError:
        return None
    if component.kind not in {"K", "L", "M"}:
        return None
    ((symbol, shell),) = component.families
    lines = find_emitted_lines(xraylib.SymbolToAtomicNumber(symbol), shell, incident_energy_kev)
    return _fingerprint([list(line) for line in lines])


def _fingerprint(values: object) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:_DIGITS]


def begin_provenance(constants: str, components: Iterable[str], incident_energy_kev: float) -> dict[str, Any]:
    """Provenance of a store that is made now: what is known when the spectra are fitted."""
    return {
        PROVENANCE: {
            ENVIRONMENT: describe_environment(),
            "constants": describe_constants(constants, components, incident_energy_kev),
        }
    }


def end_provenance(job: DatasetJob, attributes: Mapping[str, Any], after: Sequence[TaskRecord]) -> dict[str, Any]:
    """Root attributes that a store gets when it is closed: the configuration of the last command, and all inputs.

    Args:
        job: the dataset.
        attributes: root attributes of its store.
        after: records of the finished tasks.
    """
    told = [record.facts or {} for record in after]
    others = [facts[ENVIRONMENT] for facts in told if ENVIRONMENT in facts]
    return {
        # What is derived of finished maps may have been asked for after the fit.
        "configuration": effective(job.config),
        PROVENANCE: {
            **attributes.get(PROVENANCE, {}),
            "source": str(job.source),
            "inputs": list_inputs(job, attributes.get("source_files", ())),
            "gpus": sorted({str(facts[GPU]) for facts in told if GPU in facts}),
            "other_environments": [one for number, one in enumerate(others) if one not in others[:number]],
        },
    }


def mark_task(record: TaskRecord, store: Path) -> TaskRecord:
    """Say of a task on which GPU it worked, and with what other versions or processor than the fit of the spectra.

    Args:
        record: of the task.
        store: results store of its dataset.
    """
    facts = dict(record.facts or {})
    begun: Any = require_readable_schema(store).get(PROVENANCE, {})
    here = describe_environment()
    if begun.get(ENVIRONMENT, here) != here:
        facts[ENVIRONMENT] = here
    if record.device.startswith("cuda"):
        facts[GPU] = torch.cuda.get_device_name(0)
    return dataclasses.replace(record, facts=facts) if facts else record


def list_inputs(job: DatasetJob, sources: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every file that a result is made from: kind, path, size in bytes, SHA-256.

    Args:
        job: the dataset.
        sources: files of the scan as its spectra store has them.
    """
    paths = [name for name, stamp in job.stamps if not stamp.startswith(_HASHED)]
    # The store shows names that are not UTF-8, and the job has them.
    known = paths if len(paths) == len(sources) else [str(one["path"]) for one in sources]
    found = [
        {"kind": SCAN, "path": path, "bytes": int(one["bytes"]), "sha256": str(one["sha256"])}
        for path, one in zip(known, sources, strict=True)
    ]
    hashed = [(name, stamp) for name, stamp in job.stamps if stamp.startswith(_HASHED)]
    found += [_describe_input(OVERRIDE, name, stamp) for name, stamp in hashed if Path(name).name != METADATA]
    if job.config.fit.previous is not None:
        store = folder_of(Path(job.config.fit.previous).absolute())
        found.append({"kind": PREVIOUS, "path": str(store), "bytes": None, "sha256": hash_earlier_fit(store)})
    found += [_describe_input(LABELS, name, stamp) for name, stamp in job.region_stamps]
    found += [_describe_input(REFERENCE, name, stamp) for name, stamp in job.reference_stamps]
    standards = set(job.config.quantify.standards)
    for name, stamp in job.standard_stamps:
        found.append(_describe_input(STANDARD if name in standards else STANDARD_TABLE, name, stamp))
    for kind, path in list_beside(job.config, job.shape[0]):
        found.append(_describe_input(kind, *checksum_stamp(path)))
    return found


def list_beside(config: RunConfig, n_detectors: int) -> list[tuple[str, Path]]:
    """Files that the scans of the standards and of the I0 reference need beside themselves, with their kind.

    Args:
        config: the run file.
        n_detectors: number of detectors, each of which may have an override file of its own.
    """
    normalise = config.normalise
    reference = normalise.reference if normalise.i0 is not None else None
    scans = [(BESIDE_STANDARD, Path(name)) for name in config.quantify.standards]
    beside = []
    for kind, scan in scans:
        overrides = [find_override_file(config.fit, scan, detector) for detector in range(n_detectors)]
        beside += [(kind, path) for path in (*_list_companions(config, scan), *overrides) if path and path.is_file()]
    if isinstance(reference, str) and Path(reference).is_file():
        beside += [(REFERENCE, path) for path in _list_companions(config, Path(reference))]
    return list(dict.fromkeys(beside))


def _list_companions(config: RunConfig, scan: Path) -> tuple[Path, ...]:
    """Further files of a scan; none where it cannot be opened, which the task that needs it says."""
    try:
        files = open_scan(scan, read_options(config)).files
    except HpcxrfError:
        return ()
    return tuple(file.absolute() for file in files if file.absolute() != scan.absolute() and file.is_file())


def hash_earlier_fit(store: Path) -> str:
    """Checksum of what a fit takes from an earlier one: its theta and constants, whatever else the store gets.

    Raises:
        OutputError: no results store there.
    """
    attributes = require_readable_schema(store)
    return hash_record({name: attributes.get(name) for name in ("theta_by_detector", "constants")})


def _describe_input(kind: str, name: str, stamp: str) -> dict[str, Any]:
    path = Path(name)
    size = path.stat().st_size if path.is_file() else None
    return {"kind": kind, "path": name, "bytes": size, "sha256": stamp.removeprefix(_HASHED)}
