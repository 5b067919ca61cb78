"""A second simulator: line data of xraydb (Elam tables, not xraylib), and a detector response of its own.

It shares nothing with `hpcxrf.simulate`: energies, yields, ratios and Coster-Kronig rates are from the Elam database,
the subshells' shares from its jump ratios; the peaks are numerical integrals over the channels; tails, shelf, escape,
pile-up, Compton profile (a spread of angles and a Doppler width), self-absorption and a noise peak at zero are its own.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from scipy.special import erf, erfc, erfcx

_SUBSHELLS: Final = {"K": ("K",), "L": ("L1", "L2", "L3"), "M": ("M3", "M4", "M5")}
COMMON: Final = ("Si", "S", "Cl", "K", "Ca", "Ti", "Cr", "Mn", "Fe", "Ni", "Cu", "Zn")
LESS: Final = ("Al", "P", "Ar", "V", "Co", "As", "Se", "Br", "Rb", "Sr", "Ga", "Ge")
HEAVY: Final = ("Pb", "Ba", "W", "Au", "Pt", "La", "Ce", "I", "Sn", "Hg", "Bi", "Cd")
SCATTER: Final = ("elastic", "Compton")
_P_ELECTRONS: Final = {"Al": 1, "Si": 2, "P": 3, "S": 4, "Cl": 5}


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignSpectrum:
    """A spectrum with everything that made it."""

    counts: np.ndarray
    offset_kev: float
    slope_kev: float
    quadratic_kev: float
    incident_kev: float
    nominal_kev: float
    listed: tuple[str, ...]
    truth: dict[str, float]
    """Recorded counts by family and scatter peak."""

    def energy_kev(self, channel):
        return self.offset_kev + channel * (self.slope_kev + channel * self.quadratic_kev)


def family_lines(name, incident_kev, *, light_kbeta=False):
    """Energies and shares of a family, efficiency of a thin window and a 450 um chip included.

    The database has 15 % of K-beta for Al to Cl, whose 3p shell is not full; `light_kbeta` mends that: (Z - 12) / 6 of
    what argon has.
    """
    excited = tuple(level for level in _levels_of(name) if edge_kev(name, level) < incident_kev)
    energy, weight = _lines_of(name, excited)
    if light_kbeta and name in _P_ELECTRONS:
        beta = energy > 1.02 * float((energy * weight).sum()) / float(weight.sum())
        weight = np.where(beta, weight * _P_ELECTRONS[name] / 6.0, weight)
        weight = weight / weight.sum()
    return energy, weight


def _levels_of(name):
    return _SUBSHELLS[name.partition("_")[2] or "K"]


@lru_cache(maxsize=4096)
def _lines_of(name, excited):
    import xraydb

    symbol = name.partition("_")[0]
    edges = _edges_of(symbol)
    vacancies, below = {}, 1.0
    for level in excited:
        jump = edges[level].jump_ratio
        vacancies[level] = below * (1.0 - 1.0 / jump)
        below /= jump
    for one in excited:
        for other in excited:
            if one < other:
                moved = xraydb.ck_probability(symbol, one, other, total=False)
                vacancies[other] += vacancies[one] * float(moved or 0.0)
    energies, weights = [], []
    for level, vacancy in vacancies.items():
        for line in xraydb.xray_lines(symbol, initial_level=level).values():
            if line.energy > 200.0:
                energies.append(line.energy / 1000.0)
                weights.append(vacancy * edges[level].fyield * line.intensity)
    energy = np.array(energies)
    weight = np.array(weights) * efficiency(energy)
    keep = weight > 1e-4 * weight.max()
    return energy[keep], weight[keep] / weight[keep].sum()


@lru_cache(maxsize=1)
def _absorption():
    """Absorption coefficients (1/cm) of beryllium, air and silicon over a grid of energies (keV)."""
    import xraydb

    grid = np.geomspace(0.3, 40.0, 400)
    air = 0.76 * xraydb.mu_elam("N", 1000.0 * grid) + 0.24 * xraydb.mu_elam("O", 1000.0 * grid)
    be, chip = xraydb.mu_elam("Be", 1000.0 * grid), xraydb.mu_elam("Si", 1000.0 * grid, kind="photo")
    return grid, be * 1.85, air * 1.2e-3, chip * 2.33


def efficiency(energy_kev):
    grid, *layers = _absorption()
    be, air, chip = (np.interp(energy_kev, grid, layer) for layer in layers)
    return np.exp(-be * 12e-4 - air * 1.5 - chip * 0.05e-4) * (1.0 - np.exp(-chip * 450e-4))


@lru_cache(maxsize=256)
def _edges_of(symbol):
    import xraydb

    return xraydb.xray_edges(symbol)


def edge_kev(name, level=""):
    """Edge of a subshell; of a family the lowest."""
    return _edges_of(name.partition("_")[0])[level or _levels_of(name)[-1]].energy / 1000.0


class Response:
    """Peaks in channels: a Gaussian with a short tail and a shelf, integrated over each channel."""

    def __init__(self, edges_kev, rng):
        self.edges = edges_kev
        self.noise = rng.uniform(0.05, 0.11)
        self.fano = rng.uniform(0.11, 0.13)
        self.tail = rng.uniform(0.002, 0.02)
        self.decay = rng.uniform(0.08, 0.2)
        self.shelf = rng.uniform(0.0, 0.004)
        self.escape = rng.uniform(0.7, 1.2)

    def sigma(self, energy):
        return np.sqrt((self.noise / 2.3548) ** 2 + 0.00366 * self.fano * max(energy, 0.0))

    def peak(self, energy, wider=0.0, tail=None):
        sigma = np.hypot(self.sigma(energy), wider)
        tail = self.tail if tail is None else tail
        x = (self.edges - energy) / sigma
        gauss = 0.5 * (1.0 + erf(x / np.sqrt(2.0)))
        # Distribution of a Gaussian less an exponential: erfcx keeps it finite.
        lam = sigma / self.decay
        arg = (x + lam) / np.sqrt(2.0)
        low = np.where(
            arg > -5.0,
            0.5 * np.exp(-0.5 * x * x) * erfcx(np.maximum(arg, -5.0)),
            np.exp(np.minimum(lam * x + 0.5 * lam * lam, 0.0)),
        )
        cumulative = (1.0 - tail) * gauss + tail * (gauss + low)
        counts = np.diff(cumulative)
        if self.shelf:
            middle = 0.5 * (self.edges[1:] + self.edges[:-1])
            flat = np.where(middle > 0.3, 0.5 * erfc((middle - energy) / (np.sqrt(2.0) * sigma)), 0.0)
            counts = counts + self.shelf * flat / max(flat.sum(), 1.0)
        return counts

    def line(self, energy, wider=0.0):
        found = self.peak(energy, wider)
        if energy > 1.85:
            share = self.escape * 0.02 * (1.85 / energy) ** 2.6
            found = (1.0 - share) * found + share * self.peak(energy - 1.74)
        return found

    def family(self, lines):
        return sum(weight * self.line(energy) for energy, weight in zip(*lines, strict=True))


def _absorb(lines, depth, kbeta):
    """Line ratios of a thick sample: low energies lose, K-beta gains a little."""
    energy, weight = lines
    mean = float((energy * weight).sum())
    t = depth * (6.0 / energy) ** 2.8
    kept = weight * -np.expm1(-t) / t if depth > 0.0 else weight
    kept = kept * np.where(energy > 1.02 * mean, kbeta, 1.0)
    return energy, kept / kept.sum()


def _compton(response, incident, rng, counts):
    """Compton scatter over a spread of angles, with a Doppler width that grows with the energy."""
    angle = rng.uniform(75.0, 150.0)
    doppler = rng.uniform(0.008, 0.014) * incident * np.sqrt(1.0 - np.cos(np.radians(angle)))
    parts = []
    for shift, share in ((-12.0, 0.2), (0.0, 0.6), (12.0, 0.2)):
        energy = incident / (1.0 + incident / 510.999 * (1.0 - np.cos(np.radians(angle + shift))))
        parts.append(share * (0.8 * response.peak(energy, doppler * 0.6) + 0.2 * response.peak(energy, doppler * 1.7)))
    return counts * sum(parts)


def _choose_families(rng, incident, nominal, n):
    weights = dict.fromkeys(COMMON, 4.0) | dict.fromkeys(LESS, 1.2)
    weights |= {f"{name}_L": 0.5 for name in HEAVY}
    lowest = min(incident, nominal) - 0.1
    names = [k for k in weights if edge_kev(k) < lowest]
    share = np.array([weights[k] for k in names])
    chosen = rng.choice(len(names), size=min(n, len(names)), replace=False, p=share / share.sum())
    return [names[i] for i in chosen], names


def random_spectrum(
    seed,
    *,
    slopes=(0.004, 0.04),
    offsets=(-1.2, 1.2),
    incident_error=(-1.3, 1.3),
    families=(5, 20),
    decades=(3.0, 8.0),
    unlisted=(0, 2),
    light_kbeta=False,
):
    """One spectrum of everything random, the same for the same seed."""
    rng = np.random.default_rng((seed, 77))
    incident = rng.uniform(9.0, 20.0)
    nominal = incident - rng.uniform(*incident_error)
    slope = np.exp(rng.uniform(*np.log(slopes)))
    offset = rng.uniform(*offsets)
    n = int(2 ** np.ceil(np.log2((incident + 1.5 - offset) / slope)))
    quadratic = rng.normal(0.0, 2e-3) / n**2 * 4.0
    edges = offset + (np.arange(n + 1) - 0.5) * slope + quadratic * (np.arange(n + 1) - 0.5) ** 2
    response = Response(edges, rng)
    names, possible = _choose_families(rng, incident, nominal, int(rng.integers(families[0], families[1] + 1)))
    depth = rng.choice([0.0, 0.0, rng.uniform(0.2, 3.0)])
    kbeta = rng.normal(1.0, 0.04)
    total = 10.0 ** rng.uniform(*decades)
    height = np.exp(rng.uniform(np.log(0.003), 0.0, size=len(names)))
    shape, truth = np.zeros(n), {}
    for name, size in zip(names, height, strict=True):
        lines = family_lines(name, incident, light_kbeta=light_kbeta)
        shape = shape + size * response.family(_absorb(lines, depth, kbeta))
        truth[name] = float(size)
        if name.endswith("_L") and name[:-2] in {"Pb", "Au", "Pt", "Hg", "Bi", "W"}:
            outer = f"{name[:-2]}_M"
            truth[outer] = float(size * rng.uniform(0.02, 0.2))
            shape = shape + truth[outer] * response.family(family_lines(outer, incident))
    elastic = np.exp(rng.uniform(np.log(0.03), 0.0))
    shape = shape + elastic * response.line(incident)
    compton = elastic * np.exp(rng.uniform(np.log(0.5), np.log(5.0)))
    shape = shape + _compton(response, incident, rng, compton)
    truth |= {"elastic": float(elastic), "Compton": float(compton)}
    middle = 0.5 * (edges[1:] + edges[:-1])
    smooth = np.where(middle > 0.4, np.exp(-middle / rng.uniform(2.0, 8.0)) + rng.uniform(0.02, 0.2), 0.0)
    smooth = smooth * 0.5 * erfc((middle - 0.97 * incident) / (0.02 * incident))
    smooth = smooth * efficiency(np.clip(middle, 0.5, None))
    shape = shape + smooth / smooth.sum() * rng.uniform(0.02, 0.3) * shape.sum()
    scale = total / shape.sum()
    counts = shape * scale
    if rng.random() < 0.5:
        counts = _pile_up(counts, offset / slope, rng.uniform(0.0, 0.01))
    zero = rng.random()
    if zero < 0.4 and offset < -0.1:
        counts = counts + np.exp(rng.uniform(np.log(1e-3), np.log(0.5))) * total * response.peak(0.0, tail=0.0)
    truth = {k: v * scale for k, v in truth.items()}
    listed = _list_names(rng, names, truth, possible, unlisted)
    return ForeignSpectrum(
        counts=rng.poisson(np.maximum(counts, 0.0)).astype(np.float64),
        offset_kev=offset,
        slope_kev=slope,
        quadratic_kev=quadratic,
        incident_kev=incident,
        nominal_kev=nominal,
        listed=listed,
        truth=truth,
    )


def _pile_up(counts, zero_channel, share):
    """Sums of two events, as many as `share` of all counts; channels add up at the axis's own zero."""
    n = counts.size
    sums = np.convolve(counts, counts)
    position = np.arange(n) - zero_channel
    piled = np.interp(position, np.arange(sums.size), sums, left=0.0, right=0.0)
    return counts * (1.0 - share) + piled * share / counts.sum()


def _list_names(rng, names, truth, possible, unlisted):
    """The list that a user would give: up to two families missing, one to four absent ones among them."""
    missing = int(rng.integers(unlisted[0], unlisted[1] + 1))
    kept = [names[i] for i in sorted(rng.choice(len(names), size=max(len(names) - missing, 3), replace=False))]
    kept += [n for n in truth if n.endswith("_M") and rng.random() < 0.5]
    absent = [n for n in possible if n not in names]
    more = rng.choice(len(absent), size=min(int(rng.integers(1, 5)), len(absent)), replace=False) if absent else []
    return tuple(dict.fromkeys([*kept, *(absent[i] for i in more)]))
