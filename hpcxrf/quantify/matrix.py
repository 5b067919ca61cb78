"""The correction of a sample for its own absorption: of a given layer, or of one whose composition the fit finds."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

import torch

from hpcxrf.errors import FitError
from hpcxrf.physics.detector import Detector
from hpcxrf.quantify.layer import LayerModel, build_layer_model, compute_layer_factors, parse_composition
from hpcxrf.quantify.sensitivity import parse_family

_TOLERANCE: Final = 1e-6
_MOST_ITERATIONS: Final = 200
_SHELLS: Final = "KLM"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A homogeneous layer in a beam.

    Raises:
        FitError: neither formula nor `matrix="fitted"`, or no areal density where one is needed.
    """

    formula: str | None = None
    """Matter that does not show in the spectrum; with `matrix="given"` all of the layer."""
    areal_density_ug_cm2: float | None = None
    """Areal density of the whole layer. None: what is fitted is all there is, and the formula must be None, too."""
    incidence_deg: float = 45.0
    """Angle between beam and surface."""
    takeoff_deg: float = 45.0
    """Angle between surface and detector, on the side of the beam."""
    matrix: Literal["given", "fitted"] = "given"
    """`given`: the formula absorbs, what is fitted are traces. `fitted`: what is fitted absorbs by its amount, and the
    formula is the rest of the areal density."""
    enhancement: bool = False
    """Whether secondary fluorescence is described."""

    def __post_init__(self) -> None:
        faults = []
        density = self.areal_density_ug_cm2
        if self.matrix == "given" and (self.formula is None or density is None):
            faults.append("a given layer needs formula and areal_density_ug_cm2; or set matrix: fitted")
        if self.matrix == "fitted" and self.formula is not None and density is None:
            faults.append(
                f"{self.formula} is the rest of the layer: give areal_density_ug_cm2 of the whole, or no formula"
            )
        if density is not None and not 0.0 < density < math.inf:
            faults.append(f"areal_density_ug_cm2 is {density:g}, must be above 0; a thick sample has 1e6")
        if faults:
            raise FitError("layer: " + "; ".join(faults))


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCorrection:
    """What a layer does to the signal of each family."""

    factors: Mapping[str, float]
    """Signal relative to that of a thin sample, by family; areal densities are divided by it."""
    mass_fractions: Mapping[str, float]
    """Composition of the layer by element."""
    areal_density_ug_cm2: float
    """Areal density of the layer."""
    changes: tuple[float, ...]
    """Largest relative change of an areal density in each iteration; empty for a given layer."""
    description: str
    """Sentence for the result."""


def correct_layer(
    thin_ug_cm2: Mapping[str, float], layer: Layer, incident_energy_kev: float, detector: Detector
) -> LayerCorrection:
    """Find the factors of all families, for one composition: that of the mean spectrum, not of every pixel.

    `matrix: fitted` begins with a thin layer, divides the densities by the factors of the composition that they make
    up, and goes on until none changes by more than 1e-6. An element counts by its K, else its L, else its M family;
    negative densities count as none.

    Args:
        thin_ug_cm2: mean areal densities as of a thin sample, by family.
        layer: layer.
        incident_energy_kev: keV.
        detector: that of the fit.

    Raises:
        FitError: a formula or family that means nothing, an iteration that does not converge, fitted elements that
            weigh more than the layer, or nothing fitted at all.
    """
    rest = {} if layer.formula is None else parse_composition(layer.formula)
    chosen = _choose_families(thin_ug_cm2) if layer.matrix == "fitted" else {}
    elements = tuple(dict.fromkeys([*rest, *chosen]))
    model = build_layer_model(
        elements,
        tuple(thin_ug_cm2),
        incident_energy_kev,
        detector=detector,
        incidence_deg=layer.incidence_deg,
        takeoff_deg=layer.takeoff_deg,
        enhancement=layer.enhancement,
    )
    if layer.matrix == "given":
        factors = _compute(model, rest, layer.areal_density_ug_cm2 or 0.0)
        return _make(layer, factors, rest, layer.areal_density_ug_cm2 or 0.0, ())
    factors, changes = dict.fromkeys(thin_ug_cm2, 1.0), []
    while True:
        amounts = {symbol: max(thin_ug_cm2[f], 0.0) / factors[f] for symbol, f in chosen.items()}
        fractions, total = _compose(amounts, rest, layer)
        found = _compute(model, fractions, total)
        changes.append(max(abs(found[f] / factors[f] - 1.0) for f in chosen.values()))
        factors = found
        if changes[-1] < _TOLERANCE:
            break
        if len(changes) == _MOST_ITERATIONS or not math.isfinite(changes[-1]):
            raise FitError(
                f"layer: the fitted composition does not converge (change {changes[-1]:.2g} after {len(changes)} "
                f"iterations): the layer is thicker than its fluorescence can tell; give its areal_density_ug_cm2"
            )
    weight = math.fsum(amounts.values())
    if layer.areal_density_ug_cm2 is not None and layer.formula is not None and weight > total:
        raise FitError(
            f"layer: the fitted elements weigh {weight:.4g} ug/cm2, more than the layer with {total:g}; correct "
            f"areal_density_ug_cm2 or the calibration"
        )
    return _make(layer, factors, fractions, total, tuple(changes))


def _choose_families(thin_ug_cm2: Mapping[str, float]) -> dict[str, str]:
    """Family that counts for each element."""
    ranked = sorted(thin_ug_cm2, key=lambda family: _SHELLS.index(parse_family(family)[1]))
    chosen: dict[str, str] = {}
    for family in ranked:
        chosen.setdefault(parse_family(family)[0], family)
    if not any(thin_ug_cm2[family] > 0.0 for family in chosen.values()):
        raise FitError("layer: nothing was fitted that could absorb; give the layer's formula with matrix: given")
    return chosen


def _compose(amounts: Mapping[str, float], rest: Mapping[str, float], layer: Layer) -> tuple[dict[str, float], float]:
    """Mass fractions and areal density of the layer that the fitted amounts make up."""
    weight = math.fsum(amounts.values())
    total = weight if layer.areal_density_ug_cm2 is None else layer.areal_density_ug_cm2
    left = max(total - weight, 0.0) if rest else 0.0
    whole = weight + left
    shares = {symbol: left * share / whole for symbol, share in rest.items()}
    for symbol, amount in amounts.items():
        shares[symbol] = shares.get(symbol, 0.0) + amount / whole
    return shares, total


def _compute(model: LayerModel, fractions: Mapping[str, float], areal_density_ug_cm2: float) -> dict[str, float]:
    shares = torch.tensor([fractions.get(symbol, 0.0) for symbol in model.elements], dtype=torch.float64)
    found = compute_layer_factors(model, shares, torch.tensor(areal_density_ug_cm2, dtype=torch.float64))
    return dict(zip(model.families, found.tolist(), strict=True))


def _make(
    layer: Layer, factors: Mapping[str, float], fractions: Mapping[str, float], total: float, changes: tuple[float, ...]
) -> LayerCorrection:
    rest = f" in {layer.formula}" if layer.formula else ""
    matter = layer.formula if layer.matrix == "given" else f"the fitted elements{rest}"
    effects = "absorption and enhancement" if layer.enhancement else "absorption"
    how = f", composition converged in {len(changes)} iterations" if changes else ""
    return LayerCorrection(
        factors=MappingProxyType(dict(factors)),
        mass_fractions=MappingProxyType(dict(fractions)),
        areal_density_ug_cm2=total,
        changes=changes,
        description=(
            f"corrected for {effects} in a layer of {total:.4g} ug/cm2 of {matter}, beam at {layer.incidence_deg:g} "
            f"and detector at {layer.takeoff_deg:g} degrees to the surface{how}"
        ),
    )
