"""Spectra unpacked past the HDF5 library are those that the library gives, whatever a file holds."""

import resource
import zlib

import h5py
import numpy as np
import pytest

from hpcxrf.errors import InputFileError
from hpcxrf.formats.hdf5_chunks import has_spectrum_chunks, index_chunks, read_spectra
from hpcxrf.formats.registry import open_scan

SHAPE = (32, 4, 5)
GZIP = {"compression": "gzip", "compression_opts": 4}


def write(path, **layout):
    with h5py.File(path, "w", userblock_size=layout.pop("userblock_size", 0)) as file:
        return file.create_dataset("MAPS/Spectra/mca_arr", SHAPE, **{"chunks": (32, 1, 1), **layout}).name


def some_counts(dtype="f4"):
    return np.random.default_rng(3).poisson(2.0, SHAPE).astype(dtype)


def read(path, rows=slice(0, 4)):
    with h5py.File(path, "r") as file:
        dataset = file["MAPS/Spectra/mca_arr"]
        assert has_spectrum_chunks(dataset)
        chunks = index_chunks(dataset)
    out = np.empty((rows.stop - rows.start, SHAPE[2], SHAPE[0]), dtype=chunks.dtype)
    read_spectra(chunks, rows, out)
    return out


@pytest.mark.parametrize("dtype", ["f4", ">f4", "f8", "u2", ">i4"])
@pytest.mark.parametrize("layout", [{}, GZIP, {**GZIP, "shuffle": True}])
def test_spectra_are_those_of_the_library(tmp_path, dtype, layout):
    counts = some_counts(dtype)
    write(tmp_path / "a.h50", data=counts, **layout)
    np.testing.assert_array_equal(read(tmp_path / "a.h50", slice(1, 3)), np.moveaxis(counts, 0, 2)[1:3])


def test_spectra_that_were_never_written_or_never_packed_are_those_of_the_library(tmp_path):
    path, counts = tmp_path / "a.h50", some_counts()
    name = write(path, dtype="f4", fillvalue=7.0, **GZIP)
    with h5py.File(path, "r+") as file:
        file[name][:, 3, :] = counts[:, 3]
        file[name].id.write_direct_chunk((0, 1, 2), counts[:, 1, 2].tobytes(), filter_mask=1)
    with h5py.File(path, "r") as file:
        expected = np.moveaxis(file[name][...], 0, 2)
    assert set(np.unique(expected[0])) == {7.0}
    np.testing.assert_array_equal(read(path), expected)
    np.testing.assert_array_equal(open_scan(path).read_counts(slice(0, 4))[0], expected)


@pytest.mark.parametrize(
    "layout",
    [
        {"chunks": (32, 1, 5)},
        {"chunks": None},
        {"compression": "lzf"},
        {**GZIP, "fletcher32": True},
        {"scaleoffset": 0},
        {"userblock_size": 512},
    ],
)
def test_another_layout_is_read_by_slices(tmp_path, layout):
    counts = some_counts("i4" if "scaleoffset" in layout else "f4")
    name = write(tmp_path / "a.h50", data=counts, **layout)
    with h5py.File(tmp_path / "a.h50", "r") as file:
        assert not has_spectrum_chunks(file[name])
    np.testing.assert_array_equal(open_scan(tmp_path / "a.h50").read_counts(slice(0, 4))[0], np.moveaxis(counts, 0, 2))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zlib.compress(bytes(1 << 28)), "1 spectra .*longer than 1152 bytes"),
        (zlib.compress(bytes(1 << 19)), "row 2 cannot be unpacked"),
        (zlib.compress(some_counts()[:, 0, 0].tobytes())[:-3], "row 2 cannot be unpacked"),
        (zlib.compress(some_counts()[:-1, 0, 0].tobytes()), "row 2 cannot be unpacked"),
        (b"not packed by gzip", "row 2 cannot be unpacked"),
    ],
    ids=["bomb", "small bomb", "cut off", "short", "garbage"],
)
def test_a_damaged_spectrum_is_refused_and_takes_no_memory(tmp_path, content, message):
    path = tmp_path / "a.h50"
    name = write(path, data=some_counts(), **GZIP)
    with h5py.File(path, "r+") as file:
        file[name].id.write_direct_chunk((0, 2, 3), content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputFileError, match=rf"a\.h50: /MAPS/Spectra/mca_arr: .*{message}.*copy it again"):
        read(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def test_a_file_cut_off_within_its_spectra_is_refused(tmp_path):
    path = tmp_path / "a.h50"
    name = write(path, data=some_counts())
    with h5py.File(path, "r") as file:
        chunks = index_chunks(file[name])
    last = int(chunks.offset.max())
    with path.open("r+b") as stream:
        stream.truncate(last + 10)
    out = np.empty((4, 5, 32), "f4")
    with pytest.raises(InputFileError, match="cannot be unpacked"):
        read_spectra(chunks, slice(0, 4), out)
