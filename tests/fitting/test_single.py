"""Numbers of single precision: none that one thread flushes and another keeps."""

import pytest
import torch

from hpcxrf.fitting.pixels.single import to_single

TINY = 1.1754943508222875e-38
"""2^-126, the smallest normal number of float32."""


@pytest.fixture(params=[False, True])
def flushed(request):
    torch.set_flush_denormal(request.param)
    yield
    torch.set_flush_denormal(False)


def test_what_is_below_the_smallest_normal_number_is_0_and_all_else_stays(flushed):
    values = torch.tensor([0.0, 1.5, -2.0e30, TINY, -TINY, 1e-39, -1e-44, 1e-300], dtype=torch.float64)
    found = to_single(values)
    assert found.dtype == torch.float32
    assert found.tolist() == [0.0, 1.5, float(torch.tensor(-2.0e30)), TINY, -TINY, 0.0, 0.0, 0.0]
    nan, inf = to_single(torch.tensor([float("nan"), float("inf")]))
    assert bool(nan.isnan())
    assert bool(inf.isinf())
