"""A synthetic archive as a folder: scans, override files, truth and index; resumable."""

import csv
import io
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

from hpcxrf.errors import ConfigError, InputFileError, OutputError
from hpcxrf.formats.override import OVERRIDE_NAME
from hpcxrf.simulate.archive import archive_spec, check_options
from hpcxrf.simulate.output import make_folder, write_scan
from hpcxrf.simulate.scan import simulate_scan
from hpcxrf.simulate.spec import ScanSpec, list_families
from hpcxrf.store.files import atomic_write_text, output_faults

ARCHIVE_VERSION: Final = 2
"""Version of the generator: what it draws for a seed changes with it. 2: line data of its own."""
OPTIONS_FILE: Final = "archive.json"
INDEX_FILE: Final = "archive.csv"
TRUTH_FOLDER: Final = "truth"
_TEXT_BYTES: Final = 4096

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveOptions:
    """Options of an archive."""

    n: int
    seed: int
    shape_yx: tuple[int, int] = (8, 8)
    channels: int = 2048
    detectors: int | None = None
    """None: 1 to 4, drawn for each dataset."""
    version: int = ARCHIVE_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveRow:
    """One line of the index; families are separated by spaces."""

    dataset: str
    seed: int
    channels: int
    detectors: int
    incident_energy_kev: float
    nominal_energy_kev: float
    counts: int
    """Counts in the summed spectrum of detector 0."""
    families: str
    """All that are there."""
    listed: str
    unlisted: str
    absent: str


def write_archive(
    folder: Path,
    n: int,
    seed: int,
    *,
    shape_yx: tuple[int, int] = (8, 8),
    channels: int = 2048,
    detectors: int | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write the datasets 0 to n - 1 of a synthetic archive, or what is missing of them.

    `sim-00000/` holds the scan (`sim-00000.h50`, `.h51` ... in the layout maps-v10) and an override file with
    the listed elements and the nominal incident energy, and nothing else; `truth/` what `read_truth` opens;
    `archive.csv` the index, written when all is there; `archive.json` these options. A dataset depends on the
    seed and its number alone. Every file appears when it is whole, the truth of a dataset last; so a folder
    that was left half done is completed by the same call, and a larger `n` extends it.

    Args:
        folder: new, empty, or of the same archive.
        n: number of datasets.
        seed: of the archive.
        shape_yx: rows and columns of every scan.
        channels: of every spectrum.
        detectors: of every scan; 1 to 4, drawn, if not given.
        jobs: processes; one a core if not given. With more than one, a script that calls this must guard
            its main code by `if __name__ == "__main__"`.
        progress: called with datasets done and all datasets.

    Returns:
        The index.

    Raises:
        ConfigError: an argument that is out of range.
        OutputError: the folder holds something else or an archive of other options, or cannot be written.
    """
    options = ArchiveOptions(n=n, seed=seed, shape_yx=shape_yx, channels=channels, detectors=detectors)
    processes = len(os.sched_getaffinity(0)) if jobs is None else jobs
    _refuse_options(options, processes)
    _claim(folder, options)
    rows: dict[int, ArchiveRow] = {}
    for index, row in _write_datasets(folder, options, min(processes, n)):
        rows[index] = row
        if progress is not None:
            progress(len(rows), n)
    atomic_write_text(folder / INDEX_FILE, _format_csv([rows[i] for i in range(n)]))
    return folder / INDEX_FILE


def write_dataset(folder: Path, options: ArchiveOptions, index: int) -> ArchiveRow:
    """Write one dataset of an archive, unless all its files are there.

    Raises:
        OutputError: the folder cannot be written, or a file that is there is damaged.
    """
    spec = archive_spec(
        options.seed, index, shape_yx=options.shape_yx, channels=options.channels, detectors=options.detectors
    )
    files = dataset_files(folder, spec)
    if not all(file.is_file() for file in files):
        _remove_partials(folder, spec.name)
        make_folder(folder / spec.name)
        atomic_write_text(folder / spec.name / OVERRIDE_NAME, format_override(spec))
        write_scan(simulate_scan(spec), folder / spec.name, truth_folder=folder / TRUTH_FOLDER)  # its truth comes last
    return _build_row(spec, _read_total_counts(files[0]))


def dataset_files(folder: Path, spec: ScanSpec) -> tuple[Path, ...]:
    """All files of a dataset of an archive, the scan's first detector first."""
    own, truth = folder / spec.name, folder / TRUTH_FOLDER
    return (
        *(own / f"{spec.name}.h5{d}" for d in range(spec.shape[0])),
        own / OVERRIDE_NAME,
        truth / f"{spec.name}.truth.hdf5",
        truth / f"{spec.name}.truth.json",
    )


def format_override(spec: ScanSpec) -> str:
    """Override file with the user's knowledge of the sample: elements to fit, nominal incident energy."""
    elements = ", ".join(spec.listed_elements)
    return f"ELEMENTS_TO_FIT: {elements}\nCOHERENT_SCT_ENERGY: {_nominal_kev(spec)!r}\n"


def read_index(path: Path) -> tuple[ArchiveRow, ...]:
    """Read the index of an archive.

    Raises:
        InputFileError: it cannot be read, or is not an index.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return tuple(_parse_row(line) for line in csv.DictReader(file))
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InputFileError(f"{path}: not an index of a synthetic archive ({error}); name its {INDEX_FILE}") from error


def _parse_row(line: Mapping[str, str]) -> ArchiveRow:
    types = {f.name: f.type for f in fields(ArchiveRow)}
    made: dict[str, Any] = {name: kind(line[name]) if callable(kind) else line[name] for name, kind in types.items()}
    return ArchiveRow(**made)


def _refuse_options(options: ArchiveOptions, jobs: int) -> None:
    if options.n < 1 or jobs < 1:
        raise ConfigError(f"archive: n {options.n} and jobs {jobs} must be at least 1")
    check_options(seed=options.seed, shape_yx=options.shape_yx, channels=options.channels, detectors=options.detectors)


def _claim(folder: Path, options: ArchiveOptions) -> None:
    """Make the folder this archive's, or refuse what it holds."""
    make_folder(folder)
    path = folder / OPTIONS_FILE
    stored = _read_options(path)
    if stored is None:
        with output_faults(folder, bytes_needed=_TEXT_BYTES):
            strangers = sorted(p.name for p in folder.iterdir() if p.suffix != ".partial")
        if strangers:
            raise OutputError(
                f"{folder}: holds {', '.join(strangers[:3])} and is not a synthetic archive; name another folder"
            )
    else:
        _refuse_other(folder, stored, options)
    if stored != options:
        atomic_write_text(path, json.dumps(asdict(options), indent=1) + "\n")


def _read_options(path: Path) -> ArchiveOptions | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        height, width = content["shape_yx"]
        return ArchiveOptions(**{**content, "shape_yx": (height, width)})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path}: does not describe the archive ({error}); name another folder") from error


def _refuse_other(folder: Path, stored: ArchiveOptions, requested: ArchiveOptions) -> None:
    """A larger number of datasets extends an archive; everything else must be as it was."""
    wanted = asdict(replace(requested, n=min(requested.n, stored.n)))
    differences = [
        f"{name} is {value}, requested {wanted[name]}"
        for name, value in asdict(stored).items()
        if value != wanted[name]
    ]
    if requested.n < stored.n:
        differences[0] += " (it can only grow)"
    if differences:
        raise OutputError(
            f"{folder}: holds another archive: {'; '.join(differences)}; give its options or name another folder"
        )


def _write_datasets(folder: Path, options: ArchiveOptions, processes: int) -> Iterator[tuple[int, ArchiveRow]]:
    """Datasets as they are finished, in any order."""
    if processes == 1:
        for index in range(options.n):
            yield index, write_dataset(folder, options, index)
        return
    # A process that was forked while BLAS threads ran could wait for them for ever.
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_ignore_interrupt)
    try:
        with _hold_interrupt():
            futures: dict[Future[ArchiveRow], int] = {
                pool.submit(write_dataset, folder, options, index): index for index in range(options.n)
            }
        for done in as_completed(futures):
            yield futures[done], done.result()
    except BrokenProcessPool as error:
        raise OutputError(
            f"{folder}: a process was killed, perhaps for lack of memory; rerun the same command with fewer --jobs"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _hold_interrupt() -> Iterator[None]:
    """Let Ctrl-C wait while processes start: one that does not ignore it yet would end with a traceback.

    They inherit what is blocked.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ignore_interrupt() -> None:
    """Ctrl-C reaches every process of the terminal; this one finishes its dataset."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _remove_partials(folder: Path, name: str) -> None:
    """Remove what a killed process left of this dataset."""
    with output_faults(folder, bytes_needed=_TEXT_BYTES):
        for place, pattern in ((name, "*.partial"), (TRUTH_FOLDER, f".{name}.truth.*.partial")):
            for path in (folder / place).glob(pattern):
                path.unlink(missing_ok=True)


def _read_total_counts(path: Path) -> int:
    """Counts in the summed spectrum of a file of the layout maps-v10."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return int(file["MAPS/Spectra/Integrated_Spectra/Spectra"][()].sum(dtype=float))
    except (OSError, KeyError) as error:
        raise OutputError(f"{path}: is damaged ({error}); remove it and rerun the same command") from error


def _build_row(spec: ScanSpec, counts: int) -> ArchiveRow:
    there, listed = list_families(spec), spec.listed_elements
    return ArchiveRow(
        dataset=spec.name,
        seed=spec.seed,
        channels=spec.shape[3],
        detectors=spec.shape[0],
        incident_energy_kev=spec.incident_energy_kev,
        nominal_energy_kev=_nominal_kev(spec),
        counts=counts,
        families=" ".join(sorted(there)),
        listed=" ".join(listed),
        unlisted=" ".join(sorted(set(there) - set(listed))),
        absent=" ".join(sorted(set(listed) - set(there))),
    )


def _nominal_kev(spec: ScanSpec) -> float:
    return spec.file_energy_kev or spec.incident_energy_kev


def _format_csv(rows: list[ArchiveRow]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(ArchiveRow)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()
