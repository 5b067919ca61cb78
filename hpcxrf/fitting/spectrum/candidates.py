"""What a residual could hold: families that are not listed, and sums of two strong listed ones."""

import math
from collections.abc import Collection
from dataclasses import fields, replace
from functools import lru_cache
from itertools import combinations_with_replacement
from typing import Any, Final

import torch
import xraylib
from torch import Tensor

from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.problem import FitProblem
from hpcxrf.physics.components import HIGHEST_INCIDENT_KEV
from hpcxrf.physics.condense import condense, select_components, select_lines
from hpcxrf.physics.detector import Detector
from hpcxrf.physics.lines import LineTable, build_line_table, build_table_from_arrays

_UNUSUAL: Final = frozenset({"Ne", "Kr", "Tc", "Xe", "Pm", "Po", "At", "Rn", "Fr", "Ra", "Ac", "Pa"})
_FAMILIES: Final = (
    ("K", range(11, 70), xraylib.K_SHELL, xraylib.KL3_LINE),
    ("L", range(30, 93), xraylib.L3_SHELL, xraylib.L3M5_LINE),
    ("M", range(70, 93), xraylib.M5_SHELL, xraylib.M5N7_LINE),
)
_SUBSHELLS: Final = {
    "": (xraylib.K_SHELL,),
    "L": (xraylib.L1_SHELL, xraylib.L2_SHELL, xraylib.L3_SHELL),
    "M": tuple(getattr(xraylib, f"M{i}_SHELL") for i in range(1, 6)),
}
_UNSURE_INCIDENT_KEV: Final = 0.5
_EDGE_MARGIN_KEV: Final = 0.35
_RANGE_MARGIN_KEV: Final = 0.1
# A candidate's shape need not be as good as that of a component that is fitted.
_MINIMUM_RATIO: Final = 0.005
_WIDENING_KEV2: Final = 3e-5
# Line ratios hardly depend on the incident energy: scans within 10 eV share one table.
_TABLE_STEP_KEV: Final = 0.02
_PILEUP_RATIO: Final = 0.05
_PILEUP_PARENTS: Final = 5


def list_candidates(
    listed: Collection[str], energy_min_kev: float, energy_max_kev: float, incident_energy_kev: float
) -> list[str]:
    """Families that the incident energy excites and whose strongest line lies in the fit range.

    The edge must lie 0.35 keV below the incident energy, the line 0.1 keV inside the range; radioactive elements
    and rare gases but argon (air) are left out.

    Args:
        listed: components of the fit, which are not candidates.
        energy_min_kev: fit range.
        energy_max_kev: fit range.
        incident_energy_kev: nominal.

    Returns:
        Names, K then L then M, by atomic number.
    """
    low, high = energy_min_kev + _RANGE_MARGIN_KEV, energy_max_kev - _RANGE_MARGIN_KEV
    found = []
    for shell, numbers, edge, line in _FAMILIES:
        for z in numbers:
            symbol = xraylib.AtomicNumberToSymbol(z)
            name = symbol if shell == "K" else f"{symbol}_{shell}"
            if symbol in _UNUSUAL or name in listed:
                continue
            excited = xraylib.EdgeEnergy(z, edge) < incident_energy_kev - _EDGE_MARGIN_KEV
            if excited and low < xraylib.LineEnergy(z, line) < high:
                found.append(name)
    return found


def build_candidate_lines(problem: FitProblem, efficiency: Detector) -> LineTable:
    """Lines of every candidate family as the detector records them."""
    incident = problem.table.incident_energy_kev
    every = build_excited_lines(incident, efficiency)
    # Nothing tells an element of the sample from the same element of a tube's anode.
    anode = () if problem.copies is None else tuple(f"{problem.copies.anode}{shell}" for shell in ("", "_L", "_M"))
    listed = (*problem.table.component_names, *anode)
    names = list_candidates(listed, problem.energy_min_kev, problem.energy_max_kev, incident)
    wanted = {*names}
    return select_components(every, [n for n in every.component_names if n in wanted])


def build_excited_lines(incident_energy_kev: float, efficiency: Detector) -> LineTable:
    """Lines of all families that an incident energy excites, listed or not, inside any range.

    The table is that of the next whole keV, without the lines of edges above the incident energy: the shares of the
    subshells hardly depend on it, and one table of 0.1 CPU s serves all scans and all energy axes.

    Args:
        incident_energy_kev: keV.
        efficiency: the detector.
    """
    return _select_excited(round(incident_energy_kev / _TABLE_STEP_KEV), efficiency)


@lru_cache(maxsize=64)
def _select_excited(step: int, efficiency: Detector) -> LineTable:
    incident = step * _TABLE_STEP_KEV
    every = _build_every_line(math.ceil(incident), efficiency)
    below = torch.zeros(len(every.component_names), dtype=every.ratio.dtype)
    below.index_add_(0, every.component, torch.where(every.edge_kev < incident, every.ratio, 0.0))
    kept = [n for n, share in zip(every.component_names, below.tolist(), strict=True) if share > 0.0]
    table = select_components(every, kept)
    ratio = torch.where(table.edge_kev < incident, table.ratio, 0.0)
    return replace(table, ratio=ratio / below[below > 0.0][table.component])


@lru_cache(maxsize=16)
def _build_every_line(incident_kev: int, efficiency: Detector) -> LineTable:
    """All families of a whole keV: 0.1 CPU s, once for a beamtime."""
    names = list_candidates((), 0.0, HIGHEST_INCIDENT_KEV, incident_kev + _EDGE_MARGIN_KEV)
    return condense(
        build_line_table(names, float(incident_kev), efficiency=efficiency),
        widening_kev2=_WIDENING_KEV2,
        minimum_ratio=_MINIMUM_RATIO,
    )


def build_edge_lines(problem: FitProblem, efficiency: Detector) -> LineTable:
    """Lines of listed families that the incident energy would excite if it were up to 0.5 keV higher.

    The table of a fit is made at the nominal incident energy; where the true one lies above one more edge, the
    lines of that subshell are missing from it, and must not be taken for an element. They are switched on by
    the fitted incident energy.
    """
    names = tuple(n for n in problem.table.component_names if _is_family(n))
    step = round(problem.table.incident_energy_kev / _TABLE_STEP_KEV)
    return _build_unexcited_lines(names, step, efficiency)


@lru_cache(maxsize=16)
def _build_unexcited_lines(names: tuple[str, ...], step: int, efficiency: Detector) -> LineTable:
    incident = step * _TABLE_STEP_KEV
    above = incident + _UNSURE_INCIDENT_KEV
    near = [n for n in names if any(incident < edge < above for edge in _edges_kev(n))]
    table = build_line_table(near, above, efficiency=efficiency, escape=False, minimum_ratio=_MINIMUM_RATIO)
    return select_lines(table, table.edge_kev > incident)


@lru_cache(maxsize=512)
def _edges_kev(name: str) -> tuple[float, ...]:
    """Edges of a family's subshells; those that the library does not know are left out."""
    symbol, _, shell = name.partition("_")
    z = xraylib.SymbolToAtomicNumber(symbol)
    found = []
    for subshell in _SUBSHELLS[shell]:
        try:
            found.append(float(xraylib.EdgeEnergy(z, subshell)))
        except ValueError:  # the atom has no such subshell
            continue
    return tuple(found)


def build_pileup_lines(fit: SpectrumFit, problem: FitProblem) -> LineTable:
    """Sums of every two of the strongest families of a fit, as components that are not listed."""
    table = problem.table
    named = [i for i, n in enumerate(table.component_names) if _is_family(n)]
    strong = sorted(named, key=lambda i: -float(fit.amplitude[i]))[:_PILEUP_PARENTS]
    rows: list[tuple[int, Tensor, Tensor]] = []
    names: list[str] = []
    for i, j in combinations_with_replacement(sorted(strong), 2):
        a, b = table.component_names[i], table.component_names[j]
        energy, ratio = _sum_lines(table, i, j)
        main_kev = float(energy[ratio.argmax()])
        inside = problem.energy_min_kev < main_kev < problem.energy_max_kev
        if inside and not {f"{a}_{b}", f"{b}_{a}"} & set(table.component_names):
            rows.append((len(names), energy, ratio))
            names.append(f"{a}_{b}")
    return build_table_from_arrays(
        component_names=names,
        component=[i for i, energy, _ in rows for _ in energy],
        energy_kev=[e for _, energy, _ in rows for e in energy.tolist()],
        ratio=[r for _, _, ratio in rows for r in ratio.tolist()],
        has_tail=False,
        incident_energy_kev=table.incident_energy_kev,
    )


@lru_cache(maxsize=1024)
def _is_family(name: str) -> bool:
    """An element's family: not a pile-up, not a user's own lines."""
    symbol, _, shell = name.partition("_")
    return shell in {"", "L", "M"} and any(xraylib.AtomicNumberToSymbol(z) == symbol for z in range(11, 93))


def _sum_lines(table: LineTable, first: int, second: int) -> tuple[Tensor, Tensor]:
    """Energies and ratios (pair,) of the sums of two components' lines."""
    a, b = ((table.component == i) & (table.escape_parent < 0) for i in (first, second))
    energy = (table.energy_kev[a][:, None] + table.energy_kev[b]).flatten()
    ratio = (table.ratio[a][:, None] * table.ratio[b]).flatten()
    strong = ratio >= _PILEUP_RATIO * ratio.max()
    return energy[strong], ratio[strong] / ratio[strong].sum()


def join_tables(first: LineTable, second: LineTable) -> LineTable:
    """One table of the components of two."""
    lines, components = first.energy_kev.shape[0], len(first.component_names)
    parent = torch.where(second.escape_parent >= 0, second.escape_parent + lines, -1)
    shifted = replace(second, component=second.component + components, escape_parent=parent)
    tensors = [f.name for f in fields(first) if isinstance(getattr(first, f.name), Tensor)]
    joined: dict[str, Any] = {name: torch.cat([getattr(first, name), getattr(shifted, name)]) for name in tensors}
    names = (*first.component_names, *second.component_names)
    return replace(first, component_names=names, **joined)
