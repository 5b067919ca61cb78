"""Scans of a run file: how they are read and named, their files, and the detectors of their results."""

import glob
import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

from hpcxrf.config.run import RunConfig
from hpcxrf.errors import ConfigError
from hpcxrf.formats.scan import RawScan, ReadOptions
from hpcxrf.formats.signatures import list_member_names
from hpcxrf.methods import METHODS
from hpcxrf.pipeline.prepare.sources import find_override_file
from hpcxrf.store.files import file_sha256, tree_sha256
from hpcxrf.store.gather import METADATA
from hpcxrf.store.packed import StoreFiles, folder_of, is_packed, is_store, packed_file

SUM: Final = "sum"
"""Name, on the results' detector axis, of the raw sum of all detectors."""


def read_options(config: RunConfig) -> ReadOptions:
    """Collect what the run file says about files that do not say it themselves."""
    given = config.input
    return ReadOptions(
        dataset_path=given.dataset_path,
        energy_axis=given.energy_axis,
        detector_axis=given.detector_axis,
        map_shape=given.map_shape,
        positions=given.positions,
        energy_offset_kev=given.energy_offset_kev,
        energy_slope_kev=given.energy_slope_kev,
        allow_external=given.allow_external,
    )


def archive_root(inputs: Sequence[str]) -> Path:
    """Find the folder that dataset names are relative to: that of the inputs, not of what was found in them.

    So a file that is added to a folder later renames no dataset.
    """
    folders = [_folder(Path(name).absolute()) for name in inputs]
    return Path(os.path.commonpath(folders))


def _folder(path: Path) -> Path:
    """The folder itself, the folder of a file, or the part of a pattern before its first wild card."""
    if path.is_dir():
        return path
    fixed = [part for part in path.parts[:-1] if not glob.has_magic(part)]
    wild = next((i for i, part in enumerate(path.parts[:-1]) if glob.has_magic(part)), len(fixed))
    return Path(*path.parts[:wild])


def input_stamps(config: RunConfig, scan: RawScan, source: Path) -> tuple[tuple[str, str], ...]:
    """Stamp the files that results are made from: size and time of the scan's, checksums of all others.

    A changed stamp makes the tasks run again; the ingest then compares checksums and refuses another scan in
    the place of the first.
    """
    stamps = [(str(file.absolute()), _stamp(file)) for file in scan.files]
    for detector in range(scan.shape[0]):
        found = find_override_file(config.fit, source, detector)
        if found is not None and found.is_file():
            stamps.append(checksum_stamp(found))
    if config.fit.previous is not None:
        # Its theta is an attribute of its root; what else is in the store has no part in this fit.
        previous = Path(config.fit.previous)
        stamps += [checksum_stamp(folder_of(previous) / METADATA)] if is_store(previous) else []
    return tuple(dict.fromkeys(stamps))


def renew_stamps(
    config: RunConfig, source: Path, stamps: Mapping[str, str], read_checksums: Callable[[], Mapping[str, str]]
) -> Mapping[str, str] | None:
    """Stamps of today of the files that a result was made from; None: one is another, or one has appeared beside it.

    Args:
        config: the run file.
        source: the scan's own file.
        stamps: what `input_stamps` gave then; no scan is opened for this.
        read_checksums: gives the SHA-256 that the scan's files had then by name, for those that have another time.
    """
    appeared = find_override_file(config.fit, source, 0)
    beside = [*list_member_names(source), *([] if appeared is None else [appeared])]
    if any(str(file.absolute()) not in stamps and file.is_file() for file in beside):
        return None
    changed = [name for name, stamp in stamps.items() if not is_unchanged(Path(name), stamp)]
    if not changed:
        return stamps
    known = read_checksums() if all(_has_size_of(Path(name), stamps[name]) for name in changed) else {}
    try:
        renewed = {name: _stamp(Path(name)) for name in changed}
        same = all(name in known and tree_sha256(Path(name)) == known[name] for name in changed)
        return {**stamps, **renewed} if same and all(is_unchanged(Path(n), one) for n, one in renewed.items()) else None
    except OSError:
        return None


def _has_size_of(file: Path, stamp: str) -> bool:
    """Whether a file has the size that its stamp says, of those with a size."""
    try:
        return stamp.split(" bytes", 1)[0] == str(file.stat().st_size)
    except OSError:
        return False


def is_unchanged(file: Path, stamp: str) -> bool:
    """Whether a file still has its stamp of `input_stamps`; a simulated scan is known by its specification."""
    if stamp.startswith("simulated"):
        return True
    try:
        return (checksum_stamp(file)[1] if stamp.startswith("sha256") else _stamp(file)) == stamp
    except OSError:
        return False


def _stamp(file: Path) -> str:
    status = file.stat()
    return f"{status.st_size} bytes, {status.st_mtime_ns} ns"


def checksum_stamp(file: Path) -> tuple[str, str]:
    """Name and stamp of a file that many scans share; the metadata of a store are the same in its zip."""
    packed = file.name == METADATA and is_packed(file.parent)
    seen = _stamp(packed_file(file.parent) if packed else file)
    return str(file.absolute()), f"sha256 {_hash_once(file, seen)}"


@lru_cache(maxsize=4096)
def _hash_once(file: Path, _stamp: str) -> str:
    """SHA-256 of a file that many scans share, read again when its size or time is another."""
    return StoreFiles(file.parent).checksum(METADATA) if file.name == METADATA else file_sha256(file)


def detector_names(config: RunConfig, n_detectors: int) -> tuple[str, ...]:
    """Name the entries of the results' detector axis, in their order: the sum, where there is one, then each.

    Raises:
        ConfigError: a detector that is excluded and does not exist, or none that is left.
    """
    excluded = set(config.detectors.exclude)
    if unknown := sorted(excluded - set(range(n_detectors))):
        raise ConfigError(
            f"detectors.exclude names {', '.join(map(str, unknown))}, but the detectors of the scan are 0 to "
            f"{n_detectors - 1}"
        )
    each = tuple(str(d) for d in range(n_detectors) if d not in excluded)
    if not each:
        raise ConfigError(f"detectors.exclude leaves none of the {n_detectors} detectors of the scan; name fewer")
    wanted, both = config.pixels.detectors, (SUM, *each)
    if wanted == "auto":
        return both if len(each) > 1 and METHODS[config.pixels.method].sums else each
    names: dict[str, tuple[str, ...]] = {"each": each, "sum": (SUM,), "both": both}
    return names[wanted]
