"""Sums of selections: exactly the sum of the counts, whatever is taken from tiles."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcxrf.explore import tiles
from hpcxrf.explore.kept import KeptArrays
from hpcxrf.explore.tiles import TILE_SIDE, KeptCounts, NobodyWaitsError, find_inner_tiles, sum_selection


class ArrayStore:
    """Counts in memory, with the places that were read."""

    def __init__(self, counts, chunks=(1, 16, 8, 5), *, has_tiles=True):
        self.has_tiles = has_tiles
        self.counts, self.shape, self.dtype, self.chunks = counts, counts.shape, counts.dtype, chunks
        self.read = np.zeros(counts.shape[1:3], dtype=int)

    def read_stored(self, detector, y, x=slice(None)):
        self.read[y, x] += 1
        return self.counts[detector, y, x]

    def tile_sums(self, detector, tile_y=slice(None), tile_x=slice(None)):
        n_y, n_x = (-(-size // TILE_SIDE) for size in self.shape[1:3])
        padded = np.zeros((n_y * TILE_SIDE, n_x * TILE_SIDE, self.shape[3]), dtype=np.uint64)
        padded[: self.shape[1], : self.shape[2]] = self.counts[detector]
        sums = padded.reshape(n_y, TILE_SIDE, n_x, TILE_SIDE, -1).sum((1, 3))
        return sums.astype(np.uint32 if self.dtype.itemsize <= 2 else np.uint64)[tile_y, tile_x]

    def integrated(self, detector):
        return self.counts[detector].sum((0, 1), dtype=np.float64)


def kept(store, *, most_bytes=1 << 20):
    arrays = [KeptArrays(most_bytes=most_bytes) for _ in range(2)]
    return KeptCounts(store=store, blocks=arrays[0], tiles=arrays[1])


def made(dtype="uint16", shape=(2, 37, 50, 5)):
    top = {"uint8": 255, "uint16": 65535, "uint32": 2**32 - 1, "float32": 100}[dtype]
    values = np.random.default_rng(3).integers(0, top, shape, dtype=np.uint64)
    return (values / 7).astype(dtype) if dtype == "float32" else values.astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
@pytest.mark.parametrize("has_tiles", [True, False])
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
@settings(max_examples=40)
def test_the_sum_is_that_of_the_counts(dtype, has_tiles, seed, share):
    counts = made(dtype)
    rng = np.random.default_rng(seed)
    mask = rng.random(counts.shape[1:3]) < share
    # Whole tiles, too.
    mask[: rng.integers(0, 38), : rng.integers(0, 51)] = True
    for which in ([1], [0, 1]):
        found = sum_selection(kept(ArrayStore(counts, has_tiles=has_tiles)), which, mask)
        assert found.dtype == np.uint64
        np.testing.assert_array_equal(found, counts[which][:, mask].sum(axis=(0, 1), dtype=np.uint64))


def test_a_large_sum_is_made_by_threads_and_a_small_one_by_none(monkeypatch):
    counts = made()
    mask = np.random.default_rng(1).random(counts.shape[1:3]) < 0.5
    threads = set()

    class Watched(ArrayStore):
        def read_stored(self, *of):
            threads.add(threading.get_ident())
            time.sleep(0.002)
            return super().read_stored(*of)

    found = []
    for many in (False, True):
        monkeypatch.setattr(tiles, "_THREAD_COUNTS", 1 if many else 1 << 27)
        threads.clear()
        found.append(sum_selection(kept(Watched(counts)), [0, 1], mask))
        assert (threading.get_ident() not in threads) == many
        np.testing.assert_array_equal(found[-1], counts[:, mask].sum(axis=(0, 1), dtype=np.uint64))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
def test_no_sum_of_the_largest_counts_overflows(dtype):
    top = np.iinfo(dtype).max
    # A chunk of more pixels than a narrow sum has room for.
    counts = np.full((1, 260, 300, 3), top, dtype=dtype)
    store = ArrayStore(counts, (1, 260, 300, 3), has_tiles=False)
    mask = np.ones((260, 300), dtype=bool)
    mask[0, 0] = False
    assert sum_selection(kept(store), [0], mask).tolist() == 3 * [int(top) * (260 * 300 - 1)]


def test_counts_with_fractions_are_added_up_as_such():
    counts = made("float32")
    mask = np.zeros(counts.shape[1:3], dtype=bool)
    mask[3:30, 4:40] = True
    found = sum_selection(kept(ArrayStore(counts, has_tiles=False)), [0], mask)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, counts[0][mask].sum(axis=0, dtype=np.float64), rtol=1e-12)


def test_only_what_is_left_of_the_tiles_is_read_from_the_counts():
    store = ArrayStore(made())
    mask = np.zeros(store.shape[1:3], dtype=bool)
    mask[0:32, 16:48] = True
    mask[33, 2] = True
    sum_selection(kept(store), [0], mask)
    # The chunk (1, 16, 8, 5) that the one pixel lies in, and no other.
    assert np.argwhere(store.read).min(axis=0).tolist() == [32, 0]
    assert store.read.sum() == 5 * 8


@pytest.mark.parametrize("width", [9, 50])
def test_a_sum_that_nobody_waits_for_ends_at_the_next_chunk(width):
    store, asked = ArrayStore(made()), []

    def is_gone():
        asked.append(1)
        return len(asked) > 2

    mask = np.zeros(store.shape[1:3], dtype=bool)
    mask[:, ::3][:, :width] = True
    with pytest.raises(NobodyWaitsError):
        sum_selection(kept(store), [0, 1], mask, is_gone)
    assert store.read.sum() <= 2 * 16 * 8


def test_tiles_at_the_end_of_the_scan_are_inner_when_all_their_pixels_are():
    mask = np.ones((37, 50), dtype=bool)
    mask[36, 49] = mask[0, 0] = False
    inner = find_inner_tiles(mask)
    assert inner.shape == (3, 4)
    assert np.argwhere(~inner).tolist() == [[0, 0], [2, 3]]


def test_a_chunk_that_was_read_is_kept_and_of_many_none_is():
    store = ArrayStore(made())
    counts, mask = kept(store), np.zeros(store.shape[1:3], dtype=bool)
    mask[20, 20] = True
    for _ in range(3):
        sum_selection(counts, [0], mask)
    assert store.read.max() == 1
    mask[:, ::3] = True
    sum_selection(counts, [0], mask)
    assert counts.blocks.nbytes == 16 * 8 * 5 * 2


@pytest.mark.parametrize("has_tiles", [True, False])
def test_of_a_selection_that_changed_at_one_side_only_these_chunks_are_read_again(has_tiles):
    store = ArrayStore(made(), has_tiles=has_tiles)
    counts, mask = kept(store), np.zeros(store.shape[1:3], dtype=bool)

    def add_up():
        store.read[...] = 0
        found = sum_selection(counts, [0, 1], mask)
        np.testing.assert_array_equal(found, store.counts[:, mask].sum(axis=(0, 1), dtype=np.uint64))
        return set(np.flatnonzero(store.read.any(axis=1)).tolist())

    mask[1:, 2:45] = True
    assert 36 in add_up()
    assert add_up() == set()
    mask[36, 40:45] = False
    # The chunks of the last rows that the pixels lie in.
    assert min(add_up()) >= 32
    mask[:, 45:] = True
    assert 1 in add_up()


def test_kept_arrays_stay_within_their_bound_and_drop_what_was_used_longest_ago():
    arrays, made_keys = KeptArrays(most_bytes=100), []

    def make(key, size=40):
        def now():
            made_keys.append(key)
            return np.zeros(size, dtype=np.uint8)

        return arrays.get(key, now)

    for key in ("a", "b", "a", "c", "a", "b"):
        make(key)
    assert made_keys == ["a", "b", "c", "b"]
    assert make("large", 101).nbytes == 101
    assert arrays.nbytes == 80
    # Another one in the place of the same key.
    arrays.keep("a", np.zeros(10, dtype=np.uint8))
    assert arrays.nbytes == 50
    with pytest.raises(ValueError, match="read-only"):
        make("a")[0] = 1
