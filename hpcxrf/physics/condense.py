"""A shorter line table for the fit: lines that no detector separates become one, faint ones lose their tail.

The work of a fit goes with the number of lines. An L family has thirty, half of them within a few eV of a
stronger one or a thousandth of it.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Final

import torch
from torch import Tensor

from hpcxrf.physics.lines import LineTable

# Two lines in the place of one widen the peak by w1 w2 / (w1 + w2) d^2; 6e-6 keV^2 changes no channel by more
# than 1e-3 of the family's peak in a detector of 130 eV (several of an L or M family together by up to 2e-3), and
# the fitted width takes most of that up.
WIDENING_KEV2: Final = 6e-6
MERGE_WITHIN_KEV: Final = 0.04
# A tail holds some per cent of a line.
TAILED_RATIO: Final = 0.02
# Below the incident energy by this much, an edge is as good as any other: its switch is 1.
_FAR_EDGE_KEV: Final = 0.6


def condense(
    table: LineTable,
    *,
    widening_kev2: float = WIDENING_KEV2,
    within_kev: float = MERGE_WITHIN_KEV,
    minimum_ratio: float = 0.0,
    tailed_ratio: float = TAILED_RATIO,
) -> LineTable:
    """Merge lines of a component that differ in nothing but a little energy.

    Lines of different tail, of K-alpha and K-beta, escape lines and others, and lines whose edges lie near the
    incident energy stay apart. The merged line has the sum of the ratios, and their mean energy.

    Args:
        table: of `build_line_table`.
        widening_kev2: largest `w1 w2 / (w1 + w2) d^2` of two lines that are merged, w their ratios, d keV.
        within_kev: largest distance.
        minimum_ratio: weaker lines are left out, and the others of their component raised to the same sum.
        tailed_ratio: lines below this share of their component have no tail.

    Returns:
        A table of the same components; `escape_parent` names the strongest line of the component.
    """
    merged = _merge(table, _group_lines(table, widening_kev2, within_kev), tailed_ratio)
    return merged if minimum_ratio <= 0.0 else _drop_faint(merged, minimum_ratio)


def select_components(table: LineTable, names: Sequence[str]) -> LineTable:
    """The table of these components alone.

    Args:
        table: any table.
        names: components of it, in its order.
    """
    place = torch.full((len(table.component_names),), -1)
    place[[table.component_names.index(n) for n in names]] = torch.arange(len(names))
    kept = place[table.component] >= 0
    new_index = kept.long().cumsum(dim=0) - 1
    parent = table.escape_parent[kept]
    return replace(
        table,
        component_names=tuple(names),
        component=place[table.component[kept]],
        escape_parent=torch.where(parent >= 0, new_index[parent.clamp(min=0)], -1),
        **{
            name: getattr(table, name)[kept]
            for name in ("energy_kev", "ratio", "edge_kev", "is_kbeta", "has_tail", "mu_per_um")
        },
    )


def select_lines(table: LineTable, kept: Tensor) -> LineTable:
    """The table of some lines alone, of the same components.

    Args:
        table: any table.
        kept: (line,) bool, or numbers of lines; none of them an escape line.
    """
    tensors = [f.name for f in fields(table) if isinstance(getattr(table, f.name), Tensor)]
    some = replace(table, **{name: getattr(table, name)[kept] for name in tensors})
    return replace(some, escape_parent=torch.full_like(some.component, -1))


def _group_lines(table: LineTable, widening_kev2: float, within_kev: float) -> list[list[int]]:
    """Lines that are merged, by their numbers: component by component, from low to high energy."""
    # As lists: one number of a tensor takes as long as fifty of a list.
    component, energy, ratio = table.component.tolist(), table.energy_kev.tolist(), table.ratio.tolist()
    groups: list[list[int]] = []
    latest: dict[object, list[int]] = {}
    alike = list(zip(component, _merge_keys(table), strict=True))
    for i in sorted(range(len(energy)), key=lambda i: (component[i], energy[i])):
        group = latest.get(alike[i])
        if group is not None:
            weight = sum(ratio[j] for j in group)
            mean = sum(energy[j] * ratio[j] for j in group) / weight
            distance = energy[i] - mean
            widening = weight * ratio[i] / (weight + ratio[i]) * distance**2
            if widening <= widening_kev2 and distance <= within_kev:
                group.append(i)
                continue
        latest[alike[i]] = [i]
        groups.append(latest[alike[i]])
    return groups


def _merge_keys(table: LineTable) -> list[object]:
    """Properties of each line that two must share to be merged."""
    far_kev = table.incident_energy_kev - _FAR_EDGE_KEV
    edges = [None if edge < far_kev else edge for edge in table.edge_kev.tolist()]
    escapes = (table.escape_parent >= 0).tolist()
    return list(zip(table.is_kbeta.tolist(), table.has_tail.tolist(), escapes, edges, strict=True))


def _merge(table: LineTable, groups: list[list[int]], tailed_ratio: float) -> LineTable:
    index = torch.tensor([i for group in groups for i in group], dtype=torch.int64)
    group = torch.tensor([g for g, members in enumerate(groups) for _ in members])
    ratio, ratios = table.ratio[index], table.ratio.tolist()
    first = [max(members, key=ratios.__getitem__) for members in groups]
    strongest = torch.tensor(first, dtype=torch.int64)
    total = torch.zeros(len(groups), dtype=ratio.dtype).index_add(0, group, ratio)

    def mean(values: Tensor) -> Tensor:
        weighted = torch.zeros_like(total).index_add(0, group, ratio * values[index])
        return torch.where(total > 0, weighted / total, values[strongest])

    escape = table.escape_parent[strongest] >= 0
    component = table.component[strongest]
    return replace(
        table,
        component=component,
        energy_kev=mean(table.energy_kev),
        ratio=total,
        edge_kev=table.edge_kev[strongest],
        is_kbeta=table.is_kbeta[strongest],
        has_tail=table.has_tail[strongest] & (total >= tailed_ratio) & ~escape,
        mu_per_um=mean(table.mu_per_um),
        escape_parent=_find_parents(component, total, escape),
    )


def _find_parents(component: Tensor, ratio: Tensor, escape: Tensor) -> Tensor:
    """The strongest line of its component (line,) for an escape line; -1 for others."""
    if component.numel() == 0:
        return torch.full_like(component, -1)
    own = (component == component[:, None]) & ~escape
    return torch.where(escape, torch.where(own, ratio, -1.0).argmax(dim=1), -1)


def _drop_faint(table: LineTable, minimum_ratio: float) -> LineTable:
    keep = table.ratio >= minimum_ratio
    count = len(table.component_names)
    before = torch.zeros(count, dtype=table.ratio.dtype).index_add(0, table.component, table.ratio)
    after = torch.zeros_like(before).index_add(0, table.component[keep], table.ratio[keep])
    ratio = table.ratio[keep] * (before / after.clamp(min=1e-300))[table.component[keep]]
    escape = table.escape_parent[keep] >= 0
    return replace(
        table,
        component=table.component[keep],
        energy_kev=table.energy_kev[keep],
        ratio=ratio,
        edge_kev=table.edge_kev[keep],
        is_kbeta=table.is_kbeta[keep],
        has_tail=table.has_tail[keep],
        mu_per_um=table.mu_per_um[keep],
        escape_parent=_find_parents(table.component[keep], ratio, escape),
    )
