"""Coverage of the intervals of integrated fits, by one-way classes: printed, not asserted.

    PYTHONPATH=. python tests/figures/interval_coverage.py mismatch 300 70000 out.jsonl
    PYTHONPATH=. python tests/figures/interval_coverage.py exact 300 80000 out.jsonl
    PYTHONPATH=. python tests/figures/interval_coverage.py table out.jsonl ...

`mismatch` draws spectra with the generator beside the package (`../shared/cases/gen.py`: other shapes of lines, shelf
and escape than the model's), ratios within a family off by 3 %, pile-up, up to two elements that are not listed, some
that are listed and absent; what the residual suggests is added and fitted again. `exact` draws them from the model
itself, the ratios of lines from its priors. Every spectrum has 5 to 14 families and 1e3 to 1e8 counts, evenly in the
logarithm.
"""

import importlib.util
import json
import math
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

import hpcxrf
from hpcxrf.fitting.spectrum.identify import suggest
from hpcxrf.fitting.spectrum.suggestion import add_elements
from hpcxrf.physics.constants import PHYSICS
from hpcxrf.physics.detector import Detector
from hpcxrf.physics.lines import build_line_table
from hpcxrf.physics.model import SpectrumModel, evaluate
from hpcxrf.physics.parameters import PARAMETERS, pack, replace_values

K_LINES = ["Si", "P", "S", "Cl", "Ar", "K", "Ca", "Ti", "V", "Cr", "Mn"]
K_LINES += ["Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As", "Se", "Br"]
L_LINES = ["Ag_L", "Cd_L", "Sn_L", "I_L", "Ba_L", "La_L", "Ce_L", "Gd_L", "W_L", "Pt_L", "Au_L", "Hg_L", "Pb_L", "Bi_L"]
M_LINES = ["Hf_M", "Ta_M", "W_M", "Bi_M", "Th_M", "U_M"]
RATIO_SD = 0.03
# Priors of the model: of every family's K-beta lines, common and own; of subshells beside the main one; of L3-O, P.
KBETA_COMMON_SD, KBETA_SD = 0.04, 0.05
SUBSHELL_SDS = {"L1": 0.2, "L2": 0.05, "M1": 0.05, "M2": 0.05, "M3": 0.05, "M4": 0.2}
OUTER_SD, OUTER_KEV = 0.3, 0.15
ROUNDS = 2


def say(text):
    sys.stdout.write(text + "\n")


def load_generator():
    path = Path(__file__).resolve().parents[3] / "shared" / "cases" / "gen.py"
    spec = importlib.util.spec_from_file_location("gen", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def draw_families(rng, incident_kev):
    """Names of families that the energy excites, no two of one element."""
    excited = [n for n in K_LINES + L_LINES + M_LINES if _edge_kev(n) < incident_kev - 0.6]
    wanted = int(rng.integers(5, 15))
    chosen = {}
    for name in rng.permutation(excited):
        chosen.setdefault(str(name).partition("_")[0], str(name))
        if len(chosen) == wanted:
            break
    return list(chosen.values())


def _edge_kev(name):
    import xraylib

    symbol, _, shell = name.partition("_")
    shells = {"": xraylib.K_SHELL, "L": xraylib.L1_SHELL, "M": xraylib.M1_SHELL}
    return xraylib.EdgeEnergy(xraylib.SymbolToAtomicNumber(symbol), shells[shell])


def draw_amplitudes(rng, names, total):
    """Counts of families over three decades, their sum a little more than half of all."""
    shares = 10.0 ** rng.uniform(-3.3, 0.0, len(names))
    return dict(zip(names, total * 0.6 * shares / shares.sum(), strict=True))


def perturb_ratios(gen, rng, name, incident_kev):
    """Lines of a family with every group (subshell, K-beta apart) off by some per cent."""
    import xraylib

    symbol, _, shell = name.partition("_")
    number, factors, lines = xraylib.SymbolToAtomicNumber(symbol), defaultdict(lambda: rng.lognormal(0, RATIO_SD)), []
    left = gen.family(name, incident_kev)[::-1]
    for code in gen.LINES[shell or "K"]:
        try:
            energy = xraylib.LineEnergy(number, getattr(xraylib, code))
        except ValueError:
            continue
        # Both are in the order of the library's names; several lines may have one energy.
        if left and energy == left[-1][0]:
            group = code[:2] if shell else code[:2] == "KL"
            lines.append((energy, left.pop()[1] * factors[group]))
    assert not left
    total = sum(weight for _, weight in lines)
    return [(energy, weight / total) for energy, weight in lines]


def draw_mismatched(seed):
    """Counts, incident energy, list of elements, true counts of all families."""
    gen, rng = load_generator(), np.random.default_rng(seed)
    incident_kev = rng.uniform(12.0, 18.5)
    total = 10.0 ** rng.uniform(3, 8)
    detector = gen.Det(
        offset=rng.uniform(-0.05, 0.05),
        slope=rng.uniform(0.009, 0.0125),
        noise=rng.uniform(0.07, 0.12),
        tail=rng.uniform(0.0, 0.02),
        step=rng.uniform(0.0, 0.004),
    )
    truth = draw_amplitudes(rng, draw_families(rng, incident_kev), total)
    spectrum = sum(a * detector.fam(perturb_ratios(gen, rng, n, incident_kev)) for n, a in truth.items())
    elastic, compton, background = total * rng.dirichlet([1.0, 2.0, 2.0]) * 0.4
    rest, _ = gen.spectrum(detector, incident_kev, {}, elastic=elastic, compton=compton, bg=background)
    share = rng.uniform(0.0, 0.004)
    mean = _pile_up(spectrum + rest, detector, share)
    # A photon that piles up is recorded elsewhere: an amplitude is what is left of a family at its own lines.
    truth = {name: a * (1 - share) for name, a in truth.items()}
    counts = rng.poisson(mean)
    names = list(truth)
    unlisted = set(rng.choice(names, int(rng.integers(0, 3)), replace=False))
    absent = [
        n for n in draw_families(rng, incident_kev) if n.partition("_")[0] not in {m[:2].strip("_") for m in names}
    ]
    listed = [n for n in names if n not in unlisted] + absent[: int(rng.integers(1, 5))]
    axis = (detector.offset + rng.normal(0, 0.02), detector.slope * (1 + rng.normal(0, 0.003)))
    return counts, incident_kev + rng.normal(0, 0.1), listed, truth, axis


def _pile_up(spectrum, detector, share):
    pairs = np.convolve(spectrum, spectrum)[: detector.n + 400]
    at = np.interp(detector.ch, np.arange(len(pairs)) + detector.offset / detector.slope, pairs, left=0, right=0)
    return spectrum * (1 - share) + 0.5 * share * spectrum.sum() * at / max(pairs.sum(), 1e-300)


@dataclass(frozen=True)
class Exact:
    """A spectrum that the model can describe: what is expected of it, and of one count of each family."""

    names: tuple[str, ...]
    truth: dict[str, float]
    """Counts of the families that are there; the others of `names` are not."""
    shapes: np.ndarray
    """(channel, family)."""
    mean: np.ndarray
    """(channel,)."""
    incident_kev: float
    axis: tuple[float, float]


def make_exact(rng, n_absent=0):
    """Draw one, with a continuum that falls linearly."""
    incident_kev = rng.uniform(12.0, 18.5)
    total = 10.0 ** rng.uniform(3, 8)
    truth = draw_amplitudes(rng, draw_families(rng, incident_kev), total)
    there = {name.partition("_")[0] for name in truth}
    more = [n for n in draw_families(rng, incident_kev) if n.partition("_")[0] not in there][:n_absent]
    names = (*truth, *more)
    table = _draw_ratios(rng, build_line_table(names, incident_kev, efficiency=Detector()))
    start = {
        "coherent_sct_energy": incident_kev,
        "energy_offset": rng.uniform(-0.05, 0.05),
        "energy_slope": rng.uniform(0.009, 0.0125),
        "fwhm_offset": rng.uniform(0.07, 0.12),
        "compton_angle": rng.uniform(75, 105),
        "f_tail_offset": rng.uniform(0.0, 0.04),
    }
    theta = pack(replace_values(PARAMETERS, start))
    elastic, compton, background = total * rng.dirichlet([1.0, 2.0, 2.0]) * 0.4
    phi = evaluate(
        theta, SpectrumModel(table=table, channel=torch.arange(2048, dtype=torch.float64), constants=PHYSICS)
    ).phi.numpy()
    slope = 1.6 - 1.2 * np.arange(2048) / 2048
    amplitude = np.array([*(truth.get(name, 0.0) for name in names), elastic, compton])
    return Exact(
        names=names,
        truth=truth,
        shapes=phi[:, : len(names)],
        mean=phi @ amplitude + background * slope / slope.sum(),
        incident_kev=incident_kev,
        axis=(start["energy_offset"], start["energy_slope"]),
    )


def draw_exact(seed):
    """Counts, incident energy, list of elements, true counts, calibration, the last two a little off."""
    rng = np.random.default_rng(seed)
    one = make_exact(rng)
    axis = (one.axis[0] + rng.normal(0, 0.02), one.axis[1] * (1 + rng.normal(0, 0.003)))
    return rng.poisson(one.mean), one.incident_kev + rng.normal(0, 0.1), list(one.names), one.truth, axis


def _draw_ratios(rng, table):
    """The table with ratios that are off by what the model takes for usual, the sum of every family as it was.

    A spectrum with just the ratios of the table would say nothing of intervals that allow for wrong ones.
    """
    import xraylib

    parent = torch.where(table.escape_parent < 0, torch.arange(len(table.ratio)), table.escape_parent)
    edge, line = table.edge_kev[parent], table.energy_kev[parent]
    factor, common = torch.ones_like(table.ratio), rng.normal(0, KBETA_COMMON_SD)
    for i, name in enumerate(table.component_names):
        symbol, _, shell = name.partition("_")
        z, mine = xraylib.SymbolToAtomicNumber(symbol), table.component == i
        groups = {(): (mine & table.is_kbeta[parent], math.exp(common + rng.normal(0, KBETA_SD)))} if not shell else {}
        for subshell, sd in SUBSHELL_SDS.items():
            if shell and subshell[0] == shell:
                own = xraylib.EdgeEnergy(z, getattr(xraylib, f"{subshell}_SHELL"))
                groups[subshell] = (mine & ((edge - own).abs() < 1e-4), math.exp(rng.normal(0, sd)))
        if shell == "L":
            own = xraylib.EdgeEnergy(z, xraylib.L3_SHELL)
            outer = mine & ((edge - own).abs() < 1e-4) & (edge - line < OUTER_KEV)
            groups["outer"] = (outer, math.exp(rng.normal(0, OUTER_SD)))
        for member, by in groups.values():
            factor = torch.where(member, factor * by, factor)
        changed = torch.where(mine, table.ratio * factor, 0.0)
        factor = torch.where(mine, factor * table.ratio[mine].sum() / changed.sum(), factor)
    return replace(table, ratio=table.ratio * factor)


def fit_and_compare(seed, draw, *, add):
    """One record per family that is in the spectrum and in the list in the end."""
    counts, incident_kev, listed, truth, axis = draw(seed)
    options = {"energy_offset_kev": axis[0], "energy_slope_kev": axis[1]}
    fit = hpcxrf.fit_spectrum(counts, listed, incident_kev, **options)
    for _ in range(ROUNDS if add else 0):
        wanted = add_elements(tuple(listed), suggest(fit, fit.problem, efficiency=Detector()))
        if wanted == tuple(listed):
            break
        listed = list(wanted)
        fit = hpcxrf.fit_spectrum(counts, listed, incident_kev, start=fit)
    parts = fit.errors.variances
    old = (parts.amplitude * max(fit.reduced_chi2, 1.0)).sqrt()
    rows = zip(fit.component_names, fit.amplitude.tolist(), fit.amplitude_sigma.tolist(), old.tolist(), strict=True)
    return [
        {
            "seed": seed,
            "name": name,
            "truth": truth[name],
            "value": value,
            "sigma": sigma,
            "old": before,
            "total": int(counts.sum()),
            "chi2": fit.reduced_chi2,
            "k": fit.model_error,
            "cpu_s": fit.cpu_s,
        }
        for name, value, sigma, before in rows
        if name in truth
    ]


def list_classes(record):
    """The classes that a record belongs to."""
    share, decade = record["truth"] / record["total"], int(math.log10(record["total"]))
    _, _, shell = record["name"].partition("_")
    size = "strong" if share > 0.02 else "middle" if share > 0.002 else "weak"
    above = ["1e6-1e8"] if record["total"] > 1e6 else []
    return ["all", shell or "K", f"1e{decade}", size, *above]


def print_table(paths):
    classes, records = defaultdict(list), []
    for path in paths:
        records += [json.loads(line) for line in Path(path).read_text().splitlines()]
    for record in records:
        for name in list_classes(record):
            classes[name].append(record)
    spectra = {r["seed"]: r for r in records}
    say(f"{len(spectra)} spectra, median k {np.median([r['k'] for r in spectra.values()]):.2f}")
    say("class      n   68 %   95 %   +-2sd   before   width/before  spectra off by > 5 sigma")
    for name, rows in sorted(classes.items()):
        pull = np.array([abs(r["value"] - r["truth"]) / r["sigma"] for r in rows])
        before = np.array([abs(r["value"] - r["truth"]) / r["old"] for r in rows])
        width = np.median([r["sigma"] / r["old"] for r in rows])
        n = len(rows)
        far = len({r["seed"] for r, p in zip(rows, pull, strict=True) if not p < 5})
        say(
            f"{name:9s} {n:4d}   {(pull < 1).mean():.3f}  {(pull < 1.96).mean():.3f}  {2 * math.sqrt(0.2176 / n):.3f}"
            f"   {(before < 1).mean():.2f}/{(before < 1.96).mean():.2f}    {width:.2f}     {far}"
        )


def main():
    kind = sys.argv[1]
    if kind == "table":
        print_table(sys.argv[2:])
        return
    torch.set_num_threads(1)
    count, first, path = int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    draw = {"mismatch": draw_mismatched, "exact": draw_exact}[kind]
    began = time.process_time()
    with path.open("a") as stream:
        for seed in range(first, first + count):
            for record in fit_and_compare(seed, draw, add=kind == "mismatch"):
                stream.write(json.dumps(record) + "\n")
            stream.flush()
    say(f"{count} spectra, {time.process_time() - began:.0f} CPU s")


if __name__ == "__main__":
    main()
