"""A file that was not fitted: read into a store of spectra of its own, which is gone at the end."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hpcxrf.explore.targets import Dataset, Target
from hpcxrf.formats.override import find_override, read_override
from hpcxrf.formats.registry import open_scan
from hpcxrf.formats.scan import ReadOptions
from hpcxrf.store.catalog import dataset_id


@contextmanager
def read_file(path: Path, advance: Callable[[int, int], None]) -> Iterator[Target]:
    """Read a scan into a temporary store, with the energy axis of an override file where its own file has none.

    Nothing is written beside the file.

    Args:
        path: a file of any format that is read, or a Zarr folder.
        advance: called with (rows read, rows).

    Raises:
        InputFileError: it is not a scan, or is damaged.
        OutputError: the folder of temporary files is full.
    """
    from hpcxrf.pipeline.inspect import complete_from_override
    from hpcxrf.store.ingest import ingest_scan

    scan, place = open_scan(path, ReadOptions()), find_override(path, 0)
    energy_kev, calibration, notes = complete_from_override(scan, None if place is None else read_override(place))
    scan = replace(scan, incident_energy_kev=energy_kev, calibration=calibration, notes=(*scan.notes, *notes))
    name = dataset_id(path.absolute(), path.absolute().parent)
    folder = Path(tempfile.mkdtemp(prefix="hpcxrf-explore-"))
    try:
        store = folder / f"{name}.zarr"
        ingest_scan(scan, store, progress=advance)
        dataset = Dataset(dataset_id=name, results=None, spectra=store)
        yield Target(name=str(path), run=None, datasets={name: dataset})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
