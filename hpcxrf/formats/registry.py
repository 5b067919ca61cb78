"""Which reader takes which file: by content, first match."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from hpcxrf.config.untrusted import is_folder, is_there
from hpcxrf.errors import InputFileError
from hpcxrf.formats import edge, first_look
from hpcxrf.formats.other_files import recognise_other
from hpcxrf.formats.scan import RawScan, ReadOptions
from hpcxrf.formats.signatures import belies_its_name, is_hdf5
from hpcxrf.formats.table import FileFormat

OVERRIDE_TEXT: Final = re.compile(rb"(?m)^\s*(ELEMENTS_TO_FIT|COHERENT_SCT_ENERGY|CAL_OFFSET_\[)")
STANDARD_TEXT: Final = re.compile(rb"(?m)^\s*ELEMENTS_IN_STANDARD")
FIT_PARAMETERS: Final = "a file of fit parameters"
"""What an override file is: no scan, but read with those beside it."""
ZARR_MARKERS: Final = ("zarr.json", ".zgroup", ".zarray")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanFormat:
    """One reader: what it looks for, and its pair of functions."""

    looks_for: str
    sniff: Callable[[Path, bytes], bool]
    open_file: Callable[[Path, ReadOptions], RawScan]
    file_formats: tuple[FileFormat, ...]
    """Rows of the table of formats."""


def scan_formats() -> tuple[ScanFormat, ...]:
    """The readers, in the order in which they are asked."""
    from hpcxrf.formats import (
        amptek_pmca,
        arrays,
        bruker_spx,
        columns,
        eds,
        emsa,
        epics_mca,
        instrument_csv,
        layouts,
        maps_hdf5,
        maps_raw,
        mda,
        ortec_spe,
        pixl_csv,
        spec_scans,
    )

    readers = (
        (mda, "MDA (EPICS saveData: version, rank 1 to 4)"),
        (maps_hdf5, "MAPS HDF5 (/MAPS/Spectra/mca_arr or /MAPS/mca_arr)"),
        (maps_raw, "fly-scan HDF5 (/MAPS_RAW/data_a)"),
        (emsa, "EMSA/MAS text (#FORMAT, #NPOINTS)"),
        (amptek_pmca, "Amptek PMCA text (<<PMCA SPECTRUM>>)"),
        (ortec_spe, "Ortec and IAEA .spe text ($DATA:)"),
        (bruker_spx, "Bruker .spx (XML, TRTSpectrum)"),
        (spec_scans, "SPEC text (#S, @A)"),
        (pixl_csv, "PIXL CSV (PMC, live_time_A, XPERCHAN_A)"),
        (instrument_csv, "handheld CSV (Livetime, Slope, Realtime)"),
        (epics_mca, "EPICS MCA text (KEY: values, then DATA:)"),
        (columns, "columns of energy and counts (text, CSV)"),
        (eds, eds.LOOKS_FOR),
        (layouts, "; ".join(layout.looks_for for layout in layouts.LAYOUTS)),
        (arrays, "HyperSpy .hspy and .zspy, NeXus, arrays in HDF5, Zarr, npy or npz (--dataset-path, --energy-axis)"),
    )
    return tuple(
        ScanFormat(looks_for=text, sniff=reader.sniff, open_file=reader.open_file, file_formats=reader.FILE_FORMATS)
        for reader, text in readers
    )


def list_file_formats() -> tuple[FileFormat, ...]:
    """List every format that is read, for `hpcxrf inspect --formats` and the pages."""
    return tuple(row for reader in scan_formats() for row in reader.file_formats)


def open_scan(path: Path, options: ReadOptions | None = None) -> RawScan:
    """Open one scan; only headers are read.

    Args:
        path: a file, or a Zarr folder.
        options: what the file does not say itself; an energy offset or slope given here replaces the file's.

    Raises:
        InputFileError: missing, unreadable, empty, of no known format, or damaged; an energy that does not
            rise with the channel, or an offset without a slope.
    """
    with edge.own_errors(path):
        return _open_scan(path, options or ReadOptions())


def _open_scan(path: Path, given: ReadOptions) -> RawScan:
    head = read_head(path)
    if is_hdf5(head):
        first_look.require_readable(path, given)
    kind = name_other_kind(path, head)
    if kind is not None:
        raise InputFileError(f"{path}: is {kind}, not a scan; name the scan's own file")
    other = recognise_other(path, head)
    if other is not None:
        raise InputFileError(f"{path}: is {other.kind}; {other.remedy}")
    # a dataset asked for by its path is an array, whatever else the file holds
    formats = scan_formats() if given.dataset_path is None else scan_formats()[-1:]
    for reader in formats:
        if edge.sniff(reader.sniff, path, head):
            return _with_given_calibration(path, edge.open_within_bounds(reader.open_file, path, given), given)
    _refuse_table(path, head)
    if belies_its_name(path, head):
        raise InputFileError(
            f"{path}: of no known format: it is named {path.suffix}, but begins with {head[:16]!r}; "
            "copy it again from the instrument"
        )
    wanted = "; ".join(reader.looks_for for reader in formats)
    raise InputFileError(f"{path}: of no known format (it begins with {head[:8]!r}); looked for: {wanted}")


def _refuse_table(path: Path, head: bytes) -> None:
    """Say what a table of numbers is that holds no spectra."""
    from hpcxrf.formats.columns import explain

    reason = explain(path, head)
    if reason is not None:
        raise InputFileError(reason)


def _with_given_calibration(path: Path, scan: RawScan, options: ReadOptions) -> RawScan:
    """The same rule for all formats: the file's calibration, with what the user gives in its place."""
    from hpcxrf.formats.axes import choose_calibration, describe_calibration

    detectors, _, _, channels = scan.shape
    calibration = choose_calibration(str(path), scan.calibration, options, detectors, channels)
    if calibration is None and options.energy_offset_kev is not None:
        raise InputFileError(
            f"{path}: an energy offset of {options.energy_offset_kev:g} keV is given, but the file has no "
            "slope; give it too (--energy-slope, keV per channel)"
        )
    notes = dict.fromkeys([*scan.notes, *describe_calibration(options)])
    return replace(scan, calibration=calibration, notes=tuple(notes))


def read_head(path: Path) -> bytes:
    """The first bytes; none for a Zarr folder.

    Raises:
        InputFileError: missing, a folder that is no Zarr store, empty or unreadable.
    """
    if is_folder(path):
        if is_zarr(path):
            return b""
        raise InputFileError(f"{path}: a folder without a Zarr store; name the files in it")
    head = edge.read_head(path)
    if not head:
        raise InputFileError(f"{path}: has 0 bytes; copy it again from the instrument")
    return head


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr store."""
    return is_folder(path) and any(is_there(path / name) for name in ZARR_MARKERS)


def name_other_kind(path: Path, head: bytes) -> str | None:
    """What a file is that lies among scans and is none; None if it may be a scan."""
    if path.name.endswith((".truth.hdf5", ".truth.json")):
        return "the truth of a simulated scan"
    if is_hdf5(head):
        return "the truth of a simulated scan" if _has_truth(path) else None
    if STANDARD_TEXT.search(head):
        return "a description of standards"
    return FIT_PARAMETERS if OVERRIDE_TEXT.search(head) else None


def _has_truth(path: Path) -> bool:
    import h5py

    from hpcxrf.formats.hdf5_files import HDF5_FAULTS

    try:
        with h5py.File(path, "r", locking=False) as file:
            return "hpcxrf_truth_version" in file.attrs
    except HDF5_FAULTS:
        return False
