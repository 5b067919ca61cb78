"""Numbers that the record of a dataset keeps for the trends of an archive."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from hpcxrf.pipeline.trend import measure_dead_time


def store_of(live, real):
    times = SimpleNamespace(live_time_s=np.float32(live), real_time_s=np.float32(real))
    return SimpleNamespace(times=lambda: times)


def test_the_dead_time_is_that_of_the_whole_scan_and_not_the_mean_of_its_pixels():
    # 1 s at 10 %, 3 s at 50 %: 2.4 s of 4 s alive; of the second detector a third of the time.
    store = store_of([[[0.9, 1.5]], [[2.0, 2.0]]], [[[1.0, 3.0]], [[3.0, 3.0]]])
    assert measure_dead_time(store) == pytest.approx([0.4, 1 / 3], rel=1e-6)


def test_pixels_that_were_not_measured_do_not_count():
    store = store_of([[[0.9, np.nan, 0.5, 0.7]]], [[[1.0, 1.0, np.nan, 0.0]]])
    assert measure_dead_time(store) == pytest.approx([0.1], rel=1e-6)


def test_a_scan_without_times_has_no_dead_time():
    (dead,) = measure_dead_time(store_of([[[np.nan]]], [[[np.nan]]]))
    assert math.isnan(dead)
