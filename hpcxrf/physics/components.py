"""Component names: what they mean, and which of their lines an incident energy excites."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Final, Literal, cast

import xraylib

from hpcxrf.errors import FitError
from hpcxrf.physics.detector import LOWEST_KEV
from hpcxrf.physics.yields import ESTIMATED, correct_m_lines, edge_energy_kev

Kind = Literal["K", "L", "M", "pileup", "user"]

MIN_Z: Final = 11
MAX_Z: Final = 92
HIGHEST_INCIDENT_KEV: Final = 200.0

_NAME: Final = re.compile(r"([A-Z][a-z]?)(?:_([LM]))?(?:_([A-Z][a-z]?)(?:_([LM]))?)?")
# Some lines are known as groups only, KO as L3O45: the library never has a group beside its members, whatever Z.
_LINE_NAME: Final = re.compile(r"(?:K[LMN]\d|K[OP]|L[123](?:[LMNOPQ]\d|N67|O45|P23|P45)|M[1-5][MNOPQ]\d)_LINE")
_LAST_SHELL: Final[Mapping[str, int]] = MappingProxyType(
    {"K": xraylib.K_SHELL, "L": xraylib.L3_SHELL, "M": xraylib.M5_SHELL}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A component name, parsed."""

    name: str
    kind: Kind
    families: tuple[tuple[str, str], ...]
    """(symbol, shell): one for K, L and M, two for pile-up, none for user lines."""


def parse_component(name: str, *, user_names: Collection[str] = ()) -> Component:
    """Read a component name: `Fe` (K lines), `Pt_L`, `Au_M`, pile-up `Si_Cl` or `Fe_Pt_L`, or a user's name.

    `K` after an underscore is potassium, as in MAPS files: `Ca_K` is the pile-up of the two.

    Args:
        name: the name.
        user_names: names that the user gave lines for; they go first.

    Raises:
        FitError: a name that fits no pattern, no such element, or one outside Na to U.
    """
    if name in user_names:
        return Component(name=name, kind="user", families=())
    match = _NAME.fullmatch(name)
    if match is None:
        raise FitError(f"{name}: not a component; write Fe (K lines), Pt_L, Au_M, or a pile-up such as Si_Cl")
    first, first_shell, second, second_shell = match.groups()
    families = tuple((s, shell or "K") for s, shell in ((first, first_shell), (second, second_shell)) if s)
    faults = [fault for symbol, _ in families if (fault := _check_element(symbol))]
    if faults:
        prefix = f"{name}: " if second else ""
        raise FitError(prefix + "; ".join(dict.fromkeys(faults)))
    kind = "pileup" if second else families[0][1]
    return Component(name=name, kind=cast("Kind", kind), families=families)


def parse_components(
    names: Sequence[str],
    incident_energy_kev: float,
    users: Collection[str],
    *,
    reach_kev: float = 0.0,
    unexcited: Collection[str] = (),
) -> list[Component]:
    """Parse every name and check them together: elements, duplicates, excitation.

    Args:
        names: as of `parse_component`.
        incident_energy_kev: keV.
        users: names that the user gave lines for; each must be among `names`.
        reach_kev: how far above the incident energy an edge may lie.
        unexcited: names that are known not to be excited, which is no fault of theirs.

    Raises:
        FitError: with every fault of every name.
    """
    parsed, faults = [], []
    for name in names:
        try:
            parsed.append(parse_component(name, user_names=users))
        except FitError as error:
            faults.append(str(error))
    faults += [
        f"{name}: lines are given for it, but it is not among the elements; add it or remove its lines"
        for name in users
        if name not in names
    ]
    faults += duplicate_faults(parsed)
    for component in parsed:
        families = () if component.name in unexcited else component.families
        prefix = f"{component.name}: " if component.kind == "pileup" else ""
        reasons = [unexcited_reason(*family, incident_energy_kev, reach_kev) for family in families]
        faults += [prefix + reason for reason in reasons if reason]
    if faults:
        raise FitError("; ".join(dict.fromkeys(faults)))
    return parsed


@lru_cache(maxsize=4096)
def find_emitted_lines(z: int, shell: str, incident_energy_kev: float) -> tuple[tuple[str, float, float], ...]:
    """Lines of a family that are excited, as (name, energy_kev, cross-section in cm2/g).

    M lines have the yields of `hpcxrf.physics.yields`.

    Args:
        z: atomic number.
        shell: "K", "L" or "M".
        incident_energy_kev: keV.
    """
    lines = []
    for name, code in _line_codes(shell):
        try:
            strength = float(xraylib.CS_FluorLine_Kissel(z, code, incident_energy_kev))
        except ValueError:  # the atom has no such line, or its subshell is not excited
            continue
        lines.append((name, _line_energy_kev(z, name, code), strength))
    corrected = correct_m_lines(z, lines, incident_energy_kev) if shell == "M" else lines
    return tuple(line for line in corrected if line[1] >= LOWEST_KEV and line[2] > 0.0)


def _line_energy_kev(z: int, name: str, code: int) -> float:
    """Energy of a line that the atom has; the library has none of L-beta-5 of osmium, whose 5d shell hardly binds."""
    try:
        return float(xraylib.LineEnergy(z, code))
    except ValueError:
        inner = "K" if name[0] == "K" else name[:2]
        return edge_energy_kev(z, inner) - edge_energy_kev(z, name.removeprefix(inner)[:2])


def _check_element(symbol: str) -> str | None:
    try:
        z = xraylib.SymbolToAtomicNumber(symbol)
    except ValueError:
        return f"{symbol}: no such element"
    if not MIN_Z <= z <= MAX_Z:
        return f"{symbol}: Z = {z}, must be {MIN_Z} (Na) to {MAX_Z} (U)"
    return None


def duplicate_faults(parsed: Sequence[Component]) -> list[str]:
    """Find names that mean the same column: the fit could not separate the two."""
    seen: dict[object, str] = {}
    faults = []
    for component in parsed:
        key = tuple(sorted(component.families)) or component.name
        if key in seen:
            how = "listed twice" if seen[key] == component.name else f"the same as {seen[key]}"
            faults.append(f"{component.name}: {how}; remove one")
        seen.setdefault(key, component.name)
    return faults


def is_excited(component: Component, incident_energy_kev: float) -> bool:
    """Whether an incident energy excites a line of every family of a component."""
    return all(
        find_emitted_lines(xraylib.SymbolToAtomicNumber(symbol), shell, incident_energy_kev)
        for symbol, shell in component.families
    )


def is_estimated(component: Component) -> bool:
    """Whether the line ratios of a component are an estimate: M families of an empty or open 4f shell."""
    return any(
        shell == "M" and xraylib.SymbolToAtomicNumber(symbol) in ESTIMATED for symbol, shell in component.families
    )


def lowest_edge_kev(symbol: str, shell: str) -> float:
    """Edge (keV) above which a family has its first lines: K, L3 or M5."""
    return float(xraylib.EdgeEnergy(xraylib.SymbolToAtomicNumber(symbol), _LAST_SHELL[shell]))


def unexcited_reason(symbol: str, shell: str, incident_energy_kev: float, reach_kev: float = 0.0) -> str | None:
    """Say why an incident energy excites no line of a family, and what to do; None where it excites one.

    Args:
        symbol: the element.
        shell: "K", "L" or "M".
        incident_energy_kev: keV.
        reach_kev: by how much more the incident energy may be.
    """
    z = xraylib.SymbolToAtomicNumber(symbol)
    if find_emitted_lines(z, shell, min(incident_energy_kev + reach_kev, HIGHEST_INCIDENT_KEV)):
        return None
    name = symbol if shell == "K" else f"{symbol}_{shell}"
    other = [
        symbol if s == "K" else f"{symbol}_{s}"
        for s in "KLM"
        if s != shell and find_emitted_lines(z, s, incident_energy_kev)
    ]
    remedy = f"use {' or '.join(other)}" if other else "remove it"
    if not find_emitted_lines(z, shell, HIGHEST_INCIDENT_KEV):
        return f"{name}: the library has no {shell} lines for Z = {z}; {remedy}"
    edge = lowest_edge_kev(symbol, shell)
    return f"{name}: {shell} edge {edge:.4g} keV is above the incident energy {incident_energy_kev:g} keV; {remedy}"


@cache
def _line_codes(shell: str) -> tuple[tuple[str, int], ...]:
    """Names ("KL3", "L2M4", "L3O45") and library codes of a shell's lines."""
    return tuple(
        (name.removesuffix("_LINE"), getattr(xraylib, name))
        for name in dir(xraylib)
        if name.startswith(shell) and _LINE_NAME.fullmatch(name)
    )
