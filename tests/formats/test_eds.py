"""Bruker .bcf, JEOL .pts, Velox .emd: recognised without rosettasciio, read with it.

Nobody ships a free file of these formats, and rosettasciio writes none: without such a file what its readers return is
stood in for, as it documents it.
"""

import sys
import types

import h5py
import numpy as np
import pytest

from hpcxrf.errors import InputFileError
from hpcxrf.formats.eds import sniff
from hpcxrf.formats.registry import open_scan
from hpcxrf.formats.scan import EnergyCalibration
from tests.samples.array_files import make_counts, read_all

KINDS = {"bcf": ("bruker", "bruker-bcf"), "pts": ("jeol", "jeol-pts"), "emd": ("emd", "velox-emd")}


def write_head(folder, kind):
    """A file of which nothing but what it is recognised by is there."""
    path = folder / f"a.{kind}"
    if kind == "emd":
        with h5py.File(path, "w") as file:
            file.create_group("Data/SpectrumStream")
    else:
        path.write_bytes({"bcf": b"AAMVHFSS", "pts": b"\x30\x01\x00\x00"}[kind] + bytes(600))
    return path


def axis(name, size, offset, scale, units, **more):
    return {"name": name, "size": size, "offset": offset, "scale": scale, "units": units, **more}


def describe(data, *, energy_first=False):
    """A map as rosettasciio returns it."""
    axes = [
        axis("height", data.shape[0], 0.0, 0.5, "µm", navigate=True),
        axis("width", data.shape[1], 0.0, 0.5, "µm", navigate=True),
        axis("Energy", data.shape[2], -0.475, 0.01, "keV", navigate=False),
    ]
    if energy_first:
        data, axes = np.moveaxis(data, 2, 0), [axes[2], *axes[:2]]
    return {"data": data, "axes": axes, "metadata": {"General": {"title": "EDX"}}}


def image():
    axes = [axis("y", 3, 0.0, 1.0, "µm"), axis("x", 4, 0.0, 1.0, "µm")]
    return {"data": np.ones((3, 4), "u2"), "axes": axes, "metadata": {"General": {"title": "HAADF"}}}


@pytest.fixture
def stand_in(monkeypatch):
    def install(kind, result):
        def file_reader(name, **options):
            if isinstance(result, Exception):
                raise result
            return result

        name = KINDS[kind][0]
        package, module = types.ModuleType("rsciio"), types.ModuleType(f"rsciio.{name}")
        module.file_reader = file_reader
        monkeypatch.setitem(sys.modules, "rsciio", package)
        monkeypatch.setitem(sys.modules, f"rsciio.{name}", module)

    return install


@pytest.mark.parametrize("kind", KINDS)
def test_without_the_package_the_error_says_how_to_install_it(tmp_path, monkeypatch, kind):
    monkeypatch.setitem(sys.modules, "rsciio", None)
    path = write_head(tmp_path, kind)
    with pytest.raises(InputFileError, match=rf"{KINDS[kind][1]}, which needs .*pip install 'hpcxrf\[eds\]'.*GPL-3"):
        open_scan(path)


@pytest.mark.parametrize("energy_first", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_map_has_its_axes_and_counts(tmp_path, stand_in, kind, energy_first):
    counts = make_counts((3, 4, 512))
    stand_in(kind, [image(), describe(counts, energy_first=energy_first)])
    scan = open_scan(write_head(tmp_path, kind))
    assert (scan.format, scan.shape) == (KINDS[kind][1], (1, 3, 4, 512))
    assert scan.calibration == (EnergyCalibration(offset_kev=-0.475, slope_kev=0.01),)
    np.testing.assert_array_equal(read_all(scan)[0], counts)
    np.testing.assert_array_equal(scan.read_counts(slice(1, 2))[0], counts[1:2])
    np.testing.assert_allclose(scan.read_scalars().x_um[0], [0.0, 0.5, 1.0, 1.5])


def test_four_detectors_of_velox_stay_apart(tmp_path, stand_in):
    counts = make_counts((4, 3, 4, 512))
    stand_in("emd", [describe(one) for one in counts])
    np.testing.assert_array_equal(read_all(open_scan(write_head(tmp_path, "emd"))), counts)


def test_images_are_refused_by_their_titles(tmp_path, stand_in):
    stand_in("bcf", [image()])
    with pytest.raises(InputFileError, match="holds no map of spectra, only HAADF"):
        open_scan(write_head(tmp_path, "bcf"))


@pytest.mark.parametrize("fault", [KeyError("x"), RecursionError(), ZeroDivisionError()])
def test_whatever_the_foreign_reader_raises_is_one_sentence(tmp_path, stand_in, fault):
    stand_in("bcf", fault)
    with pytest.raises(InputFileError, match=r"rosettasciio cannot read it as bruker-bcf: .*copy it again"):
        open_scan(write_head(tmp_path, "bcf"))


def test_other_emd_and_hdf5_files_are_not_taken(tmp_path):
    with h5py.File(tmp_path / "ncem.emd", "w") as file:
        file["data/group/data"] = np.ones((3, 4, 512))
    assert not sniff(tmp_path / "ncem.emd", (tmp_path / "ncem.emd").read_bytes()[:64])
    assert not sniff(tmp_path, b"")


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_without_content_is_refused_by_the_real_package(tmp_path, kind):
    pytest.importorskip("rsciio", reason="not installed; pip install 'hpcxrf[eds]'")
    with pytest.raises(InputFileError, match=f"a.{kind}"):
        open_scan(write_head(tmp_path, kind))
