"""Spectra that an X-ray tube excites, by numpy and xraylib alone: no line table and no peak of the product.

The tube is another one than the fit's: Kramers' law and lines of a drawn share in place of Ebel's formulas. All of its
photons excite and are scattered: elastic and Compton copies of the anode's lines, and of the continuum.
"""

from dataclasses import dataclass

import numpy as np
import xraylib
from thick_samples import _emitted, _escape, _peak, _recorded

N_CHANNELS = 2048
_GRID_KEV = 0.1
_BE_G_CM2 = 1.848 * 125e-4
LIGHT = ("Si", "P", "S", "Cl", "K", "Ca", "Ti", "V", "Cr", "Mn", "Fe", "Ni", "Cu", "Zn", "Ga", "As", "Se", "Br")
HEAVY = ("Sr", "Zr", "Pb_L", "Ba_L", "Sb_L", "Au_L")


@dataclass(frozen=True, kw_only=True)
class TubeSample:
    """One spectrum with what it was made of."""

    counts: np.ndarray
    names: tuple[str, ...]
    truth: dict[str, float]
    anode: str
    kv: float
    offset_kev: float
    slope_kev: float


def draw_tube(seed, anode, *, total=None, kv=None, names=None, offset_kev=None, slope_kev=None, line_share=None):
    """A spectrum at random; what is given is not drawn.

    Args:
        seed: of everything.
        anode: symbol.
        total: counts of all families; None: 1e5 to 1e7.
        kv: high voltage; None: 31 to 37.
        names: families; None: 7 to 11.
        offset_kev: of the axis; None: +-.3.
        slope_kev: of the axis; None: .011 to .016.
        line_share: share of the tube's photons in its lines; None: .1 to .5.
    """
    rng = np.random.default_rng(seed)
    drawn_kv = float(rng.uniform(31.0, 37.0))
    kv = drawn_kv if kv is None else kv
    drawn_share = float(rng.uniform(0.1, 0.5))
    energy, photons, lines = _shine(anode, kv, drawn_share if line_share is None else line_share)
    drawn = [*rng.choice(LIGHT, size=int(rng.integers(6, 9)), replace=False)]
    drawn += [*rng.choice(HEAVY, size=int(rng.integers(1, 3)), replace=False)]
    names = tuple(names or (str(one) for one in drawn))
    mass = dict(zip(names, 10.0 ** rng.uniform(-1.5, 0.0, len(names)), strict=True))
    offset = float(rng.uniform(-0.3, 0.3)) if offset_kev is None else offset_kev
    drawn_slope = float(rng.uniform(0.011, 0.016))
    slope = drawn_slope if slope_kev is None else slope_kev
    counts = 10.0 ** rng.uniform(5.0, 7.0) if total is None else total
    noise, air_mm = float(rng.uniform(0.07, 0.11)), round(float(rng.uniform(2.0, 15.0)), 1)
    families = {name: _excite(name, mass[name], energy, photons, air_mm) for name in names}
    whole = sum(w for family in families.values() for _, w in family)
    truth = {name: counts * sum(w for _, w in family) / whole for name, family in families.items()}
    axis = offset + slope * np.arange(N_CHANNELS)
    y = np.zeros_like(axis)
    for e, w in (line for family in families.values() for line in family):
        lost = _escape(e)
        whole_peak = _peak(axis, e, noise) + (lost * _peak(axis, e - 1.74, noise) if lost else 0.0)
        y += counts / whole * w / (1.0 + lost) * whole_peak
    angle = np.radians(rng.uniform(100.0, 150.0))
    scattered = _scatter(axis, energy, photons, lines, angle, noise, air_mm)
    y += counts * rng.uniform(0.1, 0.5) * scattered / (scattered.sum() * slope)
    return TubeSample(
        counts=rng.poisson(np.maximum(y * slope, 0.0)),
        names=names,
        truth=truth,
        anode=anode,
        kv=kv,
        offset_kev=offset,
        slope_kev=slope,
    )


def _shine(anode, kv, share):
    """Energies and photons of continuum and lines behind 125 um of beryllium, and the lines alone."""
    energy = np.arange(1.0, kv, _GRID_KEV)
    window = np.array([np.exp(-xraylib.CS_Total(4, e) * _BE_G_CM2) for e in energy])
    continuum = (kv / energy - 1.0) * window
    z, lines = xraylib.SymbolToAtomicNumber(anode), []
    for name in (anode, f"{anode}_L"):
        for e, s, _ in _emitted(name, kv, 1.0):
            if e > 1.0:
                over = max(kv / xraylib.EdgeEnergy(z, xraylib.K_SHELL if name == anode else xraylib.L3_SHELL), 1.0)
                through = np.exp(-xraylib.CS_Total(4, e) * _BE_G_CM2 - 0.002 * xraylib.CS_Photo(z, e))
                # Photons ionise the K shell more than electrons do.
                lines.append((e, s * (over - 1.0) ** 1.6 / over * through))
    bright = share / (1.0 - share) * continuum.sum() / sum(w for _, w in lines)
    lines = [(e, bright * w) for e, w in lines]
    return (np.concatenate([energy, [e for e, _ in lines]]), np.concatenate([continuum, [w for _, w in lines]]), lines)


def _excite(name, mass, energy, photons, air_mm):
    z = xraylib.SymbolToAtomicNumber(name.split("_")[0])
    found = []
    for e, _, _ in _emitted(name, float(energy.max()), 1.0):
        code = next(c for c in _codes(name) if _has(z, c, e))
        strength = sum(_cross(z, code, at) * n for at, n in zip(energy, photons, strict=True))
        found.append((e, mass * strength * _recorded(e, air_mm)))
    return found


def _codes(name):
    from thick_samples import CODES

    return CODES["L" if name.endswith("_L") else "K"]


def _has(z, code, e):
    try:
        return abs(xraylib.LineEnergy(z, code) - e) < 1e-9 and _cross(z, code, 1e2) > 0.0
    except ValueError:
        return False


def _cross(z, code, e):
    try:
        return xraylib.CS_FluorLine_Kissel(z, code, float(e))
    except ValueError:
        return 0.0


def _scatter(axis, energy, photons, lines, angle, noise, air_mm):
    y = np.zeros_like(axis)
    sharp = len(energy) - len(lines)
    for i, (e, n) in enumerate(zip(energy, photons, strict=True)):
        seen = n * float(_recorded(e, air_mm))
        shifted = e / (1.0 + e / 511.0 * (1.0 - np.cos(angle)))
        elastic, compton = xraylib.CS_Rayl_CP("SiO2", e), xraylib.CS_Compt_CP("SiO2", e)
        if i < sharp:
            y += seen * (elastic + compton) * np.exp(-0.5 * ((axis - e) / 0.15) ** 2) / 0.376
        else:
            y += seen * (elastic * _peak(axis, e, noise) + compton * _peak(axis, shifted, noise, 2.0))
    return y
