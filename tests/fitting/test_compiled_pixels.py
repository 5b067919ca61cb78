"""The compiled fit of pixels beside the tensor operations that it stands for."""

from dataclasses import replace

import pytest
import torch
from pixel_samples import BASIS, SOLVERS, deviance_of_faint, fit, poisson_pixels

from hpcxrf.fitting.kernels.layout import FOUR
from hpcxrf.fitting.objective import poisson_deviance
from hpcxrf.fitting.pixels.fit import fit_pixels, prepare_solver
from hpcxrf.fitting.pixels.strips import by_tile, cut_into_runs, strips_of
from hpcxrf.fitting.result import FitStatus

COMPILED = SOLVERS["linear"]
TENSORS = replace(COMPILED, compiled=None)


def pixels(level, n=300):
    share = 2.0 * torch.rand(n, len(BASIS.coefficients), generator=torch.Generator().manual_seed(3)).double()
    return poisson_pixels(level * share * BASIS.coefficients)


def assert_same(counts, compiled, tensors, measured=None):
    measured = torch.ones(len(counts), dtype=torch.bool) if measured is None else measured
    ours, theirs = (fit_pixels(counts, measured, solver) for solver in (compiled, tensors))
    assert torch.equal(ours.status, theirs.status)
    for name in ("amplitude", "sigma", "detection_limit", "deviance"):
        assert torch.equal(getattr(ours, name).isnan(), getattr(theirs, name).isnan())
    exact = (
        counts.to(torch.float64) @ compiled.operator.projector.to(torch.float64)[:, : compiled.operator.n_components]
    )
    assert float(((ours.amplitude - exact) / theirs.sigma).abs().nan_to_num().max()) < 1e-4
    # A hot pixel's limit is a small difference.
    for name, allowed in (("sigma", 1e-3), ("detection_limit", 5e-3)):
        assert float((getattr(ours, name) / getattr(theirs, name) - 1.0).abs().nan_to_num().max()) < allowed
    # Sums of large numbers in single precision on their side.
    rounding = 1e-5 + 1e-8 * counts.to(torch.float64).nan_to_num(neginf=0.0).sum(dim=1) + deviance_of_faint(counts)
    assert bool(((ours.deviance - theirs.deviance).abs().nan_to_num() < rounding).all())
    return ours


@pytest.mark.parametrize("level", [0.01, 0.5, 5.0, 300.0])
def test_the_kernel_gives_what_the_tensors_give(level):
    counts = pixels(level)
    found = assert_same(counts, COMPILED, TENSORS)
    coefficients = counts.to(torch.float64) @ COMPILED.operator.projector.to(torch.float64)
    exact = poisson_deviance(counts.to(torch.float64), coefficients @ BASIS.columns.T, floor=1e-3)
    off = (found.deviance - exact / (counts.shape[1] - BASIS.columns.shape[1])).abs()
    assert bool((off < 1e-5 + deviance_of_faint(counts)).all())


def test_also_for_bands_of_a_fit_range_that_begins_anywhere():
    solver = prepare_solver("linear", replace(BASIS, first_channel=7))
    assert_same(pixels(2.0).to(torch.uint16), solver, replace(solver, compiled=None))


def test_also_for_what_is_empty_broken_negative_hot_or_not_measured():
    counts = pixels(1.0, 8)
    counts[1] = 0.0
    counts[2, 7] = float("nan")
    counts[3, 9] = -float("inf")
    counts[4, 11] = -2.0
    counts[5] = poisson_pixels((1e3 * BASIS.coefficients * (torch.arange(8) == 1))[None])
    counts[6, 300] = 5e4
    measured = torch.arange(8) != 7
    assert_same(counts, COMPILED, TENSORS, measured)
    status = fit_pixels(counts, measured, COMPILED).status.tolist()
    assert status[1:4] == [FitStatus.EMPTY, FitStatus.NONFINITE, FitStatus.NONFINITE]


def test_the_type_of_the_counts_and_the_tile_change_no_bit():
    counts = pixels(0.5).clamp(max=200.0)
    whole = fit(counts)
    for dtype in (torch.uint8, torch.uint16, torch.uint32, torch.int64):
        found = fit(counts[41:48].to(dtype))
        for name in ("amplitude", "sigma", "detection_limit", "deviance"):
            assert torch.equal(getattr(found, name), getattr(whole, name)[41:48])


def test_strips_hold_every_column_where_it_is_kept():
    values = torch.rand(470, 21, generator=torch.Generator().manual_seed(0)).double()
    for k in range(21):
        values[: 15 * k, k] = values[15 * k + 160 :, k] = 0.0
    runs = cut_into_runs(by_tile(values).abs().sum(dim=1) > 0.0)
    seen, starts = torch.zeros(470, 22).double(), []
    for (first, n, offset, kind), kept in zip(*map(list, strips_of(values, runs)[:2]), strict=True):
        width = 4 if kind == FOUR else 8
        numbers = strips_of(values, runs)[2][int(offset) : int(offset) + int(n) * width].reshape(int(n), width)
        seen[int(first) : int(first) + int(n), kept[:width].astype(int)] += torch.from_numpy(numbers)
        starts.append(int(first))
    torch.testing.assert_close(seen[:, :21].float(), values.float(), rtol=0.0, atol=0.0)
    assert float(seen[:, 21].abs().max()) == 0.0
    # The kernels go through them run by run.
    assert starts == sorted(starts)
    assert set(starts) == {run.start for run in runs}


def test_a_run_without_columns_has_a_strip_that_holds_nothing():
    values = torch.zeros(100, 3).double()
    values[:5, 1] = 1.0
    places, columns, numbers = strips_of(values, cut_into_runs(by_tile(values).abs().sum(dim=1) > 0.0))
    assert int(places[:, 1].sum()) == 100
    assert columns[-1].tolist() == [3] * 8
    assert not numbers[int(places[-1, 2]) :].any()
