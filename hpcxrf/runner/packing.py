"""Which stores of a run may change their form: those of datasets that are done, wherever the workload keeps them."""

from pathlib import Path

from hpcxrf.runner.datasets import read_datasets
from hpcxrf.store.packed import SUFFIX, folder_of, has_root, is_store, read_root
from hpcxrf.store.rundir import RunDir
from hpcxrf.store.schema import COMPLETE_ATTRIBUTE


def list_finished_stores(run: RunDir) -> list[Path]:
    """Stores of spectra and results of every dataset that is done, by their folders; not those of damaged metadata.

    Raises:
        OutputError: the records of the datasets are damaged.
    """
    return [store for store in _list_stores(run) if has_root(store) and _is_closed(store)]


def list_damaged_stores(run: RunDir) -> list[Path]:
    """Stores of datasets that are done whose metadata cannot be read, by their folders.

    Raises:
        OutputError: the records of the datasets are damaged.
    """
    return [store for store in _list_stores(run) if is_store(store) and not has_root(store)]


def _list_stores(run: RunDir) -> list[Path]:
    done = ((run.inner(record.home), record.dataset_id) for record in read_datasets(run) if record.state == "done")
    return [store for home, name in done for store in (home.spectra_store(name), home.results_store(name))]


def _is_closed(store: Path) -> bool:
    attributes = read_root(store).get("attributes")
    return isinstance(attributes, dict) and bool(attributes.get(COMPLETE_ATTRIBUTE))


def list_packed_stores(run: RunDir) -> list[Path]:
    """Stores of a run that are zips, by their folders; also those whose dataset was not finished afterwards.

    Raises:
        OutputError: the records of the datasets are damaged.
    """
    homes = sorted({"", *(record.home for record in read_datasets(run))})
    folders = [run.inner(home).path / name for home in homes for name in ("spectra", "results")]
    return [folder_of(file) for folder in folders for file in sorted(folder.glob(f"*.zarr{SUFFIX}"))]
