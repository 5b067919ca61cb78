"""A fit in memory as the group `spectrum` of a results store, for what draws or packs that; without matplotlib."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.results.store.spectra import channel_energies_kev


def build_fit_dataset(fit: SpectrumFit, detector: str, line_markers: Sequence[tuple[float, str]]) -> xr.Dataset:
    """The fit range as the group `spectrum` of a results store has it, with one detector.

    Args:
        fit: a solved fit.
        detector: its name.
        line_markers: (energy_kev, label).
    """
    stop = fit.first_channel + fit.counts.shape[0]
    energy = channel_energies_kev(fit, stop)[fit.first_channel :]
    rows = {
        name: (("detector", "channel"), getattr(fit, name).numpy()[None]) for name in ("counts", "model", "background")
    }
    components = (("detector", "component", "channel"), fit.component_counts.numpy()[None])
    return xr.Dataset(
        {**rows, "component_counts": components, "energy_kev": (("detector", "channel"), energy[None])},
        coords={
            "detector": np.array([detector], dtype=object),
            "component": np.array(fit.component_names, dtype=object),
        },
        attrs={"line_markers": [[float(e), str(label)] for e, label in line_markers]},
    )
