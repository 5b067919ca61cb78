"""Which files of folders and patterns are scans: first by their names alone, then, one by one, by their content."""

import glob
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcxrf.config.untrusted import explain_stray, is_folder, is_there
from hpcxrf.errors import InputFileError
from hpcxrf.formats import edge, first_look
from hpcxrf.formats.other_files import recognise_other
from hpcxrf.formats.registry import is_zarr, name_other_kind, read_head, scan_formats
from hpcxrf.formats.signatures import MEMBER_NAME, belies_its_name, is_hdf5
from hpcxrf.notes import Note

PATTERN: Final = re.compile(r"[*?\[]")
MAX_LISTED: Final = 5
UNKNOWN: Final = "of no known format"
# Every place where the name of a fly scan could end in the name of its companion, `X_..._0.h5`.
_COMPANION: Final = re.compile(r"_(?=.*_0\.h5$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """The files that the inputs come to, by their names alone: none has been opened."""

    paths: tuple[Path, ...]
    """In the order of the inputs, each file once."""
    explicit: frozenset[Path]
    """Those that were named one by one."""
    lowest: Mapping[str, str]
    """`X` -> name of its lowest member, `X.h5N`; resolved."""
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
    # Names of files, as texts: to make and compare paths of 100 000 takes ten times as long.
    found: dict[str, bool] = {}
    notes: list[Note] = []
    plain: set[str] = set()
    for item in inputs:
        names, explicit = _expanded(item, notes, plain)
        for name in names:
            found[name] = found.get(name, False) or explicit
    real = _resolve_all(found, plain)
    unique = {real[name]: name for name in reversed(found)}
    return Candidates(
        paths=tuple(Path(name) for name in found if unique[real[name]] is name),
        explicit=frozenset(Path(name) for name, explicit in found.items() if explicit),
        lowest=_lowest_members(unique),
        companions=_companions(unique),
        notes=tuple(notes),
    )


def candidates_among(names: Iterable[str]) -> Candidates:
    """Files that are known already, of which `why_left_out` tells what is a scan; no folder is listed.

    Args:
        names: paths of files, none of them a symbolic link.
    """
    found = dict.fromkeys(names)
    unique = {real: name for name, real in _resolve_all(found, found).items()}
    return Candidates(
        paths=tuple(Path(name) for name in found),
        explicit=frozenset(),
        lowest=_lowest_members(unique),
        companions=_companions(unique),
        notes=(),
    )


def _expanded(item: Path, notes: list[Note], plain: set[str]) -> tuple[list[str], bool]:
    """Candidates of one input, and whether it was named explicitly."""
    if is_folder(item) and not is_zarr(item):
        return _folder_files(item, notes, plain), False
    if not is_there(item) and PATTERN.search(str(item)):
        matched = sorted(Path(name) for name in glob.glob(str(item), recursive=True))  # noqa: PTH207
        if not matched:
            notes.append(Note("warning", f"{item}: no file matches this pattern"))
        every = [_folder_files(m, notes, plain) if is_folder(m) and not is_zarr(m) else [str(m)] for m in matched]
        return [name for names in every for name in names], False
    return [str(item)], True


def _folder_files(folder: Path, notes: list[Note], plain: set[str]) -> list[str]:
    """Files of a folder and those below it, sorted; hidden ones and Zarr stores left out.

    Adds to `plain` those that are no symbolic links, as the folders say: to look at each of 100 000 files takes minutes
    on a file system of a cluster.
    """
    files = list(_walk(os.fspath(folder), notes, plain))
    if not files:
        notes.append(Note("warning", f"{folder}: no files in this folder"))
    return files


def _walk(folder: str, notes: list[Note], plain: set[str]) -> Iterator[str]:
    """Files in order of their paths' parts; a folder that cannot be listed has none, and links are not followed."""
    try:
        with os.scandir(folder) as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        hidden, link = entry.name.startswith("."), entry.is_symlink()
        if is_folder(Path(entry.path)) if link else entry.is_dir():
            if is_zarr(Path(entry.path)):
                notes.append(Note("warning", f"{Path(entry.path)}: Zarr store in a folder, name it to open it"))
            elif not hidden and not link:
                yield from _walk(entry.path, notes, plain)
        elif not hidden:
            if not link:
                plain.add(entry.path)
            yield entry.path


def _resolve_all(names: Iterable[str], plain: Collection[str]) -> dict[str, str]:
    """What `realpath` gives, with every folder looked up once: an archive has 100 000 files in a few of them.

    Args:
        names: files.
        plain: those that are known to be no symbolic links.
    """
    folders: dict[str, str] = {}
    real: dict[str, str] = {}
    for path in names:
        folder, name = os.path.split(path)
        if path not in plain and (name in {"", ".", ".."} or os.path.islink(path)):  # noqa: PTH114
            real[path] = os.path.realpath(path)
            continue
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        real[path] = path if folders[folder] == folder else os.path.join(folders[folder], name)  # noqa: PTH118
    return real


def _lowest_members(paths: Iterable[str]) -> dict[str, str]:
    lowest: dict[str, tuple[int, str]] = {}
    for path in paths:
        folder, name = os.path.split(path)
        match = MEMBER_NAME.match(name)
        if match is not None:
            stem, member = os.path.join(folder, match["stem"]), (int(match["number"]), name)  # noqa: PTH118
            lowest[stem] = min(member, lowest.get(stem, member))
    return {stem: name for stem, (_, name) in lowest.items()}


def _companions(paths: Iterable[str]) -> frozenset[Path]:
    """Spectra of fly scans: only files whose name could have companions among the candidates are opened."""
    from hpcxrf.formats import mda

    every = {path: os.path.basename(path) for path in paths}  # noqa: PTH119
    beginnings = {name[: match.start()] for name in set(every.values()) for match in _COMPANION.finditer(name)}
    able = (Path(path) for path, name in every.items() if os.path.splitext(name)[0] in beginnings)  # noqa: PTH122
    return frozenset(
        companion
        for path in able
        if path.is_file() and mda.sniff(path, _head_or_nothing(path))
        for companion in mda.find_companions(path)
    )


def _head_or_nothing(path: Path) -> bytes:
    """The first bytes, or none where opening the file will report the fault."""
    try:
        return read_head(path)
    except InputFileError:
        return b""


def why_left_out(path: Path, candidates: Candidates) -> str | None:
    """Why a candidate is not a scan of its own; None if it is one."""
    if path not in candidates.explicit and not is_zarr(path) and (stray := explain_stray(path)):
        return f"it is {stray}"
    try:
        with edge.own_errors(path):
            return _why_no_scan(path, candidates)
    except InputFileError:
        return None  # opening it reports the fault


def _why_no_scan(path: Path, candidates: Candidates) -> str | None:
    place = Path(os.path.realpath(path))
    match = MEMBER_NAME.match(place.name)
    lowest = candidates.lowest.get(str(place.with_name(match["stem"])), place.name) if match else place.name
    if lowest != place.name:
        return f"a detector of the scan {lowest}"
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
    kind = name_other_kind(path, head)
    other = recognise_other(path, head) if kind is None else None
    return kind if other is None else f"{other.kind}; {other.remedy}"


def _is_derived(place: Path, head: bytes, candidates: Candidates) -> bool:
    """Whether the file is the average `X.h5` of members `X.h5N` among the candidates."""
    from hpcxrf.formats import maps_hdf5

    beside = place.suffix == ".h5" and str(place.with_suffix("")) in candidates.lowest
    return beside and maps_hdf5.sniff(place, head)


def _explain_content(path: Path, head: bytes) -> str | None:
    """Why a file that was found in a folder is not taken for a scan; None if it is."""
    from hpcxrf.formats import columns

    reader = next((reader for reader in scan_formats() if edge.sniff(reader.sniff, path, head)), None)
    if reader is None:
        # A web page or a pointer in the place of a scan is a scan that was lost, and no other file.
        return None if belies_its_name(path, head) else UNKNOWN
    return "the fit of a spectrum" if reader.sniff is columns.sniff and columns.holds_fit(path, head) else None


def notes_on_left_out(left: Mapping[Path, str]) -> list[Note]:
    """One note a file; those of no known format together, with a warning: one of them may be a scan."""
    notes = [Note("fact", f"{p}: left out: {why}") for p, why in left.items() if why != UNKNOWN]
    unknown = [str(path) for path, why in left.items() if why == UNKNOWN]
    if unknown:
        more = f" and {len(unknown) - MAX_LISTED} more" if len(unknown) > MAX_LISTED else ""
        notes.append(Note("warning", f"left out, of no known format: {', '.join(unknown[:MAX_LISTED])}{more}"))
    return notes
