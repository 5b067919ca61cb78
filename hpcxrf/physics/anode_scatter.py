"""Copies of the anode's lines in the spectrum of a tube: elastic peaks at their energies, Compton peaks shifted.

A sample scatters the lines of the anode as it scatters any photon. The elastic copies stand at fixed energies, and a
column of the model has those of one series; the Compton copies of the main series share one column, each line through
the Compton profile at its own shifted energy. The incident energy of the model has no part in either.
"""

from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from hpcxrf.physics.constants import ConstantSet
from hpcxrf.physics.parameters import INDEX
from hpcxrf.physics.scatter import ComptonShape, compton_derivatives, compton_shape
from hpcxrf.physics.scatter_names import OTHER_SERIES
from hpcxrf.physics.tube import Series

_STRONG: Final = 0.1
_APART_KEV: Final = 0.1
_INCIDENT: Final = INDEX["coherent_sct_energy"]


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
    anode: str
    """Symbol of the anode's element."""

    @property
    def is_main(self) -> Tensor:
        """(copy,) bool."""
        return torch.tensor([one[0] == self.main for one in self.subshell], dtype=torch.bool)

    @property
    def other_names(self) -> tuple[str, ...]:
        """Name of the elastic column of the other series; none where all copies are of the main one."""
        if bool(self.is_main.all()):
            return ()
        return (OTHER_SERIES.format(series="L" if self.main == "K" else "K"),)

    @property
    def main_kev(self) -> float:
        """Energy of the strongest copy of the main series, keV."""
        return float(self.energy_kev[torch.where(self.is_main, self.elastic, 0.0).argmax()])


def list_strong_copies(copies: ScatterCopies) -> tuple[tuple[float, float], ...]:
    """Energy (keV) and share of the elastic copies above a tenth of the strongest of their series, those apart."""
    found: list[tuple[float, float]] = []
    main = copies.is_main
    for chosen in (main, ~main):
        shares = torch.where(chosen, copies.elastic, 0.0)
        for i in torch.argsort(-shares, stable=True).tolist():
            energy_kev, share = float(copies.energy_kev[i]), float(shares[i])
            if share < _STRONG * float(shares.max()) or share <= 0.0:
                break
            if all(abs(energy_kev - other) > _APART_KEV for other, _ in found):
                found.append((energy_kev, share))
    return tuple(found)


def keep_main_series(copies: ScatterCopies) -> ScatterCopies:
    """The copies of the main series alone."""
    main = copies.is_main
    return replace(
        copies,
        energy_kev=copies.energy_kev[main],
        elastic=copies.elastic[main],
        compton=copies.compton[main],
        subshell=tuple(one for one in copies.subshell if one[0] == copies.main),
    )


def adjust_shares(shares: Tensor, logarithm: Tensor, copies: ScatterCopies) -> Tensor:
    """Shares of copies whose subshells stand higher than calculated, (*batch, copy); each series still sums to 1.

    Args:
        shares: (copy,) elastic or Compton shares.
        logarithm: (*batch, copy) of the factor on each.
        copies: whose shares they are.
    """
    raised = shares.to(logarithm) * logarithm.exp()
    main = copies.is_main.to(logarithm.device)
    total = torch.where(
        main, torch.where(main, raised, 0.0).sum(-1, keepdim=True), torch.where(main, 0.0, raised).sum(-1, keepdim=True)
    )
    return raised / total


def adjust_copies(copies: ScatterCopies, logarithm: Tensor) -> ScatterCopies:
    """Copies with subshells that stand higher than calculated, in both columns alike.

    Args:
        copies: as calculated.
        logarithm: (copy,) of the factor on each.
    """
    return replace(
        copies,
        elastic=adjust_shares(copies.elastic, logarithm, copies).cpu(),
        compton=adjust_shares(copies.compton, logarithm, copies).cpu(),
    )


def centre_slopes(linear: Tensor, shares: Tensor, copies: ScatterCopies) -> Tensor:
    """Relative derivative of shares by parameters that change their logarithm, `dL/dq - <dL/dq>` of the series.

    Args:
        linear: (copy, parameter), dL/dq.
        shares: (*batch, copy) at q.
        copies: whose shares they are.

    Returns:
        (*batch, copy, parameter).
    """
    main = copies.is_main.to(shares.device)
    parts = [torch.where(chosen, shares, 0.0)[..., None] * linear for chosen in (main, ~main)]
    means = [part.sum(dim=-2, keepdim=True) for part in parts]
    return linear - torch.where(main[:, None], means[0], means[1])


def compton_of_copies(theta: Tensor, energy_kev: Tensor, copies: ScatterCopies, constants: ConstantSet) -> ComptonShape:
    """Compton peak of every copy of the main series, terms (*batch, copy, channel).

    Args:
        theta: (*batch, parameter); its incident energy has no part.
        energy_kev: (*batch, channel), energies of the channels.
        copies: of the tube.
        constants: physics.
    """
    return compton_shape(_each_copy(theta, copies), energy_kev[..., None, :], constants)


def derive_compton_of_copies(
    theta: Tensor, shape: ComptonShape, shares: Tensor, copies: ScatterCopies, constants: ConstantSet
) -> dict[str, Tensor]:
    """Derivatives of the joint density by parameter, and by the channel's energy; each (*batch, channel).

    Args:
        theta: (*batch, parameter).
        shape: of `compton_of_copies`.
        shares: (*batch, copy of the main series).
        copies: of the tube.
        constants: must not have `maps_line_shape`.
    """
    found = compton_derivatives(_each_copy(theta, copies), shape, constants)
    del found["coherent_sct_energy"]
    return {name: (shares[..., None] * values).sum(dim=-2) for name, values in found.items()}


def _each_copy(theta: Tensor, copies: ScatterCopies) -> Tensor:
    """Theta (*batch, copy, parameter) with the energy of every copy of the main series as incident energy."""
    energy = copies.energy_kev[copies.is_main].to(theta)
    each = theta[..., None, :].expand(*theta.shape[:-1], len(energy), theta.shape[-1])
    place = torch.arange(theta.shape[-1], device=theta.device) == _INCIDENT
    return torch.where(place, energy[:, None], each)
