"""Spectra of samples that absorb their own lines, by numpy and xraylib alone: no line table and no peak of the product.

A sample is a layer of a known depth: elements that show, in a matrix of light matter that does not. Its recorded counts
follow from mass shares, cross-sections and absorption, so that ratios within a family and between families agree.
"""

import re
from dataclasses import dataclass
from functools import cache

import numpy as np
import xraylib
from scipy.special import erfc

_LINE = re.compile(r"(K[LMNOP]\d|L[123][MNOP]\d)_LINE")
CODES = {
    shell: [getattr(xraylib, name) for name in dir(xraylib) if _LINE.fullmatch(name) and name[0] == shell]
    for shell in "KL"
}
KBETA = {getattr(xraylib, name) for name in dir(xraylib) if re.fullmatch(r"K[MNOP]\d_LINE", name)}
MATRICES = ("C", "O2", "H2O", "SiO2")
_AIR = "Air, Dry (near sea level)"
_FWHM = 2.3548


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One spectrum with what it was made of."""

    counts: np.ndarray
    names: tuple[str, ...]
    truth: dict[str, float]
    energy_kev: float
    offset_kev: float
    slope_kev: float
    depth: float


def draw_sample(seed, *, depth=None, total=None, kbeta=None, names=None, shares=None, air_mm=None):
    """A spectrum at random; what is given is not drawn.

    Args:
        seed: of everything.
        depth: optical depth at the incident energy, in and out; None: .1 to 30; 0: thin.
        total: counts of all families; None: 1e4 to 1e7.
        kbeta: function of a generator giving the factor on the K-beta lines of one family.
        names: families.
        shares: their mass shares.
        air_mm: air before the detector; None: 3 to 25.
    """
    rng = np.random.default_rng(seed)
    energy = float(rng.uniform(10.0, 18.0))
    drawn = _draw_names(rng, energy)
    names = tuple(names) if names else drawn
    masses = 10.0 ** rng.uniform(-3.0, 0.0, len(names))
    masses = (np.array(shares) if shares is not None else masses) / np.sum(shares if shares is not None else masses)
    hidden = float(rng.uniform(0.2, 0.97))
    matrix = str(rng.choice(MATRICES))
    drawn_depth = float(10.0 ** rng.uniform(-1.0, 1.5))
    depth = drawn_depth if depth is None else depth
    geometry = float(rng.uniform(0.7, 1.5))
    counts = 10.0 ** rng.uniform(4.0, 7.0) if total is None else total
    air = float(rng.uniform(3.0, 25.0)) if air_mm is None else air_mm

    def absorb(e):
        heavy = sum(m * xraylib.CS_Total(_z(n), e) for m, n in zip(masses, names, strict=True))
        return (1.0 - hidden) * heavy + hidden * xraylib.CS_Total_CP(matrix, e)

    lines = {}
    for name, mass in zip(names, masses, strict=True):
        factor = kbeta(rng) if kbeta else 1.0
        lines[name] = [
            (e, mass * s * _recorded(e, round(air, 3)) * _leave(depth, absorb(e) / absorb(energy), geometry) * f)
            for e, s, f in _emitted(name, energy, factor)
        ]
    whole = sum(w for family in lines.values() for _, w in family)
    truth = {n: counts * sum(w for _, w in family) / whole for n, family in lines.items()}
    return _record(rng, lines, counts / whole, truth, energy, depth)


def _draw_names(rng, energy):
    light = [z for z in range(14, 42) if z != 18 and xraylib.EdgeEnergy(z, xraylib.K_SHELL) < energy - 0.6]
    heavy = [z for z in (46, 50, 56, 74, 78, 82) if xraylib.EdgeEnergy(z, xraylib.L1_SHELL) < energy - 0.3]
    k = rng.choice(light, size=min(len(light), int(rng.integers(6, 11))), replace=False)
    families = [xraylib.AtomicNumberToSymbol(int(z)) for z in sorted(k)]
    more = rng.choice(heavy, size=int(rng.integers(0, 3)), replace=False)
    return tuple(families + [xraylib.AtomicNumberToSymbol(int(z)) + "_L" for z in sorted(more)])


def _z(name):
    return xraylib.SymbolToAtomicNumber(name.split("_")[0])


def _emitted(name, energy, kbeta):
    z, found = _z(name), []
    for code in CODES["L" if name.endswith("_L") else "K"]:
        try:
            e, s = xraylib.LineEnergy(z, code), xraylib.CS_FluorLine_Kissel(z, code, energy)
        except ValueError:
            continue
        if e > 0.3 and s > 0.0:
            found.append((e, s, kbeta if code in KBETA else 1.0))
    return found


@cache
def _recorded(e, air_mm):
    through = xraylib.CS_Total(4, e) * 1.848 * 8e-4 + xraylib.CS_Total_CP(_AIR, e) * 1.205e-3 * 0.1 * air_mm
    return np.exp(-through) * -np.expm1(-xraylib.CS_Photo(14, e) * 2.33 * 0.045)


def _leave(depth, ratio, geometry):
    x = max(0.5 * depth * (1.0 + geometry * ratio), 1e-9)
    return -np.expm1(-x) / x


def _peak(axis, e, noise, widen=1.0, tail=0.012, step=0.002):
    sigma = widen * np.sqrt((noise / _FWHM) ** 2 + 3.58e-3 * 0.115 * e)
    u, g = (axis - e) / sigma, 2.5
    low = np.exp(np.minimum(u, 0.0) / g) * erfc(u / np.sqrt(2.0) + 1.0 / (g * np.sqrt(2.0)))
    low = low / (2.0 * g * sigma * np.exp(-0.5 / g**2))
    gauss = np.exp(-0.5 * u * u) / (sigma * np.sqrt(2.0 * np.pi))
    return (1.0 - tail - step) * gauss + tail * low + step * erfc(u / np.sqrt(2.0)) / (2.0 * e)


def _escape(e):
    if e < 1.9:
        return 0.0
    mu = xraylib.CS_Total(14, e) / xraylib.CS_Total(14, 1.74)
    lost = 0.5 * 0.05 * (1.0 - 1.0 / xraylib.JumpFactor(14, xraylib.K_SHELL)) * (1.0 - np.log1p(mu) / mu)
    return lost / (1.0 - lost)


def _record(rng, lines, scale, truth, energy, depth):
    offset, slope, noise = rng.uniform(-0.02, 0.02), rng.uniform(0.0095, 0.0105), rng.uniform(0.07, 0.11)
    axis = offset + slope * np.arange(2048)
    y = np.zeros_like(axis)
    for e, w in (line for family in lines.values() for line in family):
        lost = _escape(e)
        y += scale * w / (1.0 + lost) * (_peak(axis, e, noise) + (lost * _peak(axis, e - 1.74, noise) if lost else 0.0))
    total = sum(truth.values())
    shifted = energy / (1.0 + energy / 511.0 * (1.0 - np.cos(np.radians(rng.uniform(80.0, 110.0)))))
    y += total * rng.uniform(0.01, 0.05) * _peak(axis, energy, noise)
    compton = 0.9 * _peak(axis, shifted, noise, 1.8) + 0.1 * _peak(axis, shifted - 0.1, noise, 2.6)
    y += total * rng.uniform(0.02, 0.2) * compton
    smooth = (np.exp(-axis / 4.0) + 0.2) * (axis > 0.3) * (axis < energy)
    y += total * rng.uniform(0.005, 0.05) * smooth / (smooth.sum() * slope)
    counts = rng.poisson(np.maximum(y * slope, 0.0))
    return Sample(
        counts=counts,
        names=tuple(lines),
        truth=truth,
        energy_kev=energy,
        offset_kev=offset,
        slope_kev=slope,
        depth=depth,
    )
