"""Every family of a fit weighed once more, on the fitted model itself: is it there, and could it be another one?

A family is left out and put back, its own flaws left out too (absent, it would have none), against everything that the
rest of the fit can do and the usual flaws of its model (`hpcxrf.fitting.spectrum.mismatch`). Rivals whose lines overlap
are put in its place. Half a chi2 is a logarithm of odds.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from hpcxrf.fitting.axis.binned import RARE_COST, families_by_name
from hpcxrf.fitting.axis.evidence import EXPECTED_SHARE, FAMILY_PRICE
from hpcxrf.fitting.axis.plausibility import cost_beside, is_expected, is_possible
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.fitting.spectrum.binning import bin_channels
from hpcxrf.fitting.spectrum.identify import convolve_pileup, shape_components
from hpcxrf.fitting.spectrum.mismatch import FitPoint, find_flaws
from hpcxrf.physics.detector import Detector
from hpcxrf.physics.lines import LineTable
from hpcxrf.physics.parameters import INDEX

PILEUP_COST: Final = 2.0
"""How uncommon a pile-up of two families is, on the scale of the families' costs."""
RIVAL_OVERLAP: Final = 0.7
EXCHANGE: Final = 8.0
"""Half chi2 below which two families cannot be told apart."""
_BINS_PER_SIGMA: Final = 1.5
# From here on flaws decide: the price rises with every factor of 10.
_MANY_COUNTS: Final = 3e5
_PRICE_PER_DECADE: Final = 5.0
_LEAST_SD: Final = 1e-12
_FLAWS_AT_LEAST: Final = 1.2
_FLAWS_AT_MOST: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """One family, weighed by itself."""

    z: float
    """Its excess in standard deviations."""
    surviving: float
    """Share of its shape, in standard deviations, that nothing else can imitate: 0 to 1."""
    gain: float
    """Half chi2 that it explains, less its price; not above 0: it is not claimed."""
    rivals: dict[str, float]
    """By name of the families whose lines overlap, what exchanging the family for that one costs, half a chi2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Field:
    """The fit in bins, in units of the counting noise."""

    names: tuple[str, ...]
    price: float
    components: Tensor
    """(bin, component) per count, the scatter peaks included."""
    amplitude: Tensor
    background: Tensor
    """(bin, part)."""
    flaws: Tensor
    """(bin, flaw); those of theta are the parameters' own priors."""
    owner: Tensor
    residual: Tensor
    others: Tensor
    """(bin, candidate) per count."""
    other_names: tuple[str, ...]


def cost_of(name: str, others: Collection[str]) -> float:
    """How uncommon a family or a pile-up is beside others."""
    return cost_beside(name, others) if name in families_by_name() else PILEUP_COST


def price_at(fit: SpectrumFit) -> float:
    """Half chi2 that a family has to explain in a spectrum of so many counts, beside how uncommon it is.

    Counting noise is normal, flaws of a model are not: what these leave outgrows its usual size now and then.
    """
    return FAMILY_PRICE + _PRICE_PER_DECADE * max(math.log10(max(float(fit.counts.sum()), 1.0) / _MANY_COUNTS), 0.0)


def review(
    point: FitPoint, candidates: LineTable, *, detector: Detector, scale: float | None = None
) -> dict[str, Review]:
    """Weigh every family and pile-up of a fit.

    Args:
        point: the fit.
        candidates: lines of all families that are not fitted.
        detector: windows and chip.
        scale: reduced chi2 by which evidence is divided; None: what the median of the residual shows.
    """
    field = _bin_fit(point, candidates, detector)
    incident = float(point.fit.theta[INDEX["coherent_sct_energy"]])
    scale = _measure_scale(field) if scale is None else scale
    return {name: _weigh_one(field, i, incident, scale) for i, name in enumerate(field.names)}


def _bin_fit(point: FitPoint, candidates: LineTable, detector: Detector) -> _Field:
    fit, at = point.fit, point.at
    root = point.weights.sqrt()[:, None]
    k = min(max(fit.model_error, _FLAWS_AT_LEAST), _FLAWS_AT_MOST) if fit.model_error > 0.0 else _FLAWS_AT_LEAST
    found = find_flaws(at, detector)
    free = fit.free
    theta = point.jacobian[:, free] * at.prior_sd[free].clamp(min=_LEAST_SD)
    pileup = convolve_pileup(point)[:, None]
    rebin = bin_channels(point, _BINS_PER_SIGMA).whiten
    names = fit.component_names
    n = len(point.problem.table.component_names)
    return _Field(
        names=names[:n],
        price=price_at(fit),
        components=rebin(point.drawn.phi),
        amplitude=fit.amplitude,
        background=rebin(torch.cat([fit.background_parts.T, pileup], dim=1)),
        flaws=rebin(torch.cat([found.columns / root * k, theta], dim=1)),
        owner=torch.cat([found.owner, torch.full((theta.shape[1],), -1)]),
        residual=rebin((fit.counts - fit.model)[:, None])[:, 0],
        others=rebin(shape_components(point, candidates)),
        other_names=candidates.component_names,
    )


def _measure_scale(field: _Field) -> float:
    """Reduced chi2 that is left, by the median."""
    factor = _factor(field.flaws)
    whole = torch.linalg.solve_triangular(factor, field.residual[:, None], upper=False)[:, 0]
    return max(float(whole.abs().median() / 0.6745) ** 2, 1.0)


def _factor(flaws: Tensor) -> Tensor:
    gram = flaws @ flaws.T + torch.eye(flaws.shape[0], dtype=flaws.dtype)
    found: Tensor = torch.linalg.cholesky(gram)
    return found


def _weigh_one(field: _Field, index: int, incident_kev: float, scale: float) -> Review:
    name = field.names[index]
    price = field.price + cost_of(name, field.names)
    amplitude = float(field.amplitude[index])
    if not amplitude > 0.0:
        return Review(z=0.0, surviving=0.0, gain=-price, rivals={})
    rivals = _list_rivals(field, index, incident_kev)
    factor = _factor(field.flaws[:, field.owner != index])
    present = field.amplitude > 0.0
    present[index] = False
    explained = torch.cat([field.components[:, present], field.background], dim=1)
    own = field.components[:, index]
    columns = torch.cat([own[:, None], field.others[:, rivals], (field.residual + amplitude * own)[:, None]], dim=1)
    white = torch.linalg.solve_triangular(factor, torch.cat([explained, columns], dim=1), upper=False)
    n = explained.shape[1]
    basis, _ = torch.linalg.qr(white[:, :n] / white[:, :n].norm(dim=0).clamp(min=1e-300))
    left = white[:, n:] - basis @ (basis.T @ white[:, n:])
    norm = left[:, :-1].norm(dim=0).clamp(min=1e-300)
    z = (left[:, :-1].T @ left[:, -1] / norm).tolist()
    half = [max(one, 0.0) ** 2 / (2.0 * scale) for one in z]
    costs = {field.other_names[j]: half[0] - other for j, other in zip(rivals, half[1:], strict=True)}
    for rival in costs:
        if is_expected(rival, field.names) and not (name in families_by_name() and is_expected(name, field.names)):
            costs[rival] -= (1.0 - EXPECTED_SHARE) * half[0]
    return Review(
        z=z[0] / scale**0.5, surviving=float(norm[0] / own.norm().clamp(min=1e-300)), gain=half[0] - price, rivals=costs
    )


def _list_rivals(field: _Field, index: int, incident_kev: float) -> list[int]:
    """Candidates whose lines overlap those of a family, and that may stand beside the others."""
    families, name = families_by_name(), field.names[index]
    if name not in families:
        return []
    own = field.components[:, index]
    overlap = (field.others.T @ own) / (own.norm() * field.others.norm(dim=0)).clamp(min=1e-300)
    shown = {n for n, a in zip(field.names, field.amplitude.tolist(), strict=False) if a > 0.0 and n != name}
    return [
        j
        for j in torch.nonzero(overlap > RIVAL_OVERLAP)[:, 0].tolist()
        if field.other_names[j] in families
        and families[field.other_names[j]].cost < RARE_COST
        and is_possible(field.other_names[j], shown, incident_kev)
    ]
