"""The results of a run, opened for reading: datasets by name, each a tree of xarray Datasets."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import xarray as xr

from hpcxrf.errors import ConfigError, DatasetsFailedError, OutputError
from hpcxrf.results.store.opening import is_complete, open_results
from hpcxrf.store.packed import SUFFIX, folder_of, is_store, locate_store

_SHOWN = 20


@dataclass(frozen=True, slots=True, repr=False)
class Results(Mapping[str, xr.DataTree]):
    """Finished datasets of a run by name; one is opened when it is asked for.

    `results["leaf-1a2b3c4d"]` is a tree with the groups `maps`, `spectrum`, `parameters` and, where regions were
    sought, `regions`, where maps were normalised, `normalised`.
    """

    stores: Mapping[str, Path]
    """Results stores by name of the dataset."""
    unfinished: tuple[str, ...] = ()
    """Names of the datasets of which the results are not complete."""

    def __getitem__(self, name: str) -> xr.DataTree:
        if name not in self.stores:
            hint = "its results are not complete" if name in self.unfinished else f"there are {self._names()}"
            raise KeyError(f"{name}: not a finished dataset of this run; {hint}")
        return open_results(self.stores[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.stores)

    def __len__(self) -> int:
        return len(self.stores)

    def maps(self, name: str | None = None) -> xr.Dataset:
        """Open the maps of one dataset: amplitude, sigma, detection_limit (detector, component, y, x), status ...

        Args:
            name: name of the dataset; None: the only one.

        Raises:
            ConfigError: several datasets and no name.
            KeyError: no finished dataset of that name.
        """
        return self._tree(name)["maps"].to_dataset()

    def spectrum(self, name: str | None = None) -> xr.Dataset:
        """Open the integrated spectra of one dataset with their fits: counts, model, background ...

        Args:
            name: name of the dataset; None: the only one.

        Raises:
            ConfigError: several datasets and no name.
            KeyError: no finished dataset of that name.
        """
        return self._tree(name)["spectrum"].to_dataset()

    def normalised(self, name: str | None = None) -> xr.Dataset:
        """Open the normalised maps of one dataset: rate, sigma, detection_limit (detector, component, y, x), flag ...

        Args:
            name: name of the dataset; None: the only one.

        Raises:
            ConfigError: several datasets and no name, or maps that were not normalised.
            KeyError: no finished dataset of that name.
        """
        tree = self._tree(name)
        if "normalised" not in tree.children:
            raise ConfigError(
                "these maps were not normalised; run the scan with a section normalise, as "
                "`--set normalise.i0=us_ic --set normalise.reference=175000`"
            )
        return tree["normalised"].to_dataset()

    def areal_density(self, name: str | None = None) -> xr.Dataset:
        """Open the areal densities of one dataset: areal_density, sigma (detector, component, y, x) ..., ug/cm2.

        Args:
            name: name of the dataset; None: the only one.

        Raises:
            ConfigError: several datasets and no name, or maps that were not quantified.
            KeyError: no finished dataset of that name.
        """
        tree = self._tree(name)
        if "areal_density" not in tree.children:
            raise ConfigError(
                "these maps were not quantified; `hpcxrf quantify out --standard axo_std.mda --i0 us_ic` does it"
            )
        return tree["areal_density"].to_dataset()

    def to(
        self, form: str, path: str | Path, *, where: str | Sequence[str] = (), force: bool = False
    ) -> tuple[Path, ...]:
        """Write the results for another program, as `hpcxrf export` does; what is there already is skipped.

        Args:
            form: `maps`, `nexus`, `pyxrf`, `pymca`, `tiff`, `csv`, `override`, `png` or `ome-zarr`.
            path: folder, in which each dataset has its own name; of a single dataset also the name of the file.
            where: patterns of names of datasets, such as `leaf-*`; all without.
            force: replace files of another result or origin.

        Returns:
            All files and folders.

        Raises:
            ConfigError: no such format, or no dataset of such a name.
            OutputError: files of another origin are in the way.
            DatasetsFailedError: some could not be written; all others are.
        """
        from hpcxrf.results.export.write import export_results, is_folder_of, select_stores

        stores = select_stores(self.stores, [where] if isinstance(where, str) else where)
        output = Path(path)
        is_folder = len(stores) > 1 or is_folder_of(output, form)
        ended = export_results(stores, form, output, is_folder=is_folder, force=force)
        failed = [f"  {one.name}: {one.reason}" for one in ended if one.state == "failed"]
        if failed:
            raise DatasetsFailedError("\n".join((f"{len(failed)} of {len(ended)} could not be exported:", *failed)))
        return tuple(file for one in ended for file in one.files)

    def _tree(self, name: str | None) -> xr.DataTree:
        if name is None and len(self.stores) != 1:
            raise ConfigError(f"{len(self.stores)} datasets; name one of {self._names()}")
        return self[next(iter(self.stores)) if name is None else name]

    def _names(self) -> str:
        names = list(self.stores)
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return ", ".join(names[:_SHOWN]) + more

    def __repr__(self) -> str:
        lacking = f"; not finished: {len(self.unfinished)}" if self.unfinished else ""
        return f"<Results of {len(self.stores)} datasets: {self._names()}{lacking}>"

    def _repr_html_(self) -> str:
        rows = "".join(f"<li>{escape(name)}</li>" for name in list(self.stores)[:_SHOWN])
        more = f"<li>{len(self.stores) - _SHOWN} more</li>" if len(self.stores) > _SHOWN else ""
        return f"<div>Results of {len(self.stores)} datasets</div><ul>{rows}{more}</ul>"


def find_results(path: Path) -> Results:
    """Find the finished datasets of a run directory, or a single results store.

    Args:
        path: run directory, its folder `results`, or a store in it, `<dataset>.zarr` or `<dataset>.zarr.zip`.

    Raises:
        OutputError: nothing there, or nothing that is finished.
    """
    stores = list_stores(path)
    if not stores:
        raise OutputError(f"{path}: no results here; name a run directory or a store <dataset>.zarr in its results")
    finished = {name_dataset(store): store for store in stores if is_complete(store)}
    unfinished = tuple(name for name in map(name_dataset, stores) if name not in finished)
    if not finished:
        raise OutputError(f"{path}: no dataset is finished; `hpcxrf status {path}` tells how far the run is")
    return Results(finished, unfinished)


def list_stores(path: Path) -> list[Path]:
    """List the results stores of a run directory, of its folder `results`, or the only one, finished or not."""
    if is_store(path):
        return [locate_store(path)]
    folder = path / "results" if (path / "results").is_dir() else path
    folders = (store for store in folder.glob("*.zarr") if store.is_dir())
    return sorted({locate_store(store) for store in (*folders, *folder.glob(f"*.zarr{SUFFIX}"))})


def name_dataset(store: Path) -> str:
    """Name of the dataset of a results store."""
    return folder_of(store).name.removesuffix(".zarr")
