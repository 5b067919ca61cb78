"""Sound files of every kind that the product reads, most of them written by itself, and how each is read."""

import io
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import h5py
import numpy as np

from hpcxrf.config.run import load_run_file
from hpcxrf.config.site import load_site
from hpcxrf.formats.candidates import find_scans
from hpcxrf.formats.override import read_override
from hpcxrf.formats.registry import open_scan
from hpcxrf.formats.scan import ReadOptions
from hpcxrf.formats.standard import read_standards
from hpcxrf.pipeline.regions.given import read_labels
from hpcxrf.store.rundir import RunDir

MCA = """VERSION: 3.1
ELEMENTS: 2
CHANNELS: 60
REAL_TIME: 10 11
LIVE_TIME: 9 8
CAL_OFFSET: 0.0 0.1
CAL_SLOPE: 0.01 0.02
CAL_QUAD: 0 0
DATA:
"""
OVERRIDE = """This file will override default fit settings
DATE: Tue Oct 29 10:21:00 2024
ELEMENTS_TO_FIT: Si, S, Ca, Fe, Pt_L
ELEMENTS_WITH_PILEUP: Si_Si
CAL_OFFSET_[E_OFFSET]: -0.005
CAL_SLOPE_[E_LINEAR]: 0.0095
CAL_QUAD_[E_QUADRATIC]: 1e-9
FWHM_OFFSET: 0.12
FWHM_FANOPRIME: 0.00018
COHERENT_SCT_ENERGY: 12.0
COHERENT_SCT_ENERGY_MAX: 12.6
MIN_ENERGY_TO_FIT: 1
MAX_ENERGY_TO_FIT: 13
BRANCHING_RATIO_ADJUSTMENT_L: Pt_L, 1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 1.
"""
STANDARDS = "FILENAME: axo.mda\nELEMENTS_IN_STANDARD: Ca, Fe\nWEIGHT: 1.9, 0.5\n"


@dataclass(frozen=True)
class Seed:
    """A sound file, and how the product reads it."""

    name: str
    write: Callable[[Path], Path]
    """Writes it into a folder; returns what is named to the reader."""
    damaged: Callable[[Path], list[Path]]
    """Files of which one is damaged."""
    read: Callable[[Path], object]


def itself(path: Path) -> list[Path]:
    return [path]


def every_file(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file())


def read_scan(path: Path) -> None:
    """All that `inspect` and `ingest` do to a scan, with a bound on the rows."""
    found, _ = find_scans([path])
    for one in found:
        scan = open_scan(one, ReadOptions())
        scan.read_scalars()
        for first in range(0, min(scan.shape[1], 8 * scan.rows_per_read), scan.rows_per_read):
            scan.read_counts(slice(first, min(first + scan.rows_per_read, scan.shape[1])))


def counts(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).poisson(3.0, shape).astype(np.uint16)


def write_maps(folder: Path) -> Path:
    from hpcxrf.simulate import demo_spec, simulate_scan
    from hpcxrf.simulate.output import write_scan

    spec = demo_spec(shape=(1, 3, 3, 2048), name="maps")
    return write_scan(simulate_scan(spec), folder)[0]


def write_arrays(folder: Path) -> Path:
    from hpcxrf.simulate import demo_spec, simulate_scan
    from hpcxrf.simulate.output import write_scan

    spec = demo_spec(shape=(1, 3, 3, 2048), name="arrays")
    return write_scan(simulate_scan(spec), folder, scan_format="array")[0]


def write_fly(folder: Path) -> Path:
    path = folder / "fly.h5"
    with h5py.File(path, "w") as file:
        file["MAPS_RAW/data_a"] = np.moveaxis(counts(3, 4, 256), 2, 0)
        for name in ("realtime", "inputcounts", "ouputcounts"):
            file[f"MAPS_RAW/{name}"] = np.full((1, 3, 4), 2.0)
    return path


def write_links(folder: Path) -> Path:
    path = folder / "links.h5"
    with h5py.File(path, "w") as file:
        file["a/counts"] = counts(3, 4, 256)
        file["a/counts"].attrs["units"] = "counts"
        file["a"].attrs.create("signal", "counts")
        file["a/scaler_names"] = np.array(["ring", "time"], dtype=h5py.string_dtype())
        file["a/scaler_values"] = np.ones((2, 3, 4))
        file["soft"] = h5py.SoftLink("/a/counts")
        file["out"] = h5py.ExternalLink("other.h5", "/x")
    return path


def write_mda(folder: Path) -> Path:
    from tests.samples.mda_files import write_step_scan

    path = folder / "step.mda"
    write_step_scan(path, counts(2, 3, 4, 128))
    return path


def write_zarr(version: int) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        import zarr

        path = folder / f"array{version}.zarr"
        group = zarr.open_group(path, mode="w", zarr_format=version, attributes={"energy_slope_kev": 0.01})
        group.create_array("counts", data=counts(3, 4, 256), chunks=(3, 4, 256))
        group.create_array("scaler_values", data=np.ones((2, 3, 4)))
        names = group.create_array("scaler_names", shape=(2,), dtype=str)
        names[:] = np.array(["ring", "time"], dtype=object)
        return path

    return write


def write_npz(folder: Path) -> Path:
    np.savez(folder / "a.npz", counts=counts(3, 4, 256), live_time_s=np.ones((3, 4)), x_um=np.ones((3, 4)))
    return folder / "a.npz"


def write_npy(folder: Path) -> Path:
    np.save(folder / "a.npy", counts(3, 4, 256))
    return folder / "a.npy"


def text_of(name: str, content: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_text(content)
        return folder / name

    return write


def list_texts() -> dict[str, Callable[[Path], Path]]:
    """Spectra that are text, by the name of their format."""
    from tests.samples import text_scans as text

    counts_of_one = text.make_counts()
    two = [counts_of_one, text.make_counts(seed=2)]
    spec = (
        f"#F a.spec\n\n#S 1 ct 10\n#@CALIB -0.05 0.01 0\n#@CTIME 10 9.5 10.25\n{text.spec_spectrum(counts_of_one)}\n\n"
    )
    columns = "".join(f"{0.02 + 0.01 * i:.4f}\t{n}\n" for i, n in enumerate(counts_of_one))
    return {
        "emsa": text_of("a.msa", text.emsa(counts_of_one, columns=4, LIVETIME="10.5")),
        "bruker-spx": text_of("a.spx", text.spx(counts_of_one)),
        "amptek-pmca": text_of("b.mca", text.pmca(counts_of_one)),
        "iaea-spe": text_of("a.spe", text.spe(counts_of_one, more="$MCA_CAL:\r\n3\r\n-0.05 0.01 0 keV")),
        "spec": text_of("a.spec", spec),
        "columns": text_of("a.txt", f"Energy (keV)\tCounts\n{columns}"),
        "instrument-csv": text_of("a.csv", text.handheld_csv(two)),
        "pixl-csv": text_of("b.csv", text.pixl_csv(two, two)),
    }


def list_beamlines() -> dict[str, Callable[[Path], Path]]:
    """HDF5 files of beamlines and electron microscopes, by the name of their layout."""
    from tests.samples import beamline_files as files
    from tests.samples.hyperspy_files import write_hspy

    def written(write: Callable[..., Path], name: str, *shape: int) -> Callable[[Path], Path]:
        return lambda folder: write(folder / name, files.make_counts(shape))

    return {
        "pyxrf": written(files.write_pyxrf, "a.h5", 2, 3, 4, 64),
        "larch": written(files.write_larch, "a.h5", 2, 3, 4, 64),
        "bliss": lambda folder: files.write_bliss(folder / "b.h5", files.make_counts((2, 3, 4, 64)), parameters=True),
        "soleil": written(files.write_soleil, "a.nxs", 2, 3, 4, 64),
        "oxford-h5oina": written(files.write_oxford, "a.h5oina", 1, 3, 4, 64),
        "hyperspy": lambda folder: write_hspy(folder / "a.hspy", {"EDX": files.make_counts((3, 4, 700))}),
    }


def write_label_npy(folder: Path) -> Path:
    np.save(folder / "labels.npy", np.arange(16, dtype=np.uint8).reshape(4, 4))
    return folder / "labels.npy"


def write_label_tiff(folder: Path) -> Path:
    import tifffile

    content = io.BytesIO()
    tifffile.imwrite(content, np.arange(16, dtype=np.uint16).reshape(4, 4))
    (folder / "labels.tif").write_bytes(content.getvalue())
    return folder / "labels.tif"


def copy_of(place: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        source = Path(__file__).parents[2] / place
        return Path(shutil.copy(source, folder / source.name))

    return write


def write_run(folder: Path) -> Path:
    """A run directory with state of every kind."""
    from hpcxrf.store.lock import identify_process
    from hpcxrf.store.rundir import create_or_resume, leave_alone

    place = folder / "run"
    run = create_or_resume(place, "input: {files: [a]}\n", {"input": {"files": ["a"]}, "fit": {"kbeta_sd": 0.0}})
    line = {"event": "finished", "task": "ingest", "stage": "ingest", "dataset_id": "a-1", "wall_s": 1.0, "cpu_s": 1.0}
    run.append("a-1", line | {"checksums": {"x": "y"}, "facts": {"notes": ["n"], "shape": [1, 2, 3, 4]}})
    leave_alone(run, {"a-1": "why"})
    run.lock_file.write_text(json.dumps(asdict(identify_process())))
    record = {
        "number": 0,
        "dataset_id": "a-1",
        "name": "a",
        "state": "done",
        "home": "",
        "shape": [1, 2, 3, 4],
        "notes": [],
        "source": "a.npy",
        "made_from": {},
        "facts": {},
    }
    (place / "datasets.jsonl").write_text(json.dumps(record) + "\n")
    end = {"run": None, "wall_s": 1.0, "device": "CPU", "command": "", "started": "", "notes": ["n"]}
    (place / "state" / "end.json").write_text(json.dumps(end))
    (place / "configuration.json").write_text(json.dumps({"input": {"files": ["a"]}}))
    stage = {"stages": {}, "alarms": []}
    (place / "jobs" / "progress.json").write_text(json.dumps(stage))
    return place


def read_run(path: Path) -> None:
    """Every reader of a run directory by itself, as one that fails would keep the others from their files."""
    from hpcxrf.cluster.job_files import read_events, read_progress
    from hpcxrf.errors import HpcxrfError
    from hpcxrf.pipeline.request import config_of_run
    from hpcxrf.runner.datasets import read_datasets, read_kept
    from hpcxrf.runner.done import last_lines
    from hpcxrf.runner.ending import read_end
    from hpcxrf.runner.journal import read_record
    from hpcxrf.store.lock import is_alive, read_lock
    from hpcxrf.store.rundir import left_alone

    run = RunDir(path=path)

    def read_lock_and_holder() -> None:
        held = read_lock(run.lock_file)
        if held is not None:
            is_alive(held)

    def read_journals() -> None:
        for name in run.dataset_ids():
            for line in last_lines(run.read_journal(name)).values():
                if line["event"] == "finished":
                    read_record(line)

    readers = (
        *(run.effective, run.workload_name, lambda: config_of_run(run), read_lock_and_holder, lambda: left_alone(run)),
        *(lambda: read_kept(run), lambda: list(read_datasets(run)), lambda: read_end(run), read_journals),
        *(lambda: read_events(run), lambda: read_progress(run)),
    )
    for reader in readers:
        with suppress(HpcxrfError):
            reader()


def write_store(folder: Path) -> Path:
    from hpcxrf.formats.registry import open_scan as open_one
    from hpcxrf.store.ingest import ingest_scan

    path = folder / "spectra.zarr"
    ingest_scan(open_one(write_npy(folder)), path)
    return path


def read_store(path: Path) -> None:
    from hpcxrf.store.spectra import open_spectra

    store = open_spectra(path)
    store.read_rows([0], slice(0, store.shape[1]))


def write_previous(folder: Path) -> Path:
    from hpcxrf.physics.parameters import PARAMETERS
    from hpcxrf.store.schema import COMPLETE_ATTRIBUTE, SCHEMA_ATTRIBUTE, SCHEMA_VERSION

    path = folder / "previous.zarr"
    path.mkdir()
    theta = {parameter.name: 1.0 for parameter in PARAMETERS}
    attributes = {SCHEMA_ATTRIBUTE: SCHEMA_VERSION, COMPLETE_ATTRIBUTE: True, "constants": "physics"}
    attributes |= {"theta_by_detector": {"0": theta, "1": None}}
    (path / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes}))
    return path


def read_previous(path: Path) -> object:
    from hpcxrf.physics.constants import PHYSICS
    from hpcxrf.pipeline.prepare.previous import previous_theta

    return previous_theta(path, 0, PHYSICS)


@cache
def list_seeds() -> tuple[Seed, ...]:
    rows = "".join(f" {i % 7} {i % 5}\n" for i in range(60))
    scans = {
        "maps-hdf5": write_maps,
        "array-hdf5": write_arrays,
        "fly-hdf5": write_fly,
        "linked-hdf5": write_links,
        "mda": write_mda,
        "epics-mca": text_of("a.mca", MCA + rows),
        "npy": write_npy,
        "npz": write_npz,
        **list_texts(),
        **list_beamlines(),
    }
    texts = {
        "override": (text_of("maps_fit_parameters_override.txt", OVERRIDE), read_override),
        "standards": (text_of("maps_standardinfo.txt", STANDARDS), read_standards),
        "run file": (copy_of("workflows/scan.yaml"), load_run_file),
        "site profile": (copy_of("slurm/generic-cpu.yaml"), load_site),
        "labels npy": (write_label_npy, lambda path: read_labels(path, (4, 4))),
        "labels tiff": (write_label_tiff, lambda path: read_labels(path, (4, 4))),
    }
    folders = {
        "zarr 2": (write_zarr(2), read_scan),
        "zarr 3": (write_zarr(3), read_scan),
        "run directory": (write_run, read_run),
        "spectra store": (write_store, read_store),
        "previous store": (write_previous, read_previous),
    }
    return (
        *(Seed(name, write, itself, read_scan) for name, write in scans.items()),
        *(Seed(name, write, itself, read) for name, (write, read) in texts.items()),
        *(Seed(name, write, every_file, read) for name, (write, read) in folders.items()),
    )
