"""The inputs of ../shared/cases that are HDF5, each with its right answer, and what `inspect` may cost."""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpcxrf.formats.registry import open_scan
from tests.conftest import skip_or_fail
from tests.samples.array_files import read_all

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"


@pytest.fixture(scope="module")
def cases():
    if not CASES.is_dir():
        skip_or_fail(f"cases not found: {CASES}; put the shared folder beside the project")
    return CASES


def test_points_of_four_detectors_are_neither_rows_nor_columns(cases):
    path = cases / "maps" / "n4m_detectors.h5"
    scan = open_scan(path)
    assert scan.shape == (4, 6, 10, 1024)
    with h5py.File(path) as file:
        stored = file["entry/measurement/xspress3/data"][()]
    np.testing.assert_array_equal(read_all(scan), stored.transpose(1, 0, 2).reshape(4, 6, 10, 1024))
    assert (scan.calibration[3].slope_kev, scan.incident_energy_kev) == (0.0098, 9.5)


@pytest.mark.parametrize(("interpretation", "notes"), [("spectrum", 0), (None, 1)])
def test_a_wide_map_of_few_channels_keeps_its_columns(tmp_path, interpretation, notes):
    counts = np.random.default_rng(0).poisson(0.3, (6, 700, 512)).astype("u1")
    with h5py.File(tmp_path / "wide.h5", "w") as file:
        stored = file.create_dataset("entry/mca", data=counts, compression="gzip")
        if interpretation is not None:
            stored.attrs["interpretation"] = interpretation
    scan = open_scan(tmp_path / "wide.h5")
    assert (scan.shape, len(scan.notes)) == ((1, 6, 700, 512), notes)
    np.testing.assert_array_equal(read_all(scan)[0], counts)


def test_the_axes_of_hyperspy_are_not_ignored(cases):
    scan = open_scan(cases / "files" / "hyperspy_axes.hspy")
    assert scan.shape == (1, 3, 4, 1917)
    assert scan.calibration[0].offset_kev == pytest.approx(0.8315, abs=5e-5)
    assert scan.calibration[0].slope_kev == pytest.approx(0.010005, abs=5e-7)


def test_pyxrf_has_three_detectors_and_its_energy(cases):
    path = cases / "files" / "pyxrf_like.h5"
    scan = open_scan(path)
    assert (scan.shape, scan.incident_energy_kev) == ((3, 3, 4, 4096), 10.0)
    assert [c.slope_kev for c in scan.calibration] == [0.01] * 3
    with h5py.File(path) as file:
        np.testing.assert_array_equal(read_all(scan), [file[f"xrfmap/det{n}/counts"][()] for n in (1, 2, 3)])
    assert scan.read_scalars().scaler_names == ("i0",)
    assert scan.read_scalars().x_um[0].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_inspect_loads_neither_torch_nor_dask_nor_the_optional_packages(cases):
    files = [
        cases / "files" / "pyxrf_like.h5",
        cases / "files" / "hyperspy_axes.hspy",
        cases / "maps" / "n4m_detectors.h5",
    ]
    code = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from hpcxrf.formats.scan import ReadOptions\n"
        "from hpcxrf.pipeline.inspect import inspect_file\n"
        "for name in sys.argv[1:]: inspect_file(Path(name), ReadOptions())\n"
        "print(json.dumps([n for n in ('torch', 'dask', 'rsciio', 'hdf5plugin', 'zarr') if n in sys.modules]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, files)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
