"""Which reader takes which file: by content, first match; and which files of a folder are scans."""

import glob
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from hpcxrf.config.untrusted import explain_stray, is_folder, is_there
from hpcxrf.errors import InputFileError
from hpcxrf.formats import edge, first_look
from hpcxrf.formats.other_files import recognise_other
from hpcxrf.formats.scan import RawScan, ReadOptions
from hpcxrf.formats.signatures import is_hdf5
from hpcxrf.formats.table import FileFormat
from hpcxrf.notes import Note

ZARR_MARKERS: Final = ("zarr.json", ".zgroup", ".zarray")
PATTERN: Final = re.compile(r"[*?\[]")
OVERRIDE_TEXT: Final = re.compile(rb"(?m)^\s*(ELEMENTS_TO_FIT|COHERENT_SCT_ENERGY|CAL_OFFSET_\[)")
STANDARD_TEXT: Final = re.compile(rb"(?m)^\s*ELEMENTS_IN_STANDARD")
MAX_LISTED: Final = 5
UNKNOWN: Final = "of no known format"
# Every place where the name of a fly scan could end in the name of its companion, `X_..._0.h5`.
_COMPANION: Final = re.compile(r"_(?=.*_0\.h5$)")


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
    head = _read_head(path)
    if is_hdf5(head):
        first_look.require_readable(path, given)
    kind = _kind_of_other(path, head)
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


def _read_head(path: Path) -> bytes:
    """The first bytes; none for a Zarr folder.

    Raises:
        InputFileError: missing, a folder that is no Zarr store, empty or unreadable.
    """
    if is_folder(path):
        if _is_zarr(path):
            return b""
        raise InputFileError(f"{path}: a folder without a Zarr store; name the files in it")
    head = edge.read_head(path)
    if not head:
        raise InputFileError(f"{path}: has 0 bytes; copy it again from the instrument")
    return head


def _is_zarr(path: Path) -> bool:
    return is_folder(path) and any(is_there(path / name) for name in ZARR_MARKERS)


def _kind_of_other(path: Path, head: bytes) -> str | None:
    """What a file is that lies among scans and is none; None if it may be a scan."""
    if path.name.endswith((".truth.hdf5", ".truth.json")):
        return "the truth of a simulated scan"
    if is_hdf5(head):
        return "the truth of a simulated scan" if _has_truth(path) else None
    if STANDARD_TEXT.search(head):
        return "a description of standards"
    return "a file of fit parameters" if OVERRIDE_TEXT.search(head) else None


def _has_truth(path: Path) -> bool:
    import h5py

    from hpcxrf.formats.hdf5_files import HDF5_FAULTS

    try:
        with h5py.File(path, "r", locking=False) as file:
            return "hpcxrf_truth_version" in file.attrs
    except HDF5_FAULTS:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """The files that the inputs come to, by their names alone: none has been opened."""

    paths: tuple[Path, ...]
    """In the order of the inputs, each file once."""
    explicit: frozenset[Path]
    """Those that were named one by one."""
    lowest: Mapping[Path, Path]
    """`X` -> its lowest member `X.h5N`; resolved."""
    companions: frozenset[Path]
    """Files with the spectra of the fly scans among the candidates; resolved."""
    notes: tuple[Note, ...]
    """Patterns and folders that hold nothing."""


def find_scans(inputs: list[Path]) -> tuple[list[Path], list[Note]]:
    """Expand folders and patterns into scans.

    `X.h50` .. `X.h5N` appear once; derived averages, truths of simulations, override and standard files
    and the companions of fly scans are left out with a note. Folders are searched to their bottom, in
    the order of names; a file named explicitly is kept, even if it is missing, so that it is reported.

    Args:
        inputs: files, folders, Zarr folders and glob patterns.

    Returns:
        The scans, in the order of the inputs, and a note on each thing left out.
    """
    candidates = list_candidates(inputs)
    reasons = {path: why_left_out(path, candidates) for path in candidates.paths}
    kept = [path for path in candidates.paths if reasons[path] is None]
    if not kept:
        kept = [path for path in candidates.paths if path in candidates.explicit]
    left = {path: why for path, why in reasons.items() if why and path not in kept}
    return kept, [*candidates.notes, *notes_on_left_out(left)]


def list_candidates(inputs: list[Path]) -> Candidates:
    """Expand folders and patterns into files, of which `why_left_out` tells what is a scan.

    Args:
        inputs: files, folders, Zarr folders and glob patterns.
    """
    found: dict[Path, bool] = {}
    notes: list[Note] = []
    plain: set[Path] = set()
    for item in inputs:
        paths, explicit = _expanded(item, notes, plain)
        for path in paths:
            found[path] = found.get(path, False) or explicit
    real = _resolve_all(found, plain)
    unique = {real[path]: path for path in reversed(found)}
    return Candidates(
        paths=tuple(path for path in found if unique[real[path]] is path),
        explicit=frozenset(path for path, explicit in found.items() if explicit),
        lowest=_lowest_members(unique),
        companions=_companions(unique),
        notes=tuple(notes),
    )


def _expanded(item: Path, notes: list[Note], plain: set[Path]) -> tuple[list[Path], bool]:
    """Candidates of one input, and whether it was named explicitly."""
    if is_folder(item) and not _is_zarr(item):
        return _folder_files(item, notes, plain), False
    if not is_there(item) and PATTERN.search(str(item)):
        matched = sorted(Path(name) for name in glob.glob(str(item), recursive=True))  # noqa: PTH207
        if not matched:
            notes.append(Note("warning", f"{item}: no file matches this pattern"))
        every = [_folder_files(m, notes, plain) if is_folder(m) and not _is_zarr(m) else [m] for m in matched]
        return [path for paths in every for path in paths], False
    return [item], True


def _folder_files(folder: Path, notes: list[Note], plain: set[Path]) -> list[Path]:
    """Files of a folder and those below it, sorted; hidden ones and Zarr stores left out.

    Adds to `plain` those that are no symbolic links, as the folders say: to look at each of 100 000 files takes minutes
    on a file system of a cluster.
    """
    files = list(_walk(os.fspath(folder), notes, plain))
    if not files:
        notes.append(Note("warning", f"{folder}: no files in this folder"))
    return files


def _walk(folder: str, notes: list[Note], plain: set[Path]) -> Iterator[Path]:
    """Files in order of their paths' parts; a folder that cannot be listed has none, and links are not followed."""
    try:
        with os.scandir(folder) as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        hidden, link = entry.name.startswith("."), entry.is_symlink()
        if is_folder(Path(entry.path)) if link else entry.is_dir():
            if _is_zarr(Path(entry.path)):
                notes.append(Note("warning", f"{Path(entry.path)}: Zarr store in a folder, name it to open it"))
            elif not hidden and not link:
                yield from _walk(entry.path, notes, plain)
        elif not hidden:
            path = Path(entry.path)
            if not link:
                plain.add(path)
            yield path


def _resolve_all(paths: Iterable[Path], plain: Collection[Path]) -> dict[Path, Path]:
    """What `Path.resolve` gives, with every folder looked up once: an archive has 100 000 files in a few of them.

    Args:
        paths: files.
        plain: those that are known to be no symbolic links.
    """
    folders: dict[str, str] = {}
    real: dict[Path, Path] = {}
    for path in paths:
        folder, name = os.path.split(path)
        # Not methods of `Path`, which raise on long names and on links that lead back to themselves.
        if path not in plain and (name in {"", ".", ".."} or os.path.islink(path)):  # noqa: PTH114
            real[path] = Path(os.path.realpath(path))
            continue
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        real[path] = path if folders[folder] == folder else Path(folders[folder], name)
    return real


def _lowest_members(paths: Iterable[Path]) -> dict[Path, Path]:
    from hpcxrf.formats.maps_hdf5 import MEMBER_NAME

    numbered: dict[Path, list[tuple[int, Path]]] = {}
    for path in paths:
        match = MEMBER_NAME.match(path.name)
        if match is not None:
            members = numbered.setdefault(path.with_name(match["stem"]), [])
            members.append((int(match["number"]), path))
    return {stem: min(members)[1] for stem, members in numbered.items()}


def _companions(paths: Iterable[Path]) -> frozenset[Path]:
    """Spectra of fly scans: only files whose name could have companions among the candidates are opened."""
    from hpcxrf.formats import mda

    every = list(paths)
    beginnings = {name[: match.start()] for name in {p.name for p in every} for match in _COMPANION.finditer(name)}
    return frozenset(
        companion
        for path in every
        if path.stem in beginnings and path.is_file() and mda.sniff(path, _head_or_nothing(path))
        for companion in mda.find_companions(path)
    )


def _head_or_nothing(path: Path) -> bytes:
    """The first bytes, or none where opening the file will report the fault."""
    try:
        return _read_head(path)
    except InputFileError:
        return b""


def why_left_out(path: Path, candidates: Candidates) -> str | None:
    """Why a candidate is not a scan of its own; None if it is one."""
    if path not in candidates.explicit and not _is_zarr(path) and (stray := explain_stray(path)):
        return f"it is {stray}"
    try:
        with edge.own_errors(path):
            return _why_no_scan(path, candidates)
    except InputFileError:
        return None  # opening it reports the fault


def _why_no_scan(path: Path, candidates: Candidates) -> str | None:
    from hpcxrf.formats.maps_hdf5 import MEMBER_NAME

    place = Path(os.path.realpath(path))
    match = MEMBER_NAME.match(place.name)
    lowest = candidates.lowest.get(place.with_name(match["stem"])) if match else place
    if lowest is not None and lowest != place:
        return f"a detector of the scan {lowest.name}"
    head = _head_or_nothing(path)
    if is_hdf5(head):
        first_look.require_readable(path)
    named = _name_content(path, head)
    if named is not None:
        return named
    if place in candidates.companions:
        return "the spectra of an MDA file among the inputs"
    if _is_derived(place, head, candidates):
        return "derived from the detectors' files beside it"
    return None if path in candidates.explicit or not head else _explain_content(path, head)


def _name_content(path: Path, head: bytes) -> str | None:
    """What a file is that lies beside scans or is no spectrum, with its remedy; None: it may be a scan."""
    kind = _kind_of_other(path, head)
    other = recognise_other(path, head) if kind is None else None
    return kind if other is None else f"{other.kind}; {other.remedy}"


def _is_derived(place: Path, head: bytes, candidates: Candidates) -> bool:
    """Whether the file is the average `X.h5` of members `X.h5N` among the candidates."""
    from hpcxrf.formats import maps_hdf5

    beside = place.suffix == ".h5" and place.with_suffix("") in candidates.lowest
    return beside and maps_hdf5.sniff(place, head)


def _explain_content(path: Path, head: bytes) -> str | None:
    """Why a file that was found in a folder is not taken for a scan; None if it is."""
    from hpcxrf.formats import columns

    reader = next((reader for reader in scan_formats() if edge.sniff(reader.sniff, path, head)), None)
    if reader is None:
        return UNKNOWN
    return "the fit of a spectrum" if reader.sniff is columns.sniff and columns.holds_fit(path, head) else None


def notes_on_left_out(left: Mapping[Path, str]) -> list[Note]:
    """One note a file; those of no known format together, with a warning: one of them may be a scan."""
    notes = [Note("fact", f"{p}: left out: {why}") for p, why in left.items() if why != UNKNOWN]
    unknown = [str(path) for path, why in left.items() if why == UNKNOWN]
    if unknown:
        more = f" and {len(unknown) - MAX_LISTED} more" if len(unknown) > MAX_LISTED else ""
        notes.append(Note("warning", f"left out, of no known format: {', '.join(unknown[:MAX_LISTED])}{more}"))
    return notes
