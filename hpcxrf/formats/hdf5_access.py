"""What keeps an HDF5 file from being read: filters that are not installed, writers at work or killed."""

import importlib
from pathlib import Path
from typing import Final

import h5py

from hpcxrf.errors import InputFileError

PLUGINS: Final = "hdf5plugin"
"""Package with the filters that HDF5 itself lacks; used where it is installed."""
_FILTERS: Final = {
    4: "SZIP",
    307: "BZIP2",
    32001: "Blosc",
    32004: "LZ4",
    32008: "Bitshuffle",
    32013: "ZFP",
    32015: "Zstandard",
    32017: "SZ",
    32018: "FCIDECOMP",
    32024: "SZ3",
    32026: "Blosc2",
    32028: "SPERR",
}
"""Names of registered filters: https://github.com/HDFGroup/hdf5_plugins/blob/master/docs/RegisteredFilterPlugins.md"""
_IN_USE: Final = "already open for write"
_FLAGS_DIFFER: Final = "locking flag values don't match"


def open_for_reading(path: Path) -> h5py.File:
    """Open without a lock, which shared file systems often lack; a file that a writer with SWMR has open is read too.

    Raises:
        OSError: missing, damaged, or another program writes the file without SWMR.
    """
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        if _FLAGS_DIFFER in str(error):
            # This very program has it open, with locks.
            return h5py.File(path, "r")
        if _IN_USE not in str(error):
            raise
    try:
        return h5py.File(path, "r", locking=False, swmr=True)
    except OSError as error:
        raise OSError(f"file is {_IN_USE}") from error


def find_group(file: h5py.File, path: str) -> h5py.Group | None:
    """A group that hard links alone reach: no link is followed, in the file or out of it."""
    group: object = file
    for part in path.split("/"):
        if not isinstance(group, h5py.Group) or not isinstance(group.get(part, getlink=True), h5py.HardLink):
            return None
        group = group.get(part)
    return group if isinstance(group, h5py.Group) else None


def explain_fault(path: Path, error: BaseException) -> str:
    """Say what a fault of HDF5 means, and the remedy."""
    text = str(error)
    if _IN_USE in text:
        return (
            f"{path}: another program writes this file, or was killed while it did; wait until it is closed. If no "
            f"program has it open, clear the mark on a copy: h5clear --status {path.name} (of the HDF5 tools)"
        )
    return f"{path}: cannot be read as HDF5: {error}; if it is truncated or damaged, copy it again"


def require_filters(dataset: h5py.Dataset) -> None:
    """Load the plugins that a dataset needs.

    Raises:
        InputFileError: a filter is not available; its name, and the package that brings it.
    """
    missing = _find_missing(dataset)
    if missing and _load_plugins():
        missing = _find_missing(dataset)
    if missing:
        names = ", ".join(f"{name} (number {code})" for code, name in missing.items())
        raise InputFileError(
            f"{dataset.file.filename}: {dataset.name} is compressed with {names}, which is not installed; "
            f"install the package {PLUGINS}: pip install {PLUGINS}"
        )


def _find_missing(dataset: h5py.Dataset) -> dict[int, str]:
    """Name by number the filters of a dataset that this HDF5 cannot undo."""
    if dataset.chunks is None:
        return {}
    plan = dataset.id.get_create_plist()
    used = [plan.get_filter(i) for i in range(plan.get_nfilters())]
    return {
        int(code): _FILTERS.get(code) or name.decode("utf-8", "replace").split(";")[0] or "an unknown filter"
        for code, _, _, name in used
        if not h5py.h5z.filter_avail(code)
    }


def _load_plugins() -> bool:
    """Register the filters of the plugin package; False where it is not installed."""
    try:
        importlib.import_module(PLUGINS)
    except ImportError:
        return False
    return True
