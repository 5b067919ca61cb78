"""What a tube problem is fitted with: families excited by the tube's spectrum, and copies of the anode's own lines.

The continuum that the sample scatters is left to the background. The incident energy is no parameter: nothing but the
calibration moves the copies.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import xraylib
from torch import Tensor

from hpcxrf.errors import FitError
from hpcxrf.physics.anode_scatter import ScatterCopies
from hpcxrf.physics.branching import Branching
from hpcxrf.physics.components import parse_component
from hpcxrf.physics.detector import Detector, efficiency
from hpcxrf.physics.lines import MERGE_KEV, LineTable, build_line_table
from hpcxrf.physics.tube import AnodeLine, Series, Tube, find_anode_lines, subshell_excitation

SCATTERER: Final = "SiO2"
"""Matter whose cross-sections weigh the copies: between copies of one tube those of other matter differ little."""
LEAST_WEIGHT: Final = 1e-4
SERIES_SD: Final = 0.3
"""Standard deviation of the logarithm by which a subshell of the main series may stand higher than calculated:
without it the L lines of W leave R2 at .970 in place of .998."""


def find_scatter_copies(
    tube: Tube, detector: Detector, *, lowest_kev: float = 1.0, highest_kev: float = np.inf
) -> ScatterCopies:
    """Copies of the anode's lines with the heights that they have beside each other.

    A line weighs what leaves the tube times the detector's efficiency times the cross-section of elastic or Compton
    scattering, the latter without its shift. The main series is K where its lines are in the range, else L.

    Args:
        tube: the tube.
        detector: the detector.
        lowest_kev: lower end of the spectrum.
        highest_kev: upper end of the spectrum.

    Raises:
        FitError: no line of the anode is excited and in the range.
    """
    inside = [line for line in find_anode_lines(tube) if lowest_kev < line.energy_kev < highest_kev]
    if not inside:
        raise FitError(
            f"the {tube.anode} tube at {tube.kv:g} kV has no line from {lowest_kev:g} to {highest_kev:g} keV; nothing "
            "in such a spectrum tells its energy axis, widen the range"
        )
    main: Series = "K" if any(line.series == "K" for line in inside) else "L"
    energy = np.array([line.energy_kev for line in inside])
    seen = efficiency(energy, detector) * np.array([line.photons for line in inside])
    elastic = seen * np.array([xraylib.CS_Rayl_CP(SCATTERER, e) for e in energy])
    compton = seen * np.array([xraylib.CS_Compt_CP(SCATTERER, e) for e in energy])
    shell = [_subshell(line) for line in inside]
    series = np.array([line.series for line in inside])
    for values in (elastic, compton):
        for one in ("K", "L"):
            values[series == one] /= values[series == one].sum() or 1.0
    rows = _merge_copies(energy, elastic, compton, shell)
    return ScatterCopies(
        energy_kev=torch.tensor([row[0] for row in rows], dtype=torch.float64),
        elastic=torch.tensor([row[1] for row in rows], dtype=torch.float64),
        compton=torch.tensor([row[2] for row in rows], dtype=torch.float64),
        subshell=tuple(row[3] for row in rows),
        main=main,
        anode=tube.anode,
    )


def build_tube_table(
    components: Sequence[str],
    tube: Tube,
    *,
    detector: Detector,
    branching: Branching | None = None,
    escape: bool = True,
    minimum_ratio: float = 1e-4,
) -> LineTable:
    """Lines of every family as the tube excites them.

    The table is made at the high voltage, so that no family which the tube excites is refused, and each subshell is
    scaled by `subshell_excitation`. Pile-up keeps the ratios of the high voltage.

    Args:
        components: names as of `build_line_table`.
        tube: the tube.
        detector: the detector.
        branching: adjustments of the ratios, none by default.
        escape: append the escape lines of the detector material.
        minimum_ratio: as in `build_line_table`.

    Raises:
        FitError: names that mean nothing, come twice, or that the high voltage cannot excite.
    """
    table = build_line_table(
        components, tube.kv, efficiency=detector, branching=branching, escape=escape, minimum_ratio=minimum_ratio
    )
    scaled = table.ratio * _excitation(table, tube)
    total = torch.zeros(len(table.component_names), dtype=torch.float64).index_add(0, table.component, scaled)
    return replace(
        table,
        ratio=scaled / total[table.component],
        table_version=f"{table.table_version}, excited by a {tube.anode} tube at {tube.kv:g} kV",
    )


def _excitation(table: LineTable, tube: Tube) -> Tensor:
    """Factor (line,) by which the tube excites a line more than photons of the highest energy do."""
    factor = torch.ones_like(table.ratio)
    for i, name in enumerate(table.component_names):
        parsed = parse_component(name)
        if parsed.kind == "pileup":
            continue
        symbol, series = parsed.families[0]
        z = xraylib.SymbolToAtomicNumber(symbol)
        for shell in _SUBSHELLS[series]:
            edge = xraylib.EdgeEnergy(z, getattr(xraylib, f"{shell}_SHELL"))
            mine = (table.component == i) & (table.edge_kev == edge)
            if bool(mine.any()):
                factor[mine] = subshell_excitation(tube, z, shell)
    return factor


_SUBSHELLS: Final = {"K": ("K",), "L": ("L1", "L2", "L3"), "M": ("M1", "M2", "M3", "M4", "M5")}


def _subshell(line: AnodeLine) -> str:
    return line.name[0] if line.series == "K" else line.name[:2]


def _merge_copies(
    energy: npt.NDArray[np.float64],
    elastic: npt.NDArray[np.float64],
    compton: npt.NDArray[np.float64],
    shell: Sequence[str],
) -> list[tuple[float, float, float, str]]:
    """Copies by energy: those of one subshell within 5 eV as one, faint ones left out."""
    rows: list[tuple[float, float, float, str]] = []
    for i in sorted(np.flatnonzero(elastic >= LEAST_WEIGHT).tolist(), key=lambda i: (shell[i], energy[i])):
        last = rows[-1] if rows else None
        if last is None or last[3] != shell[i] or energy[i] - last[0] > MERGE_KEV:
            rows.append((float(energy[i]), float(elastic[i]), float(compton[i]), shell[i]))
            continue
        total = last[1] + float(elastic[i])
        mean = (last[0] * last[1] + float(energy[i] * elastic[i])) / total
        rows[-1] = (mean, total, last[2] + float(compton[i]), shell[i])
    return rows
