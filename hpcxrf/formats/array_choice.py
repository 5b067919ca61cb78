"""Which arrays of a file are its spectra: as requested, by NeXus, else by rank and size; and why the others are not."""

import math
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

import numpy as np

from hpcxrf.errors import InputFileError
from hpcxrf.formats.array_containers import Container, Entry, decode_texts
from hpcxrf.formats.axes import MAX_RANK
from hpcxrf.formats.hyperspy import holds_spectra
from hpcxrf.notes import Note

TIMES: Final = ("live_time_s", "real_time_s", "icr_hz", "ocr_hz")
POSITIONS: Final = {"x_um": 1.0, "y_um": 1.0, "x_mm": 1e3, "y_mm": 1e3}
SCALERS: Final = ("scaler_names", "scaler_units", "scaler_values")
ENERGY_AXES: Final = ("energy_kev", "energy", "Energy")
CALIBRATION: Final = "energy_calibration"
_NO_COUNTS: Final = frozenset({*TIMES, *POSITIONS, *SCALERS, *ENERGY_AXES, CALIBRATION})
# A scan is much larger than the maps beside it; less than this and nobody can tell which it is.
_CLEARLY_LARGER: Final = 8
_LISTED: Final = 20
_LONGEST_SPECTRUM: Final = 1_000_000
_SHORTEST_SERIES: Final = 16

_IMAGES: Final = re.compile(
    r"(?i)(^|[_/])(image|images|frame|frames|camera|ccd|pco|eiger|pilatus|maxipix|frelon|orca|xpad|merlin|basler)"
    r"[a-z]*\d*([_/]|$)"
)
_MAPS: Final = re.compile(
    r"(?i)(^|[_/])(rois?|roimap|det_raw|det_cor|sum_raw|sum_cor|xrf_fits?|xrf_fit_error|xrf_rois?|xrf_roi_plus|"
    r"xrf_analyzed|fitted|counts_per_sec)([_/]|$)"
)
_SERIES: Final = re.compile(r"(?i)(time|timestamp|epoch|elapsed|motor|position|trajectory|actuator|theta)")


def choose_spectra(container: Container, requested: str | Sequence[str] | None) -> tuple[tuple[Entry, ...], list[Note]]:
    """The array of spectra, or one array a detector, and how they were chosen.

    Raises:
        InputFileError: no array of that path; none that can be spectra, with what the file holds; several.
    """
    if requested is not None:
        return _find_requested(container, requested), []
    entries = container.entries
    spectra = [e for e in entries.values() if e.name not in _NO_COUNTS and find_fault(container, e) is None]
    # NeXus attributes name the signal.
    signals = [e for e in spectra if decode_texts(e.attributes.get("signal")) in {(e.name,), ("1",)}]
    told = [e for e in spectra if says_spectrum(e)]
    spectra = told or signals or [e for e in spectra if len(e.shape) > 2] or spectra
    if not spectra:
        raise InputFileError(_explain_no_spectra(container))
    ranked = sorted(spectra, key=lambda e: -math.prod(e.shape))
    first = ranked[0]
    if len(ranked) == 1:
        return (first,), [Note("fact", f"array: {first.path}")] if len(entries) > 1 else []
    if math.prod(first.shape) < _CLEARLY_LARGER * math.prod(ranked[1].shape):
        raise InputFileError(
            f"{container.path}: {len(ranked)} arrays may be the spectra; choose one with --dataset-path: "
            f"{list_entries(ranked)}; where each is a detector of one scan, name them all: --dataset-path a,b or a "
            "pattern such as det*/counts"
        )
    return (first,), [Note("warning", f"guessed: the largest array, {list_entries(ranked[:1])} (--dataset-path)")]


def says_spectrum(entry: Entry) -> bool:
    """Whether NeXus says that the last axis is that of a spectrum."""
    return decode_texts(entry.attributes.get("interpretation")) in {("spectrum",), ("spectra",)}


def _find_requested(container: Container, requested: str | Sequence[str]) -> tuple[Entry, ...]:
    """Arrays of a path, several paths (`a,b` or a list), or patterns; numbers in names count as numbers."""
    found: dict[str, Entry] = {}
    for text in split_paths(container, requested):
        exact = container.entries.get(text.strip("/"))
        matched = [exact] if exact is not None else match_entries(container, text)
        if not matched:
            raise InputFileError(
                f"{container.path}: no array {text!r}; --dataset-path may be {list_entries(container.entries.values())}"
            )
        found |= {e.path: _require_usable(container, e) for e in matched}
    return tuple(found.values())


def split_paths(container: Container, requested: str | Sequence[str]) -> tuple[str, ...]:
    """The paths and patterns of a request: a path of the file may itself hold a comma."""
    if not isinstance(requested, str):
        return tuple(requested)
    if requested.strip("/") in container.entries:
        return (requested,)
    return tuple(part.strip() for part in requested.split(",") if part.strip()) or (requested,)


def match_entries(container: Container, pattern: str) -> list[Entry]:
    """Arrays whose path matches part by part (`*`, `?`, `[..]`), in the order of the numbers in it."""
    wanted = pattern.strip("/").split("/")
    matched = [
        entry
        for entry in container.entries.values()
        if len(parts := entry.path.split("/")) == len(wanted) and all(map(fnmatchcase, parts, wanted))
    ]
    return sorted(matched, key=lambda e: make_sort_key(e.path))


def make_sort_key(path: str) -> list[tuple[int, str]]:
    """Key by which det2 comes before det10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path)]


def find_fault(container: Container, entry: Entry) -> str | None:
    """Why an array cannot be spectra, or is named as something else."""
    fault = _find_hard_fault(entry)
    if fault is not None:
        return fault
    return _find_other_kind(container, entry)


def _find_hard_fault(entry: Entry) -> str | None:
    if entry.dtype.kind not in "iuf":
        return f"is of type {entry.dtype}, counts must be whole or real numbers"
    if not 1 <= len(entry.shape) <= MAX_RANK or 0 in entry.shape:
        return f"has shape {entry.shape}, must have 1 to 4 axes (detector, y, x, channel), none empty"
    return None


def _find_other_kind(container: Container, entry: Entry) -> str | None:
    """What an array is that holds numbers and is not spectra."""
    interpretation = decode_texts(entry.attributes.get("interpretation"))
    if says_spectrum(entry):
        return None
    if not holds_spectra(container, entry):
        return "has no axis of energy in HyperSpy"
    if len(entry.shape) > 1 and ("image" in interpretation or _IMAGES.search(entry.path)):
        return "are images"
    if _MAPS.search(entry.path):
        return "are maps of ROIs or fits"
    if len(entry.shape) == 1 and (_SERIES.search(entry.name) or _rises(container, entry)):
        return "is a series of times or positions"
    return None


def _rises(container: Container, entry: Entry) -> bool:
    """Whether the values of a one-dimensional array never fall, as times and positions do and no spectrum does."""
    length = entry.shape[0]
    if not _SHORTEST_SERIES <= length <= _LONGEST_SPECTRUM:
        return length > _LONGEST_SPECTRUM
    values: Any = container.read(entry, (slice(0, length),)).astype(np.float64)
    steps = np.diff(values)
    return bool((steps >= 0).all() and (steps > 0).any())


def _require_usable(container: Container, entry: Entry) -> Entry:
    fault = _find_hard_fault(entry)
    if fault is not None:
        raise InputFileError(f"{container.path}: {entry.path} {fault}; choose another with --dataset-path")
    return entry


def _explain_no_spectra(container: Container) -> str:
    arrays = [e for e in container.entries.values() if e.name not in _NO_COUNTS]
    numbers = [e for e in arrays if e.dtype.kind in "iuf"]
    reasons = [f"{e.path or 'the array'} {find_fault(container, e)}" for e in numbers or arrays]
    what = "; ".join(reasons[:_LISTED]) if reasons else "it holds no array"
    if container.links:
        named = ", ".join(f"{name} -> {file}" for name, file in list(container.links.items())[:3])
        what += (
            f"; {len(container.links)} external links were not followed ({named}): name those files, or allow it "
            "(input.allow_external: true in a run file)"
        )
    summary = _name_contents(container)
    return f"{container.path}: {summary}no array that can be spectra: {what}; name a file of spectra"


def _name_contents(container: Container) -> str:
    """What a file holds instead of spectra, in one phrase."""
    faults = [find_fault(container, e) for e in container.entries.values()]
    columns = [e for e in container.entries.values() if len(e.shape) == 1 and e.dtype.kind in "iuf"]
    energies = [e for e in columns if "energy" in e.name.lower()]
    if "are images" in faults:
        return "holds images, "
    if "are maps of ROIs or fits" in faults:
        return "holds ROIs or fitted maps only, "
    if any(sum(c.shape == e.shape for c in columns) > 1 for e in energies):
        return "holds a scan of the incident energy (XANES), "
    return ""


def list_entries(entries: Iterable[Entry]) -> str:
    """Paths, shapes and types, at most some twenty."""
    every = [f"{e.path} {e.shape} {e.dtype}" for e in entries]
    more = [f"and {len(every) - _LISTED} more"] if len(every) > _LISTED else []
    return ", ".join(every[:_LISTED] + more)
