"""What the explorer was given: a run, the results of a scan, or a store of spectra; nothing else is ever opened."""

import os
from dataclasses import dataclass
from pathlib import Path

from hpcxrf.config.untrusted import show_name
from hpcxrf.errors import ConfigError, OutputError
from hpcxrf.results.opened import list_stores, name_dataset
from hpcxrf.results.store.opening import is_complete
from hpcxrf.store.packed import folder_of, is_store, locate_store, read_root
from hpcxrf.store.rundir import RunDir

_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """One scan: its stores, as far as they are there."""

    dataset_id: str
    results: Path | None
    spectra: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Scans that may be looked at."""

    name: str
    run: Path | None
    """Run directory, None where there is none."""
    datasets: dict[str, Dataset]
    """By dataset_id."""

    def dataset(self, name: str | None) -> Dataset:
        """Choose a scan by its dataset_id, or the first whose results are finished.

        Raises:
            ConfigError: there is none of that name.
            OutputError: none is finished.
        """
        if name is not None:
            found = self.datasets.get(name)
            if found is None:
                raise ConfigError(f"{show_name(name)}: not a dataset of {self.name}; there are {self._names()}")
            return found
        for one in self.datasets.values():
            if one.results is None or is_complete(one.results):
                return one
        raise OutputError(f"{self.name}: no dataset is finished; `hpcxrf status {self.name}` tells how far the run is")

    def _names(self) -> str:
        names = list(self.datasets)
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return ", ".join(names[:_SHOWN]) + more


def find_target(path: Path) -> Target | None:
    """Find the scans of a run directory, or of one store of results or spectra.

    Args:
        path: run directory, its folder `results`, or a store in it.

    Returns:
        None where the path is none of these: a file that was not fitted, or nothing at all.

    Raises:
        OutputError: a run without any results, or a store that cannot be read.
    """
    named = str(path)
    # A folder that is given as `.` has a name, too.
    path = path.absolute()
    if not path.name:
        return None
    if is_store(path) and "scan_name" in read_root(path).get("attributes", {}):
        spectra = folder_of(path)
        name = name_dataset(spectra)
        alone = Dataset(dataset_id=name, results=None, spectra=spectra)
        return Target(name=named, run=None, datasets={name: alone})
    stores = list_stores(path) if path.is_dir() or is_store(path) else []
    run = _find_run(path, stores)
    if not stores:
        if run is None:
            return None
        raise OutputError(f"{named}: has no results yet; `hpcxrf status {named}` tells how far the run is")
    found = {name_dataset(store): folder_of(store) for store in stores}
    return Target(
        name=named,
        run=run,
        datasets={
            name: Dataset(
                dataset_id=name, results=store, spectra=None if run is None else RunDir(path=run).spectra_store(name)
            )
            for name, store in sorted(found.items())
        },
    )


def find_finished(path: Path) -> Target | None:
    """Find the scans of a run directory of which at least one is finished; None: none is yet."""
    try:
        target = find_target(path)
        if target is not None:
            target.dataset(None)
    except OutputError:
        return None
    return target


def _find_run(path: Path, stores: list[Path]) -> Path | None:
    """The run directory that is named, or that a store of results lies in."""
    places = [path, path.parent, *(store.parent.parent for store in stores[:1])]
    return next((place for place in places if RunDir(path=place).effective_file.is_file()), None)


def stamp_store(path: Path) -> tuple[int, int, int] | None:
    """Say which file the metadata of a store are now: one that is written again has another stamp; None: it is gone."""
    place = locate_store(path)
    try:
        found = os.stat(place / "zarr.json" if place.is_dir() else place)  # noqa: PTH116
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
