"""Lists of points as rows and columns: against numpy's own reshaping, and rasters by their positions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcxrf.formats.grid import Grid, find_points, find_raster, lay_out


@given(st.integers(1, 6), st.integers(1, 5), st.booleans(), st.data())
def test_any_rows_of_a_grid_are_those_of_the_whole(height, width, turned, data):
    n_points = data.draw(st.integers((height - 1) * width + 1, height * width))
    first = data.draw(st.integers(0, height - 1))
    last = data.draw(st.integers(first + 1, height))
    grid = Grid(n_points=n_points, shape=(height, width), turned=turned)
    values = np.arange(1, n_points + 1)
    whole = np.zeros(height * width, int)
    whole[:n_points] = values
    whole = whole.reshape(height, width)
    if turned:
        whole[1::2] = whole[1::2, ::-1]
    rows = slice(first, last)
    got = lay_out(values[np.newaxis, find_points(grid, rows), np.newaxis], grid, rows, axis=1)
    np.testing.assert_array_equal(got[0, :, :, 0], whole[rows])
    np.testing.assert_array_equal(grid.measured, whole > 0)


def raster(height, width, *, to_and_fro=False, jitter=0.0):
    rng = np.random.default_rng(1)
    x, y = np.meshgrid(np.arange(float(width)), np.arange(float(height)))
    if to_and_fro:
        x[1::2] = x[1::2, ::-1]
    return {"x": x.ravel() + jitter * rng.random(x.size), "y": y.ravel() + jitter * rng.random(x.size)}


@pytest.mark.parametrize("to_and_fro", [False, True])
@pytest.mark.parametrize("jitter", [0.0, 0.05])
@pytest.mark.parametrize("missing", [0, 3])
def test_a_raster_is_found_by_its_positions(to_and_fro, jitter, missing):
    vectors = {n: v[: v.size - missing] for n, v in raster(5, 8, to_and_fro=to_and_fro, jitter=jitter).items()}
    grid, fast, slow = find_raster(vectors)
    assert grid == Grid(n_points=40 - missing, shape=(5, 8), turned=to_and_fro)
    assert (fast, slow) == ("x", "y")


def test_positions_without_rows_are_no_raster():
    rng = np.random.default_rng(2)
    spiral = np.linspace(1, 20, 60)
    assert find_raster({"x": rng.random(60), "y": rng.random(60)}) is None
    assert find_raster({"x": spiral * np.cos(spiral), "y": spiral * np.sin(spiral)}) is None
    assert find_raster({"x": np.arange(60.0), "y": np.zeros(60)}) is None
    assert find_raster({"x": np.full(60, np.nan), "y": np.zeros(60)}) is None
    assert find_raster({}) is None
