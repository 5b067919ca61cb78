"""Small scans by the model itself, and all tasks of their runs in this process."""

import dataclasses

import numpy as np
import torch
import xarray as xr
from scan_units import run_unit, units_of

import hpcxrf
from hpcxrf.config.run import check_config
from hpcxrf.pipeline.plan import make_plan
from hpcxrf.results.store.maps import finalise
from hpcxrf.store.rundir import FINISHED, create_or_resume

N_CHANNELS = 1200
SLOPE_KEV = 0.01


def spectrum(counts, *, incident_kev=10.0, continuum=0.02, n_channels=N_CHANNELS, **theta_values):
    """Mean counts (channel,) of a pixel.

    Args:
        counts: by family; `elastic` and `Compton` 30 and 40 unless given.
    """
    counts = {"elastic": 30.0, "Compton": 40.0} | counts
    names = [name for name in counts if name not in {"elastic", "Compton"}]
    table = hpcxrf.line_table(names, incident_kev)
    theta = hpcxrf.default_theta(incident_kev, energy_slope=SLOPE_KEV, **theta_values)
    amplitude = torch.tensor(
        [*(counts[name] for name in names), counts["elastic"], counts["Compton"]], dtype=torch.float64
    )
    return continuum + hpcxrf.model_spectrum(theta, amplitude, table, n_channels).numpy()


def write_scan(folder, mean, *, elements, incident_kev=10.0, seed=0):
    """Poisson counts of means (detector, y, x, channel) as `scan.npy`, and an override file beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = np.random.default_rng(seed).poisson(mean).astype(np.uint16)
    np.save(folder / "scan.npy", counts)
    (folder / "maps_fit_parameters_override.txt").write_text(
        f"CAL_OFFSET: 0.0\nCAL_SLOPE: {SLOPE_KEV}\nCOHERENT_SCT_ENERGY: {incident_kev}\n"
        f"ELEMENTS_TO_FIT: {', '.join(elements)}\n"
    )
    return counts


def jobs_of(folder, run, **sections):
    """The datasets of a run of `scan.npy`."""
    raw = {
        "input": {"files": [str(folder / "scan.npy")]},
        "regions": {"find": []},
        "fit": {"suggest": False},
    } | sections
    return make_plan(check_config(raw, "test"), run).jobs


def run_all(job):
    """Run every task in order; give the results store and the records by task."""
    run = create_or_resume(job.run_dir, "", {})
    done = []
    for unit in units_of(job):
        done.append(run_unit(job, unit, done))
        run.append(job.dataset_id, {"event": FINISHED, **dataclasses.asdict(done[-1])})
    return run.results_store(job.dataset_id), {record.task: record for record in done}


def run_maps(job):
    """Run what makes maps, without regions and page; give the results store and the records by task."""
    run = create_or_resume(job.run_dir, "", {})
    done = []
    for unit in units_of(job):
        if unit.stage in {"ingest", "integrated", "pixels"}:
            done.append(run_unit(job, unit, done))
    store = run.results_store(job.dataset_id)
    finalise(store, {})
    return store, {record.task: record for record in done}


def run_scan(folder, run, **sections):
    (job,) = jobs_of(folder, run, **sections)
    return run_all(job)


def maps_of(store):
    return xr.open_zarr(store, group="maps", chunks=None).load()
