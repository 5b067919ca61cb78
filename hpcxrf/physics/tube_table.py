"""What a tube problem is fitted with: families excited by the tube's spectrum, and copies of the anode's own lines.

The elastic copies are lines at fixed energies and stand in the line table as a component of their own, as do the lines
of the anode's other series; the Compton copies are a column of their own, each line through the Compton profile at its
own shifted energy. The continuum that the sample scatters is left to the background. The incident energy is no
parameter: nothing but the calibration moves the copies.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import xraylib
from torch import Tensor

from hpcxrf.errors import FitError
from hpcxrf.physics.branching import Branching
from hpcxrf.physics.components import parse_component
from hpcxrf.physics.constants import ConstantSet
from hpcxrf.physics.detector import Detector, absorption_per_um, efficiency
from hpcxrf.physics.lines import MERGE_KEV, LineTable, build_line_table, build_table_from_arrays
from hpcxrf.physics.model import ELASTIC
from hpcxrf.physics.parameters import INDEX
from hpcxrf.physics.scatter import compton_derivatives, compton_shape
from hpcxrf.physics.tube import AnodeLine, Series, Tube, find_anode_lines, subshell_excitation

SCATTERER: Final = "SiO2"
"""Matter whose cross-sections weigh the copies: between copies of one tube those of other matter differ little."""
OTHER_SERIES: Final = "ANODE_{series}_SCT"
"""Name of the elastic component of the anode's other series."""
LEAST_WEIGHT: Final = 1e-4
SERIES_SD: Final = 0.3
"""Standard deviation of the logarithm by which a subshell of the main series may stand higher than calculated:
without it the L lines of W leave R2 at .970 in place of .998."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScatterCopies:
    """Lines of the anode as the sample scatters them, merged within 5 eV."""

    energy_kev: Tensor
    """(copy,) float64, before scattering."""
    elastic: Tensor
    """(copy,) float64: share of the counts of the elastic peaks of its series."""
    compton: Tensor
    """(copy,) float64: share of the counts of the Compton peaks of its series."""
    subshell: tuple[str, ...]
    """By copy: `K`, `L1`, `L2` or `L3`."""
    main: Series
    """Series that has a Compton column; the other one is elastic alone."""

    @property
    def is_main(self) -> Tensor:
        """(copy,) bool."""
        return torch.tensor([one[0] == self.main for one in self.subshell], dtype=torch.bool)


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
    )


def scale_copies(copies: ScatterCopies, log_factor: dict[str, float]) -> ScatterCopies:
    """Copies with subshells that stand higher than calculated, in both columns alike; shares still sum to 1.

    Args:
        copies: those of `find_scatter_copies`.
        log_factor: logarithm of the factor by subshell; one that is not named has 0.
    """
    factor = torch.tensor([log_factor.get(one, 0.0) for one in copies.subshell], dtype=torch.float64).exp()
    series = torch.tensor([one[0] == "K" for one in copies.subshell])

    def scale(values: Tensor) -> Tensor:
        raised = values * factor
        total = torch.where(series, raised[series].sum(), raised[~series].sum())
        return raised / total

    return replace(copies, elastic=scale(copies.elastic), compton=scale(copies.compton))


def build_tube_table(
    components: Sequence[str],
    tube: Tube,
    copies: ScatterCopies,
    *,
    detector: Detector,
    branching: Branching | None = None,
    escape: bool = True,
) -> LineTable:
    """Lines of every family as the tube excites them, then the elastic copies of the anode's lines.

    The table is made at the high voltage, so that no family which the tube excites is refused, and each subshell is
    scaled by `subshell_excitation`; no line is switched off by an energy. Pile-up keeps the ratios of the high voltage.
    The elastic peaks of the main series are the component `COHERENT_SCT_AMPLITUDE`, those of the other series one of
    their own.

    Args:
        components: names as of `build_line_table`.
        tube: the tube.
        copies: those of `find_scatter_copies`.
        detector: the detector.
        branching: adjustments of the ratios, none by default.
        escape: append the escape lines of the detector material.

    Raises:
        FitError: names that mean nothing, come twice, or that the high voltage cannot excite.
    """
    table = build_line_table(components, tube.kv, efficiency=detector, branching=branching, escape=escape)
    scaled = table.ratio * _excitation(table, tube)
    total = torch.zeros(len(table.component_names), dtype=torch.float64).index_add(0, table.component, scaled)
    rows = [
        (ELASTIC, copies.is_main),
        (OTHER_SERIES.format(series="L" if copies.main == "K" else "K"), ~copies.is_main),
    ]
    named = [(name, chosen) for name, chosen in rows if bool(chosen.any())]
    first = len(table.component_names)
    added = torch.cat([torch.full((int(chosen.sum()),), first + i) for i, (_, chosen) in enumerate(named)])
    energy = torch.cat([copies.energy_kev[chosen] for _, chosen in named])
    share = torch.cat([copies.elastic[chosen] / copies.elastic[chosen].sum() for _, chosen in named])
    n = len(energy)
    return build_table_from_arrays(
        component_names=[*table.component_names, *(name for name, _ in named)],
        component=torch.cat([table.component, added]).numpy(),
        energy_kev=torch.cat([table.energy_kev, energy]).numpy(),
        ratio=torch.cat([scaled / total[table.component], share]).numpy(),
        incident_energy_kev=tube.kv,
        is_kbeta=torch.cat([table.is_kbeta, torch.zeros(n, dtype=torch.bool)]).numpy(),
        has_tail=torch.cat([table.has_tail, torch.ones(n, dtype=torch.bool)]).numpy(),
        mu_per_um=torch.cat([table.mu_per_um, _absorption(energy, detector)]).numpy(),
        escape_parent=torch.cat([table.escape_parent, torch.full((n,), -1)]).numpy(),
        table_version=f"{table.table_version}, excited by a {tube.anode} tube at {tube.kv:g} kV",
    )


def compton_copies(theta: Tensor, energy_kev: Tensor, copies: ScatterCopies, constants: ConstantSet) -> Tensor:
    """Density of the Compton copies of the main series, (*batch, channel) 1/keV.

    Each line through the Compton profile of theta at its own shifted energy; `coherent_sct_energy` has no part in it.

    Args:
        theta: (*batch, parameter).
        energy_kev: (*batch, channel), energies of the channels.
        copies: those of `find_scatter_copies`.
        constants: physics.
    """
    each, weights = _each_copy(theta, copies)
    density = compton_shape(each, energy_kev[..., None, :], constants).density
    return (weights[:, None] * density).sum(dim=-2)


def compton_copies_derivatives(
    theta: Tensor, energy_kev: Tensor, copies: ScatterCopies, constants: ConstantSet
) -> dict[str, Tensor]:
    """Derivatives of `compton_copies` by parameter, and by the channel's energy; each (*batch, channel).

    Args:
        theta: (*batch, parameter).
        energy_kev: (*batch, channel).
        copies: those of `find_scatter_copies`.
        constants: must not have `maps_line_shape`.
    """
    each, weights = _each_copy(theta, copies)
    shape = compton_shape(each, energy_kev[..., None, :], constants)
    found = compton_derivatives(each, shape, constants)
    del found["coherent_sct_energy"]
    return {name: (weights[:, None] * values).sum(dim=-2) for name, values in found.items()}


def _each_copy(theta: Tensor, copies: ScatterCopies) -> tuple[Tensor, Tensor]:
    """Theta (*batch, copy, parameter) with the energy of every copy of the main series, and their shares (copy,)."""
    chosen = copies.is_main
    energy, weights = copies.energy_kev[chosen], copies.compton[chosen]
    each = theta[..., None, :].expand(*theta.shape[:-1], len(energy), theta.shape[-1])
    place = torch.nn.functional.one_hot(torch.tensor(INDEX["coherent_sct_energy"]), theta.shape[-1]).to(torch.bool)
    return torch.where(place, energy[:, None].to(theta.dtype), each), weights / weights.sum()


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


def _absorption(energy_kev: Tensor, detector: Detector) -> Tensor:
    found = [absorption_per_um(energy, detector) for energy in energy_kev.tolist()]
    return torch.tensor(found, dtype=torch.float64)


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
