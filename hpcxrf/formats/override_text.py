"""The text of override files: which lines are entries, which numbers they hold, how one is changed."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

_KEY: Final = re.compile(r"\ufeff?\s*([A-Z][A-Z0-9_]*(?:\[[^\]]*\])?(?:_[A-Z]+)?)\s*:")
_BRACKETS: Final = re.compile(r"_?\[[^\]]*\]")
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eEdD][+-]?\d+)?")
BOUND_ENDS: Final = ("_MIN", "_MAX")
MATERIALS: Final = MappingProxyType({0.0: "Ge", 1.0: "Si"})

# Names of the file and of physics/parameters.py; of two spellings the later one counts.
THETA: Final[Mapping[str, str]] = MappingProxyType(
    {
        "CAL_OFFSET": "energy_offset",
        "CAL_SLOPE": "energy_slope",
        "CAL_QUAD": "energy_quadratic",
        "FWHM_OFFSET": "fwhm_offset",
        "FWHM_FANOPRIME": "fwhm_fanoprime",
        "COHERENT_SCT_ENERGY": "coherent_sct_energy",
        "COMPTON_ANGLE": "compton_angle",
        "COMPTON_FWHM_CORR": "compton_fwhm_corr",
        "COMPTON_F_STEP": "compton_f_step",
        "COMPTON_STEP": "compton_f_step",
        "COMPTON_F_TAIL": "compton_f_tail",
        "COMPTON_GAMMA": "compton_gamma",
        "COMPTON_HI_F_TAIL": "compton_hi_f_tail",
        "COMPTON_HI_GAMMA": "compton_hi_gamma",
        "F_STEP_OFFSET": "step_offset",
        "STEP_OFFSET": "step_offset",
        "F_STEP_LINEAR": "step_linear",
        "STEP_LINEAR": "step_linear",
        "F_TAIL_OFFSET": "f_tail_offset",
        "F_TAIL_LINEAR": "f_tail_linear",
        "KB_F_TAIL_OFFSET": "kb_f_tail_offset",
        "KB_F_TAIL_LINEAR": "kb_f_tail_linear",
        "GAMMA_OFFSET": "gamma_offset",
        "GAMMA_LINEAR": "gamma_linear",
    }
)
_FULL_KEYS: Final[Mapping[str, str]] = MappingProxyType(
    {"CAL_OFFSET": "CAL_OFFSET_[E_OFFSET]", "CAL_SLOPE": "CAL_SLOPE_[E_LINEAR]", "CAL_QUAD": "CAL_QUAD_[E_QUADRATIC]"}
)
_NUMBERS: Final = frozenset(THETA) | {
    "FWHM_FANO_COEFF",
    "SNIP_WIDTH",
    "SI_ESCAPE_FACTOR",
    "GE_ESCAPE_FACTOR",
    "LINEAR_ESCAPE_FACTOR",
    "DETECTOR_MATERIAL",
    "BE_WINDOW_THICKNESS",
    "DET_CHIP_THICKNESS",
    "GE_DEAD_LAYER",
    "AIRPATH",
    "MAX_ENERGY_TO_FIT",
    "MIN_ENERGY_TO_FIT",
}
_NUMERIC: Final = _NUMBERS | {key + end for key in _NUMBERS for end in BOUND_ENDS}
BRANCHING_K: Final = "BRANCHING_RATIO_ADJUSTMENT_K"
BRANCHING_L: Final = "BRANCHING_RATIO_ADJUSTMENT_L"
BRANCHING_FAMILY: Final = "BRANCHING_FAMILY_ADJUSTMENT_L"
_BRANCHING: Final = (BRANCHING_K, BRANCHING_L, BRANCHING_FAMILY)

_HIGHEST_KEV: Final = 1000.0

Bounds = tuple[float | None, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the form `KEY: value`."""

    line: int
    """Index into the lines."""
    key: str
    """Name without brackets."""
    text: str


def parse_entries(lines: tuple[str, ...]) -> list[Entry]:
    """The lines of the form `KEY: value`, in their order."""
    found = ((i, line, _KEY.match(line)) for i, line in enumerate(lines))
    return [
        Entry(line=i, key=_BRACKETS.sub("", m[1]), text=line[m.end() :].strip())
        for i, line, m in found
        if m is not None
    ]


def parse_number(text: str) -> float | None:
    """A finite decimal number, with the exponent letter D of Fortran and IDL allowed; else None."""
    if _NUMBER.fullmatch(text) is None:
        return None
    value = float(text.lower().replace("d", "e"))
    return value if math.isfinite(value) else None


def check_numbers(entries: list[Entry]) -> list[str]:
    """Faults of the numbers that a fit uses, with their lines."""
    return [
        f"line {e.line + 1}: {e.key} is {e.text!r}, must be a number such as 0.0095"
        for e in entries
        if e.key in _NUMERIC and parse_number(e.text) is None
    ]


def check_branching(entries: list[Entry]) -> list[str]:
    """Faults of the branching lines."""
    return [
        f"line {e.line + 1}: {e.key} is {e.text!r}, must be a name and numbers, such as Fe, 1., 1., 1.2, 1."
        for e in entries
        if e.key in _BRANCHING and (len(split_names(e.text)) < 2 or None in map(parse_number, split_names(e.text)[1:]))
    ]


def check_ranges(numbers: Mapping[str, float]) -> list[str]:
    """Faults of the numbers together: empty ranges, unknown materials, a width law of 0."""
    faults = [
        f"{name}_MIN {low:g} is above {name}_MAX {high:g}"
        for name, (low, high) in collect_bounds(numbers).items()
        if low is not None and high is not None and low > high
    ]
    found = find_energy_range(numbers)
    if found is not None and max(map(abs, found)) > _HIGHEST_KEV:
        faults.append(f"MIN_ENERGY_TO_FIT {found[0]:g}, MAX_ENERGY_TO_FIT {found[1]:g}: at most {_HIGHEST_KEV:g} keV")
    if found is not None and found[0] >= found[1]:
        faults.append(f"MIN_ENERGY_TO_FIT {found[0]:g} must be below MAX_ENERGY_TO_FIT {found[1]:g}")
    if numbers.get("FWHM_FANO_COEFF", 1.0) <= 0.0:
        faults.append(f"FWHM_FANO_COEFF {numbers['FWHM_FANO_COEFF']:g} must be above 0, 2.96 or 3.58")
    if numbers.get("DETECTOR_MATERIAL", 0.0) not in MATERIALS:
        faults.append(f"DETECTOR_MATERIAL {numbers['DETECTOR_MATERIAL']:g} must be 0 (Ge) or 1 (Si)")
    return faults


def collect_bounds(numbers: Mapping[str, float]) -> dict[str, Bounds]:
    """(minimum, maximum) by name, of the keys that end in `_MIN` and `_MAX`."""
    names = dict.fromkeys(key[:-4] for key in numbers if key.endswith(BOUND_ENDS))
    return {name: (numbers.get(f"{name}_MIN"), numbers.get(f"{name}_MAX")) for name in names}


def find_energy_range(numbers: Mapping[str, float]) -> tuple[float, float] | None:
    """The fit range in keV; None unless both ends are given."""
    low, high = numbers.get("MIN_ENERGY_TO_FIT"), numbers.get("MAX_ENERGY_TO_FIT")
    return None if low is None or high is None else (low, high)


def split_names(text: str) -> tuple[str, ...]:
    """Words of a list with commas, spaces or both."""
    return tuple(text.replace(",", " ").split())


def collect_branching(entries: list[Entry], key: str) -> dict[str, tuple[float, ...]]:
    """Multipliers by element or family."""
    rows = [split_names(e.text) for e in entries if e.key == key]
    return {row[0]: tuple(v for v in map(parse_number, row[1:]) if v is not None) for row in rows}


def replace_number(line: str, value: float) -> str:
    """The line with another number: key, spaces and line end stay."""
    colon = line.index(":") + 1
    text = line[colon:]
    if not text.strip():
        end = text[len(text.rstrip("\r\n")) :]
        return f"{line[:colon]} {value!r}{end}"
    start = colon + len(text) - len(text.lstrip())
    end = line[len(line.rstrip()) :]
    return f"{line[:start]}{value!r}{end}"


def append_entry(lines: list[str], name: str, value: float) -> list[str]:
    """The lines and one more, with the key as MAPS spells it and the line end of the file."""
    end = "\r\n" if lines[0].endswith("\r\n") else "\n"
    last = "" if lines[-1].endswith(("\n", "\r")) else end
    base, bound = (name[:-4], name[-4:]) if name.endswith(BOUND_ENDS) else (name, "")
    added = f"{_FULL_KEYS.get(base, base)}{bound}: {value!r}{end}"
    return [*lines[:-1], lines[-1] + last, added]
