"""Small scans with times and scalers, whose pixels differ in exposure and flux and not in the sample."""

import numpy as np
from run_samples import SLOPE_KEV, run_all, spectrum

from hpcxrf.config.run import check_config
from hpcxrf.pipeline.plan import make_plan

ELEMENTS = ("Ca", "Fe", "Cu")
RATES = {"Ca": 900.0, "Fe": 1500.0, "Cu": 700.0, "elastic": 400.0, "Compton": 500.0}
"""Counts per second of live time at the reference flux, of a detector of share 1."""
FLUX = 2e5
CLOCK_HZ = 1e7
SHAPE = (6, 8)
TABLE = {
    "us_ic": {"pvs": ["b:us"], "clock": ["b:clock"], "clock_hz": CLOCK_HZ},
    "ring": {"pvs": ["b:ring"], "kind": "rate"},
}


def write_timed_scan(folder, *, shares=(0.6, 0.4), shape=SHAPE, seed=5, rates=None, drop=(), **changed):
    """A scan `scan.npz`: exposure differs by column, flux by row; the gate of I0 is twice the real time and 0.1 s more.

    Args:
        folder: where to.
        shares: of the detectors.
        shape: (y, x).
        seed: of the counts.
        rates: rates by component by detector, over those of `RATES`.
        drop: names of arrays that the file lacks.
        changed: arrays of the file, over its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    real = np.broadcast_to(np.linspace(0.5, 2.5, shape[1]), shape)
    flux = FLUX * np.broadcast_to(np.linspace(0.7, 1.3, shape[0])[:, None], shape)
    alive = np.array([0.95 - 0.1 * d for d in range(len(shares))])[:, None, None]
    gate = 2.0 * real + 0.1
    counts = []
    for d, share in enumerate(shares):
        one = RATES | (rates or {}).get(d, {})
        mean = spectrum({name: share * one[name] for name in (*ELEMENTS, "elastic", "Compton")}, continuum=0.5)
        counts.append(rng.poisson(mean * (alive[d] * real * flux / FLUX)[..., None]))
    every = np.broadcast_to(real, (len(shares), *shape))
    arrays = {
        "counts": np.array(counts, np.uint16),
        "real_time_s": every,
        "icr_hz": np.full_like(every, 5000.0),
        "ocr_hz": 5000.0 * alive * np.ones_like(every),
        "scaler_names": np.array(["b:us", "b:clock", "b:ring"]),
        "scaler_units": np.array(["", "", "mA"]),
        "scaler_values": np.stack([rng.poisson(flux * gate), CLOCK_HZ * gate, flux / 2e3]),
    }
    arrays = {name: value for name, value in (arrays | changed).items() if name not in drop}
    np.savez(folder / "scan.npz", **arrays)
    (folder / "maps_fit_parameters_override.txt").write_text(
        f"CAL_OFFSET: 0.0\nCAL_SLOPE: {SLOPE_KEV}\nCOHERENT_SCT_ENERGY: 10.0\nELEMENTS_TO_FIT: {', '.join(ELEMENTS)}\n"
    )
    return folder / "scan.npz"


def plan_timed(folder, run, normalise, **sections):
    raw = {
        "input": {"files": [str(folder / "scan.npz")]},
        "regions": {"find": []},
        "fit": {"suggest": False},
        "normalise": {"scalers": TABLE} | normalise,
    } | sections
    return make_plan(check_config(raw, "test"), run)


def run_timed(folder, run, normalise, **sections):
    """Run all tasks of a scan; its results store and the records by task."""
    (job,) = plan_timed(folder, run, normalise, **sections).jobs
    return run_all(job)
