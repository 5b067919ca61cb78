"""Changes of the pixels' columns with theta, kept beside them in the group `basis`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
import zarr

from hpcxrf.fitting.pixels.basis import PixelBasis
from hpcxrf.fitting.pixels.tangent import Tangents
from hpcxrf.results.store.storage import (
    ArrayPlan,
    array_of,
    create_array,
    create_labels,
    fill_rows,
    labels_of,
    update_attributes,
)
from hpcxrf.store.schema import TANGENT_VARIABLES

_PAIRS: Final = "tangent_pairs"


def write_tangents(group: Path, bases: Sequence[PixelBasis], n_channels: int) -> None:
    """Write the changes of every detector's columns, if any; twice equals once.

    Args:
        group: folder of `basis` of a results store.
        bases: bases in the order of the detector axis; the same parameters in each that has tangents.
        n_channels: channels of the full spectrum; outside the fit range the changes read NaN.
    """
    tangents = {row: (basis.channels, basis.tangents) for row, basis in enumerate(bases) if basis.tangents is not None}
    if not tangents:
        return
    _, some = next(iter(tangents.values()))
    sizes = {
        "detector": len(bases),
        "change": some.columns.shape[0],
        "component": some.columns.shape[2],
        "channel": n_channels,
        "place": some.motion.shape[0],
        "parameter": len(some.names),
    }
    if not (group / "changes").exists():
        create_labels(group, "parameter", list(some.names))
        for name, spec in TANGENT_VARIABLES.items():
            create_array(group, name, ArrayPlan(spec=spec, sizes=sizes))
    update_attributes(group, {_PAIRS: [list(pair) for pair in some.pairs]})
    rows = {}
    for row, (channels, one) in tangents.items():
        changes = np.full((sizes["change"], sizes["component"], n_channels), np.nan)
        changes[..., channels] = one.columns.mT.cpu().numpy()
        rows[row] = {"changes": changes, "motion": one.motion.cpu().numpy(), "prior_sd": one.prior_sd.cpu().numpy()}
    fill_rows(group, rows)


def read_tangents(group: zarr.Group, row: int, channels: slice) -> Tangents | None:
    """The changes of one detector's columns, as they were written; None where the pixels have the scan's theta.

    Args:
        group: `basis` of a results store.
        row: place on the detector axis.
        channels: channels of the fit range.
    """
    if "changes" not in group:
        return None
    changes = np.asarray(array_of(group, "changes")[row])[..., channels]
    pairs = np.asarray(group.attrs[_PAIRS], dtype=np.int64).reshape(-1, 2).tolist()
    return Tangents(
        names=labels_of(group, "parameter"),
        prior_sd=torch.from_numpy(np.asarray(array_of(group, "prior_sd")[row])),
        pairs=tuple((int(i), int(j)) for i, j in pairs),
        columns=torch.from_numpy(np.ascontiguousarray(np.moveaxis(changes, 1, 2))),
        motion=torch.from_numpy(np.asarray(array_of(group, "motion")[row])),
    )
