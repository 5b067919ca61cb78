"""Absorption and enhancement in a homogeneous layer: its signal relative to that of a thin sample of the same content.

    absorption of a line    A = (1 - exp(-chi m)) / (chi m),   chi = mu(E0) / sin(incidence) + mu(line) / sin(take-off)

m is the areal density of the layer, mu its mass absorption coefficient (total, xraylib). A tends to 1 for a thin layer
and to 1 / (chi m) for a thick one. Enhancement is to first order, all of it from the same layer: a photon of line l of
element j, made by the beam at depth z, makes a photon of element i at depth x with

    1/2 E1(mu_l |x - z|) sigma_i(E_l) dm,       E1: exponential integral

(J. Sherman, Spectrochim. Acta 7 (1955) 283; D.K.G. de Boer, X-Ray Spectrom. 19 (1990) 145, whom fisx follows). With
a = mu(E0) / sin(incidence), b = mu(line) / sin(take-off), s = a + b, and E1(y) = int_0^1 exp(-y / t) / t dt, the
integral over both depths is

    J = 1/s int_0^1 [F(mu_l / t + a) + F(mu_l / t + b)] / t dt,   F(c) = int_0^m exp(-c u) (1 - exp(-s (m - u))) du

and the factor of a family is the mean over its lines, weighted as recorded, of A + 1/2 sum_l w_j sigma_l(E0)
sigma_i(E_l) / sigma_i(E0) J / m. Everything is differentiable in the composition and the areal density. The outer
integral is by Gauss and Legendre in t^(1/3).

Not described: tertiary fluorescence (some per cent of Cr in stainless steel), scattered radiation as a source (fisx has
up to .6 % of it), rough surfaces, grains, and layers upon layers. Above an edge, up to the next energy of the tables,
absorption coefficients of xraylib and fisx differ by up to 12 % (chromium at the iron lines).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import torch
import xraylib
from torch import Tensor

from hpcxrf.errors import FitError
from hpcxrf.physics.components import find_emitted_lines
from hpcxrf.physics.detector import LOWEST_KEV, Detector
from hpcxrf.physics.detector import efficiency as efficiency_of
from hpcxrf.quantify.sensitivity import compute_sensitivity, parse_family

_NODES: Final = 24
_UG_CM2_PER_G_CM2: Final = 1e6
_FAINTEST: Final = 1e-3
_LEAST_SOURCE_KEV: Final = 1.0
_SHELLS: Final = ("K", "L", "M")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerModel:
    """Cross-sections that a layer of some elements needs, for families recorded from it. E elements, F families."""

    elements: tuple[str, ...]
    """All elements of the layer, those without a line included."""
    families: tuple[str, ...]
    incident_absorption: Tensor
    """(E,) float64, cm2/g, along the path of the beam: divided by the sine of the angle of incidence."""
    exit_absorption: Tensor
    """(L, E) of the families' lines, divided by the sine of the take-off angle."""
    line_family: Tensor
    """(L,) int64, index into families."""
    line_share: Tensor
    """(L,) share of the line in the recorded counts of its family; 1 over each family."""
    source_absorption: Tensor
    """(S, E) at the lines that enhance; S is 0 without enhancement."""
    source_element: Tensor
    """(S,) int64, index into elements: the emitter."""
    source_strength: Tensor
    """(S,) cm2/g: cross-section of the source line at the incident energy."""
    gain: Tensor
    """(L, S): cross-section of the line at the energy of the source over that at the incident energy."""


def parse_composition(formula: str) -> dict[str, float]:
    """Mass fractions of a chemical formula, `CaCO3` or `Fe0.7Ni0.3`, or of a NIST compound by its name.

    Returns:
        Mass fractions by element symbol; they sum to 1.

    Raises:
        FitError: not a formula.
    """
    try:
        found = xraylib.CompoundParser(formula)
    except ValueError:
        try:
            found = xraylib.GetCompoundDataNISTByName(formula)
        except ValueError as error:
            raise FitError(
                f"layer: {formula!r} is not a chemical formula; write CaCO3, Fe0.7Ni0.3 (atoms), or a NIST compound "
                f"such as 'Water, Liquid'"
            ) from error
    symbols = [xraylib.AtomicNumberToSymbol(z) for z in found["Elements"]]
    return dict(zip(symbols, found["massFractions"], strict=True))


def build_layer_model(
    elements: Sequence[str],
    families: Sequence[str],
    incident_energy_kev: float,
    *,
    detector: Detector,
    incidence_deg: float = 45.0,
    takeoff_deg: float = 45.0,
    enhancement: bool = False,
) -> LayerModel:
    """Look up all cross-sections.

    Args:
        elements: elements of the layer, each once; those of the families among them or not.
        families: families whose factors are needed, as in the fit.
        incident_energy_kev: keV.
        detector: that of the fit; it weights the lines of a family.
        incidence_deg: angle between beam and surface, above 0 up to 90.
        takeoff_deg: angle between surface and detector, on the side of the beam, above 0 up to 90.
        enhancement: whether secondary fluorescence is described.

    Raises:
        FitError: unknown or doubled elements, families that are not excited, angles out of range; all at once.
    """
    faults = _check_layer(elements, families, incident_energy_kev, detector, incidence_deg, takeoff_deg)
    if faults:
        raise FitError("layer: " + "; ".join(faults))
    numbers = [xraylib.SymbolToAtomicNumber(symbol) for symbol in elements]
    lines = [
        (i, z, name, energy, strength, weight)
        for i, family in enumerate(families)
        for z, name, energy, strength, weight in _list_recorded_lines(family, incident_energy_kev, detector)
    ]
    sources = _list_sources(numbers, incident_energy_kev) if enhancement else []
    gain = [
        [_find_strength(z, name, source_kev) / strength for _, source_kev, _ in sources]
        for _, z, name, _, strength, _ in lines
    ]
    return LayerModel(
        elements=tuple(elements),
        families=tuple(families),
        incident_absorption=_total(numbers, [incident_energy_kev])[0] / math.sin(math.radians(incidence_deg)),
        exit_absorption=_total(numbers, [line[3] for line in lines]) / math.sin(math.radians(takeoff_deg)),
        line_family=torch.tensor([line[0] for line in lines]),
        line_share=torch.tensor([line[5] for line in lines], dtype=torch.float64),
        source_absorption=_total(numbers, [energy for _, energy, _ in sources]),
        source_element=torch.tensor([i for i, _, _ in sources], dtype=torch.int64),
        source_strength=torch.tensor([strength for _, _, strength in sources], dtype=torch.float64),
        gain=torch.tensor(gain, dtype=torch.float64).reshape(len(lines), len(sources)),
    )


def compute_layer_factors(model: LayerModel, mass_fractions: Tensor, areal_density_ug_cm2: Tensor) -> Tensor:
    """Signal of every family relative to that of the same areal density of its element in a thin sample.

    Args:
        model: cross-sections.
        mass_fractions: (*batch, E) float64, in the order of the model's elements; a layer's sum is 1.
        areal_density_ug_cm2: (*batch,) float64 of the whole layer, above 0.

    Returns:
        (*batch, F); below 1 by absorption, above by enhancement.
    """
    m = (areal_density_ug_cm2 / _UG_CM2_PER_G_CM2)[..., None]
    a = (mass_fractions @ model.incident_absorption)[..., None]
    b = mass_fractions @ model.exit_absorption.mT
    signal = _mean_exponential((a + b) * m)
    if model.source_element.numel():
        signal = signal + _enhancement(model, mass_fractions, a, b, m)
    factors = signal.new_zeros((*signal.shape[:-1], len(model.families)))
    return factors.index_add(-1, model.line_family, signal * model.line_share)


def _enhancement(model: LayerModel, mass_fractions: Tensor, a: Tensor, b: Tensor, m: Tensor) -> Tensor:
    """(*batch, L): secondary signal over that of a thin sample."""
    mu = mass_fractions @ model.source_absorption.mT
    sources = mass_fractions[..., model.source_element] * model.source_strength
    node, weight = _nodes()
    s = (a + b)[..., :, None, None]
    thickness = m[..., None, None]
    steep = mu[..., None, :, None] / node
    inner = _decay_overlap(steep + a[..., None, None], s, thickness) + _decay_overlap(
        steep + b[..., :, None, None], s, thickness
    )
    integral = (inner * (weight / node)).sum(dim=-1) / s[..., 0]
    return 0.5 * (integral * model.gain * sources[..., None, :]).sum(dim=-1) / m


def _decay_overlap(c: Tensor, s: Tensor, m: Tensor) -> Tensor:
    """F(c) of the module: `int_0^m exp(-c u) (1 - exp(-s (m - u))) du`."""
    smaller = torch.minimum(c, s)
    return m * (_mean_exponential(c * m) - torch.exp(-smaller * m) * _mean_exponential((c - s).abs() * m))


def _mean_exponential(x: Tensor) -> Tensor:
    """`(1 - exp(-x)) / x` for x >= 0, 1 at 0, with finite derivatives."""
    small = x < 1e-4
    safe = torch.where(small, 1.0, x)
    return torch.where(small, 1.0 - x / 2.0 + x * x / 6.0, -torch.expm1(-safe) / safe)


@lru_cache(maxsize=1)
def _nodes() -> tuple[Tensor, Tensor]:
    """Nodes and weights of `int_0^1 f(t) dt` for a function with a logarithm at 0: t = v^3."""
    v, weight = np.polynomial.legendre.leggauss(_NODES)
    v = 0.5 * (v + 1.0)
    return torch.tensor(v**3), torch.tensor(0.5 * weight * 3.0 * v**2)


def _check_layer(
    elements: Sequence[str],
    families: Sequence[str],
    incident_energy_kev: float,
    detector: Detector,
    incidence_deg: float,
    takeoff_deg: float,
) -> list[str]:
    faults = [
        f"{name} is {value:g} degrees, must lie above 0 and up to 90 from the surface"
        for name, value in (("incidence_deg", incidence_deg), ("takeoff_deg", takeoff_deg))
        if not 0.0 < value <= 90.0
    ]
    faults += [f"{symbol} is listed twice; remove one" for symbol in {s for s in elements if elements.count(s) > 1}]
    for symbol in elements:
        try:
            xraylib.SymbolToAtomicNumber(symbol)
        except ValueError:
            faults.append(f"{symbol}: no such element")
    for family in families:
        try:
            compute_sensitivity(family, incident_energy_kev, detector)
        except FitError as error:
            faults.append(str(error))
    return faults if elements else [*faults, "no element; give a formula"]


def _list_recorded_lines(
    family: str, incident_energy_kev: float, detector: Detector
) -> list[tuple[int, str, float, float, float]]:
    """Lines above `_FAINTEST` of a family: (z, name, energy_kev, cross-section, share of the recorded counts)."""
    symbol, shell = parse_family(family)
    z = xraylib.SymbolToAtomicNumber(symbol)
    lines = find_emitted_lines(z, shell, incident_energy_kev)
    seen = efficiency_of([energy for _, energy, _ in lines], detector)
    recorded = [strength * float(share) for (_, _, strength), share in zip(lines, seen, strict=True)]
    kept = [(line, r) for line, r in zip(lines, recorded, strict=True) if r >= _FAINTEST * sum(recorded)]
    total = sum(r for _, r in kept)
    return [(z, name, energy, strength, r / total) for (name, energy, strength), r in kept]


def _list_sources(numbers: Sequence[int], incident_energy_kev: float) -> list[tuple[int, float, float]]:
    """Lines of the layer's elements that may enhance: (index of the element, energy_kev, cross-section)."""
    return [
        (i, energy, strength)
        for i, z in enumerate(numbers)
        for shell in _SHELLS
        for lines in [find_emitted_lines(z, shell, incident_energy_kev)]
        for _, energy, strength in lines
        if strength >= _FAINTEST * sum(line[2] for line in lines) and energy > _LEAST_SOURCE_KEV
    ]


def _find_strength(z: int, name: str, energy_kev: float) -> float:
    """Cross-section of a line at another energy; 0 where that does not excite it."""
    lines = find_emitted_lines(z, name[0], energy_kev)
    return next((strength for own, _, strength in lines if own == name), 0.0)


def _total(numbers: Sequence[int], energies_kev: Sequence[float]) -> Tensor:
    """(energy, element) total mass absorption coefficients, cm2/g."""
    values = [[xraylib.CS_Total(z, max(e, LOWEST_KEV)) for z in numbers] for e in energies_kev]
    return torch.tensor(values, dtype=torch.float64).reshape(len(energies_kev), len(numbers))
