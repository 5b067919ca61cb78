"""Override files of MAPS and XRF-Maps (`maps_fit_parameters_override.txt[N]`): read, changed, written back.

A line is `KEY: value`; everything else is a comment. Where a key comes twice the last line counts, as it does
to XRF-Maps. Numbers that a fit uses must be numbers; other keys are kept as they are, read or not.
"""

import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Final, Literal

from hpcxrf.config.untrusted import read_regular, report_faults, show_name
from hpcxrf.errors import ConfigError, InputFileError, OutputError
from hpcxrf.formats.override_text import (
    BOUND_ENDS,
    BRANCHING_FAMILY,
    BRANCHING_K,
    BRANCHING_L,
    MATERIALS,
    THETA,
    Bounds,
    append_entry,
    check_branching,
    check_numbers,
    check_ranges,
    collect_bounds,
    collect_branching,
    find_energy_range,
    parse_entries,
    parse_number,
    replace_number,
    split_names,
)
from hpcxrf.notes import Note

OVERRIDE_NAME: Final = "maps_fit_parameters_override.txt"
WIDTH_LAW_CHANGED: Final = date(2024, 10, 9)
"""Day on which XRF-Maps went from 2.96 to 3.58."""
OLD_WIDTH_LAW: Final = 2.96
NEW_WIDTH_LAW: Final = 3.58

_LARGEST_BYTES: Final = 4 << 20
_SCATTER: Final = ("COHERENT_SCT_AMPLITUDE", "COMPTON_AMPLITUDE")
_DATE_FORMATS: Final = (
    "%a %b %d %H:%M:%S %Y",  # XRF-Maps: C's ctime
    "%d-%b-%Y %H:%M:%S",
    "%b %d, %Y %H:%M:%S",
    "%d-%m-%Y %H:%M:%S",
    "%d-%b-%Y",
    "%b %d, %Y",
    "%d-%m-%Y",
)

Multipliers = Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """One override file: what it says, and its lines, so that it can be written back byte for byte."""

    path: Path
    lines: tuple[str, ...]
    """All lines with their ends; bytes that are not UTF-8 as surrogates."""
    values: Mapping[str, float]
    """Numbers by MAPS name without brackets (`CAL_OFFSET`, `FWHM_FANOPRIME` ...), in the file's units."""
    bounds: Mapping[str, Bounds]
    """(minimum, maximum) by MAPS name, None where the file has none."""
    elements: tuple[str, ...]
    """`Fe` (K), `Pt_L`, `Au_M`; the scatter amplitudes that XRF-Maps may list among them are left out."""
    pileup: tuple[str, ...]
    energy_range_kev: tuple[float, float] | None
    """Fit range, where both ends are given."""
    date: str | None
    """Date as it stands in the file."""
    branching_k: Multipliers
    """Multipliers of Ka1, Ka2, Kb1, Kb2 by element, as in the file."""
    branching_l: Multipliers
    """Multipliers of La1, La2, Lb1, Lb2, Lb3, Lb4, Lg1, Lg2, Lg3, Lg4, Ll, Ln by family (`Pt_L`), as in the file."""
    branching_l_family: Multipliers
    """Multipliers of L1, L2, L3 by family (`Pt_L`), as in the file."""
    detector_material: str | None
    """`Si` or `Ge`."""
    be_window_um: float | None
    chip_thickness_um: float | None
    dead_layer_um: float | None
    air_path_um: float | None


def read_override(path: Path) -> Override:
    """Read an override file.

    Raises:
        InputFileError: the file cannot be read, holds no `KEY: value` line, or holds values that are not numbers; all
            faults at once, with their lines.
    """
    text = read_regular(path, InputFileError, largest=_LARGEST_BYTES).decode("utf-8", "surrogateescape")
    # str.splitlines would also split at form feeds and the like.
    with report_faults(path):
        return _parse(path, tuple(io.StringIO(text, newline="")))


def write_override(override: Override, path: Path) -> None:
    """Write the lines as they are: the bytes that were read, but for the lines that were changed.

    Raises:
        OutputError: the folder cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes("".join(override.lines).encode("utf-8", "surrogateescape"))
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written: {error.strerror}; choose another folder") from error


def make_override(
    path: Path,
    *,
    theta: Mapping[str, float],
    elements: Sequence[str],
    pileup: Sequence[str],
    width_law: float,
    title: str,
) -> Override:
    """A new override file, every number in full precision.

    Args:
        path: where it is to be written.
        theta: values by the names of the nonlinear parameters; what MAPS has no name for is left out.
        elements: `Fe` (K), `Pt_L`, `Au_M`.
        pileup: pile-up, `Si_Cl`.
        width_law: factor k that `fwhm_fanoprime` belongs to.
        title: what was fitted.

    Raises:
        ConfigError: a value that is not finite.
        InputFileError: the file would not be valid.
    """
    # Of two spellings the later one is that of the files that come with MAPS.
    keys = {parameter: key for key, parameter in THETA.items()}
    first = ["fitted by hpcxrf; a line is KEY: value, everything else a comment\n", "VERSION: 5.0\n"]
    first += ["DETECTOR_ELEMENTS: 1\n", f"IDENTIFYING_NAME_[WHATEVERE_YOU_LIKE]: {show_name(title)}\n"]
    first += [f"ELEMENTS_TO_FIT: {', '.join(elements)}\n"]
    first += [f"ELEMENTS_WITH_PILEUP: {', '.join(pileup)}\n"] if pileup else []
    empty = _parse(path, tuple(first))
    values = {keys[name]: value for name, value in theta.items() if name in keys}
    return change_values(empty, {**values, "FWHM_FANO_COEFF": width_law})


def change_values(override: Override, values: Mapping[str, float]) -> Override:
    """The same file with other numbers, in full precision; all other lines stay as they are.

    Args:
        override: stays unchanged.
        values: by MAPS name; `CAL_OFFSET_MAX` changes a bound. Names that the file lacks are added at its end.

    Raises:
        ConfigError: a value that is not finite.
        InputFileError: the file would not be valid with these values.
    """
    faults = [f"{name} = {value}" for name, value in values.items() if not math.isfinite(value)]
    if faults:
        raise ConfigError(f"{override.path}: {', '.join(faults)}: numbers of an override file must be finite")
    lines = list(override.lines)
    where = {entry.key: entry for entry in parse_entries(override.lines)}
    for name, value in values.items():
        entry = where.get(name)
        if entry is None:
            lines = append_entry(lines, name, float(value))
        elif parse_number(entry.text) != float(value):
            lines[entry.line] = replace_number(lines[entry.line], float(value))
    return _parse(override.path, tuple(lines))


def find_override(scan_path: Path, detector: int) -> Path | None:
    """The override file of a detector: in the scan's folder, then in the folder above.

    In each folder the file with the detector's number as suffix comes first, then the one without.

    Args:
        scan_path: the scan, a file or a Zarr folder.
        detector: counted from 0.
    """
    # In strings, since the driver of an archive looks for one beside every scan.
    folder = os.path.dirname(scan_path.absolute())  # noqa: PTH120
    names = (f"{OVERRIDE_NAME}{detector}", OVERRIDE_NAME)
    places = (folder, os.path.dirname(folder))  # noqa: PTH120
    candidates = (os.path.join(place, name) for place in places for name in names)  # noqa: PTH118
    return next((Path(path) for path in candidates if os.path.isfile(path)), None)  # noqa: PTH113


def width_law(override: Override, choice: Literal["auto", "2.96", "3.58"]) -> tuple[float, Note]:
    """The factor k of `sigma^2 = (fwhm_offset / 2.3548)^2 + k * E * fwhm_fanoprime` that the file is made for.

    Its own key FWHM_FANO_COEFF decides, else the choice, else its DATE: XRF-Maps went from 2.96 to 3.58 on
    2024-10-09.

    Returns:
        The factor, and the reason for it: a warning where it is a guess.
    """
    name = override.path.name
    own = override.values.get("FWHM_FANO_COEFF")
    if own is not None:
        return own, Note("fact", f"peak width law {own:g}: FWHM_FANO_COEFF of {name}")
    if choice != "auto":
        return float(choice), Note("fact", f"peak width law {choice}: set by fit.width_law")
    day = None if override.date is None else _parse_day(override.date)
    if day is None:
        why = "no DATE" if override.date is None else f"a DATE that cannot be read ({override.date})"
        text = (
            f"ATTENTION: peak width law {NEW_WIDTH_LAW} is a guess: {name} has neither FWHM_FANO_COEFF nor a "
            f"usable DATE ({why}); if it was fitted by MAPS, PyXRF or XRF-Maps before {WIDTH_LAW_CHANGED}, set "
            "fit.width_law to 2.96"
        )
        return NEW_WIDTH_LAW, Note("warning", text)
    if day < WIDTH_LAW_CHANGED:
        text = f"peak width law {OLD_WIDTH_LAW}: {name} is dated {day}, before {WIDTH_LAW_CHANGED}"
        return OLD_WIDTH_LAW, Note("fact", text)
    return NEW_WIDTH_LAW, Note(
        "fact", f"peak width law {NEW_WIDTH_LAW}: {name} is dated {day}, from {WIDTH_LAW_CHANGED} on"
    )


def theta_values(override: Override, *, law: float, target: float) -> dict[str, float]:
    """Starting values by the names of the nonlinear parameters, of those that the file gives.

    Args:
        override: the file.
        law: factor that its FWHM_FANOPRIME belongs to, of `width_law`.
        target: factor of the model; FWHM_FANOPRIME is multiplied by law / target, so that widths stay.
    """
    return {
        parameter: override.values[key] * _factor(parameter, law, target)
        for key, parameter in THETA.items()
        if key in override.values
    }


def theta_bounds(override: Override, *, law: float, target: float) -> dict[str, Bounds]:
    """(minimum, maximum) by the names of the nonlinear parameters; None where not given."""
    return {
        parameter: _scale_bounds(override.bounds[key], _factor(parameter, law, target))
        for key, parameter in THETA.items()
        if key in override.bounds
    }


def _factor(parameter: str, law: float, target: float) -> float:
    return law / target if parameter == "fwhm_fanoprime" else 1.0


def _scale_bounds(bounds: Bounds, factor: float) -> Bounds:
    low, high = bounds
    return None if low is None else low * factor, None if high is None else high * factor


def _parse(path: Path, lines: tuple[str, ...]) -> Override:
    entries = parse_entries(lines)
    if not entries:
        raise InputFileError(
            f"{path}: no line of the form KEY: value; an override file has CAL_OFFSET_[E_OFFSET]: and the like"
        )
    texts = {e.key: e.text for e in entries}
    numbers = {key: value for key, text in texts.items() if (value := parse_number(text)) is not None}
    faults = [*check_numbers(entries), *check_branching(entries), *check_ranges(numbers)]
    if faults:
        raise InputFileError("\n".join(f"{path}: {fault}" for fault in faults))
    values = {k: v for k, v in numbers.items() if not k.endswith(BOUND_ENDS)}
    return Override(
        path=path,
        lines=lines,
        values=values,
        bounds=collect_bounds(numbers),
        elements=tuple(show_name(n) for n in split_names(texts.get("ELEMENTS_TO_FIT", "")) if n not in _SCATTER),
        pileup=tuple(map(show_name, split_names(texts.get("ELEMENTS_WITH_PILEUP", "")))),
        energy_range_kev=find_energy_range(values),
        date=show_name(texts.get("DATE", "")) or None,
        branching_k=collect_branching(entries, BRANCHING_K),
        branching_l=collect_branching(entries, BRANCHING_L),
        branching_l_family=collect_branching(entries, BRANCHING_FAMILY),
        detector_material=MATERIALS.get(values.get("DETECTOR_MATERIAL", math.nan)),
        be_window_um=values.get("BE_WINDOW_THICKNESS"),
        chip_thickness_um=values.get("DET_CHIP_THICKNESS"),
        dead_layer_um=values.get("GE_DEAD_LAYER"),
        air_path_um=values.get("AIRPATH"),
    )


def _parse_day(text: str) -> date | None:
    """The day of a date as Python, IDL and XRF-Maps write it; None if it is none of these."""
    try:
        return date.fromisoformat(text[:10])
    except ValueError:
        plain = " ".join(text.split()).split(".")[0]
        return next((day for f in _DATE_FORMATS if (day := _parse_day_as(plain, f)) is not None), None)


def _parse_day_as(text: str, form: str) -> date | None:
    try:
        return datetime.strptime(text, form).date()  # noqa: DTZ007 -- only the day is used
    except ValueError:
        return None
