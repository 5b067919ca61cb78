"""HyperSpy's files, written by h5py and zarr in their documented layout: the axes are those of the file."""

import dataclasses

import h5py
import numpy as np
import pytest

from hpcxrf.errors import InputFileError
from hpcxrf.formats.array_containers import open_hdf5_arrays
from hpcxrf.formats.hyperspy import holds_spectra
from hpcxrf.formats.registry import open_scan
from hpcxrf.formats.scan import EnergyCalibration, ReadOptions
from tests.samples.array_files import make_counts, read_all
from tests.samples.hyperspy_files import AXES, ENERGY, HEIGHT, WIDTH, write_hspy, write_zspy


@pytest.mark.parametrize(("write", "name"), [(write_hspy, "a.hspy"), (write_zspy, "a.zspy")])
def test_the_axes_of_hyperspy_are_used(tmp_path, write, name):
    counts = make_counts((3, 4, 700))
    scan = open_scan(write(tmp_path / name, {"EDX": counts}))
    assert (scan.format, scan.shape, scan.notes) == ("hyperspy", (1, 3, 4, 700), ())
    assert scan.calibration == (EnergyCalibration(offset_kev=-0.2, slope_kev=0.02),)
    np.testing.assert_array_equal(read_all(scan)[0], counts)
    scalars = scan.read_scalars()
    np.testing.assert_allclose(scalars.y_um[:, 0], [1.0, 1.5, 2.0])
    np.testing.assert_allclose(scalars.x_um[0], [0.0, 0.002, 0.004, 0.006])


def test_an_axis_in_ev_is_one_in_kev_and_the_user_has_the_last_word(tmp_path):
    energy = {**ENERGY, "offset": -200.0, "scale": 20.0, "units": "eV"}
    path = write_hspy(tmp_path / "a.hspy", {"EDX": make_counts((3, 4, 700))}, (HEIGHT, WIDTH, energy))
    assert open_scan(path).calibration == (EnergyCalibration(offset_kev=-0.2, slope_kev=0.02),)
    given = open_scan(path, ReadOptions(energy_slope_kev=0.01, energy_offset_kev=0.0))
    assert given.calibration == (EnergyCalibration(offset_kev=0.0, slope_kev=0.01),)


def test_the_signal_axis_may_come_first(tmp_path):
    counts = make_counts((700, 3, 4))
    scan = open_scan(write_hspy(tmp_path / "a.hspy", {"EDX": counts}, (ENERGY, HEIGHT, WIDTH)))
    assert scan.shape == (1, 3, 4, 700)
    np.testing.assert_array_equal(read_all(scan)[0], np.moveaxis(counts, 0, -1))


@pytest.mark.parametrize(("axes", "shape"), [((HEIGHT, ENERGY), (1, 3, 1, 700)), ((ENERGY,), (1, 1, 1, 700))])
def test_a_line_and_a_single_spectrum_are_read(tmp_path, axes, shape):
    sizes = tuple(axis["size"] for axis in axes)
    scan = open_scan(write_hspy(tmp_path / "a.hspy", {"EDX": make_counts(sizes)}, axes))
    assert scan.shape == shape
    np.testing.assert_array_equal(read_all(scan).ravel(), make_counts(sizes).ravel())


def test_an_image_of_hyperspy_is_refused_as_such(tmp_path):
    image = tuple({**axis, "navigate": False} for axis in (HEIGHT, WIDTH))
    path = write_hspy(tmp_path / "a.hspy", {"HAADF": np.ones((3, 4), "u2")}, image)
    with pytest.raises(InputFileError, match="has no axis of energy in HyperSpy"):
        open_scan(path)


def test_images_and_other_spectra_beside_a_map_are_left_out(tmp_path):
    counts = make_counts((3, 4, 700))
    path = write_hspy(tmp_path / "a.hspy", {"EDX": counts})
    wavelengths = {**ENERGY, "name": "Wavelength", "units": "nm"}
    image = tuple({**axis, "navigate": False} for axis in (HEIGHT, WIDTH))
    with h5py.File(path, "a") as file:
        for name, data, axes in (("CL", counts + 1, (HEIGHT, WIDTH, wavelengths)), ("HAADF", np.ones((3, 4)), image)):
            group = file.create_group(f"Experiments/{name}")
            group["data"] = data
            for number, axis in enumerate(axes):
                group.create_group(f"axis-{number}").attrs.update(axis)
    np.testing.assert_array_equal(read_all(open_scan(path))[0], counts)


def test_one_of_two_experiments_is_named(tmp_path):
    first, second = make_counts((3, 4, 700)), make_counts((3, 4, 700)) + 1
    path = write_hspy(tmp_path / "a.hspy", {"one": first, "two": second})
    with pytest.raises(InputFileError, match=r"--dataset-path: Experiments/one/data"):
        open_scan(path)
    scan = open_scan(path, ReadOptions(dataset_path="Experiments/two/data"))
    np.testing.assert_array_equal(read_all(scan)[0], second)
    assert scan.calibration == (EnergyCalibration(offset_kev=-0.2, slope_kev=0.02),)


def test_rosettasciio_writes_what_is_read(tmp_path):
    hspy = pytest.importorskip("rsciio.hspy", reason="not installed; pip install 'hpcxrf[eds]'")
    counts = make_counts((3, 4, 700))
    axes = [
        {**axis, "index_in_array": i, "_type": "UniformDataAxis", "is_binned": False} for i, axis in enumerate(AXES)
    ]
    signal = {"data": counts, "axes": axes, "metadata": {"General": {"title": "EDX"}}, "original_metadata": {}}
    signal |= {"learning_results": {}, "tmp_parameters": {}, "package_info": {"package": "none"}, "models": {}}
    hspy.file_writer(str(tmp_path / "a.hspy"), {**signal, "attributes": {"_lazy": False, "ragged": False}})
    scan = open_scan(tmp_path / "a.hspy")
    assert scan.calibration == (EnergyCalibration(offset_kev=-0.2, slope_kev=0.02),)
    np.testing.assert_array_equal(read_all(scan)[0], counts)


def test_axes_that_cannot_be_read_are_damage_and_not_another_kind_of_array(tmp_path):
    container = open_hdf5_arrays(
        write_hspy(tmp_path / "a.hspy", {"EDX": make_counts((3, 4, 700))}), None, allow_external=False
    )
    entry = container.entries["Experiments/EDX/data"]
    assert holds_spectra(container, entry)

    def refuse(group):
        raise InputFileError(f"{group}: cannot be read")

    with pytest.raises(InputFileError, match="axis-0: cannot be read"):
        holds_spectra(dataclasses.replace(container, read_attributes=refuse), entry)
