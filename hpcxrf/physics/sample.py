"""Absorption of fluorescence in the sample itself, of light matter or of the composition that a fit finds."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import torch
import xraylib
from torch import Tensor

from hpcxrf.errors import FitError
from hpcxrf.physics.components import find_emitted_lines, parse_component
from hpcxrf.physics.detector import HIGHEST_KEV, LOWEST_KEV, Detector
from hpcxrf.physics.detector import efficiency as efficiency_of
from hpcxrf.physics.lines import LineTable

# Total cross-sections of C, N, O and Si away from their edges fall as E^-2.7 to E^-3.0 (xraylib).
_LIGHT_POWER: Final = 2.8
# What does not show in a spectrum of air is mostly C, N, O: oxygen stands for it.
_LIGHT_Z: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleAbsorption:
    """Mass absorption coefficients, cm2/g or any other unit, of what shows in the spectrum and of light matter."""

    heavy: Tensor
    """(line,) of the elements that show, by their mass shares."""
    light: Tensor
    """(line,) of the light matter that does not show."""
    heavy_incident: float
    """At the incident energy."""
    light_incident: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleElements:
    """The elements that show in a spectrum, and how strongly a unit of mass of each does."""

    z: tuple[int, ...]
    component: Tensor
    """(element,) int64: the component that counts for the element, K before L before M."""
    strength: Tensor
    """(element,) float64: recorded fluorescence cross-section at the incident energy, cm2/g, of a thin sample."""


def light_sample(energy_kev: Tensor, incident_energy_kev: float) -> SampleAbsorption:
    """Absorption of light matter alone, `E^-2.8`.

    Args:
        energy_kev: (line,), of escape lines that of the parent.
        incident_energy_kev: keV.
    """
    power = (incident_energy_kev / energy_kev) ** _LIGHT_POWER
    return SampleAbsorption(heavy=power, light=power, heavy_incident=1.0, light_incident=1.0)


def find_sample_elements(table: LineTable, detector: Detector) -> SampleElements:
    """Elements of the K, L and M families of a line table, each once; pile-up and user lines mean no element.

    Args:
        table: lines.
        detector: gives the recorded share of the fluorescence.
    """
    chosen: dict[int, tuple[int, float]] = {}
    for shell in "KLM":
        for i, symbol, own in find_families(table):
            z = xraylib.SymbolToAtomicNumber(symbol)
            strength = compute_family_strength(z, shell, table.incident_energy_kev, detector) if own == shell else 0.0
            if strength > 0.0:
                chosen.setdefault(z, (i, strength))
    device = table.ratio.device
    return SampleElements(
        z=tuple(chosen),
        component=torch.tensor([i for i, _ in chosen.values()], dtype=torch.int64, device=device),
        strength=torch.tensor([strength for _, strength in chosen.values()], dtype=torch.float64, device=device),
    )


def find_families(table: LineTable) -> list[tuple[int, str, str]]:
    """Component, symbol and shell of every K, L or M family; other names, with lines of their own, are passed over."""
    families = []
    for i in table.component[table.edge_kev > 0.0].unique().tolist():
        try:
            component = parse_component(table.component_names[i])
        except FitError:
            continue
        if len(component.families) == 1:
            families.append((i, *component.families[0]))
    return families


def mass_shares(elements: SampleElements, amplitude: Tensor, leaving: Tensor) -> Tensor:
    """Mass shares (element,) that give the recorded counts; they sum to 1, or are 0 where nothing was recorded.

    Args:
        elements: of the line table.
        amplitude: (component,) recorded counts.
        leaving: (component,) share of the family's fluorescence that leaves the sample.
    """
    mass = amplitude[elements.component].clamp(min=0.0) / (elements.strength * leaving[elements.component])
    return mass / mass.sum().clamp(min=torch.finfo(mass.dtype).tiny)


def own_sample(
    elements: SampleElements, shares: Tensor, energy_kev: Tensor, incident_energy_kev: float
) -> SampleAbsorption:
    """Absorption of what shows in a spectrum, and of the light matter that does not.

    Args:
        elements: of the line table.
        shares: (element,) mass shares, sum 1.
        energy_kev: (line,), of escape lines that of the parent.
        incident_energy_kev: keV.
    """
    energies = (*energy_kev.tolist(), incident_energy_kev)
    heavy = shares @ torch.stack([_total_absorption(z, energies) for z in elements.z]).to(shares.device)
    light = _total_absorption(_LIGHT_Z, energies).to(shares.device)
    return SampleAbsorption(
        heavy=heavy[:-1], light=light[:-1], heavy_incident=float(heavy[-1]), light_incident=float(light[-1])
    )


@lru_cache(maxsize=1024)
def compute_family_strength(z: int, shell: str, incident_energy_kev: float, detector: Detector) -> float:
    """Recorded fluorescence cross-section of a family at the incident energy, cm2/g, of a thin sample.

    The sum over the family's lines of the cross-section with the full cascade (`find_emitted_lines`) times the
    detector's efficiency. Multipliers of override files have no place here: they move counts from line to line, and
    the vacancies and the yield that make them stay what they are.

    Args:
        z: atomic number.
        shell: "K", "L" or "M".
        incident_energy_kev: keV.
        detector: gives the recorded share of each line.

    Returns:
        0 where the energy excites no line of the family.
    """
    lines = find_emitted_lines(z, shell, incident_energy_kev)
    seen = efficiency_of([energy for _, energy, _ in lines], detector)
    return float(sum(strength * share for (_, _, strength), share in zip(lines, seen, strict=True)))


@lru_cache(maxsize=1024)
def _total_absorption(z: int, energies_kev: tuple[float, ...]) -> Tensor:
    """(energy,) total cross-section, cm2/g."""
    inside = np.clip(energies_kev, LOWEST_KEV, HIGHEST_KEV)
    return torch.tensor([xraylib.CS_Total(z, float(e)) for e in inside], dtype=torch.float64)
