"""Print how well spectra of thick, thin and coated samples are fitted; seeds are arguments, so that none is chosen.

python tests/figures/thick_samples.py thick 7000 22
python tests/figures/thick_samples.py thin 7000 20
python tests/figures/thick_samples.py kbeta 7000 12
python tests/figures/thick_samples.py iron 7000 12
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "samples"))
from thick_samples import draw_sample

import hpcxrf

LEAST_SHARE = 2e-3


def vary_kbeta(rng):
    return float(1.0 + rng.choice((-1.0, 1.0)) * rng.uniform(0.15, 0.25))


def draw(kind, seed):
    if kind == "thick":
        return draw_sample(seed)
    if kind == "thin":
        return draw_sample(seed, depth=0.0)
    if kind == "kbeta":
        return draw_sample(seed, depth=0.0, kbeta=vary_kbeta)
    if kind == "common":
        factor = vary_kbeta(np.random.default_rng(seed))
        return draw_sample(seed, depth=0.0, kbeta=lambda _: factor)
    factor = vary_kbeta(np.random.default_rng(seed))
    names, shares = ("Ca", "Ti", "Cr", "Mn", "Fe", "Zn"), (0.2, 0.05, 0.05, 0.6, 0.03, 0.07)
    return draw_sample(seed, depth=0.0, total=1e6, kbeta=lambda _: factor, names=names, shares=shares)


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def describe(ratios):
    if ratios is None:
        return "-"
    _, light, air, kbeta = ratios.value[:4].tolist()
    return f"T {ratios.sample_depth:.3f} s {light:.2f} d {air:.2f} b {kbeta:.3f} gain {ratios.depth_gain:.0f}"


def show(sample, fit):
    truth = np.array(list(sample.truth.values()))
    found = fit.amplitude[: len(truth)].numpy()
    z = (found - truth) / fit.amplitude_sigma[: len(truth)].numpy()
    strong = truth > LEAST_SHARE * truth.sum()
    error = np.abs(found / truth - 1.0)[strong]
    say(
        f"T {sample.depth:6.2f} N {truth.sum():.1e} R2 - expected {fit.r2 - fit.r2_expected:+.5f} "
        f"chi2 {fit.reduced_chi2:6.2f} coverage {np.mean(np.abs(z) < 1):.2f} worst {error.max():.3f} "
        f"cpu {fit.cpu_s:.2f} it {fit.iterations} | {describe(getattr(fit, 'ratios', None))}"
    )
    return z, error, ["L" if n.endswith("_L") else "K" for n in sample.names]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("thick", "thin", "kbeta", "common", "iron"))
    parser.add_argument("first_seed", type=int)
    parser.add_argument("number", type=int)
    parser.add_argument("--kbeta-sd", type=float, default=0.0)
    args = parser.parse_args()
    zs, errors, shells, cpu, iron = [], [], [], [], []
    for seed in range(args.first_seed, args.first_seed + args.number):
        sample = draw(args.kind, seed)
        fit = hpcxrf.fit_spectrum(
            sample.counts,
            sample.names,
            sample.energy_kev,
            energy_offset_kev=round(sample.offset_kev, 2),
            energy_slope_kev=round(sample.slope_kev, 4),
            kbeta_sd=args.kbeta_sd,
        )
        z, error, shell = show(sample, fit)
        zs.append(z)
        errors.append(error)
        shells.extend(shell)
        cpu.append(fit.cpu_s)
        if args.kind == "iron":
            iron.append(float(fit.amplitude[4]) / sample.truth["Fe"] - 1.0)
    z, error = np.concatenate(zs), np.concatenate(errors)
    for name, one in (("all", z), *((s, z[np.array(shells) == s]) for s in "KL")):
        if one.size:
            inside = [np.mean(np.abs(one) < k) for k in (1.0, 1.96)]
            say(f"{name}: n {one.size} coverage 68 {inside[0]:.3f} 95 {inside[1]:.3f}")
    middle, high = np.quantile(error, (0.5, 0.95))
    say(f"error of families above 0.2 %: median {middle:.4f} p95 {high:.4f}, n {error.size}")
    say(f"CPU s: total {sum(cpu):.2f} median {np.median(cpu):.3f}")
    if iron:
        say("Fe beside Mn: " + " ".join(f"{x:+.3f}" for x in iron))


if __name__ == "__main__":
    main()
