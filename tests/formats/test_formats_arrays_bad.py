"""Plain arrays that are refused: wrong shapes, counts that are none, damaged files, links, axes that fall."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from hpcxrf.errors import InputFileError
from hpcxrf.formats.arrays import open_file, sniff
from hpcxrf.formats.registry import open_scan
from hpcxrf.formats.scan import ReadOptions
from tests.samples.array_files import (
    NO_OPTIONS,
    SAVERS,
    SHAPE,
    Saver,
    make_counts,
    read_all,
    save_hdf5,
    save_npy,
    save_zarr,
    write_hdf5,
)


@pytest.mark.parametrize("save", SAVERS[:4])
def test_five_axes_are_refused_with_the_shape(tmp_path: Path, save: Saver) -> None:
    path = save(tmp_path, make_counts((1, *SHAPE)))
    with pytest.raises(InputFileError, match=r"shape \(1, 2, 5, 4, 64\).*1 to 4 axes") as caught:
        open_file(path, NO_OPTIONS)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("shape", [(), (0, 3, 64)])
def test_an_array_without_counts_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputFileError, match="none empty"):
        open_file(save_npy(tmp_path, np.zeros(shape)), NO_OPTIONS)


@pytest.mark.parametrize("data", [np.zeros((3, 4, 5), "c8"), np.full((3, 4), "text"), np.ones(4) > 0])
def test_what_is_no_number_is_refused_with_its_type(tmp_path: Path, data: NDArray[Any]) -> None:
    with pytest.raises(InputFileError, match=r"of type .*, counts must be"):
        open_file(save_npy(tmp_path, data), NO_OPTIONS)


def test_python_objects_are_never_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return pytest.fail, ("unpickled",)

    np.save(tmp_path / "a.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    with pytest.raises(InputFileError, match="of type object"):
        open_file(tmp_path / "a.npy", NO_OPTIONS)


def test_a_file_without_arrays_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="holds no array"):
        open_file(write_hdf5(tmp_path), NO_OPTIONS)


def test_an_energy_axis_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match=r"--energy-axis 4, but shape .* has axes 0 to 3"):
        open_file(save_npy(tmp_path, make_counts()), ReadOptions(energy_axis=4))


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
@pytest.mark.parametrize("save", SAVERS)
def test_a_count_that_is_none_is_named_with_its_place(tmp_path: Path, save: Saver, bad: float) -> None:
    counts = make_counts(dtype="f4")
    counts[1, 3, 2, 7] = bad
    path = save(tmp_path, counts)
    scan = open_file(path, NO_OPTIONS)
    scan.read_counts(slice(0, 3))
    with pytest.raises(InputFileError, match="detector 1, row 3, column 2, channel 7") as caught:
        scan.read_counts(slice(2, 5))
    assert str(path) in str(caught.value)


def test_more_than_a_few_negative_whole_numbers_are_refused(tmp_path: Path) -> None:
    counts = make_counts(dtype="i4")
    counts[0, 0, 0] = -5
    with pytest.raises(InputFileError, match="-5"):
        read_all(open_file(save_npy(tmp_path, counts), NO_OPTIONS))


@pytest.mark.parametrize("save", SAVERS[:3])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, save: Saver, share: float) -> None:
    path = save(tmp_path, make_counts((2, 9, 9, 64)))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputFileError, match=str(path)):
        read_all(open_file(path, NO_OPTIONS))


def test_a_truncated_npy_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = save_npy(tmp_path, make_counts())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputFileError, match=r"5247 bytes where its header promises 5248"):
        open_file(path, NO_OPTIONS)


def test_a_damaged_npy_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.ones((3, 4, 64), np.uint16))
    path.write_bytes(path.read_bytes().replace(b"}", b" ", 1))
    with pytest.raises(InputFileError, match=r"a\.npy: cannot be read.*copy it again"):
        open_scan(path)


@pytest.mark.parametrize(("sign", "place", "byte"), [(b"PK\x01\x02", 6, 88), (b"PK\x01\x02", 46, 0xFF)])
def test_a_damaged_index_of_a_npz_is_refused(tmp_path: Path, sign: bytes, place: int, byte: int) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, counts=np.ones((3, 4, 64), np.uint16))
    content = bytearray(path.read_bytes())
    at = content.index(sign)
    if place == 46:
        content[at + 9] |= 0x08  # names of members are UTF-8
    content[at + place] = byte
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=r"a\.npz: cannot be read.*copy it again"):
        open_scan(path)


def test_a_damaged_member_of_a_npz_is_refused_when_all_of_it_was_read(tmp_path: Path) -> None:
    counts = make_counts(SHAPE)
    np.savez(tmp_path / "a.npz", counts=counts)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputFileError, match="CRC"):
        read_all(open_file(tmp_path / "a.npz", NO_OPTIONS))


def test_rows_of_a_large_npz_are_read_where_they_lie(tmp_path: Path) -> None:
    counts = np.arange(3 * 64 * 64 * 256, dtype=np.uint16).reshape(3, 64, 64, 256) % 7
    np.savez(tmp_path / "a.npz", counts=counts)

    def count_read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    scan = open_file(tmp_path / "a.npz", NO_OPTIONS)
    before = count_read()
    np.testing.assert_array_equal(scan.read_counts(slice(40, 41)), counts[:, 40:41])
    # A row of each detector is 33 kB; what lies between them is 2 MB each.
    assert count_read() - before < 1e6


def test_a_damaged_zarr_is_refused(tmp_path: Path) -> None:
    path = save_zarr(tmp_path, make_counts())
    chunk = next(p for p in path.rglob("c/*") if p.is_file() or (p / "0/0/0").is_file())
    chunk = chunk if chunk.is_file() else chunk / "0/0/0"
    chunk.write_bytes(chunk.read_bytes()[:20])
    with pytest.raises(InputFileError, match=str(path)):
        read_all(open_file(path, NO_OPTIONS))
    (path / "zarr.json").write_text("{")
    with pytest.raises(InputFileError, match=str(path)):
        open_file(path, NO_OPTIONS)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match=r"none.npy: cannot be read"):
        open_file(tmp_path / "none.npy", NO_OPTIONS)


def test_links_out_of_the_file_are_followed_only_if_allowed(tmp_path: Path) -> None:
    save_hdf5(tmp_path, make_counts())
    master = tmp_path / "master.h5"
    with h5py.File(master, "w") as file:
        file["link"] = h5py.ExternalLink("a.h5", "/deep/counts")
    with pytest.raises(InputFileError, match="external link"):
        open_file(master, ReadOptions(dataset_path="link"))
    with pytest.raises(InputFileError, match="holds no array"):
        open_file(master, NO_OPTIONS)
    scan = open_file(master, ReadOptions(dataset_path="link", allow_external=True))
    np.testing.assert_array_equal(read_all(scan), make_counts())


def test_virtual_datasets_are_read_only_if_allowed(tmp_path: Path) -> None:
    save_hdf5(tmp_path, make_counts())
    master = tmp_path / "master.h5"
    layout = h5py.VirtualLayout(SHAPE, "u2")
    layout[:] = h5py.VirtualSource(str(tmp_path / "a.h5"), "deep/counts", SHAPE)
    with h5py.File(master, "w") as file:
        file.create_virtual_dataset("counts", layout)
    with pytest.raises(InputFileError, match="virtual"):
        read_all(open_file(master, NO_OPTIONS))
    np.testing.assert_array_equal(read_all(open_file(master, ReadOptions(allow_external=True))), make_counts())


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("energy_slope_kev", -0.01, "does not rise"),
        ("energy_slope_kev", 0.0, "does not rise"),
        ("energy_slope_kev", "abc", "must be a number"),
        ("incident_energy_kev", np.nan, "must be a number"),
        ("incident_energy_kev", -1.0, "above 0 keV"),
    ],
)
def test_attributes_that_cannot_be_meant_are_refused(tmp_path: Path, name: str, value: object, fault: str) -> None:
    path = write_hdf5(tmp_path, counts=make_counts())
    with h5py.File(path, "a") as file:
        file.attrs[name] = value
    with pytest.raises(InputFileError, match=fault):
        open_file(path, NO_OPTIONS)


def test_a_slope_asked_for_must_rise(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="does not rise"):
        open_file(save_npy(tmp_path, make_counts()), ReadOptions(energy_slope_kev=-0.01))


def test_other_files_are_not_taken_for_arrays(tmp_path: Path, shared_data: Path) -> None:
    mda = shared_data / "aps-2ide" / "mda" / "axo_std.mda"
    assert not sniff(mda, mda.read_bytes()[:4096])
    assert not sniff(tmp_path, b"")
    (tmp_path / "a.docx").write_bytes(b"PK\x03\x04 something")
    assert not sniff(tmp_path / "a.docx", b"PK\x03\x04 something")
