"""Coverage of areal densities by simulated standards: printed, not asserted.

    PYTHONPATH=. python tests/figures/quantify_coverage.py 200 9000

200 simulations of each standard and geometry of `tests/samples/quantify_samples.py`, seeds from 9000 on, other ones for
each. By standard, geometry and origin of the response: share of the 68 % intervals that hold the truth, root mean
square of the deviations, and the median stated error. For own points also how far they are from what the certificate's
own error makes of the truth.
"""

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "samples"))

from quantify_samples import GEOMETRIES, STANDARDS, simulate


def main():
    count, seed = int(sys.argv[1]), int(sys.argv[2])
    say = sys.stdout.write
    every = defaultdict(list)
    for standard in STANDARDS:
        for place, geometry in enumerate(GEOMETRIES):
            by_origin, by_family = defaultdict(list), defaultdict(list)
            for i in range(count):
                for family, origin, found, true, sigma, own in simulate(
                    np.random.default_rng([seed + i, place]), standard, geometry
                ):
                    row = ((found - true) / sigma, found / true - 1.0, sigma / found, found / true / (1.0 + own) - 1.0)
                    by_origin[origin].append(row)
                    every[standard, origin].append(row)
                    if origin != "own point":
                        by_family[family].append(row)
            for origin, rows in sorted(by_origin.items()):
                say(f"{standard}, {geometry}, {origin}: {describe(rows)}\n")
            for family, rows in by_family.items():
                pull, off, stated, _ = np.array(rows).T
                say(f"    {family:5s} {100 * off.mean():+6.1f} +- {100 * off.std():.1f} %, ")
                say(f"stated {100 * np.median(stated):.1f} %, covered {np.mean(abs(pull) <= 1.0):.2f} ")
                say(f"(2 sigma {np.mean(abs(pull) <= 2.0):.2f})\n")
    for (standard, origin), rows in sorted(every.items()):
        say(f"{standard}, all geometries, {origin}: {describe(rows)}\n")


def describe(rows):
    pull, off, stated, beside = np.array(rows).T
    text = f"{len(rows)} intervals, covered {np.mean(abs(pull) <= 1.0):.3f}, 2 sigma {np.mean(abs(pull) <= 2.0):.3f}, "
    text += f"rms {100 * np.sqrt(np.mean(off**2)):.2f} %, stated {100 * np.median(stated):.2f} %"
    if np.isfinite(beside).all():
        text += (
            f", beside the certificate rms {100 * beside.std():.2f} %, within 2 %: {np.mean(abs(beside) <= 0.02):.4f}"
        )
    return text


if __name__ == "__main__":
    main()
