"""A list of elements as people write it: which family a name means, and what one scan of many cannot show."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import xraylib

from hpcxrf.errors import FitError
from hpcxrf.notes import Note
from hpcxrf.physics.components import (
    HIGHEST_INCIDENT_KEV,
    MIN_Z,
    Component,
    duplicate_faults,
    parse_component,
    unexcited_reason,
)

_POTASSIUM: Final = "K"
_K_FAMILY: Final = "_K"


@dataclass(frozen=True, slots=True, kw_only=True)
class ElementList:
    """Names of components of one scan."""

    names: tuple[str, ...]
    """Names as of `parse_component`, in the order of the list."""
    notes: tuple[Note, ...] = ()
    """Sentences on names that were read otherwise than they look, and on those that were left out."""


def read_element_list(names: Sequence[str]) -> ElementList:
    """Say what every name means.

    `Ca_K` is the K family of calcium, as in PyXRF, unless a bare `K` (potassium) is listed: then it is the pile-up of
    the two, as in MAPS files. `K_K` follows the same rule.

    Args:
        names: the list.

    Raises:
        FitError: every name that is not a component, is listed twice, or is a pile-up whose parents are not listed.
    """
    renamed = {} if _POTASSIUM in names else {name: _rename(name) for name in names if _rename(name) != name}
    read = tuple(renamed.get(name, name) for name in names)
    parsed, faults = [], []
    for name in read:
        if _is_light(name):
            # What has no line that a detector sees is left out of every scan, with a note.
            continue
        try:
            parsed.append(parse_component(name))
        except FitError as error:
            faults.append(str(error))
    faults += [fault for one in parsed for f in one.families if (fault := unexcited_reason(*f, HIGHEST_INCIDENT_KEV))]
    written = {new: old for old, new in renamed.items()}
    faults += [_as_written(fault, written) for fault in duplicate_faults(parsed)]
    faults += [fault for one in parsed if one.kind == "pileup" and (fault := _explain_orphan(one, read))]
    if faults:
        raise FitError("; ".join(dict.fromkeys(faults)))
    meant = ", ".join(f"{old} is read as {new}" for old, new in renamed.items())
    text = f"{meant}: K lines, as K (potassium) is not listed by itself"
    notes = (Note("fact", text),) if renamed else ()
    return ElementList(names=read, notes=notes)


def leave_out_unexcited(names: Sequence[str], incident_energy_kev: float, reach_kev: float = 0.0) -> ElementList:
    """Leave out what the incident energy of one scan cannot excite, what is lighter than sodium, and their pile-ups.

    Args:
        names: names of `read_element_list`.
        incident_energy_kev: keV.
        reach_kev: by how much more it may be: an edge up to there is kept, and the fitted energy decides.
    """
    reasons = {name: reason for name in names if (reason := _why_unseen(name, incident_energy_kev, reach_kev))}
    return leave_out(names, reasons)


def leave_out(names: Sequence[str], reasons: Mapping[str, str]) -> ElementList:
    """Leave out some names, and the pile-ups that they are parents of.

    Args:
        names: names of `read_element_list`.
        reasons: why, by name.
    """
    orphans = {
        name: f"{name}: a pile-up of {' and '.join(gone)}"
        for name in names
        if name not in reasons and (gone := [parent for parent in _parents(name) if parent in reasons])
    }
    every = dict(reasons) | orphans
    notes = tuple(Note("warning", f"left out of this scan: {reason}") for reason in every.values())
    return ElementList(names=tuple(name for name in names if name not in every), notes=notes)


def _rename(name: str) -> str:
    symbol = name.removesuffix(_K_FAMILY)
    return symbol if symbol != name and _is_element(symbol) else name


def _is_element(symbol: str) -> bool:
    try:
        return bool(symbol) and xraylib.SymbolToAtomicNumber(symbol) > 0
    except ValueError:
        return False


def _is_light(name: str) -> bool:
    return _is_element(name) and xraylib.SymbolToAtomicNumber(name) < MIN_Z


def _family_name(symbol: str, shell: str) -> str:
    return symbol if shell == "K" else f"{symbol}_{shell}"


def _parents(name: str) -> tuple[str, ...]:
    if _is_light(name):
        return ()
    parsed = parse_component(name)
    return tuple(dict.fromkeys(_family_name(*f) for f in parsed.families)) if parsed.kind == "pileup" else ()


def _explain_orphan(pileup: Component, listed: Collection[str]) -> str | None:
    """Why a pile-up cannot be meant: its parents are not listed."""
    parents = [_family_name(*family) for family in pileup.families]
    missing = list(dict.fromkeys(parent for parent in parents if parent not in listed))
    if not missing:
        return None
    first = pileup.name.removesuffix(_K_FAMILY)
    if parents[-1] == _POTASSIUM and missing == [first]:
        return (
            f"{pileup.name}: the pile-up of {first} and potassium, as K is listed, but {first} is not listed; write "
            f"{first} for its K lines, or list {first} as well"
        )
    return (
        f"{pileup.name}: the pile-up of {' and '.join(parents)}, but {' and '.join(missing)} "
        f"{'is' if len(missing) == 1 else 'are'} not listed; list {' and '.join(missing)} as well, or remove "
        f"{pileup.name}"
    )


def _as_written(fault: str, written: Mapping[str, str]) -> str:
    """A fault of a name that was read otherwise, by the name that the list has."""
    name, colon, rest = fault.partition(": ")
    if name not in written:
        return fault
    return f"{written[name]}{colon}the same as {name}; remove one" if rest.startswith("listed twice") else fault


def _why_unseen(name: str, incident_energy_kev: float, reach_kev: float) -> str | None:
    if _is_light(name):
        z = xraylib.SymbolToAtomicNumber(name)
        return f"{name}: Z = {z}; a detector sees elements from Z = {MIN_Z} (Na) on"
    parsed = parse_component(name)
    if parsed.kind == "pileup":
        # It goes with its parents, which are listed.
        return None
    ((symbol, shell),) = parsed.families
    return unexcited_reason(symbol, shell, incident_energy_kev, reach_kev)
