"""Line ratios within a family by one mechanism: air, the depth of the sample, K-beta, and a small free rest.

Line l of family c weighs `r_l exp(L_l) sum_c(r) / sum_c(r exp(L))`, r being the ratio of the line table: an amplitude
stays what was recorded. An escape line takes the L of its parent; pile-up and user lines have L = 0, as their counts
were recorded already. L is the sum of

- sample: `ln((1 - exp(-x)) / x)`, the share of fluorescence that leaves a layer whose optical depth, in and out
  together, is x; `x = T (mu(E0) + mu(E)) / (2 mu(E0))`, so that T is that of the incident energy;
- air or window: `-d (2 keV / E)^2.9`, d being the optical depth at 2 keV;
- K-beta: b on the K-beta lines of all families;
- rest: kappa on the K-beta lines of one family, or on the lines of one of its subshells.

The parameters q = (v, s, d, b, kappa...) follow theta in the vector that the solver moves, v being `exp(-T)`: L is
linear in it where the sample is thin as well as where it is thick, so that full steps arrive, and a derivative is left
for the thinnest. s is the share of light matter in the mass of the sample (`hpcxrf.physics.sample`).
"""

from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from hpcxrf.physics.lines import LineTable
from hpcxrf.physics.sample import SampleAbsorption

REFERENCE_KEV: Final = 2.0
# Total cross-sections of Be, C, N, O and air fall as E^-2.8 to E^-3.0 from 1 to 5 keV (xraylib).
_AIR_POWER: Final = 2.9
AIR_PER_MM: Final = 0.0635
"""Optical depth of a millimetre of dry air at 2 keV, sea level, 20 degrees (xraylib)."""
TRANSMISSION: Final = "sample_transmission"
LIGHT_SHARE: Final = "sample_light_share"
AIR: Final = "air_depth"
KBETA: Final = "kbeta_all"
COMMON: Final = (TRANSMISSION, LIGHT_SHARE, AIR, KBETA)
"""Names of the parameters that act on all families, in the order of q."""
# Of x: below, 1 / (exp(x) - 1) - 1 / x is a difference of great numbers, and -1/2 to 1e-4.
SMALL_DEPTH: Final = 1e-3
THINNEST: Final = 1e-7


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioGroup:
    """Lines of one family that are strengthened or weakened together."""

    name: str
    """`Fe K-beta`, `Pb_L L1`."""
    member: Tensor
    """(line,) bool."""
    sd: float
    """Prior standard deviation of the logarithm of their strength."""
    copies: Tensor | None = None
    """(copy,) bool: copies of a tube's anode lines that go with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioModel:
    """Everything that the ratios of a line table depend on, apart from q."""

    names: tuple[str, ...]
    """Parameters q, `COMMON` first."""
    linear: Tensor
    """(line, parameter): derivative of L by the parameters in which it is linear; 0 for those of the sample."""
    absorbing: Tensor
    """(line,) bool: fluorescence and its escape lines."""
    sample: SampleAbsorption
    """Absorption of the sample at the lines, an escape line having that of its parent."""
    copies: Tensor | None = None
    """(copy, parameter): derivative of the logarithm of a tube's scattered lines."""


def build_ratio_model(table: LineTable, groups: tuple[RatioGroup, ...], sample: SampleAbsorption) -> RatioModel:
    """Ratio model of a line table.

    Args:
        table: lines.
        groups: lines that are free of the others of their family.
        sample: absorption at the lines of the table.
    """
    parent = find_parents(table)
    fluorescent = table.edge_kev[parent] > 0.0
    none = torch.zeros_like(table.ratio)
    air = torch.where(fluorescent, -((REFERENCE_KEV / table.energy_kev[parent]) ** _AIR_POWER), 0.0)
    kbeta = (table.is_kbeta[parent] & fluorescent).to(none.dtype)
    members = [group.member.to(none.dtype) for group in groups]
    of_copies = next((group.copies for group in groups if group.copies is not None), None)
    copies = None
    if of_copies is not None:
        nothing = torch.zeros_like(of_copies)
        marks = [nothing if group.copies is None else group.copies for group in groups]
        copies = torch.stack([nothing] * len(COMMON) + marks, dim=1).to(none.dtype)
    return RatioModel(
        names=(*COMMON, *(group.name for group in groups)),
        linear=torch.stack([none, none, air, kbeta, *members], dim=1),
        absorbing=fluorescent,
        sample=sample,
        copies=copies,
    )


def find_parents(table: LineTable) -> Tensor:
    """(line,) int64: the line itself, of an escape line its parent."""
    own = torch.arange(table.ratio.shape[0], device=table.ratio.device)
    return torch.where(table.escape_parent >= 0, table.escape_parent, own)


def adjust_ratios(q: Tensor, table: LineTable, model: RatioModel) -> Tensor:
    """Ratios of the lines at q; those of a component sum to what they do in the table.

    Args:
        q: (*batch, parameter).
        table: lines.
        model: of the same table.

    Returns:
        (*batch, line).
    """
    logarithm = q @ model.linear.mT + sample_logarithm(q, model)
    weakened = table.ratio * torch.exp(logarithm)
    scale = _sum_components(table.ratio, table) / _sum_components(weakened, table).clamp(min=1e-300)
    return weakened * scale[..., table.component]


def adjust_table(q: Tensor, table: LineTable, model: RatioModel) -> LineTable:
    """The table with its ratios at q (parameter,)."""
    return replace(table, ratio=adjust_ratios(q, table, model))


def sample_logarithm(q: Tensor, model: RatioModel) -> Tensor:
    """The sample's part of L, (*batch, line)."""
    depth = _path(q, model)[0]
    return torch.where(model.absorbing, torch.log(-torch.expm1(-depth) / depth), 0.0)


def ratio_slopes(q: Tensor, ratio: Tensor, table: LineTable, model: RatioModel) -> Tensor:
    """Relative derivative of the ratios by q, sums of a component held: `dL/dq - <dL/dq>`.

    Args:
        q: (*batch, parameter).
        ratio: (*batch, line), of `adjust_ratios` at q.
        table: lines.
        model: of the same table.

    Returns:
        (*batch, line, parameter).
    """
    x, by_transmission, by_share = _path(q, model)
    slope = torch.where(x < SMALL_DEPTH, -0.5, 1.0 / torch.expm1(x.clamp(min=SMALL_DEPTH)) - 1.0 / x)
    slope = torch.where(model.absorbing, slope, 0.0)
    own = torch.stack([by_transmission * slope, by_share * slope], dim=-1)
    rest = model.linear[:, 2:].expand(*own.shape[:-1], -1)
    slopes = torch.cat([own, rest], dim=-1)
    total = _sum_components(ratio, table).clamp(min=1e-300)
    shares = (ratio / total[..., table.component])[..., None] * slopes
    mean = shares.new_zeros((*shares.shape[:-2], len(table.component_names), shares.shape[-1]))
    mean = mean.index_add(-2, table.component, shares)
    return slopes - mean[..., table.component, :]


def _path(q: Tensor, model: RatioModel) -> tuple[Tensor, Tensor, Tensor]:
    """Optical depth x of the lines, its derivatives by transmission and light share; (*batch, line)."""
    transmission, light = q[..., 0, None], q[..., 1, None]
    depth = -torch.log(transmission).clamp(max=-THINNEST)
    sample = model.sample
    out = (1.0 - light) * sample.heavy + light * sample.light
    enter = (1.0 - light) * sample.heavy_incident + light * sample.light_incident
    by_light = (sample.light - sample.heavy) * enter - out * (sample.light_incident - sample.heavy_incident)
    per_depth = 0.5 * (1.0 + out / enter)
    return depth * per_depth, -per_depth / transmission, 0.5 * depth * by_light / enter**2


def _sum_components(values: Tensor, table: LineTable) -> Tensor:
    """(*batch, line) -> (*batch, component)."""
    total = values.new_zeros((*values.shape[:-1], len(table.component_names)))
    return total.index_add(-1, table.component, values)
