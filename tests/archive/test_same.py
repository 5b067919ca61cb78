"""Two stores bit for bit: one bit, a missing array, another shape; seconds and file names do not count."""

import shutil

import numpy as np
import pytest
import zarr
from diff_samples import amplitude_map, write_result
from results_sample import COMPONENTS

from hpcxrf.archive.same import _cut, compare_stores
from hpcxrf.results.store.storage import update_attributes
from hpcxrf.store.packed import pack_store


@pytest.fixture
def pair(tmp_path):
    first = write_result(tmp_path / "first.zarr", detectors=("0", "1"))
    second = tmp_path / "second.zarr"
    shutil.copytree(first, second)
    return first, second


def rewrite(store, array, change):
    opened = zarr.open_array(store / array, mode="r+")
    values = np.asarray(opened[:])
    change(values)
    opened[:] = values


def test_a_copy_is_identical_and_so_is_its_zip(pair):
    found = compare_stores(*pair)
    assert found.is_identical
    assert found.compared > 25
    assert pack_store(pair[1])
    assert compare_stores(*pair) == found


def test_one_bit_of_one_value_is_seen_and_measured_in_sigma(pair):
    at = (1, COMPONENTS.index("Fe"), 3, 4)

    def flip(values):
        values[at] = np.nextafter(values[at], np.inf, dtype=values.dtype)

    rewrite(pair[1], "maps/amplitude", flip)
    (one,) = compare_stores(*pair).differing
    assert (one.array, one.differing) == ("maps/amplitude", 1)
    value, sigma = (float(x[3, 4]) for x in amplitude_map("Fe"))
    step = float(np.nextafter(np.float32(value), np.float32(np.inf))) - value
    assert one.largest == pytest.approx(step)
    assert one.largest_in_sigma == pytest.approx(step / sigma)


def test_a_zero_with_a_sign_and_another_nan_are_other_bits(pair):
    def negate(values):
        values[values == 0.0] *= -1.0

    before = int((np.asarray(zarr.open_array(pair[0] / "maps/amplitude")[:]) == 0.0).sum())
    assert before
    rewrite(pair[1], "maps/amplitude", negate)
    (one,) = compare_stores(*pair).differing
    assert (one.differing, one.largest) == (before, 0.0)


def test_seconds_and_names_of_files_do_not_count_and_results_among_attributes_do(pair):
    rewrite(pair[1], "spectrum/cpu_s", lambda values: values.__iadd__(1.0))
    update_attributes(pair[1], {"title": "other", "provenance": {"source": "/elsewhere"}})
    assert compare_stores(*pair).is_identical
    update_attributes(pair[1], {"theta_by_detector": {"0": {"energy_offset": 0.1}}})
    found = compare_stores(*pair)
    assert (found.attributes, found.is_identical) == (("root: theta_by_detector",), False)


def test_a_missing_array_and_another_shape_are_differences(pair, tmp_path):
    shutil.rmtree(pair[1] / "parameters")
    found = compare_stores(*pair)
    assert {one.reason for one in found.differing} == {"only in the recorded result"}
    assert {one.array for one in compare_stores(pair[1], pair[0]).differing} == {one.array for one in found.differing}
    fewer = write_result(tmp_path / "fewer.zarr", detectors=("0", "1"), components=COMPONENTS[:6])
    shapes = {one.array: one.reason for one in compare_stores(pair[0], fewer).differing}
    assert "(2, 12, 20, 30)" in shapes["maps/amplitude"]
    assert "(2, 6, 20, 30)" in shapes["maps/amplitude"]


def test_large_arrays_are_cut_into_parts_that_cover_them(monkeypatch):
    monkeypatch.setattr("hpcxrf.archive.same._PIECE_BYTES", 64)
    for shape in ((3, 4, 5), (100,), (2, 100), (), (1, 1, 40), (0, 3)):
        seen = np.zeros(shape, dtype=int)
        for piece in _cut(shape, 4):
            part = seen[piece]
            assert part.nbytes // 2 <= 64 or part.size == 1
            seen[piece] += 1
        assert (seen == 1).all()
