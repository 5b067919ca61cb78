"""The phases whose weights the pixels were fitted with, kept beside the columns in the group `basis`."""

from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
import zarr

from hpcxrf.fitting.pixels.basis import Phases
from hpcxrf.results.store.storage import ArrayPlan, array_of, create_array
from hpcxrf.store.schema import PHASE_VARIABLES

_REPORT: Final = "phases"


def write_phases(group: zarr.Group, phases: Mapping[int, Phases], n_detectors: int, n_columns: int) -> None:
    """Write the phases of every detector that has several; twice equals once.

    Args:
        group: `basis` of a results store.
        phases: by place on the detector axis.
        n_detectors: length of that axis.
        n_columns: length of the column axis.
    """
    most = max(len(one.share) for one in phases.values())
    sizes = {"detector": n_detectors, "phase": most, "column": n_columns}
    if "phase_share" not in group:
        for name, spec in PHASE_VARIABLES.items():
            create_array(group, name, ArrayPlan(spec=spec, sizes=sizes))
    group.attrs[_REPORT] = {str(row): one.report for row, one in phases.items()}
    for row, one in phases.items():
        n, width = one.coefficients.shape
        coefficients = np.full((most, n_columns), np.nan)
        coefficients[:n, :width] = one.coefficients.cpu().numpy()
        share, gain = np.full(most, np.nan), np.full(most, np.nan)
        share[:n], gain[:n] = one.share.cpu().numpy(), one.gain.cpu().numpy()
        array_of(group, "phase_coefficients")[row] = coefficients
        array_of(group, "phase_share")[row] = share
        array_of(group, "phase_gain")[row] = gain


def read_phases(group: zarr.Group, row: int, n_columns: int) -> Phases | None:
    """The phases of one detector, as they were written; None where it has one set of weights.

    Args:
        group: `basis` of a results store.
        row: place on the detector axis.
        n_columns: columns that the detector has.
    """
    if "phase_share" not in group:
        return None
    share = np.asarray(array_of(group, "phase_share")[row])
    n = int(np.isfinite(share).sum())
    if n == 0:
        return None
    coefficients = np.asarray(array_of(group, "phase_coefficients")[row])
    gain = np.asarray(array_of(group, "phase_gain")[row])
    return Phases(
        coefficients=torch.from_numpy(np.ascontiguousarray(coefficients[:n, :n_columns])),
        share=torch.from_numpy(share[:n].copy()),
        gain=torch.from_numpy(gain[:n].copy()),
        report=str(dict(group.attrs[_REPORT])[str(row)]),  # type: ignore[arg-type]
    )
