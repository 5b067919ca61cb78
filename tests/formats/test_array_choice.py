"""Which arrays of a file are its spectra, and what is said of a file that has none."""

import h5py
import numpy as np
import pytest

from hpcxrf.errors import InputFileError
from hpcxrf.formats.registry import open_scan
from hpcxrf.formats.scan import ReadOptions
from tests.samples.array_files import make_counts, read_all, write_hdf5

DETECTORS = make_counts((11, 3, 4, 512))


@pytest.fixture
def eleven(tmp_path):
    """A file of eleven detectors with an array each."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for number, counts in enumerate(DETECTORS):
            file[f"entry/det{number}/counts"] = counts
        file["entry/other/counts"] = np.ones((2, 3, 512), "u2")
    return tmp_path / "a.h5"


@pytest.mark.parametrize(
    ("requested", "detectors"),
    [
        ("entry/det*/counts", range(11)),  # det10 behind det9
        ("/entry/det[0-2]/counts", range(3)),
        ("entry/det4/counts,entry/det1/counts", [4, 1]),
        (("entry/det4/counts", "entry/det1[0]/counts"), [4, 10]),
        ("entry/det7/counts", [7]),
    ],
)
def test_a_list_or_a_pattern_is_one_array_a_detector(eleven, requested, detectors):
    scan = open_scan(eleven, ReadOptions(dataset_path=requested))
    assert scan.shape == (len(detectors), 3, 4, 512)
    np.testing.assert_array_equal(read_all(scan), DETECTORS[list(detectors)])
    np.testing.assert_array_equal(scan.read_counts(slice(1, 2)), DETECTORS[list(detectors), 1:2])


def test_several_arrays_without_a_request_are_listed_with_the_remedy(eleven):
    with pytest.raises(InputFileError, match=r"12 arrays .*--dataset-path a,b or a pattern such as det\*/counts"):
        open_scan(eleven)


@pytest.mark.parametrize(
    ("requested", "fault"),
    [
        ("entry/det*/nothing", "no array 'entry/det.*/nothing'"),
        ("entry/*/counts", "must have one shape"),
        ("entry/det1/counts,entry/none", "no array 'entry/none'"),
    ],
)
def test_a_request_that_does_not_fit_is_refused(eleven, requested, fault):
    with pytest.raises(InputFileError, match=fault):
        open_scan(eleven, ReadOptions(dataset_path=requested))


def test_an_array_with_an_axis_of_detectors_is_no_detector_of_several(tmp_path):
    path = write_hdf5(tmp_path, one=DETECTORS, two=DETECTORS)
    with pytest.raises(InputFileError, match="one has an axis of detectors"):
        open_scan(path, ReadOptions(dataset_path="one,two"))


def test_a_path_may_hold_a_comma(tmp_path):
    path = write_hdf5(tmp_path, **{"a,b": make_counts((3, 4, 512)), "c": make_counts((3, 4, 512))})
    assert open_scan(path, ReadOptions(dataset_path="a,b")).shape == (1, 3, 4, 512)


@pytest.mark.parametrize("name", ["timestamp", "epoch", "column"])
def test_time_stamps_are_no_spectrum(tmp_path, name):
    path = write_hdf5(tmp_path, **{name: 1.7e9 + np.cumsum(np.random.default_rng(0).random(7201))})
    with pytest.raises(InputFileError, match=f"{name} is a series of times or positions"):
        open_scan(path)


def test_a_spectrum_beside_time_stamps_is_found(tmp_path):
    path = write_hdf5(tmp_path, spectrum=make_counts((2048,)), time=np.arange(7201.0))
    assert open_scan(path).shape == (1, 1, 1, 2048)


@pytest.mark.parametrize(
    ("content", "holds"),
    [
        ({"entry/eiger/data": np.ones((5, 100, 120), "u2")}, "holds images"),
        (
            {"MAPS/XRF_roi": np.ones((9, 30, 40)), "MAPS/XRF_fits": np.ones((9, 30, 40))},
            "holds ROIs or fitted maps only",
        ),
        ({"energy": np.linspace(7, 7.2, 201), "time": np.arange(201.0)}, r"scan of the incident energy \(XANES\)"),
    ],
)
def test_a_file_without_spectra_is_refused_with_what_it_holds(tmp_path, content, holds):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, values in content.items():
            file[name] = values
    with pytest.raises(InputFileError, match=f"{holds}.*no array that can be spectra"):
        open_scan(tmp_path / "a.h5")


def test_images_by_their_nexus_attribute_are_left_out_beside_spectra(tmp_path):
    path = write_hdf5(tmp_path, mca=make_counts((3, 4, 512)), frames_=np.ones((20, 300, 512)))
    with h5py.File(path, "a") as file:
        file["frames_"].attrs["interpretation"] = "image"
    assert open_scan(path).shape == (1, 3, 4, 512)


def test_of_two_arrays_that_which_nexus_calls_a_spectrum_is_taken(tmp_path):
    path = write_hdf5(tmp_path, mca=make_counts((3, 4, 512)), other=make_counts((3, 4, 512)))
    with h5py.File(path, "a") as file:
        file["mca"].attrs["interpretation"] = "spectrum"
    np.testing.assert_array_equal(read_all(open_scan(path))[0], make_counts((3, 4, 512)))
