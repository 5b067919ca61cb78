"""Draws of the posterior of integrated fits as plain groups, as ArviZ names them: `inference/<detector>/posterior` ...

`arviz.from_zarr("results/<dataset_id>.zarr/inference/0")` and `xarray.open_zarr(..., group="posterior")` read them.
"""

import shutil
from pathlib import Path
from typing import Final

import numpy as np
import xarray as xr

from hpcxrf.fitting.spectrum.posterior import Posterior
from hpcxrf.results.store.storage import create_group, create_labels, create_values, publish_folder

INFERENCE: Final = "inference"
_MEANINGS: Final = {
    "theta": "free parameters of the model, in the units of the group parameters",
    "amplitude": "recorded counts of each component",
    "lp": "logarithm of the density in the sampler's coordinates, up to a constant",
    "energy": "energy of the trajectory's end",
    "acceptance_rate": "probability that the trajectory's end was accepted",
    "diverging": "the trajectory left the surface of equal energy",
    "n_steps": "gradients of the trajectory",
    "step_size": "step of the trajectory",
    "theta_r_hat": "rank-normalised split R-hat; 1 where the chains agree",
    "theta_ess": "effective number of independent draws, bulk",
    "amplitude_r_hat": "rank-normalised split R-hat; 1 where the chains agree",
    "amplitude_ess": "effective number of independent draws, bulk",
}


def build_posterior_groups(found: Posterior) -> dict[str, xr.Dataset]:
    """The groups `posterior`, `sample_stats` and `convergence` of one spectrum."""
    chains, draws, n = found.theta.shape
    of_draws = {"chain": np.arange(chains), "draw": np.arange(draws)}
    names = {"name": np.array(found.parameter_names, dtype=object)}
    components = {"component": np.array(found.component_names, dtype=object)}
    per_draw, steps = ("chain", "draw"), np.broadcast_to(found.steps.numpy(), (chains, draws))
    groups = {
        "posterior": xr.Dataset(
            {
                "theta": ((*per_draw, "name"), found.theta.numpy()),
                "amplitude": ((*per_draw, "component"), found.amplitude.numpy()),
            },
            coords=of_draws | names | components,
        ),
        "sample_stats": xr.Dataset(
            {
                "lp": (per_draw, found.log_density.numpy()),
                "energy": (per_draw, found.energy.numpy()),
                "acceptance_rate": (per_draw, found.acceptance.numpy()),
                "diverging": (per_draw, found.diverging.numpy()),
                "n_steps": (per_draw, steps),
                "step_size": (per_draw, np.full((chains, draws), found.step_size)),
            },
            coords=of_draws,
        ),
        "convergence": xr.Dataset(
            {
                "theta_r_hat": ("name", found.r_hat[:n].numpy()),
                "theta_ess": ("name", found.effective_size[:n].numpy()),
                "amplitude_r_hat": ("component", found.r_hat[n:].numpy()),
                "amplitude_ess": ("component", found.effective_size[n:].numpy()),
            },
            coords=names | components,
        ),
    }
    for group in groups.values():
        for name, variable in group.data_vars.items():
            variable.attrs["long_name"] = _MEANINGS[str(name)]
    return groups


def write_posterior(path: Path, detector: str, found: Posterior) -> None:
    """Write the draws of one detector's fit; takes the place of earlier ones.

    Args:
        path: the results store.
        detector: name on the detector axis.
        found: draws.

    Raises:
        OutputError: the store cannot be written.
    """
    if not (path / INFERENCE / "zarr.json").exists():
        with publish_folder(path / INFERENCE) as partial:
            create_group(partial)
    shutil.rmtree(path / INFERENCE / detector, ignore_errors=True)
    with publish_folder(path / INFERENCE / detector) as partial:
        root = create_group(partial)
        for name, group in build_posterior_groups(found).items():
            _write_group(create_group(root / name), group)


def _write_group(group: Path, values: xr.Dataset) -> None:
    for name, variable in values.variables.items():
        if variable.dtype.kind == "O":
            create_labels(group, str(name), [str(label) for label in variable.values])
        else:
            dims = [str(dim) for dim in variable.dims]
            create_values(group, str(name), dims, variable.values, dict(variable.attrs))
