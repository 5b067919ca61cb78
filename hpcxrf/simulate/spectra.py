"""Spectra of the components as one detector records them: lines, scatter, continuum, pile-up."""

import math
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpcxrf.errors import ConfigError
from hpcxrf.simulate.line_data import air_attenuation, attenuation, emit, find_element, list_symbols
from hpcxrf.simulate.profiles import gaussian_profile, high_tail_profile, low_tail_profile, shelf_profile
from hpcxrf.simulate.spec import SCATTER_COMPONENTS, DetectorSpec, ScanSpec, ScatterSpec, list_families

Spectrum = NDArray[np.float64]

PAIR_ENERGY_KEV: Final = 3.65e-3
"""Mean energy of an electron-hole pair in silicon."""
FWHM_PER_SIGMA: Final = 2.3548
MAPS_FANO_CONSTANT: Final = 3.58
"""Constant of the MAPS width law since 2024: sigma^2 = (fwhm_offset / 2.3548)^2 + 3.58 E fwhm_fanoprime."""
ELECTRON_REST_KEV: Final = 510.998950
BERYLLIUM: Final = 4
SILICON: Final = 14
ESCAPE_KEV: Final = 1.7398
BERYLLIUM_DENSITY: Final = 1.848
SILICON_DENSITY: Final = 2.33
AIR_DENSITY: Final = 1.20479e-3
WEAKEST_LINE: Final = 1e-4
"""Lines below this share of the strongest are left out."""
NEGLIGIBLE: Final = 1e-13


@dataclass(frozen=True, slots=True, kw_only=True)
class LineGroup:
    """Emission lines of one family as a detector sees them."""

    energy_kev: Spectrum
    """(line,)."""
    share: Spectrum
    """(line,) share of the family's recorded counts; sums to 1."""


def channel_edges_kev(detector: DetectorSpec, channels: int) -> Spectrum:
    """Energies half a channel below and above each channel, shape (channel + 1,)."""
    position = np.arange(channels + 1) - 0.5
    c = detector.calibration
    return c.offset_kev + c.slope_kev * position + c.quadratic_kev * position**2


def sigma_kev(detector: DetectorSpec, energy_kev: float) -> float:
    """Standard deviation of a line: electronic noise and the statistics of charge creation."""
    noise = detector.noise_fwhm_kev / FWHM_PER_SIGMA
    return math.sqrt(noise**2 + detector.fano_factor * PAIR_ENERGY_KEV * energy_kev)


def efficiency(detector: DetectorSpec, energy_kev: float) -> float:
    """Probability that a photon gets through window, air and dead layer and stops in the chip."""
    silicon = attenuation(SILICON, energy_kev) * SILICON_DENSITY * 1e-4
    beryllium = attenuation(BERYLLIUM, energy_kev) * BERYLLIUM_DENSITY * 1e-4
    air = air_attenuation(energy_kev) * AIR_DENSITY
    path = beryllium * detector.be_window_um + air * detector.air_path_cm + silicon * detector.dead_layer_um
    return math.exp(-path) * -math.expm1(-silicon * detector.chip_um)


@cache
def escape_probability(energy_kev: float) -> float:
    """Share of the counts of a line that lose a silicon K photon through the front face.

    Reed and Ware (1972): w r / 2 * (1 - (mu_K / mu_E) ln(1 + mu_E / mu_K)) for normal incidence.
    """
    silicon = find_element("Si")
    if silicon is None or energy_kev <= silicon.subshells["K"].edge_kev:
        return 0.0
    shell = silicon.subshells["K"]
    emitted = shell.fluorescence_yield * (1.0 - 1.0 / shell.jump_ratio)
    ratio = attenuation(SILICON, ESCAPE_KEV) / attenuation(SILICON, energy_kev)
    return 0.5 * emitted * (1.0 - ratio * math.log1p(1.0 / ratio))


@cache
def emission_lines(family: str, incident_energy_kev: float) -> tuple[tuple[float, float], ...]:
    """Lines (energy in keV, cross-section in cm^2/g) of a family such as `Fe`, `Pb_L`, `Au_M`.

    Raises:
        ConfigError: no such element or family, or the incident energy excites none of its lines.
    """
    symbol, _, shell = family.partition("_")
    element = find_element(symbol)
    if element is None:
        raise ConfigError(f"element {family!r}: unknown symbol; write Fe, Pb_L or Au_M (Na to U)")
    found = emit(element, shell or "K", incident_energy_kev)
    if not found:
        raise ConfigError(
            f"element {family!r}: {incident_energy_kev} keV excites none of its lines; "
            "take another family or a higher incident energy"
        )
    strongest = max(strength for _, strength in found)
    return tuple(line for line in found if line[1] > WEAKEST_LINE * strongest)


def line_group(family: str, incident_energy_kev: float, detector: DetectorSpec) -> LineGroup:
    """Lines of a family, weighted by the detector's efficiency."""
    lines = emission_lines(family, incident_energy_kev)
    energy = np.array([line[0] for line in lines])
    seen = np.array([strength * efficiency(detector, e) for e, strength in lines])
    return LineGroup(energy_kev=energy, share=seen / seen.sum())


def response(detector: DetectorSpec, edges_kev: Spectrum, energy_kev: float) -> Spectrum:
    """Recorded spectrum of photons of one energy, shape (channel,): peak, tail, shelf and escape."""
    sigma = sigma_kev(detector, energy_kev)
    tail = detector.tail_fraction * (0.7 + 1.0 / energy_kev)
    shelf = detector.step_fraction
    escape = detector.escape_scale * escape_probability(energy_kev)
    spectrum = (1.0 - tail - shelf - escape) * gaussian_profile(edges_kev, energy_kev, sigma)
    spectrum += tail * low_tail_profile(edges_kev, energy_kev, sigma, detector.tail_gamma)
    spectrum += shelf * shelf_profile(edges_kev, energy_kev, sigma)
    if escape > 0:
        lost = energy_kev - ESCAPE_KEV
        spectrum += escape * gaussian_profile(edges_kev, lost, sigma_kev(detector, lost))
    return spectrum


def compton_energy_kev(incident_energy_kev: float, angle_deg: float) -> float:
    """Energy of a photon scattered by a free electron at rest."""
    recoil = incident_energy_kev / ELECTRON_REST_KEV * (1.0 - math.cos(math.radians(angle_deg)))
    return incident_energy_kev / (1.0 + recoil)


def compton_sigma_kev(scatter: ScatterSpec, detector: DetectorSpec, incident_energy_kev: float) -> float:
    """Width of the Compton peak: resolution and Doppler broadening in quadrature."""
    center = compton_energy_kev(incident_energy_kev, scatter.angle_deg)
    return math.hypot(sigma_kev(detector, center), scatter.doppler * center)


def compton_spectrum(
    scatter: ScatterSpec, detector: DetectorSpec, edges_kev: Spectrum, incident_energy_kev: float
) -> Spectrum:
    """Asymmetric Compton peak, shape (channel,)."""
    center = compton_energy_kev(incident_energy_kev, scatter.angle_deg)
    sigma = compton_sigma_kev(scatter, detector, incident_energy_kev)
    low, high = scatter.low_tail_fraction, scatter.high_tail_fraction
    spectrum = (1.0 - low - high) * gaussian_profile(edges_kev, center, sigma)
    spectrum += low * low_tail_profile(edges_kev, center, sigma, scatter.low_tail_gamma)
    return spectrum + high * high_tail_profile(edges_kev, center, sigma, scatter.high_tail_gamma)


def continuum_spectrum(detector: DetectorSpec, edges_kev: Spectrum, incident_energy_kev: float) -> Spectrum:
    """Bremsstrahlung of photoelectrons by Kramers' law, (E0 - E) / E, seen through the detector's window."""
    center = 0.5 * (edges_kev[1:] + edges_kev[:-1])
    grid = np.linspace(0.3, incident_energy_kev, 160)
    emitted = (incident_energy_kev - grid) / grid
    seen = emitted * [efficiency(detector, float(energy)) for energy in grid]
    return np.interp(center, grid, seen, left=0.0, right=0.0)


def component_names(spec: ScanSpec) -> tuple[str, ...]:
    """Families by atomic number and shell, then elastic, compton, continuum."""
    symbols = list_symbols()

    def rank(family: str) -> tuple[str, int]:
        symbol, _, shell = family.partition("_")
        return shell or "K", symbols.index(symbol)

    for family in list_families(spec):
        emission_lines(family, spec.incident_energy_kev)
    return (*sorted(list_families(spec), key=rank), *SCATTER_COMPONENTS)


def component_spectrum(name: str, spec: ScanSpec, detector: DetectorSpec) -> Spectrum:
    """Recorded spectrum of one component, shape (channel,), summing to 1.

    Raises:
        ConfigError: the component has no counts inside the spectrum.
    """
    edges = channel_edges_kev(detector, spec.shape[3])
    energy = spec.incident_energy_kev
    if name == "elastic":
        return _normalise(response(detector, edges, energy), name)
    if name == "compton":
        return _normalise(compton_spectrum(spec.scatter, detector, edges, energy), name)
    if name == "continuum":
        return _normalise(continuum_spectrum(detector, edges, energy), name)
    lines = line_group(name, energy, detector)
    pairs = zip(lines.share.tolist(), lines.energy_kev.tolist(), strict=True)
    total = np.zeros(spec.shape[3])
    for share, line_kev in pairs:
        total += share * response(detector, edges, line_kev)
    return _normalise(total, name)


def _normalise(spectrum: Spectrum, name: str) -> Spectrum:
    inside = float(spectrum.sum())
    if not inside > 0.01:
        raise ConfigError(
            f"component {name!r}: only {inside:.2g} of its counts fall inside the spectrum; "
            "take more channels, a larger slope, or leave it out"
        )
    kept = np.where(spectrum > NEGLIGIBLE * spectrum.max(), spectrum, 0.0)
    unit: Spectrum = kept / kept.sum()
    return unit


def pileup_spectrum(detector: DetectorSpec, spectrum: Spectrum) -> Spectrum:
    """Sums of two events of `spectrum`, shape (channel,), summing to 1 (to 0 where none is inside).

    The energies of channels i and j add up to that of channel i + j + offset / slope.
    """
    channels = spectrum.size
    transform = np.fft.rfft(spectrum, 2 * channels)
    pairs = np.clip(np.fft.irfft(transform**2, 2 * channels), 0.0, None)
    calibration = detector.calibration
    shift = calibration.offset_kev / calibration.slope_kev
    at = np.arange(channels) - shift
    inside = np.interp(at, np.arange(2 * channels), pairs, left=0.0, right=0.0)
    kept = np.where(inside > NEGLIGIBLE * inside.max(initial=0.0), inside, 0.0)
    total = float(kept.sum())
    return kept / total if total > 0 else kept
