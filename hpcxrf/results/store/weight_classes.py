"""Weight classes that the pixels were fitted with, kept beside the columns in the group `basis`.

Arrays and attribute have had the names `phase_*` and `phases` since version 0.1.0; any version reads them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
import zarr

from hpcxrf.fitting.pixels.basis import PixelBasis
from hpcxrf.fitting.pixels.weight_classes import WeightClasses
from hpcxrf.results.store.storage import ArrayPlan, array_of, create_array, fill_rows, update_attributes
from hpcxrf.store.schema import WEIGHT_CLASS_VARIABLES

_REPORT: Final = "phases"


def write_weight_classes(group: Path, bases: Sequence[PixelBasis], n_columns: int) -> None:
    """Write the weight classes of every detector that has several; twice equals once.

    Args:
        group: folder of `basis` of a results store.
        bases: bases in the order of the detector axis.
        n_columns: length of the column axis.
    """
    classes = {row: basis.weight_classes for row, basis in enumerate(bases) if basis.weight_classes is not None}
    if not classes:
        return
    most = max(len(one.share) for one in classes.values())
    sizes = {"detector": len(bases), "phase": most, "column": n_columns}
    if not (group / "phase_share").exists():
        for name, spec in WEIGHT_CLASS_VARIABLES.items():
            create_array(group, name, ArrayPlan(spec=spec, sizes=sizes))
    update_attributes(group, {_REPORT: {str(row): one.report for row, one in classes.items()}})
    rows = {}
    for row, one in classes.items():
        n, width = one.coefficients.shape
        coefficients = np.full((most, n_columns), np.nan)
        coefficients[:n, :width] = one.coefficients.cpu().numpy()
        share, gain = np.full(most, np.nan), np.full(most, np.nan)
        share[:n], gain[:n] = one.share.cpu().numpy(), one.gain.cpu().numpy()
        rows[row] = {"phase_coefficients": coefficients, "phase_share": share, "phase_gain": gain}
    fill_rows(group, rows)


def read_weight_classes(group: zarr.Group, row: int, n_columns: int) -> WeightClasses | None:
    """The weight classes of one detector, as they were written; None where it has one set of weights.

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
    return WeightClasses(
        coefficients=torch.from_numpy(np.ascontiguousarray(coefficients[:n, :n_columns])),
        share=torch.from_numpy(share[:n].copy()),
        gain=torch.from_numpy(gain[:n].copy()),
        report=str(dict(group.attrs[_REPORT])[str(row)]),  # type: ignore[arg-type]
    )
