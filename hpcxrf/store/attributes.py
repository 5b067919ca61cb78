"""Root attributes of a spectra store: where the counts came from, and whether a store may be used."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import hpcxrf
from hpcxrf.errors import OtherScanError, OutputError
from hpcxrf.formats.scan import EnergyCalibration, RawScan
from hpcxrf.notes import pack_notes
from hpcxrf.store.packed import has_store, is_store, read_root
from hpcxrf.store.schema import COMPLETE_ATTRIBUTE, READABLE_SCHEMAS, SCHEMA_ATTRIBUTE, SCHEMA_VERSION

Attributes = dict[str, Any]

_IDENTITY: Final = ("format", "shape", "calibration_kev", "incident_energy_kev")
_REMEDY: Final = "remove it or name another output folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One file that a scan was read from."""

    path: str
    size_bytes: int
    sha256: str
    """Checksum of the bytes of a file, or of the names and checksums of all files in a folder."""


def build_root_attributes(scan: RawScan) -> Attributes:
    """Root attributes of an unfinished store of this scan; those of its source come when it is finished."""
    calibration = scan.calibration
    return {
        SCHEMA_ATTRIBUTE: SCHEMA_VERSION,
        COMPLETE_ATTRIBUTE: False,
        "hpcxrf_version": hpcxrf.__version__,
        "scan_name": scan.name,
        "format": scan.format,
        "shape": list(scan.shape),
        "calibration_kev": None
        if calibration is None
        else [[one.offset_kev, one.slope_kev, one.quadratic_kev] for one in calibration],
        "incident_energy_kev": scan.incident_energy_kev,
        "tube": scan.tube,
        **pack_notes(scan.notes),
    }


def describe_sources(sources: Iterable[SourceFile]) -> Attributes:
    """Root attributes that say which files a scan was read from."""
    return {"sources": [asdict(source) for source in sources]}


def read_calibration(attributes: Attributes) -> tuple[EnergyCalibration, ...] | None:
    """The source's energy calibration, one per detector, or None where it gave none."""
    stored = attributes["calibration_kev"]
    if stored is None:
        return None
    return tuple(
        EnergyCalibration(offset_kev=offset, slope_kev=slope, quadratic_kev=quadratic)
        for offset, slope, quadratic in stored
    )


def read_root_attributes(path: Path) -> Attributes | None:
    """Root attributes of a store of a schema version that can be read, or None where there is no store.

    Raises:
        OutputError: something else is there, or a store of another schema version.
    """
    if not has_store(path):
        return None
    attributes = _read_attributes(path)
    version = attributes.get(SCHEMA_ATTRIBUTE)
    if version not in READABLE_SCHEMAS:
        raise OutputError(
            f"{path}: is a store of schema version {version}, this program reads versions {READABLE_SCHEMAS[0]} to "
            f"{SCHEMA_VERSION}; remove the store or name another output folder, and ingest again"
        )
    return attributes


def _read_attributes(path: Path) -> Attributes:
    if not is_store(path):
        raise OutputError(_explain_no_store(path))
    metadata = read_root(path)
    attributes = metadata.get("attributes")
    if not isinstance(attributes, dict) or SCHEMA_ATTRIBUTE not in attributes:
        raise OutputError(_explain_no_store(path))
    return attributes


def _explain_no_store(path: Path) -> str:
    return f"{path}: exists, but is not a store of hpcxrf; {_REMEDY}"


def refuse_other_scan(path: Path, stored: Attributes, wanted: Attributes) -> None:
    """Accept a finished store only for the scan that it was made of, read with the same options.

    Raises:
        OtherScanError: every difference, stored and requested.
    """
    checksums = {"SHA-256": ([_list_checksums(stored)], [_list_checksums(wanted)])}
    options = {key: (stored.get(key), wanted[key]) for key in _IDENTITY}
    different = [f"  {key}: stored {old}, now {new}" for key, (old, new) in (checksums | options).items() if old != new]
    if different:
        files = ", ".join(source["path"] for source in wanted["sources"])
        raise OtherScanError(
            "\n".join(
                [
                    f"{path}: holds another scan than {files}, or one read with other options:",
                    *different,
                    "remove the store to ingest it again, or name another output folder",
                ]
            )
        )


def _list_checksums(attributes: Attributes) -> list[str]:
    return [source["sha256"] for source in attributes["sources"]]


def hash_record(record: Mapping[str, object]) -> str:
    """SHA-256 of a JSON record; equal for equal content in any order of the keys."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
