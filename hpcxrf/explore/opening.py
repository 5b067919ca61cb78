"""Opening of a scan that is to be looked at: its stores as far as they are there, nothing of them read."""

from typing import Any, Final

import numpy as np
import xarray as xr

from hpcxrf.errors import OutputError
from hpcxrf.explore.kept import KeptArrays
from hpcxrf.explore.layers import list_layers, list_window_layers
from hpcxrf.explore.session import Session
from hpcxrf.explore.targets import Dataset, Target, stamp_store
from hpcxrf.explore.tiles import KeptCounts
from hpcxrf.explore.windows import Window, choose_windows
from hpcxrf.results.names import SUM
from hpcxrf.results.store.opening import is_complete, open_results
from hpcxrf.store.packed import is_store
from hpcxrf.store.spectra import open_spectra

_GROUPS: Final = ("maps", "spectrum", "parameters", "regions", "normalised", "areal_density")
_MAP_BYTES: Final = 168 << 20
_BLOCK_BYTES: Final = 34 << 20
_TILE_BYTES: Final = 36 << 20


def open_session(target: Target, dataset: Dataset) -> Session:
    """Open a scan; arrays are read when they are asked for.

    Args:
        target: what the explorer was given.
        dataset: one of its scans.

    Raises:
        OutputError: its results are not finished, or its stores cannot be read.
    """
    groups: dict[str, xr.Dataset] = {}
    attributes: dict[Any, Any] = {}
    stamps = {path: stamp_store(path) for path in (dataset.results,) if path is not None}
    if dataset.results is not None:
        if not is_complete(dataset.results):
            raise OutputError(f"{dataset.results}: is not finished; `hpcxrf status` tells how far the run is")
        tree = open_results(dataset.results)
        groups = {name: tree[name].to_dataset() for name in _GROUPS if name in tree.children}
        attributes = dict(tree.attrs)
    counts, no_counts = _open_counts(target, dataset)
    if counts is not None and dataset.spectra is not None:
        stamps[dataset.spectra] = stamp_store(dataset.spectra)
    facts: Any = None if counts is None else counts.store
    calibration = None if facts is None else facts.calibration
    windows: tuple[Window, ...] = ()
    if groups:
        maps, layers = groups["maps"], list_layers(groups)
        shape_yx = (maps.sizes["y"], maps.sizes["x"])
        names = [str(name) for name in maps["detector"].values]
    elif counts is None:
        raise OutputError(no_counts)
    else:
        shape_yx = facts.shape[1:3]
        names = [*map(str, range(facts.shape[0])), *([SUM] if facts.shape[0] > 1 else [])]
        if calibration is not None:
            integrated = np.stack([facts.integrated(number) for number in range(facts.shape[0])])
            windows = choose_windows(integrated, calibration, facts.incident_energy_kev)
        layers = list_window_layers(tuple(names), tuple(window.name for window in windows))
    return Session(
        target=target,
        dataset=dataset,
        groups=groups,
        attributes=attributes,
        layers=layers,
        counts=counts,
        no_counts=no_counts,
        shape_yx=shape_yx,
        detectors=tuple(sorted(names, key=lambda name: name != SUM)),
        calibration=calibration,
        windows=windows,
        _stamps=stamps,
        _maps=KeptArrays(most_bytes=_MAP_BYTES),
    )


def _open_counts(target: Target, dataset: Dataset) -> tuple[KeptCounts | None, str]:
    """Counts of a scan, or why they are not there."""
    if dataset.spectra is None:
        return None, f"{target.name}: holds maps alone; for its spectra explore the run directory"
    if not is_store(dataset.spectra):
        return None, (
            f"{dataset.spectra}: the spectra are not there any more; `hpcxrf verify {target.run} --redo && "
            f"hpcxrf resume {target.run}` reads them again from the files of the scan"
        )
    return KeptCounts(
        store=open_spectra(dataset.spectra),
        blocks=KeptArrays(most_bytes=_BLOCK_BYTES),
        tiles=KeptArrays(most_bytes=_TILE_BYTES),
    ), ""
