"""The certificate of a standard's scan: which row of which table.

This module loads neither torch nor zarr: a plan refuses standards with it that nobody has certified.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hpcxrf.config.quantify import QuantifyConfig
from hpcxrf.config.standards import load_shipped_rows, read_standard_rows
from hpcxrf.errors import ConfigError, HpcxrfError
from hpcxrf.formats.standard import read_standards
from hpcxrf.pipeline.prepare.inputs import checksum_stamp
from hpcxrf.quantify.standards import CertifiedStandard, certify_maps_standards, certify_rows

MAPS_TABLE: Final = "maps_standardinfo.txt"
_YAML: Final = {".yaml", ".yml"}
_SHOWN: Final = 12


def find_certificate(scan: Path, config: QuantifyConfig) -> CertifiedStandard:
    """Find the certified areal densities of a standard.

    Args:
        scan: its scan.
        config: section of the run file.

    Raises:
        ConfigError: no table, a table with faults, or none of its standards is this scan's.
        InputFileError: a `maps_standardinfo.txt` that cannot be read.
    """
    if config.table is not None:
        return _choose(scan, _read_table(Path(config.table), config), config.table, only=len(config.standards) == 1)
    beside = _find_beside(scan)
    if beside is not None:
        return _choose(scan, _read_table(beside, config), str(beside), only=False)
    shipped = _certify_shipped(config)
    return _choose(
        scan, shipped, f"no {MAPS_TABLE} beside it or one folder up, and the table of the program", only=False
    )


def check_standards(config: QuantifyConfig) -> None:
    """Refuse standards whose scan or certificate is not there.

    Raises:
        ConfigError: all faults at once.
    """
    faults = []
    for name in config.standards:
        scan = Path(name)
        if not scan.is_file():
            faults.append(f"quantify.standards: {scan} is not there; name the scan file of the standard")
            continue
        try:
            find_certificate(scan, config)
        except HpcxrfError as error:
            faults.append(f"quantify: {error}")
    if faults:
        raise ConfigError("\n".join(faults))


def standard_stamps(config: QuantifyConfig) -> tuple[tuple[str, str], ...]:
    """Stamp the scans of the standards and the tables that certify them."""
    files = [Path(name) for name in config.standards]
    tables = [Path(config.table)] if config.table is not None else [t for f in files if (t := _find_beside(f))]
    return tuple(checksum_stamp(one) for one in dict.fromkeys([*files, *tables]) if one.is_file())


def _find_beside(scan: Path) -> Path | None:
    """The `maps_standardinfo.txt` beside a scan or one folder up."""
    folders = (scan.parent, scan.parent.parent)
    return next((path for folder in folders if (path := folder / MAPS_TABLE).is_file()), None)


def _read_table(path: Path, config: QuantifyConfig) -> tuple[CertifiedStandard, ...]:
    if path.suffix.lower() in _YAML:
        return certify_rows(read_standard_rows(path), default_relative_error=config.relative_error, unit=config.unit)
    return certify_maps_standards(
        read_standards(path), source=path.name, default_relative_error=config.relative_error, unit=config.unit
    )


def _certify_shipped(config: QuantifyConfig) -> tuple[CertifiedStandard, ...]:
    return certify_rows(load_shipped_rows(), default_relative_error=config.relative_error)


def _choose(scan: Path, table: Sequence[CertifiedStandard], where: str, *, only: bool) -> CertifiedStandard:
    """Take the standard that has the scan's file name, or the only one of a table that was named for it."""
    named = [one for one in table if one.file is not None and Path(one.file).name == scan.name]
    if len(named) == 1:
        return named[0]
    if only and len(table) == 1:
        return table[0]
    listed = ", ".join(
        one.name if one.file in {None, one.name} else f"{one.name} ({one.file})" for one in table[:_SHOWN]
    )
    which = f"{len(named)} standards have" if named else "no standard has"
    raise ConfigError(
        f"{scan}: {where}: {which} the file {scan.name}; there are {listed}; add it to a table with file: {scan.name}, "
        "and name that with quantify.table"
    )
