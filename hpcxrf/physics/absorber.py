"""Light matter between sample and detector that its description leaves out: air, a window, the sample itself."""

from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from hpcxrf.physics.lines import LineTable

REFERENCE_KEV: Final = 2.0
# Total cross-sections of Be, C, N, O and air fall as E^-2.8 to E^-3.0 from 1 to 5 keV (xraylib).
_POWER: Final = 2.9
AIR_PER_MM: Final = 0.0635
"""Optical depth of a millimetre of dry air at 2 keV, sea level, 20 degrees (xraylib)."""


def attenuate(table: LineTable, optical_depth: float) -> LineTable:
    """Ratios of the lines behind more (or, negative, less) light matter than the table was made for.

    Each line is weakened by `exp(-depth (2 keV / E)^2.9)`, an escape line by as much as its parent. Ratios of a
    component sum to what they did: an amplitude is still what was recorded. Pile-up lines stay; their counts were
    recorded already.

    Args:
        table: any.
        optical_depth: at 2 keV.
    """
    parent = torch.where(table.escape_parent >= 0, table.escape_parent, torch.arange(table.ratio.shape[0]))
    energy_kev = table.energy_kev[parent]
    depth = optical_depth * (REFERENCE_KEV / energy_kev) ** _POWER
    fluorescence = table.edge_kev[parent] > 0.0
    ratio = table.ratio * torch.where(fluorescence, torch.exp(-depth), 1.0)
    before, after = _totals(table, table.ratio), _totals(table, ratio)
    scale = before / after.clamp(min=torch.finfo(ratio.dtype).tiny)
    return replace(table, ratio=ratio * scale[table.component])


def _totals(table: LineTable, ratio: Tensor) -> Tensor:
    total = ratio.new_zeros(len(table.component_names))
    return total.index_add(0, table.component, ratio)
